"""Lines: slow ones, more of them where that pays, TLS through a proxy, and Ctrl-C whatever a connection is doing."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from google.oauth2.credentials import Credentials
from starlette.types import ASGIApp, Receive, Scope, Send

from gcpod.checksums import file_crc32c
from gcpod.errors import AuthError, GcpodError, StorageError
from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.calls import Content
from gcpod.storage.channel import Line
from gcpod.storage.known import local_files
from gcpod.storage.objects import Objects
from gcpod.storage.receive import Download
from gcpod.storage.traffic import BLOCK_BYTES, Traffic, TransferOptions
from gcpod.storage.transfer import fetch_all, upload_files
from gcpod.uris import GcsUri
from tests.waiting import until

from .faulty import Delay, Fault, StallBefore, StallReply, Throttle
from .place import LARGE, OPTIONS, SMALL, Place


class Uplink:
    """A line at whose far end all connections together have so many bytes a second upwards; bytes wait in the client's
    kernel, as they do behind a modem."""

    def __init__(self, target: str, bytes_per_s: float) -> None:
        parts = urlsplit(target)
        self._target, self._rate = (parts.hostname or "", parts.port or 80), bytes_per_s
        self._closing, self._lock, self._free_at = threading.Event(), threading.Lock(), 0.0
        self._open, self._threads = ExitStack(), list[threading.Thread]()
        self._listener = socket.socket()
        # Small windows of small segments, so that little is acknowledged that was not read.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Uplink:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._open.close()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _begin(self, target: object, *arguments: object) -> None:
        assert callable(target)
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._target)
                for one in (client, server):
                    self._open.callback(one.close)
                    self._open.callback(_shut, one)
                self._begin(self._pump, client, server, self._rate)
                self._begin(self._pump, server, client, 0.0)

    def _pump(self, source: socket.socket, target: socket.socket, rate: float) -> None:
        with suppress(OSError):
            while piece := source.recv(1400 if rate else 64 << 10):
                if rate:
                    self._closing.wait(self._turn(len(piece) / rate))
                target.sendall(piece)
        _shut(source)
        _shut(target)

    def _turn(self, seconds: float) -> float:
        """How long to wait, so that nobody is faster than the line."""
        with self._lock:
            now = time.monotonic()
            start, self._free_at = max(now, self._free_at), max(now, self._free_at) + seconds
            return start - now


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@pytest.mark.long
@pytest.mark.parametrize(("number", "size", "options"), [
    (4, 110_000, replace(OPTIONS, workers=4)),
    (1, 450_000, replace(OPTIONS, chunk_bytes=BLOCK_BYTES, single_bytes=BLOCK_BYTES)),
    (1, 600_000, replace(OPTIONS, single_bytes=1 << 20)),
])
def test_a_slow_line_that_goes_on_is_no_stall(
    place: Place, cloud: LocalCloud, number: int, size: int, options: TransferOptions,
) -> None:
    paths = [place.source(size, f"{one}.bin") for one in range(number)]
    seen: list[int] = []
    with Uplink(cloud.url, 300_000) as line:
        objects = Objects(Session(resolve(Spec(), endpoint=line.url, environ={}, home=Path())))
        files = local_files([(path, place.root / path.name) for path in paths])
        # A block takes 0.9 s, and a file 1.5 s where four have the line together.
        upload_files(
            objects, files, place.root, lambda now: seen.append(now.bytes),
            replace(options, stall_s=0.5, patience_s=0.0),
        )
    place.check_bucket(*paths)


@pytest.mark.long
def test_a_slow_answer_that_goes_on_is_no_stall(place: Place) -> None:
    path = place.source(500_000)
    place.upload(path)
    place.proxy.spoil(Fault("get", Throttle(400_000)))
    place.download(replace(OPTIONS, stall_s=0.4, patience_s=0.0))
    assert place.proxy.unused == []
    place.check_folder(path)


@pytest.mark.parametrize(("workers", "delay_s", "number"), [(None, 0.1, 110), (3, 0.02, 30), (12, 0.05, 40)])
def test_connections_grow_over_a_line_with_latency_and_never_beyond_what_was_asked_for(
    place: Place, workers: int | None, delay_s: float, number: int,
) -> None:
    paths = [place.source(10, f"{one}.bin") for one in range(number)]
    place.proxy.spoil(Fault("insert", Delay(delay_s), times=None))
    before = place.proxy.connections.ever
    place.upload(*paths, options=replace(OPTIONS, workers=workers))
    # What is there was listed over the one that is open since the bucket was made.
    made = place.proxy.connections.ever - before
    assert made == workers if workers else 8 < made <= 64
    place.check_bucket(*paths)


INTERRUPTIBLE = ("env", "--default-signal=INT")
"""A shell that runs tests in the background has them ignore Ctrl-C, and what they start too."""


def copying(url: str, *arguments: object) -> subprocess.Popen[str]:
    command = [*INTERRUPTIBLE, sys.executable, "-m", "gcpod", "copy", *map(str, arguments), "--endpoint", url]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def interrupted(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, and how the process takes it."""
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, said = process.communicate(timeout=20)
    # What it waits for would take it 20 s and more.
    assert time.monotonic() - began < 4
    # Before it, a line break for a terminal that shows ^C.
    assert (process.returncode, said.lstrip()) == (130, "gcpod: interrupted\n")


