"""The contract of Google's own client with the storage service: what goes up, by every way that the client has."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.storage import transfer_manager
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcpod.localcloud.server import LocalCloud
from tests.localcloud.conftest import AT_ONCE, QUANTUM, Space, crc, local_client


@pytest.fixture
def always_resumable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client takes files of known size up to 8 MiB in one request; here it sends them as it does larger ones."""
    monkeypatch.setattr("google.cloud.storage.blob._MAX_MULTIPART_SIZE", -1)




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


@pytest.mark.parametrize("size", [0, 1, 20_000, 1_500_000])
def test_in_one_request(space: Space, size: int) -> None:
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    blob = space.put("x", content)
    md5 = hashlib.md5(content, usedforsecurity=False)
    assert (blob.crc32c, blob.md5_hash) == (crc(content), base64.b64encode(md5.digest()).decode())
    assert (blob.size, blob.metageneration, blob.content_type) == (size, 1, "text/plain")
    assert blob.time_created is not None
    assert space.blob("x").download_as_bytes() == content


@pytest.mark.parametrize("size", [0, 1, QUANTUM - 1, QUANTUM, 2 * QUANTUM, 2 * QUANTUM + 7])
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.usefixtures("always_resumable")
def test_resumable(space: Space, size: int, sized: bool) -> None:
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    blob = space.blob("x", chunk_size=QUANTUM)
    if sized:
        blob.upload_from_file(io.BytesIO(content), size=size, if_generation_match=0)
    else:
        blob.upload_from_file(Unsized(content), if_generation_match=0)
    assert (blob.size, blob.crc32c) == (size, crc(content))
    assert space.blob("x").download_as_bytes() == content


@pytest.mark.parametrize("size", [7, None])
def test_properties_set_before(space: Space, size: int | None) -> None:
    blob = space.blob("x")
    blob.metadata = {"kéy": "välue"}
    blob.cache_control, blob.content_language, blob.content_disposition = "no-store", "de", "inline"
    blob.storage_class = "NEARLINE"
    blob.upload_from_file(io.BytesIO(b"content"), size=size, content_type="image/png")
    found = space.bucket.get_blob(blob.name)
    assert (found.metadata, found.content_type) == ({"kéy": "välue"}, "image/png")
    assert (found.cache_control, found.content_language, found.content_disposition) == ("no-store", "de", "inline")
    assert found.storage_class == "NEARLINE"


def test_a_bucket_s_class_is_that_of_its_objects(client: Any, bucket: Any) -> None:
    bucket.storage_class = "COLDLINE"
    bucket.patch()
    bucket.blob("x").upload_from_string(b"")
    assert bucket.get_blob("x").storage_class == "COLDLINE"


def test_writer(space: Space) -> None:
    with space.blob("x").open("wb", chunk_size=QUANTUM, if_generation_match=0) as out:
        for _ in range(5):
            out.write(b"z" * 100_000)
        assert not space.blob("x").exists()
    assert space.blob("x").download_as_bytes() == b"z" * 500_000
    with space.blob("text").open("w", encoding="utf-8", ignore_flush=True) as text:
        text.write("ünï\n")
        text.flush()
        text.write("cødé\n")
    assert space.blob("text").download_as_text() == "ünï\ncødé\n"
    with space.blob("nothing").open("wb"):
        pass
    assert space.blob("nothing").download_as_bytes() == b""


def test_a_session_handed_to_another_process(space: Space) -> None:
    blob = space.blob("x")
    blob.metadata = {"k": "v"}
    url = blob.create_resumable_upload_session("text/csv", size=5, if_generation_match=0)
    assert not space.blob("x").exists()
    reply = space.bucket.client._http.put(url, data=b"a,b,c")
    assert (reply.status_code, reply.json()["size"]) == (200, "5")
    found = space.bucket.get_blob(blob.name)
    assert (found.content_type, found.metadata) == ("text/csv", {"k": "v"})


@pytest.mark.parametrize("kind", ["crc32c", "md5_hash"])
@pytest.mark.parametrize("size", [7, None])
@pytest.mark.parametrize("checksum", ["auto", "md5", None])
def test_a_wrong_checksum_in_the_metadata(space: Space, kind: str, size: int | None, checksum: str | None) -> None:
    blob = space.blob("x")
    setattr(blob, kind, "AAAAAA==" if kind == "crc32c" else "AAAAAAAAAAAAAAAAAAAAAA==")
    own = {"auto": "crc32c", "md5": "md5_hash"}.get(checksum or "")
    if size is not None and own == kind:
        blob.upload_from_file(io.BytesIO(b"content"), size=size, checksum=checksum)
        assert space.blob("x").download_as_bytes() == b"content"
        return
    with pytest.raises(exceptions.BadRequest):
        blob.upload_from_file(io.BytesIO(b"content"), size=size, checksum=checksum)
    assert space.names() == []


