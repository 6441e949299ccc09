"""The contract of Google's own client with the storage service: compose, rewrite, copy, move, rename."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions

from tests.localcloud.conftest import Space, crc


def put_with_metadata(space: Space, name: str = "source") -> Any:
    blob = space.blob(name)
    blob.metadata = {"k": "v"}
    blob.cache_control = "no-store"
    blob.upload_from_string(b"content", content_type="image/png")
    return blob


def check_copied(blob: Any, source: Any) -> None:
    blob.reload()
    assert (blob.content_type, blob.cache_control, blob.metadata) == ("image/png", "no-store", {"k": "v"})
    assert (blob.md5_hash, blob.crc32c, blob.size) == (source.md5_hash, source.crc32c, 7)
    assert (blob.metageneration, blob.generation > source.generation) == (1, True)
    assert blob.download_as_bytes() == b"content"


def test_compose(space: Space) -> None:
    parts = [space.put(f"part{number}", str(number).encode() * 10) for number in range(3)]
    whole = space.blob("whole")
    whole.content_type, whole.metadata, whole.storage_class = "application/x-test", {"k": "v"}, "NEARLINE"
    whole.compose(parts, if_generation_match=0)
    content = b"0" * 10 + b"1" * 10 + b"2" * 10
    assert (whole.component_count, whole.crc32c, whole.md5_hash) == (3, crc(content), None)
    found = space.bucket.get_blob(whole.name)
    assert (found.content_type, found.metadata, found.storage_class) == ("application/x-test", {"k": "v"}, "NEARLINE")
    again = space.blob("again")
    again.compose([whole, parts[0]])
    assert (again.component_count, again.download_as_bytes()) == (4, content + b"0" * 10)


def test_composed_onto_itself(space: Space) -> None:
    log = space.put("log", b"one\n")
    more = space.put("more", b"two\n")
    log.compose([log, more], if_generation_match=log.generation)
    assert space.blob("log").download_as_bytes() == b"one\ntwo\n"
    log.compose([log, log])
    assert space.blob("log").download_as_bytes() == b"one\ntwo\n" * 2


def test_compose_of_given_generations(space: Space) -> None:
    parts = [space.put(f"part{number}", b"x") for number in range(2)]
    whole = space.blob("whole")
    with pytest.raises(exceptions.PreconditionFailed):
        whole.compose(parts, if_source_generation_match=[parts[0].generation, 1])
    whole.compose(parts, if_source_generation_match=[parts[0].generation, None])
    assert whole.size == 2


def test_compose_that_cleans_up(space: Space) -> None:
    parts = [space.put(f"part{number}", b"x") for number in range(3)]
    whole = space.blob("part0")
    whole.compose(parts, delete_source_objects=True)
    assert space.names() == ["part0"]
    assert space.blob("part0").download_as_bytes() == b"xxx"


@pytest.mark.parametrize("count", [0, 33])
def test_refused_composes(space: Space, count: int) -> None:
    part = space.put("part", b"x")
    with pytest.raises(exceptions.BadRequest):
        space.blob("whole").compose([part] * count)
    space.blob("whole").compose([part] * 32)
    with pytest.raises(exceptions.NotFound):
        space.blob("whole").compose([part, space.blob("missing")])
    assert space.blob("whole").download_as_bytes() == b"x" * 32


def test_rewrite(space: Space) -> None:
    source = put_with_metadata(space)
    target = space.blob("target")
    assert target.rewrite(source) == (None, 7, 7)
    check_copied(target, source)
    source.delete()
    assert target.download_as_bytes() == b"content"
    with pytest.raises(exceptions.BadRequest):
        space.blob("other").rewrite(target, token="of no rewrite under way")
    assert space.names() == ["target"]


def test_another_storage_class(space: Space) -> None:
    source = put_with_metadata(space)
    before = source.generation
    source.update_storage_class("NEARLINE")
    found = space.bucket.get_blob(source.name)
    assert (found.storage_class, found.metadata, found.generation > before) == ("NEARLINE", {"k": "v"}, True)
    assert found.download_as_bytes() == b"content"
    copied = space.bucket.copy_blob(found, space.bucket, space.prefix + "copy")
    assert space.bucket.get_blob(copied.name).storage_class == "STANDARD"


def test_rewrite_with_other_metadata(space: Space) -> None:
    source = put_with_metadata(space)
    target = space.blob("target")
    target.content_type = "text/x-other"
    target.rewrite(source)
    target.reload()
    assert (target.content_type, target.metadata, target.cache_control) == ("text/x-other", None, None)


def test_copy(space: Space) -> None:
    source = put_with_metadata(space)
    copied = space.bucket.copy_blob(source, space.bucket, space.prefix + "target", source_generation=source.generation)
    check_copied(copied, source)
    same = space.bucket.copy_blob(copied, space.bucket)
    assert same.generation > copied.generation
    assert space.names() == ["source", "target"]


def test_between_buckets(client: Any, bucket: Any) -> None:
    other = client.create_bucket(bucket.name + "-other")
    source = put_with_metadata(Space(bucket, ""))
    check_copied(bucket.copy_blob(source, other, "target"), source)
    check_copied(bucket.copy_blob(source, other), source)
    assert [one.name for one in other.list_blobs()] == ["source", "target"]
    with pytest.raises(exceptions.NotFound):
        bucket.copy_blob(source, client.bucket("gcpod-no-such-bucket-here"))


@pytest.mark.parametrize("way", ["move_blob", "rename_blob"])
def test_move(space: Space, way: str) -> None:
    source = put_with_metadata(space)
    space.put("target", b"in the way")
    moved = getattr(space.bucket, way)(source, space.prefix + "target")
    check_copied(moved, source)
    assert space.names() == ["target"]
    with pytest.raises(exceptions.NotFound):
        space.blob("source").reload()
