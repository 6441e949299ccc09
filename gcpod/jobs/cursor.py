"""How far logs have been read, as a value that outlives the process: the newest entries, and which of them came."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from gcpod.errors import SpecError

NS = 1_000_000_000
_VERSION = 1
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MOST = 4_000_000_000 * NS

Seen = tuple[int, str, str]
"""An entry's time in nanoseconds since 1970, log name and insert id: together they are unique
(https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry)."""


@dataclass(frozen=True)
class Mark:
    """A place in one job's log; times are nanoseconds since 1970, 0 where there was none.

    Attributes:
        newest: of the entries that came.
        looked: what the newest was when late entries were looked for last.
        seen: the entries that the next look for late ones may bring again.
        closed: whether the service's closing line came.
    """

    newest: int = 0
    looked: int = 0
    seen: tuple[Seen, ...] = ()
    closed: bool = False


@dataclass(frozen=True)
class Cursor:
    """Places in the logs of jobs, by job id."""

    marks: Mapping[str, Mark] = field(default_factory=dict)

    def of(self, job_id: str) -> Cursor:
        """The part about one job."""
        return Cursor({job_id: self.marks[job_id]} if job_id in self.marks else {})

    def to_json(self) -> str:
        """One line."""
        jobs = {
            job_id: {"newest": mark.newest, "looked": mark.looked, "seen": mark.seen, "closed": mark.closed}
            for job_id, mark in self.marks.items()
        }
        return json.dumps({"version": _VERSION, "jobs": jobs}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: object = "the cursor") -> Cursor:
        """What ``to_json`` wrote.

        Raises:
            SpecError: E101 for anything else; ``where`` says what was read.
        """
        try:
            data = json.loads(text)
            if set(data) != {"version", "jobs"} or data["version"] != _VERSION:
                raise ValueError("another version")
            return cls({str(job_id): _mark(value) for job_id, value in data["jobs"].items()})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise SpecError("reading how far a log was read in", where, f"it is no cursor ({type(e).__name__})",
                            "delete it and read the log from its beginning") from e


def _mark(data: Any) -> Mark:
    if set(data) != {"newest", "looked", "seen", "closed"} or not isinstance(data["closed"], bool):
        raise ValueError("other keys")
    seen = tuple((_ns(ns), _text(log), _text(insert_id)) for ns, log, insert_id in data["seen"])
    return Mark(_ns(data["newest"]), _ns(data["looked"]), seen, data["closed"])


def _ns(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError("no time")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def moment_of(time: str) -> int | None:
    """RFC 3339 as nanoseconds since 1970; None for what is no time, or none after 1970."""
    match = _TIME.fullmatch(time)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        ns = (moment - _EPOCH) // timedelta(seconds=1) * NS + int((fraction or "").ljust(9, "0"))
    except (ValueError, OverflowError):
        return None
    return ns if 0 <= ns < _MOST else None


def time_of(moment: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC, all nine digits."""
    whole = _EPOCH + timedelta(seconds=moment // NS)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{moment % NS:09}Z"
