"""The folder where downloads keep what is not whole yet, each process its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gcpod.errors import StorageError
from gcpod.storage.journal import LIFETIME_S
from gcpod.storage.names import TRANSFER_FOLDER

_LOCK = "lock"


@contextmanager
def transfer_folder(folder: Path) -> Iterator[Path]:
    """Where a download keeps what is not whole yet, for this process alone.

    The first one in a folder goes on with what was left there; another, at the same time, begins in a place of its own.

    Raises:
        StorageError: it cannot be made.
    """
    aside = folder / TRANSFER_FOLDER
    try:
        descriptor = _locked(aside)
    except OSError as e:
        found = e.strerror or str(e)
        raise StorageError("writing", aside, found, "choose another folder, or mend its permissions") from e
    if descriptor is None:
        with tempfile.TemporaryDirectory(prefix=f"{TRANSFER_FOLDER}-", dir=folder) as own:
            yield Path(own)
        return
    try:
        _prune(aside)
        yield aside
    finally:
        with suppress(FileNotFoundError):
            if {path.name for path in aside.iterdir()} <= {_LOCK}:
                shutil.rmtree(aside, ignore_errors=True)
        os.close(descriptor)


def _locked(aside: Path) -> int | None:
    """The folder's lock, with the folder; None while another process has it."""
    while True:
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.mkdir(exist_ok=True)
            descriptor = os.open(aside / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except (FileExistsError, FileNotFoundError):
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(aside.lstat().st_mode):
                    raise
            continue  # whoever had it was done, and removed it in this moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if (aside / _LOCK).stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def _prune(aside: Path, clock: Callable[[], float] = time.time) -> None:
    """Removes what nobody went on with for a week: its generation is gone, or not wanted any more; and what killed
    processes left that were not alone in the folder."""
    def old(path: Path) -> bool:
        return clock() - path.stat().st_mtime > LIFETIME_S

    with suppress(FileNotFoundError):
        for path in aside.iterdir():
            if path.name != _LOCK and old(path):
                path.unlink(missing_ok=True)
        for path in aside.parent.glob(f"{TRANSFER_FOLDER}-*"):
            if old(path):
                shutil.rmtree(path, ignore_errors=True)
