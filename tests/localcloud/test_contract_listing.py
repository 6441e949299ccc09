"""The contract of Google's own client with the storage service: listings, pages, and names of every kind."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions

from tests.localcloud.conftest import Space

ODD_NAMES = (
    "plain",
    "with space",
    " ",
    "ünïcødé/日本",
    "🦝",
    "hash#mark",
    "question?mark",
    "a//b",
    "//",
    "per%2Fcent",
    "100%",
    "/leading",
    "trailing/",
    "a/./b",
    "a/../b",
    "../up",
    "...",
    "quo'te\"s",
    "semi;colon&amp=eq",
    "tab\there",
    "plus+sign",
    "back\\slash",
    "o/b/rewriteTo/b/x/o/y",
    "[set]{brace}*?",
)


def check_name(space: Space, name: str) -> None:
    """Every verb takes the name."""
    space.put(name, name.encode())
    assert space.names() == [name]
    blob = space.bucket.get_blob(space.prefix + name)
    assert blob.name == space.prefix + name
    assert blob.download_as_bytes() == name.encode()
    blob.content_language = "de"
    blob.patch()
    other = space.blob("other")
    other.compose([blob])
    assert blob.rewrite(other)[1] == len(name.encode())
    assert space.bucket.copy_blob(other, space.bucket, blob.name).name == blob.name
    space.blob(name).delete()
    assert space.bucket.move_blob(other, blob.name).name == blob.name
    assert space.names() == [name]
    with space.bucket.client.batch():
        space.blob(name).delete()
    assert space.names() == []


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(space: Space, name: str) -> None:
    check_name(space, name)


@pytest.mark.parametrize("letter", ["x", "é"])
def test_the_longest_name(space: Space, letter: str) -> None:
    room = 1024 - len(space.prefix.encode())
    longest = letter * (room // len(letter.encode()))
    check_name(space, longest)
    with pytest.raises(exceptions.BadRequest):
        space.put(longest + letter)


@pytest.mark.parametrize("name", ["new\nline", "carriage\rreturn", ".", "..", ".well-known/acme-challenge/x"])
def test_refused_names(client: Any, bucket: Any, name: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="Disallowed"):
        bucket.blob(name).upload_from_string(b"x")
    source = bucket.blob("source")
    source.upload_from_string(b"x")
    if name.strip("."):
        with pytest.raises(exceptions.BadRequest, match="Disallowed"):
            bucket.move_blob(source, name)
    assert [one.name for one in bucket.list_blobs()] == ["source"]


def test_prefixes_offsets_and_delimiters(space: Space) -> None:
    for name in ("a/1", "a/2", "b", "c/", "c/d/e", "z"):
        space.put(name)
    assert space.names() == ["a/1", "a/2", "b", "c/", "c/d/e", "z"]
    assert space.names("a/") == ["a/1", "a/2"]
    assert space.names("a/1") == ["a/1"]
    assert space.names("nothing") == []
    assert space.names(start_offset=space.prefix + "b", end_offset=space.prefix + "c/d") == ["b", "c/"]
    assert space.names(start_offset=space.prefix + "b") == ["b", "c/", "c/d/e", "z"]
    assert space.names(end_offset=space.prefix + "b") == ["a/1", "a/2"]
    assert space.names(start_offset=space.prefix + "z", end_offset=space.prefix + "a") == []
    listing = space.bucket.list_blobs(prefix=space.prefix, delimiter="/")
    assert [one.name.removeprefix(space.prefix) for one in listing] == ["b", "z"]
    assert {one.removeprefix(space.prefix) for one in listing.prefixes} == {"a/", "c/"}
    below = space.bucket.list_blobs(prefix=space.prefix + "c/", delimiter="/")
    assert [one.name.removeprefix(space.prefix) for one in below] == ["c/"]
    assert {one.removeprefix(space.prefix) for one in below.prefixes} == {"c/d/"}
    assert space.names(delimiter="/", include_trailing_delimiter=True) == ["b", "c/", "z"]
    assert space.names(delimiter="/", include_folders_as_prefixes=True) == ["b", "z"]


def test_names_are_in_the_order_of_their_bytes(space: Space) -> None:
    names = ["A", "Z", "a", "a b", "a-b", "a/b", "a0", "é", "\uffee", "🦝"]
    for name in reversed(names):
        space.put(name)
    assert space.names() == names


@pytest.mark.parametrize(("glob", "found"), [
    ("**/{1,e}", ["a/1", "c/d/e"]), ("*", ["b", "z"]), ("a/*", ["a/1", "a/2"]),
    ("**", ["a/1", "a/2", "b", "c/d/e", "z"]), ("a/?", ["a/1", "a/2"]), ("a/[1]", ["a/1"]), ("a/[!1]", ["a/2"]),
    ("[a-b]", ["b"]), ("c/*", []), ("c/**", ["c/d/e"]),
])
def test_globs(space: Space, glob: str, found: list[str]) -> None:
    for name in ("a/1", "a/2", "b", "c/d/e", "z"):
        space.put(name)
    assert space.names(match_glob=space.prefix + glob) == found


def test_pages(space: Space) -> None:
    names = [f"{number:02}" for number in range(7)]
    for name in names:
        space.put(name)
    pages = [[one.name for one in page] for page in space.bucket.list_blobs(prefix=space.prefix, page_size=3).pages]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert space.names(max_results=2) == names[:2]
    assert space.names(max_results=5, page_size=2) == names[:5]
    listing = space.bucket.list_blobs(prefix=space.prefix, max_results=3)
    first = [one.name.removeprefix(space.prefix) for one in next(listing.pages)]
    rest = space.names(page_token=listing.next_page_token)
    assert first + rest == names
    with pytest.raises(exceptions.BadRequest):
        space.names(page_token="nonsense")


def test_pages_of_prefixes(space: Space) -> None:
    for name in ("a/1", "a/2", "b", "c/1", "d", "e/1/2"):
        space.put(name)
    listing = space.bucket.list_blobs(prefix=space.prefix, delimiter="/", page_size=1)
    pages = [[one.name.removeprefix(space.prefix) for one in page] for page in listing.pages]
    assert [name for page in pages for name in page] == ["b", "d"]
    assert {one.removeprefix(space.prefix) for one in listing.prefixes} == {"a/", "c/", "e/"}


def test_fields_and_what_an_entry_tells(space: Space) -> None:
    sent = space.put("x", b"content")
    [found] = list(space.bucket.list_blobs(prefix=space.prefix))
    assert (found.generation, found.size, found.crc32c, found.md5_hash, found.etag) == (
        sent.generation, 7, sent.crc32c, sent.md5_hash, sent.etag,
    )
    [slim] = list(space.bucket.list_blobs(prefix=space.prefix, fields="items(name,size),nextPageToken"))
    assert (slim.name, slim.size, slim.generation) == (found.name, 7, None)


def test_versions_are_the_live_ones_where_none_are_kept(client: Any, bucket: Any) -> None:
    space = Space(bucket, "")
    space.put("x", b"old")
    newer = space.put("x", b"new")
    assert [one.generation for one in bucket.list_blobs(versions=True)] == [newer.generation]
