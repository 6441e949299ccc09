"""The environment that stands for an image: which Python, which installer, made once, made again when half made."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gcpod.errors import LocalCloudError
from gcpod.localcloud.runtime import READY, ensure_environment
from gcpod.runtimes import find_runtime

RUNTIME = find_runtime("tf2.12")
TRAINER = "local-docker.pkg.dev/p/gcpod/gcpod-trainer-tf2.12-cpu:latest"
PREBUILT = "us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-12.py310:latest"


class Programs:
    """Stands for the programs of a machine: interpreters by their version, and what fails."""

    def __init__(self, versions: dict[str, str], failing: Sequence[str] = ()) -> None:
        self.versions, self.failing = versions, tuple(failing)
        self.ran: list[str] = []

    def which(self, name: str) -> str | None:
        return name if name in self.versions else None

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        line = " ".join(command)
        self.ran.append(line)
        if command[1:2] == ["-c"]:
            version = self.versions.get(command[0], "3.99")
            return subprocess.CompletedProcess(list(command), 0, f"{version}\n", "")
        if any(word in line for word in self.failing):
            return subprocess.CompletedProcess(list(command), 1, "", "WARNING\nERROR: No matching distribution\nbye\n")
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True)
        return subprocess.CompletedProcess(list(command), 0, "", "")

    def ensure(self, cache: Path, image: str = TRAINER, say: Callable[[str], None] = lambda _: None) -> Path:
        return ensure_environment(RUNTIME, image, cache, say, self.run, self.which)

    def did(self, word: str) -> list[str]:
        return [line for line in self.ran if word in line]


def test_the_images_own_python_comes_first_and_then_the_others(tmp_path: Path) -> None:
    both = Programs({"python3.11": "3.11", "python3.10": "3.10"})
    assert "py3.11" in str(both.ensure(tmp_path / "both"))
    older = Programs({"python3.10": "3.10"})
    assert "py3.10" in str(older.ensure(tmp_path / "older"))
    assert "py3.10" in str(both.ensure(tmp_path / "prebuilt", PREBUILT))


def test_it_is_made_once_and_again_only_when_half_made(tmp_path: Path) -> None:
    programs, said = Programs({"python3.11": "3.11"}), list[str]()
    python = programs.ensure(tmp_path, say=said.append)
    assert any("about a minute, once" in line for line in said)
    before = len(programs.ran)
    assert programs.ensure(tmp_path) == python
    assert len(programs.ran) == before
    (python.parent.parent / READY).unlink()
    (python.parent / "leftover").touch()
    assert programs.ensure(tmp_path) == python
    assert not (python.parent / "leftover").exists()
    assert len(programs.did("-m venv")) == 2


def test_uv_installs_where_it_is_there_and_pip_where_it_cannot(tmp_path: Path) -> None:
    quick = Programs({"python3.11": "3.11", "uv": ""})
    quick.ensure(tmp_path / "quick")
    assert len(quick.did("uv pip install --no-deps --require-hashes")) == 1
    assert not quick.did("-m pip")
    broken = Programs({"python3.11": "3.11", "uv": ""}, failing=["uv pip"])
    broken.ensure(tmp_path / "broken")
    assert len(broken.did("-m pip install --no-deps --require-hashes")) == 1


def test_uv_brings_a_python_where_none_fits(tmp_path: Path) -> None:
    programs = Programs({"python3": "3.13", "uv": ""})
    programs.ensure(tmp_path)
    assert programs.did("uv venv --seed --python 3.11")


def test_where_nothing_fits_the_message_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(LocalCloudError, match=r"no Python 3\.11 or 3\.10.*install python3\.11 and .*-venv, or uv"):
        Programs({"python3": "3.13"}).ensure(tmp_path)


def test_a_failed_installation_is_told_in_one_line_and_tried_anew(tmp_path: Path) -> None:
    with pytest.raises(LocalCloudError, match="ERROR: No matching distribution") as caught:
        Programs({"python3.11": "3.11"}, failing=["pip install"]).ensure(tmp_path)
    assert "\n" not in str(caught.value)
    good = Programs({"python3.11": "3.11"})
    good.ensure(tmp_path)
    assert good.did("-m venv")


def test_two_jobs_that_start_together_share_one_building(tmp_path: Path) -> None:
    programs, found = Programs({"python3.11": "3.11"}), list[Path]()
    threads = [threading.Thread(target=lambda: found.append(programs.ensure(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(programs.did("-m venv")) == 1


def test_this_machines_own_python_can_make_environments() -> None:
    done = subprocess.run([sys.executable, "-c", "import venv, ensurepip"], check=False)
    assert done.returncode == 0
