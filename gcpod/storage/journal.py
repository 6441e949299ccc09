"""Which resumable uploads are under way, so that a killed process goes on after the last byte that the service has.

A session's address lets anybody write to it (https://cloud.google.com/storage/docs/resumable-uploads#session-uris), so
what is written here only its owner may read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LIFETIME_S = 7 * 24 * 3600.0
"""Of a session (https://cloud.google.com/storage/docs/resumable-uploads#session-uris)."""
_MOST_BYTES = 16 << 10


class Entry:
    """The session of one upload; kept in a file that this process alone has locked."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor, self._path = descriptor, path

    @property
    def session(self) -> str:
        """The address an earlier process was given; "" where there was none."""
        text = os.pread(self._descriptor, _MOST_BYTES, 0).decode("utf-8", "replace")
        return text.rstrip("\n") if text.endswith("\n") else ""

    def keep(self, session: str) -> None:
        os.ftruncate(self._descriptor, 0)
        # Half a line, from a process killed here, has no end and counts as none.
        os.pwrite(self._descriptor, f"{session}\n".encode(), 0)

    def drop(self) -> None:
        os.ftruncate(self._descriptor, 0)

    def _end(self) -> None:
        if not self.session:
            self._path.unlink(missing_ok=True)


class Journal:
    """The entries in a folder, which is made when the first one is.

    Args:
        folder: below the user's cache directory.
        clock: seconds since the epoch.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.clock = folder, clock

    @contextmanager
    def entry(self, *about: object) -> Iterator[Entry | None]:
        """The entry of an upload, by everything that decides what is uploaded; None while another process has it, or
        where nothing can be written."""
        key = hashlib.sha256("\0".join(map(str, about)).encode("utf-8", "surrogateescape")).hexdigest()
        path = self.folder / key
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield None
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            entry = Entry(descriptor, path)
            try:
                yield entry
            finally:
                entry._end()
        finally:
            os.close(descriptor)

    def prune(self) -> None:
        """Removes what no service remembers any more."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if self.clock() - path.stat().st_mtime > LIFETIME_S:
                    path.unlink(missing_ok=True)
