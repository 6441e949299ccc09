"""The contract of Google's own client with the storage service: batches, and the transfer manager's many at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.storage import transfer_manager

from tests.localcloud.conftest import Space

THREADS: dict[str, Any] = {"worker_type": transfer_manager.THREAD, "max_workers": 4}


def test_deletes(space: Space) -> None:
    blobs = [space.put(f"x{number}") for number in range(5)]
    with space.bucket.client.batch():
        for blob in blobs[:4]:
            blob.delete()
    assert space.names() == ["x4"]


def test_mixed_outcomes(space: Space) -> None:
    blobs = [space.put(name) for name in ("kept", "gone", "patched", "copied")]
    mixed = space.bucket.client.batch(raise_exception=False)
    with mixed:
        blobs[0].delete(if_generation_match=1)
        blobs[1].delete()
        space.blob("missing").delete()
        blobs[2].metadata = {"k": "v"}
        blobs[2].patch()
        space.blob("kept").reload()
    assert [reply.status_code for reply in mixed._responses] == [412, 204, 404, 200, 200]
    assert space.names() == ["copied", "kept", "patched"]
    assert blobs[2].metageneration == 2
    assert space.bucket.get_blob(blobs[2].name).metadata == {"k": "v"}


def test_a_failure_among_deletes_is_raised(space: Space) -> None:
    blobs = [space.put(name) for name in ("gone", "kept")]

    def both() -> None:
        with space.bucket.client.batch():
            blobs[0].delete()
            blobs[1].delete(if_generation_match=1)

    with pytest.raises(exceptions.PreconditionFailed):
        both()
    assert space.names() == ["kept"]


def test_delete_blobs(space: Space) -> None:
    blobs = [space.put(f"x{number}") for number in range(3)]
    with pytest.raises(exceptions.NotFound):
        space.bucket.delete_blobs([space.blob("missing")])
    missed: list[Any] = []
    space.bucket.delete_blobs([space.blob("missing"), blobs[0]], on_error=missed.append)
    assert [one.name for one in missed] == [space.prefix + "missing"]
    space.put("x1", b"newer")
    with pytest.raises(exceptions.NotFound):
        space.bucket.delete_blobs([blobs[1]], preserve_generation=True)
    with pytest.raises(exceptions.PreconditionFailed):
        space.bucket.delete_blobs([space.blob("x2")], if_generation_match=[1])
    assert space.names() == ["x1", "x2"]


def test_a_hundred_calls_and_no_more(space: Space) -> None:
    space.put("x")
    for count, kept in ((101, ["x"]), (100, [])):
        calls = space.bucket.client.batch(raise_exception=False)
        try:
            with calls:
                for number in range(count):
                    space.blob(f"missing{number}" if number else "x").delete()
        except exceptions.BadRequest:
            assert count == 101
        assert space.names() == kept


def test_many_up_and_down(space: Space, tmp_path: Path) -> None:
    (tmp_path / "up" / "deep").mkdir(parents=True)
    names = [f"f{number}" for number in range(10)] + ["deep/é f"]
    for number, name in enumerate(names):
        (tmp_path / "up" / name).write_bytes(b"%d" % number * 1000)
    bucket, prefix = space.bucket, space.prefix
    sent = transfer_manager.upload_many_from_filenames(
        bucket, names, source_directory=str(tmp_path / "up"), blob_name_prefix=prefix,
        additional_blob_attributes={"cache_control": "no-store"}, **THREADS,
    )
    assert sent == [None] * 11
    assert sorted(space.names()) == sorted(names)
    assert space.bucket.get_blob(prefix + "f0").cache_control == "no-store"
    got = transfer_manager.download_many_to_path(
        bucket, [*names, "missing"], destination_directory=str(tmp_path / "down"), blob_name_prefix=prefix, **THREADS
    )
    assert [type(one) for one in got] == [type(None)] * 11 + [exceptions.NotFound]
    for name in names:
        assert (tmp_path / "down" / name).read_bytes() == (tmp_path / "up" / name).read_bytes()


def test_what_is_there_is_left(space: Space, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"new")
    old = space.put("x", b"old")
    pairs = [(str(tmp_path / "x"), space.blob("x"))]
    [skipped] = transfer_manager.upload_many(pairs, skip_if_exists=True, **THREADS)
    assert skipped is None or isinstance(skipped, exceptions.PreconditionFailed)
    found = space.bucket.get_blob(old.name)
    assert (found.generation, found.download_as_bytes()) == (old.generation, b"old")
