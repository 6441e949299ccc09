"""gcpod.yaml read into a Spec, and written as a commented file.

The values come from ``yaml.safe_load``; the same text is also composed into nodes, which know their line numbers.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import math
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from gcpod.errors import SpecError
from gcpod.spec import Spec

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def load_spec(path: Path) -> Spec:
    """Reads and checks a gcpod.yaml.

    Raises:
        SpecError: the file is missing, is no YAML, or holds an unknown, repeated or ill-valued key; with its line.
    """
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise SpecError("reading", path, e.strerror or str(e), "write one with `gcpod init`") from e
    if len(raw) > MAX_BYTES:
        raise SpecError("reading", path, f"it has {len(raw)} bytes", "a spec is a few dozen lines; check the path")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise SpecError("reading", path, f"byte {e.start} is not UTF-8", "save it as UTF-8") from e
    return parse_spec(text, path)


def parse_spec(text: str, path: Path) -> Spec:
    """The Spec in a text; ``path`` is for messages and for the folder that relative paths start from.

    Raises:
        SpecError: as for load_spec.
    """
    try:
        _refuse_odd(text, path)
        values = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError) as e:
        raise SpecError("reading", f"{path}{_mark(e, text)}", _problem(e), "correct the YAML there") from e
    if node is None or values is None:
        return Spec(folder=path.parent)
    spec: Spec = _Reader(path).record(Spec, values, node, "")
    return dataclasses.replace(spec, folder=path.parent)


def _refuse_odd(text: str, path: Path) -> None:
    """What no spec needs: aliases can make a short text huge, tags make safe_load raise what is no YAMLError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
        if isinstance(event, yaml.AliasEvent):
            raise SpecError("reading", where, "it uses a YAML alias (*name)", "write the value out")
        if getattr(event, "tag", None) is not None:
            raise SpecError("reading", where, "it uses a YAML tag (!name)", "write the value without it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SpecError("reading", where, f"it is nested deeper than {MAX_DEPTH}", "flatten it")


def _mark(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark:
        return f":{mark.line + 1}:{mark.column + 1}"
    at = getattr(error, "position", None)
    return "" if at is None else f":{text.count(chr(10), 0, at) + 1}"


def _problem(error: Exception) -> str:
    found = getattr(error, "problem", None) or getattr(error, "reason", None)
    return str(found or "a number or a date that cannot be read")


class _Reader:
    """Turns parsed values into dataclasses, knowing where each one stands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, node: yaml.Node, found: str, fix: str) -> SpecError:
        mark = node.start_mark
        return SpecError("reading", f"{self.path}:{mark.line + 1}", found, fix)

    def record(self, cls: Any, value: Any, node: yaml.Node, where: str) -> Any:
        if not isinstance(value, dict) or not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{where.rstrip('.') or 'the file'} is no mapping", "write it as `key: value` lines")
        fields = {f.name: f for f in dataclasses.fields(cls) if not f.metadata.get("hidden")}
        hints = typing.get_type_hints(cls)
        given: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            if key not in fields:
                raise self.fail(key_node, f"unknown key {where + key!r}", _suggest(key, fields))
            if key in given:
                raise self.fail(key_node, f"{where + key} is given twice", "keep one of them")
            given[key] = self.value(hints[key], fields[key], value[key], value_node, where + key)
        return cls(**{key: v for key, v in given.items() if v is not _UNSET})

    def value(self, hint: Any, field: dataclasses.Field[Any], value: Any, node: yaml.Node, where: str) -> Any:
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if value is None:
            return None if type(None) in options else _UNSET
        kind = next(o for o in options if o is not type(None))
        if dataclasses.is_dataclass(kind):
            return self.record(kind, value, node, where + ".")
        origin = typing.get_origin(kind)
        if origin is tuple:
            return self.several(typing.get_args(kind)[0], field, value, node, where)
        if origin is collections.abc.Mapping:
            if typing.get_args(kind)[1] is not str:
                return self.lists(value, node, where)
            return self.pairs(value, node, where, bool(field.metadata.get("scalars")))
        return self.scalar(str if origin is typing.Literal else kind, field, value, node, where)

    def pairs(self, value: Any, node: yaml.Node, where: str, scalars: bool) -> dict[str, str]:
        """Names by name; with ``scalars`` numbers and truth values count as they are written."""
        if not isinstance(value, dict) or not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{where} is no mapping of names", "write it as `old: new` lines")
        seen: set[str] = set()
        pairs: dict[str, str] = value
        if scalars:
            plain = [
                (key.value, one.value) for key, one in node.value
                if isinstance(one, yaml.ScalarNode) and one.tag != "tag:yaml.org,2002:null"
            ]
            pairs = dict(plain) if len(plain) == len(node.value) else value
        for (key_node, _), (key, name) in zip(node.value, pairs.items(), strict=False):
            fit = all(isinstance(one, str) and _printable(one) for one in (key, name))
            if not (fit and key and (name or scalars)):
                raise self.fail(key_node, f"{where} maps {key!r} to {name!r}", "write names; quote numbers and yes/no")
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise self.fail(key_node, f"{where} names {key_node.value!r} twice", "keep one of them")
            seen.add(key_node.value)
        return pairs

    def several(
        self, kind: Any, field: dataclasses.Field[Any], value: Any, node: yaml.Node, where: str,
    ) -> tuple[Any, ...]:
        """Names, or mappings of scalars."""
        if kind is str:
            return self.names(value, node, where, bool(field.metadata.get("free")))
        if not isinstance(value, list) or not isinstance(node, yaml.SequenceNode):
            raise self.fail(node, f"{where} is no list of mappings", "write each as `- {key: value, other: value}`")
        return tuple(self.pairs(one, child, f"{where}[{n}]", True)
                     for n, (one, child) in enumerate(zip(value, node.value, strict=True)))

    def lists(self, value: Any, node: yaml.Node, where: str) -> dict[str, tuple[str, ...]]:
        """Lists of scalars by name, each scalar as it is written."""
        if not isinstance(value, dict) or not isinstance(node, yaml.MappingNode):
            raise self.fail(node, f"{where} is no mapping of lists", "write it as `key: [first, second]` lines")
        found: dict[str, tuple[str, ...]] = {}
        for key, listed in node.value:
            fit = isinstance(key, yaml.ScalarNode) and isinstance(listed, yaml.SequenceNode) and listed.value and all(
                isinstance(one, yaml.ScalarNode) and one.tag != "tag:yaml.org,2002:null" for one in listed.value)
            names = [one.value for one in listed.value] if fit else []
            if not names or not all(map(_printable, [key.value, *names])) or not key.value:
                raise self.fail(key, f"{where} holds what is no list of values", "write it as `key: [first, second]`")
            if key.value in found or len(set(names)) != len(names):
                raise self.fail(key, f"{where} names something twice", "keep each key and each value once")
            found[key.value] = tuple(names)
        return found

    def names(self, value: Any, node: yaml.Node, where: str, free: bool = False) -> tuple[str, ...]:
        """Texts that are not empty and, unless they are free, differ."""
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.fail(node, f"{where} is no list of names", "write it as [first, second]; quote numbers")
        if not free and len(set(value)) != len(value):
            raise self.fail(node, f"{where} names something twice", "keep each name once")
        if not all(map(_printable, value)):
            raise self.fail(node, f"{where} holds a control character", "remove it")
        return tuple(value)

    def scalar(self, kind: type, field: dataclasses.Field[Any], value: Any, node: yaml.Node, where: str) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = _float(value)
        if kind is float and isinstance(value, str):
            value = _number(value)
        if type(value) is not kind:
            raise self.fail(node, f"{where} is {node_text(node)!r}", f"give {_KINDS[kind]}")
        if isinstance(value, str) and not _printable(value):
            raise self.fail(node, f"{where} holds a control character", "remove it")
        rule = field.metadata
        low, high = rule.get("min"), rule.get("max")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            limits = f"at least {low}" if high is None else f"between {low} and {high}"
            raise self.fail(node, f"{where} is {value}", f"give {_KINDS[kind]} {limits}")
        if "choices" in rule and value not in rule["choices"]:
            raise self.fail(node, f"{where} is {value!r}", _suggest(value, rule["choices"]))
        if "pattern" in rule and not rule["pattern"].fullmatch(value):
            raise self.fail(node, f"{where} is {value!r}", f"it must match {rule['pattern'].pattern}")
        return value


_UNSET = object()


def _printable(text: str) -> bool:
    """Whether a path or a name can hold it: no control character, no half of a surrogate pair."""
    return not any(c < " " or "\ud800" <= c <= "\udfff" for c in text)


def _float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _number(text: str) -> float | str:
    """YAML 1.1 reads 1e-3 as text; people mean the number."""
    try:
        return float(text)
    except ValueError:
        return text


def node_text(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "not a plain value"


def _suggest(word: object, known: typing.Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"


def render_spec(spec: Spec) -> str:
    """The commented YAML text of a spec, as `gcpod init` writes it; parse_spec gives the same Spec back."""
    lines = ["# What gcpod trains, and where. Paths are relative to this file; empty values take their default.", ""]
    lines += _render(spec, 0)
    return "\n".join(lines) + "\n"


def _render(record: Any, depth: int) -> list[str]:
    pad, lines = "  " * depth, []
    for f in dataclasses.fields(record):
        if f.metadata.get("hidden"):
            continue
        value, comment = getattr(record, f.name), f.metadata["comment"]
        if dataclasses.is_dataclass(value):
            lines += ["", f"{pad}# {comment}"] if depth == 0 else [f"{pad}# {comment}"]
            lines += [f"{pad}{f.name}:", *_render(value, depth + 1)]
        else:
            lines.append(f"{pad}{f.name}:{_scalar(value)}  # {comment}")
    return lines


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    plain = list(value) if isinstance(value, tuple) else value
    if isinstance(value, typing.Mapping):
        plain = {key: list(one) if isinstance(one, tuple) else one for key, one in value.items()}
    return " " + yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")
