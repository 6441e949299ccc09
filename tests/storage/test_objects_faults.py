"""Small objects under every fault that a network or a service can have, over one connection that stays open."""

from __future__ import annotations

import gc
import gzip
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpod.checksums import crc32c_text
from gcpod.errors import AuthError, GcpodError, OutageError, StorageError
from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec, StorageSpec
from gcpod.storage.calls import Content
from gcpod.storage.objects import Objects
from gcpod.storage.traffic import TransferOptions
from gcpod.uris import GcsUri
from tests.waiting import until

from .faulty import Faulty
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
    StatusAfter,
)
from .place import OPTIONS, PASSING, Place, placed
from .test_transfer_edges import Canned, reply

BYTES = b"a claim of a few bytes, of which some may get lost"


class Quick(Objects):
    """Tries again at once; notices what stands still early in tests in which something does."""

    stall_s = OPTIONS.stall_s

    @property
    def transfer_options(self) -> TransferOptions:
        return replace(super().transfer_options, stall_s=self.stall_s, pause_s=0.01)


class Impatient(Quick):
    stall_s = 0.15


@pytest.fixture(scope="module")
def shared(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(cloud, tmp_path_factory.mktemp("objects")) as made:
        yield made


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    yield shared
    shared.proxy.clear()


@pytest.fixture
def own(cloud: LocalCloud, tmp_path: Path) -> Iterator[Place]:
    """A place whose connections nobody else makes or leaves."""
    with placed(cloud, tmp_path) as made:
        yield made


@pytest.fixture
def small(place: Place, request: pytest.FixtureRequest) -> Iterator[Objects]:
    asked = request.node.callspec.params.get("action") if hasattr(request.node, "callspec") else None
    kind = Impatient if isinstance(asked, (StallBefore, StallReply, StallRequest)) else Quick
    with closing(kind(place.objects.session, patience_s=20.0)) as made:
        yield made


@pytest.fixture
def where(place: Place) -> GcsUri:
    return place.root / f"{uuid.uuid4()} é#?.json"


def named(value: object) -> str:
    return type(value).__name__ if isinstance(value, (Alter, AlterRequest)) else str(value)


def written(objects: Objects, where: GcsUri, content: bytes = BYTES) -> int:
    generation = objects.write_if(where, content, 0)
    assert generation is not None
    return generation


def flip(content: bytes) -> bytes:
    """One bit of the bytes, also within a multipart body."""
    at = content.find(BYTES) + 3
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


def other_checksum(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "crc32c": "AAAAAA=="}).encode()


CUT: tuple[Action, ...] = (CutReply(10), ShortReply(10))
# Which statuses pass is the same for all requests, and tried with two of them.
FEW: tuple[Action, ...] = (Status(503), StatusAfter(503), ResetBefore(), ResetAfter(), StallBefore())
NO_OBJECT = Alter(lambda _: b"[]")


@pytest.mark.parametrize("action", [*PASSING, *CUT, Alter(flip)], ids=named)
def test_a_read_survives(place: Place, small: Objects, where: GcsUri, action: Action) -> None:
    generation = written(small, where)
    place.proxy.spoil(Fault("get", action))
    assert small.read(where) == Content(BYTES, generation)
    assert (place.proxy.unused, place.proxy.count("get")) == ([], 2)


@pytest.mark.parametrize(("action", "replaced"), [
    *((action, False) for action in (*PASSING, *CUT, StallRequest(0), AlterRequest(flip))),
    *((action, True) for action in (*FEW[:4], NO_OBJECT, Alter(other_checksum), CutRequest(60))),
], ids=named)
def test_a_conditional_write_survives(
    place: Place, small: Objects, where: GcsUri, action: Action, replaced: bool,
) -> None:
    before = written(small, where, b"before") if replaced else 0
    place.proxy.spoil(Fault("insert", action))
    generation = small.write_if(where, BYTES, before)
    assert generation is not None
    assert generation > before
    assert small.read(where) == Content(BYTES, generation)
    assert (place.proxy.unused, place.proxy.count("insert")) == ([], 2 + replaced)


