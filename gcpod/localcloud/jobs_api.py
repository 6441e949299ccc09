"""Vertex AI's custom jobs: create, get, list, cancel and delete, checked and answered as the service does.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gcpod.localcloud.config import Region
from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api, ApiError, Call, Reply
from gcpod.localcloud.jobdb import TERMINAL, JobDatabase, JobRecord
from gcpod.localcloud.jobrules import check_job, without_nulls
from gcpod.localcloud.logfilter import parse_filter
from gcpod.localcloud.scheduler import Scheduler, project_number
from gcpod.localcloud.schema import EnumNumbers

PREFIX = "aiplatform.projects.locations.customJobs"
PAGE_SIZE = 100
_KEPT = ("displayName", "jobSpec", "labels", "encryptionSpec")
_PARENT = re.compile(r"projects/([^/]+)/locations/([^/]+)")
_NAME = re.compile(r"projects/([^/]+)/locations/([^/]+)/customJobs/([^/]+)")
_SNAKE = (("displayName", "display_name"), ("createTime", "create_time"), ("updateTime", "update_time"),
          ("startTime", "start_time"), ("endTime", "end_time"))
_FIELDS = re.compile(r"(?:display_?[nN]ame|state|(?:create|update|start|end)_?[tT]ime|labels\.[a-z][a-z0-9_-]{0,62})")
_COMPARED = re.compile(r'"(?:[^"\\]|\\.)*"|([^\s=<>:()!"]+)\s*(?:>=|<=|!=|=~|!~|[=<>:])')
"""Quoted text, which is passed over, or the field that is compared with something."""
_TOKEN = re.compile(r"([0-9-]{10}T[0-9:.]{8,16}Z)~([0-9]{1,20})")

_JOB_STATES = (
    "UNSPECIFIED", "QUEUED", "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLING", "CANCELLED", "PAUSED",
    "EXPIRED", "UPDATING", "PARTIALLY_SUCCEEDED",
)
ENUM_NUMBERS: EnumNumbers = {
    "GoogleCloudAiplatformV1MachineSpec.acceleratorType": {
        0: "ACCELERATOR_TYPE_UNSPECIFIED", 1: "NVIDIA_TESLA_K80", 2: "NVIDIA_TESLA_P100", 3: "NVIDIA_TESLA_V100",
        4: "NVIDIA_TESLA_P4", 5: "NVIDIA_TESLA_T4", 6: "TPU_V2", 7: "TPU_V3", 8: "NVIDIA_TESLA_A100",
        9: "NVIDIA_A100_80GB", 10: "TPU_V4_POD", 11: "NVIDIA_L4", 12: "TPU_V5_LITEPOD", 13: "NVIDIA_H100_80GB",
        14: "NVIDIA_H100_MEGA_80GB", 15: "NVIDIA_H200_141GB", 16: "NVIDIA_B200", 17: "NVIDIA_GB200",
        18: "NVIDIA_RTX_PRO_6000",
    },
    "GoogleCloudAiplatformV1ReservationAffinity.reservationAffinityType": {
        0: "TYPE_UNSPECIFIED", 1: "NO_RESERVATION", 2: "ANY_RESERVATION", 3: "SPECIFIC_RESERVATION",
    },
    "GoogleCloudAiplatformV1Scheduling.strategy": {
        0: "STRATEGY_UNSPECIFIED", 1: "ON_DEMAND", 2: "LOW_COST", 3: "STANDARD", 4: "SPOT", 6: "FLEX_START",
    },
    "GoogleCloudAiplatformV1CustomJob.state": {
        number: f"JOB_STATE_{name}" for number, name in enumerate(_JOB_STATES)
    },
}
"""The enumerations of a CustomJob by number, which is how protobuf clients send them."""


def jobs_api(database: JobDatabase, scheduler: Scheduler) -> Api:
    """The service over a database and a scheduler."""
    api = Api(load("aiplatform.v1"), enum_numbers=ENUM_NUMBERS)
    service = _CustomJobs(database, scheduler)
    handlers: Mapping[str, Callable[[Call], Reply]] = {
        "create": service.create, "get": service.get, "list": service.list, "cancel": service.cancel,
        "delete": service.delete,
    }
    for name, handler in handlers.items():
        api.handler(f"{PREFIX}.{name}")(handler)
    return api


def to_resource(job: JobRecord, location: str) -> dict[str, Any]:
    """A job as the service writes it; the name carries the project's number."""
    resource = {
        "name": f"projects/{project_number(job.project)}/locations/{location}/customJobs/{job.id}",
        **job.body, "state": f"JOB_STATE_{job.state}", "createTime": job.created, "updateTime": job.updated,
    }
    if job.started:
        resource["startTime"] = job.started
    if job.ended:
        resource["endTime"] = job.ended
    if job.error:
        resource["error"] = {"code": job.error_code, "message": job.error}
    return resource


