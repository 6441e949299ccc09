"""A run's TensorBoard files mirrored to a local folder: at each poll only the bytes that are new."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gcpod.checksums import file_crc32c
from gcpod.storage.objects import ObjectInfo, Objects
from gcpod.uris import GcsUri, inside

_MARK = "events.out.tfevents."


@dataclass(frozen=True)
class Fetched:
    """What one poll brought: files that changed, and bytes that came over the network."""

    files: int
    bytes: int


def fetch_tensorboard(objects: Objects, model: GcsUri, folder: Path) -> Fetched:
    """Brings the event files below ``model`` up to date in ``folder``, keeping their subfolders.

    Event files only grow, so the new bytes are asked for from the known size on, of the very generation listed, and
    the whole is checked against its checksum; a file that did not just grow is fetched anew.

    Raises:
        StorageError, AuthError: the bucket cannot be read.
    """
    files = transferred = 0
    for info in objects.list(model):
        if _MARK not in info.uri.name:
            continue
        path = inside(folder, info.uri.name.removeprefix(model.prefix))
        brought = _bring(objects, info, path)
        files += brought is not None
        transferred += brought or 0
    return Fetched(files, transferred)


def _bring(objects: Objects, info: ObjectInfo, path: Path) -> int | None:
    """The number of bytes fetched for one file; None when nothing had to be."""
    known = path.stat().st_size if path.exists() else 0
    if known == info.size and (known == 0 or file_crc32c(path) == info.crc32c):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    tail = path.with_name(path.name + ".part")
    try:
        # Where the writer replaced the object since it was listed, the next poll brings it.
        if 0 < known < info.size:
            if not objects.fetch(info.uri, info.generation, known, tail):
                return None
            new = tail.read_bytes()
            if file_crc32c(path, new) == info.crc32c:
                with path.open("ab") as f:
                    f.write(new)
                return len(new)
        if not objects.fetch(info.uri, info.generation, 0, tail):
            return None
        tail.replace(path)
        return info.size
    finally:
        tail.unlink(missing_ok=True)