@pytest.mark.parametrize(("up", "connections"), [(True, 5), (False, 5)])
def test_ctrl_c_ends_a_command_whose_connections_all_stand_still(place: Place, up: bool, connections: int) -> None:
    paths = [place.source(SMALL, f"{one}.bin") for one in range(connections)]
    if not up:
        place.upload(*paths)
    place.proxy.clear()
    place.proxy.spoil(Fault("insert", StallBefore(), times=None), Fault("get", StallReply(1000), times=None))
    source, target = (place.folder / "in", place.root) if up else (place.root, place.folder / "out")
    with copying(place.proxy.url, source, target) as process:
        until(lambda: place.proxy.stalled == connections)
        interrupted(process)
    place.proxy.clear()
    if up:
        place.upload(*paths)
        place.check_bucket(*paths)
    else:
        assert [path.name for path in (place.folder / "out").glob("*.bin")] == []
        with copying(place.proxy.url, source, target) as process:
            assert process.wait(30) == 0
        place.check_folder(*paths)


@contextmanager
def deaf_after_the_listing() -> Iterator[tuple[str, int]]:
    """A server that lists an empty bucket, and whose further connections are never made: its queue is full.

    Gives its URL, and how many attempts to connect hang before anybody else's.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]

        def serve() -> None:
            with listener.accept()[0] as client:
                client.recv(64 << 10)
                for _ in range(3):
                    one = stack.enter_context(socket.socket())
                    one.setblocking(False)
                    with suppress(BlockingIOError):
                        one.connect(("127.0.0.1", port))
                until(lambda: connecting(port) == 2)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{port}", 2
        thread.join()


def connecting(port: int) -> int:
    """How many connections to a port are asked for and not made (proc_net_tcp of Linux; 02 is SYN_SENT)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "02" for line in lines)


def test_ctrl_c_ends_a_command_that_is_still_connecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCPOD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.bin").write_bytes(b"x")
    with deaf_after_the_listing() as (url, before), copying(url, tmp_path / "in", "gs://bucket/x") as process:
        until(lambda: connecting(urlsplit(url).port or 0) == before + 3)
        interrupted(process)


class Seen:
    """Credentials that reach a local cloud, request by request; those in `refused` get 401, as when they expired."""

    def __init__(self) -> None:
        self.tokens, self.refused = list[str](), set[str]()

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def check(scope: Scope, receive: Receive, send: Send) -> None:
            token = dict(scope.get("headers", [])).get(b"authorization", b"").decode()
            self.tokens.append(token)
            if token not in self.refused:
                await app(scope, receive, send)
                return
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"{}"})

        return check


class Renewed(Credentials):  # type: ignore[misc]
    """Tokens of which each renewal gives the next: old, new-1, new-2."""

    renewals = 0

    def refresh(self, _: object) -> None:
        self.renewals += 1
        self.token = f"new-{self.renewals}"


class Abroad:
    """A session that believes in Google's own addresses, on whose way a local cloud stands."""

    def __init__(self, cloud: LocalCloud, seen: Seen, folder: Path) -> None:
        self.cloud, self.seen, self.folder = cloud, seen, folder
        spec = Spec(project="p", region="us-central1")
        self.session = Session(resolve(spec, environ={}, home=folder))
        self.root = GcsUri(f"b{os.urandom(6).hex()}", "tree")
        near = Objects(Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=folder)))
        near.ensure_bucket(self.root.bucket)
        near.session.storage.close()
        seen.tokens.clear()

    def allow(self, credentials: Credentials) -> Objects:
        self.session.__dict__["credentials"] = credentials
        return Objects(self.session, patience_s=20.0)

    def round_trip(self, objects: Objects, size: int) -> None:
        path, back = self.folder / "file.bin", self.folder / "back" / "file.bin"
        path.write_bytes(os.urandom(size))
        upload_files(objects, local_files([(path, self.root / path.name)]), self.root, options=OPTIONS)
        (there,) = objects.list(self.root)
        fetch_all(objects, [Download(there, back)], back.parent, options=OPTIONS)
        assert file_crc32c(back) == file_crc32c(path) == there.crc32c


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCloud, Seen]]:
    seen = Seen()
    with LocalCloud(tmp_path_factory.mktemp("secure"), middleware=seen) as running:
        yield running, seen


