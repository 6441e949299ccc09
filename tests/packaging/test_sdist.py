from __future__ import annotations

import gzip
import io
import itertools
import os
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from email.parser import BytesParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from gcpod.packaging.sdist import Sdist, data_of, pack, packages_of

FILES = {
    "demo_pkg/__init__.py": b"VALUE = 1\n",
    "demo_pkg/sub/module.py": b"VALUE = 2\n",
    "demo_pkg/data/words.txt": b"\x00\xff",
    "top_level.py": b"",
}
DEMO = Sdist("demo_pkg", "1.2", FILES, ("some-thing>=1",))
LABELLED = DEMO.labelled()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        return {member.name: member for member in tar}


def test_the_layout_is_that_of_a_source_distribution() -> None:
    found = members(pack(DEMO))
    assert DEMO.filename == "demo_pkg-1.2.tar.gz"
    assert sorted(found) == sorted(f"demo_pkg-1.2/{name}" for name in (*FILES, "PKG-INFO", "setup.py"))
    kinds = {(m.isreg(), m.mode, m.mtime, m.uid, m.gid, m.uname, m.gname) for m in found.values()}
    assert kinds == {(True, 0o644, 315_532_800, 0, 0, "", "")}


def test_the_metadata_is_what_pip_reads() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(DEMO)), mode="r:gz") as tar:
        file = tar.extractfile("demo_pkg-1.2/PKG-INFO")
        assert file is not None
        metadata = BytesParser().parsebytes(file.read())
    assert dict(metadata.items()) == {
        "Metadata-Version": "2.1", "Name": "demo_pkg", "Version": "1.2", "Requires-Dist": "some-thing>=1",
    }


def test_the_same_files_give_the_same_bytes_whatever_the_order_and_the_umask() -> None:
    data = pack(DEMO)
    old = os.umask(0o077)
    try:
        for items in itertools.permutations(FILES.items()):
            assert pack(Sdist("demo_pkg", "1.2", dict(items), ("some-thing>=1",))) == data
    finally:
        os.umask(old)


PACK_LATER = """
import hashlib
from gcpod.packaging.sdist import Sdist, pack
print(hashlib.sha256(pack(Sdist("p", "1", {"p/a.py": b"x" * 1000, "p/b.txt": b"y"}))).hexdigest())
"""


def test_the_same_files_give_the_same_bytes_in_another_process() -> None:
    seen = {
        subprocess.run([sys.executable, "-c", PACK_LATER], capture_output=True, text=True, check=True,
                       env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(seen) == 1


def test_the_time_of_packing_is_not_in_the_file() -> None:
    data = pack(DEMO)
    assert int.from_bytes(data[4:8], "little") == 315_532_800
    assert gzip.decompress(data)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,3}\.(py|txt)", fullmatch=True), st.binary()))
def test_every_file_comes_back(files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(Sdist("p", "1", files))), mode="r:gz") as tar:
        found = {m.name.removeprefix("p-1/"): f.read() for m in tar if (f := tar.extractfile(m)) is not None}
    wanted = {**files, "setup.py": found["setup.py"], "PKG-INFO": found["PKG-INFO"]}
    assert found == wanted


def test_the_label_changes_with_everything_that_is_packed() -> None:
    labelled = DEMO.labelled()
    assert re.fullmatch(r"1\.2\+g[0-9a-f]{12}", labelled.version)
    assert labelled.filename == f"demo_pkg-{labelled.version}.tar.gz"
    assert str(Version(labelled.version)) == labelled.version
    assert replace(DEMO, version="1.2+cpu").labelled().version.startswith("1.2+cpu.g")
    others = [
        replace(DEMO, name="demo_pkh"), replace(DEMO, version="1.3"), replace(DEMO, requires=()),
        replace(DEMO, files={**FILES, "top_level.py": b" "}), replace(DEMO, files={**FILES, "new.txt": b""}),
        replace(DEMO, files={path: FILES[path] for path in list(FILES)[1:]}),
    ]
    assert len({one.labelled().version.split("+")[1] for one in (DEMO, *others)}) == len(others) + 1
    backwards = replace(DEMO, files=dict(reversed(FILES.items())))
    assert backwards.labelled() == labelled


def test_a_package_may_not_bring_its_own_setup() -> None:
    data = pack(replace(DEMO, files={**FILES, "setup.py": b"raise SystemExit", "PKG-INFO": b""}))
    assert data == pack(DEMO)


def test_data_belongs_to_the_nearest_package() -> None:
    paths = ["a/__init__.py", "a/data/x.txt", "a/b/c.py", "a/b/y[1].bin", "a/b/d/z", "loose.txt", "no/module.txt"]
    assert data_of(paths) == {"a": ["data/x.txt"], "a.b": ["d/z", "y[[]1].bin"]}


def test_packages_are_the_folders_that_hold_modules() -> None:
    assert packages_of(["a/__init__.py", "a/b/c.py", "a/b/d/e.txt", "top.py", "f/g.py"]) == ["a", "a.b", "f"]
    assert packages_of([]) == []


@pytest.mark.long
def test_pip_installs_it(tmp_path: Path) -> None:
    archive = tmp_path / LABELLED.filename
    archive.write_bytes(pack(LABELLED))
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
           "--no-build-isolation", "--no-compile", "--target", str(target), str(archive)]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    installed = {path.relative_to(target).as_posix() for path in target.rglob("*") if "dist-info" not in str(path)}
    assert installed == {*FILES, "demo_pkg", "demo_pkg/sub", "demo_pkg/data"}
    read = "import demo_pkg, demo_pkg.sub.module as m, top_level; print(demo_pkg.VALUE, m.VALUE)"
    done = subprocess.run([sys.executable, "-c", read], cwd=target, capture_output=True, text=True, check=True)
    assert done.stdout == "1 2\n"
