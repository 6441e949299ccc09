"""Custom jobs through three clients nobody here wrote, and what the service refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from google.api_core.exceptions import BadRequest, NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform, aiplatform_v1
from google.cloud.aiplatform import initializer
from googleapiclient import discovery
from googleapiclient.errors import HttpError

from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.jobs_api import ENUM_NUMBERS
from gcpod.localcloud.scheduler import project_number
from tests.jobs import IMAGE, shell_job, without_keep_alive
from tests.localcloud.conftest import Answer, Raw
from tests.waiting import until

# Google's SDK and gcloud know only the names of real regions.
REGION = "us-central1"
PARENT = f"projects/p/locations/{REGION}"
NUMBERED = f"projects/{project_number('p')}/locations/{REGION}/customJobs/"


class Client(Protocol):
    """What every client of custom jobs can do."""

    def create(self, body: dict[str, Any]) -> str: ...
    def get(self, name: str) -> dict[str, Any]: ...
    def list(self, wanted: str) -> list[str]: ...
    def cancel(self, name: str) -> None: ...
    def delete(self, name: str) -> None: ...


class Discovered:
    """google-api-python-client."""

    def __init__(self, url: str) -> None:
        api = discovery.build("aiplatform", "v1", credentials=AnonymousCredentials(), static_discovery=True,
                              client_options={"api_endpoint": url})
        self.jobs = api.projects().locations().customJobs()

    def create(self, body: dict[str, Any]) -> str:
        return str(self.jobs.create(parent=PARENT, body=body).execute()["name"])

    def get(self, name: str) -> dict[str, Any]:
        found = self.jobs.get(name=name).execute()
        return {key: found.get(key) for key in ("name", "displayName", "state", "labels")}

    def list(self, wanted: str) -> list[str]:
        request, names = self.jobs.list(parent=PARENT, filter=wanted, pageSize=2), []
        while request is not None:
            reply = request.execute()
            assert len(reply.get("customJobs", [])) <= 2
            names += [job["name"] for job in reply.get("customJobs", [])]
            request = self.jobs.list_next(request, reply)
        return names

    def cancel(self, name: str) -> None:
        assert self.jobs.cancel(name=name, body={}).execute() == {}

    def delete(self, name: str) -> None:
        assert self.jobs.delete(name=name).execute()["done"] is True


class Generated:
    """The generated client, which sends enumerators as numbers."""

    def __init__(self, url: str) -> None:
        self.jobs = aiplatform_v1.JobServiceClient(
            transport="rest", client_options={"api_endpoint": url}, credentials=AnonymousCredentials(),
        )

    def create(self, body: dict[str, Any]) -> str:
        job = aiplatform_v1.CustomJob.from_json(json.dumps(body))
        return str(self.jobs.create_custom_job(parent=PARENT, custom_job=job).name)

    def get(self, name: str) -> dict[str, Any]:
        job = self.jobs.get_custom_job(name=name)
        labels = dict(job.labels) or None
        return {"name": job.name, "displayName": job.display_name, "state": job.state.name, "labels": labels}

    def list(self, wanted: str) -> list[str]:
        request = aiplatform_v1.ListCustomJobsRequest(parent=PARENT, filter=wanted, page_size=2)
        return [job.name for job in self.jobs.list_custom_jobs(request=request)]

    def cancel(self, name: str) -> None:
        self.jobs.cancel_custom_job(name=name)

    def delete(self, name: str) -> None:
        self.jobs.delete_custom_job(name=name).result(timeout=20)


class Official:
    """The SDK, whose settings are the process's own."""

    def __init__(self, url: str) -> None:
        aiplatform.init(project="p", location=REGION, staging_bucket="gs://staging", api_endpoint=url,
                        api_transport="rest", credentials=AnonymousCredentials())

    def create(self, body: dict[str, Any]) -> str:
        pools = aiplatform_v1.CustomJob.from_json(json.dumps(body)).job_spec.worker_pool_specs
        job = aiplatform.CustomJob(body["displayName"], worker_pool_specs=list(pools), labels=body.get("labels"))
        job.submit()
        return str(job.resource_name)

    def get(self, name: str) -> dict[str, Any]:
        job = aiplatform.CustomJob.get(name)
        return {"name": job.resource_name, "displayName": job.display_name, "state": job.state.name,
                "labels": dict(job.labels) or None}

    def list(self, wanted: str) -> list[str]:
        return [job.resource_name for job in aiplatform.CustomJob.list(filter=wanted)]

    def cancel(self, name: str) -> None:
        aiplatform.CustomJob.get(name).cancel()

    def delete(self, name: str) -> None:
        aiplatform.CustomJob.get(name).delete()


