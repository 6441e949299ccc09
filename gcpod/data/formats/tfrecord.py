"""Existing TFRecords with the Object Detection API's keys, whoever wrote them: to be checked, split and sharded anew.

Keys: https://github.com/tensorflow/models/blob/master/research/object_detection/data_decoders/tf_example_decoder.py.
Records are read one at a time; of an image only its place in the file is kept. Text names the classes; ids do so only
where text is missing, by the label map that lies beside the files.

Files packed with gzip are known and refused: nothing in them can be found again without unpacking all before it, and
the Object Detection API's own input reader does not unpack them either.
"""

from __future__ import annotations

import errno
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Final, TypeVar

from gcpod.data.features import Example, parse_example, wrong_record
from gcpod.data.formats.reading import head_of, malformed, names_below, recoded, unreadable
from gcpod.data.formats.tfrecord_classes import Classes, label_map_beside
from gcpod.data.model import UNSPECIFIED, Annotation, Box, Boxes, Labels, Sample, Split, side_in, side_of
from gcpod.errors import DataError
from gcpod.records import FRAMING_BYTES, masked_crc32c, read_records
from gcpod.status import Finding

_BOX, _OBJECT = "image/object/bbox", "image/object"
OWN_KEYS: Final = frozenset({
    "image/encoded", "image/filename", "image/format", "image/height", "image/key/sha256", "image/source_id",
    "image/width", f"{_BOX}/xmax", f"{_BOX}/xmin", f"{_BOX}/ymax", f"{_BOX}/ymin", f"{_OBJECT}/class/label",
    f"{_OBJECT}/class/text", f"{_OBJECT}/difficult", f"{_OBJECT}/group_of", f"{_OBJECT}/is_crowd",
    f"{_OBJECT}/truncated", f"{_OBJECT}/view",
})
"""What is read here, and the checksum that is computed anew; every other key is carried along unread."""

_NAME = re.compile(r"\.(tf)?records?(-\d+-of-\d+)?(\.gz)?$", re.ASCII | re.IGNORECASE)
_SHARD = re.compile(r"(.*?)(\d+)-of-(\d+)(.*)", re.ASCII)
_MAX_SHARDS = 100_000
"""The most that five digits can name, as shards are named."""
_MAX_SIDE = (1 << 31) - 1
_HEAD_BYTES, _SNIFFED_BYTES = 12, 1 << 12
_GZIP = b"\x1f\x8b"
_GZIP_WBITS = 31
_TRIED = "reading records of"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RecordImage:
    """An image within a record; it is read again from the file whenever it is asked for.

    Attributes:
        path: the file of records.
        number: the record's, from 1.
        promised: what ``image/format`` says, "jpeg" for "jpg"; None where it says nothing.
        start: offset of the record in the file, in bytes.
        image_start, image_bytes: offset in the file and length of the image's bytes.
        has_extras: whether the record has any key beyond `OWN_KEYS`.
    """

    path: Path
    number: int
    promised: str | None
    start: int
    image_start: int
    image_bytes: int
    has_extras: bool

    def read(self) -> bytes:
        """See `gcpod.data.model.ImageSource`.

        Raises:
            OSError: the file cannot be read or has become shorter.
        """
        with self.path.open("rb") as file:
            file.seek(self.image_start)
            data = file.read(self.image_bytes)
        if len(data) < self.image_bytes:
            raise OSError(errno.EIO, "the file has become shorter since it was read", str(self.path))
        return data

    def extras(self) -> dict[str, bytes]:
        """See `gcpod.data.model.ImageSource`.

        Raises:
            OSError: the file cannot be read.
            DataError: the record is no longer what it was.
        """
        if not self.has_extras:
            return {}
        with self.path.open("rb") as file:
            file.seek(self.start)
            features = parse_example(next(read_records(file), b"")).features
        return {key: feature.raw for key, feature in features.items() if key not in OWN_KEYS}

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


def sniff_tfrecord(path: Path) -> bool:
    """Whether a file starts with a record's header, packed with gzip or not. Whatever cannot be read does not."""
    head = head_of(path, _SNIFFED_BYTES)
    if not head.startswith(_GZIP) or _is_header(head):
        return _is_header(head)
    try:
        return _is_header(zlib.decompressobj(_GZIP_WBITS).decompress(head, _HEAD_BYTES))
    except zlib.error:
        return False


