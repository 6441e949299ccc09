"""One object into one file: in ranges where it is large, checked, written aside and renamed.

What lies at the path is either what was there before or the whole object; what a killed process fetched of a large one
is kept beside, and counts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import google_crc32c

from gcpod.checksums import crc32c_text, file_crc32c
from gcpod.errors import StorageError
from gcpod.storage.calls import API
from gcpod.storage.channel import Answer, BrokenError, Channel
from gcpod.storage.patience import Patience, checked
from gcpod.storage.plan import ObjectInfo
from gcpod.storage.traffic import BLOCK_BYTES
from gcpod.storage.workers import Work

_TRIES = 3
_STEP_BYTES = 4 << 20


class ReplacedError(StorageError):
    """The generation that was listed is gone."""


@dataclass(frozen=True)
class Download:
    """An object, and the path that it comes to."""

    info: ObjectInfo
    path: Path


class Receiver:
    """The ranges of one object, each a piece of work; whoever is done last checks and renames.

    Args:
        download: what and where to.
        aside: an existing folder on the file system that is downloaded to.
        chunk_bytes: how long a range is.
        done: called when the file is there.
    """

    def __init__(self, download: Download, aside: Path, chunk_bytes: int, done: Callable[[], None]) -> None:
        self.download, self.info, self.done = download, download.info, done
        what = f"{self.info.uri}#{self.info.generation}#{chunk_bytes}#{download.path}"
        self._aside = aside / hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._log = self._aside.with_suffix(".log")
        size = self.info.size
        self._ranges = [(start, min(start + chunk_bytes, size)) for start in range(0, size, chunk_bytes)]
        self._lock = threading.Lock()
        self._reached = {number: start for number, (start, _) in enumerate(self._ranges)}
        self._checksum, self._ending, self._replaced = "", False, False

    def works(self) -> list[Work]:
        """What is to be done still; at least one thing, which ends it.

        Raises:
            StorageError: the folder cannot be written.
        """
        if len(self._ranges) == 1:
            return [self._alone]
        with self._writing():
            earlier = self._earlier()
            if not earlier:
                self._aside.write_bytes(b"")
                self._log.write_bytes(b"")
        self._reached |= earlier
        return [partial(self._work, number) for number in self._left()] or [self._end]

    def _left(self) -> list[int]:
        return [number for number, (_, end) in enumerate(self._ranges) if self._reached[number] < end]

    @property
    def earlier_bytes(self) -> int:
        """What an earlier process fetched, in bytes."""
        return sum(self._reached[number] - start for number, (start, _) in enumerate(self._ranges))

    def _alone(self, channel: Channel) -> None:
        with self._writing():
            self._aside.write_bytes(b"")
        self._fetch(0, channel)
        self._end(channel)

    def grow(self, channel: Channel) -> None:
        """Brings what follows the bytes at the path, which stays the same file for who reads it; where they are no
        beginning of the object, brings all of it.
        """
        with self._writing():
            known = self.download.path.stat().st_size if self.download.path.exists() else 0
            if 0 < known < self.info.size:
                self._aside.write_bytes(b"")
        if not 0 < known < self.info.size:
            self._anew(channel)
            return
        self._pour(known, self.info.size, -known, channel)
        with self._writing():
            fits = file_crc32c(self.download.path, self._aside, size=known) == self.info.crc32c
        if not fits:
            channel.traffic.count(moved=known - self.info.size)
            self._anew(channel)
            return
        with self._writing():
            # At the place that was known, so that two who bring the same bytes bring them once.
            with self._aside.open("rb") as new, self.download.path.open("r+b") as file:
                file.seek(known)
                shutil.copyfileobj(new, file, BLOCK_BYTES)
            self._aside.unlink()
        self.done()

    def _anew(self, channel: Channel) -> None:
        for work in self.works():
            work(channel)

    def _earlier(self) -> dict[int, int]:
        """How far earlier processes came in each range; a last line without an end is half written."""
        found: dict[int, int] = {}
        with suppress(OSError, ValueError):
            if self._aside.exists():
                for line in self._log.read_text(encoding="ascii").split("\n")[:-1]:
                    number, at = map(int, line.split())
                    if 0 <= number < len(self._ranges) and self._ranges[number][0] <= at <= self._ranges[number][1]:
                        found[number] = at
        return found

    def _work(self, number: int, channel: Channel) -> None:
        self._fetch(number, channel)
        with self._lock:
            last, self._ending = not self._ending and not self._left(), self._ending or not self._left()
        if last:
            self._end(channel)

    def _note(self, number: int, at: int) -> None:
        with self._lock, self._writing():
            self._check_there()
            with self._log.open("a", encoding="ascii") as file:
                file.write(f"{number} {at}\n")
            self._reached[number] = at

    def _fetch(self, number: int, channel: Channel) -> None:
        start, end = self._ranges[number]
        if len(self._ranges) == 1:
            self._checksum = crc32c_text(self._pour(start, end, 0, channel))
            return
        self._pour(self._reached[number], end, 0, channel, partial(self._note, number))

    def _pour(
        self, start: int, end: int, offset: int, channel: Channel, note: Callable[[int], None] = lambda _: None,
    ) -> int:
        """One range into the file aside, that much further on; a broken answer goes on at the next byte.

        Args:
            note: told now and then, and at the end, how far it is.

        Returns:
            the range's checksum.
        """
        patience = Patience(channel.traffic, "downloading", self.info.uri)
        at = noted = start
        crc = 0

        def attempt() -> None:
            nonlocal at, crc, noted
            for block in self._blocks(at, end, channel):
                with self._writing():
                    _write_at(file.fileno(), block, at + offset)
                at, crc = at + len(block), google_crc32c.extend(crc, block)
                patience.progressed()
                channel.traffic.count(moved=len(block))
                if at - noted >= _STEP_BYTES or at == end:
                    note(at)
                    noted = at

        with self._lock, self._writing():
            self._check_there()
            file = self._aside.open("r+b", buffering=0)
        with file:
            patience.run(attempt)
        return crc

    def _blocks(self, start: int, end: int, channel: Channel) -> Iterator[bytes]:
        """Bytes ``start`` to ``end`` of that very generation, as they are stored.

        Raises:
            BrokenError, AgainError: less came.
            StorageError: the object was replaced, or the service refuses.
        """
        # Without the first header, the service would unpack what is stored as gzip, whose checksum is another
        # (https://cloud.google.com/storage/docs/transcoding).
        headers = {"Accept-Encoding": "gzip", "Range": f"bytes={start}-{end - 1}"}
        query = {"alt": "media", "generation": str(self.info.generation)}
        with channel.open("GET", channel.line.path(API, self.info.uri, query), headers) as response:
            if response.status not in (200, 206):
                channel.check_token(response.status)
                self._refused(Answer.of(response))
            begins = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if not begins if response.status == 206 else (start, end) != (0, self.info.size):
                raise BrokenError("the service sends another range than was asked for")
            while start < end:
                block = response.read(min(channel.traffic.block_bytes, end - start))
                if not block:
                    raise BrokenError("the answer ended early")
                channel.traffic.pass_bytes(len(block))
                channel.traffic.count(through=len(block))
                start += len(block)
                yield block

    def _refused(self, answer: Answer) -> None:
        if answer.status in (404, 412):
            with self._lock:
                self._replaced = True
                self._forget()
            self._check_there()
        checked(answer, "downloading", self.info.uri)

    def _check_there(self) -> None:
        """That no other range met another generation; what was fetched is forgotten then."""
        if self._replaced:
            raise ReplacedError("downloading", self.info.uri, "it was replaced or removed since it was listed",
                                "run the command again")

    def _end(self, channel: Channel) -> None:
        if not self.info.crc32c:
            self._forget()
            raise StorageError("downloading", self.info.uri, "the service tells no checksum to hold it against",
                               "copy objects under a key of your own with gcloud storage")
        for _ in range(_TRIES):
            if self._whole():
                break
            channel.traffic.count(moved=-self.info.size)
            for number, (start, _) in enumerate(self._ranges):
                self._reached[number] = start
                self._fetch(number, channel)
        else:
            self._forget()
            raise StorageError("downloading", self.info.uri, f"its bytes arrived damaged {_TRIES} times",
                               "check this machine's network and memory, and run the command again")
        with self._writing():
            self.download.path.parent.mkdir(parents=True, exist_ok=True)
            if self.download.path.is_file():
                self._aside.chmod(stat.S_IMODE(self.download.path.stat().st_mode))
            self._aside.replace(self.download.path)
        self._forget()
        self.done()

    def _whole(self) -> bool:
        with self._writing():
            if self._aside.stat().st_size != self.info.size:
                return False
            checksum = self._checksum or file_crc32c(self._aside)
        self._checksum = ""
        return checksum == self.info.crc32c

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Tells this machine's failures apart from the network's, which pass."""
        try:
            yield
        except OSError as e:
            found = e.strerror or str(e)
            raise StorageError("writing", self.download.path, found, "mend that and run the command again") from e

    def _forget(self) -> None:
        self._log.unlink(missing_ok=True)
        self._aside.unlink(missing_ok=True)


def _write_at(descriptor: int, block: bytes, at: int) -> None:
    """All of a block: the system may take less than it is given."""
    view = memoryview(block)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