@pytest.mark.parametrize("action", [*FEW[:4], CutRequest(60), AlterRequest(flip)], ids=named)
def test_anothers_object_is_neither_replaced_nor_taken_for_ours(
    place: Place, small: Objects, where: GcsUri, action: Action,
) -> None:
    theirs = written(small, where, b"theirs")
    place.proxy.clear()
    place.proxy.spoil(Fault("insert", action))
    assert small.write_if(where, BYTES, 0) is None
    assert small.write_if(where, BYTES, theirs - 1) is None
    assert small.read(where) == Content(b"theirs", theirs)
    assert place.proxy.unused == []


def test_the_same_bytes_under_the_generation_that_was_refused_are_not_ours(small: Objects, where: GcsUri) -> None:
    generation = written(small, where)
    newer = small.write_if(where, b"between", generation)
    assert newer is not None
    assert small.delete_if(where, newer)
    assert small.write_if(where, BYTES, generation) is None
    assert small.read(where) is None


@pytest.mark.parametrize("action", FEW, ids=named)
def test_a_deletion_survives(place: Place, small: Objects, where: GcsUri, action: Action) -> None:
    generation = written(small, where)
    place.proxy.spoil(Fault("delete", action))
    # Who repeats a deletion cannot know whether it was the first one that took effect.
    lost = isinstance(action, (StatusAfter, ResetAfter))
    assert small.delete_if(where, generation) is not lost
    assert (place.proxy.unused, place.proxy.count("delete")) == ([], 2)
    assert not small.exists(where)


@pytest.mark.parametrize("action", FEW[:4], ids=named)
def test_another_generation_is_never_deleted(place: Place, small: Objects, where: GcsUri, action: Action) -> None:
    generation = written(small, where)
    place.proxy.spoil(Fault("delete", action))
    assert not small.delete_if(where, generation - 1)
    assert small.read(where) == Content(BYTES, generation)
    assert place.proxy.unused == []


@pytest.mark.parametrize(("action", "there"), [
    *((action, True) for action in (*FEW, *CUT)), (ResetAfter(), False), (StatusAfter(503), False),
], ids=named)
def test_a_look_survives(place: Place, small: Objects, where: GcsUri, action: Action, there: bool) -> None:
    if there:
        written(small, where)
    place.proxy.spoil(Fault("metadata", action))
    assert small.exists(where) is there
    assert (place.proxy.unused, place.proxy.count("metadata")) == ([], 2)


@pytest.mark.parametrize("action", [*FEW[:4], *CUT], ids=named)
def test_the_look_for_a_bucket_survives(place: Place, small: Objects, action: Action) -> None:
    place.proxy.spoil(Fault("other", action))
    assert not small.ensure_bucket(place.root.bucket)
    assert (place.proxy.unused, place.proxy.count("any")) == ([], 2)


def test_bytes_that_always_arrive_damaged_are_an_error(place: Place, small: Objects, where: GcsUri) -> None:
    place.proxy.spoil(Fault("insert", AlterRequest(flip), times=3))
    with pytest.raises(StorageError, match=r"writing gs://.*its bytes arrived damaged 3 times"):
        small.write_if(where, BYTES, 0)
    assert not small.exists(where)
    written(small, where)
    place.proxy.spoil(Fault("get", Alter(flip), times=None))
    with pytest.raises(StorageError, match=r"reading gs://.*its bytes arrived damaged 3 times"):
        small.read(where)
    assert place.proxy.count("get") == 3


CALLS: dict[Operation, Callable[[Objects, GcsUri], object]] = {
    "get": lambda objects, where: objects.read(where), "metadata": lambda objects, where: objects.exists(where),
    "insert": lambda objects, where: objects.write_if(where, b"", 0),
    "delete": lambda objects, where: objects.delete_if(where, 1),
    "other": lambda objects, where: objects.ensure_bucket(where.bucket),
}


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("action", [Status(503), ResetAfter()], ids=named)
def test_patience_ends(place: Place, where: GcsUri, operation: Operation, action: Action) -> None:
    place.proxy.spoil(Fault(operation, action, times=None))
    with closing(Quick(place.objects.session, patience_s=0.05)) as objects, pytest.raises(OutageError) as caught:
        CALLS[operation](objects, where)
    assert (where.bucket in str(caught.value), "\n" in str(caught.value)) == (True, False)
    assert 1 < place.proxy.count(operation) < 20


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize(("status", "advice"), [
    (401, "run `gcloud auth"), (403, "grant roles/storage.objectAdmin"), (400, "answered 400"),
])
def test_a_refusal_is_told_and_not_repeated(
    place: Place, small: Objects, where: GcsUri, operation: Operation, status: int, advice: str,
) -> None:
    place.proxy.spoil(Fault(operation, Status(status), times=None))
    if (operation, status) == ("other", 403):
        # A bucket that may not be looked at can be there all the same.
        assert not small.ensure_bucket(where.bucket)
    else:
        with pytest.raises(StorageError if status == 400 else AuthError, match=advice) as caught:
            CALLS[operation](small, where)
        assert (where.bucket in str(caught.value), "\n" in str(caught.value)) == (True, False)
    assert place.proxy.count(operation) == 1


