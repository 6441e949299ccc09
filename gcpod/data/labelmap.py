"""Label maps: which name has which id, derived from the data, imposed, or read from the Object Detection API's files.

The file format is protobuf text (https://protobuf.dev/reference/protobuf/textformat-spec/) of ``StringIntLabelMap``
(https://github.com/tensorflow/models/blob/master/research/object_detection/protos/string_int_label_map.proto).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gcpod.errors import ConfigError, DataError
from gcpod.textproto import Message, Scalar, parse, position

_MAX_ID = (1 << 31) - 1
_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True)
class LabelItem:
    """One class; id 0 is the background's and never used.

    Source: "Label Maps" in
    https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/using_your_own_dataset.md
    """

    id: int
    name: str
    display_name: str = ""


@dataclass(frozen=True)
class LabelMap:
    """The classes in the order of their ids.

    Raises:
        DataError: D101; no items, an empty name, two items with one name or id, or an id outside 1 to 2**31 - 1.
    """

    items: tuple[LabelItem, ...]

    def __post_init__(self) -> None:
        if not self.items:
            raise _wrong("the list of classes", "it is empty", "name at least one class")
        names: set[str] = set()
        ids: set[int] = set()
        for item in self.items:
            if any("\ud800" <= char <= "\udfff" for char in item.name + item.display_name):
                raise _wrong(f"class {item.id}", "its name holds half of a surrogate pair", "write it in UTF-8")
            if not item.name or item.name in names:
                found = f"the name {item.name!r} is empty or used twice"
                raise _wrong(f"class {item.id}", found, "give each class its own name")
            if not 1 <= item.id <= _MAX_ID or item.id in ids:
                found = f"id {item.id} is used twice or outside 1 to 2**31 - 1"
                raise _wrong(f"class {item.name!r}", found, "number the classes from 1")
            names.add(item.name)
            ids.add(item.id)
        object.__setattr__(self, "items", tuple(sorted(self.items, key=lambda item: item.id)))

    @classmethod
    def derive(cls, labels: Iterable[str]) -> LabelMap:
        """Ids from 1 in the order of the names' code points, whatever order the data comes in."""
        return cls.impose(sorted(set(labels)))

    @classmethod
    def impose(cls, names: Iterable[str]) -> LabelMap:
        """Ids from 1 in the order given."""
        return cls(tuple(LabelItem(index, name) for index, name in enumerate(names, 1)))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.items)

    @property
    def num_classes(self) -> int:
        """The pipeline config's ``num_classes``: the highest id, as the trainer indexes class vectors by id - 1."""
        return self.items[-1].id

    @property
    def contiguous(self) -> bool:
        """Whether the ids are 1 to n; COCO's map, for one, has gaps, which cost unused outputs but do train."""
        return self.num_classes == len(self.items)

    def ids(self) -> dict[str, int]:
        """Ids by label: by name, and by display name where no item has that as its name."""
        displayed = {item.display_name: item.id for item in self.items if item.display_name}
        return displayed | {item.name: item.id for item in self.items}

    def nearest(self, label: str) -> str | None:
        """The known label most like one that is unknown, or None when none is like it."""
        known = {known.casefold(): known for known in self.ids()}
        close = difflib.get_close_matches(label.casefold(), known, n=1)
        return known[close[0]] if close else None


def render_pbtxt(label_map: LabelMap) -> str:
    """The text of ``label_map.pbtxt``, one item after another by id; UTF-8 once encoded."""
    return "\n".join(map(_render_item, label_map.items))


def parse_pbtxt(text: str, path: Path) -> LabelMap:
    """Parses a label map; ``path`` is only for messages. Fields other than id, name and display_name are passed over.

    An item without a name takes its display name. Ids may have gaps, see `LabelMap.contiguous`.

    Raises:
        DataError: D101; not protobuf text, or ids and names that `LabelMap` refuses; with the line where one is at
            fault.
    """
    try:
        fields = parse(text, str(path)).fields
    except ConfigError as err:
        raise _wrong(err.on, err.found, err.fix) from err
    items: dict[str | int, LabelItem] = {}
    for name, offset, value in fields:
        where = f"{path}:{position(text, offset)}"
        if name != "item" or not isinstance(value, Message):
            raise _wrong(where, f"{name!r} is no item", "write item { id: 1 name: 'x' }")
        item = _item(value, where)
        for key in (item.id, item.name):
            if key in items:
                raise _wrong(where, f"{key!r} is already taken", "give each item its own id and name")
            items[key] = item
    if not items:
        raise _wrong(path, "it holds no item", "write item { id: 1 name: 'x' }")
    return LabelMap(tuple(item for key, item in items.items() if isinstance(key, int)))


def read_pbtxt(path: Path) -> LabelMap:
    """Reads a label map from disk (UTF-8, with or without byte order mark).

    Raises:
        DataError: D101; unreadable, not UTF-8, or see `parse_pbtxt`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise _wrong(path, str(err), "give a readable label map in UTF-8") from err
    return parse_pbtxt(text, path)


def _render_item(item: LabelItem) -> str:
    display = f"  display_name: {_quoted(item.display_name)}\n" if item.display_name else ""
    return f"item {{\n  id: {item.id}\n  name: {_quoted(item.name)}\n{display}}}\n"


def _quoted(text: str) -> str:
    def escaped(char: str) -> str:
        return _ESCAPES.get(char) or (char if ord(char) >= 0x20 and ord(char) != 0x7F else f"\\{ord(char):03o}")

    return f"'{''.join(map(escaped, text))}'"


def _item(message: Message, where: str) -> LabelItem:
    found = {}
    for key in ("id", "name", "display_name"):
        values = message.all(key)
        if len(values) > 1:
            raise _wrong(where, f"{key} stands twice in one item", "keep one")
        found[key] = values[0] if values else None
    number = found["id"]
    if not isinstance(number, Scalar) or not re.fullmatch("[0-9]{1,10}", number.text):
        raise _wrong(where, "the item has no whole number as id", "write id: 1, 2, 3…")
    name, display_name = _label(found["name"], where), _label(found["display_name"], where)
    try:
        return LabelMap((LabelItem(int(number.text), name or display_name, display_name),)).items[0]
    except DataError as err:
        raise _wrong(where, err.found, err.fix) from err


def _label(value: Scalar | Message | None, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, Scalar) or not value.quoted:
        raise _wrong(where, "a name is not in quotes", "write name: 'x'")
    if any("\ud800" <= char <= "\udfff" for char in value.value):
        raise _wrong(where, "a name is not UTF-8", "store the file as UTF-8")
    return value.value


def _wrong(on: object, found: str, fix: str) -> DataError:
    return DataError("reading the label map", on, found, fix, code="D101")
