from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.errors import PackageError
from gcpod.packaging.source import download, fetch_pycocotools, fetch_source, put_in_place
from gcpod.runtimes import Source, find_runtime

CONTENT = b"a source distribution"
SOURCE = Source("some-thing==1.0", "some_thing-1.0.tar.gz", hashlib.sha256(CONTENT).hexdigest())


class Pip:
    """Stands for pip: writes the files it is told to, and remembers how it was called."""

    def __init__(self, files: dict[str, bytes], code: int = 0, stderr: str = "") -> None:
        self.files, self.code, self.stderr = files, code, stderr
        self.calls: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(command))
        folder = Path(command[command.index("--dest") + 1])
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return subprocess.CompletedProcess(list(command), self.code, "", self.stderr)


def test_a_source_is_downloaded_once(tmp_path: Path) -> None:
    pip = Pip({SOURCE.filename: CONTENT})
    first = fetch_source(SOURCE, tmp_path, pip)
    assert first == fetch_source(SOURCE, tmp_path, pip) == tmp_path / "downloads" / SOURCE.filename
    assert first.read_bytes() == CONTENT
    [call] = pip.calls
    assert call[1:4] == ["-m", "pip", "download"]
    assert call[-3:] == ["--no-binary", ":all:", SOURCE.requirement]
    assert "--no-deps" in call
    assert [path.name for path in (tmp_path / "downloads").iterdir()] == [SOURCE.filename]


def test_the_name_that_the_index_gives_does_not_matter(tmp_path: Path) -> None:
    path = fetch_source(SOURCE, tmp_path, Pip({"some-thing-1.0.tar.gz": CONTENT}))
    assert path.name == SOURCE.filename


def test_a_file_of_another_digest_is_removed_and_refused(tmp_path: Path) -> None:
    pip = Pip({SOURCE.filename: b"something else"})
    with pytest.raises(PackageError, match="do not trust the index") as caught:
        fetch_source(SOURCE, tmp_path, pip)
    assert SOURCE.sha256 in caught.value.found
    assert list((tmp_path / "downloads").iterdir()) == []
    pip.files = {SOURCE.filename: CONTENT}
    assert fetch_source(SOURCE, tmp_path, pip).read_bytes() == CONTENT


def test_a_cached_file_is_checked_too(tmp_path: Path) -> None:
    path = fetch_source(SOURCE, tmp_path, Pip({SOURCE.filename: CONTENT}))
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(PackageError, match="SHA-256"):
        fetch_source(SOURCE, tmp_path, Pip({}))
    assert not path.exists()


@pytest.mark.parametrize(("pip", "words"), [
    (Pip({}, 1, "WARNING: x\nERROR: Could not find a version\nERROR: more\n"), "Could not find a version"),
    (Pip({}, 1), "pip brought no file"),
    (Pip({}, 1, "/usr/bin/python3: No module named pip\n"), "this Python has no pip; `python -m ensurepip` brings it"),
    (Pip({}), "pip brought no file"),
    (Pip({"a.tar.gz": b"", "b.tar.gz": b""}), "pip brought no file"),
    (Pip({"a.tar.gz": b""}, 2, "ERROR: disk\n"), "disk"),
])
def test_a_failing_pip_is_an_error_of_one_line(tmp_path: Path, pip: Pip, words: str) -> None:
    with pytest.raises(PackageError) as caught:
        fetch_source(SOURCE, tmp_path, pip)
    assert str(caught.value).startswith(f"E104: downloading {SOURCE.requirement}: {words};")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 6
    assert list((tmp_path / "downloads").iterdir()) == []


def test_pycocotools_comes_as_a_wheel_for_the_jobs_python(tmp_path: Path) -> None:
    runtime = replace(find_runtime("tf2.12"), pycocotools="pycocotools==9.9")
    name = "pycocotools-9.9-cp310-cp310-manylinux_2_17_x86_64.whl"
    pip = Pip({name: CONTENT})
    path = fetch_pycocotools(runtime, "3.10", tmp_path, pip)
    assert path == fetch_pycocotools(runtime, "3.10", tmp_path, pip) == tmp_path / "downloads" / name
    [call] = pip.calls
    assert call[call.index("--python-version") + 1] == "3.10"
    assert call[call.index("--only-binary") + 1] == ":all:"
    assert call.count("--platform") == len(runtime.platforms)
    pip.files = {name.replace("cp310", "cp311"): CONTENT}
    assert "cp311" in fetch_pycocotools(runtime, "3.11", tmp_path, pip).name


def test_a_download_keeps_the_name_that_pip_chose_for_a_folder(tmp_path: Path) -> None:
    assert download(["x"], tmp_path / "new", Pip({"x-1.whl": b""})) == tmp_path / "new" / "x-1.whl"


def test_of_two_that_made_a_folder_one_wins(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
        put_in_place(tmp_path / name, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "two"]
    with pytest.raises(OSError):
        put_in_place(tmp_path / "two", tmp_path / "absent" / "folder")
