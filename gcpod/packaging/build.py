"""The packages of a run: object_detection, slim, pycocotools, the launcher and the user's own, ready to upload."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from gcpod.packaging.kept import Clock, ensure_folder
from gcpod.packaging.origin import ENTRY, Sources, read_sources, setup_of
from gcpod.packaging.project import read_project
from gcpod.packaging.protoc import compile_protos
from gcpod.packaging.protos import SUFFIX, modernise
from gcpod.packaging.sdist import Sdist, pack
from gcpod.packaging.source import Runner, fetch_pycocotools, fetch_source, run_command
from gcpod.runtimes import LAUNCHER, Runtime
from gcpod.spec import Spec

LAUNCHER_VERSION = "0.1.0"
_OWN = ("object_detection", "slim", "pycocotools", "gcpod_launcher")


class OwnSources(TypedDict):
    """What the user brings of their own; None for each that they do not."""

    source: Path | None
    training: Path | None


def own_sources(spec: Spec) -> OwnSources:
    """What a gcpod.yaml names, as ensure_packages takes it."""
    source, training = spec.packages.source, spec.packages.training
    return {"source": spec.local_path(source) if source else None,
            "training": spec.local_path(training) if training else None}


@dataclass(frozen=True)
class Packages:
    """Built files, in the order a job puts them on its import path.

    Attributes:
        training: the user's own package; None where there is none.
    """

    object_detection: Path
    slim: Path
    pycocotools: Path
    launcher: Path
    training: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, as Python-package mode sends them."""
        return (self.object_detection, self.slim, self.pycocotools, self.launcher, *self._own)

    @property
    def for_image(self) -> tuple[Path, ...]:
        """Those that a trainer image, which holds launcher and pycocotools, lacks."""
        return (self.object_detection, self.slim, *self._own)

    @property
    def _own(self) -> tuple[Path, ...]:
        return () if self.training is None else (self.training,)


def ensure_packages(
    runtime: Runtime, python: str, cache: Path, runner: Runner = run_command, *, source: Path | None = None,
    training: Path | None = None, entry: str = ENTRY, clock: Clock = time.time,
) -> Packages:
    """The packages of a run out of the user's cache, where they are built when one of their sources is new.

    Those that were not asked for in 90 days are then taken out of the cache.

    Args:
        runtime: what the jobs run in.
        python: version of the Python the job runs on, such as "3.11".
        cache: the user's cache directory.
        runner: runs pip and protoc.
        source: a checkout, release or sdist of object_detection and slim; None: the runtime's pinned archive.
        training: folder of the user's own package; None: there is none.
        entry: the module that jobs start with, which says whether object_detection is packed by its setup.py for
            TensorFlow 1 or 2.
        clock: seconds since 1970.

    Raises:
        PackageError: a source cannot be had or packed.
    """
    inputs = _read(source, training, entry)
    folder = cache / "packages" / f"{runtime.name}-py{python}-{_recipe(runtime, inputs)}"
    files = ensure_folder(folder, lambda out: _build(inputs, runtime, python, out, cache, runner), clock)
    named = {path.name.split("-")[0]: path for path in files}
    own = next((path for name, path in named.items() if name not in _OWN), None)
    object_detection, slim, pycocotools, launcher = (named[name] for name in _OWN)
    return Packages(object_detection, slim, pycocotools, launcher, own)


def build_packages(
    runtime: Runtime, python: str, out: Path, cache: Path, runner: Runner = run_command, *, source: Path | None = None,
    training: Path | None = None, entry: str = ENTRY,
) -> Packages:
    """Makes the packages of a run in a folder, whose existing files are replaced; arguments as for ensure_packages.

    The same sources always give the same bytes.

    Raises:
        PackageError: a source cannot be had or packed.
    """
    return _build(_read(source, training, entry), runtime, python, out, cache, runner)


def sources_digest(source: Path | None, training: Path | None) -> str:
    """SHA-256, in hexadecimal, of what the user brings of their own; "" where that is nothing.

    Raises:
        PackageError: a source cannot be read.
    """
    if source is None and training is None:
        return ""
    given = "" if source is None else read_sources(source).digest
    own = "" if training is None else read_project(training).sdist.digest
    return hashlib.sha256(f"{given} {own}".encode()).hexdigest()


@dataclass(frozen=True)
class _Inputs:
    """What is packed; ``sources`` is None for the pinned archive, which need not be read to be known."""

    sources: Sources | None
    training: Sdist | None
    entry: str


def _read(source: Path | None, training: Path | None, entry: str) -> _Inputs:
    return _Inputs(
        None if source is None else read_sources(source, entry),
        None if training is None else read_project(training).sdist,
        entry,
    )


def _recipe(runtime: Runtime, inputs: _Inputs) -> str:
    """A digest of everything that decides the packages' bytes: the sources' own, and the code that packs them."""
    if inputs.sources is None:
        sources = f"{runtime.object_detection.sha256} {setup_of(inputs.entry)}"
    else:
        sources = inputs.sources.digest
    training = "" if inputs.training is None else inputs.training.digest
    digest = hashlib.sha256(f"{sources} {runtime.pycocotools} {training}".encode())
    for path in (*sorted(Path(__file__).parent.glob("*.py")), *sorted(LAUNCHER.rglob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _build(inputs: _Inputs, runtime: Runtime, python: str, out: Path, cache: Path, runner: Runner) -> Packages:
    sources = inputs.sources or read_sources(fetch_source(runtime.object_detection, cache, runner), inputs.entry)
    object_detection = _with_modules(sources.object_detection, cache, runner)
    wheel = fetch_pycocotools(runtime, python, cache, runner)
    out.mkdir(parents=True, exist_ok=True)
    return Packages(
        object_detection=_write(out, Sdist("object_detection", sources.version, object_detection)),
        slim=_write(out, Sdist("slim", sources.slim_version, sources.slim)),
        pycocotools=_place(out / wheel.name, wheel.read_bytes()),
        launcher=_write(out, Sdist("gcpod_launcher", LAUNCHER_VERSION, _launcher_files())),
        training=None if inputs.training is None else _write(out, inputs.training),
    )


def _with_modules(tree: dict[str, bytes], cache: Path, runner: Runner) -> dict[str, bytes]:
    """The tree with ``.proto`` files compiled, and every generated module in today's form.

    Where both are there the ``.proto`` counts: a module that was generated once may be older than it.
    """
    protos = {path: content for path, content in tree.items() if path.endswith(".proto")}
    made = compile_protos(protos, cache, runner) if protos else {}
    kept = {path: content for path, content in tree.items() if path not in protos and path not in made}
    return {**{p: _modern(c, p) if p.endswith(SUFFIX) else c for p, c in kept.items()}, **made}


def _modern(content: bytes, path: str) -> bytes:
    return modernise(content.decode("latin-1"), path).encode("latin-1")


def _launcher_files() -> dict[str, bytes]:
    return {path.relative_to(LAUNCHER).as_posix(): path.read_bytes() for path in sorted(LAUNCHER.rglob("*.py"))}


def _write(out: Path, sdist: Sdist) -> Path:
    labelled = sdist.labelled()
    return _place(out / labelled.filename, pack(labelled))


def _place(path: Path, content: bytes) -> Path:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content)
    return aside.replace(path)
