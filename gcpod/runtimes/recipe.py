"""A trainer image as a folder that Docker builds: a Dockerfile rendered from a runtime's data, the lock, the launcher.

Packages do not belong to an image; they come from the bucket when a job starts.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from gcpod.errors import SpecError
from gcpod.runtimes import LAUNCHER, Recipe, Runtime

HOME = "/opt/gcpod"
"""Where lock and launcher lie in an image."""
REPOSITORY = "gcpod"
"""The Docker repository of a region that jobs take their images from."""


def image_address(runtime: Runtime, kind: str, project: str, region: str) -> str:
    """Where the trainer image for a kind of machine lies, without a tag; jobs take its ``:latest``."""
    return f"{region}-docker.pkg.dev/{project}/{REPOSITORY}/{runtime.images[kind]}"


def render_dockerfile(runtime: Runtime, kind: str) -> str:
    """The Dockerfile of a runtime's image for a kind of machine (cpu, gpu, tpu).

    Raises:
        SpecError: there is no recipe for that kind.
    """
    return "\n".join(_lines(runtime, kind, _recipe(runtime, kind))) + "\n"


def _recipe(runtime: Runtime, kind: str) -> Recipe:
    if kind not in runtime.recipes:
        kinds = ", ".join(runtime.recipes)
        on, fix = f"{runtime.name} for {kind}", f"choose one for {kinds}, or another runtime"
        raise SpecError("making the image of", on, "there is no recipe", fix)
    return runtime.recipes[kind]


def _lines(runtime: Runtime, kind: str, recipe: Recipe) -> Iterator[str]:
    pip = "python -m pip install --no-cache-dir --no-deps"
    tensorflow = recipe.tensorflow or f"tensorflow-cpu=={runtime.tensorflow}"
    yield f"# {runtime.images[kind]}: {tensorflow}, the locked packages of {runtime.name} and the launcher."
    yield f"FROM {recipe.base}"
    yield f"ENV PYTHONUNBUFFERED=1 PYTHONPATH={HOME}"
    if not recipe.base.startswith("python:"):
        packages = f"python3-pip python-is-python3 {recipe.packages}".rstrip()
        yield f"RUN apt-get update && apt-get install --yes --no-install-recommends {packages}"
    if kind == "gpu":
        yield "ENV XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/local/cuda"
    yield f"COPY {runtime.lock.name} {HOME}/"
    yield "# The lock names every distribution; some disagree with each other's metadata, so nothing may be resolved."
    yield f"RUN {pip} --require-hashes --requirement {HOME}/{runtime.lock.name}"
    if recipe.tensorflow:
        yield f"RUN python -m pip uninstall --yes tensorflow-cpu && {pip} {recipe.tensorflow}"
    if recipe.libtpu:
        yield f"ADD {recipe.libtpu} /lib/libtpu.so"
    yield f"COPY launcher {HOME}"
    yield 'ENTRYPOINT ["python", "-m", "gcpod_launcher"]'


def context_of(runtime: Runtime, kind: str) -> dict[str, bytes]:
    """All that the image is built of: path (with ``/``) to content.

    Raises:
        SpecError: there is no recipe for that kind.
    """
    content = {"Dockerfile": render_dockerfile(runtime, kind).encode(), runtime.lock.name: runtime.lock.read_bytes()}
    for path in sorted(LAUNCHER.rglob("*.py")):
        content[f"launcher/{path.relative_to(LAUNCHER).as_posix()}"] = path.read_bytes()
    return content


def context_digest(context: Mapping[str, bytes]) -> str:
    """SHA-256 of a context's paths and contents, in hexadecimal."""
    digest = hashlib.sha256()
    for path, content in sorted(context.items()):
        digest.update(f"{len(path)} {len(content)} {path}".encode())
        digest.update(content)
    return digest.hexdigest()


def pack_context(context: Mapping[str, bytes]) -> bytes:
    """A context as .tar.gz: the same files always give the same bytes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in sorted(context.items()):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), compresslevel=6, mtime=0)


def write_context(runtime: Runtime, kind: str, folder: Path) -> list[Path]:
    """Writes the context into a folder, which is made when missing; returns the files.

    Raises:
        SpecError: there is no recipe for that kind.
    """
    content = context_of(runtime, kind)
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return [folder / name for name in content]
