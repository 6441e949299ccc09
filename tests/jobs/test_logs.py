"""Reading a log: nothing is lost when a page fails, several jobs are read by one query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gcpod.errors import OutageError
from gcpod.jobs import logs
from gcpod.jobs.logs import LogReader
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.status import JobInfo
from tests.jobs import Faults, session_of, shell_job
from tests.waiting import until

FAULTS = Faults()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("cloud")
    made = JobCloud(folder, cache=folder, environment_of=lambda *_: quick_python, middleware=FAULTS.wrap)
    with made as running:
        yield Jobs(session_of(running.url))


def ended(jobs: Jobs, script: str) -> JobInfo:
    name = jobs.create(shell_job(script)).name
    return until(lambda: info if (info := jobs.get(name)).state.terminal else None) or jobs.get(name)


def test_what_a_failed_page_held_up_comes_with_the_next_poll(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    info = ended(jobs, "for i in 1 2 3 4 5 6 7; do echo line $i; done")
    monkeypatch.setattr(logs, "PAGE_SIZE", 3)
    reader, asked = LogReader(jobs.session, info.id), []

    def second_page_fails(_: str, path: str) -> int | None:
        asked.append(path)
        return 503 if len([one for one in asked if one.endswith("entries:list")]) == 2 else None

    FAULTS.choose = second_page_fails
    with pytest.raises(OutageError):
        reader.poll()
    lines = [line.text for line in reader.poll() if line.task != "service"]
    assert lines == [f"line {number}" for number in range(1, 8)]
    assert reader.poll() == []
    FAULTS.choose = lambda *_: None


def test_several_jobs_are_read_at_once_and_told_apart(jobs: Jobs) -> None:
    one, two = ended(jobs, "echo first"), ended(jobs, "echo second")
    before = FAULTS.times("POST", "entries:list")
    found = {(line.job, line.text) for line in LogReader(jobs.session, one.id, two.id).poll() if line.task != "service"}
    assert found == {(one.id, "first"), (two.id, "second")}
    assert FAULTS.times("POST", "entries:list") == before + 1
