"""gcloud storage, gcloud builds and gcloud ai: clients nobody here wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gcpod.jobs.builds import ImageBuilder
from gcpod.jobs.logs import LogReader
from gcpod.jobs.request import kinds_of
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.server import LocalCloud
from gcpod.runtimes import find_runtime
from gcpod.runtimes.recipe import write_context
from gcpod.status import JobState
from gcpod.storage.objects import Objects
from tests.jobs import session_of
from tests.waiting import until

from .region import REGION, Place, opened

pytestmark = [
    pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed"), pytest.mark.tools,
]
Gcloud = Callable[..., str]


def settings(config: Path, **more: str) -> dict[str, str]:
    """An environment in which gcloud asks nobody but who is named."""
    return {
        **os.environ,
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_PROJECT": "p",
        "CLOUDSDK_CONFIG": str(config),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        **more,
    }


def run_gcloud(environment: dict[str, str], *args: str) -> str:
    done = subprocess.run(
        ["gcloud", *args], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def gcloud(cloud: LocalCloud, tmp_path: Path) -> Gcloud:
    environment = settings(
        tmp_path / "config", CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE=f"{cloud.url}/storage/v1/",
    )
    return lambda *args: run_gcloud(environment, "storage", *args)


def test_copy_list_and_read(gcloud: Gcloud, bucket: Any, tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "deep"
    folder.mkdir(parents=True)
    (folder / "a b.txt").write_text("hello")
    (tmp_path / "tree" / "big").write_bytes(os.urandom(9 << 20))
    gcloud("cp", "-r", str(tmp_path / "tree"), f"gs://{bucket.name}/")
    assert gcloud("ls", "-r", f"gs://{bucket.name}/**").split("\n")[:-1] == [
        f"gs://{bucket.name}/tree/big",
        f"gs://{bucket.name}/tree/deep/a b.txt",
    ]
    assert gcloud("cat", f"gs://{bucket.name}/tree/deep/a b.txt") == "hello"
    gcloud("cp", f"gs://{bucket.name}/tree/big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "tree" / "big").read_bytes()


def test_move_and_remove(gcloud: Gcloud, bucket: Any) -> None:
    bucket.blob("d/x").upload_from_string(b"1")
    gcloud("mv", f"gs://{bucket.name}/d/x", f"gs://{bucket.name}/d/y")
    assert [one.name for one in bucket.list_blobs()] == ["d/y"]
    gcloud("rm", "-r", f"gs://{bucket.name}/d")
    assert list(bucket.list_blobs()) == []


def test_builds(quick_cloud: JobCloud, tmp_path: Path) -> None:
    environment = settings(
        tmp_path / "config", CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBUILD=f"{quick_cloud.url}/",
        CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE=f"{quick_cloud.url}/storage/v1/",
        CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY=f"{quick_cloud.url}/",
    )
    session, said = session_of(quick_cloud.url), list[str]()
    made = ImageBuilder(session, Objects(session), said.append).build(find_runtime("tf2.15"), "cpu")
    session.storage.close()

    def gcloud(*args: str) -> Any:
        return json.loads(run_gcloud(environment, *args, "--format=json"))

    found = gcloud("builds", "describe", made.build)
    assert (found["status"], found["images"][0], found["projectId"]) == ("SUCCESS", made.image, "p")
    assert [one["digest"] for one in found["results"]["images"]] == [made.digest] * 2
    assert [one["id"] for one in gcloud("builds", "list", "--filter=tags=gcpod")] == [made.build]
    assert gcloud("builds", "list", "--ongoing") == []
    [repository] = gcloud("artifacts", "repositories", "list", "--location=local")
    assert (repository["name"], repository["format"]) == ("projects/p/locations/local/repositories/gcpod", "DOCKER")
    # What `gcpod runtime build --out` advises.
    write_context(find_runtime("tf2.15"), "cpu", tmp_path / "image")
    submitted = gcloud("builds", "submit", str(tmp_path / "image"), "--tag", made.image, "--async")
    until(lambda: gcloud("builds", "describe", submitted["id"])["status"] == "SUCCESS")


@pytest.fixture
def place(tmp_path: Path, quick_python: Path) -> Iterator[Place]:
    with opened(tmp_path, quick_python) as place:
        yield place


@pytest.fixture
def for_jobs(place: Place, tmp_path: Path) -> dict[str, str]:
    """The environment in which gcloud asks the place for jobs and their logs."""
    url = f"{place.cloud.url}/"
    return settings(
        tmp_path / "config", CLOUDSDK_AI_REGION=REGION.name, CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM=url,
        CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING=url, PYTHONUNBUFFERED="1",
    )


def ids_of(environment: dict[str, str], *wanted: str) -> list[str]:
    listed = run_gcloud(environment, "ai", "custom-jobs", "list", *wanted, "--format=value(name.basename())")
    return sorted(listed.split())


def test_list_and_describe_the_jobs_of_a_run(place: Place, for_jobs: dict[str, str]) -> None:
    made = place.run().start()
    by_kind = {kind: name.rpartition("/")[2] for kind, name in made.jobs.items()}
    assert ids_of(for_jobs) == sorted(by_kind.values())
    assert ids_of(for_jobs, f"--filter=labels.gcpod_run={made.run_id} AND labels.gcpod_kind=eval") == [by_kind["eval"]]
    assert ids_of(for_jobs, "--filter=state=JOB_STATE_FAILED") == []
    for kind in kinds_of(place.spec):
        found = json.loads(run_gcloud(for_jobs, "ai", "custom-jobs", "describe", by_kind[kind], "--format=json"))
        asked = place.request(kind)
        assert found == {**found, **asked, "name": made.jobs[kind], "state": "JOB_STATE_SUCCEEDED"}


def test_cancel_a_training_that_runs(place: Place, for_jobs: dict[str, str]) -> None:
    place.hang()
    train, jobs = place.run().submit("train"), Jobs(place.session)
    until(lambda: jobs.get(train.name).state is JobState.RUNNING)
    assert ids_of(for_jobs, "--filter=state=JOB_STATE_RUNNING") == [train.id]
    run_gcloud(for_jobs, "ai", "custom-jobs", "cancel", train.id)
    until(lambda: jobs.get(train.name).state is JobState.CANCELLED)
    assert ids_of(for_jobs, "--filter=state=JOB_STATE_CANCELLED") == [train.id]


def streamed(rows: str) -> list[tuple[str, ...]]:
    """Severity, task and text of each row of a stream."""
    return [tuple(row.split("\t")[column] for column in (0, 2, 3)) for row in rows.splitlines() if row]


def told(place: Place, job: str) -> list[tuple[str, ...]]:
    return [(line.severity, line.task, line.text) for line in LogReader(place.session, job).poll()]


STREAM = ("ai", "custom-jobs", "stream-logs", "--polling-interval=1")
END = ("INFO", "service", "Job completed successfully.")


def test_stream_the_log_of_a_job_that_ended(place: Place, for_jobs: dict[str, str]) -> None:
    train, jobs = place.run().submit("train"), Jobs(place.session)
    until(lambda: jobs.get(train.name).state.terminal)
    rows = streamed(run_gcloud(for_jobs, *STREAM, train.id))
    assert rows == told(place, train.id)
    assert rows[-1] == END


def test_stream_the_log_of_a_training_that_runs(place: Place, for_jobs: dict[str, str]) -> None:
    hang = place.hang()
    train, jobs = place.run().submit("train"), Jobs(place.session)
    with subprocess.Popen(
        ["gcloud", *STREAM, train.id], env=for_jobs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as stream:
        too_long = threading.Timer(60, stream.kill)
        too_long.start()
        try:
            assert stream.stdout is not None
            rows = streamed(next(stream.stdout))
            assert jobs.get(train.name).state is JobState.RUNNING
            place.free(hang)
            # gcloud asks only at its start whether the job has ended, so it would go on for ever now.
            while rows[-1] != END:
                rows += streamed(next(stream.stdout))
        finally:
            too_long.cancel()
            stream.kill()
    assert rows == told(place, train.id)
