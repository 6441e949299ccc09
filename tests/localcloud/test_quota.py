"""Quota: what jobs take of it, and what becomes of those that find too little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.config import CloudConfig, Limit, Region
from gcpod.localcloud.quota import Ledger, demand_of
from tests.jobs import shell_job
from tests.localcloud.test_job_runs import ENDS, cancel, job, post, reached, said, submit

T4 = "custom_model_training_nvidia_t4_gpus"
ONE_T4 = (Limit(T4, 1), Limit("custom_model_training_preemptible_nvidia_t4_gpus", 1))
CONFIG = CloudConfig((
    Region("queues", accelerators=("NVIDIA_TESLA_T4",), quota=ONE_T4),
    Region("refuses", accelerators=("NVIDIA_TESLA_T4",), quota=ONE_T4, short="refuse"),
))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("quota")
    with JobCloud(folder / "c", cache=folder, environment_of=lambda *_: quick_python, config=CONFIG) as running:
        yield running


def gpu_job(script: str, **scheduling: str) -> dict[str, Any]:
    body = shell_job(script)
    machine = {"machineType": "n1-standard-4", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1}
    body["jobSpec"]["workerPoolSpecs"][0]["machineSpec"] = machine
    if scheduling:
        body["jobSpec"]["scheduling"] = scheduling
    return body


def pool(kind: str, replicas: int = 1, **machine: Any) -> dict[str, Any]:
    return {"machineSpec": {"machineType": kind, **machine}, "replicaCount": str(replicas)}


@pytest.mark.parametrize(("pools", "strategy", "expected"), [
    ([pool("n1-standard-8")], None, {"cpus": 8}),
    ([pool("n1-standard-4"), {}, pool("e2-standard-2", 3)], "STANDARD", {"cpus": 10}),
    ([pool("c2-standard-16")], None, {"c2_cpus": 16}),
    ([pool("n1-standard-4", 1, acceleratorType="NVIDIA_TESLA_T4", acceleratorCount=2),
      pool("n1-standard-4", 2, acceleratorType="NVIDIA_TESLA_T4", acceleratorCount=1)], "SPOT",
     {"preemptible_nvidia_t4_gpus": 4, "preemptible_cpus": 12}),
    ([pool("a2-highgpu-1g", 1, acceleratorType="NVIDIA_TESLA_A100", acceleratorCount=1)], "FLEX_START",
     {"preemptible_nvidia_a100_gpus": 1}),
    ([pool("cloud-tpu", 1, acceleratorType="TPU_V2", acceleratorCount=8)], None, {"tpu_v2": 8}),
    ([pool("ct5lp-hightpu-4t", 1, tpuTopology="2x4")], None, {"tpu_ct5lp": 8}),
])
def test_demands(pools: list[Any], strategy: str | None, expected: dict[str, int]) -> None:
    spec: dict[str, Any] = {"workerPoolSpecs": pools} | ({"scheduling": {"strategy": strategy}} if strategy else {})
    assert demand_of(spec) == {f"custom_model_training_{name}": count for name, count in expected.items()}


def test_a_ledger_keeps_projects_and_regions_apart() -> None:
    ledger = Ledger({"r": {"m": 2}, "s": {"m": 2}})
    assert ledger.take("1", "p", "r", {"m": 2, "free": 99})
    assert ledger.take("1", "p", "r", {"m": 2})
    assert not ledger.take("2", "p", "r", {"m": 1})
    assert ledger.take("3", "p", "s", {"m": 1})
    assert ledger.take("4", "q", "r", {"m": 1})
    assert ledger.take("5", "p", "r", {"m": 1}, force=True)
    ledger.give_back("1")
    assert ledger.take("2", "p", "r", {"m": 1})


def test_a_job_stays_queued_until_there_is_quota(cloud: JobCloud) -> None:
    first = submit(cloud, gpu_job("sleep 60"), "queues")
    reached(cloud, first, "JOB_STATE_RUNNING", region="queues")
    second, third = (submit(cloud, gpu_job("true"), "queues") for _ in range(2))
    plain = submit(cloud, shell_job(), "queues")
    reached(cloud, plain, "JOB_STATE_SUCCEEDED", region="queues")
    assert {job(cloud, one, "queues")["state"] for one in (second, third)} == {"JOB_STATE_QUEUED"}
    cancel(cloud, third, "queues")
    found = reached(cloud, third, *ENDS, region="queues")
    assert (found["state"], "startTime" in found) == ("JOB_STATE_CANCELLED", False)
    assert said(cloud, third, "service") == [("INFO", "Job cancelled.")]
    cancel(cloud, first, "queues")
    reached(cloud, second, "JOB_STATE_SUCCEEDED", region="queues")


def test_flex_start_waits_no_longer_than_it_wishes(cloud: JobCloud) -> None:
    for region in ("queues", "refuses"):
        spot = submit(cloud, gpu_job("sleep 60", strategy="SPOT"), region)
        reached(cloud, spot, "JOB_STATE_RUNNING", region=region)
        flex = submit(cloud, gpu_job("true", strategy="FLEX_START", maxWaitDuration="0.2s"), region)
        found = reached(cloud, flex, *ENDS, "JOB_STATE_EXPIRED", region=region)
        assert (found["state"], found["error"]["code"], "startTime" in found) == ("JOB_STATE_EXPIRED", 4, False)
        assert said(cloud, flex, "service") == [("ERROR", f"Job failed. {found['error']['message']}")]
        cancel(cloud, spot, region)
        reached(cloud, spot, *ENDS, region=region)
        later = submit(cloud, gpu_job("true", strategy="FLEX_START", maxWaitDuration="9s"), region)
        reached(cloud, later, "JOB_STATE_SUCCEEDED", region=region)


def test_a_region_may_refuse_what_exceeds_its_quota(cloud: JobCloud) -> None:
    first = submit(cloud, gpu_job("sleep 60"), "refuses")
    before = cloud.database.all() if cloud.database else []
    reply = post(cloud, gpu_job("true"), "refuses")
    error = reply.json["error"]
    assert (reply.status, error["code"], error["status"]) == (429, 429, "RESOURCE_EXHAUSTED")
    assert f"aiplatform.googleapis.com/{T4} (region refuses)" in error["message"]
    [violation] = error["details"][0]["violations"]
    assert violation["description"] == f"{T4} in the region refuses: 1 asked for, 1 of 1 in use."
    assert cloud.database is not None
    assert [one.id for one in cloud.database.all()] == [one.id for one in before]
    cancel(cloud, first, "refuses")
    reached(cloud, first, *ENDS, region="refuses")
    assert reached(cloud, submit(cloud, gpu_job("true"), "refuses"), *ENDS, region="refuses")


def test_a_job_that_ran_keeps_its_quota_under_the_next_server(tmp_path: Path, quick_python: Path) -> None:
    def server() -> JobCloud:
        return JobCloud(tmp_path / "c", cache=tmp_path, environment_of=lambda *_: quick_python, config=CONFIG)

    with server() as one:
        runs = submit(one, gpu_job("sleep 60"), "queues")
        reached(one, runs, "JOB_STATE_RUNNING", region="queues")
        waits = submit(one, gpu_job("true"), "queues")
    with server() as two:
        reached(two, runs, "JOB_STATE_RUNNING", region="queues")
        assert job(two, waits, "queues")["state"] == "JOB_STATE_QUEUED"
        cancel(two, runs, "queues")
        reached(two, waits, "JOB_STATE_SUCCEEDED", region="queues")
