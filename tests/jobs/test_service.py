"""The job service: what it refuses and how that is coded, and that a create is never repeated by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials

from gcpod.errors import AuthError, GcpodError, NotFoundError, OutageError, ServiceError
from gcpod.jobs.service import Jobs, to_info
from gcpod.localcloud.cloud import JobCloud
from gcpod.session import Session
from gcpod.settings import Setting, Settings
from gcpod.status import JobState
from tests.jobs import Faults, session_of, shell_job

FAULTS = Faults()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    made = JobCloud(folder, cache=folder, environment_of=lambda *_: quick_python, middleware=FAULTS.wrap)
    with made as running:
        yield running


@pytest.fixture
def jobs(cloud: JobCloud) -> Iterator[Jobs]:
    yield Jobs(session_of(cloud.url))
    FAULTS.choose = lambda *_: None


@pytest.mark.parametrize(("status", "kind"), [
    (401, AuthError), (403, AuthError), (404, NotFoundError), (400, ServiceError), (409, ServiceError),
    (408, OutageError), (429, OutageError), (500, OutageError), (502, OutageError), (503, OutageError),
])
def test_each_status_has_its_kind_of_error(jobs: Jobs, status: int, kind: type[GcpodError]) -> None:
    FAULTS.choose = lambda *_: status
    calls: list[Callable[[], object]] = [
        lambda: jobs.get("1"), jobs.list, lambda: jobs.cancel("1"), lambda: jobs.create(shell_job()),
    ]
    for call in calls:
        with pytest.raises(GcpodError, match="told to fail" if status != 401 else "AuthError|E105") as caught:
            call()
        assert type(caught.value) is kind


def test_a_create_whose_connection_breaks_is_sent_once(jobs: Jobs) -> None:
    before = FAULTS.times("POST", "/customJobs")
    FAULTS.choose = lambda verb, path: "dropped after" if verb == "POST" and path.endswith("/customJobs") else None
    with pytest.raises(OutageError, match="no answer"):
        jobs.create(shell_job())
    assert FAULTS.times("POST", "/customJobs") == before + 1


def test_what_the_service_says_of_a_wrong_request_reaches_the_user(jobs: Jobs) -> None:
    body = shell_job()
    body["jobSpec"]["workerPoolSpecs"][0]["machineSpec"] = {"machineType": "cloud-tpu"}
    with pytest.raises(ServiceError, match=r"CPU machines only.*correct gcpod\.yaml") as caught:
        jobs.create(body)
    assert "\n" not in str(caught.value)


def test_names_and_ids_and_pages(jobs: Jobs) -> None:
    names = {jobs.create(shell_job(labels={"page": "yes"})).name for _ in range(3)}
    assert {info.name for info in jobs.list({"page": "yes"})} == names
    one = jobs.get(next(iter(names)))
    assert jobs.get(one.id).name == one.name


def test_a_state_of_the_future_is_not_terminal() -> None:
    info = to_info({"name": "n", "state": "JOB_STATE_TELEPORTING"})
    assert info.state is JobState.UNSPECIFIED
    assert not info.state.terminal
    terminal = {state.short for state in JobState if state.terminal}
    assert terminal == {"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"}


def test_a_job_is_handed_over_to_the_official_sdk(tmp_path: Path, quick_python: Path) -> None:
    # The SDK knows Google's regions only, so this local cloud stands for one of them.
    made = JobCloud(tmp_path / "c", cache=tmp_path, environment_of=lambda *_: quick_python, location="us-central1")
    with made as running:
        here = Setting("us-central1", "test")
        settings = Settings(Setting("p", "test"), here, Setting("gs://b", "test"), here, Setting(running.url, "test"))
        session = Session(settings)
        session.__dict__["credentials"] = AnonymousCredentials()
        info = Jobs(session).create(shell_job())
        handed = session.sdk_job(info.name)
        assert handed.resource_name == info.name
        assert handed.display_name == info.display_name
