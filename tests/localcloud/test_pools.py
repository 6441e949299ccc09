"""Worker pools: what the service refuses, and replicas as processes that know, wait for and end each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.config import CloudConfig, Region
from gcpod.localcloud.jobrules import check_job, without_nulls
from gcpod.localcloud.pools import cluster_variables, free_addresses, replicas_of
from tests.jobs import shell_job
from tests.localcloud.conftest import Raw
from tests.localcloud.test_job_runs import ENDS, alive, entries, job, jobs_path, post, reached, said, submit
from tests.waiting import until

REGION = Region("us-central1", ("NVIDIA_TESLA_T4", "TPU_V2", "NVIDIA_TESLA_A100"), ("ct5lp-hightpu-4t",), 4)
ACCOUNT = "trainer@p.iam.gserviceaccount.com"
BOARD = "projects/p/locations/us-central1/tensorboards/7"
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("pools")
    config = CloudConfig((Region(), REGION))
    with JobCloud(folder / "c", cache=folder, environment_of=lambda *_: quick_python, config=config) as running:
        yield running


def pools_job(*scripts: str | None, counts: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    """A job with a pool for each script; None is an empty one."""
    pools = [shell_job(script)["jobSpec"]["workerPoolSpecs"][0] if script is not None else {} for script in scripts]
    for pool, count in zip(pools, counts, strict=False):
        pool["replicaCount"] = str(count)
    body = shell_job()
    body["jobSpec"] = {"workerPoolSpecs": pools, **more}
    return body


def tpu(kind: str = "cloud-tpu", **machine: Any) -> dict[str, Any]:
    body = shell_job()
    told = machine or {"acceleratorType": "TPU_V2", "acceleratorCount": 8}
    body["jobSpec"]["workerPoolSpecs"][0]["machineSpec"] = {"machineType": kind, **told}
    return body


def with_spec(**more: Any) -> dict[str, Any]:
    body = shell_job()
    body["jobSpec"] |= more
    return body


def with_pool(**more: Any) -> dict[str, Any]:
    body = shell_job()
    body["jobSpec"]["workerPoolSpecs"][0] |= more
    return body


def with_env(count: int) -> dict[str, Any]:
    body = shell_job()
    body["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["env"] = [{"name": f"V{n}"} for n in range(count)]
    return body


def spot(body: dict[str, Any]) -> dict[str, Any]:
    body["jobSpec"]["scheduling"] = {"strategy": "SPOT"}
    return body


@pytest.mark.parametrize("body", [
    pools_job("true", "true", "true", "true"), pools_job("true", None, None, "true"),
    pools_job("true", "true", counts=(1, 3)), pools_job("true", None),
    tpu(), tpu("ct5lp-hightpu-4t", tpuTopology="2x2"), spot(tpu()), tpu(acceleratorType="TPU_V2", acceleratorCount=32),
    with_pool(diskSpec={"bootDiskType": "pd-standard", "bootDiskSizeGb": 64_000}), with_pool(diskSpec={}),
    with_spec(network="projects/123/global/networks/net"), with_spec(serviceAccount=ACCOUNT, tensorboard=BOARD),
    with_spec(scheduling={"strategy": "FLEX_START", "maxWaitDuration": "0s", "timeout": "60.5s"}), with_env(100),
    with_spec(scheduling={"restartJobOnWorkerRestart": True, "disableRetries": True}),
    shell_job(encryptionSpec={"kmsKeyName": "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"}),
    shell_job(labels={"a" + "b" * 62: "c" * 63}), shell_job(encryptionSpec=None, labels=None),
])
def test_what_the_service_takes(body: dict[str, Any]) -> None:
    check_job(without_nulls(body), REGION)


POOLS = "job_spec.worker_pool_specs"


@pytest.mark.parametrize(("body", "field"), [
    (pools_job(*["true"] * 5), POOLS), (pools_job("true", "true", counts=(2, 1)), f"{POOLS}[0].replica_count"),
    (pools_job(None, "true"), f"{POOLS}[0].replica_count"),
    (pools_job("true", "true", counts=(1, -1)), f"{POOLS}[1].replica_count"),
    (pools_job("true", "true", counts=(1, 0)), f"{POOLS}[1].replica_count"),
    (pools_job("true", "true", counts=(1, 4)), POOLS),
    (tpu("cloud-tpu", acceleratorType="TPU_V3", acceleratorCount=8), f"{POOLS}[0].machine_spec"),
    (tpu("cloud-tpu", acceleratorCount=8), f"{POOLS}[0].machine_spec.accelerator_type"),
    (tpu("n1-standard-4", acceleratorType="TPU_V2", acceleratorCount=8), f"{POOLS}[0].machine_spec.machine_type"),
    (tpu("cloud-tpu", acceleratorType="TPU_V2"), f"{POOLS}[0].machine_spec.accelerator_count"),
    (tpu("n1-standard-4", acceleratorCount=1), f"{POOLS}[0].machine_spec.accelerator_count"),
    (tpu("cloud-tpu", acceleratorType="NVIDIA_TESLA_T4", acceleratorCount=1),
     f"{POOLS}[0].machine_spec.accelerator_type"),
    (tpu("a2-highgpu-1g", acceleratorCount=1), f"{POOLS}[0].machine_spec.accelerator_type"),
    (tpu("ct5lp-hightpu-4t", tpuTopology="huge"), f"{POOLS}[0].machine_spec.tpu_topology"),
    (tpu("ct5lp-hightpu-8t", tpuTopology="2x4"), f"{POOLS}[0].machine_spec"),
    (spot(tpu("cloud-tpu", acceleratorType="TPU_V2", acceleratorCount=32)), "job_spec.scheduling.strategy"),
    (spot(tpu("ct5lp-hightpu-4t", tpuTopology="4x4")), "job_spec.scheduling.strategy"),
    (with_pool(diskSpec={"bootDiskType": "floppy"}), f"{POOLS}[0].disk_spec.boot_disk_type"),
    (with_pool(diskSpec={"bootDiskSizeGb": 99}), f"{POOLS}[0].disk_spec.boot_disk_size_gb"),
    (with_pool(diskSpec={"bootDiskSizeGb": 64_001}), f"{POOLS}[0].disk_spec.boot_disk_size_gb"),
    (with_env(101), f"{POOLS}[0].container_spec.env"),
    (with_spec(scheduling={"maxWaitDuration": "60s"}), "job_spec.scheduling.max_wait_duration"),
    (with_spec(scheduling={"strategy": "FLEX_START", "maxWaitDuration": "-5s"}),
     "job_spec.scheduling.max_wait_duration"),
    (with_spec(network="default"), "job_spec.network"), (with_spec(serviceAccount="me"), "job_spec.service_account"),
    (with_spec(tensorboard=BOARD), "job_spec.service_account"),
    (with_spec(serviceAccount=ACCOUNT, tensorboard=BOARD.replace("us-central1", "us-east1")), "job_spec.tensorboard"),
    (shell_job(encryptionSpec={}), "custom_job.encryption_spec.kms_key_name"),
    (shell_job(encryptionSpec={"kmsKeyName": "projects/p/locations/us-east1/keyRings/r/cryptoKeys/k"}),
     "custom_job.encryption_spec.kms_key_name"),
    (shell_job(labels={"a" + "b" * 63: ""}), "custom_job.labels"),
])
def test_what_the_service_refuses(cloud: JobCloud, body: dict[str, Any], field: str) -> None:
    error = post(cloud, body, REGION.name).json["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    [violation] = error["details"][0]["fieldViolations"]
    assert violation["field"] == field
    assert error["message"].startswith(f"Field: {field}; Message: ")


def test_a_tpu_has_one_pool_and_one_replica() -> None:
    body = tpu()
    body["jobSpec"]["workerPoolSpecs"].append(shell_job()["jobSpec"]["workerPoolSpecs"][0])
    with pytest.raises(ApiError, match="one pool with one replica"):
        check_job(body, REGION)


def test_every_violation_is_told_at_once() -> None:
    body = with_spec(network="x", serviceAccount="y")
    body["displayName"] = ""
    with pytest.raises(ApiError) as refused:
        check_job(body, REGION)
    fields = [one["field"] for one in refused.value.details[0]["fieldViolations"]]
    assert fields == ["custom_job.display_name", "job_spec.network", "job_spec.service_account"]


TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["cloud-tpu", "TPU_V2", "2x2", "ct5lp-hightpu-4t", "-1", "3"]))
COUNTS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 9).map(str))
PROGRAM = st.fixed_dictionaries({}, optional={
    "imageUri": TEXTS, "executorImageUri": TEXTS, "pythonModule": TEXTS, "packageUris": st.lists(TEXTS, max_size=2),
    "env": st.lists(st.fixed_dictionaries({}, optional={"name": TEXTS, "value": TEXTS}), max_size=2),
})
POOL = st.fixed_dictionaries({}, optional={
    "replicaCount": COUNTS, "containerSpec": PROGRAM, "pythonPackageSpec": PROGRAM,
    "diskSpec": st.fixed_dictionaries({}, optional={"bootDiskType": TEXTS, "bootDiskSizeGb": st.integers()}),
    "machineSpec": st.fixed_dictionaries({}, optional={
        "machineType": TEXTS, "acceleratorType": TEXTS, "acceleratorCount": st.integers(), "tpuTopology": TEXTS}),
})
SPEC = st.fixed_dictionaries({}, optional={
    "workerPoolSpecs": st.lists(POOL, max_size=5), "network": TEXTS, "tensorboard": TEXTS, "serviceAccount": TEXTS,
    "scheduling": st.fixed_dictionaries({}, optional={
        "timeout": TEXTS, "maxWaitDuration": TEXTS, "strategy": st.sampled_from(["SPOT", "FLEX_START", "LOW_COST"])}),
    "baseOutputDirectory": st.fixed_dictionaries({}, optional={"outputUriPrefix": TEXTS}),
})


@given(st.fixed_dictionaries({}, optional={"displayName": TEXTS, "jobSpec": SPEC, "labels": st.dictionaries(
    TEXTS, TEXTS, max_size=2), "encryptionSpec": st.fixed_dictionaries({}, optional={"kmsKeyName": TEXTS})}))
def test_any_well_typed_request_is_taken_or_refused(body: dict[str, Any]) -> None:
    status = 400
    try:
        check_job(body, REGION)
    except ApiError as e:
        status = e.status
    assert status == 400


def test_the_cluster_as_each_replica_sees_it() -> None:
    spec = pools_job("true", "true", None, "true", counts=(1, 2, 0, 1))["jobSpec"]
    replicas = replicas_of(spec)
    tasks = ["workerpool0-0", "workerpool1-0", "workerpool1-1", "workerpool3-0"]
    assert [replica.task for replica in replicas] == tasks
    addresses = free_addresses(4)
    assert len(set(addresses)) == 4
    seen = [cluster_variables(replica, replicas, addresses, spec) for replica in replicas]
    clusters = [json.loads(one["CLUSTER_SPEC"]) for one in seen]
    configs = [json.loads(one["TF_CONFIG"]) for one in seen]
    whole = {"workerpool0": addresses[:1], "workerpool1": addresses[1:3], "workerpool3": addresses[3:]}
    assert all(one["cluster"] == whole and one["environment"] == "cloud" for one in clusters)
    assert [(one["task"]["type"], one["task"]["index"]) for one in clusters] == [
        ("workerpool0", 0), ("workerpool1", 0), ("workerpool1", 1), ("workerpool3", 0)]
    # TensorFlow's evaluator takes no part in the training's cluster.
    assert all(one["cluster"] == {"chief": addresses[:1], "worker": addresses[1:3]} for one in configs)
    assert [one["task"] for one in configs] == [
        {"type": "chief", "index": 0}, {"type": "worker", "index": 0}, {"type": "worker", "index": 1},
        {"type": "evaluator", "index": 0}]


def test_each_replica_is_a_process_and_the_primary_ends_them(cloud: JobCloud) -> None:
    speak = 'echo "$CLUSTER_SPEC $$"; sleep 60'
    wait = 'echo "$CLUSTER_SPEC $$"; while ! test -e go; do sleep 0.02; done'
    number = submit(cloud, pools_job(wait, speak, None, speak, counts=(1, 2)))
    tasks = ["workerpool0-0", "workerpool1-0", "workerpool1-1", "workerpool3-0"]
    until(lambda: all(said(cloud, number, task) for task in tasks))
    assert {one["resource"]["labels"]["task_name"] for one in entries(cloud, number)} == set(tasks)
    words = {task: said(cloud, number, task)[0][1].rpartition(" ") for task in tasks}
    assert [json.loads(words[task][0])["task"]["index"] for task in tasks] == [0, 0, 1, 0]
    processes = [int(words[task][2]) for task in tasks]
    assert len({json.dumps(json.loads(words[task][0])["cluster"]) for task in tasks}) == 1
    assert all(alive(one) for one in processes)
    (cloud.root / "jobs" / number / "workerpool0-0" / "go").touch()
    assert reached(cloud, number, *ENDS)["state"] == "JOB_STATE_SUCCEEDED"
    assert not any(alive(one) for one in processes)


def test_another_replica_that_ends_well_ends_nothing(cloud: JobCloud) -> None:
    number = submit(cloud, pools_job("while ! test -e go; do sleep 0.02; done", "echo done"))
    until(lambda: said(cloud, number, "workerpool1-0"))
    assert job(cloud, number)["state"] == "JOB_STATE_RUNNING"
    (cloud.root / "jobs" / number / "workerpool0-0" / "go").touch()
    assert reached(cloud, number, *ENDS)["state"] == "JOB_STATE_SUCCEEDED"


def test_any_replica_that_fails_fails_the_job(cloud: JobCloud) -> None:
    number = submit(cloud, pools_job("trap 'echo told; exit 0' TERM; echo ready; sleep 60 & wait", "exit 3"))
    found = reached(cloud, number, *ENDS)
    assert (found["state"], found["error"]["code"]) == ("JOB_STATE_FAILED", 3)
    assert "The replica workerpool1-0 exited with a non-zero status of 3." in found["error"]["message"]


def test_pages_lose_nothing_while_new_jobs_come(cloud: JobCloud) -> None:
    raw = Raw(f"127.0.0.1:{cloud.port}")
    there = [submit(cloud, shell_job(labels={"page": str(n)}), REGION.name) for n in range(5)]
    for one in there:
        reached(cloud, one, *ENDS, region=REGION.name)
    query, found, token = f"{jobs_path(REGION.name)}?pageSize=2&filter=labels.page:*", [], ""
    while True:
        reply = raw("GET", f"{query}&pageToken={token}").json
        found += [one["name"].rpartition("/")[2] for one in reply.get("customJobs", [])]
        token = reply.get("nextPageToken", "")
        if not token:
            break
        # One that comes, and one that goes after it was listed.
        submit(cloud, shell_job(labels={"page": "new"}), REGION.name)
        assert raw("DELETE", f"{jobs_path(REGION.name)}/{found[-1]}").status == 200
    assert found == there[::-1]


def test_lists_join_conditions(cloud: JobCloud) -> None:
    ones = {name: submit(cloud, shell_job(name=name, labels={"joined": "yes", "kind": name[:1]}), REGION.name)
            for name in ("a1", "a2", "b1")}
    created = [reached(cloud, one, *ENDS, region=REGION.name)["createTime"] for one in ones.values()]

    def listed(text: str) -> set[str]:
        path = f"{jobs_path(REGION.name)}?filter={text.replace(' ', '%20')}".replace('"', "%22").replace(">", "%3E")
        reply = Raw(f"127.0.0.1:{cloud.port}")("GET", path)
        assert reply.status == 200, reply.content
        return {one["displayName"] for one in reply.json.get("customJobs", [])} & set(ones)

    assert listed('display_name="a1" OR labels.kind=b') == {"a1", "b1"}
    assert listed('labels.joined:* AND NOT display_name="a1"') == {"a2", "b1"}
    assert listed('(display_name="a1" OR display_name="b1") AND state="JOB_STATE_SUCCEEDED"') == {"a1", "b1"}
    assert listed(f'create_time>"{created[0]}" AND labels.kind="a"') == {"a2"}
    assert listed('state="JOB_STATE_RUNNING" AND labels.joined=yes') == set()
