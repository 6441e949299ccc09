"""A model's archive, which is a stranger's: unpacked within bounds, and searched for its checkpoint."""

from __future__ import annotations

import errno
import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from gcpod.errors import ConfigError, PackageError

Version = Literal["V1", "V2"]
DAMAGED = "M603"
_BLOCK_BYTES = 1 << 20
_INDEX_BYTES = 16 << 20
"""Keys are sorted, and this one comes before all that begin with a small letter; a model's index has some 100 KB."""
_NAME_BYTES = 255
"""The longest file name on Linux (limits.h, NAME_MAX)."""
_OBJECT_GRAPH = b"CHECKPOINTABLE_OBJECT_GRAPH"
"""The key without its underscore: an index leaves out what a key begins with as the one before it does."""
_SHARD = re.compile(r"(?P<prefix>.+)\.data-(?P<number>\d{5})-of-(?P<shards>\d{5})")
_KNOWN = ("ckpt-0", "model.ckpt")
_UNREADABLE = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        archive_bytes: its own size.
        unpacked_bytes: everything in it.
        members: files and folders.
    """

    archive_bytes: int = 2 << 30
    unpacked_bytes: int = 4 << 30
    members: int = 10_000


LIMITS = Limits()


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this disk.

    Attributes:
        prefix: what ``PREFIX.index`` and ``PREFIX.data-00000-of-00001`` share.
        files: the index and every data shard.
        version: "V2" of TF2's object-based kind, "V1" of TF1's name-based kind; see `checkpoint_version`.
    """

    prefix: Path
    files: tuple[Path, ...]
    version: Version


def unpack(
    archive: Path, into: Path, limits: Limits, progress: Callable[[int, int], None], name: str,
) -> None:
    """Writes the regular files of a ``.tar.gz`` below a new folder.

    Args:
        archive: a gzip-compressed tar.
        into: a folder that does not exist yet; a failure leaves it half full.
        limits: where to stop.
        progress: called with the bytes of the archive read, and its size.
        name: what errors call the archive.

    Raises:
        PackageError: M603, it is damaged or too large, or a member is no regular file or folder below its own.
    """
    into.mkdir()
    total = archive.stat().st_size
    with archive.open("rb") as file, gzip.GzipFile(fileobj=file) as packed:
        stream = _Bounded(packed, limits.unpacked_bytes)
        for number, (tar, member) in enumerate(_members(name, stream)):
            if number >= limits.members or member.size > limits.unpacked_bytes:
                most = f"{limits.members} members or {limits.unpacked_bytes} bytes"
                raise _refused(name, f"it has more than {most}")
            path = _place(name, member, into)
            if member.isreg():
                with _made(name, member, path) as out:
                    for block in _blocks(name, tar, member):
                        out.write(block)
                        progress(min(file.tell(), total), total)
        with _reading(name):
            stream.drain()
    progress(total, total)


def find_checkpoint(folder: Path, name: str) -> Checkpoint:
    """The checkpoint in an unpacked archive, wherever in it; a SavedModel's variables are none.

    Args:
        folder: holds what was unpacked.
        name: what errors call the archive.

    Raises:
        ConfigError: C201, there is none, more than one, or one without all of its data.
    """
    inside = (p for p in folder.rglob("*.index") if "saved_model" not in p.relative_to(folder).parts)
    found = sorted(p for p in inside if p.is_file())
    indexes = [p for known in _KNOWN for p in found if p.stem == known] or found
    if len(indexes) != 1:
        names = ", ".join(str(p.relative_to(folder)) for p in indexes) or "no .index file"
        raise _incomplete(name, f"it holds {names}", "use an archive with one checkpoint")
    prefix = indexes[0].with_suffix("")
    beside = ((path, _SHARD.fullmatch(path.name)) for path in prefix.parent.iterdir())
    shards = sorted(path for path, shard in beside if shard and shard["prefix"] == prefix.name)
    counts = {int(p.name[-5:]) for p in shards}
    missing = {f"{prefix.name}.data-{n:05d}-of-{c:05d}" for c in counts for n in range(c)} - {p.name for p in shards}
    if len(counts) != 1 or missing or counts == {0}:
        what = ", ".join(sorted(missing)[:3]) or f"one set of {prefix.name}.data-00000-of-00001 files"
        raise _incomplete(name, f"it lacks {what}", "fetch the model again, or from another place")
    return Checkpoint(prefix, (indexes[0], *shards), checkpoint_version(indexes[0]))


