"""Channels that stay open between requests."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gcpod.storage.channel import Channel, Line


class Pool:
    """Channels of one line, as many as threads ever asked at once; for any thread.

    Their connections are closed by `close`, or when nobody has the pool any more.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        # Its ends are taken from and added to in one step, by whatever thread.
        self._idle = deque[Channel]()
        weakref.finalize(self, line.close)

    @contextmanager
    def channel(self) -> Iterator[Channel]:
        """A channel that is this thread's own within the block."""
        try:
            channel = self._idle.pop()
        except IndexError:
            channel = Channel(self.line)
        try:
            yield channel
        finally:
            self._idle.append(channel)

    def close(self) -> None:
        """Closes the connections that nobody is using; the next request makes a new one."""
        while self._idle:
            try:
                channel = self._idle.pop()
            except IndexError:
                return
            channel.close()
