"""Text-format messages edited in place: only the characters of the values set change.

Comments, order and spacing of a user's template survive, so its difference from the rendered config stays readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gcpod.errors import ConfigError
from gcpod.textproto import Message, Scalar, parse

_COMMENT = re.compile(r"[ \t]*#[^\n]*")


def quote(value: str) -> str:
    """A string as a quoted literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def edit(text: str, values: Mapping[str, str], where: str = "the config") -> str:
    """Sets scalars by dotted path and leaves every other character alone.

    Args:
        text: a text-format message.
        values: path to literal (strings already quoted); a path whose last part is absent is added at the end of its
            message, and messages missing on the way are made.
        where: for messages.

    Raises:
        ConfigError: the text does not parse, or a path leads through a scalar.
    """
    for path, literal in values.items():
        text = _set(text, path, literal, where)
    return text


def _set(text: str, path: str, literal: str, where: str) -> str:
    here: Scalar | Message = parse(text, where)
    names = path.split(".")
    for depth, name in enumerate(names):
        if not isinstance(here, Message):
            raise ConfigError("setting", path, f"{'.'.join(names[:depth])} holds a plain value in {where}",
                              "correct the path")
        found = here.all(name)
        if not found:
            return _insert(text, here, names[depth:], literal)
        here = found[-1]
    if not isinstance(here, Scalar):
        raise ConfigError("setting", path, f"it is a message in {where}", "name a field inside it")
    return text[: here.start] + literal + text[here.end :]


def _insert(text: str, message: Message, names: list[str], literal: str) -> str:
    new = f"{names[-1]}: {literal}"
    for name in reversed(names[:-1]):
        new = f"{name} {{ {new} }}"
    if not text[message.start : message.end].strip():
        return f"{text[: message.start]} {new} {text[message.end :]}"
    offset = message.fields[0][1] if message.fields else 0
    indent = text[text.rfind("\n", 0, offset) + 1 : offset]
    indent = indent if not indent.strip() else ""
    if message.tail > message.start:
        comment = _COMMENT.match(text, message.tail)
        at = comment.end() if comment else message.tail
    else:
        at = len(text[: message.end].rstrip())
    return f"{text[:at]}\n{indent}{new}{text[at:]}"
