"""`gcpod package` with what a gcpod.yaml says of packages; its check runs in tests/trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gcpod import errors
from gcpod.packaging.build import own_sources
from gcpod.spec import PackagesSpec, Spec

from .archives import write
from .conftest import Checkout

PROJECT = {"mine/pyproject.toml": '[project]\nname = "mine"\nversion = "0.5"\n', "mine/mine/__init__.py": ""}


def test_the_users_sources_are_packed(gcpod: Any, tmp_path: Path, checkout: Checkout) -> None:
    write(tmp_path, {**PROJECT, "gcpod.yaml": f"packages:\n  source: {checkout.models}\n  training: mine\n"})
    first = gcpod("package", "--out", "out", "--json").json
    names = [Path(path).name.split("+")[0] for path in first]
    assert names[:2] == ["object_detection-2.8.0.post1", "slim-0.1"]
    assert names[3:] == ["gcpod_launcher-0.1.0", "mine-0.5"]
    again = gcpod("package", "--out", "again", "--entry", "object_detection.model_main").out
    assert (again.count("mine-0.5+g"), again.count("object_detection-0.1+g")) == (1, 1)


@pytest.mark.parametrize("command", [("package",), ("package", "check")])
@pytest.mark.parametrize("entry", ["", "no module", "a/b.py", "a..b"])
def test_an_entry_point_is_a_module(gcpod: Any, command: tuple[str, ...], entry: str) -> None:
    refused = gcpod(*command, "--entry", entry)
    assert (refused.code, refused.out) == (2, "")
    assert "is no name of a module" in refused.err


@pytest.mark.parametrize(("text", "words"), [
    ("packages:\n  source: absent\n", "absent: there is no such file or folder"),
    ("packages:\n  training: absent\n", "absent: it is no folder"),
    ("packages:\n  training: empty\n", "it has no pyproject.toml"),
])
@pytest.mark.parametrize("command", [("package",), ("package", "check")])
def test_a_wrong_source_ends_in_one_line(
    gcpod: Any, tmp_path: Path, text: str, words: str, command: tuple[str, ...],
) -> None:
    write(tmp_path, {"gcpod.yaml": text, "empty/words.txt": ""})
    done = gcpod(*command)
    assert (done.code, done.out, done.err.count("\n")) == (errors.PackageError.exit_code, "", 1)
    assert words in done.err


def test_paths_start_from_the_folder_of_the_spec(tmp_path: Path) -> None:
    spec = Spec(packages=PackagesSpec("models", ""), folder=tmp_path)
    assert own_sources(spec) == {"source": tmp_path / "models", "training": None}
    assert own_sources(Spec()) == {"source": None, "training": None}