@pytest.fixture(scope="module")
def jobs_cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("jobs")
    with JobCloud(
        folder / "c", cache=folder, environment_of=lambda *_: quick_python, location=REGION,
        middleware=without_keep_alive,
    ) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def sdk_settings() -> Iterator[None]:
    """Puts the SDK's global settings back."""
    settings = vars(initializer.global_config)
    before = dict(settings)
    yield
    settings.clear()
    settings.update(before)


@pytest.fixture(params=[Discovered, Generated, Official])
def jobs(request: pytest.FixtureRequest, jobs_cloud: JobCloud) -> Client:
    if request.param is Official:
        request.getfixturevalue("sdk_settings")
    made: Client = request.param(jobs_cloud.url)
    return made


@pytest.fixture
def post(jobs_cloud: JobCloud) -> Callable[[Any], Answer]:
    """Sends a body to customJobs.create."""
    raw = Raw(f"127.0.0.1:{jobs_cloud.port}")
    return lambda body: raw("POST", f"/v1/{PARENT}/customJobs", json.dumps(body).encode())


def ended(jobs: Client, name: str) -> str:
    states = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
    return until(lambda: next((state for state in states if jobs.get(name)["state"] == state), ""))


def test_life_of_a_job(jobs: Client, jobs_cloud: JobCloud) -> None:
    kind = type(jobs).__name__.lower()
    name = jobs.create(shell_job("sleep 60", f"slow {kind}", labels={"who": kind, "speed": "slow"}))
    assert name.startswith(NUMBERED)
    assert name.removeprefix(NUMBERED).isdigit()
    found = jobs.get(name)
    assert (found["name"], found["displayName"]) == (name, f"slow {kind}")
    assert found["labels"] == {"who": kind, "speed": "slow"}
    # The project by its id leads to the same job.
    assert jobs.get(name.replace(project_number("p"), "p", 1))["name"] == name
    until(lambda: jobs.get(name)["state"] == "JOB_STATE_RUNNING")
    quick = [jobs.create(shell_job("true", f"quick {kind}", labels={"who": kind})) for _ in range(3)]
    assert {ended(jobs, one) for one in quick} == {"JOB_STATE_SUCCEEDED"}
    who = f'labels.who="{kind}"'
    assert jobs.list(who) == [*reversed(quick), name]
    assert jobs.list(f'{who} AND state="JOB_STATE_RUNNING"') == [name]
    assert jobs.list(f'{who} AND labels.speed:*') == [name]
    assert jobs.list(f'display_name="quick {kind}" AND state=JOB_STATE_SUCCEEDED') == [*reversed(quick)]
    assert jobs.list(f'{who} AND state!="JOB_STATE_SUCCEEDED"') == [name]
    assert jobs.list('labels.who="nobody"') == []
    jobs.cancel(name)
    assert ended(jobs, name) == "JOB_STATE_CANCELLED"
    for one in (*quick, name):
        jobs.delete(one)
    assert jobs.list(who) == []
    assert jobs_cloud.database is not None
    assert jobs_cloud.database.entries([name.removeprefix(NUMBERED)]) == []


def test_what_is_not_there_is_404(jobs: Client) -> None:
    calls: tuple[Callable[[str], Any], ...] = (jobs.get, jobs.cancel, jobs.delete)
    for call in calls:
        with pytest.raises((HttpError, NotFound), match="404"):
            call(f"{PARENT}/customJobs/123456")


def test_a_job_of_another_project_is_not_there(jobs_cloud: JobCloud) -> None:
    jobs = Discovered(jobs_cloud.url)
    name = jobs.create(shell_job())
    with pytest.raises(HttpError, match="404"):
        jobs.get(name.replace(project_number("p"), "other"))
    other = jobs.jobs.list(parent=f"projects/other/locations/{REGION}").execute()
    assert other == {}


def test_a_job_that_runs_cannot_be_deleted(jobs_cloud: JobCloud) -> None:
    jobs = Discovered(jobs_cloud.url)
    name = jobs.create(shell_job("sleep 60"))
    with pytest.raises(HttpError, match="cancel it first"):
        jobs.delete(name)
    jobs.cancel(name)
    ended(jobs, name)
    jobs.cancel(name)
    jobs.delete(name)


