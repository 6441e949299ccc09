"""One client's connection through `faulty.Faulty`: each request is read, spoilt as its action says, and answered."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from functools import partial
from itertools import chain
from urllib.parse import urlsplit

from .faulty_faults import (
    Alter,
    AlterRequest,
    Board,
    CutReply,
    CutRequest,
    Exchange,
    ResetAfter,
    ResetBefore,
    ShortReply,
    StallBefore,
    StallReply,
    StallRequest,
    Status,
    StatusAfter,
    name_in,
    refusal,
    upload_id_of,
)
from .faulty_wire import (
    LAST_CHUNK,
    PIECE_BYTES,
    Extent,
    Head,
    Pieces,
    Stalls,
    Wire,
    WireError,
    altered,
    drain,
    framed,
    interrupted,
    pieces_of,
    read_head,
)

_PEEK_BYTES = 64 << 10


class Shared:
    """What all connections of one proxy know."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.server = (parts.hostname or "", parts.port or 80)
        self.closing, self.stalls, self.board = threading.Event(), Stalls(), Board()
        self.names: dict[str, str] = {}
        """Objects by upload id."""

    def wait(self, seconds: float) -> None:
        """Passes time, until the proxy closes at the latest."""
        if seconds > 0 and self.closing.wait(seconds):
            raise _BrokenError

    def hold(self, client: Wire) -> None:
        """Says nothing until released."""
        if not self.stalls.hold(client.socket):
            raise _BrokenError


class _BrokenError(Exception):
    """Both connections are to end here, by RST or by FIN."""

    def __init__(self, *, reset: bool = True) -> None:
        super().__init__(reset)
        self.reset = reset


