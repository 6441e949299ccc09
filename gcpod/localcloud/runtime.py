"""The virtual environment that stands for a container image, made once and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gcpod.errors import LocalCloudError
from gcpod.runtimes import Runtime, image_pythons

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
READY = ".ready"
"""Marks a whole environment; one without it is made anew."""
_PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command without a shell and collects its output."""
    return subprocess.run(list(command), capture_output=True, text=True, check=False)


def environment_folder(runtime: Runtime, python: str, cache: Path) -> Path:
    """Where the environment of a runtime lies; its name changes with the locked requirements."""
    digest = hashlib.sha256(runtime.lock.read_bytes()).hexdigest()[:12]
    return cache / "runtimes" / f"{runtime.name}-py{python}-{digest}"


def ensure_environment(
    runtime: Runtime, image: str, cache: Path, say: Callable[[str], None], runner: Runner = run_command,
    which: Callable[[str], str | None] = shutil.which,
) -> Path:
    """The interpreter of the runtime's environment, which is made where it is missing or half made.

    Args:
        runtime: what to install.
        image: the image it stands for, whose Python is wanted.
        cache: the user's cache directory.
        say: told what is being done, a line at a time.
        runner: runs commands.
        which: finds programs.

    Raises:
        LocalCloudError: no suitable Python, or the installation fails.
    """
    versions = image_pythons(runtime, image)
    folders = [environment_folder(runtime, version, cache) for version in versions]
    for folder in folders:
        if (folder / READY).exists():
            return folder / "bin" / "python"
    folders[0].parent.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "runtimes" / f"{runtime.name}.lock"):
        version, create = _creator(runtime, versions, cache, runner, which)
        folder = environment_folder(runtime, version, cache)
        python = folder / "bin" / "python"
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            say(f"making the runtime {runtime.name} with Python {version}: about a minute, once")
            done = runner([*create, str(folder)])
            if done.returncode != 0:
                raise _failed(runtime, done)
            _install(python, runtime, runner, which, say)
            (folder / READY).touch()
    return python


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def find_python(version: str, runner: Runner, which: Callable[[str], str | None]) -> str | None:
    """An interpreter of that version which can make environments."""
    for candidate in (sys.executable, which(f"python{version}"), which("python3")):
        if candidate:
            probe = runner([candidate, "-c", _PROBE])
            if probe.returncode == 0 and probe.stdout.strip() == version:
                return candidate
    return None


def _creator(
    runtime: Runtime, versions: Sequence[str], cache: Path, runner: Runner, which: Callable[[str], str | None],
) -> tuple[str, list[str]]:
    """The first version that can be had, and the command that makes an environment of it."""
    for version in versions:
        python = find_python(version, runner, which)
        if python is not None:
            return version, [python, "-m", "venv"]
    uv, wanted = which("uv"), versions[0]
    if uv is not None:
        # What uv may download belongs into gcpod's cache too.
        place = f"UV_PYTHON_INSTALL_DIR={cache / 'pythons'}"
        return wanted, ["env", place, uv, "venv", "--seed", "--python", wanted]
    raise LocalCloudError(
        "making the runtime", runtime.name, f"no Python {' or '.join(versions)} with venv is on the path",
        f"install python{wanted} and python{wanted}-venv, or uv, which brings its own",
    )


def _install(
    python: Path, runtime: Runtime, runner: Runner, which: Callable[[str], str | None], say: Callable[[str], None],
) -> None:
    # The lock names every distribution, some of which disagree with each other's metadata: nothing may be resolved.
    options = ["install", "--no-deps", "--require-hashes", "--requirement", str(runtime.lock)]
    uv = which("uv")
    if uv is not None:
        say("installing the locked requirements with uv")
        if runner([uv, "pip", *options, "--quiet", "--compile-bytecode", "--python", str(python)]).returncode == 0:
            return
        say("uv could not; trying pip")
    say("installing the locked requirements with pip")
    done = runner([str(python), "-m", "pip", *options, "--quiet", "--disable-pip-version-check"])
    if done.returncode != 0:
        raise _failed(runtime, done)


def _failed(runtime: Runtime, done: subprocess.CompletedProcess[str]) -> LocalCloudError:
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no message"]
    cause = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    fix = "check the network and pip's index, then try again"
    return LocalCloudError("making the runtime", runtime.name, cause, fix)
