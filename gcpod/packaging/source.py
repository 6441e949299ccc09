"""Where the packaged code comes from: pinned files of the Python package index, kept in the user's cache."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from gcpod.errors import PackageError
from gcpod.runtimes import Runtime, Source

Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
MAX_MEMBER_BYTES = 64 * 1024 * 1024


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command without a shell and collects its output."""
    return subprocess.run(list(command), capture_output=True, text=True, check=False)


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
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip brought no file"]
            raise PackageError("downloading", arguments[-1], lines[0].removeprefix("ERROR: "),
                               "check the network and pip's index, then run the command again")
        return files[0].replace(folder / files[0].name if folder == target else target)


def read_tree(archive: Path, top_folders: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The files of an sdist below each named folder, read without extracting anything to disk.

    Returns:
        For each name in ``top_folders``, path (relative to the archive's top) to content.

    Raises:
        PackageError: the archive is damaged, or lacks a folder.
    """
    trees: dict[str, dict[str, bytes]] = {name: {} for name in top_folders}
    try:
        with gzip.open(archive) as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                parts = member.name.split("/")
                safe = ".." not in parts and member.size <= MAX_MEMBER_BYTES
                if safe and member.isfile() and len(parts) > 2 and parts[1] in trees:
                    extracted = tar.extractfile(member)
                    trees[parts[1]]["/".join(parts[1:])] = extracted.read() if extracted else b""
            while raw.read(1 << 20):
                pass  # gzip's checksum stands at the end
    except (tarfile.TarError, OSError, EOFError, zlib.error) as e:
        raise PackageError("reading", archive, str(e) or type(e).__name__, "delete it and run the command again") from e
    for name, tree in trees.items():
        if not tree:
            raise PackageError("reading", archive, f"it holds no folder {name}", "use a whole source archive")
    return trees
