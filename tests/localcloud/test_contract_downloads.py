"""The contract of Google's own client with the storage service: what comes down, whole, in ranges and as streams."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcpod.localcloud.server import LocalCloud
from tests.localcloud.conftest import AT_ONCE, QUANTUM, Raw, Space, local_client


def test_ranges(space: Space) -> None:
    space.put("x", bytes(range(100)))
    blob = space.blob("x")
    assert blob.download_as_bytes(start=10, end=19) == bytes(range(10, 20))
    assert blob.download_as_bytes(start=90) == bytes(range(90, 100))
    assert blob.download_as_bytes(start=90, end=5000) == bytes(range(90, 100))
    assert blob.download_as_bytes(start=0, end=0) == b"\0"
    assert blob.download_as_bytes(end=9) == bytes(range(10))
    assert blob.download_as_bytes(start=-5) == bytes(range(95, 100))
    assert blob.download_as_bytes(start=-500) == bytes(range(100))
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=100)
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=100, end=200)


@pytest.mark.parametrize("path", ["/download/storage/v1/b/{}/o/x?alt=media", "/storage/v1/b/{}/o/x?alt=media", "/{}/x"])
def test_ranges_on_the_wire(raw: Raw, bucket: Any, path: str) -> None:
    bucket.blob("x").upload_from_string(b"0123456789")
    bucket.blob("x").reload()
    where = path.format(bucket.name)
    for asked, told, content in (
        ("bytes=2-4", "bytes 2-4/10", b"234"), ("bytes=7-", "bytes 7-9/10", b"789"),
        ("bytes=-3", "bytes 7-9/10", b"789"), ("bytes=0-99", "bytes 0-9/10", b"0123456789"),
    ):
        reply = raw("GET", where, Range=asked)
        assert (reply.status, reply.headers["Content-Range"], reply.content) == (206, told, content)
        assert reply.headers["Content-Length"] == str(len(content))
    for asked in ("bytes=10-", "bytes=10-20", "bytes=-0"):
        reply = raw("GET", where, Range=asked)
        assert (reply.status, reply.headers["Content-Range"]) == (416, "bytes */10")
    for asked in ("bytes=4-2", "bytes=-", "lines=1-2", "bytes=a-b"):
        assert (raw("GET", where, Range=asked).status, raw("GET", where, Range=asked).content) == (200, b"0123456789")


def test_nothing_in_it(space: Space, raw: Raw, tmp_path: Path) -> None:
    space.put("x", b"")
    assert space.blob("x").download_as_bytes() == b""
    assert space.blob("x", chunk_size=QUANTUM).download_as_bytes() == b""
    with space.blob("x").open("rb") as file:
        assert file.read() == b""
    space.blob("x").download_to_filename(str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b""
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        space.blob("x").download_as_bytes(start=1)


def test_in_chunks(space: Space) -> None:
    content = bytes(range(256)) * 2500
    space.put("x", content)
    held = io.BytesIO()
    space.blob("x", chunk_size=QUANTUM).download_to_file(held)
    assert held.getvalue() == content
    held = io.BytesIO()
    space.blob("x", chunk_size=QUANTUM).download_to_file(held, start=100, end=2 * QUANTUM + 1)
    assert held.getvalue() == content[100 : 2 * QUANTUM + 2]
    held = io.BytesIO()
    space.bucket.client.download_blob_to_file(f"gs://{space.bucket.name}/{space.prefix}x", held)
    assert held.getvalue() == content
    assert space.blob("x").download_as_bytes(single_shot_download=True) == content


def test_what_a_download_tells(space: Space, tmp_path: Path) -> None:
    sent = space.blob("x")
    sent.cache_control = "no-store"
    sent.upload_from_string(b"content", content_type="text/x-test")
    sent.reload()
    for whole in (True, False):
        got = space.blob("x")
        got.download_to_filename(str(tmp_path / "x"), **({} if whole else {"start": 1}))
        assert (got.content_type, got.cache_control, got.storage_class) == ("text/x-test", "no-store", "STANDARD")
        assert (got.crc32c, got.md5_hash, got.generation) == (sent.crc32c, sent.md5_hash, sent.generation)
        assert got.metageneration == sent.metageneration


def test_reader(space: Space) -> None:
    content = b"".join(b"%07d\n" % number for number in range(100_000))
    space.put("x", content)
    with space.blob("x").open("rb", chunk_size=QUANTUM) as file:
        assert file.readline() == b"0000000\n"
        assert file.seek(799_990) == 799_990
        assert file.read() == content[799_990:]
        assert file.read() == b""
        assert file.seek(-8, io.SEEK_END) == len(content) - 8
        assert file.read(100) == b"0099999\n"
    with space.blob("x").open("rt", chunk_size=QUANTUM) as lines:
        assert sum(1 for _ in lines) == 100_000
    with pytest.raises(exceptions.NotFound), space.blob("missing").open("rb") as file:
        file.read()


def test_etags(space: Space) -> None:
    space.put("x", b"old")
    blob = space.bucket.get_blob(space.prefix + "x")
    assert blob.download_as_bytes(if_etag_match=blob.etag) == b"old"
    with pytest.raises(exceptions.NotModified):
        blob.download_as_bytes(if_etag_not_match=[blob.etag, "other"])
    with pytest.raises(exceptions.NotModified):
        blob.reload(if_etag_not_match=blob.etag)
    assert blob.exists(if_etag_match=blob.etag)
    space.put("x", b"new")
    stale = space.blob("x")
    with pytest.raises(exceptions.PreconditionFailed):
        stale.download_as_bytes(if_etag_match=blob.etag)
    with pytest.raises(exceptions.PreconditionFailed):
        stale.reload(if_etag_match=[blob.etag])
    assert stale.download_as_bytes(if_etag_not_match=blob.etag) == b"new"


PACKED = gzip.compress(b"text " * 1000)


def put_packed(space: Space, content: bytes = PACKED) -> Any:
    blob = space.blob("x")
    blob.content_encoding = "gzip"
    blob.upload_from_string(content)
    return blob


def test_gzip(space: Space) -> None:
    blob = put_packed(space)
    assert (blob.size, blob.content_encoding) == (len(PACKED), "gzip")
    assert blob.download_as_bytes() == b"text " * 1000
    assert blob.download_as_text() == "text " * 1000
    assert blob.download_as_bytes(raw_download=True) == PACKED
    assert blob.download_as_bytes(raw_download=True, start=3, end=12) == PACKED[3:13]
    held = io.BytesIO()
    blob.download_to_file(held, raw_download=True)
    assert held.getvalue() == PACKED


def test_gzip_is_undone_for_who_cannot_take_it(raw: Raw, bucket: Any) -> None:
    put_packed(Space(bucket, ""))
    where = f"/download/storage/v1/b/{bucket.name}/o/x?alt=media"
    plain = raw("GET", where, Accept_Encoding="identity")
    assert (plain.status, plain.content, plain.headers["Content-Encoding"]) == (200, b"text " * 1000, None)
    assert plain.headers["X-Goog-Stored-Content-Encoding"] == "gzip"
    assert plain.headers["X-Goog-Stored-Content-Length"] == str(len(PACKED))
    packed = raw("GET", where, Accept_Encoding="gzip")
    assert (packed.content, packed.headers["Content-Encoding"]) == (PACKED, "gzip")
    ranged = raw("GET", where, Accept_Encoding="identity", Range="bytes=0-3")
    assert (ranged.status, ranged.content) == (200, b"text " * 1000)
    kept = bucket.blob("x")
    kept.cache_control = "no-transform"
    kept.patch()
    assert raw("GET", where, Accept_Encoding="identity").content == PACKED


class Broken:
    """Breaks the first reply with an object's bytes off after some of them."""

    def __init__(self, after: int) -> None:
        self.after, self.ranges, self.broken = after, list[str](), False

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            download = scope["path"].startswith("/download/")
            if download:
                self.ranges.append(dict(scope["headers"]).get(b"range", b"").decode())
            if not download or self.broken:
                await app(scope, receive, send)
                return
            self.broken, sent = True, 0

            async def some(message: Message) -> None:
                nonlocal sent
                body = message.get("body", b"")
                if sent + len(body) > self.after:
                    await send({**message, "body": body[: self.after - sent], "more_body": True})
                    raise ConnectionResetError("told to break")
                sent += len(body)
                await send(message)

            await app(scope, receive, some)

        return serve


def test_a_broken_download_goes_on_where_it_was(tmp_path: Path) -> None:
    content = bytes(range(256)) * 16_000
    broken = Broken(1_500_000)
    with LocalCloud(tmp_path, middleware=broken.wrap) as cloud:
        client = local_client(cloud.url)
        blob = client.create_bucket("bkt").blob("x")
        blob.upload_from_string(content)
        assert blob.download_as_bytes(retry=AT_ONCE) == content
        client.close()
    first, second = broken.ranges
    assert first == ""
    assert second.startswith("bytes=")
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 1_500_000
