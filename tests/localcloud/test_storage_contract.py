"""What Google's own storage client may rely on, one body for every rig."""

from __future__ import annotations

import base64
import gzip
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from google.api_core import exceptions
from google.cloud.storage import transfer_manager

from tests.localcloud.conftest import Space

QUANTUM = 256 * 1024
ODD_NAMES = (
    "plain",
    "with space",
    "ünïcødé/日本",
    "hash#mark",
    "question?mark",
    "a//b",
    "per%2Fcent",
    "100%",
    "/leading",
    "trailing/",
    "quo'te\"s",
    "semi;colon&amp=eq",
    "tab\there",
    "plus+sign",
    "back\\slash",
    "x" * 900,
)


class Unsized(io.RawIOBase):
    """A stream that cannot tell its size."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._inner.tell()

    def readinto(self, buffer: Any) -> int:
        piece = self._inner.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def crc(content: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


@pytest.mark.parametrize("size", [0, 1, 20_000, 1_500_000])
def test_simple_round_trip(space: Space, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    blob = space.put("x", content[:size])
    assert blob.crc32c == crc(content[:size])
    assert blob.md5_hash is not None
    assert (blob.size, blob.metageneration, blob.content_type) == (size, 1, "text/plain")
    assert space.blob("x").download_as_bytes() == content[:size]


@pytest.mark.parametrize("size", [0, 1, QUANTUM - 1, QUANTUM, 2 * QUANTUM, 2 * QUANTUM + 7])
@pytest.mark.parametrize("sized", [True, False])
def test_resumable(space: Space, size: int, sized: bool) -> None:
    content = b"0123456789abcdef" * (size // 16 + 1)
    content = content[:size]
    blob = space.blob("x", chunk_size=QUANTUM)
    if sized:
        blob.upload_from_file(io.BytesIO(content), size=size, if_generation_match=0)
    else:
        blob.upload_from_file(Unsized(content), if_generation_match=0)
    assert (blob.size, blob.crc32c) == (size, crc(content))
    assert space.blob("x").download_as_bytes() == content


def test_writer_and_reader(space: Space) -> None:
    with space.blob("x").open("wb", chunk_size=QUANTUM) as out:
        for _ in range(5):
            out.write(b"z" * 100_000)
    with space.blob("x").open("rb", chunk_size=QUANTUM) as back:
        back.seek(499_990)
        assert back.read() == b"z" * 10


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(space: Space, name: str) -> None:
    space.put(name, name.encode())
    assert space.names() == [name]
    assert space.blob(name).download_as_bytes() == name.encode()
    copied = space.bucket.copy_blob(space.blob(name), space.bucket, space.prefix + name + "~")
    assert copied.name == space.prefix + name + "~"
    space.blob(name).delete()
    assert space.names() == [name + "~"]


@pytest.mark.parametrize("name", ["", "x" * 1025, "new\nline"])
def test_refused_names(space: Space, name: str) -> None:
    with pytest.raises((exceptions.BadRequest, exceptions.NotFound, ValueError)):
        space.bucket.blob(name).upload_from_string(b"x")


def test_ranges(space: Space) -> None:
    space.put("x", bytes(range(100)))
    blob = space.blob("x")
    assert blob.download_as_bytes(start=10, end=19) == bytes(range(10, 20))
    assert blob.download_as_bytes(start=90) == bytes(range(90, 100))
    assert blob.download_as_bytes(start=90, end=5000) == bytes(range(90, 100))
    assert blob.download_as_bytes(start=-5) == bytes(range(95, 100))
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=100)


@pytest.mark.parametrize("kind", ["crc32c", "md5_hash"])
def test_wrong_checksum_stores_nothing(space: Space, kind: str) -> None:
    blob = space.blob("x")
    setattr(blob, kind, "AAAAAA==" if kind == "crc32c" else "AAAAAAAAAAAAAAAAAAAAAA==")
    with pytest.raises(exceptions.BadRequest):
        blob.upload_from_string(b"content", checksum=None)
    assert space.names() == []


def test_preconditions(space: Space) -> None:
    with pytest.raises(exceptions.PreconditionFailed, match="pre-conditions"):
        space.put("x", b"1", if_generation_match=7)
    blob = space.put("x", b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        space.put("x", b"2", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        space.put("x", b"2", if_generation_not_match=blob.generation)
    with pytest.raises(exceptions.PreconditionFailed):
        space.put("x", b"2", if_metageneration_match=5)
    with pytest.raises(exceptions.PreconditionFailed):
        space.put("x", b"2", if_metageneration_not_match=1)
    newer = space.put("x", b"2", if_generation_match=blob.generation)
    assert newer.generation > blob.generation
    with pytest.raises(exceptions.PreconditionFailed):
        space.blob("x").delete(if_generation_match=blob.generation)
    with pytest.raises(exceptions.NotModified):
        space.blob("x").reload(if_generation_not_match=newer.generation)
    with pytest.raises(exceptions.PreconditionFailed):
        space.blob("x").download_as_bytes(if_generation_match=blob.generation)
    space.blob("x").delete(if_generation_match=newer.generation)
    assert space.names() == []


def test_resumable_precondition(space: Space) -> None:
    space.put("x", b"1")
    with pytest.raises(exceptions.PreconditionFailed):
        space.blob("x", chunk_size=QUANTUM).upload_from_file(io.BytesIO(b"x" * QUANTUM * 2), if_generation_match=0)


def test_overwritten_generation_is_gone(space: Space) -> None:
    old = space.put("x", b"old").generation
    space.put("x", b"new")
    with pytest.raises(exceptions.NotFound):
        space.blob("x", generation=old).download_as_bytes()
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
    with pytest.raises(exceptions.NotFound, match="No such object"):
        space.blob("nothing").download_as_bytes()
    with pytest.raises(exceptions.NotFound):
        space.blob("nothing").delete()
    assert not space.blob("nothing").exists()
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        list(space.bucket.client.bucket("gcpod-no-such-bucket-here").list_blobs())


def test_listing(space: Space) -> None:
    for name in ("a/1", "a/2", "b", "c/", "c/d/e", "z"):
        space.put(name)
    assert space.names() == ["a/1", "a/2", "b", "c/", "c/d/e", "z"]
    assert space.names("a/") == ["a/1", "a/2"]
    assert space.names(start_offset=space.prefix + "b", end_offset=space.prefix + "c/d") == ["b", "c/"]
    listing = space.bucket.list_blobs(prefix=space.prefix, delimiter="/")
    assert [one.name.removeprefix(space.prefix) for one in listing] == ["b", "z"]
    assert {one.removeprefix(space.prefix) for one in listing.prefixes} == {"a/", "c/"}
    assert space.names(delimiter="/", include_trailing_delimiter=True) == ["b", "c/", "z"]
    assert space.names(match_glob=space.prefix + "**/{1,e}") == ["a/1", "c/d/e"]
    assert space.names(match_glob=space.prefix + "*") == ["b", "z"]


def test_pages(space: Space) -> None:
    names = [f"{number:02}" for number in range(7)]
    for name in names:
        space.put(name)
    pages = [[one.name for one in page] for page in space.bucket.list_blobs(prefix=space.prefix, page_size=3).pages]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert space.names(max_results=2) == names[:2]


def test_compose(space: Space) -> None:
    parts = [space.put(f"part{number}", str(number).encode() * 10) for number in range(3)]
    whole = space.blob("whole")
    whole.content_type = "application/x-test"
    whole.compose(parts, if_generation_match=0)
    content = b"0" * 10 + b"1" * 10 + b"2" * 10
    assert (whole.component_count, whole.crc32c, whole.md5_hash) == (3, crc(content), None)
    again = space.blob("again")
    again.compose([whole, parts[0]])
    assert (again.component_count, again.download_as_bytes()) == (4, content + b"0" * 10)
    with pytest.raises(exceptions.PreconditionFailed):
        again.compose(parts, if_source_generation_match=[1, 2, 3])
    with pytest.raises(exceptions.BadRequest):
        space.blob("many").compose([parts[0]] * 33)
    with pytest.raises(exceptions.NotFound):
        space.blob("many").compose([space.blob("missing")])


def test_rewrite_and_copy(space: Space) -> None:
    source = space.blob("source")
    source.metadata = {"k": "v"}
    source.upload_from_string(b"content", content_type="image/png")
    target = space.blob("target")
    assert target.rewrite(source) == (None, 7, 7)
    target.reload()
    assert (target.content_type, target.metadata, target.md5_hash) == ("image/png", {"k": "v"}, source.md5_hash)
    with pytest.raises(exceptions.PreconditionFailed):
        target.rewrite(source, if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        space.blob("other").rewrite(source, if_source_generation_match=1)
    source.delete()
    assert target.download_as_bytes() == b"content"


def test_patch_and_update(space: Space) -> None:
    blob = space.put("x", b"1")
    generation = blob.generation
    blob.metadata = {"a": "1", "b": "2"}
    blob.cache_control = "no-store"
    blob.patch()
    assert (blob.metageneration, blob.generation) == (2, generation)
    blob.metadata = {"a": None}
    blob.patch(if_metageneration_match=2)
    blob.reload()
    assert (blob.metadata, blob.cache_control, blob.metageneration) == ({"b": "2"}, "no-store", 3)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.patch(if_metageneration_match=2)


def test_gzip_transcoding(space: Space) -> None:
    blob = space.blob("x")
    blob.content_encoding = "gzip"
    packed = gzip.compress(b"text " * 1000)
    blob.upload_from_string(packed)
    assert blob.download_as_bytes() == b"text " * 1000
    assert blob.download_as_bytes(raw_download=True) == packed


def test_batch(space: Space) -> None:
    blobs = [space.put(f"x{number}") for number in range(5)]
    with space.bucket.client.batch():
        for blob in blobs[:4]:
            blob.delete()
    assert space.names() == ["x4"]
    last = [space.blob("x4"), space.blob("missing")]
    with pytest.raises(exceptions.NotFound):
        space.bucket.delete_blobs([last[1]])
    mixed = space.bucket.client.batch(raise_exception=False)
    with mixed:
        for blob in last:
            blob.delete()
    assert space.names() == []


def test_transfer_manager(space: Space, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"f{number}").write_bytes(b"%d" % number * 1000)
    names = [f"f{number}" for number in range(20)]
    pairs = [(str(tmp_path / name), space.blob(name)) for name in names]
    outcome = transfer_manager.upload_many(pairs, worker_type=transfer_manager.THREAD, skip_if_exists=True)
    assert outcome == [None] * 20
    again = transfer_manager.upload_many(pairs, worker_type=transfer_manager.THREAD, skip_if_exists=True)
    assert all(isinstance(one, exceptions.PreconditionFailed) for one in again) or again == [None] * 20
    assert len(space.names()) == 20


def test_parts_in_parallel(space: Space, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"0123456789abcdef" * (700 * 1024))
    blob = space.blob("big")
    transfer_manager.upload_chunks_concurrently(
        str(big), blob, chunk_size=5 << 20, max_workers=2, worker_type=transfer_manager.THREAD
    )
    blob.reload()
    assert blob.crc32c == crc(big.read_bytes())
    back = tmp_path / "back"
    transfer_manager.download_chunks_concurrently(
        blob, str(back), chunk_size=3 << 20, max_workers=2, worker_type=transfer_manager.THREAD
    )
    assert back.read_bytes() == big.read_bytes()
