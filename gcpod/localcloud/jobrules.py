"""What the schema cannot say about a CustomJob: every rule that Vertex AI refuses a request by, with the field's path.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gcpod.errors import SpecError
from gcpod.localcloud.api_error import ApiError, Violation
from gcpod.localcloud.config import Region
from gcpod.localcloud.pools import Pool, pools_of, replica_count
from gcpod.localcloud.quota import strategy_of
from gcpod.uris import GcsUri

MAX_LABELS, MAX_ENV, MAX_PACKAGES, MAX_POOLS = 64, 100, 100, 4
DISK_TYPES = ("pd-ssd", "pd-standard")
MIN_DISK_GB, MAX_DISK_GB = 100, 64_000
"""https://cloud.google.com/vertex-ai/docs/reference/rest/v1/DiskSpec"""
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_DURATION = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?s")
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NETWORK = re.compile(r"projects/[0-9]+/global/networks/[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_TENSORBOARD = re.compile(r"projects/[^/]+/locations/([^/]+)/tensorboards/[0-9]+")
_KMS_KEY = re.compile(r"projects/[^/]+/locations/([^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+")
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9-]*@[a-z0-9.-]+\.gserviceaccount\.com")
_TOPOLOGY = re.compile(r"[1-9][0-9]{0,2}(x[1-9][0-9]{0,2}){1,2}")
_ACCELERATED = re.compile(r"(a[2-9]|g[2-9])-.+")
"""Families whose machines come with GPUs."""
_POOLS = "job_spec.worker_pool_specs"


def check_job(body: Mapping[str, Any], region: Region) -> None:
    """Holds the body of customJobs.create against the rules.

    Raises:
        ApiError: 400 with every violation.
    """
    spec: Mapping[str, Any] = body.get("jobSpec", {})
    found = [*_of_job(body, region), *_of_pools(spec, region), *_of_scheduling(spec), *_of_names(spec, region)]
    if found:
        raise ApiError.of_violations([
            Violation(one.field, f"Field: {one.field}; Message: {one.description}") for one in found
        ])


