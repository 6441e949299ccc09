"""A proxy in front of the local cloud that counts requests by operation, and spoils exactly those it is told to.

    with Faulty(cloud.url) as proxy:
        proxy.spoil(Fault("insert", ResetAfter()))
        ... a session with proxy.url for an endpoint ...
        assert proxy.count("insert") == 2

The cloud's own addresses in replies (``Location``, ``mediaLink``) follow the Host header and so lead here, too.
One thread for each connection; bodies are streamed. Needs Linux.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal

from .faulty_faults import (
    Action,
    Alter,
    AlterRequest,
    CutReply,
    CutRequest,
    Delay,
    Fault,
    Operation,
    Request,
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
from .faulty_line import Line, Shared
from .faulty_wire import Wire

__all__ = [
    "Action", "Alter", "AlterRequest", "Connections", "CutReply", "CutRequest", "Delay", "Fault", "Faulty",
    "Operation", "Passed", "Request", "ResetAfter", "ResetBefore", "ShortReply", "StallBefore", "StallReply",
    "StallRequest", "Status", "StatusAfter", "Throttle",
]
_BACKLOG = 256


@dataclass(frozen=True)
class Passed:
    """Bytes of bodies: to the server, and to the client."""

    sent: int
    received: int


@dataclass(frozen=True)
class Connections:
    """From clients: those open now, and all."""

    open: int
    ever: int


class Faulty:
    """The proxy, as a context manager.

    Args:
        target: base URL of the server, such as `LocalCloud.url`; plain HTTP.
    """

    def __init__(self, target: str) -> None:
        self._shared = Shared(target)
        self._lock, self._lines, self._ever = threading.Lock(), set[Line](), 0
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Faulty:
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cuts what is open, ends every wait, and returns once all threads have ended; harmless when closed."""
        if self._shared.closing.is_set():
            return
        with self._lock:
            self._shared.closing.set()
            self._shared.stalls.close()
            # Closing alone would not wake the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
            for line in self._lines:
                line.shut()
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        self._listener.close()

    def spoil(self, *faults: Fault) -> None:
        """Has faults done to requests from now on."""
        self._shared.board.add(faults)

    def release(self) -> None:
        """Lets the requests go on that are stalled now."""
        self._shared.stalls.release()

    def clear(self) -> None:
        """Forgets the faults and the log; what is stalled goes on."""
        self._shared.board.clear()
        self.release()

    @property
    def unused(self) -> list[Fault]:
        """Faults that were not done as often as they were to be."""
        return self._shared.board.unused()

    @property
    def stalled(self) -> int:
        """How many requests are stalled now."""
        return len(self._shared.stalls)

    @property
    def log(self) -> list[Request]:
        """All requests in the order in which they came; one in work as it stands."""
        return self._shared.board.log()

    def count(self, operation: Operation | Literal["any"]) -> int:
        """How many requests of that kind came."""
        return sum(operation in ("any", one.operation) for one in self.log)

    def body_bytes(self, operation: Operation | Literal["any"]) -> Passed:
        """Bytes of bodies that passed; a multipart insert's count with its envelope."""
        found = [one for one in self.log if operation in ("any", one.operation)]
        return Passed(sum(one.sent_bytes for one in found), sum(one.received_bytes for one in found))

    @property
    def connections(self) -> Connections:
        """Those of clients."""
        with self._lock:
            return Connections(len(self._lines), self._ever)

    def _begin(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name="faulty", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                if self._shared.closing.is_set():
                    return
                raise
            with self._lock:
                if self._shared.closing.is_set():
                    connection.close()
                    return
                line = Line(self._shared, Wire(connection))
                self._lines.add(line)
                self._ever += 1
                self._begin(partial(self._serve, line))

    def _serve(self, line: Line) -> None:
        try:
            line.serve()
        finally:
            with self._lock:
                self._lines.discard(line)
