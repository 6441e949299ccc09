"""The way in for clients with Google's addresses compiled in: a CONNECT proxy that speaks TLS as ``*.googleapis.com``.

TensorFlow's ``gs://`` is such a client. Its traffic is decrypted with a certificate of a throwaway authority, made at
each start and known only to processes that are given it, and passed on to the plain HTTP port.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gcpod.localcloud.reframe import HEAD_LIMIT_BYTES, FramingError, pump_requests

_TARGET = re.compile(rb"CONNECT ([a-z0-9-]+\.googleapis\.com):443 HTTP/1\.[01]", re.IGNORECASE)
_HEAD_LIMIT_BYTES = 16 << 10
_HEAD_TIMEOUT_S = 30
_PIECE_BYTES = 256 << 10
Pump = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_LIFETIME = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Certificates:
    """Files of one start: the authority to trust, and chain and key of the server."""

    authority: Path
    chain: Path
    key: Path


def make_certificates(folder: Path, now: datetime.datetime) -> Certificates:
    """Makes an authority and a certificate for ``*.googleapis.com``; the authority's own key is never written."""
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gcpod local cloud (throwaway)")])
    identity = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _blank(name, name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identity, critical=False)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "*.googleapis.com")])
    server = (
        _blank(subject, name, server_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.googleapis.com")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    pem = serialization.Encoding.PEM
    _write(made.authority, authority.public_bytes(pem), 0o644)
    _write(made.chain, server.public_bytes(pem), 0o644)
    _write(
        made.key, server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()), 0o600
    )
    return made


def _blank(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


class Proxy:
    """The proxy and its thread, on 127.0.0.1.

    Args:
        folder: where certificate and key go; nothing else can read the key.
        http_port: the plain port that gets the decrypted requests.
        now: when the certificates are made.
    """

    def __init__(self, folder: Path, http_port: int, now: datetime.datetime) -> None:
        self.certificates = make_certificates(folder, now)
        self.port = 0
        self._http_port, self._tls_port = http_port, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gcpod-localcloud-proxy", daemon=True)
        self._servers: list[asyncio.Server] = []
        # The loop itself holds tasks weakly: one that waits for a silent peer could be collected while it runs.
        self._connections: set[asyncio.Task[Any] | None] = set()

    def start(self) -> None:
        """Listens; `port` is known afterwards."""
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        """Cuts what is open, and ends the thread."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.certificates.key.unlink(missing_ok=True)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates.chain, self.certificates.key)
        context.set_alpn_protocols(["http/1.1"])
        # A tunnel carries the client's TLS bytes to the inner port, which decrypts them: streams cannot change to TLS
        # half-way before Python 3.11.
        inner = await asyncio.start_server(self._decrypted, "127.0.0.1", 0, ssl=context, limit=HEAD_LIMIT_BYTES)
        outer = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self._servers = [outer, inner]
        self._tls_port, self.port = inner.sockets[0].getsockname()[1], outer.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._kept(), _ending(writer):
            try:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_TIMEOUT_S)
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, OSError):
                return
            if len(head) > _HEAD_LIMIT_BYTES or not _TARGET.fullmatch(head.partition(b"\r\n")[0]):
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await _relay(reader, writer, self._tls_port, _pump)
            with contextlib.suppress(OSError):
                await writer.drain()

    async def _decrypted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._kept(), _ending(writer):
            await _relay(reader, writer, self._http_port, pump_requests)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            yield
        finally:
            self._connections.discard(task)


@contextlib.contextmanager
def _ending(writer: asyncio.StreamWriter) -> Iterator[None]:
    # Connections end when the peer is gone or the proxy stops; neither is an error.
    try:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            yield
    finally:
        writer.close()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, pump: Pump) -> None:
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    with _ending(inner_writer):
        there = asyncio.ensure_future(_one_way(pump, reader, inner_writer))
        try:
            await _one_way(_pump, inner_reader, writer)
        finally:
            # Once the server has said its last word nothing more can be answered.
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)


async def _one_way(pump: Pump, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await pump(reader, writer)
    except (OSError, asyncio.IncompleteReadError, FramingError):
        writer.close()
    else:
        # What the peer has still to say in the other direction is waited for.
        if writer.can_write_eof():
            writer.write_eof()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
