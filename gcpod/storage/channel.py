"""Kept-alive connections to Cloud Storage's JSON API, below google-cloud-storage.

What moves bytes of objects, or looks at them, goes this way because it was measured to pay: docs/storage.md has the
figures, benchmarks/transfers.py and benchmarks/jobs.py make them. Buckets and objects of unknown size are made by
Google's client (buckets.py, `objects.Objects.writer`).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from gcpod.errors import StorageError
from gcpod.session import Session, UnreachableError
from gcpod.storage.sockets import await_reply, send_all
from gcpod.storage.traffic import BLOCK_BYTES, StoppedError, Traffic
from gcpod.uris import GcsUri

_GOOGLE = "https://storage.googleapis.com"
_CONNECT_S = 20.0
MOST_BYTES = 64 << 20
"""The longest reply that is held in memory."""
_AGENT = "gcpod"


class BrokenError(Exception):
    """A connection ended or stood still: nothing is known about the request's fate.

    ``stale`` says that it had been used before, and the service may just have closed it while it was idle.
    """

    def __init__(self, found: str, *, stale: bool = False) -> None:
        super().__init__(found)
        self.stale = stale


@dataclass(frozen=True)
class Answer:
    """A whole reply; ``headers`` by lower-case name, those given more than once with commas between."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> Answer:
        """Reads a reply to its end.

        Raises:
            BrokenError: it ends early.
            StorageError: it is too long to be held in memory.
        """
        told = response.headers.get("Content-Length", "")
        if told.isdigit() and len(told) < 20 and int(told) > MOST_BYTES:
            raise StorageError("reading", "the service's answer", f"it has {told} bytes, more than a small object has",
                               "use `gcpod copy` for it")
        endless = response.length is None and not response.chunked
        content = response.read(MOST_BYTES)
        if not endless and (not response.isclosed() or (told.isdigit() and len(content) != int(told))):
            raise BrokenError("the answer ended early")
        # Cloud Storage tells an object's checksums in headers of one name (RFC 9110, 5.3).
        headers = {name.lower(): response.getheader(name, "") for name in response.headers}
        return cls(response.status, headers, content)

    def resource(self) -> dict[str, Any]:
        """The JSON object in it.

        Raises:
            BrokenError: it holds none, so that half of the reply is missing.
        """
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise BrokenError("the service's answer is no JSON object")
        return value

    @property
    def message(self) -> str:
        """What the service says is wrong."""
        try:
            return str(json.loads(self.body)["error"]["message"])
        except (ValueError, KeyError, TypeError):
            return self.body[:200].decode("utf-8", "replace")