def test_a_write_into_no_bucket_is_told(small: Objects) -> None:
    nowhere = GcsUri("nobody-has-this", "x")
    assert small.read(nowhere) is None
    assert not small.exists(nowhere)
    with pytest.raises(StorageError, match=r"writing gs://nobody-has-this/x: .*answered 404.*let `gcpod run`"):
        small.write_if(nowhere, b"", 0)


def test_one_connection_does_it_all_and_is_closed_with_the_object(own: Place) -> None:
    before, where = own.proxy.connections, own.root / "small"
    objects = Objects(own.objects.session)
    for content in (b"", b"\r\n--", bytes(range(256)) * 1000):
        objects.write(where, content)
        found = objects.read(where)
        assert found is not None
        assert found.content == content
        assert objects.exists(where)
        assert [one.size for one in objects.list_exactly(where)] == [len(content)]
        assert objects.delete_if(where, found.generation)
    assert not objects.ensure_bucket(where.bucket)
    assert own.proxy.connections.ever == before.ever + 1
    assert own.proxy.connections.open == before.open + 1
    objects.close()
    until(lambda: own.proxy.connections.open == before.open)
    # What is asked for later is answered, on another one; that goes with the object, without a warning.
    assert not objects.exists(where)
    assert own.proxy.connections.ever == before.ever + 2
    del objects
    gc.collect()
    until(lambda: own.proxy.connections.open == before.open)


def test_threads_have_a_connection_each_and_nobody_elses_answer(own: Place) -> None:
    before, gate = own.proxy.connections, threading.Barrier(4)

    def work(number: int) -> bool:
        if number < 4:
            gate.wait()
        where = own.root / str(number)
        generation = objects.write_if(where, str(number).encode(), 0)
        assert generation is not None
        return objects.read(where) == Content(str(number).encode(), generation) and objects.delete_if(where, generation)

    with closing(Objects(own.objects.session)) as objects, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))
        assert 1 <= own.proxy.connections.ever - before.ever <= 4
    until(lambda: own.proxy.connections.open == before.open)


def test_a_connection_that_was_closed_while_it_was_idle_costs_no_patience(cloud: LocalCloud, where: GcsUri) -> None:
    with Faulty(cloud.url) as first:
        session = Session(resolve(Spec(), endpoint=first.url, environ={}, home=Path()))
        with closing(Objects(session, patience_s=0.0)) as objects:
            generation = written(objects, where)
            first.spoil(Fault("get", ResetAfter()))
            assert objects.read(where) == Content(BYTES, generation)


def test_the_metadata_of_new_objects_and_who_pays(place: Place, where: GcsUri) -> None:
    key = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    spec = Spec(storage=StorageSpec(user_project="payer", kms_key=key, storage_class="NEARLINE"))
    place.proxy.clear()
    session = Session(resolve(spec, endpoint=place.proxy.url, environ={}, home=Path()))
    with closing(Objects(session)) as objects:
        assert not objects.ensure_bucket(where.bucket)
        objects.write(where, BYTES)
        assert objects.exists(where)
        found = objects.read(where)
        assert found is not None
        stored = place.objects.session.storage.bucket(where.bucket).get_blob(where.name)
        assert objects.delete_if(where, found.generation)
    ours = [one for one in place.proxy.log if one.headers["user-agent"] == "gcpod"]
    assert [one.operation for one in ours] == ["other", "list", "insert", "metadata", "get", "delete"]
    assert {one.query.get("userProject") for one in ours} == {"payer"}
    assert (stored.content_type, stored.storage_class, stored.kms_key_name) == ("application/json", "NEARLINE", key)
    assert stored.crc32c == crc32c_text(google_crc32c.value(BYTES))


