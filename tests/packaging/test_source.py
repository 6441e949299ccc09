from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.errors import PackageError
from gcpod.packaging.source import MAX_MEMBER_BYTES, download, fetch_pycocotools, fetch_source, read_tree
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


Member = tuple[str, bytes | str]
"""A name with a file's content, or with what a link leads to."""


def archive(path: Path, *members: Member, change: Callable[[tarfile.TarInfo], object] = lambda _: None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                change(info)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_files_below_the_named_folders_are_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", ("t/od/a.py", b"1"), ("t/od/sub/b.txt", b"2"), ("t/slim/c.py", b"3"),
                   ("t/other/d.py", b"4"), ("t/setup.py", b"5"), ("od/x.py", b"6"))
    assert read_tree(path, ("od", "slim")) == {
        "od": {"od/a.py": b"1", "od/sub/b.txt": b"2"}, "slim": {"slim/c.py": b"3"},
    }


def test_hostile_members_are_passed_over_and_nothing_is_written(tmp_path: Path) -> None:
    hostile: list[Member] = [
        ("/etc/od/passwd", b"x"), ("t/od/../../../evil.py", b"x"), ("../od/evil.py", b"x"),
        ("t/od/link", "/etc/passwd"), ("t/od/up", "../.."), ("t/od/up/evil.py", b"x"), ("t/od/good.py", b"1"),
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    path = archive(folder / "a.tar.gz", *hostile)
    [tree] = read_tree(path, ("od",)).values()
    assert tree["od/good.py"] == b"1"
    assert all(not name.startswith("/") and ".." not in name for name in tree)
    assert "od/link" not in tree
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "a.tar.gz"]


def test_a_huge_member_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("t/od/huge.bin")
    info.size = MAX_MEMBER_BYTES + 1
    small = tarfile.TarInfo("t/od/small.py")
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as f:
        f.write(small.tobuf() + info.tobuf())
        for _ in range(65):
            f.write(b"\0" * (1 << 20))
    assert read_tree(path, ("od",)) == {"od": {"od/small.py": b""}}


def damaged(data: bytes) -> list[bytes]:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    return [data[: len(data) // 2], data[:20], bytes(flipped), b"", b"no archive", gzip.compress(b"no tar")]


def test_a_damaged_archive_is_an_error_of_one_line(tmp_path: Path) -> None:
    noise = hashlib.shake_128(b"seed").digest(50_000)
    whole = archive(tmp_path / "a.tar.gz", ("t/od/a.py", b"1"), ("t/od/b.bin", noise)).read_bytes()
    for number, data in enumerate(damaged(whole)):
        path = tmp_path / f"{number}.tar.gz"
        path.write_bytes(data)
        with pytest.raises(PackageError) as caught:
            read_tree(path, ("od",))
        assert str(caught.value).startswith(f"E104: reading {path}: ")
        assert "\n" not in str(caught.value)


def test_an_archive_that_lacks_a_folder_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", ("t/od/a.py", b"1"))
    with pytest.raises(PackageError, match="it holds no folder slim"):
        read_tree(path, ("od", "slim"))
    with pytest.raises(PackageError, match="No such file"):
        read_tree(tmp_path / "no.tar.gz", ("od",))