def page(jobs: Sequence[JobRecord], size: str | None, token: str | None) -> tuple[list[JobRecord], str]:
    """One page of jobs, newest first, and the token of the next; "" for none.

    A token names the last job of its page, not a number of jobs: whatever comes or goes meanwhile, no job is listed
    twice and none is left out.

    Raises:
        ApiError: 400 for a negative size or a token that this never gave.
    """
    wanted = min(int(size or 0) or PAGE_SIZE, PAGE_SIZE)
    match = _TOKEN.fullmatch(token or "")
    if wanted < 0 or (token and match is None):
        raise ApiError(400, "Invalid page_size or page_token.")
    left = [job for job in jobs if match is None or (job.created, job.id) < match.groups()]
    found = left[:wanted]
    return found, f"{found[-1].created}~{found[-1].id}" if len(left) > len(found) else ""


class _CustomJobs:
    def __init__(self, database: JobDatabase, scheduler: Scheduler) -> None:
        self.database, self.scheduler, self.config = database, scheduler, scheduler.config

    def create(self, call: Call) -> Reply:
        project, region = self._place(_PARENT, call.path["parent"])
        body = {key: value for key, value in without_nulls(call.json).items() if key in _KEPT}
        check_job(body, region)
        number = 10**18 + secrets.randbelow(8 * 10**18)
        time = self.database.clock()
        job = JobRecord(str(number), project, body, "QUEUED", created=time, updated=time, location=region.name)
        self.scheduler.submit(job)
        return Reply(value=to_resource(job, region.name))

    def get(self, call: Call) -> Reply:
        return Reply(value=self._resource(self._find(call)))

    def list(self, call: Call) -> Reply:
        project, region = self._place(_PARENT, call.path["parent"])
        text = call.query.get("filter", "")
        for compared in _COMPARED.finditer(text):
            if compared[1] and not _FIELDS.fullmatch(compared[1]):
                raise ApiError(400, f"Invalid filter: there is no field {compared[1][:100]!r}.")
        wanted = parse_filter(text)

        def fits(job: JobRecord) -> bool:
            if project_number(job.project) != project_number(project) or self.scheduler.region_of(job) is not region:
                return False
            resource = self._resource(job)
            return wanted({**resource, **{snake: resource.get(camel) for camel, snake in _SNAKE}})

        jobs = [job for job in self.database.all() if fits(job)]
        found, token = page(jobs, call.query.get("pageSize"), call.query.get("pageToken"))
        reply: dict[str, Any] = {"customJobs": [self._resource(job) for job in found]} if found else {}
        return Reply(value=reply | ({"nextPageToken": token} if token else {}))

    def cancel(self, call: Call) -> Reply:
        self.scheduler.cancel(self._find(call).id)
        return Reply(value={})

    def delete(self, call: Call) -> Reply:
        job = self._find(call)
        if job.state not in TERMINAL:
            raise ApiError(400, f"The CustomJob {job.id} is in state JOB_STATE_{job.state}; cancel it first.",
                           reason="FAILED_PRECONDITION")
        self.database.delete(job.id)
        location = self.scheduler.region_of(job).name
        name = f"projects/{project_number(job.project)}/locations/{location}/operations/{job.id}"
        empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        return Reply(value={"name": name, "done": True, "response": empty})

    def _resource(self, job: JobRecord) -> dict[str, Any]:
        return to_resource(job, self.scheduler.region_of(job).name)

    def _find(self, call: Call) -> JobRecord:
        name = call.path["name"]
        project, region = self._place(_NAME, name)
        job = self.database.get(name.rsplit("/", 1)[-1])
        if job is None or project_number(job.project) != project_number(project) or (
                self.scheduler.region_of(job) is not region):
            raise ApiError(404, f"The CustomJob does not exist. Resource name: {name}")
        return job

    def _place(self, pattern: re.Pattern[str], name: str) -> tuple[str, Region]:
        """The project and the region of a resource name."""
        match = pattern.fullmatch(name)
        if match is None:
            raise ApiError(400, f"Invalid resource name: {name}")
        region = self.config.region(match[2])
        if region is None:
            names = [one.name for one in self.config.regions]
            others = f"the only one is {names[0]!r}" if len(names) == 1 else f"those served are {', '.join(names)}"
            raise ApiError(400, f"The region {match[2]} is not served here; {others}.")
        return match[1], region
