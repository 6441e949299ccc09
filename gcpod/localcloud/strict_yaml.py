"""A YAML file of settings read into frozen dataclasses, with the line of whatever does not fit.

The client's own reader knows gcpod.yaml; the local cloud imports nothing of the client, so it has a smaller one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gcpod.errors import SpecError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
Record = TypeVar("Record")
_KINDS: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class UnfitError(SpecError):
    """What a dataclass raises in ``__post_init__`` of a value that does not fit; ``field`` is the one to blame."""

    def __init__(self, kind: str, field: str, found: str, fix: str) -> None:
        super().__init__("making", kind, found, fix)
        self.field = field


def load_record(path: Path, cls: type[Record]) -> Record:
    """Reads a file into a dataclass.

    Raises:
        SpecError: it is missing, is no YAML, or holds an unknown, repeated or unfit value; with its line.
    """
    try:
        with path.open("rb") as f:
            raw = f.read(MAX_BYTES + 1)
    except (OSError, ValueError) as e:
        raise SpecError("reading", path, getattr(e, "strerror", None) or str(e), "check the path") from e
    if len(raw) > MAX_BYTES:
        raise SpecError("reading", path, f"it has more than {MAX_BYTES} bytes", "check the path")
    try:
        return parse_record(raw.decode("utf-8-sig"), path, cls)
    except UnicodeDecodeError as e:
        raise SpecError("reading", path, f"byte {e.start} is not UTF-8", "save it as UTF-8") from e


def parse_record(text: str, path: Path, cls: type[Record]) -> Record:
    """The dataclass that a text describes; ``path`` is for messages.

    Fields may be str, int, float, bool, a Literal of texts, unions of those, a dataclass or a tuple of one.

    Raises:
        SpecError: as for load_record.
    """
    try:
        _refuse_odd(text, path)
        values = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError) as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        told = [getattr(e, "context", None), getattr(e, "problem", None)] if mark else []
        found = ", ".join(filter(None, told)) or "a number, a date or a character that cannot be read"
        raise SpecError("reading", where, found, "correct the YAML there") from e
    if node is None or values is None:
        return cls()
    made: Record = _Reader(path).record(cls, values, node, "")
    return made


def _refuse_odd(text: str, path: Path) -> None:
    """What no settings need: aliases can make a short text huge, tags make safe_load raise what is no YAMLError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
        if isinstance(event, yaml.AliasEvent):
            raise SpecError("reading", where, "it uses a YAML alias (*name)", "write the value out; quote a lone *")
        if getattr(event, "tag", None) is not None:
            raise SpecError("reading", where, "it uses a YAML tag (!name)", "write the value without it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SpecError("reading", where, f"it is nested deeper than {MAX_DEPTH}", "flatten it")


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, node: yaml.Node, found: str, fix: str) -> SpecError:
        return SpecError("reading", f"{self.path}:{node.start_mark.line + 1}", found, fix)

    def record(self, cls: Any, value: Any, node: yaml.Node, where: str) -> Any:
        if not isinstance(value, dict) or not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{where.rstrip('.') or 'the file'} is no mapping", "write it as `key: value` lines")
        hints = typing.get_type_hints(cls)
        given: dict[str, Any] = {}
        nodes: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            if key not in hints or key not in value:
                raise self.fail(key_node, f"unknown key {where + key!r}", suggest(key, hints))
            if key in given:
                raise self.fail(key_node, f"{where + key} is given twice", "keep one of them")
            given[key] = self.value(hints[key], value[key], value_node, where + key)
            nodes[key] = value_node
        for field in dataclasses.fields(cls):
            if field.default is field.default_factory is dataclasses.MISSING and field.name not in given:
                raise self.fail(node, f"{where}{field.name} is missing", f"add `{field.name}: …`")
        try:
            return cls(**given)
        except UnfitError as e:
            raise self.fail(nodes.get(e.field, node), where + e.found, e.fix) from e

    def value(self, hint: Any, value: Any, node: yaml.Node, where: str) -> Any:
        if dataclasses.is_dataclass(hint):
            return self.record(hint, value, node, where + ".")
        if typing.get_origin(hint) is tuple:
            if not isinstance(value, list) or not isinstance(node, yaml.SequenceNode):
                raise self.fail(node, f"{where} is no list", "start each item with `- `")
            kind = typing.get_args(hint)[0]
            items = enumerate(zip(value, node.value, strict=True))
            return tuple(self.value(kind, one, child, f"{where}[{n}]") for n, (one, child) in items)
        return self.scalar(hint, value, node, where)

    def scalar(self, hint: Any, value: Any, node: yaml.Node, where: str) -> Any:
        options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
        words = [word for one in options if typing.get_origin(one) is typing.Literal for word in typing.get_args(one)]
        if float in options and type(value) is int and abs(value) < 2**53:
            value = float(value)
        fits = type(value) in options if value is not None else False
        if isinstance(value, str):
            fits = (fits or value in words) and value.isprintable()
        if fits and not (isinstance(value, float) and not math.isfinite(value)):
            return value
        told = repr(node.value) if isinstance(node, yaml.ScalarNode) else "no plain value"
        kinds = [_KINDS[one] for one in options if one in _KINDS]
        fix = f"give {' or '.join([*kinds, *(f'`{word}`' for word in words)])}"
        raise self.fail(node, f"{where} is {told}", suggest(value, words) if words and not kinds else fix)


def suggest(word: object, known: Iterable[str]) -> str:
    """The fix for a name that is not known: the nearest one, else all."""
    names = sorted(known)
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"
