"""Local trees as they would go to a bucket: what is taken, what is refused, and a download that goes up again."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpod.errors import StorageError
from gcpod.storage.names import (
    DAMAGED,
    MAX_NAME_BYTES,
    NAMES_FOLDER,
    REFUSED,
    SIDECAR,
    TRANSFER_FOLDER,
    local_paths,
    render_sidecar,
)
from gcpod.storage.tree import UNFIT, Symlinks, TreeFile, scan_tree

from .test_names import legal_names


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def names_of(found: list[TreeFile]) -> list[str]:
    return [file.name for file in found]


def refusal(root: Path, symlinks: Symlinks = "refuse", prefix: str = "") -> StorageError:
    with pytest.raises(StorageError) as caught:
        scan_tree(root, symlinks, prefix)
    return caught.value


def test_files_in_the_order_of_a_listing(tmp_path: Path) -> None:
    put(tmp_path, "a b/é.txt", "a.txt", "a/x", "B", "𝄞", "\uffff", "#?[*]", "back\\slash", ".hidden")
    (tmp_path / "empty").mkdir()
    found = scan_tree(tmp_path)
    assert names_of(found) == sorted(names_of(found), key=str.encode)
    assert len(found) == 9
    for file in found:
        about = file.path.stat()
        assert file == TreeFile(
            tmp_path / file.name, file.name, about.st_size, about.st_mtime_ns, about.st_ino, about.st_ctime_ns)
        assert file.path.read_text() == file.name


def test_a_single_file_and_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "in/one.txt")
    monkeypatch.chdir(tmp_path)
    for root in (Path("in/one.txt"), tmp_path / "in/one.txt", Path("in")):
        (file,) = scan_tree(root)
        assert (file.path, file.name, file.size) == (tmp_path / "in/one.txt", "one.txt", 10)


@pytest.mark.parametrize("root", ["missing", "a.txt/below", "nul\0"])
def test_a_root_that_is_not_there(tmp_path: Path, root: str) -> None:
    put(tmp_path, "a.txt")
    assert refusal(tmp_path / root).code == UNFIT


def test_links_by_policy(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    put(tree, "real/a.txt")
    put(outside, "secret.txt", "more/b.txt")
    (tree / "z-file").symlink_to(outside / "secret.txt")
    (tree / "folder").symlink_to(outside / "more")
    error = refusal(tree)
    assert (error.code, error.on) == (UNFIT, str(tree / "folder"))
    assert "follow" in error.fix
    assert "skip" in error.fix
    assert names_of(scan_tree(tree, "skip")) == ["real/a.txt"]
    followed = scan_tree(tree, "follow")
    assert names_of(followed) == ["folder/b.txt", "real/a.txt", "z-file"]
    assert [file.size for file in followed] == [10, 10, 10]
    (tmp_path / "root").symlink_to(tree / "real")
    assert names_of(scan_tree(tmp_path / "root")) == ["a.txt"]


@pytest.mark.parametrize(
    ("link", "target"), [("loop", "."), ("in/up", "../.."), ("in/deep/up", ".."), ("self", "self")],
)
def test_a_loop_of_links_ends(tmp_path: Path, link: str, target: str) -> None:
    put(tmp_path, "tree/in/deep/a.txt")
    (tmp_path / "tree" / link).symlink_to(target)
    error = refusal(tmp_path / "tree", "follow")
    assert error.code == UNFIT
    assert link.rsplit("/", maxsplit=1)[-1] in error.on
    assert names_of(scan_tree(tmp_path / "tree", "skip")) == ["in/deep/a.txt"]


def test_the_same_folder_by_two_links_is_no_loop(tmp_path: Path) -> None:
    put(tmp_path, "tree/real/a")
    for name in ("one", "two"):
        (tmp_path / "tree" / name).symlink_to("real")
    assert names_of(scan_tree(tmp_path / "tree", "follow")) == ["one/a", "real/a", "two/a"]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize(("make", "kind", "symlinks"), [
    (_pipe, "it is a pipe", "skip"), (_socket, "it is a socket", "refuse"),
    (lambda path: path.symlink_to("/dev/null"), "it is a device", "follow"),
    (lambda path: path.symlink_to("nowhere"), "it is a link that leads nowhere", "follow"),
])
def test_what_is_no_file_is_refused(
    tmp_path: Path, make: Callable[[Path], None], kind: str, symlinks: Symlinks,
) -> None:
    put(tmp_path, "a", "sub/b")
    make(tmp_path / "sub" / "odd")
    error = refusal(tmp_path, symlinks)
    assert (error.code, error.on) == (UNFIT, str(tmp_path / "sub/odd"))
    assert error.found.startswith(kind)


def test_a_device_is_no_tree() -> None:
    assert "a device" in refusal(Path("/dev/null")).found


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=place)
        deeper = os.open("x" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = deeper
    os.close(place)
    error = refusal(tmp_path)
    assert (error.code, error.found) == (UNFIT, "File name too long")


@pytest.mark.parametrize("name", [b"line\nbreak", b"latin-\xe9.jpg"])
def test_names_that_no_object_may_have_are_found_before_anything_else_happens(tmp_path: Path, name: bytes) -> None:
    put(tmp_path, "a", "z")
    (tmp_path / os.fsdecode(name)).touch()
    assert refusal(tmp_path).code == REFUSED


def test_names_are_checked_with_their_prefix(tmp_path: Path) -> None:
    put(tmp_path, "x" * 200, "acme-challenge/token")
    assert len(scan_tree(tmp_path, prefix="p" * 800)) == 2
    assert refusal(tmp_path, prefix="p" * 1000).code == REFUSED
    assert refusal(tmp_path, prefix=".well-known/").code == REFUSED


def test_downloads_under_way_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "a", f"{TRANSFER_FOLDER}/half", f"sub/{TRANSFER_FOLDER}/half", f"sub/{TRANSFER_FOLDER}-not")
    assert names_of(scan_tree(tmp_path)) == ["a", f"sub/{TRANSFER_FOLDER}-not"]


def downloaded(root: Path, names: list[str]) -> dict[str, str]:
    paths = local_paths(names)
    put(root, *paths.values())
    sidecar = render_sidecar({path: name for name, path in paths.items()})
    if sidecar:
        (root / SIDECAR).write_text(sidecar, encoding="utf-8")
    return paths


@settings(max_examples=60, deadline=None)
@given(st.lists(legal_names.filter(lambda name: len(f"p/{name}".encode()) <= MAX_NAME_BYTES), max_size=8, unique=True))
def test_a_downloaded_tree_goes_up_under_its_old_names(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = downloaded(Path(folder), names)
        found = scan_tree(Path(folder), prefix="p/")
        assert {file.name: file.path.read_text() for file in found} == paths
        assert names_of(found) == sorted(paths)


def test_downloads_below_a_folder_keep_their_names_too(tmp_path: Path) -> None:
    downloaded(tmp_path / "one", ["a//b", "c"])
    downloaded(tmp_path / "two", ["../b", "c"])
    assert names_of(scan_tree(tmp_path)) == ["one/a//b", "one/c", "two/../b", "two/c"]


def test_a_file_whose_name_got_lost_is_not_sent_under_a_wrong_one(tmp_path: Path) -> None:
    paths = downloaded(tmp_path, ["a//b", "c"])
    (tmp_path / SIDECAR).unlink()
    error = refusal(tmp_path)
    assert (error.code, error.on) == (UNFIT, str(tmp_path / paths["a//b"]))
    (tmp_path / SIDECAR).write_text('{"..": "x"}')
    assert refusal(tmp_path).code == DAMAGED
    (tmp_path / SIDECAR).unlink()
    (tmp_path / SIDECAR).mkdir()
    put(tmp_path, f"{SIDECAR}/x")
    assert NAMES_FOLDER in refusal(tmp_path).on


def test_two_files_for_one_object_are_refused(tmp_path: Path) -> None:
    paths = downloaded(tmp_path, ["a", "a/b"])
    (tmp_path / "a/b").unlink()
    (tmp_path / "a").rmdir()
    put(tmp_path, "a")
    error = refusal(tmp_path)
    assert error.code == UNFIT
    assert {error.on, error.found.split()[0]} == {str(tmp_path / "a"), str(tmp_path / paths["a"])}