def test_a_checksum_computed_elsewhere(space: Space) -> None:
    blob = space.blob("x")
    blob.upload_from_file(io.BytesIO(b"content"), crc32c_checksum_value=crc(b"content"))
    with pytest.raises(exceptions.BadRequest):
        space.blob("y").upload_from_file(io.BytesIO(b"content"), crc32c_checksum_value=crc(b"other"))
    assert space.names() == ["x"]


@pytest.mark.parametrize("checksum", ["md5", "crc32c", "auto", None])
@pytest.mark.parametrize("size", [QUANTUM + 5, None])
def test_checksums_of_the_client_s_own(space: Space, checksum: str | None, size: int | None) -> None:
    blob = space.blob("x", chunk_size=QUANTUM)
    blob.upload_from_file(io.BytesIO(b"y" * (QUANTUM + 5)), size=size, checksum=checksum)
    assert space.blob("x").download_as_bytes(checksum=checksum) == b"y" * (QUANTUM + 5)


@pytest.mark.parametrize("name", ["big", "a b/ü?#%2F..//big"])
def test_parts_in_parallel(space: Space, tmp_path: Path, name: str) -> None:
    big, back = tmp_path / "big", tmp_path / "back"
    big.write_bytes(b"0123456789abcdef" * (700 * 1024))
    blob = space.blob(name)
    blob.metadata = {"k": "v"}
    transfer_manager.upload_chunks_concurrently(
        str(big), blob, content_type="image/png", chunk_size=5 << 20, max_workers=2, worker_type=transfer_manager.THREAD
    )
    blob.reload()
    assert (blob.crc32c, blob.md5_hash) == (crc(big.read_bytes()), None)
    assert (blob.content_type, blob.metadata) == ("image/png", {"k": "v"})
    transfer_manager.download_chunks_concurrently(
        blob, str(back), chunk_size=3 << 20, max_workers=2, worker_type=transfer_manager.THREAD
    )
    assert back.read_bytes() == big.read_bytes()


class Cut:
    """Lets only the first part of an upload's first chunk arrive, answers it 503, and the chunk after it too."""

    def __init__(self, after: int) -> None:
        self.after, self.left = after, ["cut", "refused"]
        self.asked: list[str] = []

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])
            if scope["method"] == "PUT":
                self.asked.append(headers[b"content-range"].decode())
            if scope["method"] != "PUT" or not self.left:
                await app(scope, receive, send)
                return
            if self.left.pop(0) == "cut":
                await app(scope, self.shortened(receive), self.lost)
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return serve

    async def lost(self, message: Message) -> None:
        """Swallows the reply."""

    def shortened(self, receive: Receive) -> Receive:
        seen = 0

        async def some() -> Message:
            nonlocal seen
            if seen >= self.after:
                return {"type": "http.disconnect"}
            message = await receive()
            body = message.get("body", b"")[: self.after - seen]
            seen += len(body)
            return {"type": "http.request", "body": body, "more_body": True}

        return some


@pytest.mark.usefixtures("always_resumable")
def test_an_interrupted_upload_goes_on_where_it_was(tmp_path: Path) -> None:
    cut, content = Cut(QUANTUM + 1000), bytes(range(256)) * 4096
    with LocalCloud(tmp_path, middleware=cut.wrap) as cloud:
        client = local_client(cloud.url)
        blob = client.create_bucket("bkt").blob("x", chunk_size=2 * QUANTUM)
        blob.upload_from_file(io.BytesIO(content), size=len(content), retry=AT_ONCE)
        assert (blob.size, blob.crc32c) == (len(content), crc(content))
        assert client.bucket("bkt").blob("x").download_as_bytes() == content
        client.close()
    # The client sends a chunk anew from its first byte; what arrived of it before is not taken twice.
    first, second = f"bytes 0-{2 * QUANTUM - 1}/{4 * QUANTUM}", f"bytes {2 * QUANTUM}-{4 * QUANTUM - 1}/{4 * QUANTUM}"
    assert cut.asked == [first, first, first, second]
