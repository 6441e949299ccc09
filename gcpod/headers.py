"""HTTP headers that more than one service gives."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime


def retry_after(text: str, now: Callable[[], float] = time.time) -> float | None:
    """Seconds, given as such or as a date (RFC 9110, 10.2.3); None for anything else."""
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now())
    except (ValueError, TypeError, OverflowError):
        return None
