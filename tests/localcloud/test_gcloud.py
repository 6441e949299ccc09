"""gcloud storage and gcloud builds: clients nobody here wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcpod.jobs.builds import ImageBuilder
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.server import LocalCloud
from gcpod.runtimes import find_runtime
from gcpod.runtimes.recipe import write_context
from gcpod.storage.objects import Objects
from tests.jobs import session_of
from tests.waiting import until

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
