"""What all connections of one transfer share: the options, the bandwidth, the counts, and the word to stop."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

PATIENCE_S = 120.0
"""How long one thing is tried again while the service is out of reach."""
CHUNK_BYTES = 64 << 20
"""A multiple of 256 KiB (https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload)."""
SINGLE_BYTES = 8 << 20
BLOCK_BYTES = 256 << 10
_LEAST_BLOCK_BYTES = 4 << 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 32.0
"""Truncated exponential backoff (https://cloud.google.com/storage/docs/retry-strategy#exponential-backoff)."""


@dataclass(frozen=True)
class TransferOptions:
    """How bytes move.

    Attributes:
        workers: connections at once; None: found by measuring.
        rate_bytes: bytes a second, over all connections, at the most; None: no limit.
        chunk_bytes: what one request of a resumable upload or of a large download carries; a multiple of 256 KiB.
        single_bytes: a file up to so large goes in one request: what a broken one costs is sent again within seconds.
        parts: how many pieces a file of `PARTS_FROM_BYTES` and more is sent in at once.
        stall_s: a connection that moves nothing for so long is closed.
        patience_s: how long one thing is tried again without getting further.
        pause_s: before the second attempt; twice as long before each further one, up to `LONGEST_PAUSE_S`.
    """

    workers: int | None = None
    rate_bytes: float | None = None
    chunk_bytes: int = CHUNK_BYTES
    single_bytes: int = SINGLE_BYTES
    parts: int = 1
    stall_s: float = 30.0
    patience_s: float = PATIENCE_S
    pause_s: float = FIRST_PAUSE_S


@dataclass(frozen=True)
class Counts:
    """What has moved so far.

    Attributes:
        bytes: of files; each once, also while it is on its way.
        sent_bytes: of all bodies, also of those sent again.
        answered: requests that were answered, and ``answered_bytes`` those of their bodies: what has really passed the
            line, where ``sent_bytes`` may wait in this machine still.
        troubles: attempts that failed.
    """

    files: int = 0
    bytes: int = 0
    sent_bytes: int = 0
    answered: int = 0
    answered_bytes: int = 0
    troubles: int = 0


class StoppedError(Exception):
    """The transfer was called off; whoever called it off knows why."""


class Traffic:
    """The state that the connections of a transfer share; every method may be called from any thread.

    Args:
        options: see `TransferOptions`.
        clock: seconds, monotonic.
        wait: waits so many seconds, or until `stop`; True when stopped.
        spread: a random number from 0 to 1, for the pauses.
    """

    def __init__(
        self, options: TransferOptions | None = None, clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None, spread: Callable[[], float] = random.random,
    ) -> None:
        self.options, self.clock, self.spread = options or TransferOptions(), clock, spread
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._lock = threading.Lock()
        self._counts = Counts()
        self._free_at = clock()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def counts(self) -> Counts:
        return self._counts

    def count(self, *, files: int = 0, moved: int = 0, answered: int = 0, through: int = 0, troubles: int = 0) -> None:
        """Adds; ``moved`` is negative where bytes turn out not to have arrived, ``through`` are answered bytes."""
        with self._lock:
            c = self._counts
            self._counts = Counts(c.files + files, c.bytes + moved, c.sent_bytes, c.answered + answered,
                                  c.answered_bytes + through, c.troubles + troubles)

    @property
    def block_bytes(self) -> int:
        """How much is read or written at a time: under a low limit less, so that every connection moves."""
        rate = self.options.rate_bytes
        return BLOCK_BYTES if rate is None else max(_LEAST_BLOCK_BYTES, min(BLOCK_BYTES, int(rate / 16)))

    def pause(self, seconds: float) -> None:
        """Raises StoppedError when the transfer is called off meanwhile."""
        if self._wait(seconds) or self.stopped:
            raise StoppedError

    def pass_bytes(self, number: int) -> None:
        """Called before so many bytes travel: waits for their turn under the limit."""
        if self.stopped:
            raise StoppedError
        rate = self.options.rate_bytes
        with self._lock:
            c = self._counts
            self._counts = replace(c, sent_bytes=c.sent_bytes + number)
            if rate is None:
                return
            now = self.clock()
            start = max(self._free_at, now)
            self._free_at = start + number / rate
        if start > now:
            self.pause(start - now)
