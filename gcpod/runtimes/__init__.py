"""Runtimes as data: images, Python versions, locked requirements, the sources to package, and the launcher.

Read by the client (which image, which packages) and by the local cloud (which virtual environment).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from gcpod.errors import SpecError

FOLDER = Path(__file__).parent
LAUNCHER = FOLDER / "launcher"
"""Put on a job's import path; holds the package gcpod_launcher."""


@dataclass(frozen=True)
class Source:
    """A source distribution of the Python package index, pinned by its digest."""

    requirement: str
    filename: str
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """How a trainer image is made.

    Attributes:
        base: image that it starts from.
        python: version of the Python in it.
        packages: of its system, which the job needs beside what the base has.
        tensorflow: requirement or address of a wheel in place of the lock's tensorflow-cpu; "" keeps that.
        libtpu: address of the TPU's driver; "" where there is no TPU.
    """

    base: str
    python: str
    packages: str = ""
    tensorflow: str = ""
    libtpu: str = ""


@dataclass(frozen=True)
class Runtime:
    """What jobs run in.

    Attributes:
        pythons: versions the locked requirements install on, best first.
        images: repository name of the trainer image by kind of machine (cpu, gpu, tpu).
        recipes: how an image is made, for the kinds of machine that there is one for.
        prebuilt: Google's own image by kind of machine, for Python-package mode.
        platforms: wheel platform tags that the images' system accepts.
    """

    name: str
    tensorflow: str
    good_for: str
    pythons: tuple[str, ...]
    lock: Path
    images: dict[str, str]
    recipes: dict[str, Recipe]
    prebuilt: dict[str, str]
    prebuilt_python: str
    object_detection: Source
    pycocotools: str
    platforms: tuple[str, ...]


def _runtime(name: str, raw: dict[str, Any]) -> Runtime:
    fields = dict(raw)
    fields["lock"] = FOLDER / fields["lock"]
    fields["pythons"], fields["platforms"] = tuple(fields["pythons"]), tuple(fields["platforms"])
    fields["recipes"] = {kind: Recipe(**recipe) for kind, recipe in fields["recipes"].items()}
    fields["object_detection"] = Source(**fields["object_detection"])
    return Runtime(name=name, **fields)


@lru_cache
def all_runtimes() -> dict[str, Runtime]:
    """Every runtime of runtimes.yaml by name."""
    raw = yaml.safe_load((FOLDER / "runtimes.yaml").read_text(encoding="utf-8"))
    return {name: _runtime(name, fields) for name, fields in raw["runtimes"].items()}


def find_runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        SpecError: there is none.
    """
    known = all_runtimes()
    if name not in known:
        raise SpecError("choosing the runtime", name, "it is not known", f"use one of: {', '.join(known)}")
    return known[name]


def image_python(runtime: Runtime, image_uri: str) -> str:
    """The version of Python inside an image: that of a trainer image's recipe, else of Google's."""
    kind = next((kind for kind, name in runtime.images.items() if name == _repository(image_uri)), None)
    if kind is None:
        return runtime.prebuilt_python
    return runtime.recipes[kind].python if kind in runtime.recipes else runtime.pythons[0]


def image_pythons(runtime: Runtime, image_uri: str) -> tuple[str, ...]:
    """The versions of Python that can stand for an image, its own first."""
    own = image_python(runtime, image_uri)
    trainer = _repository(image_uri) in runtime.images.values()
    return (own, *(v for v in runtime.pythons if v != own)) if trainer else (own,)


def _repository(image_uri: str) -> str:
    return image_uri.split("@", 1)[0].rsplit("/", 1)[-1].split(":", 1)[0]


def runtime_of_image(image_uri: str) -> Runtime | None:
    """The runtime whose trainer or prebuilt image a URI names, whatever its registry, tag or digest."""
    repository = _repository(image_uri)
    for runtime in all_runtimes().values():
        if repository in {*map(_repository, runtime.prebuilt.values()), *runtime.images.values()}:
            return runtime
    return None
