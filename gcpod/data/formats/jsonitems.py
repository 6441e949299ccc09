"""Walks a large JSON object whose members are mostly long arrays, and gives their items one by one with their lines.

Only the text and one item are in memory at a time; `json.load` of COCO's training annotations needs several times the
size of the file. What counts as JSON is what Python's own parser takes (https://docs.python.org/3/library/json.html),
NaN and Infinity included.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from gcpod.errors import DataError

Id = int | str
"""What images and categories are numbered by; COCO has whole numbers, some tools write texts."""
CORRECT_IT: Final = "correct it in the labelling tool and export again"

_MAX_SIDE = 1 << 31
_SURROGATE = re.compile("[\\ud800-\\udfff]")
_BLANK = re.compile(r"[ \t\n\r]*")
_FIX = "export or download the file again"


class Item(NamedTuple):
    """A member of the outer object, or an item of a member that is an array.

    Attributes:
        key: the member's.
        number: from 0 within the array; -1 for the member itself, which comes before its items.
        value: the item; of a member that is an array an empty list, of another one all of it.
        line: where it begins, from 1.
        doubled: a key that stands twice in one object within the value, where the last one won; "" where none does.
    """

    key: str
    number: int
    value: object
    line: int
    doubled: str = ""


def read_json(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 as recognised by RFC 4627, section 3
    (https://www.rfc-editor.org/rfc/rfc4627), with or without byte order mark.

    Raises:
        DataError: D104; unreadable, or not in that encoding, with the line.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise wrong_json(path, err.strerror or str(err), "make the file readable") from err
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise wrong_json(f"{path}:{line}", f"it is not {encoding} ({err.reason})", "store it as UTF-8") from err


def walk(text: str, path: Path) -> Iterator[Item]:
    """The members of the object that is the whole text, in its order; ``path`` is only for messages.

    Raises:
        DataError: D104 with line and column, once the walk comes to it; not JSON, cut off, another value than an
            object, a key twice in the outer object, a whole number of thousands of digits, or too deep nesting.
    """
    walker = _Walker(text, path)
    walker.expect("{", "it is no JSON object")
    if walker.passes("}"):
        return walker.finish()
    keys: set[str] = set()
    while True:
        yield from _member(walker, keys)
        if walker.passes("}"):
            return walker.finish()
        walker.expect(",", "a comma or } is missing")


def _member(walker: _Walker, keys: set[str]) -> Iterator[Item]:
    line = walker.seek()
    key, _ = walker.value()
    if not isinstance(key, str) or key in keys:
        raise walker.wrong(f"the key {shown(key)} stands twice" if isinstance(key, str) else "a key is not in quotes")
    keys.add(key)
    walker.expect(":", "a colon is missing")
    if not walker.passes("["):
        value, doubled = walker.value()
        yield Item(key, -1, value, line, doubled)
        return
    yield Item(key, -1, [], line)
    index = 0
    while index or not walker.passes("]"):
        line = walker.seek()
        value, doubled = walker.value()
        yield Item(key, index, value, line, doubled)
        index += 1
        if walker.passes("]"):
            return
        walker.expect(",", "a comma or ] is missing")


class _Walker:
    """A place in the text, and the number of the line that it has come to."""

    def __init__(self, text: str, path: Path) -> None:
        self._text, self._path = text, path
        self._at, self._counted, self._line = 0, 0, 1
        self._doubles: list[str] = []
        self._decode = _decoder(self._doubles).raw_decode

    def seek(self) -> int:
        """Goes to the next character that is not blank; its line."""
        self._at = _end_of_blank(self._text, self._at)
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def passes(self, char: str) -> bool:
        """Goes past the character when it comes next."""
        self._at = _end_of_blank(self._text, self._at)
        found = self._text.startswith(char, self._at)
        self._at += found
        return found

    def expect(self, char: str, otherwise: str) -> None:
        """Goes past the character that has to come next."""
        if not self.passes(char):
            raise self.wrong(otherwise if self._at < len(self._text) else "it ends in the middle")

    def value(self) -> tuple[object, str]:
        """Goes past the value that has to come next; gives it, and a key that stands twice within."""
        self._at = _end_of_blank(self._text, self._at)
        self._doubles.clear()
        try:
            value, self._at = self._decode(self._text, self._at)
        except json.JSONDecodeError as err:
            self._at = err.pos
            ended = err.pos >= len(self._text)
            raise self.wrong("it ends in the middle" if ended else f"it is no JSON ({err.msg})") from None
        except RecursionError:
            raise self.wrong("a value nests too deep") from None
        except ValueError:
            raise self.wrong("a number in this value has thousands of digits") from None
        return value, self._doubles[0] if self._doubles else ""

    def finish(self) -> None:
        """Makes sure that nothing follows."""
        self._at = _end_of_blank(self._text, self._at)
        if self._at < len(self._text):
            raise self.wrong("something follows the end of the object")

    def wrong(self, found: str) -> DataError:
        """The error for the present place."""
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        return wrong_json(f"{self._path}:{line}", f"{found} (column {column})", _FIX)


def id_of(value: dict[str, object], key: str) -> Id:
    """The id that an item has under a key.

    Raises:
        DataError: D104; there is none, or another value.
    """
    found = value.get(key)
    if isinstance(found, float) and found.is_integer():
        return int(found)
    if isinstance(found, bool) or not isinstance(found, (int, str)):
        raise _unfit(value, key)
    return found


def text_of(value: dict[str, object], key: str) -> str:
    """The text that an item has under a key, which is not empty and can be stored as UTF-8.

    Raises:
        DataError: D104; there is none, or another value.
    """
    found = value.get(key)
    if not isinstance(found, str) or not found or _SURROGATE.search(found):
        raise _unfit(value, key)
    return found


def pixels_of(value: dict[str, object], key: str) -> int:
    """The side of an image that an item has under a key; 0 where it is missing or null.

    Raises:
        DataError: D104; it is no number, negative, or no image's.
    """
    found = value.get(key)
    if found is None:
        return 0
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found < _MAX_SIDE:
        raise _unfit(value, key)
    return int(found)


def number_of(value: object) -> float:
    """A number; infinite where it is too large for a float.

    Raises:
        DataError: D104; it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_item(f"it has {shown(value)} for a number of pixels")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def shown(value: object) -> str:
    """A value for a message, cut when it is long."""
    return repr(value)[:40]


def wrong_item(found: str, fix: str = CORRECT_IT) -> DataError:
    """The error for an item that was read and cannot be used; who knows its place makes a finding of it."""
    return DataError("reading", "an item", found, fix, code="D104")


def wrong_json(on: object, found: str, fix: str) -> DataError:
    """The error for a file of annotations in JSON that cannot be read."""
    return DataError("reading the annotations", on, found, fix, code="D104")


def _unfit(value: dict[str, object], key: str) -> DataError:
    return wrong_item(f"its {key} is {shown(value[key])}" if key in value else f"it has no {key}")


def _decoder(doubles: list[str]) -> json.JSONDecoder:
    def made(pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        if len(value) < len(pairs):
            once: set[str] = set()
            for key, _ in pairs:
                if key in once:
                    doubles.append(key)
                once.add(key)
        return value

    return json.JSONDecoder(object_pairs_hook=made)


def _end_of_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at