def test_accelerators_by_number(jobs_cloud: JobCloud) -> None:
    jobs = Generated(jobs_cloud.url)
    body = shell_job()
    machine = {"machineType": "cloud-tpu", "acceleratorType": "TPU_V2", "acceleratorCount": 8}
    body["jobSpec"]["workerPoolSpecs"][0]["machineSpec"] = machine
    with pytest.raises(BadRequest, match=r"TPU_V2 on cloud-tpu is not available .* CPU machines only"):
        jobs.create(body)
    body = shell_job(name="spot")
    body["jobSpec"]["scheduling"] = {"strategy": "SPOT", "timeout": "60s"}
    name = jobs.create(body)
    assert jobs.jobs.get_custom_job(name=name).job_spec.scheduling.strategy.name == "SPOT"
    assert Discovered(jobs_cloud.url).jobs.get(name=name).execute()["jobSpec"]["scheduling"]["strategy"] == "SPOT"


def test_numbers_of_enumerators_are_googles() -> None:
    types = aiplatform_v1.types
    googles = {
        "MachineSpec.acceleratorType": types.AcceleratorType, "CustomJob.state": types.JobState,
        "Scheduling.strategy": types.Scheduling.Strategy,
        "ReservationAffinity.reservationAffinityType": types.ReservationAffinity.Type,
    }
    assert {
        f"GoogleCloudAiplatformV1{name}": {one.value: one.name for one in enumeration}
        for name, enumeration in googles.items()
    } == ENUM_NUMBERS


def changed(path: str, value: Any) -> dict[str, Any]:
    """A good request with one field set; None takes it away."""
    body = shell_job(labels={"a": "b"})
    *steps, last = path.split(".")
    here: Any = body
    for step in steps:
        here = here[int(step)] if step.isdigit() else here.setdefault(step, {})
    if isinstance(here, list):
        here[int(last)] = value
    elif value is None:
        del here[last]
    else:
        here[last] = value
    return body


POOL = "jobSpec.workerPoolSpecs.0"
ONE_POOL: dict[str, Any] = shell_job()["jobSpec"]["workerPoolSpecs"][0]
PACKAGE: dict[str, Any] = {"executorImageUri": IMAGE, "packageUris": ["gs://bucket/a.tar.gz"], "pythonModule": "m"}


def packaged(**changes: Any) -> dict[str, Any]:
    """A pool in package mode."""
    return {"machineSpec": ONE_POOL["machineSpec"], "replicaCount": "1", "pythonPackageSpec": {**PACKAGE, **changes}}


