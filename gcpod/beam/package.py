"""gcpod for workers that have none: a source distribution with no more requirements than building a dataset has."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Final

from gcpod.data.pixels import library_version
from gcpod.packaging.sdist import Sdist, pack

REQUIRES: Final = ("defusedxml>=0.7", "google-crc32c>=1.5", "pyyaml>=6")
"""What `gcpod.beam` and `gcpod.data` import at a worker; as in pyproject.toml."""


def worker_package(folder: Path) -> Path:
    """Writes the package and returns its path.

    It asks for this machine's version of Pillow, by which images are converted: so the bytes are those made here.
    """
    root = Path(__file__).parents[1]
    files = {path.relative_to(root.parent).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.py"))}
    sdist = Sdist("gcpod", version("gcpod"), files, (*REQUIRES, f"pillow=={library_version()}"))
    path = folder / sdist.filename
    path.write_bytes(pack(sdist))
    return path
