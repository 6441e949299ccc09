"""Cloud Logging's entries of custom jobs: list with filter, order and pages.

https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
"""

from __future__ import annotations

from typing import Any

from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api, ApiError, Call, Reply
from gcpod.localcloud.jobdb import EntryRecord, JobDatabase
from gcpod.localcloud.logfilter import demanded, parse_filter
from gcpod.localcloud.paging import page_of
from gcpod.localcloud.scheduler import project_number

PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000
_MAX_FILTER = 20_000
_ORDERS = ("", "timestamp asc", "timestamp desc")


def logging_api(database: JobDatabase) -> Api:
    """The service over a database of entries."""
    api = Api(load("logging.v2"))

    def entries(call: Call) -> Reply:
        return Reply(value=_list(database, call.json or {}))

    api.handler("logging.entries.list")(entries)
    return api


def _list(database: JobDatabase, body: dict[str, Any]) -> dict[str, Any]:
    text, order = body.get("filter", ""), body.get("orderBy", "")
    if order not in _ORDERS or len(text) > _MAX_FILTER:
        raise ApiError(400, "Invalid order_by or filter.")
    projects = {project_number(name.removeprefix("projects/")) for name in body.get("resourceNames", [])}
    if not projects:
        raise ApiError(400, "resource_names is required.")
    wanted = parse_filter(text)
    jobs = {job.id: job.project for job in database.all() if project_number(job.project) in projects}
    named = demanded(text, "resource.labels.job_id")
    records = database.entries(jobs if named is None else jobs.keys() & {named})
    found = [entry for entry in (to_entry(r, jobs[r.job]) for r in records) if wanted(entry)]
    found.sort(key=lambda entry: (entry["timestamp"], entry["insertId"]), reverse=order.endswith("desc"))
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
