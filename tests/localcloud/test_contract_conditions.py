"""The contract of Google's own client with the storage service: generations, and the preconditions on every verb."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.storage.exceptions import InvalidResponse

from tests.localcloud.conftest import QUANTUM, Space

Verb = Callable[..., Any]


def source(space: Space) -> Any:
    return space.blob("source")


WRITES: dict[str, Verb] = {
    "insert": lambda space, **wanted: space.put("x", b"new", **wanted),
    "resumable": lambda space, **wanted: space.blob("x", chunk_size=QUANTUM).upload_from_file(
        io.BytesIO(b"new" * QUANTUM), **wanted
    ),
    "writer": lambda space, **wanted: written(space, **wanted),
    "session": lambda space, **wanted: space.blob("x").create_resumable_upload_session(size=3, **wanted),
    "patch": lambda space, **wanted: changed(space).patch(**wanted),
    "update": lambda space, **wanted: changed(space).update(**wanted),
    "delete": lambda space, **wanted: space.blob("x").delete(**wanted),
    "rewrite": lambda space, **wanted: space.blob("x").rewrite(source(space), **wanted),
    "copy": lambda space, **wanted: space.bucket.copy_blob(source(space), space.bucket, space.prefix + "x", **wanted),
    "move": lambda space, **wanted: space.bucket.move_blob(source(space), space.prefix + "x", **wanted),
    "rename": lambda space, **wanted: space.bucket.rename_blob(source(space), space.prefix + "x", **wanted),
}
COMPOSE: dict[str, Verb] = {"compose": lambda space, **wanted: space.blob("x").compose([source(space)], **wanted)}
READS: dict[str, Verb] = {
    "reload": lambda space, **wanted: space.blob("x").reload(**wanted),
    "exists": lambda space, **wanted: space.blob("x").exists(**wanted),
    "get_blob": lambda space, **wanted: space.bucket.get_blob(space.prefix + "x", **wanted),
    "download": lambda space, **wanted: space.blob("x").download_as_bytes(**wanted),
    "range": lambda space, **wanted: space.blob("x").download_as_bytes(start=1, **wanted),
    "reader": lambda space, **wanted: read(space, **wanted),
}
SOURCES: dict[str, Verb] = {
    "rewrite": lambda space, **wanted: space.blob("target").rewrite(space.blob("x"), **wanted),
    "copy": lambda space, **wanted: space.bucket.copy_blob(space.blob("x"), space.bucket, space.prefix + "t", **wanted),
    "move": lambda space, **wanted: space.bucket.move_blob(space.blob("x"), space.prefix + "t", **wanted),
}
CONDITIONS = ("generation_match", "generation_not_match", "metageneration_match", "metageneration_not_match")


def changed(space: Space) -> Any:
    blob = space.blob("x")
    blob.content_language = "de"
    return blob


def written(space: Space, **wanted: int) -> None:
    file = space.blob("x").open("wb", **wanted)
    file.write(b"new")
    try:
        file.close()
    except BaseException:
        # Otherwise its finalizer tries again, in whatever thread collects it: that may be the server's own.
        file.terminate()
        raise


def read(space: Space, **wanted: int) -> None:
    with space.blob("x").open("rb", chunk_size=QUANTUM, **wanted) as file:
        file.read()


def wanted_of(condition: str, blob: Any, holds: bool) -> int:
    number = int(blob.generation if condition.startswith("generation") else blob.metageneration)
    return number + 1 if holds == ("not" in condition) else number


def prepared(space: Space) -> Any:
    space.put("source", b"source")
    return space.put("x", b"old")


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("verb", WRITES)
def test_writes(space: Space, verb: str, condition: str) -> None:
    blob = prepared(space)
    # What the client's writer meets at its end comes up as it is.
    with pytest.raises((exceptions.PreconditionFailed, InvalidResponse), match="412"):
        WRITES[verb](space, **{f"if_{condition}": wanted_of(condition, blob, False)})
    found = space.bucket.get_blob(blob.name)
    assert (found.generation, found.metageneration) == (blob.generation, 1)
    assert space.blob("x").download_as_bytes() == b"old"
    assert space.names() == ["source", "x"]
    WRITES[verb](space, **{f"if_{condition}": wanted_of(condition, blob, True)})


@pytest.mark.parametrize("condition", ["generation_match", "metageneration_match"])
def test_compose(space: Space, condition: str) -> None:
    blob = prepared(space)
    with pytest.raises(exceptions.PreconditionFailed):
        COMPOSE["compose"](space, **{f"if_{condition}": wanted_of(condition, blob, False)})
    COMPOSE["compose"](space, **{f"if_{condition}": wanted_of(condition, blob, True)})
    assert space.blob("x").download_as_bytes() == b"source"


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("verb", READS)
def test_reads(space: Space, verb: str, condition: str) -> None:
    blob = prepared(space)
    refused = exceptions.NotModified if "not" in condition else exceptions.PreconditionFailed
    with pytest.raises(refused):
        READS[verb](space, **{f"if_{condition}": wanted_of(condition, blob, False)})
    READS[verb](space, **{f"if_{condition}": wanted_of(condition, blob, True)})


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("verb", SOURCES)
def test_sources(space: Space, verb: str, condition: str) -> None:
    blob = prepared(space)
    with pytest.raises(exceptions.PreconditionFailed):
        SOURCES[verb](space, **{f"if_source_{condition}": wanted_of(condition, blob, False)})
    assert space.names() == ["source", "x"]
    SOURCES[verb](space, **{f"if_source_{condition}": wanted_of(condition, blob, True)})


def test_only_if_there_is_none(space: Space) -> None:
    with pytest.raises(exceptions.PreconditionFailed, match="pre-conditions"):
        space.put("x", b"1", if_generation_match=7)
    first = space.put("x", b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        space.put("x", b"2", if_generation_match=0)
    newer = space.put("x", b"2", if_generation_match=first.generation)
    assert newer.generation > first.generation
    assert space.put("x", b"3", if_generation_not_match=0).generation > newer.generation
    with pytest.raises(exceptions.PreconditionFailed):
        space.put("y", b"1", if_generation_not_match=0)


def test_a_condition_holds_at_the_end_of_a_long_upload_too(space: Space) -> None:
    url = space.blob("x").create_resumable_upload_session(size=4, if_generation_match=0)
    space.put("x", b"other")
    assert space.bucket.client._http.put(url, data=b"mine").status_code == 412
    assert space.blob("x").download_as_bytes() == b"other"


def test_an_overwritten_generation_is_gone(space: Space) -> None:
    old = space.put("x", b"old").generation
    space.put("x", b"new")
    stale = space.blob("x", generation=old)
    assert not stale.exists()
    for gone in (stale.download_as_bytes, stale.reload, stale.delete, stale.patch):
        with pytest.raises(exceptions.NotFound):
            gone()
    with pytest.raises(exceptions.NotFound):
        space.bucket.copy_blob(space.blob("x"), space.bucket, space.prefix + "y", source_generation=old)
    with pytest.raises(exceptions.NotFound):
        space.blob("y").compose([stale])
    assert space.bucket.get_blob(space.prefix + "x", generation=old) is None
    assert space.blob("x").download_as_bytes() == b"new"


def test_one_of_sixteen_wins(space: Space) -> None:
    gate = threading.Barrier(16)

    def attempt(number: int) -> int | None:
        gate.wait()
        try:
            space.put("x", str(number).encode(), if_generation_match=0)
        except exceptions.PreconditionFailed:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [one for one in pool.map(attempt, range(16)) if one is not None]
    assert len(winners) == 1
    assert space.blob("x").download_as_bytes() == str(winners[0]).encode()


def test_missing(space: Space) -> None:
    missing = space.blob("nothing")
    missing.content_language = "de"
    for attempt in (missing.download_as_bytes, missing.delete, missing.patch, missing.update, missing.reload):
        with pytest.raises(exceptions.NotFound, match="No such object"):
            attempt()
    with pytest.raises(exceptions.NotFound):
        space.blob("x").rewrite(missing)
    with pytest.raises(exceptions.NotFound):
        space.bucket.move_blob(missing, space.prefix + "x")
    assert not missing.exists()
    assert space.bucket.get_blob(missing.name) is None
    nowhere = space.bucket.client.bucket("gcpod-no-such-bucket-here")
    assert not nowhere.exists()
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        list(nowhere.list_blobs())
    with pytest.raises(exceptions.NotFound):
        nowhere.blob("x").upload_from_string(b"")
