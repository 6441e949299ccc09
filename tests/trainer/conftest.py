"""The runtime's Python with a run's own packages on its path."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from gcpod.cache import cache_dir
from gcpod.localcloud.runtime import ensure_environment
from gcpod.packaging.build import build_packages
from gcpod.runtimes import LAUNCHER, find_runtime
from gcpod.spec import Spec

PRELUDE = f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(LAUNCHER)!r})
from gcpod_launcher import compat
from gcpod_launcher.packages import unpack
folder, archives = Path(sys.argv[1]), json.loads(sys.argv[2])
for number, archive in enumerate(reversed(archives)):
    target = folder / str(number)
    target.mkdir()
    sys.path.insert(0, str(unpack(Path(archive), target)))
compat.apply()
"""

@dataclass(frozen=True)
class Trainer:
    """The runtime's Python with a run's packages on its path."""

    python: Path
    archives: tuple[Path, ...]

    def __call__(self, folder: Path, program: str, *arguments: Path) -> object:
        """Runs a program that prints ``FOUND`` and a JSON value; returns the value."""
        folder.mkdir(exist_ok=True)
        archives = json.dumps([str(archive) for archive in self.archives])
        command = [str(self.python), "-c", PRELUDE + program, str(folder), archives, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
        return json.loads(line.removeprefix("FOUND "))


@pytest.fixture(scope="session")
def default_python() -> Path:
    """The interpreter of the runtime that a spec asks for unless it names another."""
    runtime = find_runtime(Spec().runtime.name)
    image = f"local-docker.pkg.dev/p/gcpod/{runtime.images['cpu']}:latest"
    return ensure_environment(runtime, image, cache_dir(), lambda _: None)


@pytest.fixture(scope="session")
def trainer(runtime_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    runtime = find_runtime("tf2.12")
    built = build_packages(runtime, runtime.pythons[0], tmp_path_factory.mktemp("packages"), cache_dir())
    return Trainer(runtime_python, (built.object_detection, built.slim))
