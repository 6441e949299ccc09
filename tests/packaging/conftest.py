"""A checkout in the shape of tensorflow/models, and its packages."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

from gcpod.packaging.protos import SUFFIX, modernise

from .checkout import make_checkout, pinned_trees


@dataclass(frozen=True)
class Checkout:
    """A checkout and what it was made of.

    Attributes:
        models: its top folder.
        modules: the pinned archive's generated modules in today's form, by their path.
    """

    models: Path
    modules: dict[str, str]

    @property
    def research(self) -> Path:
        return self.models / "research"


def descriptor_in(module: str) -> bytes:
    """The serialized descriptor in a module of today's form."""
    [call] = [node for node in ast.walk(ast.parse(module))
              if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("AddSerializedFile")]
    value = ast.literal_eval(call.args[0])
    assert isinstance(value, bytes)
    return value


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Made once; tests only read it, as gcpod does."""
    trees = pinned_trees()
    old = {path: data.decode() for path, data in trees["object_detection"].items() if path.endswith(SUFFIX)}
    modules = {path: modernise(text, path) for path, text in old.items()}
    models = tmp_path_factory.mktemp("checkout") / "models"
    make_checkout(models, {path: descriptor_in(module) for path, module in modules.items()}, trees)
    return Checkout(models, modules)
