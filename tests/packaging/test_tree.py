from __future__ import annotations

import gzip
import hashlib
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import PackageError
from gcpod.packaging.tree import MAX_MEMBER_BYTES, list_folder, read_archive, read_files
from tests.data.making import outcome

from .archives import Member, archive, write


def every(path: str) -> bool:
    return True


def test_an_archives_files_come_by_their_path_below_its_top(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", ("t/a.py", b"1"), ("./t/sub/b.txt", b"2"), ("t/c.bin", b"3"), ("alone", b"4"))
    assert read_archive(path, lambda name: name != "c.bin") == {"a.py": b"1", "sub/b.txt": b"2"}


@pytest.mark.parametrize(("member", "found"), [
    (("/etc/passwd", b"x"), "/etc/passwd: it leads out"),
    (("t/a/../../../evil.py", b"x"), "it leads out"),
    (("../evil.py", b"x"), "it leads out"),
    (("t/link", "/etc/passwd"), "it is a link that leads out"),
    (("t/sub/link", "../../x"), "it is a link that leads out"),
    (("t/link", "sub"), "it is a link to 'sub', which is no file of the package"),
    (("t/link", "link"), "it is a link to 'link', which is no file"),
    (("t/link", "absent"), "it is a link to 'absent', which is no file"),
    (("t/new\nline", b"x"), "its name is not printable"),
])
def test_what_an_archive_may_not_hold(tmp_path: Path, member: Member, found: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = archive(folder / "a.tar.gz", ("t/sub/good.py", b"1"), member)
    with pytest.raises(PackageError) as caught:
        read_archive(path, every)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "a.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = archive(tmp_path / "a.tar.gz", ("t/a.py", b""), change=lambda info: setattr(info, "type", kind))
    with pytest.raises(PackageError, match="no regular file"):
        read_archive(path, every)


def test_what_is_not_wanted_may_be_a_link_or_a_device(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.gz", ("t/README", "/etc/passwd"), ("t/a.py", b"1"))
    assert read_archive(path, lambda name: name.endswith(".py")) == {"a.py": b"1"}


def test_links_that_stay_inside_are_the_files_they_lead_to(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "hard.tar.gz", "w:gz") as tar:
        tar.add(write(tmp_path, {"x": "1"}) / "x", "t/a.py")
        hard = tarfile.TarInfo("t/sub/hard.py")
        hard.type, hard.linkname = tarfile.LNKTYPE, "t/a.py"
        tar.addfile(hard)
    assert read_archive(tmp_path / "hard.tar.gz", every) == {"a.py": b"1", "sub/hard.py": b"1"}
    soft = archive(tmp_path / "a.tar.gz", ("t/sub/one.py", "two.py"), ("t/sub/two.py", "../a.py"), ("t/a.py", b"1"))
    assert read_archive(soft, every) == {"a.py": b"1", "sub/one.py": b"1", "sub/two.py": b"1"}


def test_a_huge_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("t/huge.bin")
    info.size = MAX_MEMBER_BYTES + 1
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf()))
    with pytest.raises(PackageError, match="which is too much"):
        read_archive(path, every)


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
            read_archive(path, every)
        assert str(caught.value).startswith(f"E104: reading {path}: ")
        assert "\n" not in str(caught.value)


@given(st.binary(max_size=1500), st.booleans())
def test_any_bytes_are_files_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, zipped: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tar.gz"
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert outcome(lambda: read_archive(path, every)) in ("", "E104")


def test_a_folder_is_listed_without_the_folders_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"a/x.py": "1", "a/b/y.py": "2", "a/.git/config": "3", "v/pyvenv.cfg": "", "v/z.py": "", "w": ""})
    found = list_folder(tmp_path, "", lambda path, names: ".git" not in path and "pyvenv.cfg" not in names)
    assert found == ["a/b/y.py", "a/x.py", "w"]
    assert list_folder(tmp_path, "a/b") == ["a/b/y.py"]
    with pytest.raises(PackageError, match="No such file"):
        list_folder(tmp_path, "absent")


def test_a_folders_links_are_followed_inside_only(tmp_path: Path) -> None:
    root = write(tmp_path / "root", {"a.py": "1", "sub/b.py": "2"})
    (tmp_path / "secret").write_text("x")
    links = {"inside": "sub/b.py", "out": "../secret", "absolute": str(tmp_path / "secret"), "folder": "sub",
             "loop": "loop", "absent": "nowhere"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    assert read_files(root, ["a.py", "inside"]) == {"a.py": b"1", "inside": b"2"}
    found = {"out": "leads out", "absolute": "leads out", "folder": "link to a folder", "loop": "Too many levels",
             "absent": "No such file"}
    for name, words in found.items():
        assert name in list_folder(root, "")
        with pytest.raises(PackageError, match=words):
            read_files(root, [name])


def test_a_folder_may_hold_no_pipe_no_socket_and_no_odd_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in ("pipe", "socket"):
            with pytest.raises(PackageError, match="no regular file"):
                read_files(tmp_path, [name])
    Path("new\nline").write_text("")
    Path(os.fsdecode(b"\xff")).write_text("")
    for name in ("new\nline", os.fsdecode(b"\xff")):
        with pytest.raises(PackageError, match="not printable"):
            read_files(tmp_path, [name])


def test_a_sparse_giant_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "giant").open("wb") as file:
        file.truncate(MAX_MEMBER_BYTES + 1)
    with pytest.raises(PackageError, match="more than 64 MB"):
        read_files(tmp_path, ["giant"])
