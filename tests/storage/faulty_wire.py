"""HTTP/1.1 as far as a proxy understands it (RFC 9112): heads, bodies, and connections that end in a chosen way."""

from __future__ import annotations

import fcntl
import re
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BufferedReader
from typing import Literal

PIECE_BYTES = 256 << 10
LAST_CHUNK = b"0\r\n\r\n"
_LINE_LIMIT_BYTES = 64 << 10
_FIELDS_LIMIT = 256
_SETTLE_S = 2.0
# Loopback sends segments of 64 KiB: a window of few of them makes TCP creep.
_SMALL_WINDOW_BYTES = 256 << 10
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
Pieces = Iterator[bytes]
Extent = int | Literal["chunked", "close"]
"""Where a body ends: after so many bytes, by its own chunks, or with the connection."""


class WireError(Exception):
    """The bytes are no HTTP message that can be delimited, or it ends early."""


@dataclass(frozen=True)
class Head:
    """The first line and the header fields of a message, in their order and spelling."""

    first: str
    fields: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """The value of the first field of that name, "" when there is none."""
        return next((value for key, value in self.fields if key.lower() == name), "")

    def without(self, *names: str) -> Head:
        return replace(self, fields=tuple(field for field in self.fields if field[0].lower() not in names))

    def sized(self, size: int) -> Head:
        """The same with a body of ``size`` bytes."""
        kept = self.without("content-length", "transfer-encoding")
        return replace(kept, fields=(*kept.fields, ("Content-Length", str(size))))

    def render(self) -> bytes:
        return "\r\n".join([self.first, *(f"{name}: {value}" for name, value in self.fields), "", ""]).encode("latin-1")

    def request_line(self) -> tuple[str, str]:
        """Verb and target.

        Raises:
            WireError: it is no request.
        """
        words = self.first.split(" ")
        if len(words) != 3 or not words[0].isalpha() or not words[2].startswith("HTTP/1."):
            raise WireError(f"no request line: {self.first[:80]!r}")
        return words[0], words[1]

    def status(self) -> int:
        """The status code.

        Raises:
            WireError: it is no reply.
        """
        words = self.first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not re.fullmatch("[1-9][0-9][0-9]", words[1]):
            raise WireError(f"no status line: {self.first[:80]!r}")
        return int(words[1])

    def request_extent(self) -> Extent:
        """Where a request's body ends.

        Raises:
            WireError: the length cannot be read.
        """
        return self._extent() or 0

    def reply_extent(self, verb: str) -> Extent:
        """Where the body of a reply to ``verb`` ends.

        Raises:
            WireError: the length cannot be read.
        """
        if verb == "HEAD" or self.status() in (204, 304):
            return 0
        extent = self._extent()
        return "close" if extent is None else extent

    def _extent(self) -> int | Literal["chunked"] | None:
        # Chunks count where both are given (RFC 9112, 6.3).
        if self.get("transfer-encoding").lower() == "chunked":
            return "chunked"
        lengths = {value for name, value in self.fields if name.lower() == "content-length"}
        if len(lengths) > 1 or not all(_LENGTH.fullmatch(one) for one in lengths):
            raise WireError("Content-Length cannot be read")
        return int(lengths.pop()) if lengths else None


def read_head(file: BufferedReader) -> Head | None:
    """The next head, or None when the peer ended the connection before it.

    Raises:
        WireError: something that is no head, or half of one.
    """
    first = file.readline(_LINE_LIMIT_BYTES)
    if not first:
        return None
    if not first.endswith(b"\n"):
        raise WireError("the first line does not end")
    fields: list[tuple[str, str]] = []
    while line := _line(file):
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name.strip() or len(fields) == _FIELDS_LIMIT:
            raise WireError("no header field, or too many")
        fields.append((name.strip(), value.strip()))
    return Head(first.decode("latin-1").strip(), tuple(fields))


def _line(file: BufferedReader) -> bytes:
    line = file.readline(_LINE_LIMIT_BYTES)
    if not line.endswith(b"\n"):
        raise WireError("a line does not end")
    return line.rstrip(b"\r\n")


