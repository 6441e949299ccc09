"""Cloud Logging's query language, as much of it as clients of custom jobs use: comparisons, AND, OR, NOT, parentheses.

https://cloud.google.com/logging/docs/view/logging-query-language
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gcpod.localcloud.api_error import ApiError

SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
Entry = Mapping[str, Any]
Predicate = Callable[[Entry], bool]
_TOKEN = re.compile(r'\s*(?:(?P<mark>>=|<=|!=|=~|!~|[=<>:()])|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[^\s=<>:()!"]+))')
_MAX_DEPTH = 50


def parse_filter(text: str) -> Predicate:
    """A predicate over LogEntry resources.

    Raises:
        ApiError: 400 for a filter that cannot be read.
    """
    parser = _Parser(text)
    if not parser.tokens:
        return lambda _: True
    predicate = parser.either(0)
    if parser.tokens:
        raise parser.error()
    return predicate


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.tokens = text, []
        offset, end = 0, len(text.rstrip())
        while offset < end:
            match = _TOKEN.match(text, offset)
            if match is None:
                raise self.error()
            self.tokens.append((str(match.lastgroup), match.group(str(match.lastgroup))))
            offset = match.end()

    def error(self) -> ApiError:
        return ApiError(400, f"Unparseable filter: {self.text[:200]}")

    def next_is(self, *words: str) -> bool:
        return bool(self.tokens) and self.tokens[0][0] != "text" and self.tokens[0][1] in words

    def take(self) -> tuple[str, str]:
        if not self.tokens:
            raise self.error()
        return self.tokens.pop(0)

    def either(self, depth: int) -> Predicate:
        if depth > _MAX_DEPTH:
            raise self.error()
        parts = [self.both(depth)]
        while self.next_is("OR"):
            self.take()
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else lambda entry: any(part(entry) for part in parts)

    def both(self, depth: int) -> Predicate:
        parts = [self.one(depth)]
        while self.tokens and not self.next_is("OR", ")"):
            if self.next_is("AND"):
                self.take()
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else lambda entry: all(part(entry) for part in parts)

    def one(self, depth: int) -> Predicate:
        if depth > _MAX_DEPTH:
            raise self.error()
        if self.next_is("NOT"):
            self.take()
            inner = self.one(depth + 1)
            return lambda entry: not inner(entry)
        if self.next_is("("):
            self.take()
            group = self.either(depth + 1)
            if self.take()[1] != ")":
                raise self.error()
            return group
        return self.comparison()

    def comparison(self) -> Predicate:
        kind, field = self.take()
        if kind != "word" or self.tokens[:1] == []:
            raise self.error()
        operator_kind, operator = self.take()
        value_kind, value = self.take()
        if operator_kind != "mark" or operator in "()" or value_kind == "mark":
            raise self.error()
        wanted = re.sub(r"\\(.)", r"\1", value[1:-1]) if value_kind == "text" else value
        return _compare(field, operator, wanted, self.error)


def _compare(field: str, operator: str, wanted: str, error: Callable[[], ApiError]) -> Predicate:
    if field == "severity":
        if wanted not in SEVERITIES:
            raise error()
        rank = SEVERITIES.index(wanted)
        return lambda entry: _ordered(operator, SEVERITIES.index(entry.get("severity", "DEFAULT")), rank)
    if operator in ("=~", "!~"):
        raise ApiError(501, "The local cloud does not match regular expressions in log filters.")
    if operator == ":":
        return lambda entry: wanted.lower() in _value(entry, field).lower()
    return lambda entry: _ordered(operator, _value(entry, field), wanted)


def _ordered(operator: str, left: Any, right: Any) -> bool:
    results: dict[str, bool] = {
        "=": left == right, "!=": left != right, ">=": left >= right, "<=": left <= right, ">": left > right,
        "<": left < right, ":": left == right,
    }
    return results[operator]


def _value(entry: Entry, field: str) -> str:
    here: Any = entry
    for name in field.split("."):
        here = here.get(name) if isinstance(here, Mapping) else None
    return "" if here is None else str(here)
