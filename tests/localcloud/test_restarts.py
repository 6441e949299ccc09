"""Machines that go away under a job: preempted, lost, restarted as its scheduling says; and states that are forced."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.jobdb import JobRecord
from gcpod.localcloud.restarts import (
    MAX_PREEMPTIONS,
    MAX_STARTS,
    after_loss,
    after_preemption,
    longest_wait_of,
    restarts_whole,
)
from gcpod.localcloud.scheduler import Scheduler
from gcpod.status import JobState
from tests.jobs import session_of, shell_job
from tests.localcloud.test_job_runs import ENDS, alive, cancel, job, reached, said, submit
from tests.localcloud.test_pools import pools_job
from tests.waiting import until

HANG = "echo begun $$; sleep 60"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("restarts")
    with JobCloud(folder / "c", cache=folder, environment_of=lambda *_: quick_python) as running:
        yield running


@pytest.fixture
def engine(cloud: JobCloud) -> Scheduler:
    assert cloud.scheduler is not None
    return cloud.scheduler


def scheduled(body: dict[str, Any], **scheduling: Any) -> dict[str, Any]:
    body["jobSpec"]["scheduling"] = scheduling
    return body


def begun(cloud: JobCloud, number: str, times: int, task: str = "workerpool0-0") -> int:
    """The process of the job's start number ``times``, once it runs."""
    until(lambda: len([text for _, text in said(cloud, number, task) if text.startswith("begun")]) >= times)
    return int([text for _, text in said(cloud, number, task) if text.startswith("begun")][times - 1].split()[1])


def begun_or_ended(cloud: JobCloud, number: str, times: int) -> None:
    """Waits for the job's next start, or for its end where it has none."""
    if times > MAX_PREEMPTIONS + 1:
        reached(cloud, number, *ENDS)
    else:
        begun(cloud, number, times)


def record(starts: int, preemptions: int = 0, **scheduling: Any) -> JobRecord:
    return JobRecord("1", "p", {"jobSpec": {"scheduling": scheduling}}, "RUNNING", "", starts=starts,
                     preemptions=preemptions)


def test_the_rules() -> None:
    assert [after_loss(record(starts)) is None for starts in range(1, 5)] == [True, True, False, False]
    assert after_loss(record(MAX_STARTS + 2, 3)) is None
    lost = after_loss(record(1, disableRetries=True))
    assert lost is not None
    assert (lost.state, lost.code, "INTERNAL" in lost.message) == ("FAILED", 13, True)
    assert after_preemption(record(6, MAX_PREEMPTIONS - 1)) is None
    assert restarts_whole({"scheduling": {"restartJobOnWorkerRestart": True}})
    assert not restarts_whole({"scheduling": {"restartJobOnWorkerRestart": True, "disableRetries": True}})
    flex = {"strategy": "FLEX_START"}
    assert [longest_wait_of({"scheduling": one}) for one in (
        {}, flex, {**flex, "maxWaitDuration": "0s"}, {**flex, "maxWaitDuration": "1.5s"},
    )] == [None, 86400.0, None, 1.5]


def test_a_spot_job_starts_again_six_times(cloud: JobCloud, engine: Scheduler) -> None:
    states: list[str] = []
    number = submit(cloud, scheduled(shell_job("trap 'echo told; exit 0' TERM; echo begun $$; sleep 60 & wait"),
                                     strategy="SPOT"))
    engine.observers.append(lambda one: states.append(one.state) if one.id == number else None)
    for times in range(1, MAX_PREEMPTIONS + 2):
        process = begun(cloud, number, times)
        engine.preempt(number)
        begun_or_ended(cloud, number, times + 1)
        assert not alive(process)
    found = reached(cloud, number, *ENDS)
    assert (found["state"], found["error"]["code"]) == ("JOB_STATE_FAILED", 8)
    assert "STOCKOUT" in found["error"]["message"]
    told = [text for _, text in said(cloud, number) if text == "told"]
    assert len(told) == MAX_PREEMPTIONS + 1
    until(lambda: states[-1:] == ["FAILED"])
    assert states[-5:] == ["PENDING", "RUNNING", "PENDING", "RUNNING", "FAILED"]
    service = [text for _, text in said(cloud, number, "service")]
    assert service[0] == "The job was preempted; it is started again (1 of 6)."
    assert service[-1] == f"Job failed. {found['error']['message']}"


def test_a_standard_job_is_retried_after_lost_machines(cloud: JobCloud, engine: Scheduler) -> None:
    number = submit(cloud, shell_job(HANG))
    first = begun(cloud, number, 1)
    started = job(cloud, number)["startTime"]
    engine.lose_machine(number)
    begun(cloud, number, 2)
    assert not alive(first)
    assert job(cloud, number)["startTime"] == started
    engine.preempt(number)
    begun(cloud, number, 3)
    engine.lose_machine(number)
    found = reached(cloud, number, *ENDS)
    assert found["error"] == {"code": 13, "message": "INTERNAL: The job was interrupted 3 times."}


