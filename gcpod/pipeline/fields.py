"""Finding C202: every field and value of a config held against the schema of the code that will read it.

What is refused is what the trainer's own reader refuses (google.protobuf.text_format.Merge, which config_util calls):
https://protobuf.dev/reference/protobuf/textformat-spec/. A plain value given twice is no error there; the last counts.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from gcpod.errors import ConfigError
from gcpod.pipeline.edit import parts_of, quote
from gcpod.pipeline.problem import Config, Problem
from gcpod.pipeline.schema import ROOT, Field, Schema
from gcpod.textproto import Message, Scalar

_INTEGER: Final = re.compile(r"[+-]?(0|[1-9][0-9]*|0[xX][0-9a-fA-F]+|0[0-7]+)")
_OCTAL: Final = re.compile(r"[+-]?0[0-7]+")
_FLOAT: Final = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[fF]?|-?[ \t]*(inf|infinity|nan)f?", re.IGNORECASE,
)
_BOOL: Final = frozenset({"true", "True", "t", "1", "false", "False", "f", "0"})
_RANGES: Final = {
    "int32": (-(1 << 31), (1 << 31) - 1), "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1), "uint64": (0, (1 << 64) - 1),
}
_MAX_DIGITS: Final = 22


def check_fields(config: Config) -> Iterator[Problem]:
    """Unknown fields, values of another type, unknown names of enums, and fields that exclude each other."""
    return _message(config, config.tree, ROOT)


def literal_of(path: str, value: str, schema: Schema) -> str:
    """A value as the text format writes it at a path: quoted where the field is a string.

    Raises:
        ConfigError: C202; no plain value has that path.
    """
    kind = ROOT
    for name, _ in parts_of(path):
        fields = schema.messages.get(kind, {})
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            fix = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(sorted(fields)) or 'its parent'}"
            raise ConfigError("setting", path, f"{_short(kind)} has no field {name}", fix, code="C202")
        kind = fields[name].kind
    if kind in schema.messages:
        fields = schema.messages[kind]
        fix = f"name a field inside it: {', '.join(sorted(fields)[:8])}"
        raise ConfigError("setting", path, f"it is a message, {_short(kind)}", fix, code="C202")
    if kind in ("string", "bytes"):
        return quote(value)
    if kind in schema.enums:
        names = schema.enums[kind]
        if not _is_of(names, value):
            raise ConfigError("setting", path, f"{value!r} is no {_short(kind)}", _nearest(names, value), code="C202")
    elif not _fits(Scalar(value, value, 0, 0), kind):
        raise ConfigError("setting", path, f"{value!r} is no {kind}", f"write {_wanted(kind)}", code="C202")
    return value


def _message(config: Config, message: Message, name: str) -> Iterator[Problem]:
    fields = config.context.schema.messages.get(name)
    if fields is None:
        return
    seen: dict[str, int] = {}
    groups: dict[str, str] = {}
    for key, offset, value in message.fields:
        if key.startswith("["):
            found = f"{key} is an extension, and object_detection {config.context.schema.release} has none"
            yield config.problem("C202", offset, found, "remove it")
            continue
        field = fields.get(key)
        if field is None:
            yield _unknown(config, key, offset, name, fields)
            continue
        other = groups.setdefault(field.oneof, key) if field.oneof else key
        if other != key:
            found = f"{key} and {other} are both set, and only one of them can be"
            yield config.problem("C202", offset, found, f"remove one of them; it is the {field.oneof}")
        elif key in seen and not field.repeated and isinstance(value, Scalar):
            found = f"{key} is set twice, and the last one counts"
            yield config.problem("C202", offset, found, "remove one of them", severity="warning")
        seen[key] = offset
        yield from _value(config, key, offset, value, field)


def _unknown(config: Config, key: str, offset: int, name: str, fields: Mapping[str, Field]) -> Problem:
    schema = config.context.schema
    near = difflib.get_close_matches(key, fields, n=1)
    if near:
        fix = f"did you mean {near[0]}?"
    else:
        owners = sorted(_short(owner) for owner, its in schema.messages.items() if key in its)
        known = f"it is a field of {', '.join(owners[:3])}"
        fix = known if owners else "remove it, or package the release that has it"
    found = f"{_short(name)} of object_detection {schema.release} has no field {key}"
    return config.problem("C202", offset, found, fix)


def _value(config: Config, key: str, offset: int, value: Scalar | Message, field: Field) -> Iterator[Problem]:
    schema = config.context.schema
    is_message = field.kind in schema.messages
    if isinstance(value, Message):
        if is_message:
            yield from _message(config, value, field.kind)
        else:
            yield config.problem("C202", offset, f"{key} is a message here", f"write {key}: and {_wanted(field.kind)}")
    elif is_message:
        yield config.problem("C202", value.start, f"{key} is {_shown(value)}", f"write {key} {{ … }}")
    elif field.kind in schema.enums:
        names = schema.enums[field.kind]
        if value.quoted or not _is_of(names, value.value):
            found, fix = f"{key} is {_shown(value)}, no {_short(field.kind)}", _nearest(names, value.value)
            yield config.problem("C202", value.start, found, fix)
    elif "." not in field.kind and not _fits(value, field.kind):
        fix = f"write {_wanted(field.kind)}"
        yield config.problem("C202", value.start, f"{key} is {_shown(value)}, it wants {field.kind}", fix)


def _is_of(names: Mapping[str, int], value: str) -> bool:
    """Whether an enum has a value of that name or number; text_format reads octal numbers elsewhere, but not here."""
    return value in names or (not _OCTAL.fullmatch(value) and whole(value) in names.values())


def _nearest(names: Mapping[str, int], value: str) -> str:
    number = whole(value)
    if number is not None:
        listed = sorted(names, key=lambda name: abs(names[name] - number))
        return f"use one of: {', '.join(f'{name} ({names[name]})' for name in listed)}"
    near = difflib.get_close_matches(value.upper(), names, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of: {', '.join(names)}"


def _fits(value: Scalar, kind: str) -> bool:
    if kind in ("string", "bytes"):
        return value.quoted
    if value.quoted:
        return False
    if kind == "bool":
        return value.value in _BOOL
    if kind in ("float", "double"):
        return _FLOAT.fullmatch(value.value) is not None or _INTEGER.fullmatch(value.value) is not None
    number, (low, high) = whole(value.value), _RANGES.get(kind, (-math.inf, math.inf))
    return number is not None and low <= number <= high


def number_of(value: Scalar | Message | None, default: float = 0.0) -> float:
    """A number of a config; the default where there is none, or it is not finite: that is this module's to tell."""
    try:
        number = float(value.value.rstrip("fF")) if isinstance(value, Scalar) and not value.quoted else default
    except ValueError:
        return default
    return number if math.isfinite(number) else default


def whole(text: str) -> int | None:
    """A whole number as the text format writes it: decimal, hexadecimal or octal; None for anything else."""
    if not _INTEGER.fullmatch(text) or len(text) > _MAX_DIGITS:
        return None
    return int(text, 8) if _OCTAL.fullmatch(text) else int(text, 0)


def _wanted(kind: str) -> str:
    return {
        "string": 'a text in "quotes"', "bytes": 'a text in "quotes"', "bool": "true or false", "float": "a number",
        "double": "a number",
    }.get(kind, "a whole number" if kind in _RANGES else "one of its names")


def _shown(value: Scalar) -> str:
    return value.text if len(value.text) <= 40 else f"{value.text[:40]}…"


def _short(name: str) -> str:
    return name.rpartition(".")[2]