@pytest.mark.parametrize(("path", "value", "said"), [
    ("colour", "red", 'Unknown name "colour"'),
    (f"{POOL}.machineSpec.colour", "red", "job_spec.worker_pool_specs[0].machine_spec"),
    (f"{POOL}.containerSpec.args", [1], "job_spec.worker_pool_specs[0].container_spec.args[0]"),
    (f"{POOL}.replicaCount", "many", "job_spec.worker_pool_specs[0].replica_count"),
    (f"{POOL}.machineSpec.acceleratorType", "TPU_V99", "job_spec.worker_pool_specs[0].machine_spec.accelerator_type"),
    ("labels", ["a"], "labels"), ("labels", {"a": 1}, "labels"),
    ("displayName", None, "display_name"), ("displayName", "", "display_name"),
    ("displayName", "x" * 129, "display_name"),
    ("labels", {"Upper": "a"}, "labels"), ("labels", {"a": "Upper"}, "labels"), ("labels", {"a": "x" * 64}, "labels"),
    ("labels", {"1a": "b"}, "labels"), ("labels", {f"k{n}": "v" for n in range(65)}, "labels"),
    ("jobSpec", None, "worker_pool_specs"), ("jobSpec.workerPoolSpecs", [], "worker_pool_specs"),
    (f"{POOL}.replicaCount", "2", "worker_pool_specs[0].replica_count"),
    ("jobSpec.scheduling.timeout", "soon", "timeout"), ("jobSpec.scheduling.timeout", "-5s", "timeout"),
    ("jobSpec.baseOutputDirectory.outputUriPrefix", "/tmp/out", "base_output_directory"),
    ("jobSpec.baseOutputDirectory.outputUriPrefix", "gs://", "base_output_directory"),
    ("jobSpec.baseOutputDirectory.outputUriPrefix", "gs://No_Bucket/x", "base_output_directory"),
    (f"{POOL}.machineSpec", {}, "machine_type"),
    (f"{POOL}.containerSpec", None, "container_spec and python_package_spec"),
    (f"{POOL}.pythonPackageSpec", PACKAGE, "container_spec and python_package_spec"),
    (f"{POOL}.containerSpec.imageUri", None, "image_uri"),
    (f"{POOL}.containerSpec.env", [{"value": "x"}], "env"),
    (POOL, packaged(packageUris=[]), "package_uris"), (POOL, packaged(packageUris=["a.tar.gz"]), "package_uris"),
    (POOL, packaged(packageUris=["gs://bucket/a.tar.gz"] * 101), "no more than 100"),
    (POOL, packaged(pythonModule=""), "python_module"),
])
def test_bad_requests(post: Callable[[Any], Answer], path: str, value: Any, said: str) -> None:
    reply = post(changed(path, value))
    assert (reply.status, reply.json["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert said in reply.json["error"]["message"]


def test_a_wrong_field_is_named_by_its_path(post: Callable[[Any], Answer]) -> None:
    error = post(changed(f"{POOL}.replicaCount", "many")).json["error"]
    [detail] = error["details"]
    fields = [one["field"] for one in detail["fieldViolations"]]
    assert fields == ["custom_job.job_spec.worker_pool_specs[0].replica_count"]


@pytest.mark.parametrize("machine", [
    {"machineType": "cloud-tpu"}, {"machineType": "cloud-tpu", "acceleratorType": "TPU_V2", "acceleratorCount": 8},
    {"machineType": "n1-standard-4", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1},
    {"machineType": "n1-standard-4", "acceleratorType": 5, "acceleratorCount": 1},
    {"machineType": "n1-standard-4", "acceleratorType": 99, "acceleratorCount": 1},
    {"machineType": "ct5lp-hightpu-1t", "tpuTopology": "1x1"},
])
def test_the_local_region_offers_cpu_machines(quick_cloud: JobCloud, machine: dict[str, Any]) -> None:
    body = changed(f"{POOL}.machineSpec", machine)
    path = "/v1/projects/p/locations/local/customJobs"
    reply = Raw(f"127.0.0.1:{quick_cloud.port}")("POST", path, json.dumps(body).encode())
    assert (reply.status, reply.json["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "is not available in the region local, which offers CPU machines only" in reply.json["error"]["message"]
    assert quick_cloud.database is not None
    assert quick_cloud.database.all() == []


@pytest.mark.parametrize(("query", "status"), [
    ("pageSize=-1", 400), ("pageSize=x", 400), ("pageToken=x", 400), ("pageToken=%C2%B2", 400),
    ("pageToken=" + "9" * 5000, 400),
    ("pageToken=100000", 400), ("filter=colour=red", 400), ("orderBy=create_time", 400), ("filter=(", 400),
    ("filter=state=~%22x%22", 501),
    ("filter=create_time%3E%22soon%22", 400),
    ("filter=create_time%3E%222020-01-01T00:00:00Z%22", 200), ("colour=red", 400), ("pageSize=0", 200),
])
def test_lists_are_strict(jobs_cloud: JobCloud, query: str, status: int) -> None:
    raw = Raw(f"127.0.0.1:{jobs_cloud.port}")
    assert raw("GET", f"/v1/{PARENT}/customJobs?{query}").status == status


def test_other_regions_are_refused(jobs_cloud: JobCloud) -> None:
    raw = Raw(f"127.0.0.1:{jobs_cloud.port}")
    reply = raw("GET", "/v1/projects/p/locations/europe-west4/customJobs")
    assert reply.status == 400
    assert reply.json["error"]["message"] == f"The region europe-west4 is not served here; the only one is '{REGION}'."


@pytest.fixture
def gcloud(jobs_cloud: JobCloud, tmp_path: Path) -> Callable[..., Any]:
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not installed")
    environment = {
        **os.environ,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"{jobs_cloud.url}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_PROJECT": "p",
        "CLOUDSDK_CONFIG": str(tmp_path / "config"),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }

    def run(*args: str) -> Any:
        command = ["gcloud", "ai", "custom-jobs", *args, f"--region={REGION}", "--format=json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    return run


@pytest.mark.tools
def test_gcloud(gcloud: Callable[..., Any], jobs_cloud: JobCloud, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(shell_job("sleep 60")["jobSpec"]))
    made = gcloud("create", "--display-name=by gcloud", f"--config={config}", "--labels=who=gcloud")
    name = made["name"]
    assert name.startswith(NUMBERED)
    assert gcloud("describe", name)["displayName"] == "by gcloud"
    assert [job["name"] for job in gcloud("list", "--filter=labels.who=gcloud")] == [name]
    gcloud("cancel", name.removeprefix(NUMBERED))
    assert ended(Discovered(jobs_cloud.url), name) == "JOB_STATE_CANCELLED"
