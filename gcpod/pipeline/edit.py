"""Text-format messages edited in place: only the characters of the values set change.

Comments, order and spacing of a user's template survive, so its difference from the rendered config stays readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gcpod.errors import ConfigError
from gcpod.textproto import Message, Scalar, parse

_COMMENT = re.compile(r"[ \t]*#[^\n]*")
_PART = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[([0-9]{1,6})\])?")


@dataclass(frozen=True)
class Edit:
    """Characters ``start`` to ``end`` of a text become ``text``."""

    start: int
    end: int
    text: str


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The text with all edits made that do not overlap an earlier one."""
    out, done = [], 0
    for one in sorted(set(edits), key=lambda one: (one.start, one.end)):
        if one.start >= done:
            out += [text[done : one.start], one.text]
            done = one.end
    return "".join([*out, text[done:]])


def quote(value: str) -> str:
    """A string as a quoted literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def parts_of(path: str) -> list[tuple[str, int | None]]:
    """The names of a dotted path, each with its index where it has one: ``a.b[1].c``.

    Raises:
        ConfigError: it is no such path.
    """
    found = [_PART.fullmatch(part) for part in path.split(".")]
    parts = [(match[1], int(match[2]) if match[2] else None) for match in found if match]
    if len(parts) < len(found):
        raise ConfigError("setting", path, "it is no path", "write names with dots between, such as a[1].b")
    return parts


def edit(text: str, values: Mapping[str, str], where: str = "the config") -> str:
    """Sets scalars by dotted path and leaves every other character alone.

    Args:
        text: a text-format message.
        values: path to literal (strings already quoted). Of a repeated field a path means the last one, or the one of
            its index, from 0. A path whose last part is absent is added at the end of its message, and messages missing
            on the way are made; so is one whose index is the number of those that are there.
        where: for messages.

    Raises:
        ConfigError: the text does not parse, a path leads through a scalar, or an index is out of range.
    """
    for path, literal in values.items():
        text = apply(text, _setting(text, path, literal, where))
    return text


def _setting(text: str, path: str, literal: str, where: str) -> list[Edit]:
    here: Scalar | Message = parse(text, where)
    parts = parts_of(path)
    for depth, (name, index) in enumerate(parts):
        if not isinstance(here, Message):
            before = ".".join(name for name, _ in parts[:depth])
            raise ConfigError("setting", path, f"{before} holds a plain value in {where}", "correct the path")
        found = here.all(name)
        if index is not None and index > len(found):
            raise ConfigError("setting", path, f"{where} has {len(found)} {name}", f"use an index up to {len(found)}")
        if not found or index == len(found):
            return insertion(text, here, _nested([name for name, _ in parts[depth:]], literal))
        here = found[-1 if index is None else index]
    if not isinstance(here, Scalar):
        raise ConfigError("setting", path, f"it is a message in {where}", "name a field inside it")
    return [Edit(here.start, here.end, literal)]


def _nested(names: Sequence[str], literal: str) -> str:
    new = f"{names[-1]}: {literal}"
    for name in reversed(names[:-1]):
        new = f"{name} {{ {new} }}"
    return new


def insertion(text: str, message: Message, new: str) -> list[Edit]:
    """A new field after a message's last one, indented as its first one is, with the text's own line ends."""
    if not text[message.start : message.end].strip():
        return [Edit(message.start, message.end, f" {new} ")]
    offset = message.fields[0][1] if message.fields else 0
    indent = text[text.rfind("\n", 0, offset) + 1 : offset]
    indent = indent if not indent.strip() else ""
    if message.tail > message.start:
        comment = _COMMENT.match(text, message.tail)
        at = comment.end() if comment else message.tail
    else:
        at = len(text[: message.end].rstrip())
    end = "\r\n" if "\r\n" in text else "\n"
    return [Edit(at, at, f"{end}{indent}{new}")]
