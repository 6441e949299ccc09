"""Object names as paths: confined, each its own, and known again by the sidecar."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import StorageError
from gcpod.storage.names import (
    DAMAGED,
    NAMES_FOLDER,
    REFUSED,
    SIDECAR,
    TRANSFER_FOLDER,
    check_name,
    local_paths,
    parse_sidecar,
    render_sidecar,
)

ODD_SEGMENTS = ("", ".", "..", "a", "b", "A", "a b", "é", "𝄞", "#?", "[*]", "back\\slash", "C:", "dot.", "\x01", "\x7f",
                "nul\0", "x" * 255, "ü" * 128, NAMES_FOLDER, TRANSFER_FOLDER, "names.json", "~", "-rf", "%2F", "\u2028")
legal_names = st.one_of(
    st.lists(st.sampled_from(ODD_SEGMENTS), min_size=1, max_size=5).map("/".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1, max_size=40),
).filter(lambda name: 0 < len(name.encode()) <= 1024)


@pytest.mark.parametrize("name", [
    "", ".", "..", "a\nb", "a\rb", "x" * 1025, "é" * 513, ".well-known/acme-challenge/", ".well-known/acme-challenge/x",
    "photo-\udcff.jpg",
])
def test_what_cloud_storage_refuses(name: str) -> None:
    with pytest.raises(StorageError) as caught:
        check_name(name)
    assert caught.value.code == REFUSED
    assert str(caught.value).isascii()


@pytest.mark.parametrize("name", [
    "a", "x" * 1024, "é" * 512, "a//b", "/a", "a/", "...", "a/..", "x\0y", "tab\there", "#?[]*", ".well-known/other",
    "a/.well-known/acme-challenge/x",
])
def test_what_cloud_storage_takes(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", [
    "a.jpg", "deep/er/a b.jpg", "é/ü.txt", "back\\slash", "C:\\x", "trailing.", " ", "...", "-rf", "\x01\x7f",
    "x" * 255, "/".join("x" * 100 for _ in range(10)), ".hidden/.file", "names.json",
])
def test_a_name_that_can_be_a_path_is_one(name: str) -> None:
    assert local_paths([name]) == {name: name}


@pytest.mark.parametrize("name", [
    "a//b", "/a", "//", "a/./b", "a/../b", "../../etc/passwd", "/etc/passwd", ".", "..", "x" * 256, "ü" * 128,
    "x" * 1024, "nul\0", SIDECAR, f"{NAMES_FOLDER}/x", f"a/{TRANSFER_FOLDER}/b",
])
def test_any_other_name_is_set_aside(name: str) -> None:
    if name.endswith("/"):
        assert local_paths([name]) == {}
        return
    path = local_paths([name])[name]
    folder, _, file = path.partition("/")
    assert (folder, path == SIDECAR) == (NAMES_FOLDER, False)
    assert len(file) <= 73
    assert file.isascii()
    assert file.endswith(name[-1] if name[-1] not in "\0ü" else "_")
    assert local_paths(["other", "a/b", name])[name] == path


def test_a_file_beside_a_folder_of_its_name() -> None:
    paths = local_paths(["a", "a/b", "a/b/c", "ab", "a.b"])
    assert [name for name, path in paths.items() if path != name] == ["a", "a/b"]
    assert local_paths(["a", "a/../b", "a/"])["a"] == "a"


def test_the_empty_objects_that_mark_folders_are_left_out() -> None:
    assert local_paths(["", "a/", "a/b/", "a/b/c"]) == {"a/b/c": "a/b/c"}


def test_a_listing_with_names_that_cannot_be_is_refused() -> None:
    for name in ("a\nb", "x" * 1025, "\ud800"):
        with pytest.raises(StorageError, match="checking the object name"):
            local_paths(["fine", name])


@given(st.lists(legal_names, max_size=12, unique=True))
def test_every_legal_name_has_a_path_of_its_own_below_the_folder(names: list[str]) -> None:
    paths = local_paths(names)
    assert list(paths) == [name for name in names if not name.endswith("/")]
    taken = set(paths.values()) | {SIDECAR}
    assert len(taken) == len(paths) + 1
    for path in paths.values():
        parts = path.split("/")
        assert PurePosixPath(path).parts == tuple(parts)
        assert not {"", ".", "..", TRANSFER_FOLDER}.intersection(parts)
        assert "\0" not in path
        assert max(len(part.encode()) for part in parts) <= 255
        assert len(path.encode()) <= 1024
        assert not {str(parent) for parent in PurePosixPath(path).parents} & taken
    sidecar = render_sidecar({path: name for name, path in paths.items()})
    aside = {path: name for name, path in paths.items() if path != name}
    assert (parse_sidecar(sidecar, SIDECAR) if sidecar else {}) == aside


def test_a_second_download_keeps_what_the_first_was_called() -> None:
    first = {path: name for name, path in local_paths(["a//b", "plain"]).items()}
    second = {path: name for name, path in local_paths(["/c"]).items()}
    text = render_sidecar(second, parse_sidecar(render_sidecar(first), SIDECAR))
    assert sorted(parse_sidecar(text, SIDECAR).values()) == ["/c", "a//b"]
    assert render_sidecar({"plain": "plain"}) == ""


PATH = local_paths(["a//b"])["a//b"]


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", "1", '"a"', b"\xff\xfe\x00", "[" * 100_000, "1" * 5000,
    json.dumps({PATH: 1}), json.dumps({PATH: None}), json.dumps({PATH: "a//c"}), json.dumps({"a": "a"}),
    json.dumps({"../x": "a//b"}), json.dumps({PATH: "a//b\n"}), json.dumps({PATH: "\ud800"}),
    json.dumps({PATH: "x" * 9999}), json.dumps({"": ""}),
])
def test_a_damaged_sidecar_is_told(text: str | bytes) -> None:
    with pytest.raises(StorageError) as caught:
        parse_sidecar(text, "some/names.json")
    assert caught.value.code == DAMAGED
    assert "some/names.json" in str(caught.value)


short = st.text(max_size=5)


@given(st.one_of(
    st.binary(max_size=60),
    st.dictionaries(short | st.just(PATH), short | st.just("a//b") | st.none()).map(json.dumps),
    st.integers(0, 70).map(lambda end: json.dumps({PATH: "a//b"})[:end]),
))
def test_no_sidecar_names_anything_but_what_was_set_aside(text: str | bytes) -> None:
    with suppress(StorageError):
        names = parse_sidecar(text, SIDECAR)
        assert all(path == local_paths([name, f"{name}/x"])[name] for path, name in names.items())