class Line:
    """A client's connection and the one to the server that goes with it, in a thread."""

    def __init__(self, shared: Shared, client: Wire) -> None:
        self._shared, self._client = shared, client
        self._server: Wire | None = None

    def shut(self) -> None:
        """Ends what the thread waits for."""
        for wire in (self._client, self._server):
            if wire is not None:
                wire.shut()

    def serve(self) -> None:
        """Requests one after the other, until either side ends."""
        reset = False
        try:
            while self._exchange():
                pass
        except _BrokenError as broken:
            reset = broken.reset
        except (OSError, WireError):
            reset = True
        finally:
            for wire in (self._server, self._client):
                if wire is not None:
                    if reset:
                        wire.settle(self._shared.closing.wait)
                    wire.close(reset=reset)

    def _exchange(self) -> bool:
        head = read_head(self._client.file)
        if head is None:
            return False
        exchange = Exchange(head)
        if head.get("expect"):
            self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            exchange.head = head.without("expect")
        extent = head.request_extent()
        pieces = self._named(exchange, exchange.arriving(pieces_of(self._client.file, extent)))
        self._shared.board.admit(exchange)
        self._shared.wait(exchange.delay_s)
        if isinstance(exchange.action, ResetBefore):
            raise _BrokenError
        if isinstance(exchange.action, Status):
            return self._refuse(exchange, exchange.action, pieces)
        self._ask(exchange, extent, self._paced(exchange, self._spoilt_request(exchange, pieces)))
        return self._answer(exchange)

    def _named(self, exchange: Exchange, pieces: Pieces) -> Pieces:
        """The same pieces, once the object's name is known: it may stand in the body, or with the upload's start."""
        if exchange.operation in ("chunk", "status", "cancel"):
            exchange.name = self._shared.names.get(exchange.query["upload_id"], exchange.name)
        if exchange.name or exchange.operation not in ("insert", "start"):
            return pieces
        seen = b""
        for piece in pieces:
            seen += piece
            exchange.name = name_in(seen, exchange.operation == "insert")
            if exchange.name or len(seen) > _PEEK_BYTES:
                break
        return chain([seen] if seen else [], pieces)

    def _ask(self, exchange: Exchange, extent: Extent, pieces: Pieces) -> None:
        if self._server is None:
            self._server = Wire(socket.create_connection(self._shared.server))
            if self._shared.closing.is_set():
                raise _BrokenError
        # The head waits for the first piece: of a request that is held back nothing goes ahead.
        first, before = next(pieces, b""), exchange.head.render()
        for piece in chain([first], pieces):
            exchange.sent += len(piece)
            self._server.send(before + framed(piece, extent))
            before = b""
        if extent == "chunked":
            self._server.send(LAST_CHUNK)

    def _answer(self, exchange: Exchange) -> bool:
        """Passes the reply on; whether the connection lives."""
        assert self._server is not None
        head = read_head(self._server.file)
        while head is not None and head.status() < 200:
            head = read_head(self._server.file)
        if head is None:
            raise _BrokenError
        if exchange.operation == "start":
            self._shared.names[upload_id_of(head.get("location"))] = exchange.name
        extent = head.reply_extent(exchange.method)
        pieces = pieces_of(self._server.file, extent)
        match exchange.action:
            case StatusAfter() as instead:
                return self._refuse(exchange, instead, pieces)
            case ResetAfter():
                drain(pieces)
                raise _BrokenError
            case Alter(function) if extent != 0:
                content = function(b"".join(pieces))
                head, extent, pieces = head.sized(len(content)), len(content), iter([content])
        self._reply(exchange, head, extent, self._paced(exchange, self._spoilt_reply(exchange, pieces)))
        return extent != "close" and head.get("connection").lower() != "close"

    def _reply(self, exchange: Exchange, head: Head, extent: Extent, pieces: Pieces) -> None:
        # Counted before it is sent: what the client knows, the log knows.
        exchange.status = head.status()
        self._client.send(head.render())
        for piece in pieces:
            exchange.received += len(piece)
            self._client.send(framed(piece, extent))
        if extent == "chunked":
            self._client.send(LAST_CHUNK)

    def _refuse(self, exchange: Exchange, status: Status | StatusAfter, pieces: Pieces) -> bool:
        """Says the status once everything that is still coming has come."""
        drain(pieces)
        head, content = refusal(status)
        self._reply(exchange, head, len(content), iter([content] if exchange.method != "HEAD" else []))
        return True

    def _spoilt_request(self, exchange: Exchange, pieces: Pieces) -> Pieces:
        match exchange.action:
            case CutRequest(size):
                return interrupted(pieces, size, partial(self._end, reset=True))
            case StallRequest(size):
                self._client.narrow()
                return interrupted(pieces, size, partial(self._shared.hold, self._client))
            case StallBefore():
                return self._kept(pieces)
            case AlterRequest(function):
                return altered(pieces, function)
        return pieces

    def _spoilt_reply(self, exchange: Exchange, pieces: Pieces) -> Pieces:
        match exchange.action:
            case CutReply(size):
                return interrupted(pieces, size, partial(self._end, reset=True))
            case ShortReply(size):
                return interrupted(pieces, size, partial(self._end, reset=False))
            case StallReply(size):
                return interrupted(pieces, size, partial(self._shared.hold, self._client))
        return pieces

    def _end(self, *, reset: bool) -> None:
        raise _BrokenError(reset=reset)

    def _kept(self, pieces: Pieces) -> Pieces:
        with tempfile.SpooledTemporaryFile(PIECE_BYTES) as kept:
            for piece in pieces:
                kept.write(piece)
            self._shared.hold(self._client)
            kept.seek(0)
            while piece := kept.read(PIECE_BYTES):
                yield piece

    def _paced(self, exchange: Exchange, pieces: Pieces) -> Pieces:
        if not exchange.rate:
            yield from pieces
            return
        self._client.narrow()
        # Twenty steps a second, so that what is measured over a second is the rate.
        step = max(1, min(PIECE_BYTES, int(exchange.rate / 20)))
        passed, began = 0, time.monotonic()
        for piece in pieces:
            for at in range(0, len(piece), step):
                part = piece[at : at + step]
                passed += len(part)
                yield part
                self._shared.wait(began + passed / exchange.rate - time.monotonic())
