"""Pinned files of the Python package index, fetched once and kept in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from gcpod.errors import PackageError
from gcpod.runtimes import Runtime, Source

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command without a shell and collects its output."""
    return subprocess.run(list(command), capture_output=True, text=True, check=False)


def pip_error(done: subprocess.CompletedProcess[str], otherwise: str) -> str:
    """What pip says went wrong, in a line."""
    if done.stderr.rstrip().endswith("No module named pip"):
        return "this Python has no pip; `python -m ensurepip` brings it"
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [otherwise]
    return lines[0].removeprefix("ERROR: ")


def put_in_place(made: Path, folder: Path) -> None:
    """Moves a finished folder to its name; where another process was quicker, its files are the same."""
    with contextlib.suppress(OSError):
        made.rename(folder)
    if not folder.is_dir():
        made.rename(folder)


def fetch_source(source: Source, cache: Path, runner: Runner = run_command) -> Path:
    """The source distribution in the cache, downloaded by pip when it is not there yet.

    Raises:
        PackageError: pip fails, or the file's SHA-256 is not the pinned one.
    """
    path = cache / "downloads" / source.filename
    if not path.is_file():
        download(["--no-binary", ":all:", source.requirement], path, runner)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        path.unlink()
        found = f"its SHA-256 is {digest}, not {source.sha256}"
        raise PackageError("checking", path.name, found, "run the command again; if it repeats, do not trust the index")
    return path


def fetch_pycocotools(runtime: Runtime, python: str, cache: Path, runner: Runner = run_command) -> Path:
    """pycocotools as a wheel for the runtime's Python: its source needs a compiler, which a worker may lack (K302).

    Args:
        python: the version the job runs on, such as "3.11".

    Raises:
        PackageError: pip fails.
    """
    tag = "cp" + python.replace(".", "")
    name, version = runtime.pycocotools.split("==")
    folder = cache / "downloads"
    found = sorted(folder.glob(f"{name}-{version}-{tag}-*.whl"))
    if found:
        return found[0]
    platforms = [part for platform in runtime.platforms for part in ("--platform", platform)]
    options = ["--only-binary", ":all:", "--python-version", python, "--implementation", "cp", *platforms]
    return download([*options, runtime.pycocotools], folder, runner)


def download(arguments: list[str], target: Path, runner: Runner) -> Path:
    """Downloads one file with pip beside ``target`` and moves it into place.

    Args:
        target: the file, or an existing or future folder when the file's name is pip's to choose (no suffix).

    Raises:
        PackageError: pip fails or brings something else than one file.
    """
    folder = target.parent if target.name.endswith(".gz") else target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", aside, *arguments]
        done = runner(command)
        files = list(Path(aside).iterdir())
        if done.returncode != 0 or len(files) != 1:
            raise PackageError("downloading", arguments[-1], pip_error(done, "pip brought no file"),
                               "check the network and pip's index, then run the command again")
        return files[0].replace(folder / files[0].name if folder == target else target)
