"""The lines of jobs and of builds out of Cloud Logging, each once, also over restarts of who reads them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from gcpod.errors import GcpodError, OutageError, SpecError
from gcpod.jobs.cursor import NS, Cursor, Mark, moment_of, time_of
from gcpod.jobs.service import execute
from gcpod.jobs.watch import Pace, Reach
from gcpod.session import Session
from gcpod.status import JobInfo

PAGE_SIZE = 1000
GROUP = 100
"""Jobs of one query: a filter has 20,000 characters at most (https://cloud.google.com/logging/quotas)."""
NEAR_S, LATE_S, WIDE_S = 10, 60, 30
"""Seconds that each poll looks back; that an entry may come late behind its job's newest; between two wide looks."""
SETTLE_S = 20.0
"""How long nothing new came before an ended job's log counts as whole, where its closing line does not come."""
PACE = Pace(first_s=2.0)
"""While a log is followed: a day costs some two thousand calls (watch.py)."""
SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
"""https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry#logseverity"""
_ID = {"ml_job": "job_id", "build": "build_id"}
"""The label that names one resource of a type (https://cloud.google.com/logging/docs/api/v2/resource-list)."""
_TASK = {"ml_job": "resource.labels.task_name", "build": "labels.build_step"}
_CLOSING = re.compile(r"Job (completed successfully|succeeded|failed|cancelled|expired)\b")
"""What Vertex AI's own task, ``service``, says last about a job."""


@dataclass(frozen=True)
class LogLine:
    """One entry; ``time`` is RFC 3339 in UTC, ``task`` such as workerpool0-0, ``job`` the id of the job or build."""

    time: str
    severity: str
    task: str
    text: str
    job: str = ""

    @property
    def closing(self) -> bool:
        """Whether the service says by it that the job ended."""
        return self.task == "service" and _CLOSING.match(self.text) is not None


@dataclass
class _Job:
    """What a reader remembers of one job: its mark, while it is worked on, and how its log ends."""

    newest: int = 0
    looked: int = 0
    seen: dict[tuple[int, str, str], None] = field(default_factory=dict)
    moved_s: float | None = None
    closed: bool = False
    looked_after: bool = False

    def start(self, wide: bool) -> int:
        """From when on it is asked for."""
        return max(0, (self.looked - LATE_S * NS) if wide else (self.newest - NEAR_S * NS))

    def forget(self) -> None:
        """After a wide look; the next one starts where this leaves the memory."""
        self.looked = self.newest
        oldest = self.start(wide=True)
        self.seen = {key: None for key in self.seen if key[0] >= oldest}


class LogReader:
    """Reads the lines of some jobs, or builds, on where the last poll ended, by one query for all of them: Cloud
    Logging allows 60 a minute in a project (https://cloud.google.com/logging/quotas).

    Entries share timestamps and come late. So each poll asks again for NEAR_S seconds before a job's newest entry, and
    one in WIDE_S seconds for all since LATE_S before what was the newest at the last such look: whatever comes less
    than LATE_S late is found, while a job that writes much is not read over and over, a minute at a poll. Entries that
    were seen are dropped; two are the same when timestamp, log name and insert id are
    (https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry).

    Args:
        session: project and credentials.
        job_ids: ids of jobs or builds; more may come with ``add``.
        resource: what they are.
        severity: the least that is wanted, one of SEVERITIES; empty: all.
        task: only of this one, such as workerpool0-0; of builds, the step; empty: all.
        since: nothing before it; with a time zone.
        cursor: of an earlier reader, to go on after it; jobs it does not know are read from their beginning.
        clock: seconds that never go back.

    Raises:
        SpecError: there is no such severity.
    """

    def __init__(
        self, session: Session, *job_ids: str, resource: Literal["ml_job", "build"] = "ml_job", severity: str = "",
        task: str = "", since: datetime | None = None, cursor: Cursor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if severity and severity not in SEVERITIES:
            raise SpecError("reading the log", repr(severity), "there is no such severity", "take one of "
                            + ", ".join(SEVERITIES))
        self.session, self.job_ids, self.resource = session, list(job_ids), resource
        self.severity, self.task, self.since, self.clock = severity, task, since, clock
        self._jobs = {job_id: _remembered(mark) for job_id, mark in (cursor or Cursor()).marks.items()}
        self._wide_at: float | None = None

    def add(self, job_id: str, cursor: Cursor | None = None) -> None:
        """Reads one more job from now on, after its place in the cursor where that knows it."""
        if job_id not in self.job_ids:
            self.job_ids.append(job_id)
        if cursor is not None and job_id in cursor.marks:
            self._jobs[job_id] = _remembered(cursor.marks[job_id])

    @property
    def cursor(self) -> Cursor:
        """Where this is: a reader that starts with it gives what comes after the lines that this one gave."""
        return Cursor({
            job_id: Mark(known.newest, known.looked, tuple(known.seen), known.closed)
            for job_id, known in self._jobs.items()
        })

    def poll(self, *, wide: bool = False) -> list[LogLine]:
        """New lines since the last poll, oldest first; ``wide`` makes it look for late ones now.

        What fails after some pages gives what they held; the next poll goes on there, or fails.

        Raises:
            OutageError, AuthError, ServiceError: as jobs.service.execute.
        """
        lines: list[LogLine] = []
        try:
            for page in self.pages(wide=wide):
                lines += page
        except GcpodError:
            if not lines:
                raise
        return lines

    def pages(self, *, wide: bool = False) -> Iterator[list[LogLine]]:
        """As ``poll``, page by page, for a log too large to hold. The cursor is that after the page given last.

        Raises:
            OutageError, AuthError, ServiceError: as jobs.service.execute.
        """
        if not self.job_ids:
            return
        started_s = self.clock()
        asked = {job_id: self._jobs.setdefault(job_id, _Job()) for job_id in self.job_ids}
        closed = [known for known in asked.values() if known.closed]
        wide = wide or self._wide_due(started_s) or not all(known.looked_after for known in closed)
        for first in range(0, len(self.job_ids), GROUP):
            for entries in self._entries(self.job_ids[first : first + GROUP], wide):
                lines = [line for entry in entries if (line := self._new(entry)) is not None]
                if lines:
                    yield lines
        for known in closed:
            known.looked_after = True
        if wide:
            self._wide_at = started_s
            for known in asked.values():
                known.forget()

    def finished(self, info: JobInfo) -> bool:
        """Whether reading a job may stop: it ended, and the service's closing line came and what was late after it,
        or nothing new for SETTLE_S seconds. Asks nobody."""
        if not info.state.terminal:
            return False
        known = self._jobs.setdefault(info.id, _Job())
        if known.moved_s is None:
            known.moved_s = self.clock()
        return known.looked_after if known.closed else self.clock() - known.moved_s >= SETTLE_S

    def _wide_due(self, now_s: float) -> bool:
        return self._wide_at is None or now_s - self._wide_at >= WIDE_S

    def _new(self, entry: dict[str, Any]) -> LogLine | None:
        """An entry as a line, and kept in mind; None where it came before."""
        line = to_line(entry)
        known = self._jobs.setdefault(line.job, _Job())
        moment = moment_of(line.time)
        key = (moment or 0, str(entry.get("logName", "")), str(entry.get("insertId", "")))
        if key in known.seen:
            return None
        known.seen[key] = None
        known.newest = max(known.newest, moment or 0)
        known.moved_s = self.clock()
        known.closed = known.closed or line.closing
        return line

    def _filter(self, job_ids: Sequence[str], wide: bool) -> str:
        least = 0 if self.since is None else (moment_of(self.since.astimezone(timezone.utc).isoformat()) or 0)
        jobs = []
        for job_id in job_ids:
            named, start = f"resource.labels.{_ID[self.resource]}={_quoted(job_id)}", self._jobs[job_id].start(wide)
            start = max(start, least)
            jobs.append(f'({named} AND timestamp>="{time_of(start)}")' if start else named)
        terms = [f'resource.type="{self.resource}"', f"({' OR '.join(jobs)})"]
        if self.severity:
            terms.append(f"severity>={self.severity}")
        if self.task:
            terms.append(f"{_TASK[self.resource]}={_quoted(self.task)}")
        return " AND ".join(terms)

    def _entries(self, job_ids: Sequence[str], wide: bool) -> Iterator[list[dict[str, Any]]]:
        on = job_ids[0] if len(job_ids) == 1 else f"{len(job_ids)} jobs"
        body = {
            "resourceNames": [f"projects/{self.session.project}"], "filter": self._filter(job_ids, wide),
            "orderBy": "timestamp asc", "pageSize": PAGE_SIZE,
        }
        while True:
            request = self.session.log_entries.list(body=body)
            reply = execute(request, "reading the log of", on, "grant roles/logging.viewer")
            yield reply.get("entries", [])
            if not reply.get("nextPageToken"):
                return
            body = {**body, "pageToken": reply["nextPageToken"]}


def follow(
    reader: LogReader, look: Callable[[], JobInfo], reach: Reach, *, pace: Pace = PACE,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    chance: Callable[[], float] = random.random,
) -> Iterator[list[LogLine]]:
    """The lines of one job as they come, until it ended and its log is whole; outages are waited out.

    Args:
        reader: of that job alone.
        look: asks the service how the job is.
        reach: told of outages.
        pace: between polls of one question to each of both services; the time since the job's state changed counts.
        clock, sleep: seconds.
        chance: numbers between 0 and 1.

    Raises:
        OutageError: the patience of ``reach`` is over.
        AuthError, NotFoundError, ServiceError: as jobs.service.execute.
    """
    state, since = None, clock()
    while True:
        try:
            # In this order: what an ended job had written by then is read after its end.
            info = look()
            yield from reader.pages()
            reach.found()
            if reader.finished(info):
                return
            if info.state is not state:
                state, since = info.state, clock()
        except OutageError as e:
            reach.lost(e)
        sleep(pace.pause(clock() - since, chance()))


def to_line(entry: dict[str, Any]) -> LogLine:
    """A LogEntry resource as a line; the text is textPayload or jsonPayload.message."""
    text = entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "")
    resource = entry.get("resource", {})
    labels = resource.get("labels", {})
    task = labels.get("task_name") or entry.get("labels", {}).get("build_step", "")
    job = labels.get(_ID.get(resource.get("type", ""), "job_id"), "")
    return LogLine(entry.get("timestamp", ""), entry.get("severity", "DEFAULT"), task, str(text).rstrip(), job)


def _remembered(mark: Mark) -> _Job:
    return _Job(mark.newest, mark.looked, dict.fromkeys(mark.seen), closed=mark.closed)


def _quoted(value: str) -> str:
    """A string of the query language (https://cloud.google.com/logging/docs/view/logging-query-language)."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
