"""Files below a folder: found, and read as images. Hidden ones are passed over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gcpod.data.images import SUFFIXES
from gcpod.errors import DataError


@dataclass(frozen=True)
class ImageFile:
    """An image that is a file of its own."""

    path: Path

    @property
    def promised(self) -> str | None:
        return SUFFIXES.get(self.path.suffix.lower())

    def read(self) -> bytes:
        return self.path.read_bytes()

    def extras(self) -> Mapping[str, bytes]:
        return {}

    def __str__(self) -> str:
        return str(self.path)


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
    wanted = frozenset(suffixes)
    return [name for name in names if PurePosixPath(name).suffix.lower() in wanted]


def _walk(folder: Path) -> Iterator[str]:
    def fail(err: OSError) -> None:
        raise DataError("reading the folder", err.filename, str(err.strerror), "make it readable") from err

    for root, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = Path(root).relative_to(folder)
        yield from ((base / name).as_posix() for name in files if not name.startswith("."))
