"""The packages of a run: object_detection, slim, pycocotools and the launcher, ready to upload."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gcpod.packaging.protos import SUFFIX, modernise
from gcpod.packaging.sdist import Sdist, pack
from gcpod.packaging.source import Runner, fetch_pycocotools, fetch_source, read_tree, run_command
from gcpod.runtimes import LAUNCHER, Runtime

_LEFT_OUT = ("_test.py", "_tests.py", "_testdata.py", ".ipynb", ".md", ".png", ".jpg", ".sh", ".pyc")
_NEEDED_TESTS = ("test_case.py", "test_utils.py")
LAUNCHER_VERSION = "0.1.0"


@dataclass(frozen=True)
class Packages:
    """Built files, in the order a job puts them on its import path."""

    object_detection: Path
    slim: Path
    pycocotools: Path
    launcher: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.object_detection, self.slim, self.pycocotools, self.launcher)


def ensure_packages(runtime: Runtime, python: str, cache: Path, runner: Runner = run_command) -> Packages:
    """The packages of a runtime out of the user's cache, where they are built at their first use.

    Raises:
        PackageError: a source cannot be had.
    """
    folder = cache / "packages" / f"{runtime.name}-py{python}-{_recipe(runtime)}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            build_packages(runtime, python, Path(aside) / "built", cache, runner)
            # Another process may have been quicker; its files are the same.
            with contextlib.suppress(OSError):
                (Path(aside) / "built").rename(folder)
    named = {path.name.split("-")[0]: path for path in folder.iterdir()}
    return Packages(named["object_detection"], named["slim"], named["pycocotools"], named["gcpod_launcher"])


def _recipe(runtime: Runtime) -> str:
    """A digest of everything that decides the packages' bytes: the sources' own, and the code that packs them."""
    digest = hashlib.sha256(f"{runtime.object_detection.sha256} {runtime.pycocotools}".encode())
    for path in (*sorted(Path(__file__).parent.glob("*.py")), *sorted(LAUNCHER.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def build_packages(runtime: Runtime, python: str, out: Path, cache: Path, runner: Runner = run_command) -> Packages:
    """Makes the packages of a runtime in a folder; the same sources always give the same bytes.

    Args:
        runtime: whose sources are packed.
        python: version of the Python the job runs on.
        out: folder for the files; existing ones are replaced.
        cache: the user's cache directory, for downloads.
        runner: runs pip.

    Raises:
        PackageError: a source cannot be had.
    """
    archive = fetch_source(runtime.object_detection, cache, runner)
    version = runtime.object_detection.requirement.split("==")[1]
    trees = read_tree(archive, ("object_detection", "slim"))
    out.mkdir(parents=True, exist_ok=True)
    slim = {path.removeprefix("slim/"): content for path, content in trees["slim"].items()}
    wheel = fetch_pycocotools(runtime, python, cache, runner)
    return Packages(
        object_detection=_write(out, Sdist("object_detection", version, _wanted(trees["object_detection"]))),
        slim=_write(out, Sdist("slim", version, _wanted(slim))),
        pycocotools=_place(out / wheel.name, wheel.read_bytes()),
        launcher=_write(out, Sdist("gcpod_launcher", LAUNCHER_VERSION, _launcher_files())),
    )


def _wanted(tree: dict[str, bytes]) -> dict[str, bytes]:
    """Modules and data without tests and documentation, which no job imports; protobuf modules in today's form."""
    kept = {p: c for p, c in tree.items() if not p.endswith(_LEFT_OUT) or p.endswith(_NEEDED_TESTS)}
    return {p: _modern(c, p) if p.endswith(SUFFIX) else c for p, c in kept.items()}


def _modern(content: bytes, path: str) -> bytes:
    return modernise(content.decode("latin-1"), path).encode("latin-1")


def _launcher_files() -> dict[str, bytes]:
    return {path.relative_to(LAUNCHER).as_posix(): path.read_bytes() for path in sorted(LAUNCHER.rglob("*.py"))}


def _write(out: Path, sdist: Sdist) -> Path:
    return _place(out / sdist.filename, pack(sdist))


def _place(path: Path, content: bytes) -> Path:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content)
    return aside.replace(path)
