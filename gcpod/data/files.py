"""Files below a folder: found, and read as images. Hidden ones are passed over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from gcpod.data.images import SUFFIXES
from gcpod.errors import DataError


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that is a file of its own; ``path`` is a plain string, as there may be a million of them."""

    path: str

    @property
    def promised(self) -> str | None:
        return SUFFIXES.get(suffix_of(self.path))

    def read(self) -> bytes:
        with FileIO(self.path) as file:
            return file.readall()

    def extras(self) -> Mapping[str, bytes]:
        return {}

    def __str__(self) -> str:
        return self.path


def walk(folder: Path) -> list[str]:
    """The relative paths, with forward slashes and sorted, of all files below a folder.

    Raises:
        DataError: the folder is missing or unreadable.
    """
    if not folder.is_dir():
        raise DataError("looking into", folder, "there is no such folder", "give an existing folder")
    return sorted(_walk(folder))


def with_suffix(names: Iterable[str], suffixes: Iterable[str]) -> list[str]:
    """Those of the names that end with one of the suffixes, whatever their case."""
    wanted = tuple(suffixes)
    return [name for name in names if name.lower().endswith(wanted)]


def suffix_of(name: str) -> str:
    """The suffix of a path, lower-case and with its dot, or ""."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _walk(folder: Path) -> Iterator[str]:
    """Regular files only, also those behind links; a folder that links lead back to is walked once."""
    waiting, seen = [""], set[tuple[int, int]]()
    while waiting:
        below = waiting.pop()
        try:
            status = (folder / below).stat()
            entries = () if (status.st_dev, status.st_ino) in seen else _entries(folder / below)
        except OSError as err:
            found = err.strerror or str(err)
            raise DataError("reading the folder", folder / below, found, "make it readable") from err
        seen.add((status.st_dev, status.st_ino))
        waiting += (f"{below}{entry.name}/" for entry in entries if entry.is_dir())
        yield from (below + entry.name for entry in entries if entry.is_file())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is not hidden, but for links that lead nowhere."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not (entry.name.startswith(".") or _dangling(entry))]


def _dangling(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry.path).exists()
