"""gcloud storage: a client nobody here wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcpod.localcloud.server import LocalCloud

pytestmark = [
    pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed"), pytest.mark.tools,
]
Gcloud = Callable[..., str]


@pytest.fixture
def gcloud(cloud: LocalCloud, tmp_path: Path) -> Gcloud:
    environment = {
        **os.environ,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{cloud.url}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_PROJECT": "p",
        "CLOUDSDK_CONFIG": str(tmp_path / "config"),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }

    def run(*args: str) -> str:
        done = subprocess.run(
            ["gcloud", "storage", *args], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


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
