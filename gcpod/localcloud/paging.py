"""Pages of a list: the token is the number of items that came before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gcpod.localcloud.api_error import ApiError

_TOKEN = re.compile(r"[0-9]{1,12}")


def page_of(
    key: str, items: Sequence[Any], size: str | int | None, token: str | None, usual: int, most: int,
) -> dict[str, Any]:
    """The reply that holds one page under ``key``; an empty page has no key, the last one no token.

    Raises:
        ApiError: 400 for a negative size or a token that this never gave.
    """
    wanted = min(int(size or 0) or usual, most)
    if wanted < 0 or not _TOKEN.fullmatch(token or "0"):
        raise ApiError(400, "Invalid page_size or page_token.")
    start = int(token or 0)
    page = items[start : start + wanted]
    reply: dict[str, Any] = {key: page} if page else {}
    if start + wanted < len(items):
        reply["nextPageToken"] = str(start + wanted)
    return reply