def record_files(place: Path, names: Sequence[str] | None = None) -> list[Path]:
    """The files of records in a folder and its subfolders, in the order of their paths; none where nothing is one.

    In a folder they go by their names (``*.record``, ``*.tfrecords``, ``train.record-00000-of-00010``, ``*.gz`` of
    them…; hidden ones do not count). As soon as one of them is a file of records all of that name are returned: one
    that is not is then a damaged shard, to be told by `read_tfrecords`, not to be passed over.

    Args:
        place: a folder; or a file, whatever its name is.
        names: what lies below the folder, where that is known.

    Raises:
        DataError: D104; a folder cannot be read.
    """
    if not place.is_dir():
        return [place] if sniff_tfrecord(place) else []
    found = sorted(place / name for name in (names or names_below(place)) if _NAME.search(name))
    return found if any(map(sniff_tfrecord, found)) else []


def read_tfrecords(files: Sequence[Path], root: Path) -> tuple[Labels, tuple[Sample, ...]]:
    """Reads files of records, one sample for each record.

    A sample's name is ``image/source_id`` if that is a relative path, else the bare name of ``image/filename``, else
    the file's and the record's number; a name that was there before gets ``#2``, ``#3``… A record that cannot be read
    gives a fault (D104, at ``file:record``) and no sample. Box edges are fractions. ``is_crowd`` and ``group_of`` both
    make a box a crowd.

    The label map is the ``*.pbtxt`` beside the files or in ``root``, if there is one or all are equal. Ids that have
    no text and no name in it make labels like "class_3", with a D101. Text and ids that contradict it are a D101 for
    each pair, at the first record that has it.

    Args:
        files: see `record_files`.
        root: the folder they were looked for in; folders below it ("train", "valid") may name the side.

    Raises:
        DataError: D104; a file cannot be opened, is packed with gzip, or is damaged.
    """
    label_map, faults = label_map_beside(files, root)
    classes, taken, samples = Classes(label_map), dict[str, int](), list[Sample]()
    faults += _lacking(files)
    for path in files:
        given, number = _side(path, root), 0
        for number, start, record in _records(path):
            place = f"{path}:{number}"
            try:
                example = parse_example(record)
                annotation = _annotation(example, path, number, given, classes)
                image = _image(example, record, path, number, start)
                name = _name(example) or f"{path.name}-{number}"
            except DataError as err:
                faults.append(Finding("D104", "error", place, err.found, err.fix))
            else:
                samples.append(Sample(_unique(name, taken), image, annotation, given))
        if not number:
            faults.append(Finding("D104", "error", str(path), "it holds no record", "fetch or build it again"))
    annotations = tuple(sample.annotation for sample in samples if sample.annotation)
    return Labels("TFRecord files", annotations, label_map, (*faults, *classes.faults())), tuple(samples)


def _lacking(files: Sequence[Path]) -> Iterator[Finding]:
    """Shards that the names of the others count, such as 2 beside train-00000-of-00002."""
    there: dict[tuple[Path, str, str, str], set[int]] = {}
    for path in files:
        if named := _SHARD.fullmatch(path.name):
            before, index, total, after = named.groups()
            there.setdefault((path.parent, before, total, after), set()).add(int(index))
    for (folder, before, total, after), found in there.items():
        missing = [index for index in range(min(int(total), _MAX_SHARDS)) if index not in found]
        if missing:
            first = folder / f"{before}{missing[0]:0{len(total)}}-of-{total}{after}"
            count = f"{len(missing)} of {int(total)} shards are missing, this one for the first"
            yield Finding("D104", "error", str(first), count, "fetch or build them again")


def _side(path: Path, root: Path) -> Split | None:
    """By the file's name, else by the nearest folder below the root that says anything."""
    below = path.relative_to(root).parts[-2::-1] if path.is_relative_to(root) else ()
    return next(filter(None, (side_in(path.name), *map(side_of, below))), None)


