"""Waiting for a job: outages are waited out, the end is reported, failure is an error only where it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gcpod.errors import JobFailedError, ServiceError
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import FIRST_S, MAX_POLL_S, Watcher, result
from gcpod.localcloud.cloud import JobCloud
from gcpod.status import JobState
from tests.jobs import Fault, Faults, session_of, shell_job

FAULTS = Faults()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("cloud")
    made = JobCloud(folder, cache=folder, environment_of=lambda *_: quick_python, middleware=FAULTS.wrap)
    with made as running:
        yield Jobs(session_of(running.url))


class Pauses:
    """A sleep that is cut short and remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        time.sleep(0.01)


def test_states_are_followed_to_the_end(jobs: Jobs) -> None:
    submitted = jobs.create(shell_job("exit 0"))
    states = [info.state for info in Watcher(jobs, Pauses()).follow(submitted.name)]
    assert states[-1] is JobState.SUCCEEDED
    assert not any(state.terminal for state in states[:-1])


def test_a_failure_is_told_by_wait_and_raised_by_result(jobs: Jobs) -> None:
    info = Watcher(jobs, Pauses()).wait(jobs.create(shell_job("exit 3")).name)
    assert info.state is JobState.FAILED
    with pytest.raises(JobFailedError, match=f"non-zero status of 3.*gcpod jobs logs {info.id}"):
        result(info)
    good = Watcher(jobs, Pauses()).wait(jobs.create(shell_job()).name)
    assert result(good) is good


@pytest.mark.parametrize("fault", ["busy", "dropped", "dropped after"])
def test_an_outage_is_waited_out(jobs: Jobs, fault: Fault) -> None:
    submitted = jobs.create(shell_job())
    left = [fault] * 10
    FAULTS.choose = lambda verb, path: left.pop() if left and path.endswith(submitted.id) else None
    pauses = Pauses()
    assert Watcher(jobs, pauses).wait(submitted.name).state is JobState.SUCCEEDED
    assert not left
    assert len(pauses.asked) >= 10


def test_pauses_grow_to_their_bound(jobs: Jobs) -> None:
    submitted = jobs.create(shell_job())
    left: list[Fault] = ["busy"] * 60
    FAULTS.choose = lambda verb, path: left.pop() if left and path.endswith(submitted.id) else None
    pauses = Pauses()
    Watcher(jobs, pauses).wait(submitted.name)
    assert pauses.asked[0] == FIRST_S
    assert pauses.asked == sorted(pauses.asked)
    assert pauses.asked[-1] == MAX_POLL_S


def test_a_job_that_does_not_exist_is_an_error_at_once(jobs: Jobs) -> None:
    with pytest.raises(ServiceError, match="404"):
        Watcher(jobs, Pauses()).wait("123")
