"""The server as a process of its own: started once, found, stopped, gone when idle or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gcpod.errors import LocalCloudError
from gcpod.localcloud.cloud import JobCloud, ensure_running, running_url, stop_running
from gcpod.localcloud.runtime import READY, environment_folder
from gcpod.runtimes import runtime_of_image
from tests.jobs import IMAGE, shell_job
from tests.localcloud.conftest import Raw
from tests.waiting import until


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "root"
    stop_running(tmp_path / "root")


def test_one_server_for_two_who_start_at_once(root: Path) -> None:
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(ensure_running(root, 60))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert urls[0] == urls[1] == running_url(root) == ensure_running(root, 60)
    assert Raw(urls[0].removeprefix("http://"))("GET", "/storage/v1/b?project=p").status == 200
    with pytest.raises(LocalCloudError, match="holds it; stop that one or choose another folder"):
        JobCloud(root, cache=root).start()
    assert stop_running(root)
    assert running_url(root) is None
    assert not stop_running(root)


def test_a_server_that_cannot_start_says_why(root: Path) -> None:
    root.mkdir()
    (root / "storage").write_text("in the way")
    with pytest.raises(LocalCloudError, match="starting the local cloud"):
        ensure_running(root, 60)
    assert running_url(root) is None


@pytest.mark.long
def test_ready_file_loopback_and_idle_exit(root: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "gcpod", "local", "up", "--root", str(root), "--port", "0",
               "--ready-file", str(ready), "--idle-exit-s", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = until(lambda: ready.exists() and ready.read_text().strip())
        assert process.stdout is not None
        assert process.stdout.readline().strip() == url == running_url(root)
        port = int(url.rpartition(":")[2])
        listening = [
            line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and int(line.split()[1].partition(":")[2], 16) == port
        ]
        assert listening == [f"0100007F:{port:04X}"]
        assert process.wait(20) == 0
    assert running_url(root) is None


def test_a_killed_server_takes_its_jobs_along(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A cache whose runtime is ready, so that the server starts the job at once.
    runtime = runtime_of_image(IMAGE)
    assert runtime is not None
    folder = environment_folder(runtime, runtime.pythons[0], tmp_path / "cache")
    (folder / "bin").mkdir(parents=True)
    (folder / READY).touch()
    monkeypatch.setenv("GCPOD_CACHE", str(tmp_path / "cache"))
    url = ensure_running(root, 60)
    body = json.dumps(shell_job("sleep 300 & echo $! $$ > pids.part; mv pids.part pids; wait")).encode()
    path = "/v1/projects/p/locations/local/customJobs"
    number = Raw(url.removeprefix("http://"))("POST", path, body).json["name"].rpartition("/")[2]
    numbers = until(lambda: (root / "jobs" / number / "workerpool0-0" / "pids").exists() and (
        root / "jobs" / number / "workerpool0-0" / "pids").read_text().split())
    os.kill(int((root / "lock").read_text()), signal.SIGKILL)
    until(lambda: not any(_runs(int(one)) for one in numbers))


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
