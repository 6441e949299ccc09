from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from gcpod_launcher.packages import unpack

from gcpod.packaging.sdist import Sdist, pack
from gcpod.runtimes import LAUNCHER
from tests.packaging.archives import archive as tar


def wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name in names:
            out.writestr(name, b"VALUE = 1\n")
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def outside(tmp_path: Path, target: Path) -> set[str]:
    return {path.name for path in tmp_path.rglob("*") if path != target and not path.is_relative_to(target)}


def test_an_sdist_is_unpacked_to_the_folder_of_its_modules(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "pkg-1.tar.gz"
    archive.write_bytes(pack(Sdist("pkg", "1", {"pkg/__init__.py": b"VALUE = 7\n"})))
    folder = unpack(archive, target)
    assert folder == target / "pkg-1"
    assert (folder / "pkg" / "__init__.py").read_bytes() == b"VALUE = 7\n"


def test_a_name_that_carries_a_digest_is_unpacked_like_any_other(tmp_path: Path, target: Path) -> None:
    labelled = Sdist("pkg", "1", {"pkg/__init__.py": b""}).labelled()
    (tmp_path / labelled.filename).write_bytes(pack(labelled))
    assert unpack(tmp_path / labelled.filename, target) == target / f"pkg-{labelled.version}"


def test_a_wheel_is_unpacked_as_it_is(tmp_path: Path, target: Path) -> None:
    assert unpack(wheel(tmp_path / "a-1-py3-none-any.whl", "a/__init__.py", "a-1.dist-info/METADATA"), target) == target
    assert (target / "a" / "__init__.py").is_file()


def test_an_archive_of_several_tops_is_its_own_folder(tmp_path: Path, target: Path) -> None:
    assert unpack(tar(tmp_path / "a.tar.gz", ("a/x.py", b""), ("b/y.py", b"")), target) == target


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/gcpod-evil.py", "a/../../evil.py", "a/../../../../../evil.py"])
def test_a_member_that_leads_outside_ends_the_job(tmp_path: Path, target: Path, name: str) -> None:
    archives = [tar(tmp_path / "a.tar.gz", ("a/x.py", b""), (name, b"evil")), wheel(tmp_path / "a.whl", "a/x.py", name)]
    for archive in archives:
        with pytest.raises(SystemExit) as stop:
            unpack(archive, target)
        assert f"its member {name!r} leads outside" in str(stop.value.code)
        assert "\n" not in str(stop.value.code)
    assert outside(tmp_path, target) == {"a.tar.gz", "a.whl"}
    assert list(target.iterdir()) == []


def test_links_are_not_unpacked(tmp_path: Path, target: Path) -> None:
    (tmp_path / "out").mkdir()
    archive = tar(tmp_path / "a.tar.gz", ("a/link", str(tmp_path / "out")), ("a/link/evil.py", b"x"), ("a/ok.py", b"1"))
    folder = unpack(archive, target)
    assert not (folder / "link").is_symlink()
    assert list((tmp_path / "out").iterdir()) == []
    assert (folder / "ok.py").read_bytes() == b"1"


def test_a_damaged_archive_ends_the_job_with_one_line(tmp_path: Path, target: Path) -> None:
    whole = tar(tmp_path / "whole.tar.gz", ("a/x.py", bytes(range(256)) * 100)).read_bytes()
    for name, data in (("a.tar.gz", whole[:60]), ("b.tar.gz", b""), ("c.tar.gz", b"text"), ("d.whl", b"text")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SystemExit) as stop:
            unpack(tmp_path / name, target)
        assert str(stop.value.code).startswith(f"gcpod_launcher: unpacking {tmp_path / name}: ")
        assert "gcpod upload" in str(stop.value.code)


TENSORFLOW = """
import shutil
class _Files:
    @staticmethod
    def copy(source, target, overwrite):
        try:
            shutil.copy(source, target)
        except OSError as e:
            raise errors.OpError(e.strerror)
class io:
    gfile = _Files
class errors:
    class OpError(Exception):
        @property
        def message(self):
            return self.args[0]
"""
PUT_ON_PATH = """
import sys
from pathlib import Path
from gcpod_launcher.packages import put_on_path
put_on_path(sys.argv[2:], Path(sys.argv[1]))
import pkg
print(pkg.VALUE)
"""


def put_on_path(tmp_path: Path, *uris: Path) -> subprocess.CompletedProcess[str]:
    """Runs it in a process whose TensorFlow can do nothing but copy files."""
    (tmp_path / "tf").mkdir()
    (tmp_path / "tf" / "tensorflow.py").write_text(TENSORFLOW)
    (tmp_path / "work").mkdir()
    path = f"{LAUNCHER}:{tmp_path / 'tf'}"
    return subprocess.run([sys.executable, "-c", PUT_ON_PATH, str(tmp_path / "work"), *map(str, uris)],
                          env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False)


def test_the_first_package_wins(tmp_path: Path) -> None:
    made = [Sdist(name, "1", {"pkg/__init__.py": b"VALUE = %d\n" % value}).labelled()
            for value, name in enumerate(("one", "two"), start=1)]
    for one in made:
        (tmp_path / one.filename).write_bytes(pack(one))
    done = put_on_path(tmp_path, *(tmp_path / one.filename for one in made))
    assert done.stdout.splitlines()[-1] == "1", done.stderr
    assert done.stdout.count("is on the import path") == 2


def test_a_package_that_is_not_there_ends_the_job_with_one_line(tmp_path: Path) -> None:
    done = put_on_path(tmp_path, tmp_path / "missing.tar.gz")
    assert done.returncode == 1
    assert done.stderr == (
        f"gcpod_launcher: fetching {tmp_path / 'missing.tar.gz'}: No such file or directory; "
        "upload the packages again with `gcpod upload`\n"
    )