def checkpoint_version(index: Path) -> Version:
    """What the config's ``fine_tune_checkpoint_version`` has to be.

    Both kinds are files of the same format. The trainer tells them apart by one key (is_object_based_checkpoint in
    object_detection/model_lib_v2.py): with it a checkpoint is TF2's, and the config must say V2; without, it is TF1's,
    and V1 is what the field is unless set. TensorFlow writes the index without compression, so the key's bytes stand
    there as they are (tensorflow/core/util/tensor_bundle/tensor_bundle.cc).
    """
    with index.open("rb") as file:
        return "V2" if _OBJECT_GRAPH in file.read(_INDEX_BYTES) else "V1"


class _Bounded:
    """Unpacked bytes, read forwards, each once and never more than allowed; what tarfile needs of a file."""

    def __init__(self, packed: gzip.GzipFile, limit: int) -> None:
        self._packed, self._limit = packed, limit

    def tell(self) -> int:
        return self._packed.tell()

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _BLOCK_BYTES:
            # tarfile reads extended headers whole, as large as they say they are.
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self._check(self.tell() + size)
        return self._packed.read(size)

    def seek(self, position: int) -> int:
        self._check(position)
        return self._packed.seek(position)

    def drain(self) -> None:
        """Reads what is left: gzip's checksum stands at the end."""
        while self._packed.read(_BLOCK_BYTES):
            self._check(self.tell())

    def _check(self, position: int) -> None:
        if position > self._limit + _BLOCK_BYTES:
            raise tarfile.ReadError(f"it holds more than {self._limit} bytes")


def _members(archive: str, stream: _Bounded) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with _reading(archive), tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
        for member in tar:
            yield tar, member


def _blocks(archive: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    with _reading(archive):
        source = tar.extractfile(member)
        left = member.size
        while source is not None and left > 0:
            block = source.read(min(left, _BLOCK_BYTES))
            if not block:
                raise EOFError(f"{member.name} ends early")
            left -= len(block)
            yield block


def _place(archive: str, member: tarfile.TarInfo, into: Path) -> Path:
    """Where a member goes; below ``into`` in any case."""
    shown = ascii(member.name[:100])
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise _refused(archive, f"{shown} is no regular file")
    parts = member.name.split("/")
    kept = [part for part in parts if part not in ("", ".")]
    try:
        long = any(len(part.encode()) > _NAME_BYTES for part in kept)
    except UnicodeEncodeError:
        raise _refused(archive, f"{shown} is no name in UTF-8") from None
    if member.name.startswith("/") or ".." in parts or long or not "".join(kept).isprintable():
        raise _refused(archive, f"{shown} is no name of a file below its folder")
    if member.isreg() and not kept:
        raise _refused(archive, f"{shown} is no name of a file")
    return into.joinpath(*kept)


@contextmanager
def _made(archive: str, member: tarfile.TarInfo, path: Path) -> Iterator[IO[bytes]]:
    """A new file; one that is there, or whose folder is a file, was in the archive before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = path.open("xb")
    except (FileExistsError, NotADirectoryError) as e:
        raise _refused(archive, f"{member.name[:100]!a} is there twice") from e
    except OSError as e:
        if e.errno == errno.ENAMETOOLONG:
            raise _refused(archive, f"{member.name[:100]!a}… is too long a name") from e
        raise
    with out:
        yield out


@contextmanager
def _reading(archive: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as e:
        raise _refused(archive, str(e) or type(e).__name__) from e


def _refused(archive: str, found: str) -> PackageError:
    fix = "fetch it again; if it repeats, do not trust its source"
    return PackageError("unpacking", archive, found, fix, code=DAMAGED)


def _incomplete(archive: str, found: str, fix: str) -> ConfigError:
    return ConfigError("finding the checkpoint in", archive, found, fix, code="C201")
