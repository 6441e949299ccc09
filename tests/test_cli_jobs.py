"""`gcpod jobs`: what it lists, shows, waits for, cancels and deletes, how it fails, and that its JSON is whole."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gcpod as gcpod_library
from gcpod import api, errors
from gcpod.cli.common import INTERRUPTED
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.config import CloudConfig, Region
from gcpod.session import Session
from gcpod.settings import LOCAL_PROJECT, Setting, resolve
from gcpod.specfile import load_spec
from gcpod.status import JobInfo, JobState
from tests.jobs import Fault, Faults, session_of, shell_job
from tests.waiting import until

FAULTS = Faults()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with FAULTS.cloud(folder, quick_python) as running:
        yield running


@pytest.fixture
def service(cloud: JobCloud) -> Iterator[Jobs]:
    yield Jobs(session_of(cloud.url, LOCAL_PROJECT))
    FAULTS.choose = lambda *_: None


@pytest.fixture
def jobs(gcpod: Any, cloud: JobCloud) -> Any:
    """`gcpod jobs` on the local cloud."""
    return lambda command, *arguments: gcpod("jobs", command, *arguments, "--endpoint", cloud.url)


def ended(service: Jobs, script: str = "true", **more: Any) -> JobInfo:
    name = service.create(shell_job(script, **more)).name
    until(lambda: service.get(name).state.terminal)
    return service.get(name)


def running(service: Jobs, **more: Any) -> JobInfo:
    name = service.create(shell_job("sleep 60", **more)).name
    until(lambda: service.get(name).state is JobState.RUNNING)
    return service.get(name)


def stopped(service: Jobs, name: str) -> bool:
    return service.get(name).state is JobState.CANCELLED


def test_jobs_are_listed_by_run_kind_state_label_time_and_number(jobs: Any, service: Jobs) -> None:
    labels = {"gcpod_run": "listed", "team": "birds"}
    bad = ended(service, "exit 1", name="bad", labels={**labels, "gcpod_kind": "train"})
    good = ended(service, name="good", labels={**labels, "gcpod_kind": "eval"})

    def ids(*options: str) -> list[str]:
        return [row["id"] for row in jobs("list", "--run", "listed", "--json", *options).json]

    assert ids() == [good.id, bad.id]
    assert ids("--kind", "train") == [bad.id]
    assert ids("--state", "FAILED", "--state", "cancelled") == [bad.id]
    assert ids("--label", "team=birds", "--limit", "1") == [good.id]
    assert ids("--label", "team=bird", "--label", "gcpod_kind=eval") == []
    assert ids("--name", "good") == [good.id]
    assert ids("--since", "1h") == ids("--since", "2020-01-01") == [good.id, bad.id]
    assert ids("--since", good.create_time) == [good.id]
    assert ids("--until", good.create_time) == [bad.id]
    text = jobs("list", "--run", "listed").out.splitlines()
    assert [line.split()[1] for line in text] == ["SUCCEEDED", "FAILED"]
    assert jobs("list", "--run", "another").out == "no such jobs\n"
    [row] = jobs("list", "--run", "listed", "--kind", "eval", "--json").json
    assert (row["state"], row["machine"], row["replicas"]) == ("JOB_STATE_SUCCEEDED", "n1-standard-4", 1)
    assert row["page"].endswith(f"/customJobs/{good.id}")
    assert row == jobs("show", good.id, "--json").json


@pytest.mark.parametrize("options", [
    ("--state", "asleep"), ("--limit", "0"), ("--label", "novalue"), ("--kind", "test"),
])
def test_options_that_make_no_sense(jobs: Any, options: tuple[str, ...]) -> None:
    assert jobs("list", *options).code == 2


@pytest.mark.parametrize("options", [("--since", "yesterday"), ("--until", "2026-02-30"), ("--label", "A B=c")])
def test_times_and_labels_that_are_none(jobs: Any, options: tuple[str, ...]) -> None:
    output = jobs("list", *options)
    assert (output.code, output.err.count("\n")) == (errors.SpecError.exit_code, 1)


def test_a_job_is_shown_with_its_machine_and_page(jobs: Any, service: Jobs) -> None:
    info = ended(service, name="shown", labels={"a": "b"})
    rows = dict(re.split(r":\s+", line, maxsplit=1) for line in jobs("show", info.name).out.splitlines())
    assert rows["name"] == info.name
    assert rows["machine"] == "n1-standard-4"
    assert rows["labels"] == "a=b"
    assert rows["page"].endswith(info.id)


@pytest.mark.parametrize("command", ["show", "logs", "wait", "cancel", "delete"])
def test_a_job_that_is_not_there_has_its_own_code_and_a_hint_for_this_cloud(
    jobs: Any, cloud: JobCloud, command: str,
) -> None:
    output = jobs(command, "404", *(["--yes"] if command == "delete" else []))
    assert (output.code, output.err.count("\n")) == (errors.NotFoundError.exit_code, 1)
    assert f"`gcpod jobs list --file gcpod.yaml --endpoint {cloud.url}`" in output.err


def test_waiting_for_several_jobs(jobs: Any, service: Jobs) -> None:
    names = [service.create(shell_job("sleep 0.2")).name for _ in range(3)]
    output = jobs("wait", *names, "--json")
    assert output.code == 0
    assert {(row["name"], row["state"]) for row in output.json} == {(name, "JOB_STATE_SUCCEEDED") for name in names}
    told = jobs("wait", *names)
    assert told.out.splitlines() == [f"{name} SUCCEEDED" for name in names]


def test_waiting_ends_with_the_code_and_the_diagnosis_of_what_failed(jobs: Any, service: Jobs) -> None:
    good = ended(service)
    script = "echo 'OOM when allocating tensor with shape[64,320,320,3]'; exit 1"
    bad, worse = ended(service, script), ended(service, "exit 7")
    output = jobs("wait", good.name, bad.name, worse.name, "--json")
    assert output.code == errors.JobFailedError.exit_code
    assert [row["state"] for row in output.json] == [f"JOB_STATE_{s}" for s in ("SUCCEEDED", "FAILED", "FAILED")]
    [told, last] = [line for line in output.err.splitlines() if line.startswith("gcpod: ")]
    assert worse.name in told
    assert re.fullmatch(rf"gcpod: J\d\d\d: running the job {bad.name}: .*OOM when allocating tensor.*", last)
    logs = jobs("logs", bad.id)
    assert (logs.code, "OOM when" in logs.out, logs.err.startswith("error: ")) == (0, True, True)
    assert logs.err.split()[1] == last.split()[1].rstrip(":")


def test_waiting_no_longer_than_asked(jobs: Any, cloud: JobCloud, service: Jobs) -> None:
    info = running(service)
    output = jobs("wait", info.id, "--timeout", "0s")
    assert (output.code, output.err.count("\n")) == (errors.DeadlineError.exit_code, 1)
    assert f"`gcpod jobs wait {info.id} --file gcpod.yaml --endpoint {cloud.url}`" in output.err
    assert not service.get(info.name).state.terminal
    service.cancel(info.name)
    assert jobs("wait", info.id, "--timeout", "soon").code == 2


def test_jobs_are_cancelled_by_name_and_by_run(jobs: Any, service: Jobs) -> None:
    labels = {"gcpod_run": "stop"}
    done = ended(service, labels=labels)
    first, second, third = (running(service, labels=labels) for _ in range(3))
    output = jobs("cancel", first.id, "404", done.name)
    assert output.code == errors.NotFoundError.exit_code
    assert output.out.splitlines() == [f"{first.name} is being cancelled", f"{done.name} ended before: SUCCEEDED"]
    until(partial(stopped, service, first.name))
    rows = jobs("cancel", "--run", "stop", "--json").json
    assert {row["name"]: row["cancelled"] for row in rows} == {second.name: True, third.name: True}
    for name in (second.name, third.name):
        until(partial(stopped, service, name))
    assert jobs("cancel", "--run", "stop", "--json").json == []
    assert jobs("cancel", "--run", "stop").out == "run stop has no job that could be cancelled\n"
    assert [row["cancelled"] for row in jobs("cancel", first.id, "--json").json] == [False]
    assert jobs("cancel").code == jobs("cancel", first.id, "--run", "stop").code == 2


def test_jobs_are_deleted_after_a_question(jobs: Any, cloud: JobCloud, service: Jobs) -> None:
    one, two, three = ended(service), ended(service), running(service)
    refused = jobs("delete", one.id)
    assert (refused.code, refused.err.count("\n")) == (errors.SpecError.exit_code, 1)
    assert "--yes" in refused.err
    output = jobs("delete", one.id, three.id, two.name, "--yes", "--json")
    assert output.code == errors.ServiceError.exit_code
    assert f"`gcpod jobs cancel {three.id} --file" in output.err
    assert [(row["name"].rsplit("/", 1)[-1], row["deleted"]) for row in output.json] == [(one.id, True), (two.id, True)]
    assert jobs("show", one.id).code == errors.NotFoundError.exit_code
    service.cancel(three.name)
    until(lambda: service.get(three.name).state.terminal)
    assert answered(cloud, three.id, b"n\n") == INTERRUPTED
    assert service.get(three.name).state.terminal
    assert answered(cloud, three.id, b"y\n") == 0
    assert jobs("show", three.id).code == errors.NotFoundError.exit_code


def answered(cloud: JobCloud, job: str, answer: bytes) -> int:
    """The exit code of `gcpod jobs delete` at a terminal where somebody answers."""
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "gcpod", "jobs", "delete", job, "--endpoint", cloud.url]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(mine, answer)
    with suppress(OSError):  # the terminal's end
        while os.read(mine, 1024):
            pass
    os.close(mine)
    return process.wait(30)


def test_a_log_is_read_by_severity_and_task_and_kept_in_a_file(jobs: Any, service: Jobs, tmp_path: Path) -> None:
    info = ended(service, "echo one; printf '\\033[2Jtwo\\n' >&2")
    text = jobs("logs", info.id).out
    assert re.search(r"^\d\d:\d\d:\d\d workerpool0-0 one$", text, re.MULTILINE)
    assert "workerpool0-0 \\x1b[2Jtwo" in text
    lines = [json.loads(line) for line in jobs("logs", info.id, "--json", "--task", "workerpool0-0").out.splitlines()]
    assert {line["text"] for line in lines} >= {"one", "\x1b[2Jtwo"}
    assert {line["job"] for line in lines} == {info.id}
    assert jobs("logs", info.id, "--since", "2020-01-01").out == text
    assert jobs("logs", info.id, "--severity", "emergency").out == ""
    assert jobs("logs", info.id, "--severity", "loud").code == errors.SpecError.exit_code
    assert jobs("logs", info.id, "--follow").out == text
    kept = jobs("logs", info.id, "--out", "job.log", "--json").json
    assert kept == {"file": "job.log", "lines": len(text.splitlines())}
    content = (tmp_path / "job.log").read_text(encoding="utf-8")
    assert len(content.splitlines()) == kept["lines"]
    assert jobs("logs", info.id, "--follow", "--out", "job.log").out == "0 new lines: job.log\n"
    assert (tmp_path / "job.log").read_text(encoding="utf-8") == content
    assert jobs("logs", info.id, "--out", "job.log", "--task", "service").code == 2


@pytest.mark.long
def test_a_log_is_followed_to_the_end_of_its_job(jobs: Any, service: Jobs, tmp_path: Path) -> None:
    info = service.create(shell_job("echo one; sleep 0.3; echo two"))
    output = jobs("logs", info.id, "--follow", "--out", "job.log")
    assert output.code == 0
    assert service.get(info.name).state is JobState.SUCCEEDED
    lines = (tmp_path / "job.log").read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in lines if "workerpool0-0" in line] == ["one", "two"]


@pytest.mark.long
def test_a_log_of_a_job_that_ended_is_followed_until_it_is_whole(jobs: Any, service: Jobs) -> None:
    """A reader that stops at the job's end loses what comes late."""
    info, before = ended(service, "echo one"), FAULTS.times("POST", "entries:list")
    texts = [json.loads(line)["text"] for line in jobs("logs", info.id, "--follow", "--json").out.splitlines()]
    assert (texts.count("one"), len(texts)) == (1, len(set(texts)))
    # Once for its lines, and once more for late ones after the closing line.
    assert FAULTS.times("POST", "entries:list") == before + 2


