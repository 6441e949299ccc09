from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gcpod.errors import PackageError
from gcpod.packaging.project import read_project
from gcpod.packaging.sdist import pack

from .archives import write

PYPROJECT = '[project]\nname = "trainer"\nversion = "1.0"\ndependencies = ["numpy"]\n'
PACKAGE = {"pyproject.toml": PYPROJECT, "trainer/__init__.py": "x = 1\n", "trainer/data/words.txt": "one two"}
LEFTOVERS = {
    ".git/config": "x", "trainer/__pycache__/a.cpython-311.pyc": "x", "trainer/a.pyc": "x", "dist/t-1.0.tar.gz": "x",
    "build/lib/trainer/__init__.py": "", ".venv/lib/x.py": "x", "env/pyvenv.cfg": "", "env/lib/y.py": "x",
    "trainer.egg-info/PKG-INFO": "x", ".tox/z.py": "x", "trainer/.ipynb_checkpoints/c.py": "x", "trainer/b.py~": "x",
    "trainer/.DS_Store": "x",
}


def packed(folder: Path) -> set[str]:
    return set(read_project(folder).sdist.files)


def test_a_plain_project(tmp_path: Path) -> None:
    project = read_project(write(tmp_path, PACKAGE))
    assert (project.sdist.name, project.sdist.version, project.sdist.requires) == ("trainer", "1.0", ("numpy",))
    assert project.sdist.files == {"trainer/__init__.py": b"x = 1\n", "trainer/data/words.txt": b"one two"}
    assert not project.computed_requires


@pytest.mark.parametrize(("files", "expected"), [
    ({"src/a/__init__.py": "", "src/a/b/c.json": "", "tests/__init__.py": "", "loose.py": "", "src/b.py": ""},
     {"a/__init__.py", "a/b/c.json", "b.py"}),
    ({"a/__init__.py": "", "tests/__init__.py": "", "docs/conf.py": "", "data/big.csv": "", "train.py": "",
      "c/d.py": ""}, {"a/__init__.py"}),
    ({"a/b/c.py": "", "examples/e.py": "", "_private/x.py": ""}, {"a/b/c.py"}),
    ({"train.py": "", "model.py": "", "conftest.py": "", "setup.py": "", "words.txt": ""}, {"train.py", "model.py"}),
    ({"lib/utils/__init__.py": "", "lib/one.py": "", "a/__init__.py": "", "pyproject.toml":
      PYPROJECT + "[tool.setuptools.packages.find]\nwhere = ['lib']"}, {"utils/__init__.py", "one.py"}),
    ({"a/build/x.py": "", "a/dist/y.py": "", "a/__init__.py": ""}, {"a/build/x.py", "a/dist/y.py", "a/__init__.py"}),
])
def test_what_is_packed_of_each_layout(tmp_path: Path, files: dict[str, str], expected: set[str]) -> None:
    assert packed(write(tmp_path, {"pyproject.toml": PYPROJECT, **files})) == expected


def test_leftovers_are_not_packed_and_change_nothing(tmp_path: Path) -> None:
    clean = read_project(write(tmp_path / "clean", PACKAGE))
    assert read_project(write(tmp_path / "used", {**LEFTOVERS, **PACKAGE})) == clean


def test_the_same_project_gives_the_same_bytes_wherever_and_whenever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    digests = set()
    for number, (mask, zone) in enumerate(((0o022, "UTC"), (0o077, "Asia/Tokyo"))):
        monkeypatch.setenv("TZ", zone)
        old = os.umask(mask)
        try:
            items = list(PACKAGE.items())
            folder = write(tmp_path / f"place-{number}", dict(items if number else reversed(items)))
        finally:
            os.umask(old)
        for path in folder.rglob("*"):
            os.utime(path, (number * 1e9, number * 1e9))
        digests.add(hashlib.sha256(pack(read_project(folder).sdist.labelled())).hexdigest())
    assert len(digests) == 1


def test_a_project_is_only_read_and_none_of_it_runs(tmp_path: Path) -> None:
    text = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom setuptools import setup\nsetup(name='t', version='1')\n"
    folder = write(tmp_path / "project", {"setup.py": text, "t/__init__.py": text, "setup.cfg": "[metadata]\n"})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert packed(folder) == {"t/__init__.py"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(("files", "found"), [
    ({"README.md": ""}, "it holds no package to import"),
    ({"src/data.txt": ""}, "it holds no package to import"),
    ({"a/__init__.py": "", "a/fast.pyx": ""}, "a/fast.pyx has to be compiled"),
    ({"nets/__init__.py": ""}, "its nets has the name of what object_detection or slim brings"),
    ({"src/datasets.py": ""}, "its datasets has the name of what object_detection or slim brings"),
    ({"slim/__init__.py": "", "pyproject.toml": '[project]\nname = "Slim"\nversion = "1"'},
     "a package of its name, slim"),
    ({"a/__init__.py": "", "pyproject.toml": '[project]\nname = "a"\ndynamic = ["version"]\n'
      '[tool.setuptools.dynamic]\nversion = {file = "../secret"}'}, "its version is not written down"),
])
def test_what_cannot_be_packed_is_an_error_of_one_line(tmp_path: Path, files: dict[str, str], found: str) -> None:
    (tmp_path / "secret").write_text("1.0")
    with pytest.raises(PackageError) as caught:
        read_project(write(tmp_path / "project", {"pyproject.toml": PYPROJECT, **files}))
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_and_pipes_count_only_where_they_would_be_packed(tmp_path: Path) -> None:
    folder = write(tmp_path / "project", PACKAGE)
    (tmp_path / "secret").write_text("x")
    os.mkfifo(folder / "pipe")
    (folder / "out").symlink_to(tmp_path / "secret")
    assert packed(folder) == {"trainer/__init__.py", "trainer/data/words.txt"}
    (folder / "trainer" / "inside").symlink_to("data/words.txt")
    assert read_project(folder).sdist.files["trainer/inside"] == b"one two"
    (folder / "trainer" / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(PackageError, match=r"trainer/out: it is a link that leads out"):
        read_project(folder)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="it is no folder"):
        read_project(write(tmp_path, {"file": ""}) / "file")