def without_nulls(value: Any) -> Any:
    """JSON in which what is null is not there, as protobuf reads it.

    Raises:
        ApiError: 400 for a null in a list, which protobuf refuses.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        if None in value:
            raise ApiError(400, "Invalid JSON payload received. A list holds a null.")
        return [without_nulls(one) for one in value]
    return value


def _of_job(body: Mapping[str, Any], region: Region) -> Iterator[Violation]:
    if not body.get("displayName") or len(body["displayName"]) > 128:
        yield Violation("custom_job.display_name", "it must have 1 to 128 characters.")
    labels = body.get("labels", {})
    if len(labels) > MAX_LABELS:
        yield Violation("custom_job.labels", f"no more than {MAX_LABELS} labels are allowed.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield Violation("custom_job.labels", f"{key}={value} is not a valid label.")
    if "encryptionSpec" in body:
        match = _KMS_KEY.fullmatch(body["encryptionSpec"].get("kmsKeyName", ""))
        if match is None or match[1] != region.name:
            yield Violation("custom_job.encryption_spec.kms_key_name",
                            f"it must be projects/P/locations/{region.name}/keyRings/R/cryptoKeys/K.")


def _of_pools(spec: Mapping[str, Any], region: Region) -> Iterator[Violation]:
    listed = spec.get("workerPoolSpecs", [])
    if not 1 <= len(listed) <= MAX_POOLS:
        yield Violation(_POOLS, f"give 1 to {MAX_POOLS} pools.")
        return
    for place, body in enumerate(listed):
        if replica_count(body) < 0 or (not replica_count(body) and any(body.get(key) for key in (
                "machineSpec", "containerSpec", "pythonPackageSpec"))):
            yield Violation(f"{_POOLS}[{place}].replica_count", "it must be positive, or the pool empty.")
            return
    if replica_count(listed[0]) != 1:
        yield Violation(f"{_POOLS}[0].replica_count", "the first pool is the primary replica: it must be 1.")
    pools = pools_of(spec)
    if sum(pool.replicas for pool in pools) > region.max_replicas:
        yield Violation(_POOLS, f"the region {region.name} offers {region.max_replicas} replicas for a job.")
    if any(pool.is_tpu for pool in pools) and (len(pools) > 1 or pools[0].replicas > 1):
        yield Violation(_POOLS, "a job on TPUs has one pool with one replica.")
    if strategy_of(spec) == "SPOT" and any(pool.is_pod for pool in pools):
        yield Violation("job_spec.scheduling.strategy", "SPOT is not available for TPU pods.")
    for pool in pools:
        where = f"{_POOLS}[{pool.place}]"
        yield from _of_machine(pool, f"{where}.machine_spec", region)
        yield from _of_disk(pool.body.get("diskSpec", {}), f"{where}.disk_spec")
        yield from _of_program(pool.body, where)


def _of_machine(pool: Pool, where: str, region: Region) -> Iterator[Violation]:
    kind, accelerator = str(pool.machine.get("machineType", "")), pool.accelerator
    topology = pool.machine.get("tpuTopology")
    if not kind:
        yield Violation(f"{where}.machine_type", "it is required.")
    elif not _offered(pool, region):
        asked = f"{accelerator} on {kind}" if accelerator else kind
        offers = ", ".join((*region.accelerators, *region.machines))
        yield Violation(where, f"Machine {asked} is not available in the region {region.name}, which offers CPU "
                        f"machines {f'and {offers}' if offers else 'only'}.")
    elif (kind == "cloud-tpu" or _ACCELERATED.fullmatch(kind)) and not accelerator:
        yield Violation(f"{where}.accelerator_type", f"{kind} needs one.")
    elif accelerator.startswith("TPU_") and kind != "cloud-tpu":
        yield Violation(f"{where}.machine_type", f"{accelerator} is part of cloud-tpu only.")
    elif accelerator.startswith("NVIDIA_") and pool.is_tpu:
        yield Violation(f"{where}.accelerator_type", f"{accelerator} is no part of a TPU machine.")
    elif bool(accelerator) != (int(pool.machine.get("acceleratorCount", 0)) > 0):
        yield Violation(f"{where}.accelerator_count", "an accelerator needs a positive count, and a count one.")
    elif kind.startswith("ct") and not _TOPOLOGY.fullmatch(topology or ""):
        yield Violation(f"{where}.tpu_topology", f"{kind} needs one such as 2x2.")
    elif topology and not kind.startswith("ct"):
        yield Violation(f"{where}.tpu_topology", f"{kind} has none.")


def _offered(pool: Pool, region: Region) -> bool:
    kind = str(pool.machine.get("machineType", ""))
    if pool.accelerator:
        return pool.accelerator in region.accelerators
    if kind == "cloud-tpu":
        return any(one.startswith("TPU_") for one in region.accelerators)
    return not pool.is_tpu or kind in region.machines


def _of_disk(disk: Mapping[str, Any], where: str) -> Iterator[Violation]:
    if disk.get("bootDiskType", DISK_TYPES[0]) not in DISK_TYPES:
        yield Violation(f"{where}.boot_disk_type", f"it must be one of {', '.join(DISK_TYPES)}.")
    if not MIN_DISK_GB <= int(disk.get("bootDiskSizeGb", MIN_DISK_GB)) <= MAX_DISK_GB:
        yield Violation(f"{where}.boot_disk_size_gb", f"it must be {MIN_DISK_GB} to {MAX_DISK_GB}.")


def _of_program(pool: Mapping[str, Any], where: str) -> Iterator[Violation]:
    container, package = pool.get("containerSpec"), pool.get("pythonPackageSpec")
    if bool(container) == bool(package):
        yield Violation(where, "give one of container_spec and python_package_spec.")
        return
    where = f"{where}.{'container_spec' if container else 'python_package_spec'}"
    needed = {"imageUri": "image_uri"} if container else {
        "executorImageUri": "executor_image_uri", "packageUris": "package_uris", "pythonModule": "python_module"}
    program: Mapping[str, Any] = container or package or {}
    for key, field in needed.items():
        if not program.get(key):
            yield Violation(f"{where}.{field}", "it is required.")
    if len(program.get("packageUris", [])) > MAX_PACKAGES:
        yield Violation(f"{where}.package_uris", f"no more than {MAX_PACKAGES} are allowed.")
    for number, uri in enumerate(program.get("packageUris", [])):
        yield from _of_uri(uri, f"{where}.package_uris[{number}]")
    variables = program.get("env", [])
    if len(variables) > MAX_ENV:
        yield Violation(f"{where}.env", f"no more than {MAX_ENV} are allowed.")
    for number, variable in enumerate(variables):
        if not _VARIABLE.fullmatch(variable.get("name", "")):
            yield Violation(f"{where}.env[{number}].name", "it must be a C identifier.")


def _of_scheduling(spec: Mapping[str, Any]) -> Iterator[Violation]:
    scheduling = spec.get("scheduling", {})
    for key, field in (("timeout", "timeout"), ("maxWaitDuration", "max_wait_duration")):
        if key in scheduling and not _DURATION.fullmatch(str(scheduling[key])):
            yield Violation(f"job_spec.scheduling.{field}", "it is no duration.")
    if "maxWaitDuration" in scheduling and strategy_of(spec) != "FLEX_START":
        yield Violation("job_spec.scheduling.max_wait_duration", "it is for the strategy FLEX_START only.")


def _of_names(spec: Mapping[str, Any], region: Region) -> Iterator[Violation]:
    if spec.get("network") and not _NETWORK.fullmatch(spec["network"]):
        yield Violation("job_spec.network", "it must be projects/NUMBER/global/networks/NAME.")
    if spec.get("serviceAccount") and not _ACCOUNT.fullmatch(spec["serviceAccount"]):
        yield Violation("job_spec.service_account", "it must be the e-mail address of a service account.")
    if spec.get("tensorboard"):
        match = _TENSORBOARD.fullmatch(spec["tensorboard"])
        if match is None or match[1] != region.name:
            yield Violation("job_spec.tensorboard",
                            f"it must be projects/P/locations/{region.name}/tensorboards/NUMBER.")
        if not spec.get("serviceAccount"):
            yield Violation("job_spec.service_account", "a job with a tensorboard needs one.")
    base = spec.get("baseOutputDirectory", {}).get("outputUriPrefix")
    if base:
        yield from _of_uri(base, "job_spec.base_output_directory.output_uri_prefix")


def _of_uri(text: str, where: str) -> Iterator[Violation]:
    try:
        GcsUri.parse(text)
    except SpecError:
        yield Violation(where, f"{text[:200]} is no gs:// address.")
