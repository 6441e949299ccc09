"""The one place outside a project that gcpod writes to: the user's cache directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """GCPOD_CACHE, else ``gcpod`` below XDG_CACHE_HOME or ``~/.cache``
    (https://specifications.freedesktop.org/basedir-spec/latest/)."""
    env = os.environ if environ is None else environ
    if env.get("GCPOD_CACHE"):
        return Path(env["GCPOD_CACHE"])
    base = env.get("XDG_CACHE_HOME") or ""
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "gcpod"


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Waits until no other process has the folder's lock; ``shared`` lets others in that want it shared too.

    The system frees it when the process ends, however it does.
    """
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
