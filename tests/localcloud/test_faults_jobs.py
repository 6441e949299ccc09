"""Faults of jobs as a watcher sees them: on the real engine, over HTTP, with real processes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.faults_plan import FaultPlan, JobFault
from gcpod.status import JobInfo
from tests.jobs import session_of, shell_job
from tests.waiting import until

Opened = Callable[..., JobCloud]
FOREVER = "trap 'exit 0' TERM; sleep 300 & wait"
LONG_S = 300.0


@pytest.fixture
def opened(tmp_path: Path, quick_python: Path) -> Iterator[Opened]:
    """Starts a server with faults of jobs, on a root of its own unless told which."""
    clouds: list[JobCloud] = []

    def start(*rules: JobFault, root: str = "") -> JobCloud:
        clouds.append(JobCloud(tmp_path / (root or f"c{len(clouds)}"), cache=tmp_path,
                               environment_of=lambda *_: quick_python, faults=FaultPlan(jobs=rules)))
        return clouds[-1].start()

    yield start
    for one in clouds:
        one.stop()


def create(cloud: JobCloud, script: str, name: str = "job", spot: bool = False) -> str:
    body: dict[str, Any] = shell_job(script, name)
    if spot:
        body["jobSpec"]["scheduling"] = {"strategy": "SPOT"}
    return Jobs(session_of(cloud.url)).create(body).id


def ended(cloud: JobCloud, number: str) -> JobInfo:
    jobs = Jobs(session_of(cloud.url))
    found = until(lambda: info if (info := jobs.get(number)).state.terminal else None)
    assert found is not None
    return found


def starts(cloud: JobCloud, number: str) -> int:
    """How often a job was started."""
    assert cloud.database is not None
    job = cloud.database.get(number)
    assert job is not None
    return job.starts


def injected(cloud: JobCloud) -> list[tuple[str, str, int]]:
    return [(one.do, one.job, one.count) for one in cloud.faulty.log]


@pytest.mark.parametrize(("when", "after_s", "started"), [
    ("QUEUED", 0, False), ("PENDING", 0, False), ("RUNNING", 0, True), ("RUNNING", 0.1, True),
])
def test_a_jump_ends_a_job(opened: Opened, when: Any, after_s: float, started: bool) -> None:
    rule = JobFault("a-*", "state", when, after_s, state="EXPIRED", code=4, message="too late")
    cloud = opened(rule)
    info = ended(cloud, create(cloud, FOREVER, "a-1"))
    assert (info.state.short, info.error, bool(info.start_time)) == ("EXPIRED", "too late", started)
    assert ended(cloud, create(cloud, "true", "b-1")).state.short == "SUCCEEDED"
    assert [(one.rule, one.call) for one in cloud.faulty.log] == [(rule, "")]


def test_a_stockout_says_so(opened: Opened) -> None:
    cloud = opened(JobFault("*", "stockout", "PENDING"))
    info = ended(cloud, create(cloud, FOREVER))
    assert info.state.short == "FAILED"
    assert "STOCKOUT" in info.error


def test_a_state_that_nobody_knows(opened: Opened) -> None:
    cloud = opened(JobFault("*", "state", state="TELEPORTING"))
    jobs = Jobs(session_of(cloud.url))
    number = create(cloud, FOREVER)
    until(lambda: cloud.faulty.log)
    assert until(lambda: jobs.get(number).state.short == "UNSPECIFIED")
    jobs.cancel(number)
    assert ended(cloud, number).state.short == "CANCELLED"


def test_states_that_send_a_job_to_and_fro(opened: Opened) -> None:
    cloud = opened(JobFault("*", "state", state="PAUSED", times=3),
                   JobFault("*", "state", "PAUSED", state="RUNNING", times=2))
    number = create(cloud, FOREVER)
    until(lambda: len(cloud.faulty.log) == 5)
    assert until(lambda: Jobs(session_of(cloud.url)).get(number).state.short == "PAUSED")
    assert [count for _, _, count in injected(cloud)] == [1, 1, 2, 2, 3]
    Jobs(session_of(cloud.url)).cancel(number)
    assert ended(cloud, number).state.short == "CANCELLED"


@pytest.mark.parametrize(("word", "status", "after_s"), [(None, 137, 0), ("TERM", 143, 0), ("TERM", 143, 0.2)])
def test_an_exit_by_a_signal(opened: Opened, word: Any, status: int, after_s: float) -> None:
    cloud = opened(JobFault("*", "exit", after_s=after_s, signal=word))
    info = ended(cloud, create(cloud, "sleep 300"))
    assert info.state.short == "FAILED"
    assert f"exited with a non-zero status of {status}." in info.error
    assert status == 128 + (signal.SIGKILL if word is None else signal.SIGTERM)


@pytest.mark.parametrize(("do", "spot"), [("preempt", True), ("lose_machine", False)])
def test_a_job_whose_machine_goes_starts_again(opened: Opened, do: Any, spot: bool) -> None:
    cloud = opened(JobFault("*", do, after_s=0.1, times=2))
    number = create(cloud, "sleep 300", spot=spot)
    until(lambda: starts(cloud, number) == 3)
    assert injected(cloud) == [(do, "job", 1), (do, "job", 2)]
    Jobs(session_of(cloud.url)).cancel(number)
    assert ended(cloud, number).state.short == "CANCELLED"
    assert starts(cloud, number) == 3


def test_a_spot_job_that_is_always_preempted(opened: Opened) -> None:
    cloud = opened(JobFault("*", "preempt", times="always"))
    info = ended(cloud, create(cloud, "sleep 300", spot=True))
    assert info.state.short == "FAILED"
    assert "STOCKOUT" in info.error
    assert injected(cloud) == [("preempt", "job", count) for count in range(1, 8)]


def test_counts_are_per_job(opened: Opened) -> None:
    cloud = opened(JobFault("*-train", "stockout"))
    states = [ended(cloud, create(cloud, "true", name)).state.short for name in ("1-train", "2-train", "2-eval")]
    assert states == ["FAILED", "FAILED", "SUCCEEDED"]
    assert injected(cloud) == [("stockout", "1-train", 1), ("stockout", "2-train", 1)]


def test_what_comes_too_late_does_nothing(opened: Opened) -> None:
    cloud = opened(JobFault("*", "stockout", "QUEUED", after_s=0.3))
    number = create(cloud, FOREVER)
    for timer in [one for one in threading.enumerate() if one.name == f"fault-{number}"]:
        timer.join()
    assert until(lambda: Jobs(session_of(cloud.url)).get(number).state.short == "RUNNING")
    assert cloud.faulty.log == ()


def test_no_timer_outlives_its_server_and_the_next_counts_anew(opened: Opened) -> None:
    cloud = opened(JobFault("*", "stockout", after_s=LONG_S), root="same")
    number = create(cloud, FOREVER)
    timers = until(lambda: [one for one in threading.enumerate() if one.name == f"fault-{number}"])
    start = time.monotonic()
    cloud.stop()
    assert time.monotonic() - start < 5
    assert not any(one.is_alive() for one in timers)
    assert cloud.faulty.log == ()
    for _ in range(2):
        faulty = (cloud := opened(JobFault("*", "state", state="PAUSED"), root="same")).faulty
        assert len(until(partial(getattr, faulty, "log"))) == 1
        cloud.stop()
