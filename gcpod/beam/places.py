"""Files on this machine and in Cloud Storage alike, by Beam's FileSystems: images, work files and the dataset's own.

Everything that is written gets its name when it is whole. A runner may do a piece of work twice, at the same time or
one after another; so both may write, and the last one's file, of the same bytes, stays.
"""

from __future__ import annotations

import errno
import pickle
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, cast

from gcpod.checksums import file_crc32c
from gcpod.data.files import with_suffix
from gcpod.data.images import OTHER_SUFFIXES, SUFFIXES
from gcpod.data.manifest import ShardInfo
from gcpod.errors import DataError, SpecError
from gcpod.records import frame, read_records

Part = tuple[str, int, int]
"""A piece of a work file: its path, where it starts, and its length, both in bytes."""

_WILD: Final = "*?["
_REFUSED: Final = (401, 403, 404)
"""HTTP status of answers that another try does not change."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that is an object in Cloud Storage."""

    address: str

    @property
    def promised(self) -> str | None:
        return SUFFIXES.get(PurePosixPath(self.address).suffix.lower())

    def read(self) -> bytes:
        """See `gcpod.data.model.ImageSource`; an outage is passed on as it is, so that the runner tries again."""
        try:
            with open_file(self.address) as file:
                return file.read()
        except OSError:
            raise
        except Exception as err:
            code = getattr(err, "code", None)
            if code not in _REFUSED:
                raise
            found = "there is no such object" if code == _REFUSED[-1] else f"it is refused (HTTP {code})"
            raise OSError(errno.EACCES, found, self.address) from err

    def extras(self) -> Mapping[str, bytes]:
        return {}

    def __str__(self) -> str:
        return self.address


def stored(place: str) -> bool:
    """Whether a place is in Cloud Storage."""
    return place.startswith("gs://")


def checked_place(place: str) -> str:
    """A folder's address in the one form that names are added to; a local one made absolute.

    Raises:
        SpecError: Beam would take the folder's name for a pattern.
    """
    if not stored(place):
        return str(Path(place).absolute())
    if any(char in place for char in _WILD):
        raise SpecError("using", place, "Beam takes its name for a pattern", f"use a folder without any of {_WILD}")
    return place.rstrip("/")


def list_images(folder: str) -> list[str]:
    """Names below a folder in Cloud Storage, sorted, of all images that are not hidden.

    Raises:
        DataError: it cannot be listed, or there are none.
    """
    from apache_beam.io.filesystems import FileSystems

    try:
        [found] = FileSystems.match([f"{folder}/**"])
    except Exception as err:
        raise DataError("listing", folder, str(err), "make sure that it exists and you may read it") from err
    names = sorted(str(one.path).removeprefix(f"{folder}/") for one in found.metadata_list)
    seen = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    images = with_suffix(seen, SUFFIXES.keys() | OTHER_SUFFIXES)
    if not images:
        raise DataError("looking for images in", folder, "there are no images in it", "put JPEG or PNG files there")
    return images


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading, as it is: nothing is unpacked."""
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


@contextmanager
def written(path: str) -> Iterator[BinaryIO]:
    """A file to write, packed by nobody; it gets its name when the block has ended well."""
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    folder, _, name = path.rpartition("/")
    part = f"{folder}/.{uuid.uuid4().hex}-{name}.part"
    try:
        with FileSystems.create(part, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            yield file
        move(part, path)
    except BaseException:
        with suppress(Exception):
            FileSystems.delete([part])
        raise


def write_bytes(path: str, content: bytes) -> None:
    with written(path) as file:
        file.write(content)


def read_bytes(path: str) -> bytes | None:
    """The content of a file; None where there is none."""
    if not exists(path):
        return None
    with open_file(path) as file:
        return file.read()


def exists(path: str) -> bool:
    from apache_beam.io.filesystems import FileSystems

    return bool(FileSystems.exists(path))


def move(source: str, target: str) -> None:
    from apache_beam.io.filesystems import FileSystems

    FileSystems.rename([source], [target])


def holds(path: str, info: ShardInfo) -> bool:
    """Whether a file has the size and the checksum that a manifest tells of it; in Cloud Storage nothing is read."""
    from apache_beam.io.filesystems import FileSystems

    system = FileSystems.get_filesystem(path)
    if not exists(path) or system.size(path) != info.size_bytes:
        return False
    return bool((system.checksum(path) if stored(path) else file_crc32c(Path(path))) == info.crc32c)


def remove_file(path: str) -> None:
    from apache_beam.io.filesystems import FileSystems

    if stored(path):
        FileSystems.delete([path])
    else:
        Path(path).unlink(missing_ok=True)


def remove_folder(path: str) -> None:
    """Removes a folder with all that is in it; whatever cannot be removed stays."""
    from apache_beam.io.filesystems import FileSystems

    if stored(path):
        with suppress(Exception):
            FileSystems.delete([f"{path}/"])
    else:
        shutil.rmtree(path, ignore_errors=True)


def remove_if_empty(path: str) -> None:
    if not stored(path):
        with suppress(OSError):
            Path(path).rmdir()


def write_parts(path: str, items: Iterable[object]) -> list[Part]:
    """Writes objects of ours one after another into a work file.

    A pipeline's graph and its elements are bounded (https://cloud.google.com/dataflow/quotas#limits), a file is not.
    """
    parts: list[Part] = []
    start = 0
    with written(path) as file:
        for item in items:
            framed = frame(pickle.dumps(item))
            file.write(framed)
            parts.append((path, start, len(framed)))
            start += len(framed)
    return parts


def read_part(part: Part) -> Any:
    """Reads one object that `write_parts` wrote.

    Work files are as trusted as the pipeline itself, which Beam pickles into the same folder for its workers.
    """
    path, start, _ = part
    with open_file(path) as file:
        file.seek(start)
        return pickle.loads(next(read_records(file)))  # noqa: S301


def read_parts(path: str) -> Iterator[Any]:
    """Reads what `write_parts` wrote, one object in memory at a time."""
    with open_file(path) as file:
        for payload in read_records(file):
            yield pickle.loads(payload)  # noqa: S301