def test_without_retries_the_first_loss_is_the_end(cloud: JobCloud, engine: Scheduler) -> None:
    number = submit(cloud, scheduled(shell_job(HANG), disableRetries=True, restartJobOnWorkerRestart=True))
    begun(cloud, number, 1)
    engine.lose_machine(number)
    found = reached(cloud, number, *ENDS)
    assert (found["state"], found["error"]["code"]) == ("JOB_STATE_FAILED", 13)
    assert len(said(cloud, number)) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_lost_worker_restarts_alone_or_all(cloud: JobCloud, engine: Scheduler, whole: bool) -> None:
    number = submit(cloud, scheduled(pools_job(HANG, HANG), restartJobOnWorkerRestart=whole))
    primary, worker = begun(cloud, number, 1), begun(cloud, number, 1, "workerpool1-0")
    engine.lose_machine(number, "workerpool1-0")
    begun(cloud, number, 2, "workerpool1-0")
    assert not alive(worker)
    if whole:
        begun(cloud, number, 2)
    assert alive(primary) is not whole
    assert job(cloud, number)["state"] == "JOB_STATE_RUNNING"
    cancel(cloud, number)
    assert reached(cloud, number, *ENDS)["state"] == "JOB_STATE_CANCELLED"


def test_a_signal_reaches_the_program(cloud: JobCloud, engine: Scheduler) -> None:
    number = submit(cloud, shell_job("trap 'exit 9' USR1; echo begun $$; while true; do sleep 0.02; done"))
    begun(cloud, number, 1)
    engine.signal(number, signal.SIGUSR1)
    assert "non-zero status of 9" in reached(cloud, number, *ENDS)["error"]["message"]
    engine.signal(number, signal.SIGUSR1)
    engine.preempt(number)
    engine.lose_machine(number)
    assert job(cloud, number)["state"] == "JOB_STATE_FAILED"


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"])
def test_a_forced_end(cloud: JobCloud, engine: Scheduler, state: str) -> None:
    number = submit(cloud, shell_job(HANG))
    process = begun(cloud, number, 1)
    engine.jump(number, f"JOB_STATE_{state}", 8, "as it was told")
    found = job(cloud, number)
    assert (found["state"], found["error"]) == (f"JOB_STATE_{state}", {"code": 8, "message": "as it was told"})
    assert found["endTime"] >= found["startTime"]
    assert not alive(process)
    line = {"SUCCEEDED": "Job completed successfully.", "CANCELLED": "Job cancelled."}
    assert [text for _, text in said(cloud, number, "service")] == [line.get(state, "Job failed. as it was told")]


def test_forced_states_that_are_no_end(cloud: JobCloud, engine: Scheduler) -> None:
    from gcpod.jobs.service import Jobs

    jobs = Jobs(session_of(cloud.url))
    number = submit(cloud, shell_job("echo begun $$; while ! test -e go; do sleep 0.02; done"))
    begun(cloud, number, 1)
    for state in ("UNSPECIFIED", "QUEUED", "PENDING", "RUNNING", "PAUSED", "UPDATING", "CANCELLING", "THAWING"):
        engine.jump(number, state)
        assert job(cloud, number)["state"] == f"JOB_STATE_{state}"
        known = JobState.from_wire(f"JOB_STATE_{state}")
        assert jobs.get(f"projects/p/locations/local/customJobs/{number}").state is known
    (cloud.root / "jobs" / number / "workerpool0-0" / "go").touch()
    assert reached(cloud, number, *ENDS)["state"] == "JOB_STATE_SUCCEEDED"
    engine.jump(number, "RUNNING")
    found = job(cloud, number)
    assert (found["state"], "endTime" in found) == ("JOB_STATE_RUNNING", False)
    cancel(cloud, number)
    assert job(cloud, number)["state"] == "JOB_STATE_CANCELLED"


@pytest.mark.parametrize("state", ["QUEUED", "PENDING", "RUNNING"])
def test_an_observer_may_force_a_state_itself(cloud: JobCloud, engine: Scheduler, state: str) -> None:
    def expire(one: JobRecord) -> None:
        if one.body["displayName"] == "doomed" and one.state == state:
            engine.jump(one.id, "EXPIRED", 4, "no more time")

    engine.observers.append(expire)
    number = submit(cloud, shell_job("echo ran", "doomed"))
    found = reached(cloud, number, *ENDS, "JOB_STATE_EXPIRED")
    engine.observers.remove(expire)
    assert (found["state"], "startTime" in found) == ("JOB_STATE_EXPIRED", state == "RUNNING")
    assert said(cloud, number) == []
    assert said(cloud, number, "service") == [("ERROR", "Job failed. no more time")]
