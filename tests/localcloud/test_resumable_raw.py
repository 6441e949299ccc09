"""Resumable sessions and uploads on the wire, where the client library hides them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gcpod.localcloud.server import LocalCloud
from tests.localcloud.conftest import QUANTUM, Raw, crc, local_client


def begin(raw: Raw, bucket: str, query: str = "name=x", **headers: str) -> str:
    reply = raw("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=resumable&{query}", b"", **headers)
    assert reply.status == 200, reply.content
    location = urlsplit(reply.headers["Location"])
    assert location.netloc == raw.host
    return f"{location.path}?{location.query}"


def test_chunks_queries_and_the_end(raw: Raw, bucket: Any) -> None:
    session = begin(raw, bucket.name, X_Upload_Content_Type="text/x-test")
    assert raw("PUT", session, b"", Content_Range="bytes */*").headers["Range"] is None
    first = raw("PUT", session, b"a" * QUANTUM, Content_Range=f"bytes 0-{QUANTUM - 1}/*")
    assert (first.status, first.headers["Range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    asked = raw("PUT", session, b"", Content_Range=f"bytes */{QUANTUM + 3}")
    assert (asked.status, asked.headers["Range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    done = raw("PUT", session, b"aabbb", Content_Range=f"bytes {QUANTUM - 2}-{QUANTUM + 2}/{QUANTUM + 3}")
    assert (done.status, done.json["size"], done.json["contentType"]) == (200, str(QUANTUM + 3), "text/x-test")
    assert bucket.blob("x").download_as_bytes() == b"a" * QUANTUM + b"bbb"
    again = raw("PUT", session, b"", Content_Range=f"bytes */{QUANTUM + 3}")
    assert (again.status, again.json["generation"]) == (200, done.json["generation"])


@pytest.mark.parametrize(
    ("size", "content_range"),
    [
        (10, f"bytes {QUANTUM}-{QUANTUM + 9}/*"),
        (10, "bytes 0-9/*"),
        (10, "bytes 0-9/100"),
        (10, "bytes 0-99/100"),
        (10, "bytes 9-0/*"),
        (10, "bytes nonsense"),
        (10, "bytes 0-9/5"),
    ],
)
def test_refused_chunks(raw: Raw, bucket: Any, size: int, content_range: str) -> None:
    session = begin(raw, bucket.name)
    reply = raw("PUT", session, b"x" * size, Content_Range=content_range)
    assert (reply.status, reply.json["error"]["errors"][0]["reason"]) == (400, "invalid")
    assert raw("PUT", session, b"", Content_Range="bytes */*").status == 308
    assert list(bucket.list_blobs()) == []


def test_another_size_than_announced(raw: Raw, bucket: Any) -> None:
    session = begin(raw, bucket.name, X_Upload_Content_Length="5")
    assert raw("PUT", session, b"1234", Content_Range="bytes 0-3/4").status == 400
    assert raw("PUT", session, b"12345").status == 200


def test_cancel(raw: Raw, bucket: Any) -> None:
    session = begin(raw, bucket.name)
    assert raw("DELETE", session).status == 499
    assert raw("PUT", session, b"x").status == 499


def test_unknown_session(raw: Raw, bucket: Any) -> None:
    reply = raw("PUT", f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&upload_id=none", b"x")
    assert reply.status == 404


def test_a_total_told_at_the_end(raw: Raw, bucket: Any) -> None:
    session = begin(raw, bucket.name)
    assert raw("PUT", session, b"a" * QUANTUM, Content_Range=f"bytes 0-{QUANTUM - 1}/*").status == 308
    done = raw("PUT", session, b"", Content_Range=f"bytes */{QUANTUM}")
    assert (done.status, done.json["size"]) == (200, str(QUANTUM))


def test_nothing_at_all(raw: Raw, bucket: Any) -> None:
    for number, headers in enumerate(({}, {"Content_Range": "bytes */0"})):
        done = raw("PUT", begin(raw, bucket.name, f"name=x{number}"), b"", **headers)
        assert (done.status, done.json["size"]) == (200, "0")


def test_no_name(raw: Raw, bucket: Any) -> None:
    for query in ("uploadType=media", "uploadType=resumable", "uploadType=media&name="):
        reply = raw("POST", f"/upload/storage/v1/b/{bucket.name}/o?{query}", b"")
        assert (reply.status, reply.json["error"]["errors"][0]["reason"]) == (400, "required")


@pytest.mark.parametrize("good", [0, 1, 2])
def test_checksums_that_contradict_each_other(raw: Raw, bucket: Any, good: int) -> None:
    told = ["crc32c=AAAAAA==", f"crc32c={crc(b'hello')}"]
    session = begin(raw, bucket.name, X_Goog_Hash=told[good != 1])
    reply = raw("PUT", session, b"hello", X_Goog_Hash=told[good != 0])
    assert reply.status == (200 if good == 2 else 400)
    assert len(list(bucket.list_blobs())) == (good == 2)


def test_wrong_checksum_at_the_end(raw: Raw, bucket: Any) -> None:
    session = begin(raw, bucket.name)
    reply = raw("PUT", session, b"hello", X_Goog_Hash="crc32c=AAAAAA==")
    assert reply.status == 400
    assert "doesn't match" in reply.json["error"]["message"]
    assert list(bucket.list_blobs()) == []
    assert raw("PUT", session, b"", Content_Range="bytes */5").status == 410


def test_half_a_chunk_stays_in_whole_quanta(raw: Raw, bucket: Any) -> None:
    session = begin(raw, bucket.name)
    size = 3 * QUANTUM
    with raw.line() as line:
        head = (
            f"PUT {session} HTTP/1.1\r\nHost: {raw.host}\r\nContent-Length: {size}\r\n"
            f"Content-Range: bytes 0-{size - 1}/{size}\r\n\r\n"
        )
        line.sendall(head.encode() + b"x" * (2 * QUANTUM + 5))
        line.shutdown(socket.SHUT_WR)
        while line.recv(4096):
            pass
    for _ in range(1000):
        reply = raw("PUT", session, b"", Content_Range=f"bytes */{size}")
        if reply.headers["Range"]:
            break
    assert reply.headers["Range"] == f"bytes=0-{2 * QUANTUM - 1}"


def test_sessions_survive_a_restart(tmp_path: Path) -> None:
    with LocalCloud(tmp_path) as cloud:
        cloud.store.create_bucket("bkt", "p", {})
        raw = Raw(f"127.0.0.1:{cloud.port}")
        session = begin(raw, "bkt", X_Upload_Content_Length=str(QUANTUM + 1))
        assert raw("PUT", session, b"a" * QUANTUM, Content_Range=f"bytes 0-{QUANTUM - 1}/*").status == 308
    with LocalCloud(tmp_path) as cloud:
        raw = Raw(f"127.0.0.1:{cloud.port}")
        asked = raw("PUT", session, b"", Content_Range="bytes */*")
        assert asked.headers["Range"] == f"bytes=0-{QUANTUM - 1}"
        assert raw("PUT", session, b"b", Content_Range=f"bytes {QUANTUM}-{QUANTUM}/{QUANTUM + 1}").status == 200
        client = local_client(cloud.url)
        assert client.bucket("bkt").blob("x").download_as_bytes() == b"a" * QUANTUM + b"b"
        client.close()


def multipart(newline: bytes, content: bytes, metadata: bytes = b'{"name":"x"}') -> bytes:
    lines = [
        b"--frontier",
        b"Content-Type: application/json",
        b"",
        metadata,
        b"--frontier",
        b"Content-Type: image/png",
        b"",
        content,
        b"--frontier--",
    ]
    return newline.join(lines)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\n--frontie\r\n\r\n", b"\r\n", b"\r", b"hello\r"])
@pytest.mark.parametrize("path", ["/upload", "/resumable/upload"])
def test_multipart_line_ends(raw: Raw, bucket: Any, newline: bytes, content: bytes, path: str) -> None:
    reply = raw(
        "POST",
        f"{path}/storage/v1/b/{bucket.name}/o?uploadType=multipart",
        multipart(newline, content),
        Content_Type="multipart/related; boundary='frontier'",
    )
    assert (reply.status, reply.json["contentType"]) == (200, "image/png")
    assert bucket.blob("x").download_as_bytes() == content


def test_multipart_with_an_unknown_field(raw: Raw, bucket: Any) -> None:
    reply = raw(
        "POST",
        f"/upload/storage/v1/b/{bucket.name}/o?uploadType=multipart",
        multipart(b"\r\n", b"x", b'{"name":"x","colour":"red"}'),
        Content_Type="multipart/related; boundary=frontier",
    )
    assert reply.status == 400
    assert 'Unknown name "colour"' in reply.json["error"]["message"]


@pytest.mark.parametrize("header", ["X_Goog_Hash", "Content_MD5"])
def test_media_with_a_wrong_hash_header(raw: Raw, bucket: Any, header: str) -> None:
    wrong = "md5=AAAAAAAAAAAAAAAAAAAAAA==" if header == "X_Goog_Hash" else "AAAAAAAAAAAAAAAAAAAAAA=="
    reply = raw("POST", f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x", b"hello", **{header: wrong})
    assert reply.status == 400
    assert list(bucket.list_blobs()) == []


def test_expect_continue_is_answered(raw: Raw, bucket: Any) -> None:
    with raw.line() as line:
        line.sendall(
            f"POST /upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x HTTP/1.1\r\nHost: {raw.host}\r\n"
            "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert line.recv(4096).startswith(b"HTTP/1.1 100 ")
        line.sendall(b"hi")
        assert b" 200 " in line.recv(4096).partition(b"\r\n")[0]
    assert bucket.blob("x").download_as_bytes() == b"hi"