@pytest.fixture
def abroad(secure: tuple[LocalCloud, Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Abroad:
    cloud, seen = secure
    for name in [name for name in os.environ if name.lower().endswith(("_proxy", "ca_bundle"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GCPOD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", cloud.job_environment()["https_proxy"])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", cloud.job_environment()["CURL_CA_BUNDLE"])
    seen.refused.clear()
    return Abroad(cloud, seen, tmp_path)


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
def test_files_go_there_and_back_through_a_proxy_over_tls(abroad: Abroad, size: int) -> None:
    abroad.round_trip(abroad.allow(Credentials(token="x")), size)
    assert set(abroad.seen.tokens) == {"Bearer x"}


def test_the_authority_may_be_named_as_for_curl(abroad: Abroad, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv("CURL_CA_BUNDLE", abroad.cloud.job_environment()["CURL_CA_BUNDLE"])
    abroad.round_trip(abroad.allow(Credentials(token="x")), SMALL)


def test_a_certificate_that_nobody_vouches_for_is_told_at_once(
    abroad: Abroad, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    objects = abroad.allow(Credentials(token="x"))
    began = time.monotonic()
    with pytest.raises(StorageError, match="REQUESTS_CA_BUNDLE") as caught:
        objects.list(abroad.root)
    # Patience with an outage would last for 20 s.
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    assert abroad.seen.tokens == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_token_that_is_no_longer_taken_is_renewed(abroad: Abroad, size: int) -> None:
    credentials = Renewed(token="old")
    abroad.seen.refused.add("Bearer old")
    abroad.round_trip(abroad.allow(credentials), size)
    assert (credentials.renewals, abroad.seen.tokens[:2]) == (1, ["Bearer old", "Bearer new-1"])
    # A download alone, whose replies are read bit by bit.
    (there,) = abroad.allow(credentials).list(abroad.root)
    credentials.token = "old"
    fetch_all(abroad.allow(credentials), [Download(there, abroad.folder / "again")], abroad.folder, options=OPTIONS)
    assert file_crc32c(abroad.folder / "again") == there.crc32c


def test_small_objects_get_along_with_tokens_that_expire_again_and_again(abroad: Abroad) -> None:
    credentials, where = Renewed(token="old"), abroad.root / "small"
    objects = abroad.allow(credentials)

    def expire() -> None:
        abroad.seen.refused.add(f"Bearer {credentials.token}")

    expire()
    generation = objects.write_if(where, b"x", 0)
    assert generation is not None
    expire()
    assert objects.read(where) == Content(b"x", generation)
    expire()
    assert objects.exists(where)
    expire()
    assert not objects.ensure_bucket(where.bucket)
    expire()
    assert objects.delete_if(where, generation)
    assert credentials.renewals == 5
    assert abroad.seen.tokens == [f"Bearer {one}" for one in (
        "old", "new-1", "new-1", "new-2", "new-2", "new-3", "new-3", "new-4", "new-4", "new-5")]


@pytest.mark.parametrize("credentials", [Renewed(token="old"), Credentials(token="old")], ids=["renewed", "fixed"])
def test_small_objects_do_not_ask_for_ever(abroad: Abroad, credentials: Credentials) -> None:
    abroad.seen.refused.update(("Bearer old", "Bearer new-1", "Bearer new-2"))
    objects, where = abroad.allow(credentials), abroad.root / "small"
    with pytest.raises(AuthError, match=where.bucket) as caught:
        objects.write_if(where, b"x", 0)
    assert "gcloud auth" in str(caught.value)
    assert abroad.seen.tokens == ["Bearer old", "Bearer new-1"][:1 + isinstance(credentials, Renewed)]


def test_connections_whose_token_is_refused_at_once_all_get_the_new_one(abroad: Abroad) -> None:
    session, told = abroad.allow(Renewed(token="old")).session, dict[str, str]()
    assert [session.renew(), session.renew()] == [True, True]
    session.authorise("GET", "https://storage.googleapis.com/x", told)
    assert told["authorization"] == "Bearer new-1"


@pytest.mark.parametrize("credentials", [Renewed(token="old"), Credentials(token="old")], ids=["renewed", "fixed"])
def test_credentials_that_are_refused_after_all_are_an_error(abroad: Abroad, credentials: Credentials) -> None:
    abroad.seen.refused.update(("Bearer old", "Bearer new-1"))
    with pytest.raises(AuthError) as caught:
        abroad.allow(credentials).list(abroad.root)
    assert "\n" not in str(caught.value)
    assert abroad.seen.tokens == ["Bearer old", "Bearer new-1"][:1 + isinstance(credentials, Renewed)]


def test_calling_off_ends_a_tls_connection_and_never_its_encryption(abroad: Abroad) -> None:
    line = Line(abroad.allow(Credentials(token="x")).session, Traffic(OPTIONS))
    connection = line.connect()
    connection.connect()
    line.traffic.stop()
    line.cut()
    # Whoever is sending in this moment gets an error, not a socket in the clear.
    assert isinstance(connection.sock, ssl.SSLSocket)
    assert connection.sock.version() is not None
    with pytest.raises(OSError):
        connection.sock.sendall(bytes(1 << 20))
    line.forget(connection)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "127.0.0.1:1"])
def test_a_proxy_that_is_not_there_is_an_outage(
    abroad: Abroad, monkeypatch: pytest.MonkeyPatch, proxy: str,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    objects = Objects(abroad.allow(Credentials(token="x")).session, patience_s=0.1)
    with pytest.raises(GcpodError, match="no answer") as caught:
        objects.list(abroad.root)
    assert caught.value.code == "J405"