def pieces_of(file: BufferedReader, extent: Extent) -> Pieces:
    """A body as it comes, without the framing, in pieces of up to `PIECE_BYTES`.

    Raises:
        WireError: it ends early, or its chunks cannot be read.
    """
    if extent == "close":
        while piece := _some(file, PIECE_BYTES):
            yield piece
    elif extent == "chunked":
        while size := _chunk_size(file):
            yield from _exactly(file, size)
            if _line(file):
                raise WireError("a chunk is longer than its size")
        while _line(file):
            pass
    else:
        yield from _exactly(file, extent)


def _chunk_size(file: BufferedReader) -> int:
    found = _CHUNK_LINE.fullmatch(_line(file))
    if found is None:
        raise WireError("a chunk's size cannot be read")
    return int(found[1], 16)


def _exactly(file: BufferedReader, size: int) -> Pieces:
    while size:
        piece = _some(file, min(size, PIECE_BYTES))
        if not piece:
            raise WireError(f"{size} bytes of a body are missing")
        size -= len(piece)
        yield piece


def _some(file: BufferedReader, most: int) -> bytes:
    # What has arrived, without waiting for more: a stream is passed on as it comes.
    return file.read1(most)


def framed(piece: bytes, extent: Extent) -> bytes:
    """A piece as it goes over the wire."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if extent == "chunked" and piece else piece


def interrupted(pieces: Pieces, size: int, then: Callable[[], None]) -> Pieces:
    """The same bytes, with a call after ``size`` of them, or at their end when they are fewer."""
    passed = 0
    if size == 0:
        then()
    for piece in pieces:
        left = size - passed
        passed += len(piece)
        if 0 < left <= len(piece):
            yield piece[:left]
            then()
            piece = piece[left:]
        if piece:
            yield piece
    if passed < size:
        then()


def altered(pieces: Pieces, function: Callable[[bytes], bytes]) -> Pieces:
    content = b"".join(pieces)
    other = function(content)
    if len(other) != len(content):
        raise ValueError(f"the request's body had {len(content)} bytes and got {len(other)}")
    yield other


def drain(pieces: Pieces) -> None:
    for _ in pieces:
        pass


class Wire:
    """One end of a TCP connection: used and closed by one thread, `shut` by any."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.file = connection.makefile("rb")
        self._lock = threading.Lock()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def narrow(self) -> None:
        """Lets the peer send little ahead of what is read; what was promised to it before still comes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_WINDOW_BYTES)

    def settle(self, pause: Callable[[float], bool]) -> None:
        """Waits until the peer's kernel has all that was sent, as a reset throws away what is still here.

        Args:
            pause: waits for so many seconds; true when there is no time any more.
        """
        until = time.monotonic() + _SETTLE_S
        with suppress(OSError):
            while self._unacknowledged() and time.monotonic() < until and not pause(0.001):
                pass

    def _unacknowledged(self) -> int:
        # SIOCOUTQ of Linux (tcp(7)) is the terminals' TIOCOUTQ.
        return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0\0\0\0"))[0])

    def close(self, *, reset: bool = False) -> None:
        """Ends the connection: by FIN, or by RST, which SO_LINGER with no time makes of a close (socket(7))."""
        with self._lock:
            if reset and self.socket.fileno() != -1:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.file.close()
            self.socket.close()

    def shut(self) -> None:
        """Ends whatever the thread that uses it waits for."""
        with self._lock, suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Stalls:
    """Threads that say nothing until they are let go."""

    def __init__(self) -> None:
        self._lock, self._held, self._over = threading.Lock(), set[socket.socket](), False

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, peer: socket.socket) -> bool:
        """Waits until `release` or until the peer goes; whether to go on."""
        bell, rope = socket.socketpair()
        with bell, rope:
            with self._lock:
                if self._over:
                    return False
                self._held.add(rope)
            poll = select.poll()
            poll.register(peer, select.POLLRDHUP)
            poll.register(bell, select.POLLIN)
            rung = bell.fileno() in {number for number, _ in poll.poll()}
            with self._lock:
                self._held.discard(rope)
                return rung and not self._over

    def release(self) -> None:
        """Lets those go on that are held now."""
        with self._lock:
            for rope in self._held:
                rope.send(b"!")
            self._held.clear()

    def close(self) -> None:
        """Ends those held now, and holds no more."""
        with self._lock:
            self._over = True
        self.release()
