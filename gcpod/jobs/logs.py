"""The lines of jobs and of builds out of Cloud Logging, each once, in order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from gcpod.jobs.service import execute
from gcpod.session import Session

PAGE_SIZE = 1000
LATE_S = 10
"""How late an entry may arrive behind those of other workers and streams."""
_ID = {"ml_job": "job_id", "build": "build_id"}
"""The label that names one resource of a type (https://cloud.google.com/logging/docs/api/v2/resource-list)."""


@dataclass(frozen=True)
class LogLine:
    """One entry; ``time`` is RFC 3339 in UTC, ``task`` such as workerpool0-0, ``job`` the id of the job or build."""

    time: str
    severity: str
    task: str
    text: str
    job: str = ""


class LogReader:
    """Reads the lines of some jobs, or builds, on where the last poll ended, by one query for all of them: Cloud
    Logging allows 60 a minute in a project (https://cloud.google.com/logging/quotas).

    Entries may arrive late and share a timestamp, so each poll asks again for the time shortly before the last one
    and drops the entries whose insert id it has seen
    (https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry).
    """

    def __init__(self, session: Session, *job_ids: str, resource: Literal["ml_job", "build"] = "ml_job") -> None:
        self.session, self.job_ids, self.resource = session, list(job_ids), resource
        self._last = ""
        self._seen: set[str] = set()

    def poll(self) -> list[LogLine]:
        """New lines since the last poll, oldest first; what a failed poll had read comes again with the next.

        Raises:
            OutageError, AuthError, ServiceError: as jobs.service.execute.
        """
        entries = [entry for entry in self._entries() if _key(entry) not in self._seen]
        self._seen.update(map(_key, entries))
        self._last = max([self._last, *(str(entry.get("timestamp", "")) for entry in entries)])
        return [to_line(entry) for entry in entries]

    def _entries(self) -> list[dict[str, Any]]:
        jobs = " OR ".join(f'resource.labels.{_ID[self.resource]}="{job_id}"' for job_id in self.job_ids)
        terms = [f'resource.type="{self.resource}"', f"({jobs})"]
        if self._last:
            terms.append(f'timestamp>="{_earlier(self._last)}"')
        body = {
            "resourceNames": [f"projects/{self.session.project}"], "filter": " AND ".join(terms),
            "orderBy": "timestamp asc", "pageSize": PAGE_SIZE,
        }
        found: list[dict[str, Any]] = []
        while True:
            request = self.session.log_entries.list(body=body)
            reply = execute(request, "reading the log of", ", ".join(self.job_ids), "grant roles/logging.viewer")
            found += reply.get("entries", [])
            if not reply.get("nextPageToken"):
                return found
            body = {**body, "pageToken": reply["nextPageToken"]}


def _key(entry: dict[str, Any]) -> str:
    return f"{entry.get('timestamp', '')} {entry.get('insertId', '')}"


def _earlier(time: str) -> str:
    """A timestamp in UTC moved back by LATE_S, to the second."""
    moment = datetime.strptime(time[:19], "%Y-%m-%dT%H:%M:%S") - timedelta(seconds=LATE_S)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def to_line(entry: dict[str, Any]) -> LogLine:
    """A LogEntry resource as a line; the text is textPayload or jsonPayload.message."""
    text = entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "")
    resource = entry.get("resource", {})
    labels = resource.get("labels", {})
    task = labels.get("task_name") or entry.get("labels", {}).get("build_step", "")
    job = labels.get(_ID.get(resource.get("type", ""), "job_id"), "")
    return LogLine(entry.get("timestamp", ""), entry.get("severity", "DEFAULT"), task, str(text).rstrip(), job)
