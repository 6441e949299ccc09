"""Cloud Logging's entries of custom jobs: list with filter, order and pages.

https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
"""

from __future__ import annotations

import re
from typing import Any

from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api, ApiError, Call, Reply
from gcpod.localcloud.jobdb import EntryRecord, JobDatabase
from gcpod.localcloud.logfilter import parse_filter
from gcpod.localcloud.scheduler import project_number

PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000
_ORDERS = ("", "timestamp asc", "timestamp desc")
_JOB = re.compile(r'resource\.labels\.job_id\s*=\s*"?(\d+)"?')


def logging_api(database: JobDatabase) -> Api:
    """The service over a database of entries."""
    api = Api(load("logging.v2"))

    def entries(call: Call) -> Reply:
        return Reply(value=_list(database, call.json or {}))

    api.handler("logging.entries.list")(entries)
    return api


def _list(database: JobDatabase, body: dict[str, Any]) -> dict[str, Any]:
    text, order = body.get("filter", ""), body.get("orderBy", "")
    size = min(int(body.get("pageSize", PAGE_SIZE)) or PAGE_SIZE, MAX_PAGE_SIZE)
    token = body.get("pageToken") or "0"
    if order not in _ORDERS or size < 0 or not str(token).isdigit() or len(text) > 20_000:
        raise ApiError(400, "Invalid order_by, page_size, page_token or filter.")
    projects = {project_number(name.removeprefix("projects/")) for name in body.get("resourceNames", [])}
    if not projects:
        raise ApiError(400, "resource_names is required.")
    wanted = parse_filter(text)
    jobs = {job.id: job.project for job in database.all() if project_number(job.project) in projects}
    named = [job for job in _JOB.findall(text) if job in jobs]
    records = database.entries(named if named and " OR " not in text else jobs)
    found = [entry for entry in (to_entry(r, jobs[r.job]) for r in records) if wanted(entry)]
    found.sort(key=lambda entry: (entry["timestamp"], entry["insertId"]), reverse=order.endswith("desc"))
    page = found[int(token) : int(token) + size]
    reply: dict[str, Any] = {"entries": page} if page else {}
    if int(token) + size < len(found):
        reply["nextPageToken"] = str(int(token) + size)
    return reply


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