def _records(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yields number, offset of the record in the file, and payload."""
    start = 0
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if head.startswith(_GZIP) and not _is_header(head):
                raise malformed(_TRIED, path, 0, "it is packed with gzip", "unpack it (gunzip)")
            file.seek(0)
            for number, record in enumerate(read_records(file), 1):
                yield number, start, record
                start += len(record) + FRAMING_BYTES
    except OSError as err:
        raise unreadable(_TRIED, path, err) from err
    except DataError as err:
        raise recoded(err) from err


def _annotation(example: Example, path: Path, number: int, given: Split | None, classes: Classes) -> Annotation:
    filename = example.byte_string("image/filename")
    return Annotation(
        path=path,
        filename=filename.decode("utf-8", "surrogateescape"),
        width=_pixels(example, "image/width"),
        height=_pixels(example, "image/height"),
        boxes=Boxes(_boxes(example, number, f"{path}:{number}", classes)),
        given=given,
        fraction=True,
    )


def _boxes(example: Example, number: int, place: str, classes: Classes) -> Iterator[Box]:
    xmin, ymin, xmax, ymax = (example.floats(f"{_BOX}/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
    count = len(xmin)
    texts, poses = (
        _column(example.texts(f"{_OBJECT}/{key}"), f"{_OBJECT}/{key}", count) for key in ("class/text", "view")
    )
    ids = _column(example.integers(f"{_OBJECT}/class/label"), f"{_OBJECT}/class/label", count)
    difficult, truncated, is_crowd, group_of = (
        _column(example.integers(f"{_OBJECT}/{flag}"), f"{_OBJECT}/{flag}", count)
        for flag in ("difficult", "truncated", "is_crowd", "group_of")
    )
    for edge, values in (("ymin", ymin), ("xmax", xmax), ("ymax", ymax)):
        if len(values) != count:
            raise _unequal(f"{_BOX}/{edge}", len(values), count)
    for at in range(count):
        text = texts[at] or ""
        label = classes.label(text if text.strip() else "", ids[at], place)
        if not label:
            raise wrong_record(f"box {at + 1} has neither {_OBJECT}/class/text nor {_OBJECT}/class/label")
        yield Box(
            label, xmin[at], ymin[at], xmax[at], ymax[at], bool(difficult[at]), bool(truncated[at]),
            bool(is_crowd[at] or group_of[at]), poses[at] or UNSPECIFIED, line=number,
        )


def _column(values: Sequence[_T], key: str, count: int) -> Sequence[_T | None]:
    if values and len(values) != count:
        raise _unequal(key, len(values), count)
    return values or (None,) * count


def _image(example: Example, record: bytes, path: Path, number: int, start: int) -> RecordImage:
    data = example.byte_string("image/encoded")
    if not data:
        raise wrong_record("it has no image: image/encoded is missing or empty")
    promised = example.byte_string("image/format").decode("ascii", "replace").lower()
    # Wherever the bytes are found first, they are the image's: equal bytes elsewhere do as well.
    image_start = start + _HEAD_BYTES + record.find(data)
    has_extras = not OWN_KEYS.issuperset(example.features)
    promised = {"jpg": "jpeg"}.get(promised, promised)
    return RecordImage(path, number, promised or None, start, image_start, len(data), has_extras)


def _name(example: Example) -> str:
    """A relative path that stays inside, or ""; bytes that are not UTF-8 are kept as the file system's names are."""
    source, filename = (
        example.byte_string(key).decode("utf-8", "surrogateescape")
        for key in ("image/source_id", "image/filename")
    )
    return next(filter(_is_inside, (source, PureWindowsPath(filename).name)), "")


def _is_inside(name: str) -> bool:
    odd = "\\" in name or PureWindowsPath(name).drive or any(char < " " for char in name)
    return not odd and not {"", ".", ".."} & set(name.split("/"))


def _unique(name: str, taken: dict[str, int]) -> str:
    """The name, or with the next ``#n``; ``taken`` holds for each name the last number that was given out."""
    if name not in taken:
        taken[name] = 1
        return name
    while (numbered := f"{name}#{taken[name] + 1}") in taken:
        taken[name] += 1
    taken[name] += 1
    taken[numbered] = 1
    return numbered


def _pixels(example: Example, key: str) -> int:
    number = example.integer(key)
    if not 0 <= number <= _MAX_SIDE:
        raise wrong_record(f"{key} is {number}")
    return number


def _is_header(head: bytes) -> bool:
    return len(head) >= _HEAD_BYTES and masked_crc32c(head[:8]) == int.from_bytes(head[8:_HEAD_BYTES], "little")


def _unequal(key: str, length: int, count: int) -> DataError:
    return wrong_record(f"{key} has {length} values, {_BOX}/xmin has {count}")