@pytest.mark.long
def test_outages_are_told_while_a_log_is_followed(jobs: Any, service: Jobs) -> None:
    info = ended(service, "echo one")
    asked: list[str] = []

    def choose(_: str, path: str) -> Fault | None:
        asked.extend([path] if path.endswith("entries:list") else [])
        return "busy" if path.endswith("entries:list") and len(asked) == 1 else None

    FAULTS.choose = choose
    output = jobs("logs", info.id, "--follow")
    assert (output.code, output.out.count("one")) == (0, 1)
    told, back = output.err.splitlines()
    assert told.startswith("waiting: J405: reading the log of ")
    assert re.fullmatch(r"in reach again after \d+ s", back)


ELSEWHERE = "europe-west4"


@pytest.fixture(scope="module")
def wide_cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    """A local cloud with a second region."""
    folder = tmp_path_factory.mktemp("wide")
    regions = CloudConfig((Region(), Region(ELSEWHERE)))
    with JobCloud(folder, cache=folder, environment_of=lambda *_: quick_python, config=regions) as running:
        yield running


def there(cloud: JobCloud, project: str) -> Jobs:
    """The jobs of the second region."""
    settings = session_of(cloud.url, project).settings
    return Jobs(Session(replace(settings, region=Setting(ELSEWHERE, "test"))))