def test_what_is_stored_as_gzip_is_read_unpacked(
    place: Place, small: Objects, where: GcsUri, monkeypatch: pytest.MonkeyPatch,
) -> None:
    blob = place.objects.session.storage.bucket(where.bucket).blob(where.name)
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(BYTES) + gzip.compress(BYTES))
    found = small.read(where)
    assert found == Content(2 * BYTES, blob.generation)
    monkeypatch.setattr("gcpod.storage.calls.MOST_BYTES", 2 * len(BYTES) - 1)
    with pytest.raises(StorageError, match="unpacks to more than 99 bytes; use `gcpod copy`"):
        small.read(where)
    for content in (b"no gzip", gzip.compress(BYTES)[:-9], gzip.compress(BYTES)[:12] + b"\xff" * 9):
        blob.content_encoding = "gzip"
        blob.upload_from_string(content)
        with pytest.raises(StorageError, match="it says that it is gzip, and is none"):
            small.read(where)


def test_a_large_object_is_not_read_into_memory(
    place: Place, small: Objects, where: GcsUri, monkeypatch: pytest.MonkeyPatch,
) -> None:
    written(small, where)
    monkeypatch.setattr("gcpod.storage.channel.MOST_BYTES", len(BYTES) - 1)
    with pytest.raises(StorageError, match=f"it has {len(BYTES)} bytes.*use `gcpod copy`"):
        small.read(where)
    monkeypatch.undo()
    assert small.read(where) is not None
    assert place.proxy.count("get") == 2


def media(*headers: str, content: bytes = BYTES) -> bytes:
    fields = "".join(f"{one}\r\n" for one in (*headers, f"Content-Length: {len(content)}"))
    return f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + content


RIGHT, WRONG = f"X-Goog-Hash: crc32c={crc32c_text(google_crc32c.value(BYTES))}", "X-Goog-Hash: crc32c=AAAAAA=="
SEVEN = "X-Goog-Generation: 7"


@pytest.mark.parametrize("headers", [
    (SEVEN, RIGHT), (SEVEN, RIGHT, "X-Goog-Hash: md5=AAAA"), (SEVEN, "x-goog-hash: md5=AAAA", RIGHT),
    (SEVEN, f"{RIGHT},md5=AAAA"), (SEVEN,), (SEVEN, "X-Goog-Hash: md5=AAAA"),
])
def test_an_objects_checksum_is_found_however_it_is_told(headers: tuple[str, ...]) -> None:
    with Canned(media(*headers)).serving() as server:
        assert server.objects.read(GcsUri("bucket", "x")) == Content(BYTES, 7)


@pytest.mark.parametrize(("headers", "found"), [
    ((SEVEN, WRONG), "damaged 3 times"), ((SEVEN, WRONG, "X-Goog-Hash: md5=AAAA"), "damaged 3 times"),
    ((RIGHT,), "tells no generation"), ((RIGHT, "X-Goog-Generation: -7"), "tells no generation"),
    ((RIGHT, SEVEN, SEVEN), "tells no generation"), ((RIGHT, "X-Goog-Generation: " + "7" * 30), "tells no generation"),
])
def test_a_reply_that_cannot_be_true_is_not_believed(headers: tuple[str, ...], found: str) -> None:
    with Canned(media(*headers)).serving() as server, pytest.raises(GcpodError, match=found):
        server.objects.read(GcsUri("bucket", "x"))


TRUE = reply("200 OK", json.dumps({"generation": "7", "crc32c": "AAAAAA=="}).encode(), X_Goog_Generation=7)


def test_whatever_a_service_answers_is_a_result_or_a_coded_error() -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.one_of(
        st.binary(max_size=60),
        st.tuples(st.integers(0, len(TRUE)), st.binary(max_size=3), st.integers(0, 20)).map(
            lambda cut: TRUE[:cut[0]] + cut[1] + TRUE[cut[0] + cut[2]:]),
        st.tuples(st.integers(100, 999), st.binary(max_size=40)).map(lambda of: reply(f"{of[0]} So", of[1])),
    ), st.sampled_from(["get", "insert", "delete", "metadata"]))
    def ask(answer: bytes, operation: Operation) -> None:
        # Anything but a coded error fails the test.
        with Canned(answer).serving() as server, suppress(GcpodError):
            CALLS[operation](server.objects, GcsUri("bucket", "x"))

    ask()