class Line:
    """Where Cloud Storage is and who asks; makes channels, and can cut all of them.

    Args:
        session: who and where.
        traffic: what the channels share.
    """

    def __init__(self, session: Session, traffic: Traffic) -> None:
        self.session, self.traffic = session, traffic
        self.objects = session.settings.storage
        self.base = session.settings.endpoint.value or _GOOGLE
        self._parts = urlsplit(self.base)
        self._lock, self._open = threading.Lock(), set[http.client.HTTPConnection]()
        self._context: ssl.SSLContext | None = None

    def path(self, route: str, uri: GcsUri, query: Mapping[str, Any] | None = None, after: str = "") -> str:
        """``route`` + bucket + object, such as ``/storage/v1/b/B/o/NAME?…``; the object only where it has a name."""
        name = f"/{quote(uri.name, safe='')}" if uri.name else ""
        return self.bucket_path(route, uri.bucket, query, f"/o{name}{after}")

    def bucket_path(self, route: str, bucket: str, query: Mapping[str, Any] | None = None, after: str = "") -> str:
        """``route`` + bucket, such as ``/storage/v1/b/B?…``."""
        asked = {key: value for key, value in (query or {}).items() if value not in (None, "")}
        if self.objects.user_project:
            asked["userProject"] = self.objects.user_project
        return f"{route}/b/{quote(bucket, safe='')}{after}" + (f"?{urlencode(asked)}" if asked else "")

    def own(self, url: str) -> str:
        """The path and query of an address that the service gave.

        Raises:
            StorageError: it leads elsewhere, where these credentials have no business.
        """
        given = urlsplit("")
        if url.isascii() and url.isprintable() and " " not in url:
            with suppress(ValueError):
                given = urlsplit(url)
        if (given.scheme, given.netloc) != (self._parts.scheme, self._parts.netloc):
            raise StorageError("going on with the upload at", given.netloc or "the address", f"it is not {self.base}",
                               "check the endpoint")
        return f"{given.path}?{given.query}"

    def connect(self) -> http.client.HTTPConnection:
        connection = self._plain() if self._parts.scheme == "http" else self._secure()
        with self._lock:
            self._open.add(connection)
        if self.traffic.stopped:
            self.cut()
        return connection

    def _plain(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._parts.netloc, timeout=_CONNECT_S, blocksize=BLOCK_BYTES)

    def _secure(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port or 443
        proxy = None if urllib.request.proxy_bypass(host) else _proxy()
        if proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=_CONNECT_S, context=self._trust())
        by = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        connection = http.client.HTTPSConnection(
            by.hostname or "", by.port or 80, timeout=_CONNECT_S, context=self._trust(),
        )
        named = f"{unquote(by.username)}:{unquote(by.password or '')}" if by.username else ""
        told = {"Proxy-Authorization": "Basic " + base64.b64encode(named.encode()).decode()} if named else {}
        connection.set_tunnel(host, port, told)
        return connection

    def _trust(self) -> ssl.SSLContext:
        """The authorities that requests trusts, so that both of our ways to the service need the same settings."""
        if self._context is None:
            import certifi

            named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
            folder = named if Path(named).is_dir() else None
            self._context = ssl.create_default_context(cafile=None if folder else named, capath=folder)
        return self._context

    def forget(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def cut(self) -> None:
        """Ends every connection under whoever waits for it."""
        with self._lock:
            for connection in self._open:
                # Closing alone would not wake a thread that reads. A TLS socket's own shutdown would first drop what
                # encrypts, under a thread that may be sending.
                with suppress(OSError, TypeError):
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


    def close(self) -> None:
        """Closes every connection; nobody may be using one."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            connection.close()


def _proxy() -> str | None:
    named = urllib.request.getproxies()
    return named.get("https") or named.get("all")


class Channel:
    """One connection, for one thread."""

    def __init__(self, line: Line) -> None:
        self.line, self.traffic = line, line.traffic
        self._connection: http.client.HTTPConnection | None = None
        self._used = self._renewed = False

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._used = False
        if connection is not None:
            self.line.forget(connection)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | Iterable[bytes] = b"",
        length: int | None = None,
    ) -> Answer:
        """Sends a request and reads the whole reply.

        Args:
            method, path, headers: of the request; Content-Length and the credentials are added.
            body: bytes, or blocks of them, which count as traffic.
            length: of the blocks, in bytes in all.

        Raises:
            BrokenError: no whole answer came.
            StoppedError: the transfer was called off.
        """
        with self.open(method, path, headers, body, length) as response:
            answer = Answer.of(response)
        self.check_token(answer.status)
        return answer

    def check_token(self, status: int) -> None:
        """Renews credentials that the service no longer takes; once, until it takes some again.

        Raises:
            BrokenError: it did; the request is to be sent again.
        """
        if status != 401:
            self._renewed = False
        elif not self._renewed and self.line.session.renew():
            self._renewed = True
            raise BrokenError("the credentials had expired", stale=True)

    @contextmanager
    def open(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | Iterable[bytes] = b"",
        length: int | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """As `ask`, for a reply that is read bit by bit."""
        told = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})}
        told["Content-Length"] = str(len(body) if isinstance(body, bytes) else length)
        whole = False
        try:
            with self._translated():
                self.line.session.authorise(method, self.line.base + path, told)
                response = self._send(method, path, told, body)
                self.traffic.count(answered=1, through=int(told["Content-Length"]))
                with response:
                    yield response
                    whole = response.isclosed() and not response.will_close
        finally:
            # Half a reply is still on its way, or the service closes: the next request gets a connection of its own.
            if not whole:
                self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        used = self._used
        try:
            yield
        except UnreachableError as e:
            raise BrokenError(str(e)) from self._stopped(e)
        except TimeoutError as e:
            raise BrokenError(f"nothing moved for {self.traffic.options.stall_s:g} s") from self._stopped(e)
        except http.client.IncompleteRead as e:
            raise BrokenError("the answer ended early") from self._stopped(e)
        except (http.client.RemoteDisconnected, ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as e:
            raise BrokenError(f"the connection broke ({type(e).__name__})", stale=used) from self._stopped(e)
        except ssl.SSLCertVerificationError as e:
            fix = "where a proxy reads along, name its authority as REQUESTS_CA_BUNDLE"
            raise StorageError("trusting the certificate of", self.line.base, e.verify_message, fix) from e
        except (http.client.HTTPException, OSError) as e:
            # Not what they say: some quote the address, which for an upload is a secret.
            raise BrokenError(f"no answer ({type(e).__name__})") from self._stopped(e)

    def _stopped(self, error: Exception) -> Exception:
        """The error itself; cut connections look broken, and are not."""
        if self.traffic.stopped:
            raise StoppedError from error
        return error

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | Iterable[bytes],
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self.line.connect()
            self._connection.connect()
            # Who called it off meanwhile could not cut what was not there yet.
            if self.traffic.stopped:
                raise StoppedError
        connection = self._connection
        connection.sock.settimeout(self.traffic.options.stall_s)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        try:
            if isinstance(body, bytes):
                # Head and body leave in one packet.
                connection.endheaders(body)
            else:
                connection.endheaders()
                for block in body:
                    self.traffic.pass_bytes(len(block))
                    send_all(connection.sock, block)
        except (ConnectionError, BrokenPipeError) as e:
            # A service that refuses says why before it closes; what it said may have arrived.
            with suppress(http.client.HTTPException, OSError):
                return connection.getresponse()
            raise e from None
        self._used = True
        await_reply(connection.sock, self.traffic.options.stall_s)
        return connection.getresponse()
