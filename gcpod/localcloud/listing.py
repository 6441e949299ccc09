"""Listings of a bucket: prefixes, offsets, globs and pages (https://cloud.google.com/storage/docs/json_api/v1/objects/list).

Names are compared by their UTF-8 bytes, which is also the order of code points.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gcpod.localcloud.records import InvalidRequestError, ObjectMeta

MAX_PAGE = 1000
_GLOB_TOKEN = re.compile(r"\*\*/?|\*|\?|\[[!^]?\]?[^\]]*\]|\\.|\{|\}|,|.", re.DOTALL)


@dataclass(frozen=True)
class ListQuery:
    """What to list; ``max_results`` counts objects and prefixes together."""

    prefix: str = ""
    delimiter: str = ""
    trailing_delimiter: bool = False
    start_offset: str = ""
    end_offset: str = ""
    match_glob: str = ""
    max_results: int = MAX_PAGE
    page_token: str = ""


@dataclass(frozen=True)
class ListPage:
    """One page; ``next_token`` is None on the last."""

    objects: tuple[ObjectMeta, ...]
    prefixes: tuple[str, ...]
    next_token: str | None


@dataclass(frozen=True)
class Cursor:
    """A place between two entries: names from ``start`` on (after it, unless ``inclusive``).

    ``told`` is the prefix that was listed last.
    """

    start: str
    inclusive: bool
    told: str | None = None

    def token(self) -> str:
        """The opaque text a client sends back."""
        return base64.urlsafe_b64encode(json.dumps([self.start, self.inclusive, self.told]).encode()).decode()

    @classmethod
    def parse(cls, token: str) -> Cursor:
        """Reads a token.

        Raises:
            InvalidRequestError: it is none of ours.
        """
        try:
            start, inclusive, told = json.loads(base64.b64decode(token.encode("ascii"), b"-_", validate=True))
            for text in (start, told or ""):
                text.encode("utf-8")
        except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
            raise InvalidRequestError("Invalid value for pageToken.") from None
        if not isinstance(inclusive, bool):
            raise InvalidRequestError("Invalid value for pageToken.")
        return cls(start, inclusive, told)


Fetch = Callable[[str, bool, "str | None", int], Sequence[ObjectMeta]]
"""(start, inclusive, end or None, limit) -> objects in order of their names."""


def list_page(query: ListQuery, fetch: Fetch) -> ListPage:
    """Puts one page together from an ordered source.

    Raises:
        InvalidRequestError: a page token that is none of ours.
    """
    limit = min(query.max_results or MAX_PAGE, MAX_PAGE)
    objects: list[ObjectMeta] = []
    prefixes: list[str] = []
    previous: Cursor | None = None
    for entry, after in _entries(query, fetch, limit):
        if len(objects) + len(prefixes) == limit:
            return ListPage(tuple(objects), tuple(prefixes), previous.token() if previous else None)
        if isinstance(entry, str):
            prefixes.append(entry)
        else:
            objects.append(entry)
        previous = after
    return ListPage(tuple(objects), tuple(prefixes), None)


def _entries(query: ListQuery, fetch: Fetch, batch: int) -> Iterator[tuple[ObjectMeta | str, Cursor]]:
    cursor = Cursor.parse(query.page_token) if query.page_token else Cursor("", True)
    first = max(query.prefix, query.start_offset)
    if cursor.start < first:
        cursor = Cursor(first, True, cursor.told)
    ends = [end for end in (query.end_offset, after_prefix(query.prefix)) if end]
    glob = glob_regex(query.match_glob) if query.match_glob else None
    told = cursor.told
    place: tuple[str, bool] | None = (cursor.start, cursor.inclusive)
    while place is not None:
        rows = fetch(*place, min(ends) if ends else None, batch + 1)
        place = (rows[-1].name, False) if len(rows) > batch else None
        jump = ""
        for row in rows:
            if row.name < jump or (glob is not None and not glob.fullmatch(row.name)):
                continue
            prefix = _common_prefix(row.name, query)
            if prefix is None:
                yield row, Cursor(row.name, False, told)
                continue
            if prefix != told:
                told = prefix
                yield prefix, Cursor(row.name, True, told)
            if query.trailing_delimiter and row.name == prefix:
                yield row, Cursor(row.name, False, told)
            else:
                jump = after_prefix(prefix) or "\U0010ffff" * 1100
        if place is not None and jump > place[0]:
            place = (jump, True)


def _common_prefix(name: str, query: ListQuery) -> str | None:
    if not query.delimiter:
        return None
    at = name.find(query.delimiter, len(query.prefix))
    return None if at < 0 else name[: at + len(query.delimiter)]


def after_prefix(prefix: str) -> str | None:
    """The least name greater than every name that starts with a prefix; None when there is none."""
    stripped = prefix.rstrip("\U0010ffff")
    if not stripped:
        return None
    following = ord(stripped[-1]) + 1
    return stripped[:-1] + chr(0xE000 if following == 0xD800 else following)


def glob_regex(glob: str) -> re.Pattern[str]:
    """A glob of https://cloud.google.com/storage/docs/json_api/v1/objects/list#list-objects-and-prefixes-using-glob.

    ``*`` and ``?`` stay within one folder, ``**`` crosses folders, ``[...]`` is a set, ``{a,b}`` are alternatives.

    Raises:
        InvalidRequestError: a set or a brace is not closed.
    """
    out, depth = [], 0
    for token in _GLOB_TOKEN.findall(glob):
        depth += (token == "{") - (token == "}" and depth > 0)
        out.append(_glob_piece(token, depth, closing=token == "}"))
    try:
        if depth:
            raise re.error("open brace")
        return re.compile("".join(out), re.DOTALL)
    except re.error:
        raise InvalidRequestError(f"Invalid glob pattern: {glob}") from None


def _glob_piece(token: str, depth: int, closing: bool) -> str:
    if token == "**/":
        return "(?:.*/)?"
    if token in ("**", "*", "?"):
        return {"**": ".*", "*": "[^/]*", "?": "[^/]"}[token]
    if token == "{" or (token == "," and depth):
        return "(?:" if token == "{" else "|"
    if closing:
        return ")"
    if len(token) > 2 and token[0] == "[":
        inner = token[1:-1]
        negated = inner[:1] in ("!", "^")
        kept = re.sub(r"([\\\[\]&~|^])", r"\\\1", inner[negated:])
        return f"[{'^/' if negated else ''}{kept}]"
    return re.escape(token[1] if len(token) == 2 and token[0] == "\\" else token)
