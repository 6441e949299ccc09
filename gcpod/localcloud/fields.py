"""Partial responses: the ``fields`` parameter (https://cloud.google.com/storage/docs/json_api#partial-response)."""

from __future__ import annotations

import re
from typing import Any

from gcpod.localcloud.api_error import ApiError

_TOKEN = re.compile(r"[(),/]|[^(),/\s]+")
_MAX_DEPTH = 50
Mask = dict[str, "Mask | None"]


def select(value: Any, fields: str) -> Any:
    """The part of a response that ``fields`` names (``items(name,size),nextPageToken``, ``a/b``, ``*``).

    Raises:
        ApiError: 400 invalidParameter, the selector cannot be read.
    """
    tokens = _TOKEN.findall(fields)
    mask, rest = _list(tokens, 0, 0)
    if rest != len(tokens):
        raise _unreadable(fields)
    return _keep(value, mask)


def _list(tokens: list[str], at: int, depth: int) -> tuple[Mask, int]:
    mask: Mask = {}
    while True:
        if depth > _MAX_DEPTH or at >= len(tokens) or tokens[at] in "(),/":
            raise _unreadable("".join(tokens))
        name, inner, at = tokens[at], None, at + 1
        if at < len(tokens) and tokens[at] == "/":
            inner, at = _step(tokens, at + 1, depth + 1)
        elif at < len(tokens) and tokens[at] == "(":
            inner, at = _list(tokens, at + 1, depth + 1)
            if at >= len(tokens) or tokens[at] != ")":
                raise _unreadable("".join(tokens))
            at += 1
        mask[name] = _merged(mask[name], inner) if name in mask else inner
        if at >= len(tokens) or tokens[at] != ",":
            return mask, at
        at += 1


def _step(tokens: list[str], at: int, depth: int) -> tuple[Mask, int]:
    end, level = at, 0
    while end < len(tokens) and (level or tokens[end] not in (",", ")")):
        level += (tokens[end] == "(") - (tokens[end] == ")")
        end += 1
    mask, rest = _list(tokens[at:end], 0, depth)
    if rest != end - at:
        raise _unreadable("".join(tokens))
    return mask, end


def _merged(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None or other is None:
        return None
    return {**one, **{name: _merged(one[name], inner) if name in one else inner for name, inner in other.items()}}


def _keep(value: Any, mask: Mask | None) -> Any:
    if mask is None:
        return value
    if isinstance(value, list):
        return [_keep(one, mask) for one in value]
    if not isinstance(value, dict):
        return value
    if "*" in mask:
        return {name: _keep(one, mask["*"]) for name, one in value.items()}
    return {name: _keep(one, mask[name]) for name, one in value.items() if name in mask}


def _unreadable(fields: str) -> ApiError:
    return ApiError(400, f"Invalid field selection {fields}", "invalidParameter")
