"""Vertex AI's custom jobs: create, get, list, cancel and delete, checked and answered as the service does.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from gcpod.errors import SpecError
from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api, ApiError, Call, Reply
from gcpod.localcloud.jobdb import TERMINAL, JobDatabase, JobRecord
from gcpod.localcloud.logfilter import parse_filter
from gcpod.localcloud.paging import page_of
from gcpod.localcloud.scheduler import Scheduler, project_number
from gcpod.localcloud.schema import EnumNumbers
from gcpod.uris import GcsUri

PREFIX = "aiplatform.projects.locations.customJobs"
PAGE_SIZE = 100
_PARENT = re.compile(r"projects/([^/]+)/locations/([^/]+)")
_NAME = re.compile(r"projects/([^/]+)/locations/([^/]+)/customJobs/([^/]+)")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_TIMEOUT = re.compile(r"\d+(\.\d{1,9})?s")
_SNAKE = (("displayName", "display_name"), ("createTime", "create_time"), ("updateTime", "update_time"),
          ("startTime", "start_time"), ("endTime", "end_time"))

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


class _CustomJobs:
    def __init__(self, database: JobDatabase, scheduler: Scheduler) -> None:
        self.database, self.scheduler, self.location = database, scheduler, scheduler.location

    def create(self, call: Call) -> Reply:
        project = self._project(_PARENT, call.path["parent"])
        body = {key: value for key, value in call.json.items() if key in ("displayName", "jobSpec", "labels",
                                                                         "encryptionSpec")}
        _check(body, self.location)
        number = 10**18 + secrets.randbelow(8 * 10**18)
        time = self.database.clock()
        job = JobRecord(str(number), project, body, "PENDING", created=time, updated=time)
        self.database.add(job)
        self.scheduler.start(job.id)
        return Reply(value=to_resource(job, self.location))

    def get(self, call: Call) -> Reply:
        return Reply(value=to_resource(self._find(call), self.location))

    def list(self, call: Call) -> Reply:
        number = project_number(self._project(_PARENT, call.path["parent"]))
        wanted = parse_filter(call.query.get("filter", ""))
        jobs = [job for job in self.database.all() if project_number(job.project) == number]
        resources = [to_resource(job, self.location) for job in jobs]
        found = [r for r in resources if wanted({**r, **{snake: r.get(camel) for camel, snake in _SNAKE}})]
        size, token = call.query.get("pageSize"), call.query.get("pageToken")
        return Reply(value=page_of("customJobs", found, size, token, PAGE_SIZE, PAGE_SIZE))

    def cancel(self, call: Call) -> Reply:
        self.scheduler.cancel(self._find(call).id)
        return Reply(value={})

    def delete(self, call: Call) -> Reply:
        job = self._find(call)
        if job.state not in TERMINAL:
            raise ApiError(400, f"The CustomJob {job.id} is in state JOB_STATE_{job.state}; cancel it first.",
                           reason="FAILED_PRECONDITION")
        self.database.delete(job.id)
        name = f"projects/{project_number(job.project)}/locations/{self.location}/operations/{job.id}"
        empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
        return Reply(value={"name": name, "done": True, "response": empty})

    def _find(self, call: Call) -> JobRecord:
        name = call.path["name"]
        project = self._project(_NAME, name)
        job = self.database.get(name.rsplit("/", 1)[-1])
        if job is None or project_number(job.project) != project_number(project):
            raise ApiError(404, f"The CustomJob does not exist. Resource name: {name}")
        return job

    def _project(self, pattern: re.Pattern[str], name: str) -> str:
        match = pattern.fullmatch(name)
        if match is None:
            raise ApiError(400, f"Invalid resource name: {name}")
        if match.group(2) != self.location:
            raise ApiError(400, f"The region {match.group(2)} is not served here; the only one is {self.location!r}.")
        return match.group(1)


def _check(body: dict[str, Any], location: str) -> None:
    """What the schema cannot say."""
    if not body.get("displayName") or len(body["displayName"]) > 128:
        raise ApiError(400, "Field: custom_job.display_name; Message: it must have 1 to 128 characters.")
    labels = body.get("labels", {})
    if len(labels) > 64:
        raise ApiError(400, "Field: custom_job.labels; Message: no more than 64 labels are allowed.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ApiError(400, f"Field: custom_job.labels; Message: {key}={value} is not a valid label.")
    spec = body.get("jobSpec", {})
    pools = spec.get("workerPoolSpecs", [])
    if len(pools) != 1 or str(pools[0].get("replicaCount", "1")) != "1":
        raise ApiError(400, f"Field: job_spec.worker_pool_specs; Message: the region {location} offers one replica.")
    timeout = spec.get("scheduling", {}).get("timeout")
    if timeout is not None and not _TIMEOUT.fullmatch(timeout):
        raise ApiError(400, "Field: job_spec.scheduling.timeout; Message: it is no duration.")
    base = spec.get("baseOutputDirectory", {}).get("outputUriPrefix")
    if base is not None:
        _check_uri("job_spec.base_output_directory", base)
    _check_pool(pools[0], location)


def _check_uri(field: str, text: str) -> None:
    try:
        GcsUri.parse(text)
    except SpecError:
        raise ApiError(400, f"Field: {field}; Message: {text[:200]} is no gs:// address.") from None


def _check_pool(pool: dict[str, Any], location: str) -> None:
    machine = pool.get("machineSpec", {})
    kind = machine.get("machineType", "")
    if not kind:
        raise ApiError(400, "Field: worker_pool_specs[0].machine_spec.machine_type; Message: it is required.")
    accelerator = machine.get("acceleratorType", "ACCELERATOR_TYPE_UNSPECIFIED")
    if kind == "cloud-tpu" or accelerator != "ACCELERATOR_TYPE_UNSPECIFIED" or machine.get("tpuTopology"):
        asked = kind if accelerator == "ACCELERATOR_TYPE_UNSPECIFIED" else f"{accelerator} on {kind}"
        raise ApiError(400, f"Machine {asked} is not available in the region {location}, which offers CPU machines "
                       "only.")
    container, package = pool.get("containerSpec"), pool.get("pythonPackageSpec")
    if bool(container) == bool(package):
        raise ApiError(400, "Field: worker_pool_specs[0]; Message: give one of container_spec and python_package_spec.")
    if container and not container.get("imageUri"):
        raise ApiError(400, "Field: container_spec.image_uri; Message: it is required.")
    if package and not (package.get("executorImageUri") and package.get("packageUris") and package.get("pythonModule")):
        raise ApiError(400, "Field: python_package_spec; Message: executor_image_uri, package_uris and python_module "
                       "are required.")
    if package and len(package["packageUris"]) > 100:
        raise ApiError(400, "Field: python_package_spec.package_uris; Message: no more than 100 are allowed.")
    for uri in package["packageUris"] if package else ():
        _check_uri("python_package_spec.package_uris", uri)
    if not all(variable.get("name") for variable in (container or package or {}).get("env", [])):
        raise ApiError(400, "Field: worker_pool_specs[0].env; Message: every variable needs a name.")
