"""Protocol buffer text format read into a tree that knows where each thing stands.

Grammar: https://protobuf.dev/reference/protobuf/textformat-spec/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gcpod.errors import ConfigError

MAX_DEPTH = 100
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[fF]?|-[ \t]*(?:inf|nan)\w*)
      | (?P<mark>[{}<>\[\]:,;/.])""",
    re.VERBOSE,
)
CURLY = "“”„‟«»‘’‚‛"
"""Typographic quotes, those for a single quote last."""
CURLY_SINGLE = CURLY[6:]
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_SIMPLE = dict(zip("abfnrtv?\\'\"", "\a\b\f\n\r\t\v?\\'\"", strict=True))


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Scalar:
    """A value as written: ``text`` with its quotes, ``value`` without them; offsets in characters.

    Bytes of a string that are no UTF-8 stand in ``value`` as lone surrogates.
    """

    text: str
    value: str
    start: int
    end: int

    @property
    def quoted(self) -> bool:
        return self.text[:1] in ("'", '"')


@dataclass
class Message:
    """Fields in their order; ``start`` and ``end`` enclose the body, without its braces.

    ``tail`` is where the last field ends, with its list's bracket and its separator; ``start`` when there is none.
    """

    start: int
    end: int = 0
    tail: int = 0
    fields: list[tuple[str, int, Scalar | Message]] = field(default_factory=list)

    def all(self, name: str) -> list[Scalar | Message]:
        return [value for key, _, value in self.fields if key == name]

    def find(self, path: str) -> Scalar | Message | None:
        """The last value at a dotted path (the text format lets the last one win), None when absent."""
        here: Scalar | Message = self
        for name in path.split("."):
            found = here.all(name) if isinstance(here, Message) else []
            if not found:
                return None
            here = found[-1]
        return here

    def text(self, path: str) -> str | None:
        """The unquoted scalar at a path, None when absent or a message."""
        value = self.find(path)
        return value.value if isinstance(value, Scalar) else None

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Scalar]]:
        """Every scalar with its dotted path, in order."""
        for name, _, value in self.fields:
            if isinstance(value, Scalar):
                yield prefix + name, value
            else:
                yield from value.walk(f"{prefix}{name}.")


def position(text: str, offset: int) -> str:
    """``line:column`` of an offset, both counted from 1."""
    return f"{text.count(chr(10), 0, offset) + 1}:{offset - (text.rfind(chr(10), 0, offset) + 1) + 1}"


def offset_of(text: str, line: int, column: int) -> int:
    """The offset of a place that `position` named."""
    return sum(len(row) + 1 for row in text.split("\n")[: line - 1]) + column - 1


