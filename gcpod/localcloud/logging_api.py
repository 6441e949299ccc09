"""Cloud Logging's entries of custom jobs and of builds: list with filter, order and pages.

https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api, ApiError, Call, Reply
from gcpod.localcloud.jobdb import EntryRecord, JobDatabase
from gcpod.localcloud.logfilter import demanded, moment_of, parse_filter
from gcpod.localcloud.paging import page_of
from gcpod.localcloud.scheduler import project_number

PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000
_MAX_FILTER = 20_000
_ORDERS = ("", "timestamp asc", "timestamp desc")


def logging_api(jobs: JobDatabase, builds: JobDatabase) -> Api:
    """The service over the entries of jobs and those of builds."""
    api = Api(load("logging.v2"))
    sources = (_Source(jobs, "job_id", to_entry), _Source(builds, "build_id", to_build_entry))

    def entries(call: Call) -> Reply:
        return Reply(value=_list(sources, call.json or {}))

    api.handler("logging.entries.list")(entries)
    return api


@dataclass(frozen=True)
class _Source:
    """Entries of one type of resource; ``label`` names one of them in filters."""

    database: JobDatabase
    label: str
    to_entry: Callable[[EntryRecord, str], dict[str, Any]]

    def entries(self, projects: set[str], text: str) -> Iterator[dict[str, Any]]:
        """Those that a filter may be about, of some projects by number."""
        owners = {job.id: job.project for job in self.database.all() if project_number(job.project) in projects}
        named = demanded(text, f"resource.labels.{self.label}")
        for record in self.database.entries(owners if named is None else owners.keys() & {named}):
            yield self.to_entry(record, owners[record.job])


def _list(sources: Iterable[_Source], body: dict[str, Any]) -> dict[str, Any]:
    text, order = body.get("filter", ""), body.get("orderBy", "")
    if order not in _ORDERS or len(text) > _MAX_FILTER:
        raise ApiError(400, "Invalid order_by or filter.")
    projects = {project_number(name.removeprefix("projects/")) for name in body.get("resourceNames", [])}
    if not projects:
        raise ApiError(400, "resource_names is required.")
    wanted = parse_filter(text)
    found = [entry for source in sources for entry in source.entries(projects, text) if wanted(entry)]
    found.sort(key=lambda entry: (moment_of(entry["timestamp"]), entry["insertId"]), reverse=order.endswith("desc"))
    return page_of("entries", found, body.get("pageSize"), body.get("pageToken"), PAGE_SIZE, MAX_PAGE_SIZE)


def to_entry(record: EntryRecord, project: str) -> dict[str, Any]:
    """An entry as Vertex AI's workers write it."""
    return {
        "logName": f"projects/{project}/logs/{record.task}",
        "resource": {
            "type": "ml_job", "labels": {"job_id": record.job, "project_id": project, "task_name": record.task},
        },
        "timestamp": record.time,
        "receiveTimestamp": record.time,
        "severity": record.severity,
        "insertId": f"{record.number:012x}",
        "labels": {"ml.googleapis.com/job_id/log_area": "root"},
        "jsonPayload": {"message": record.text, "levelname": record.severity},
    }


def to_build_entry(record: EntryRecord, project: str) -> dict[str, Any]:
    """An entry as Cloud Build writes it with CLOUD_LOGGING_ONLY."""
    return {
        "logName": f"projects/{project}/logs/cloudbuild",
        "resource": {
            "type": "build", "labels": {"build_id": record.job, "project_id": project, "build_trigger_id": ""},
        },
        "timestamp": record.time,
        "receiveTimestamp": record.time,
        "severity": record.severity,
        "insertId": f"b{record.number:011x}",
        "labels": {"build_step": record.task},
        "textPayload": record.text,
    }
