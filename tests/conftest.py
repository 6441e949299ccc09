"""What every test may use: shared real data, the trainer's runtime, a local cloud that runs a quick trainer."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from gcpod.cache import cache_dir
from gcpod.cli.main import main
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.runtime import ensure_environment
from gcpod.runtimes import find_runtime

from .output import Output

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
settings.register_profile("quick", max_examples=25, deadline=None)
"""For `make test-fast`, which is run all the time; `make test` draws as many as hypothesis itself thinks right."""

TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parents[1] / "shared" / "data"
QUICK_TRAINER = TESTS / "quick_trainer.py"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting imports stays for good, so no search for garbage looks through it: a fifth of all CPU time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data; absent on a machine that has only the repository, but never in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED} is missing in CI")
        pytest.skip(f"{SHARED} is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def raccoon(shared_data: Path) -> Path:
    """200 real photographs with Pascal VOC XML."""
    return shared_data / "raccoon"


@pytest.fixture(scope="session")
def runtime_python() -> Path:
    """The interpreter of the trainer's runtime, made once and kept in the user's cache."""
    image = f"local-docker.pkg.dev/p/gcpod/{find_runtime('tf2.12').images['cpu']}:latest"
    return ensure_environment(find_runtime("tf2.12"), image, cache_dir(), lambda _: None)


@pytest.fixture(scope="session")
def quick_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``python`` that runs tests/quick_trainer.py in place of the launcher: a trainer image of half a second."""
    folder = tmp_path_factory.mktemp("image") / "bin"
    folder.mkdir()
    program = folder / "python"
    # Without the site module Python starts in a third of the time.
    paths = ":".join(path for path in sys.path if path)
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{paths}" exec {sys.executable} -S {QUICK_TRAINER} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def quick_cloud(tmp_path: Path, quick_python: Path) -> Iterator[JobCloud]:
    """A local cloud of the test's own whose jobs run the quick trainer."""
    with JobCloud(tmp_path / "cloud", cache=tmp_path / "cache", environment_of=lambda *_: quick_python) as cloud:
        yield cloud


@pytest.fixture
def gcpod(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Calls the command line in this process, in a folder of its own, without the user's own settings."""
    for name in list(os.environ):
        if name.startswith(("GOOGLE_", "CLOUDSDK_", "CLOUD_ML_", "GCPOD_ENDPOINT")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "no-gcloud"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Output:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Output(int(stopped.value.code or 0), captured.out, captured.err)

    return call
