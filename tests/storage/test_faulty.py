"""The fault injecting proxy: invisible while nothing is spoilt, and each action does what it says."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from tests.waiting import until

from .faulty import (
    Action,
    Alter,
    AlterRequest,
    CutReply,
    CutRequest,
    Delay,
    Fault,
    Faulty,
    Operation,
    Passed,
    ResetAfter,
    ResetBefore,
    ShortReply,
    StallBefore,
    StallReply,
    StallRequest,
    Status,
    StatusAfter,
    Throttle,
)
from .faulty_faults import name_in, operation_of
from .faulty_wire import LAST_CHUNK, Extent, WireError, framed, pieces_of, read_head

QUANTUM = 256 << 10


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture
def proxy(cloud: LocalCloud) -> Iterator[Faulty]:
    with Faulty(cloud.url) as running:
        yield running


@pytest.fixture
def bucket(cloud: LocalCloud) -> str:
    return cloud.store.create_bucket(f"b-{uuid.uuid4().hex[:12]}", "p", {}).name


@dataclass(frozen=True)
class Said:
    """What came over a connection until it ended (or until the length said): the status, the body, and how it ended."""

    status: int
    headers: str
    body: bytes
    end: str


class Client:
    """A bare connection that tells a reset from an end."""

    def __init__(self, proxy: Faulty, bucket: str) -> None:
        self.bucket, self.host = bucket, urlsplit(proxy.url).netloc
        self.line = socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0), timeout=20)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.close()

    def send(self, method: str, path: str, body: bytes = b"", *fields: str) -> None:
        head = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(body)}", *fields, "", ""]
        # A server that resets does not wait for all of it.
        with suppress(ConnectionError):
            self.line.sendall("\r\n".join(head).encode() + body)

    def put(self, content: bytes, name: str = "x") -> None:
        self.send("POST", f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={name}", content)

    def get(self, name: str = "x") -> None:
        self.send("GET", f"/storage/v1/b/{self.bucket}/o/{name}?alt=media")

    def answer(self) -> Said:
        seen, end = b"", ""
        while not end and not _whole(seen):
            try:
                piece = self.line.recv(65536)
                seen, end = seen + piece, "" if piece else "closed"
            except ConnectionResetError:
                end = "reset"
        head, _, body = seen.partition(b"\r\n\r\n")
        return Said(int(head.split()[1]) if head else 0, head.decode(), body, end)


def _whole(seen: bytes) -> bool:
    head, blank, body = seen.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
    return bool(blank) and length.isdigit() and len(body) >= int(length)


@pytest.fixture
def client(proxy: Faulty, bucket: str) -> Iterator[Client]:
    with Client(proxy, bucket) as made:
        yield made


def names(cloud: LocalCloud, bucket: str) -> list[str]:
    session = local(cloud.url)
    found = [one.name for one in session.storage.list_blobs(bucket)]
    session.storage.close()
    return found


def local(url: str) -> Session:
    return Session(resolve(Spec(), endpoint=url, environ={}, home=Path()))


def spoil(proxy: Faulty, operation: Operation, action: Action) -> None:
    proxy.spoil(Fault(operation, action))


def test_googles_client_does_not_notice_it(proxy: Faulty, bucket: str) -> None:
    storage = local(proxy.url).storage
    content = bytes(range(256)) * 2600
    place = storage.bucket(bucket)
    place.blob("d/ä b#?").upload_from_string(b"small")
    place.blob("large", chunk_size=QUANTUM).upload_from_file(io.BytesIO(content))
    large = place.blob("large")
    assert [one.name for one in storage.list_blobs(bucket)] == ["d/ä b#?", "large"]
    assert large.download_as_bytes() == content
    assert large.download_as_bytes(start=5, end=9) == content[5:10]
    assert place.blob("d/ä b#?").download_as_bytes() == b"small"
    place.blob("both").compose([place.blob("d/ä b#?"), large])
    assert place.get_blob("both").size == len(content) + 5
    for one in storage.list_blobs(bucket):
        one.delete()
    storage.close()
    counted: dict[Operation, int] = {
        "insert": 1, "start": 1, "chunk": 3, "status": 0, "get": 3, "compose": 1, "metadata": 1, "list": 2, "delete": 3,
    }
    assert {operation: proxy.count(operation) for operation in counted} == counted
    assert proxy.body_bytes("chunk").sent == len(content)
    assert proxy.body_bytes("get") == Passed(0, len(content) + 5 + 5)
    assert [one.name for one in proxy.log if one.operation in ("insert", "start", "chunk", "compose")] == [
        "d/ä b#?", "large", "large", "large", "large", "both",
    ]
    assert {one.status for one in proxy.log} == {200, 204, 206, 308}


@pytest.mark.parametrize("operation", ["insert", "get"])
def test_a_status_in_place_of_the_request(
    proxy: Faulty, client: Client, cloud: LocalCloud, bucket: str, operation: Operation,
) -> None:
    spoil(proxy, operation, Status(503, retry_after="7", message="not now"))
    client.put(b"a")
    first = client.answer()
    client.get()
    second = client.answer()
    refused, other = (first, second) if operation == "insert" else (second, first)
    assert (refused.status, json.loads(refused.body)["error"]["message"]) == (503, "not now")
    assert "Retry-After: 7" in refused.headers
    assert other.status == (404 if operation == "insert" else 200)
    assert names(cloud, bucket) == ([] if operation == "insert" else ["x"])
    assert [one.status for one in proxy.log] == [first.status, second.status]
    assert proxy.connections.ever == 1


def test_a_status_in_place_of_the_reply(proxy: Faulty, client: Client, cloud: LocalCloud, bucket: str) -> None:
    spoil(proxy, "insert", StatusAfter(500))
    client.put(b"a")
    assert client.answer().status == 500
    assert names(cloud, bucket) == ["x"]
    client.get()
    assert client.answer().body == b"a"


@pytest.mark.parametrize(("action", "left"), [(ResetBefore(), []), (ResetAfter(), ["x"])])
def test_resets(
    proxy: Faulty, client: Client, cloud: LocalCloud, bucket: str, action: Action, left: list[str],
) -> None:
    spoil(proxy, "insert", action)
    client.put(b"a" * 1000)
    assert client.answer() == Said(0, "", b"", "reset")
    assert names(cloud, bucket) == left
    assert (proxy.log[0].status, proxy.log[0].action) == (0, action)
    until(lambda: proxy.connections.open == 0)


def test_a_request_is_cut(proxy: Faulty, client: Client, cloud: LocalCloud, bucket: str) -> None:
    spoil(proxy, "insert", CutRequest(3000))
    client.put(b"a" * 5000)
    assert client.answer() == Said(0, "", b"", "reset")
    assert proxy.body_bytes("insert").sent == 3000
    assert names(cloud, bucket) == []


@pytest.mark.parametrize(("action", "end"), [(CutReply(1000), "reset"), (ShortReply(1000), "closed")])
@pytest.mark.parametrize("size", [5000, 3 << 20])
def test_a_reply_is_cut(proxy: Faulty, client: Client, size: int, action: Action, end: str) -> None:
    spoil(proxy, "get", action)
    client.put(b"a" * size)
    client.answer()
    client.get()
    said = client.answer()
    assert (said.status, said.body, said.end) == (200, b"a" * 1000, end)
    assert f"Content-Length: {size}".lower() in said.headers.lower()
    assert proxy.log[-1].received_bytes == 1000


def quiet(client: Client) -> bool:
    client.line.setblocking(False)
    try:
        client.line.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        client.line.settimeout(20)
    return False


@pytest.mark.parametrize("action", [StallBefore(), StallRequest(10), StallRequest(0)])
def test_a_request_stalls_until_it_is_released(
    proxy: Faulty, client: Client, cloud: LocalCloud, bucket: str, action: Action,
) -> None:
    content = bytes(range(256)) * 2000
    spoil(proxy, "insert", action)
    client.put(content)
    until(lambda: proxy.stalled == 1)
    assert quiet(client)
    assert names(cloud, bucket) == []
    assert proxy.log[0].sent_bytes == (10 if action == StallRequest(10) else 0)
    proxy.release()
    assert client.answer().status == 200
    client.get()
    assert client.answer().body == content


def test_a_stalled_request_without_a_body_is_not_served(proxy: Faulty, client: Client, cloud: LocalCloud) -> None:
    client.put(b"a")
    client.answer()
    spoil(proxy, "delete", StallBefore())
    client.send("DELETE", f"/storage/v1/b/{client.bucket}/o/x")
    until(lambda: proxy.stalled == 1)
    client.line.close()
    until(lambda: proxy.connections.open == 0)
    assert names(cloud, client.bucket) == ["x"]


def test_a_client_stands_still_when_nobody_reads(proxy: Faulty, client: Client) -> None:
    spoil(proxy, "insert", StallRequest(QUANTUM))
    client.line.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.put(bytes(24 << 20))
    assert proxy.stalled == 1


def test_a_reply_stalls(proxy: Faulty, client: Client) -> None:
    client.put(b"0123456789")
    client.answer()
    spoil(proxy, "get", StallReply(4))
    client.get()
    seen = b""
    while not seen.endswith(b"\r\n\r\n0123"):
        seen += client.line.recv(100)
    until(lambda: proxy.stalled == 1)
    assert quiet(client)
    proxy.release()
    assert client.line.recv(100) == b"456789"


def test_bodies_are_altered(proxy: Faulty, client: Client, cloud: LocalCloud) -> None:
    proxy.spoil(Fault("insert", AlterRequest(bytes.upper)), Fault("get", Alter(lambda body: body + b"!"), skip=1))
    client.put(b"abc")
    client.answer()
    for expected in (b"ABC", b"ABC!", b"ABC"):
        client.get()
        assert client.answer().body == expected


def test_delay_and_throttle(proxy: Faulty, client: Client) -> None:
    proxy.spoil(Fault("any", Delay(0.05), times=None), Fault("insert", Status(503)))
    client.put(b"a" * 20_000)
    began = time.monotonic()
    assert client.answer().status == 503
    client.put(b"a" * 20_000)
    assert client.answer().status == 200
    assert 0.1 <= time.monotonic() - began + 0.01 < 2
    proxy.spoil(Fault("get", Throttle(200_000), times=None))
    client.get()
    began = time.monotonic()
    assert len(client.answer().body) == 20_000
    assert 0.08 <= time.monotonic() - began < 2


def test_only_what_is_meant_is_spoilt(proxy: Faulty, client: Client) -> None:
    fault = Fault("insert", Status(429), times=2, skip=1, name="mine")
    proxy.spoil(fault, Fault("insert", Status(500), name="mine"))
    answered = []
    for name in ("mine0", "other", "mine1", "mine2", "mine3"):
        assert (fault in proxy.unused) == (name != "mine3")
        client.put(b"a", name)
        answered.append(client.answer().status)
    assert answered == [500, 200, 429, 429, 200]
    proxy.clear()
    assert (proxy.log, proxy.unused) == ([], [])


@pytest.mark.parametrize("action", [StallBefore(), StallReply(0), Delay(60), Throttle(10)])
def test_closing_ends_every_wait(cloud: LocalCloud, bucket: str, action: Action) -> None:
    before = set(threading.enumerate())
    with Faulty(cloud.url) as proxy, Client(proxy, bucket) as client:
        spoil(proxy, "insert", action)
        client.put(b"a" * 1000)
        until(lambda: proxy.count("insert"))
        began = time.monotonic()
        proxy.close()
        assert client.answer().end
    assert time.monotonic() - began < 2
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "faulty"]


def test_chunked_bodies_and_continue(proxy: Faulty, client: Client) -> None:
    head = [
        f"POST /upload/storage/v1/b/{client.bucket}/o?uploadType=media&name=x HTTP/1.1", f"Host: {client.host}",
        "Transfer-Encoding: chunked", "Expect: 100-continue", "", "",
    ]
    client.line.sendall("\r\n".join(head).encode())
    assert client.line.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.line.sendall(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
    assert json.loads(client.answer().body)["size"] == "5"
    assert proxy.body_bytes("insert").sent == 5


def test_what_is_no_http_is_reset(proxy: Faulty, client: Client) -> None:
    client.line.sendall(b"nonsense\r\n\r\n")
    assert client.answer().end == "reset"
    assert proxy.log == []


def test_strange_targets_are_the_servers_affair(proxy: Faulty, client: Client) -> None:
    client.send("GET", "//[x?&&=%")
    assert client.answer().status in (400, 404)
    assert proxy.log[0].path == "//[x"


@pytest.mark.parametrize(("request_line", "content_range", "operation"), [
    ("POST /upload/storage/v1/b/b/o?uploadType=multipart", "", "insert"),
    ("POST /resumable/upload/storage/v1/b/b/o?uploadType=resumable", "", "start"),
    ("PUT /upload/storage/v1/b/b/o?uploadType=resumable&upload_id=u", "bytes 0-1/2", "chunk"),
    ("PUT /upload/storage/v1/b/b/o?uploadType=resumable&upload_id=u", "bytes */2", "status"),
    ("DELETE /upload/storage/v1/b/b/o?uploadType=resumable&upload_id=u", "", "cancel"),
    ("GET /download/storage/v1/b/b/o/a%2Fb?alt=media", "", "get"),
    ("GET /storage/v1/b/b/o/a%2Fb?fields=size", "", "metadata"),
    ("GET /storage/v1/b/b/o?prefix=a", "", "list"),
    ("DELETE /storage/v1/b/b/o/a", "", "delete"),
    ("POST /storage/v1/b/b/o/a/compose", "", "compose"),
    ("POST /storage/v1/b?project=p", "", "other"),
    ("DELETE /storage/v1/b/b", "", "other"),
])
def test_operations(request_line: str, content_range: str, operation: str) -> None:
    method, _, target = request_line.partition(" ")
    query = dict(pair.split("=") for pair in urlsplit(target).query.split("&") if pair)
    assert operation_of(method, urlsplit(target).path, query, content_range) == operation


def stream(content: bytes) -> Any:
    return io.BufferedReader(io.BytesIO(content))  # type: ignore[arg-type,unused-ignore]


@given(st.lists(st.binary(min_size=1, max_size=50)), st.sampled_from(["chunked", "length"]))
def test_bodies_survive_their_framing(pieces: list[bytes], kind: str) -> None:
    content = b"".join(pieces)
    extent: Extent = "chunked" if kind == "chunked" else len(content)
    wire = b"".join(framed(piece, extent) for piece in pieces) + (LAST_CHUNK if extent == "chunked" else b"")
    file = stream(wire + b"next")
    assert b"".join(pieces_of(file, extent)) == content
    assert file.read() == b"next"


@given(st.one_of(st.binary(), st.builds(lambda a, b: b"POST / HTTP/1.1\r\n" + a + b"\r\n\r\n" + b,
                                        st.sampled_from([b"Content-Length: 5", b"Transfer-Encoding: chunked",
                                                         b"Content-Length: -1", b"nothing"]), st.binary())))
def test_damaged_messages_are_refused(wire: bytes) -> None:
    file = stream(wire)
    try:
        head = read_head(file)
        assert head is None or head.render().endswith(b"\r\n\r\n")
        if head is not None:
            head.request_line()
            assert len(b"".join(pieces_of(file, head.request_extent()))) <= len(wire)
    except WireError:
        pass


@given(st.text(min_size=1), st.booleans(), st.data())
def test_names_in_metadata(name: str, multipart: bool, data: Any) -> None:
    whole = json.dumps({"metadata": {"name": "no"}, "name": name}).encode()
    body = b"--b\r\nContent-Type: application/json\r\n\r\n" + whole + b"\r\n--b\r\n" if multipart else whole
    assert name_in(body, multipart) == name
    assert name_in(body[: data.draw(st.integers(0, body.index(b"}}") if b"}}" in body else 0))], multipart) == ""
