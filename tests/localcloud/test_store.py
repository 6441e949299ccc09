"""The object store by itself: listing against a model, crashes, generations."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcpod.localcloud.bodies import RawBody
from gcpod.localcloud.listing import ListQuery
from gcpod.localcloud.records import (
    NO_CONDITIONS,
    InvalidRequestError,
    NoSuchObjectError,
    ObjectMeta,
    PreconditionError,
    Preconditions,
    UploadGoneError,
)
from gcpod.localcloud.sessions import Checksums, Intent, Sessions
from gcpod.localcloud.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    made.create_bucket("bkt", "p", {})
    yield made
    made.close()


def put(store: Store, name: str, content: bytes = b"x", conditions: Preconditions = NO_CONDITIONS) -> ObjectMeta:
    return store.insert("bkt", name, store.blobs.write([content]), {}, conditions)


def blobs(store: Store) -> int:
    return sum(1 for _ in store.blobs.path("").glob("*/*"))


def test_generations_increase_under_a_standing_clock(tmp_path: Path) -> None:
    store = Store(tmp_path, clock=lambda: 5)
    store.create_bucket("bkt", "p", {})
    generations = [put(store, "x").generation for _ in range(5)]
    assert generations == sorted(set(generations))
    store.close()


def test_nothing_stays_of_what_is_overwritten_or_refused(store: Store) -> None:
    put(store, "x")
    put(store, "x")
    with pytest.raises(PreconditionError):
        put(store, "x", conditions=Preconditions(generation_match=0))
    assert blobs(store) == 1
    store.delete("bkt", "x")
    assert blobs(store) == 0


def test_an_open_read_outlives_its_object(store: Store) -> None:
    put(store, "x", b"old")
    _, file = store.open("bkt", "x")
    put(store, "x", b"new")
    store.delete("bkt", "x")
    with file:
        assert file.read() == b"old"


def test_orphans_are_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create_bucket("bkt", "p", {})
    put(store, "x", b"kept")
    store.blobs.write([b"never committed"])
    store.close()
    again = Store(tmp_path)
    assert blobs(again) == 1
    with again.open("bkt", "x")[1] as file:
        assert file.read() == b"kept"
    again.close()


def test_a_failing_write_leaves_nothing(store: Store) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.blobs.write(broken())
    assert blobs(store) == 0


def test_move(store: Store) -> None:
    old = put(store, "a", b"content")
    put(store, "b", b"other")
    moved = store.move("bkt", "a", "b", NO_CONDITIONS, NO_CONDITIONS)
    assert moved.generation > old.generation
    with pytest.raises(NoSuchObjectError):
        store.get("bkt", "a")
    assert blobs(store) == 1


def test_sessions_expire(tmp_path: Path) -> None:
    clock = itertools.count(0, 4 * 24 * 3600 * 1_000_000)
    store = Store(tmp_path, clock=lambda: next(clock))
    store.create_bucket("bkt", "p", {})
    sessions = Sessions(store)
    upload = sessions.start(Intent("bkt", "x", {}, NO_CONDITIONS, Checksums(), None))
    next(clock)
    with pytest.raises(UploadGoneError):
        sessions.append(upload, None, RawBody(1, True, b"x"), Checksums())
    assert blobs(store) == 0
    store.close()


def test_bad_token_and_glob(store: Store) -> None:
    for query in (ListQuery(page_token="nonsense"), ListQuery(page_token="WzEsMiwzXQ=="), ListQuery(match_glob="{a")):
        with pytest.raises(InvalidRequestError):
            store.list("bkt", query)


NAMES = st.sets(st.text("ab/é\U0010ffff", min_size=1, max_size=6), max_size=25)
PIECE = st.text("ab/é\U0010ffff", max_size=3)


def model(names: set[str], query: ListQuery) -> tuple[list[str], list[str]]:
    objects, prefixes = [], []
    for name in sorted(names, key=lambda one: one.encode()):
        encoded = name.encode()
        if not name.startswith(query.prefix) or encoded < query.start_offset.encode():
            continue
        if query.end_offset and encoded >= query.end_offset.encode():
            continue
        rest = name[len(query.prefix) :]
        if query.delimiter and query.delimiter in rest:
            common = query.prefix + rest[: rest.index(query.delimiter) + len(query.delimiter)]
            if common not in prefixes:
                prefixes.append(common)
            if not (query.trailing_delimiter and name == common):
                continue
        objects.append(name)
    return objects, prefixes


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES, PIECE, st.sampled_from(["", "/", "a", "b/"]), st.booleans(), PIECE, PIECE, st.integers(1, 5))
def test_listing_against_a_model(
    store: Store,
    names: set[str],
    prefix: str,
    delimiter: str,
    trailing: bool,
    start: str,
    end: str,
    limit: int,
) -> None:
    for one in store.list("bkt", ListQuery()).objects:
        store.delete("bkt", one.name)
    for name in names - {"."}:
        put(store, name)
    query = ListQuery(prefix, delimiter, trailing, start, end, "", limit)
    objects: list[str] = []
    prefixes: list[str] = []
    token: str | None = ""
    while token is not None:
        page = store.list("bkt", ListQuery(prefix, delimiter, trailing, start, end, "", limit, token))
        assert len(page.objects) + len(page.prefixes) <= limit
        objects += [one.name for one in page.objects]
        prefixes += page.prefixes
        token = page.next_token
        assert token is None or len(page.objects) + len(page.prefixes) == limit
    assert (objects, prefixes) == model(names, query)


def test_a_body_in_a_file_is_moved(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "spooled"
    path.write_bytes(b"y" * 3_000_000)
    blob = store.blobs.keep(RawBody(3_000_000, True, path=path))
    assert not path.exists()
    assert blob.md5 == store.blobs.keep(RawBody(3_000_000, True, data=io.BytesIO(b"y" * 3_000_000).read())).md5
