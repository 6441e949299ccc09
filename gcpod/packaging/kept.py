"""Built packages in the user's cache: kept while they are used, thrown away when they have not been for long."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gcpod.cache import locked
from gcpod.packaging.source import put_in_place

UNUSED_S: Final = 90 * 24 * 3600.0
"""How long nobody may have asked for packages before they go; a guess at how long people rest a project."""
Clock = Callable[[], float]


def ensure_folder(folder: Path, build: Callable[[Path], object], clock: Clock) -> list[Path]:
    """The files of a folder in the cache, which is built when it is not there; then goes what was not used for long.

    Each use sets the folder's time, under the lock that taking old ones away needs for itself: so none goes that
    another process was just given.

    Args:
        folder: its parent holds nothing but such folders.
        build: makes it at a path that is not there yet.
        clock: seconds since 1970.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not _used(folder, clock):
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            build(Path(aside) / "built")
            put_in_place(Path(aside) / "built", folder)
        _used(folder, clock)
        _prune(folder.parent, clock)
    return sorted(folder.iterdir())


def _used(folder: Path, clock: Clock) -> bool:
    with locked(folder.parent, shared=True):
        if not folder.is_dir():
            return False
        with suppress(OSError):  # A cache that may only be read is one all the same.
            os.utime(folder, (clock(), clock()))
        return True


def _prune(place: Path, clock: Clock) -> None:
    """Old folders are renamed under the lock and removed after it; those that a build left when it was killed too."""
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as aside, locked(place):
        for one in place.iterdir():
            with suppress(OSError):
                if one.name != Path(aside).name and clock() - one.stat().st_mtime > UNUSED_S:
                    one.rename(Path(aside) / one.name)