def test_a_resource_name_of_another_region_or_project_is_enough(gcpod: Any, wide_cloud: JobCloud) -> None:
    service = there(wide_cloud, "birds")
    script = "echo 'OOM when allocating tensor with shape[64,320,320,3]'; exit 1"
    made = service.create(shell_job(script))
    name = f"projects/birds/locations/{ELSEWHERE}/customJobs/{made.id}"
    cloud = ("--endpoint", wide_cloud.url)
    waited = gcpod("jobs", "wait", name, *cloud)
    assert waited.code == errors.JobFailedError.exit_code
    # What only the log of that project tells.
    assert "OOM when allocating tensor" in waited.err
    shown = gcpod("jobs", "show", name, *cloud, "--json").json
    assert (shown["id"], f"/locations/{ELSEWHERE}/" in shown["page"]) == (made.id, True)
    assert "OOM when" in gcpod("jobs", "logs", name, *cloud).out
    going = service.create(shell_job("sleep 60"))
    # As the service itself names it: by the project's number.
    until(lambda: service.get(going.name).state is JobState.RUNNING)
    assert "is being cancelled" in gcpod("jobs", "cancel", going.name, *cloud).out
    until(lambda: service.get(going.name).state is JobState.CANCELLED)
    assert gcpod("jobs", "delete", going.name, "--yes", *cloud).code == 0
    assert gcpod("jobs", "show", going.name, *cloud).code == errors.NotFoundError.exit_code
    # By the id alone it is looked for in the region of the settings.
    assert gcpod("jobs", "show", made.id, *cloud).code == errors.NotFoundError.exit_code


