"""What an upload would do: pure comparison of local files with one listing of the bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gcpod.uris import GcsUri


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing says; ``crc32c`` is base64 of the big-endian Castagnoli checksum, "" when none was given."""

    uri: GcsUri
    size: int
    generation: int
    crc32c: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalFile:
    """A file to upload and its checksum, base64 of the big-endian CRC32C as Cloud Storage gives it."""

    path: Path
    uri: GcsUri
    size: int
    crc32c: str


@dataclass(frozen=True)
class Upload:
    """One file that must move; ``generation`` is the one it replaces, 0 where there is none."""

    file: LocalFile
    generation: int


@dataclass(frozen=True)
class UploadPlan:
    """Which files move and which lie there already."""

    uploads: tuple[Upload, ...]
    unchanged: tuple[LocalFile, ...]

    @property
    def bytes(self) -> int:
        return sum(u.file.size for u in self.uploads)


def plan_upload(files: Iterable[LocalFile], there: Iterable[ObjectInfo]) -> UploadPlan:
    """Compares by size and checksum.

    Args:
        files: what should be there.
        there: a listing that covers their prefixes.
    """
    by_uri: Mapping[GcsUri, ObjectInfo] = {info.uri: info for info in there}
    uploads, unchanged = [], []
    for file in files:
        info = by_uri.get(file.uri)
        if info is not None and info.size == file.size and info.crc32c == file.crc32c:
            unchanged.append(file)
        else:
            uploads.append(Upload(file, info.generation if info else 0))
    return UploadPlan(tuple(uploads), tuple(unchanged))
