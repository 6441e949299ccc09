"""Protobuf's text format, parsed without a schema: enough for label maps as people write them by hand.

Grammar: https://protobuf.dev/reference/protobuf/textformat-spec/. Scalars stay as they are written: quoted strings
become bytes (escapes resolved, neighbours joined), everything else stays text for the caller to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from gcpod.errors import DataError

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<word>[-+]?[A-Za-z0-9_.]+(?:[-+][0-9]+)?)
      | (?P<sign>[{}<>\[\]:;,])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_SIMPLE = dict(zip("abfnrtv?\\'\"", "\a\b\f\n\r\t\v?\\'\"", strict=True))
_MAX_DEPTH = 32


@dataclass(frozen=True)
class Field:
    """One ``name: value`` or ``name { … }``, with the line of its name."""

    name: str
    value: bytes | str | Message
    line: int


@dataclass(frozen=True)
class Message:
    """The fields between one pair of braces, repeated ones as often as they stand there."""

    fields: tuple[Field, ...]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def parse_text(text: str, path: Path) -> Message:
    """Parses a whole file; ``path`` is only for messages.

    Raises:
        DataError: D101, with file and line; no protobuf text, or nested deeper than 32.
    """
    parser = _Parser(_tokens(text, path), path)
    return parser.message(closing="", depth=0)


def _tokens(text: str, path: Path) -> list[_Token]:
    tokens: list[_Token] = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            _fail(path, line, f"{text[at : at + 20].splitlines()[0]!r} is not understood")
        if match.lastgroup != "space":
            tokens.append(_Token(str(match.lastgroup), match.group(), line))
        line += match.group().count("\n")
        at = match.end()
    tokens.append(_Token("end", "", line))
    return tokens


class _Parser:
    """Recursive descent over the tokens; the last token is always "end"."""

    def __init__(self, tokens: list[_Token], path: Path) -> None:
        self._tokens = tokens
        self._path = path
        self._at = 0

    def message(self, closing: str, depth: int) -> Message:
        if depth > _MAX_DEPTH:
            self._fail("braces are nested too deep")
        found: list[Field] = []
        while self._peek().text != closing:
            found += self._field(depth)
            self._skip(",", ";")
        self._at += 1
        return Message(tuple(found))

    def _field(self, depth: int) -> list[Field]:
        name = self._next()
        if name.kind != "word":
            self._fail(f"a field's name was expected, {name.text or 'the end of the file'!r} found", name.line)
        colon = self._skip(":")
        if self._skip("["):
            values = []
            while not self._skip("]"):
                values.append(self._value(depth))
                self._skip(",")
        elif colon or self._peek().text in ("{", "<"):
            values = [self._value(depth)]
        else:
            self._fail(f"':' is missing after {name.text!r}", name.line)
        return [Field(name.text, value, name.line) for value in values]

    def _value(self, depth: int) -> bytes | str | Message:
        token = self._next()
        if token.kind == "word":
            return token.text
        if token.text in ("{", "<"):
            return self.message("}" if token.text == "{" else ">", depth + 1)
        if token.kind != "string":
            self._fail(f"a value was expected, {token.text or 'the end of the file'!r} found", token.line)
        value = self._unquoted(token)
        while self._peek().kind == "string":
            value += self._unquoted(self._next())
        return value

    def _unquoted(self, token: _Token) -> bytes:
        out, at, body = b"", 0, token.text[1:-1]
        for match in _ESCAPE.finditer(body):
            octal, hexa, short, long, simple = match.groups()
            out += body[at : match.start()].encode("utf-8", "surrogatepass")
            at = match.end()
            if octal or hexa:
                out += bytes((int(octal, 8) & 0xFF if octal else int(hexa, 16),))
            elif short or long:
                point = int(short or long, 16)
                if point > 0x10FFFF:
                    self._fail(f"{match.group()} is no character", token.line)
                out += chr(point).encode("utf-8", "surrogatepass")
            elif simple in _SIMPLE:
                out += _SIMPLE[simple].encode()
            else:
                self._fail(f"the escape {match.group()!r} does not exist", token.line)
        return out + body[at:].encode("utf-8", "surrogatepass")

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._peek()
        if token.kind != "end":
            self._at += 1
        return token

    def _skip(self, *signs: str) -> bool:
        token = self._peek()
        if token.kind == "sign" and token.text in signs:
            self._at += 1
            return True
        return False

    def _fail(self, found: str, line: int | None = None) -> NoReturn:
        _fail(self._path, self._peek().line if line is None else line, found)


def _fail(path: Path, line: int, found: str) -> NoReturn:
    raise DataError(
        "reading the label map", f"{path}:{line}", found, "write items like item { id: 1 name: 'x' }", code="D101",
    )