def test_jobs_of_two_regions_are_waited_for_together(gcpod: Any, wide_cloud: JobCloud) -> None:
    here = Jobs(session_of(wide_cloud.url, LOCAL_PROJECT))
    names = [made.create(shell_job("sleep 0.3")).name for made in (here, there(wide_cloud, LOCAL_PROJECT), here)]
    output = gcpod("jobs", "wait", *names, "--endpoint", wide_cloud.url, "--json")
    assert (output.code, [row["name"] for row in output.json]) == (0, names)


def test_a_job_is_waited_for_from_a_folder_without_a_spec(
    gcpod: Any, cloud: JobCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on another machine, which has nothing but the job's name and the settings of its environment."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "gcpod.yaml").write_text("name: birds\n", encoding="utf-8")
    session = Session(resolve(load_spec(project / "gcpod.yaml"), endpoint=cloud.url))
    good, bad = (Jobs(session).create(shell_job(f"sleep 0.2; {end}")) for end in ("true", "echo MemoryError; exit 1"))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("GCPOD_ENDPOINT", cloud.url)
    waited = gcpod("jobs", "wait", good.id)
    assert (waited.code, waited.out.splitlines()[-1]) == (0, f"{good.name} SUCCEEDED")
    assert gcpod("jobs", "wait", good.name).out == f"{good.name} SUCCEEDED\n"
    assert gcpod("jobs", "wait", bad.id).code == errors.JobFailedError.exit_code
    assert list(elsewhere.iterdir()) == []
    assert api.wait(good.id)[Jobs(session).full_name(good.id)].state is JobState.SUCCEEDED


def test_results_are_those_of_jobs_that_succeeded(
    gcpod: Any, cloud: JobCloud, service: Jobs, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``gcpod`` takes the user's own settings away."""
    script = "echo 'OOM when allocating tensor with shape[64,320,320,3]'; exit 1"
    good, bad, worse = (service.create(shell_job(one)).name for one in ("true", script, "exit 7"))
    said: list[str] = []
    assert list(gcpod_library.result(good, endpoint=cloud.url, say=said.append)) == [good]
    with pytest.raises(errors.JobFailedError, match=r"^J\d\d\d: .*OOM when allocating tensor") as caught:
        api.result(good, bad, worse, endpoint=cloud.url)
    assert caught.value.on == bad
    assert [info.state.short for info in api.wait(good, bad, endpoint=cloud.url).values()] == ["SUCCEEDED", "FAILED"]
    with pytest.raises(errors.NotFoundError):
        api.result("404", endpoint=cloud.url)
    assert said == []


def test_a_local_cloud_that_is_gone_is_waited_for_a_minute(gcpod: Any) -> None:
    now, said = [0.0], list[str]()

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(errors.OutageError):
        api.wait("7", endpoint="http://127.0.0.1:1", say=said.append, clock=lambda: now[0], sleep=sleep)
    assert 60 <= now[0] < 70
    assert said[0].startswith("waiting: J405: reading the job ")
    with pytest.raises(errors.DeadlineError):
        api.wait("7", endpoint="http://127.0.0.1:1", deadline_s=5, clock=lambda: now[0], sleep=sleep)


def test_an_outage_is_one_line_with_its_code(jobs: Any, service: Jobs) -> None:
    info = ended(service)
    FAULTS.choose = lambda *_: "busy"
    for command in (("list",), ("show", info.id), ("cancel", info.id), ("delete", info.id, "--yes"), ("logs", info.id)):
        output = jobs(*command)
        assert (output.code, output.err.count("\n")) == (errors.OutageError.exit_code, 1)
