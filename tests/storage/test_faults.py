"""Every fault that a network or a service can have, in every request of a transfer: the right bytes lie there, once."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import pytest

from gcpod.errors import AuthError, OutageError, StorageError
from gcpod.storage.known import local_files
from gcpod.storage.mirror import mirror
from gcpod.storage.receive import Download
from gcpod.storage.transfer import fetch_all, upload_files
from tests.waiting import until

from .faulty_faults import (
    Action,
    Alter,
    AlterRequest,
    CutReply,
    CutRequest,
    Fault,
    Operation,
    ResetAfter,
    ResetBefore,
    ShortReply,
    StallBefore,
    StallReply,
    StallRequest,
    Status,
)
from .place import CHUNK, IMPATIENT, LARGE, OPTIONS, PASSING, SMALL, Place, options_for


@pytest.mark.parametrize("action", [*PASSING, CutRequest(1000), StallRequest(0)], ids=str)
def test_a_small_upload_survives(place: Place, action: Action) -> None:
    path = place.source(SMALL)
    place.proxy.spoil(Fault("insert", action))
    place.upload(path, options=options_for(action))
    assert place.proxy.unused == []
    place.check_bucket(path)


@pytest.mark.parametrize("operation", ["start", "chunk", "status"])
@pytest.mark.parametrize("action", [*PASSING, CutRequest(3 * CHUNK // 4)], ids=str)
def test_a_large_upload_survives(place: Place, operation: Operation, action: Action) -> None:
    path = place.source(LARGE)
    if operation == "status":
        # The client asks how far it is after a failure only.
        place.proxy.spoil(Fault("chunk", ResetAfter(), skip=1))
    if isinstance(action, CutRequest) and operation != "chunk":
        action = CutRequest(0)
    place.proxy.spoil(Fault(operation, action, skip=1 if operation == "chunk" else 0))
    place.upload(path, options=options_for(action))
    assert place.proxy.unused == []
    place.check_bucket(path)


def test_faults_in_every_chunk_do_not_send_it_all_again(place: Place) -> None:
    path = place.source(LARGE)
    place.proxy.spoil(Fault("chunk", ResetAfter(), times=4))
    place.upload(path)
    place.check_bucket(path)
    assert place.proxy.body_bytes("chunk").sent == LARGE


def test_the_last_chunks_lost_reply_is_found_by_asking(place: Place) -> None:
    path = place.source(LARGE)
    place.proxy.spoil(Fault("chunk", ResetAfter(), skip=4))
    place.upload(path)
    assert place.proxy.count("chunk") == 5
    place.check_bucket(path)


@pytest.mark.parametrize("code", [404, 410, 499])
def test_an_expired_upload_begins_anew(place: Place, code: int) -> None:
    path = place.source(LARGE)
    place.proxy.spoil(Fault("chunk", Status(code), skip=2))
    place.upload(path)
    assert place.proxy.count("start") == 2
    place.check_bucket(path)


def test_a_service_that_always_forgets_is_given_up_with_a_coded_error(place: Place) -> None:
    path = place.source(LARGE)
    place.proxy.spoil(Fault("chunk", Status(410), times=None, skip=1))
    with pytest.raises(OutageError, match="forgotten"):
        place.upload(path, options=IMPATIENT)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_bytes_changed_on_their_way_are_sent_again(place: Place, size: int) -> None:
    path = place.source(size)
    place.proxy.spoil(Fault("insert" if size == SMALL else "chunk", AlterRequest(_flip)))
    place.upload(path)
    assert place.proxy.unused == []
    place.check_bucket(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_bytes_that_always_change_leave_no_object(place: Place, size: int) -> None:
    path = place.source(size)
    place.proxy.spoil(Fault("insert" if size == SMALL else "chunk", AlterRequest(_flip), times=None))
    with pytest.raises(StorageError, match="damaged 3 times"):
        place.upload(path)
    place.check_bucket()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_object_whose_checksum_is_wrong_is_removed_and_sent_again(place: Place, size: int) -> None:
    path = place.source(size)
    operation: Operation = "insert" if size == SMALL else "chunk"
    place.proxy.spoil(Fault(operation, Alter(_other_checksum), skip=0 if size == SMALL else 4))
    place.upload(path)
    assert place.proxy.unused == []
    assert place.proxy.count("delete") == 1
    place.check_bucket(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize(("status", "advice"), [(401, "run `gcloud auth"), (403, "grant roles/storage")])
def test_a_refusal_is_not_repeated(place: Place, size: int, status: int, advice: str) -> None:
    path = place.source(size)
    operation: Operation = "insert" if size == SMALL else "start"
    place.proxy.spoil(Fault(operation, Status(status), times=None))
    with pytest.raises(AuthError, match=advice) as caught:
        place.upload(path)
    assert "\n" not in str(caught.value)
    assert place.proxy.count(operation) == 1
    place.check_bucket()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_anothers_object_is_neither_replaced_nor_taken_for_ours(place: Place, size: int) -> None:
    path = place.source(size)
    (file,) = local_files([(path, place.root / path.name)])
    place.objects.write(file.uri, b"theirs")
    place.proxy.spoil(Fault("list", Alter(lambda _: b"{}")))
    with pytest.raises(StorageError, match="another object"):
        upload_files(place.objects, [file], place.root, options=OPTIONS)
    found = place.objects.read(file.uri)
    assert found is not None
    assert found.content == b"theirs"


def test_retry_after_is_respected(place: Place) -> None:
    path = place.source(SMALL)
    place.proxy.spoil(Fault("insert", Status(503, retry_after="3600")))
    with pytest.raises(OutageError, match="answered 503"):
        place.upload(path)
    assert place.proxy.count("insert") == 1


@pytest.mark.parametrize("action", [Status(503), ResetBefore(), StallBefore()], ids=str)
def test_an_outage_ends_in_a_coded_error_and_the_next_run_goes_on(place: Place, action: Action) -> None:
    path = place.source(LARGE)
    place.proxy.spoil(Fault("chunk", action, times=None, skip=2), Fault("status", action, times=None))
    with pytest.raises(OutageError, match="run the command again") as caught:
        place.upload(path, options=replace(IMPATIENT, stall_s=0.2))
    assert "\n" not in str(caught.value)
    sent = place.proxy.body_bytes("chunk").sent
    place.proxy.clear()
    place.upload(path)
    assert place.proxy.count("start") == 0
    assert place.proxy.body_bytes("chunk").sent == LARGE - 2 * CHUNK
    assert sent <= 3 * CHUNK
    place.check_bucket(path)


def test_one_files_failure_keeps_the_others_that_arrived(place: Place) -> None:
    paths = [place.source(SMALL, f"{number}.bin") for number in range(8)]
    place.proxy.spoil(Fault("insert", Status(403), name="7.bin"))
    with pytest.raises(AuthError):
        place.upload(*paths, options=replace(OPTIONS, workers=1))
    place.proxy.clear()
    place.upload(*paths)
    assert place.proxy.count("insert") == 1
    place.check_bucket(*paths)


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
@pytest.mark.parametrize("action", [*PASSING, CutReply(70_000), ShortReply(70_000), StallReply(70_000)], ids=str)
def test_a_download_survives(place: Place, size: int, action: Action) -> None:
    path = place.source(size)
    place.upload(path)
    place.proxy.clear()
    if size:
        place.proxy.spoil(Fault("get", action))
    place.download(options_for(action))
    assert place.proxy.unused == []
    place.check_folder(path)


def test_a_broken_download_goes_on_at_the_next_byte(place: Place) -> None:
    path = place.source(LARGE)
    place.upload(path)
    place.proxy.clear()
    place.proxy.spoil(Fault("get", CutReply(CHUNK // 2), times=4))
    place.download()
    assert place.proxy.body_bytes("get").received <= LARGE + 4 * 256 * 1024
    place.check_folder(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_damaged_download_is_fetched_again(place: Place, size: int) -> None:
    path = place.source(size)
    place.upload(path)
    place.proxy.clear()
    place.proxy.spoil(Fault("get", Alter(_flip)))
    place.download()
    place.check_folder(path)


def test_a_download_that_is_always_damaged_leaves_nothing(place: Place) -> None:
    path = place.source(SMALL)
    place.upload(path)
    place.proxy.spoil(Fault("get", Alter(_flip), times=None))
    with pytest.raises(StorageError, match="damaged 3 times"):
        place.download()
    place.check_folder()


@pytest.mark.parametrize("code", [404, 412])
def test_an_object_that_was_replaced_meanwhile_is_no_half_file(place: Place, code: int) -> None:
    path = place.source(LARGE)
    place.upload(path)
    place.proxy.spoil(Fault("get", Status(code), skip=2))
    with pytest.raises(StorageError, match="replaced or removed"):
        place.download()
    place.check_folder()


def test_an_interrupted_download_goes_on(place: Place) -> None:
    path = place.source(LARGE)
    place.upload(path)
    place.proxy.clear()
    place.proxy.spoil(Fault("get", Status(503), times=None, skip=3))
    with pytest.raises(OutageError):
        place.download(replace(IMPATIENT, workers=1))
    place.proxy.clear()
    place.download()
    assert place.proxy.body_bytes("get").received == LARGE - 3 * CHUNK
    place.check_folder(path)


def test_a_full_disk_is_no_outage(place: Place) -> None:
    path = place.source(SMALL)
    place.upload(path)
    (place.folder / "out" / path.name).mkdir(parents=True)
    (place.folder / "out" / path.name / "x").touch()
    with pytest.raises(StorageError, match=r"writing .*file.bin: .*directory"):
        place.download()


def test_a_file_that_vanishes_is_no_outage(place: Place) -> None:
    path = place.source(LARGE)
    (file,) = local_files([(path, place.root / path.name)])
    path.unlink()
    with pytest.raises(StorageError, match="No such file"):
        upload_files(place.objects, [file], place.root, options=OPTIONS)


@pytest.mark.parametrize("operation", ["start", "chunk", "compose", "metadata", "delete"])
@pytest.mark.parametrize("action", PASSING, ids=str)
def test_parts_are_put_together_and_removed(
    place: Place, operation: Operation, action: Action, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gcpod.storage.transfer.PARTS_FROM_BYTES", LARGE)
    path = place.source(3 * LARGE)
    place.proxy.spoil(Fault(operation, action))
    place.upload(path, options=replace(options_for(action), parts=3))
    assert place.proxy.unused == []
    place.check_bucket(path)


def test_what_was_put_together_wrongly_is_removed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcpod.storage.transfer.PARTS_FROM_BYTES", LARGE)
    path = place.source(3 * LARGE)
    place.proxy.spoil(Fault("compose", Alter(_other_checksum)))
    with pytest.raises(StorageError, match="not the file that was sent"):
        place.upload(path, options=replace(OPTIONS, parts=3))
    assert place.objects.list(place.root) == []
    place.upload(path, options=replace(OPTIONS, parts=3))
    place.check_bucket(path)


@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize("action", [*PASSING[:-3], CutReply(100), ShortReply(100)], ids=str)
def test_a_listing_survives(place: Place, action: Action, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcpod.storage.listing.PAGE_SIZE", 3)
    for number in range(5):
        place.objects.write(place.root / str(number), b"x")
    place.proxy.clear()
    place.proxy.spoil(Fault("list", action, skip=page))
    assert [one.uri.name for one in place.objects.list(place.root)] == [f"tree/{number}" for number in range(5)]
    assert place.proxy.unused == []
    assert place.proxy.count("list") == 3


@pytest.mark.parametrize("action", [*PASSING, CutReply(10_000), ShortReply(10_000)], ids=str)
def test_only_the_new_bytes_of_a_growing_file_travel_whatever_happens(place: Place, action: Action) -> None:
    path = place.source(SMALL)
    place.upload(path)
    out = place.folder / "out"
    place.download()
    whole = path.read_bytes() + os.urandom(50_000)
    path.write_bytes(whole)
    place.upload(path)
    place.proxy.clear()
    place.proxy.spoil(Fault("get", action))
    listed = place.objects.list(place.root)
    done = mirror(place.objects, [Download(one, out / path.name) for one in listed], out, options_for(action))
    assert (done.files, (out / path.name).read_bytes()) == (1, whole)
    assert done.bytes == 50_000
    place.check_folder(path)


@pytest.mark.parametrize("up", [True, False])
def test_calling_it_off_takes_less_than_a_second_and_keeps_what_arrived(place: Place, up: bool) -> None:
    path = place.source(LARGE)
    if not up:
        place.upload(path)
        place.proxy.clear()
    place.proxy.spoil(Fault("chunk" if up else "get", StallBefore(), skip=2, times=None))
    patient = replace(OPTIONS, stall_s=60.0, workers=1)
    interrupted: list[float] = []

    def tell(_: object) -> None:
        if place.proxy.stalled:
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    def move() -> None:
        if up:
            upload_files(place.objects, local_files([(path, place.root / path.name)]), place.root, tell, patient)
        else:
            (listed,) = place.objects.list(place.root)
            out = place.folder / "out"
            fetch_all(place.objects, [Download(listed, out / path.name)], out, tell, patient)

    with pytest.raises(KeyboardInterrupt):
        move()
    # The stalled request would have kept it for a minute.
    assert time.monotonic() - interrupted[0] < 1
    # Its connection is gone, too.
    until(lambda: place.proxy.stalled == 0)
    place.proxy.clear()
    if up:
        place.upload(path)
        assert place.proxy.body_bytes("chunk").sent == LARGE - 2 * CHUNK
        place.check_bucket(path)
    else:
        place.download()
        assert place.proxy.body_bytes("get").received == LARGE - 2 * CHUNK
        place.check_folder(path)


def _flip(content: bytes) -> bytes:
    """One bit of the last quarter; in a multipart body that lies in the media."""
    at = len(content) * 3 // 4
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


def _other_checksum(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "crc32c": "AAAAAA=="}).encode()