def parse(text: str, where: str = "the config") -> Message:
    """Reads a whole text.

    Raises:
        ConfigError: with line and column; code C204 for typographic quotes, C200 for anything else.
    """
    return _Parser(text, where).whole()


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.tokens = list(self._scan())
        self.at = 0

    def _scan(self) -> Iterator[Token]:
        offset = 1 if self.text.startswith("\ufeff") else 0
        while offset < len(self.text):
            match = _TOKEN.match(self.text, offset)
            if match is None:
                raise self._unreadable(offset)
            if match.lastgroup != "space":
                yield Token(str(match.lastgroup), match.group(), offset)
            offset = match.end()
        yield Token("end", "", len(self.text))

    def _unreadable(self, offset: int) -> ConfigError:
        character = self.text[offset]
        if character in CURLY:
            return self.error(offset, f"the typographic quote {character}", 'type a plain " there', "C204")
        if character in "\"'":
            line = self.text[offset:].partition("\n")[0]
            at = next((at for at, one in enumerate(line) if one in CURLY), None)
            if at is not None:
                return self._unreadable(offset + at)
            return self.error(offset, "a quote that is not closed on its line", "close it", "C200")
        return self.error(offset, f"the character {character!r}", "remove it", "C200")

    def error(self, offset: int, found: str, fix: str, code: str = "C200") -> ConfigError:
        return ConfigError("parsing", f"{self.where}:{position(self.text, offset)}", f"found {found}", fix, code=code)

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self, *marks: str) -> bool:
        if self.token.kind == "mark" and self.token.text in marks:
            self.at += 1
            return True
        return False

    def whole(self) -> Message:
        message = self.body(0, 0, "")
        if self.token.kind != "end":
            raise self.error(self.token.start, repr(self.token.text), "remove it, or open its message before")
        message.end = len(self.text)
        return message

    def body(self, start: int, depth: int, closing: str) -> Message:
        if depth > MAX_DEPTH:
            raise self.error(start, f"messages nested deeper than {MAX_DEPTH}", "flatten them")
        message = Message(start, tail=start)
        while self.token.kind == "name" or self.token.text == "[":
            name, offset = self.name()
            colon = self.take(":")
            if self.take("["):
                self.items(message, name, offset, depth, colon)
            else:
                message.fields.append((name, offset, self.value(depth, colon)))
            self.take(",", ";")
            message.tail = self.tokens[self.at - 1].end
        message.end = self.token.start
        if closing and not self.take(closing):
            found = repr(self.token.text) if self.token.kind != "end" else "the end of the file"
            raise self.error(self.token.start, found, f"write a field name or {closing!r} there")
        return message

    def name(self) -> tuple[str, int]:
        start = self.token.start
        if self.take("["):
            parts = []
            while self.token.kind == "name" or self.token.text in (".", "/"):
                parts.append(self.token.text)
                self.at += 1
            if not self.take("]") or not parts:
                raise self.error(start, "an extension name that is not closed", "write it as [package.name]")
            return f"[{''.join(parts)}]", start
        self.at += 1
        return self.tokens[self.at - 1].text, start

    def items(self, message: Message, name: str, offset: int, depth: int, colon: bool) -> None:
        while not self.take("]"):
            message.fields.append((name, offset, self.value(depth, colon)))
            if not self.take(",") and self.token.text != "]":
                raise self.error(self.token.start, repr(self.token.text), "write ',' or ']' there")

    def value(self, depth: int, colon: bool) -> Scalar | Message:
        opening = self.token
        if self.take("{"):
            return self.body(opening.end, depth + 1, "}")
        if self.take("<"):
            return self.body(opening.end, depth + 1, ">")
        if not colon:
            raise self.error(opening.start, repr(opening.text), "write ':' and a value, or '{', after the field's name")
        if opening.kind == "string":
            return self.strings()
        if opening.kind in ("name", "number"):
            self.at += 1
            return Scalar(opening.text, opening.text, opening.start, opening.end)
        found = repr(opening.text) if opening.kind != "end" else "the end of the file"
        raise self.error(opening.start, found, "write a value there")

    def strings(self) -> Scalar:
        first, content = self.token, b""
        while self.token.kind == "string":
            content += self.unescape(self.token)
            self.at += 1
        end = self.tokens[self.at - 1].end
        return Scalar(self.text[first.start : end], content.decode("utf-8", "surrogateescape"), first.start, end)

    def unescape(self, token: Token) -> bytes:
        out, at, body = b"", 0, token.text[1:-1]
        for match in _ESCAPE.finditer(body):
            octal, hexa, short, long, simple = match.groups()
            out += body[at : match.start()].encode("utf-8", "surrogatepass")
            at = match.end()
            code = int(octal, 8) if octal else int(hexa or short or long or "0", 16)
            if code > 0x10FFFF or (simple and simple not in _SIMPLE):
                raise self.error(token.start + match.start() + 1, f"the escape {match.group()!r}", "write it plainly")
            if octal or hexa:
                out += bytes((code & 0xFF,))
            else:
                out += (_SIMPLE[simple] if simple else chr(code)).encode("utf-8", "surrogatepass")
        return out + body[at:].encode("utf-8", "surrogatepass")
