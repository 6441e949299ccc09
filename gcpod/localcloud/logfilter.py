"""Cloud Logging's query language, as much of it as clients of custom jobs use: comparisons, AND, OR, NOT, parentheses.

NOT binds closest, then OR, then AND; a field that is not there fails every comparison.
https://cloud.google.com/logging/docs/view/logging-query-language
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from gcpod.localcloud.api_error import ApiError

SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
_TIMES = frozenset({
    "timestamp", "receiveTimestamp", "create_time", "createTime", "update_time", "updateTime", "start_time",
    "startTime", "end_time", "endTime",
})
_RESERVED = ("AND", "OR", "NOT")
Entry = Mapping[str, Any]
Predicate = Callable[[Entry], bool]
_TOKEN = re.compile(r'\s*(?:(?P<mark>>=|<=|!=|=~|!~|[=<>:()])|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[^\s=<>:()!"]+))')
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_MAX_DEPTH = 50


def parse_filter(text: str) -> Predicate:
    """A predicate over LogEntry resources.

    Raises:
        ApiError: 400 for a filter that cannot be read.
    """
    parser = _Parser(text)
    if not parser.tokens:
        return lambda _: True
    predicate = parser.both(0)
    if parser.tokens:
        raise parser.error()
    return predicate


def demanded(text: str, field: str) -> str | None:
    """The value that a filter demands of a field; None where it is more than comparisons joined by AND."""
    tokens = _Parser(text).tokens
    if any(kind != "text" and token in ("OR", "NOT", "(", ")") for kind, token in tokens):
        return None
    for first, mark, value in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if first == ("word", field) and mark == ("mark", "="):
            return _unquoted(*value)
    return None


def _unquoted(kind: str, value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if kind == "text" else value


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

    def both(self, depth: int) -> Predicate:
        parts = [self.either(depth)]
        while self.tokens and not self.next_is(")"):
            if self.next_is("AND"):
                self.take()
            parts.append(self.either(depth))
        return parts[0] if len(parts) == 1 else lambda entry: all(part(entry) for part in parts)

    def either(self, depth: int) -> Predicate:
        parts = [self.one(depth)]
        while self.next_is("OR"):
            self.take()
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else lambda entry: any(part(entry) for part in parts)

    def one(self, depth: int) -> Predicate:
        if depth > _MAX_DEPTH:
            raise self.error()
        if self.next_is("NOT"):
            self.take()
            inner = self.one(depth + 1)
            return lambda entry: not inner(entry)
        if self.next_is("("):
            self.take()
            group = self.both(depth + 1)
            if self.take() != ("mark", ")"):
                raise self.error()
            return group
        return self.comparison()

    def comparison(self) -> Predicate:
        kind, field = self.take()
        if kind != "word" or field in _RESERVED:
            raise self.error()
        operator_kind, operator = self.take()
        value_kind, value = self.take()
        if operator_kind != "mark" or operator in "()" or value_kind == "mark":
            raise self.error()
        exists = operator == ":" and (value_kind, value) == ("word", "*")
        return _compare(field, "exists" if exists else operator, _unquoted(value_kind, value), self.error)


def _compare(field: str, operator: str, wanted: str, error: Callable[[], ApiError]) -> Predicate:
    if operator in ("=~", "!~"):
        raise ApiError(501, "The local cloud does not match regular expressions in log filters.")
    if operator == "exists":
        return lambda entry: _value(entry, field) is not None
    if field == "severity":
        if wanted not in SEVERITIES:
            raise error()
        rank = SEVERITIES.index(wanted)
        return lambda entry: _ordered(operator, SEVERITIES.index(entry.get("severity", "DEFAULT")), rank)
    if field in _TIMES:
        moment = moment_of(wanted)
        if moment is None or operator == ":":
            raise error()
        return lambda entry: _holds(operator, moment_of(_value(entry, field) or ""), moment)
    if operator == ":":
        return lambda entry: wanted.lower() in (_value(entry, field) or "").lower()
    return lambda entry: _holds(operator, _value(entry, field), wanted)


def _holds(operator: str, left: Any, right: Any) -> bool:
    return left is not None and _ordered(operator, left, right)


def _ordered(operator: str, left: Any, right: Any) -> bool:
    results: dict[str, bool] = {
        "=": left == right, "!=": left != right, ">=": left >= right, "<=": left <= right, ">": left > right,
        "<": left < right, ":": left == right,
    }
    return results[operator]


def moment_of(text: str) -> tuple[datetime, int] | None:
    """A point in time that can be compared: seconds in UTC, and nanoseconds."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S")
        if match[3] != "Z":
            offset = timedelta(hours=int(match[3][1:3]), minutes=int(match[3][4:]))
            moment += -offset if match[3][0] == "+" else offset
    except (ValueError, OverflowError):
        return None
    return moment, int((match[2] or "").ljust(9, "0"))


def _value(entry: Entry, field: str) -> str | None:
    here: Any = entry
    for name in field.split("."):
        here = here.get(name) if isinstance(here, Mapping) else None
    return None if here is None else str(here)
