"""Many requests at once, over as many connections as pay; the first failure, or Ctrl-C, ends all of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from gcpod.storage.channel import Channel, Line
from gcpod.storage.traffic import StoppedError, Traffic

Work = Callable[[Channel], None]
FIRST, MOST = 8, 64
WINDOW_S = 0.4
WORTH = 1.15
"""Twice the connections have to bring so much more in a window; else the ones that are there are enough."""
_REQUEST_BYTES = 64 << 10
"""What a request weighs beside its bytes, so that small objects and large ones are measured by one number."""
_LOOK_S = 0.1
_LAST_WORDS_S = 0.5


class Workers:
    """Threads with a connection each.

    Args:
        line: makes the connections.
        works: what is to be done, in order of beginning.
        tick: called from the calling thread some ten times a second, and once at the end.
    """

    def __init__(self, line: Line, works: Iterable[Work], tick: Callable[[], None] = lambda: None) -> None:
        self.line, self.traffic, self.tick = line, line.traffic, tick
        self._works = deque(works)
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._wanted = self._running = 0
        self._changed = threading.Condition()

    def run(self) -> None:
        """Does everything.

        Raises:
            GcpodError: the first failure; what was not begun is not done, and what runs is cut off.
            KeyboardInterrupt: likewise.
        """
        fixed = self.traffic.options.workers
        pace = None if fixed else Pace(self.traffic)
        try:
            self._grow(fixed or FIRST)
            while not self._wait():
                self.tick()
                if pace is not None and pace.pays(self._running):
                    self._grow(2 * self._running)
        except BaseException:
            self.stop()
            raise
        finally:
            # One that is just being connected, or hashes, cannot be cut; it ends by itself, and moves nothing more.
            until = self.traffic.clock() + _LAST_WORDS_S
            for thread in self._threads:
                thread.join(max(0.0, until - self.traffic.clock()) if self.traffic.stopped else None)
        self.tick()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Has every thread end within moments."""
        self.traffic.stop()
        self.line.cut()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: not self._running, _LOOK_S)
            return not self._running

    def _grow(self, wanted: int) -> None:
        with self._changed:
            more = min(wanted, self.traffic.options.workers or MOST, self._running + len(self._works)) - self._running
            for _ in range(more):
                thread = threading.Thread(target=self._work, name="gcpod-transfer", daemon=True)
                self._threads.append(thread)
                self._running += 1
                thread.start()

    def _work(self) -> None:
        channel = Channel(self.line)
        try:
            while (work := self._next()) is not None:
                work(channel)
        except StoppedError:
            pass
        except BaseException as e:
            self._fail(e)
        finally:
            channel.close()
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _next(self) -> Work | None:
        with suppress(IndexError):
            return None if self.traffic.stopped else self._works.popleft()
        return None

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            first, self._failure = self._failure is None, self._failure or error
        if first:
            self.stop()


class Pace:
    """Measures whether the last growth paid, window by window."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self._best = 0.0
        self._over = False
        self._from = traffic.clock(), self._weight()

    def pays(self, running: int) -> bool:
        """Whether it is worth to have twice as many; at the end of each window only."""
        since, before = self._from
        now = self.traffic.clock()
        if self._over or running >= MOST or now - since < WINDOW_S:
            return False
        weight = self._weight()
        if self.traffic.counts.troubles:
            # More connections are no help to a line, or a service, that fails.
            self._over = True
            return False
        if weight == before:
            return False
        rate = (weight - before) / (now - since)
        self._from = now, weight
        self._over = rate < self._best * WORTH
        self._best = max(self._best, rate)
        return not self._over

    def _weight(self) -> int:
        counts = self.traffic.counts
        return counts.answered_bytes + _REQUEST_BYTES * counts.answered
