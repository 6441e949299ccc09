"""Archives that tests make: honest ones and hostile ones."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

Member = tuple[str, bytes | str]
"""A name with a file's content, or with what a symbolic link leads to."""


def archive(path: Path, *members: Member, change: Callable[[tarfile.TarInfo], object] = lambda _: None) -> Path:
    """A .tar.gz of the members, in their order; ``change`` may turn each file into something else."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                change(info)
                tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def write(folder: Path, files: dict[str, str]) -> Path:
    """A folder of text files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
