"""The contract of Google's own client with the storage service: metadata, custom times and holds."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.api_core import exceptions

from tests.localcloud.conftest import Raw, Space

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone.utc)


def test_patch_changes_what_it_names(space: Space) -> None:
    blob = space.put("x", b"1")
    generation, etag, updated = blob.generation, blob.etag, blob.updated
    blob.metadata = {"a": "1", "b": "2"}
    blob.cache_control = "no-store"
    blob.patch()
    assert (blob.metageneration, blob.generation) == (2, generation)
    assert blob.etag != etag
    assert blob.updated >= updated
    blob.metadata = {"a": None, "c": "3"}
    blob.patch(if_metageneration_match=2)
    blob.reload()
    assert (blob.metadata, blob.cache_control, blob.metageneration) == ({"b": "2", "c": "3"}, "no-store", 3)
    blob.metadata = None
    blob.cache_control = None
    blob.patch()
    found = space.bucket.get_blob(blob.name)
    assert (found.metadata, found.cache_control, found.content_type) == (None, None, "text/plain")
    assert found.download_as_bytes() == b"1"


def test_update_replaces_everything(space: Space) -> None:
    blob = space.put("x", b"1")
    blob.metadata, blob.cache_control = {"a": "1"}, "no-store"
    blob.patch()
    bare = space.blob("x")
    bare.content_type, bare.metadata = "text/x-other", {"b": "2"}
    bare.update()
    found = space.bucket.get_blob(blob.name)
    assert (found.content_type, found.metadata, found.cache_control) == ("text/x-other", {"b": "2"}, None)
    assert (found.generation, found.metageneration, found.storage_class) == (blob.generation, 3, "STANDARD")


def test_what_only_the_service_sets_stays(space: Space) -> None:
    blob = space.put("x", b"1")
    patched = space.blob("x")
    for name, value in (("size", "99"), ("md5Hash", "AAAA"), ("timeCreated", "2020-01-01T00:00:00Z")):
        patched._patch_property(name, value)
    patched.patch()
    found = space.bucket.get_blob(blob.name)
    assert (found.size, found.md5_hash, found.generation) == (1, blob.md5_hash, blob.generation)
    assert found.time_created == blob.time_created


def test_custom_time_only_moves_on(space: Space) -> None:
    blob = space.blob("x")
    blob.custom_time = NOON
    blob.upload_from_string(b"1")
    assert space.bucket.get_blob(blob.name).custom_time == NOON
    for earlier in (NOON - datetime.timedelta(microseconds=1), None):
        blob.custom_time = earlier
        with pytest.raises(exceptions.BadRequest):
            blob.patch()
    blob = space.blob("x")
    blob.custom_time = NOON + datetime.timedelta(days=1)
    blob.patch()
    plain = space.blob("x")
    plain.content_type = "text/x-other"
    plain.update()
    assert space.bucket.get_blob(blob.name).custom_time == NOON + datetime.timedelta(days=1)


@pytest.mark.parametrize(("text", "status"), [
    ("2026-01-01T13:00:00+01:00", 200), ("2026-01-01T13:00:00.5+02:00", 400), ("2026-01-01T13:00:00.123456789Z", 200),
    ("2026-01-02T00:00:00+99:99", 400), ("2026-02-30T00:00:00Z", 400), ("tomorrow", 400),
])
def test_custom_times_as_they_are_written(raw: Raw, bucket: Any, text: str, status: int) -> None:
    blob = bucket.blob("x")
    blob.custom_time = NOON
    blob.upload_from_string(b"1")
    reply = raw("PATCH", f"/storage/v1/b/{bucket.name}/o/x", json.dumps({"customTime": text}).encode())
    assert reply.status == status


OVERWRITES: dict[str, Callable[[Space], Any]] = {
    "delete": lambda space: space.blob("x").delete(),
    "insert": lambda space: space.put("x", b"new"),
    "rewrite": lambda space: space.blob("x").rewrite(space.blob("source")),
    "compose": lambda space: space.blob("x").compose([space.blob("source")]),
    "move away": lambda space: space.bucket.move_blob(space.blob("x"), space.prefix + "y"),
    "move onto": lambda space: space.bucket.move_blob(space.blob("source"), space.prefix + "x"),
}


@pytest.mark.parametrize("hold", ["temporary_hold", "event_based_hold"])
@pytest.mark.parametrize("way", OVERWRITES)
def test_holds(space: Space, hold: str, way: str) -> None:
    space.put("source", b"source")
    blob = space.put("x", b"held")
    setattr(blob, hold, True)
    blob.patch()
    try:
        with pytest.raises(exceptions.Forbidden, match="hold"):
            OVERWRITES[way](space)
        assert space.blob("x").download_as_bytes() == b"held"
        copied = space.bucket.copy_blob(space.blob("x"), space.bucket, space.prefix + "copy")
        assert not getattr(space.bucket.get_blob(copied.name), hold)
        blob.content_language = "de"
        blob.patch()
    finally:
        setattr(blob, hold, False)
        blob.patch()
    OVERWRITES[way](space)
