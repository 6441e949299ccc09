"""A job's lines out of Cloud Logging, each once, in order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gcpod.jobs.service import execute
from gcpod.session import Session

PAGE_SIZE = 1000
LATE_S = 10
"""How late an entry may arrive behind those of other workers and streams."""


@dataclass(frozen=True)
class LogLine:
    """One entry; ``time`` is RFC 3339 in UTC, ``task`` such as workerpool0-0."""

    time: str
    severity: str
    task: str
    text: str


class LogReader:
    """Reads on where the last poll ended.

    Entries may arrive late and share a timestamp, so each poll asks again for the time shortly before the last one
    and drops the entries whose insert id it has seen
    (https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry).
    """

    def __init__(self, session: Session, job_id: str) -> None:
        self.session, self.job_id = session, job_id
        self._last = ""
        self._seen: set[str] = set()

    def poll(self) -> list[LogLine]:
        """New lines since the last poll, oldest first.

        Raises:
            OutageError, AuthError, ServiceError: as jobs.service.execute.
        """
        terms = ['resource.type="ml_job"', f'resource.labels.job_id="{self.job_id}"']
        if self._last:
            terms.append(f'timestamp>="{_earlier(self._last)}"')
        body = {
            "resourceNames": [f"projects/{self.session.project}"], "filter": " AND ".join(terms),
            "orderBy": "timestamp asc", "pageSize": PAGE_SIZE,
        }
        lines: list[LogLine] = []
        while True:
            reply = execute(self.session.log_entries.list(body=body), "reading the log of", self.job_id)
            lines += [to_line(entry) for entry in reply.get("entries", []) if self._is_new(entry)]
            if not reply.get("nextPageToken"):
                return lines
            body = {**body, "pageToken": reply["nextPageToken"]}

    def _is_new(self, entry: dict[str, Any]) -> bool:
        key = f"{entry.get('timestamp', '')} {entry.get('insertId', '')}"
        if key in self._seen:
            return False
        self._seen.add(key)
        self._last = max(self._last, str(entry.get("timestamp", "")))
        return True


def _earlier(time: str) -> str:
    """A timestamp in UTC moved back by LATE_S, to the second."""
    moment = datetime.strptime(time[:19], "%Y-%m-%dT%H:%M:%S") - timedelta(seconds=LATE_S)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def to_line(entry: dict[str, Any]) -> LogLine:
    """A LogEntry resource as a line; the text is textPayload or jsonPayload.message."""
    text = entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "")
    labels = entry.get("resource", {}).get("labels", {})
    return LogLine(
        entry.get("timestamp", ""), entry.get("severity", "DEFAULT"), labels.get("task_name", ""), str(text).rstrip(),
    )
