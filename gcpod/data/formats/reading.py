"""What every reader does around its format: it reaches files, and tells what cannot be read, with code D104."""

from __future__ import annotations

from pathlib import Path

from gcpod.data.files import walk
from gcpod.errors import DataError
from gcpod.status import Finding


def names_below(folder: Path) -> list[str]:
    """What `gcpod.data.files.walk` finds.

    Raises:
        DataError: D104; the folder, or one below it, is missing or cannot be read.
    """
    try:
        return walk(folder)
    except DataError as err:
        raise recoded(err) from err


def head_of(path: Path, size: int) -> bytes:
    """The first ``size`` bytes of a file at most; b"" of whatever is no file or cannot be read, never an error."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""


def bytes_of(path: Path, tried: str) -> bytes:
    """All of a file.

    Raises:
        DataError: D104; it cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return file.readall()
    except OSError as err:
        raise unreadable(tried, path, err) from err


def place(path: object, line: int) -> str:
    """``file:line`` for messages; the file alone where the line is not known (0)."""
    return f"{path}:{line}" if line else str(path)


def malformed(tried: str, path: object, line: int, found: str, fix: str) -> DataError:
    """The error about what a file, or a folder, holds; line 0 where none is to blame."""
    return DataError(tried, place(path, line), found, fix, code="D104")


def unreadable(tried: str, path: object, err: OSError) -> DataError:
    """The error about a file that the system does not give."""
    return malformed(tried, path, 0, err.strerror or str(err), "make the file readable")


def recoded(err: DataError) -> DataError:
    """An error of what readers are built on, as one of theirs."""
    return DataError(err.tried, err.on, err.found, err.fix, code="D104")


def fault_of(err: DataError) -> Finding:
    """An error as a finding, where the rest can be read without what it is about."""
    return Finding(err.code, "error", err.on, err.found, err.fix)
