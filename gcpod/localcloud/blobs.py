"""The bytes of objects: immutable files below one folder, with the two checksums Cloud Storage keeps of each."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import google_crc32c

_CHUNK_BYTES = 1 << 20


class Source(Protocol):
    """Bytes to be kept: a request body, in memory or in a file of its own."""

    @property
    def size(self) -> int: ...
    @property
    def path(self) -> Path | None: ...
    def open(self) -> BinaryIO: ...


class Hasher:
    """crc32c and md5 of a growing run of bytes (https://cloud.google.com/storage/docs/data-validation)."""

    def __init__(self, with_md5: bool = True) -> None:
        self._crc = google_crc32c.Checksum()
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None

    def update(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        self._crc.update(chunk)
        if self._md5 is not None:
            self._md5.update(chunk)

    @property
    def crc32c(self) -> str:
        """Base64 of the big-endian checksum."""
        return base64.b64encode(self._crc.digest()).decode()

    @property
    def md5(self) -> str | None:
        """Base64 of the digest; None when it is not kept."""
        return None if self._md5 is None else base64.b64encode(self._md5.digest()).decode()


@dataclass(frozen=True)
class Blob:
    """A finished file: its name below the folder, its size in bytes and its checksums in base64."""

    name: str
    size: int
    crc32c: str
    md5: str | None


class Blobs:
    """A folder of blobs. A blob that no record names is an orphan, removed by `sweep`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[str] = set()

    def new_name(self) -> str:
        """A name nobody uses, in a folder that exists."""
        name = uuid.uuid4().hex
        part = name[:2]
        if part not in self._made:
            (self._folder / part).mkdir(parents=True, exist_ok=True)
            self._made.add(part)
        return f"{part}/{name}"

    def path(self, name: str) -> Path:
        """Where a blob lies."""
        return self._folder / name

    def write(self, chunks: Iterable[bytes], with_md5: bool = True) -> Blob:
        """Keeps a run of bytes; on any failure nothing stays."""
        name, hasher, size = self.new_name(), Hasher(with_md5), 0
        try:
            with (self._folder / name).open("xb", buffering=0) as file:
                for chunk in chunks:
                    hasher.update(chunk)
                    write_all(file, chunk)
                    size += len(chunk)
        except BaseException:
            self.remove(name)
            raise
        return Blob(name, size, hasher.crc32c, hasher.md5)

    def keep(self, source: Source, start: int = 0, end: int | None = None) -> Blob:
        """Keeps a request body, or the part of it from ``start`` to ``end``; a whole body in a file is moved."""
        if source.path is None or start or end is not None:
            with source.open() as file:
                return self.write(read_range(file, start, source.size if end is None else end))
        name = self.new_name()
        source.path.rename(self._folder / name)
        hasher = self.hash(name)
        return Blob(name, source.size, hasher.crc32c, hasher.md5)

    def hash(self, name: str) -> Hasher:
        """Reads a blob through, for its checksums."""
        hasher = Hasher()
        path = self._folder / name
        with path.open("rb") as file:
            for chunk in read_range(file, 0, path.stat().st_size):
                hasher.update(chunk)
        return hasher

    def link(self, name: str) -> str:
        """A second name for the same bytes; blobs never change, so a hard link is a copy."""
        copy = self.new_name()
        os.link(self._folder / name, self._folder / copy)
        return copy

    def remove(self, name: str) -> None:
        """Drops a blob; whoever has it open reads on."""
        (self._folder / name).unlink(missing_ok=True)

    def sweep(self, is_used: Callable[[str], bool]) -> int:
        """Removes orphans; returns how many there were."""
        removed = 0
        for path in self._folder.glob("*/*"):
            name = f"{path.parent.name}/{path.name}"
            if not is_used(name):
                path.unlink()
                removed += 1
        return removed


def write_all(file: BinaryIO, chunk: bytes) -> None:
    """Writes to an unbuffered file until everything is out."""
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def read_range(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The bytes from ``start`` up to but not including ``end``, in pieces of at most 1 MiB."""
    file.seek(start)
    left = end - start
    while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
        left -= len(chunk)
        yield chunk
