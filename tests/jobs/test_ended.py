"""Why a job ended: the end of its log is looked at, and its error alone where that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.jobs.ended import end_of_log, findings_of
from gcpod.jobs.service import Jobs
from gcpod.status import JobInfo, JobState
from tests.jobs import Faults, session_of, shell_job
from tests.waiting import until

FAULTS = Faults()
QUOTA = "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_cpus"


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("cloud")
    with FAULTS.cloud(folder, quick_python) as running:
        yield Jobs(session_of(running.url))


@pytest.fixture(scope="module")
def info(jobs: Jobs) -> JobInfo:
    """A job that failed for want of memory."""
    name = jobs.create(shell_job("echo 'OOM when allocating tensor with shape[64,320,320,3]'; exit 1")).name
    until(lambda: jobs.get(name).state.terminal)
    return jobs.get(name)


def codes(jobs: Jobs, info: JobInfo) -> list[str]:
    return [one.code for one in findings_of(jobs.session, info)]


def test_the_log_tells_why(jobs: Jobs, info: JobInfo) -> None:
    assert codes(jobs, info) == ["J406"]
    assert any("OOM when" in line for line in end_of_log(jobs.session, info))


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.RUNNING, JobState.UNSPECIFIED])
def test_what_did_not_fail_is_not_asked_about(jobs: Jobs, info: JobInfo, state: JobState) -> None:
    before = FAULTS.times("POST", "entries:list")
    assert codes(jobs, replace(info, state=state)) == []
    assert FAULTS.times("POST", "entries:list") == before


@pytest.mark.parametrize("status", [403, 503, 400])
def test_without_its_log_the_error_tells(jobs: Jobs, info: JobInfo, status: int) -> None:
    FAULTS.choose = lambda _, path: status if path.endswith("entries:list") else None
    try:
        assert codes(jobs, info) == []
        assert codes(jobs, replace(info, error=QUOTA)) == ["J403"]
    finally:
        FAULTS.choose = lambda *_: None


@pytest.mark.parametrize("end", ["", "soon", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00Z", "2026-11-21T10:00:00"])
def test_an_end_that_is_no_time_hides_nothing(jobs: Jobs, info: JobInfo, end: str) -> None:
    assert codes(jobs, replace(info, end_time=end)) == ["J406"]


def test_only_the_last_half_hour_is_read(jobs: Jobs, info: JobInfo) -> None:
    assert codes(jobs, replace(info, end_time="2090-01-01T00:00:00.5Z")) == []
