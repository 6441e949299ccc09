"""A list worked through by this process and helper processes together.

Reading labels and encoding records is work of Python's own, which threads of one process only take turns at. Helpers
are new interpreters that get work over a private socket: a fork would not be safe beside the caller's threads, and
`multiprocessing` would run the caller's script once more. What they are given and give back is pickled.
"""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, TypeVar

from gcpod.data.parallel import CORES

T = TypeVar("T")
R = TypeVar("R")

MAX_HELPERS: Final = 7
"""Each is some 50 MB; beyond this many, what one process has to do alone is the limit."""

_PATIENCE_S: Final = 0.05
_MANY: Final = 50
_SPREAD: Final = 16
_START: Final = (
    "import sys; from multiprocessing.connection import Connection; c = Connection(int(sys.argv[1])); "
    "sys.path[:] = c.recv(); from gcpod.data.crew import serve; serve(c)"
)
_FUNCTION, _ITEM = b"f", b"i"
_FAILED = pickle.dumps((False, None))


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in their order, so many at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


class Crew:
    """This process, and helpers that come as soon as the work takes so long that they pay. Use it as a context manager.

    Args:
        helpers: how many there are at most; as many as there are other cores by default.
        patience_s: seconds of work before they are started, which itself takes some 0.1 s of another core.
    """

    def __init__(self, helpers: int | None = None, patience_s: float = _PATIENCE_S) -> None:
        self._wanted = min(CORES - 1, MAX_HELPERS) if helpers is None else helpers
        self._team: list[_Helper] = []
        self._patience_s, self._since = patience_s, time.monotonic()

    def __enter__(self) -> Crew:
        self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._wanted = 0
        for helper in self._team:
            helper.close()
        self._team.clear()

    def ordered(self, function: Callable[[T], R], items: Sequence[T], ahead: int = 2) -> Generator[R, None, None]:
        """Yields ``function(item)`` for each item, in their order; only so many results wait at a time.

        What a helper does not get done, because it fails, dies, or cannot be given the work, is done here: an exception
        of the function is raised by this process.

        Args:
            function: pickled by name, or an object with ``__call__``, of which each helper gets a copy.
            items: best such that each takes some milliseconds.
            ahead: how many a helper has at hand: one to work on, others so that it need not wait for this process.
        """
        job = _Job(function, items, ahead)
        try:
            while not job.over:
                job.employ(self._hired(len(items)))
                if not job.work():
                    wait([helper.connection for helper in job.busy])
                for helper in job.collect():
                    self._dismiss(helper)
                yield from job.results()
        finally:
            for helper in job.busy:
                self._dismiss(helper)

    def _hired(self, count: int) -> Sequence[_Helper]:
        if self._wanted and (count >= _MANY or time.monotonic() - self._since >= self._patience_s):
            wanted, self._wanted = self._wanted, 0
            with suppress(OSError):
                self._team += (_Helper() for _ in range(wanted if sys.executable and not _frozen() else 0))
        return self._team

    def _dismiss(self, helper: _Helper) -> None:
        helper.close()
        self._team.remove(helper)


def _frozen() -> bool:
    """Whether this is a program that brings Python along, such as PyInstaller's: its executable is no interpreter."""
    return bool(getattr(sys, "frozen", False))


@dataclass(frozen=True)
class _Raised:
    """Instead of a result, for when its turn comes."""

    error: Exception


class _Job(Generic[T, R]):
    """One list on its way: what is still to be done, what each helper was given, what is done but not yet its turn."""

    def __init__(self, function: Callable[[T], R], items: Sequence[T], ahead: int) -> None:
        self._function, self._items, self._ahead = function, items, ahead
        self._todo, self._done, self._at = deque(range(len(items))), dict[int, R | _Raised](), 0
        self._ours = deque[int]()
        self._portable = True
        self.given: dict[_Helper, deque[int]] = {}

    @property
    def over(self) -> bool:
        return self._at == len(self._items)

    def employ(self, team: Sequence[_Helper]) -> None:
        for helper in team if self._portable else ():
            if self._todo and helper not in self.given:
                self._portable = helper.give(_FUNCTION, self._function)
                self.given[helper] = deque()
            while self._portable and self._todo and len(self.given[helper]) < self._ahead and self._near:
                self._portable = helper.give(_ITEM, self._items[self._todo[0]])
                if self._portable:
                    self.given[helper].append(self._todo.popleft())

    @property
    def busy(self) -> list[_Helper]:
        return [helper for helper, given in self.given.items() if given]

    @property
    def _near(self) -> bool:
        return self._todo[0] < self._at + _SPREAD

    def work(self) -> bool:
        """Does the next item here; False when there is none, or too many wait for an earlier one."""
        if not self._ours and not (self._todo and self._near):
            return False
        index = (self._ours or self._todo).popleft()
        try:
            self._done[index] = self._function(self._items[index])
        except Exception as err:
            self._done[index] = _Raised(err)
        return True

    def collect(self) -> Iterator[_Helper]:
        """Takes what helpers have ready; yields those that are of no more use. What they did not get done is
        done here: it might be what ended them."""
        for helper, given in list(self.given.items()):
            try:
                while given and helper.connection.poll():
                    done, result = helper.connection.recv()
                    index = given.popleft()
                    if done:
                        self._done[index] = result
                    else:
                        self._ours.append(index)
            except Exception:
                self._ours += self.given.pop(helper)
                yield helper

    def results(self) -> Iterator[R]:
        while self._at in self._done:
            result = self._done.pop(self._at)
            self._at += 1
            if isinstance(result, _Raised):
                raise result.error
            yield result


class _Helper:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C is for this process, which then ends its helpers.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, str(theirs.fileno())], stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )
        self.connection = Connection(ours.detach())
        with suppress(OSError):
            self.connection.send(sys.path)

    def give(self, kind: bytes, content: Any) -> bool:
        """Hands something over; False when it cannot be pickled. A helper that is gone is noticed later, when its
        results are asked for."""
        try:
            message = kind + pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
        except Exception:
            return False
        with suppress(OSError):
            self.connection.send_bytes(message)
        return True

    def close(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.wait()


def serve(connection: Connection) -> None:
    """What a helper does: applies the function it was last given to each item, until the connection ends."""
    inbox = SimpleQueue[bytes | None]()
    # Taken in at once, so that neither side ever waits for the other to listen while both are sending.
    Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    function: Callable[[Any], Any] | None = None
    with suppress(OSError):
        while (message := inbox.get()) is not None:
            if message.startswith(_FUNCTION):
                function = _loaded(message)
            else:
                connection.send_bytes(_result(function, message))


def _result(function: Callable[[Any], Any] | None, message: bytes) -> bytes:
    if function is None:
        return _FAILED
    try:
        return pickle.dumps((True, function(pickle.loads(message[1:]))), pickle.HIGHEST_PROTOCOL)  # noqa: S301
    except Exception:
        return _FAILED


def _loaded(message: bytes) -> Callable[[Any], Any] | None:
    """The function; None when this process cannot import it, so that its caller does the work."""
    try:
        function: Callable[[Any], Any] = pickle.loads(message[1:])  # noqa: S301
        return function
    except Exception:
        return None


def _receive(connection: Connection, inbox: SimpleQueue[bytes | None]) -> None:
    with suppress(OSError, EOFError):
        while True:
            inbox.put(connection.recv_bytes())
    inbox.put(None)
