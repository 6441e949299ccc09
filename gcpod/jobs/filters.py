"""Which jobs are meant, in the filter language of Vertex AI's listings, where no value can say more than itself.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs/list
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from gcpod.errors import SpecError
from gcpod.status import JobState

if TYPE_CHECKING:
    from gcpod.jobs.request import Kind

_KEY = re.compile(r"[^\W\d_][\w-]{0,62}")
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


@dataclass(frozen=True)
class JobFilter:
    """The jobs for which all of this holds; what is None or empty asks for nothing.

    Attributes:
        run: id of a run, as `gcpod run` names it.
        kind: train, eval or export.
        states: any of them.
        labels: each with its value.
        since, until: created at that time or later, and before it; RFC 3339.
        name: the display name, whole.
    """

    run: str | None = None
    kind: Kind | None = None
    states: tuple[JobState, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    since: str | None = None
    until: str | None = None
    name: str | None = None

    def to_text(self) -> str:
        """The filter as customJobs.list takes it; "" when every job is meant.

        Raises:
            SpecError: a label's key or a time is none, or a value is no text that can be sent.
        """
        terms = [f"labels.{_key(key)}={quoted(value)}" for key, value in self._labels().items()]
        if self.states:
            states = " OR ".join(f"state={quoted(state.value)}" for state in self.states)
            terms.append(f"({states})" if len(self.states) > 1 else states)
        if self.since:
            terms.append(f"create_time>={quoted(_time(self.since))}")
        if self.until:
            terms.append(f"create_time<{quoted(_time(self.until))}")
        if self.name is not None:
            terms.append(f"display_name={quoted(self.name)}")
        return " AND ".join(terms)

    def _labels(self) -> dict[str, str]:
        labels = dict(self.labels)
        if self.run is not None or self.kind is not None:
            from gcpod.jobs.request import KIND_LABEL, RUN_LABEL, label

            labels |= {RUN_LABEL: label(self.run)} if self.run is not None else {}
            labels |= {KIND_LABEL: self.kind} if self.kind is not None else {}
        return labels


def quoted(value: str) -> str:
    """A value as a string of the filter language: quotes and backslashes stand for themselves
    (https://google.aip.dev/160#literals).

    Raises:
        SpecError: it is no Unicode, which cannot be sent.
    """
    try:
        value.encode()
    except UnicodeEncodeError as e:
        raise SpecError("asking for jobs by", ascii(value), "it is no Unicode text", "give it in UTF-8") from e
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _key(key: str) -> str:
    """A label's key, which stands in the filter without quotes
    (https://cloud.google.com/vertex-ai/docs/general/labels)."""
    if not _KEY.fullmatch(key) or key != key.lower():
        raise SpecError("asking for jobs by the label", ascii(key), "it is no label's key",
                        "give a letter, then lower-case letters, digits, '_' and '-', 63 characters in all")
    return key


def _time(text: str) -> str:
    """RFC 3339 with a date, a time and an offset that there are."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        datetime.strptime(match[1] + match[3], "%Y-%m-%dT%H:%M:%S%z")
    except ValueError as e:
        raise SpecError("asking for jobs by the time", ascii(text), "it is no time in RFC 3339",
                        "write it as 2026-11-20T08:30:00Z") from e
    return text


def parse_duration(text: str) -> int | None:
    """Seconds of 90s, 30m, 2h, 7d or 2w; None when it is none of these."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _UNITS_S[match[2]] if match else None


def parse_moment(text: str, now: datetime) -> str:
    """A moment as people write it, as RFC 3339.

    Args:
        text: how long before now, as 90s, 30m, 2h, 7d or 2w; a date, which begins at midnight UTC; or RFC 3339.
        now: with its time zone.

    Raises:
        SpecError: it is none of these, or before the year 1.
    """
    ago_s = parse_duration(text)
    try:
        if ago_s is None:
            return _time(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
        moment = (now - timedelta(seconds=ago_s)).astimezone(timezone.utc)
        return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, SpecError) as e:
        raise SpecError("reading the time", ascii(text), "it is neither a time ago, nor a date, nor a time in RFC 3339",
                        "write it as 2h, 2026-11-20 or 2026-11-20T08:30:00Z") from e
