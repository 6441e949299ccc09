"""What every input format is turned into: boxes, annotations and the images they belong to.

Boxes are kept in columns, some 50 bytes each, so that a million of them are no matter; one at a time becomes a `Box`.
"""

from __future__ import annotations

import math
import re
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol, overload

from gcpod.data.labelmap import LabelMap
from gcpod.status import Finding

Split = Literal["train", "eval"]

SPLITS: Final[tuple[Split, Split]] = ("train", "eval")

_SIDES: Final[dict[str, Split]] = {
    "train": "train", "training": "train", "trainval": "train",
    "eval": "eval", "evaluation": "eval", "test": "eval", "testing": "eval", "val": "eval", "valid": "eval",
    "validation": "eval",
}
_WORDS = re.compile(r"[a-z]+")
_SLASHES, _DRIVE = re.compile(r"[/\\]"), re.compile("^[A-Za-z]:")
_EDGES, _FLAGS = ("xmin", "ymin", "xmax", "ymax"), ("difficult", "truncated", "crowd")
UNSPECIFIED: Final = "Unspecified"
"""LabelImg's and Pascal VOC's word for a pose that nobody gave."""


class Mask(Protocol):
    """The outline of an object, drawn when it is asked for."""

    def png(self, width: int, height: int) -> bytes:
        """A PNG of one channel, 1 where the object is, of that many pixels."""
        ...


@dataclass(frozen=True, slots=True)
class Box:
    """One labelled rectangle, as its file states it; the origin is the image's upper left corner.

    Attributes:
        xmin, ymin, xmax, ymax: pixels, or fractions of the image's sides where `Annotation.fraction` says so.
        crowd: one box around many objects that were not told apart (COCO's iscrowd, Open Images' IsGroupOf).
        line: where it stands in its file: a line, or a record's number; 0 when it does not come from a file.
    """

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool = False
    truncated: bool = False
    crowd: bool = False
    pose: str = UNSPECIFIED
    mask: Mask | None = None
    line: int = field(default=0, compare=False)


class Boxes(Sequence[Box]):
    """Boxes in columns; equal to any sequence of the same boxes."""

    __slots__ = ("_edges", "_flags", "_labels", "_lines", "_rare")

    def __init__(self, boxes: Iterable[Box] = ()) -> None:
        labels, flags = [], bytearray()
        self._edges, self._lines = array("d"), array("L")
        self._rare: dict[int, tuple[str, Mask | None]] | None = None
        for index, box in enumerate(boxes):
            labels.append(sys.intern(box.label))
            self._edges.extend((box.xmin, box.ymin, box.xmax, box.ymax))
            flags.append(box.difficult | box.truncated << 1 | box.crowd << 2)
            self._lines.append(box.line)
            if box.pose != UNSPECIFIED or box.mask is not None:
                self._rare = self._rare or {}
                self._rare[index] = (box.pose, box.mask)
        self._labels, self._flags = tuple(labels), bytes(flags)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, at: int) -> Box: ...
    @overload
    def __getitem__(self, at: slice) -> Boxes: ...
    def __getitem__(self, at: int | slice) -> Box | Boxes:
        if isinstance(at, slice):
            return Boxes(self._at(index) for index in range(*at.indices(len(self))))
        return self._at(range(len(self))[at])

    def __iter__(self) -> Iterator[Box]:
        return map(self._at, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Boxes, tuple, list)) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Boxes({list(self)!r})"

    def _at(self, index: int) -> Box:
        flags = self._flags[index]
        pose, mask = self._rare.get(index, (UNSPECIFIED, None)) if self._rare else (UNSPECIFIED, None)
        xmin, ymin, xmax, ymax = self._edges[4 * index : 4 * index + 4]
        return Box(
            self._labels[index], xmin, ymin, xmax, ymax, bool(flags & 1), bool(flags & 2), bool(flags & 4), pose, mask,
            self._lines[index],
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each box."""
        return self._labels

    def edges(self, name: Literal["xmin", "ymin", "xmax", "ymax"], divisor: float = 1.0) -> array[float]:
        """One edge of each box, divided by something such as the image's width."""
        return array("d", [edge / divisor for edge in self._edges[_EDGES.index(name) :: 4]])

    def flags(self, name: Literal["difficult", "truncated", "crowd"]) -> bytes:
        """One flag of each box, 0 or 1."""
        bit = _FLAGS.index(name)
        return bytes([flags >> bit & 1 for flags in self._flags])

    @property
    def poses(self) -> Iterator[str]:
        """The pose of each box."""
        rare = self._rare or {}
        return (rare[index][0] if index in rare else UNSPECIFIED for index in range(len(self)))

    @property
    def crowded(self) -> bool:
        """Whether one of them is a crowd."""
        return any(flags & 4 for flags in self._flags)

    @property
    def masked(self) -> bool:
        """Whether one of them has an outline."""
        return any(mask is not None for _, mask in (self._rare or {}).values())

    def within(self, width: float, height: float, min_side: float) -> bool:
        """Whether each box lies inside of that rectangle, with its corners in order and no side below ``min_side``."""
        xmin, ymin, xmax, ymax = (self._edges[corner::4] for corner in range(4))
        return (
            all(map(math.isfinite, self._edges))
            and all(0 <= low <= high - min_side and high <= width for low, high in zip(xmin, xmax, strict=True))
            and all(0 <= low <= high - min_side and high <= height for low, high in zip(ymin, ymax, strict=True))
        )


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one file, or one part of a file, says of one image.

    Attributes:
        path: the file.
        filename: the image it claims to be of, as written; "" where it makes no claim.
        width, height: pixels of the image as claimed; 0 where it makes no claim.
        boxes: in the file's order.
        stem: for formats with a file for each image: its path below the annotation folder without suffix.
        given: the side of the split that the format itself states.
        fraction: box edges are fractions of the image's sides, not pixels.
    """

    path: Path
    filename: str
    width: int
    height: int
    boxes: Boxes
    stem: str = ""
    given: Split | None = None
    fraction: bool = False

    @property
    def claimed(self) -> str:
        """The bare file name in ``filename``, whichever slashes it was written with."""
        return _DRIVE.sub("", _SLASHES.split(self.filename)[-1])

    def place(self, line: int) -> str:
        """``file:line`` for messages."""
        return f"{self.path}:{line}" if line else str(self.path)


@dataclass(frozen=True)
class Labels:
    """Everything that was read of a dataset's annotations.

    Attributes:
        format: which one, in words for a sentence ("Pascal VOC XML").
        annotations: one for each image at most.
        label_map: the one that belongs to them, where the format has ids.
        faults: what could not be read, and what is noteworthy.
        broken: stems of files that could not be read, with the reason; their images are not "without annotation".
    """

    format: str
    annotations: tuple[Annotation, ...]
    label_map: LabelMap | None = None
    faults: tuple[Finding, ...] = ()
    broken: Mapping[str, Finding] = field(default_factory=dict)


class ImageSource(Protocol):
    """Where the bytes of an image lie."""

    @property
    def promised(self) -> str | None:
        """The format that a suffix or a record's field promises ("jpeg", "png"…), None where nothing does."""
        ...

    def read(self) -> bytes:
        """The bytes of the image.

        Raises:
            OSError: they cannot be read.
        """
        ...

    def extras(self) -> Mapping[str, bytes]:
        """Encoded ``tf.train.Feature`` messages by key that come with the image and are recorded unchanged."""
        ...

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with its annotation, or one of them alone.

    Attributes:
        name: path relative to the image folder (of an annotation alone: of its file), with forward slashes.
        image: None for an annotation without image.
        annotation: None for an image without annotation, or when that could not be read; then ``faults`` says why.
        given: the side of a split that the annotation or the top folder names.
        faults: what went wrong while reading and pairing.
    """

    name: str
    image: ImageSource | None
    annotation: Annotation | None
    given: Split | None = None
    faults: tuple[Finding, ...] = ()


def side_of(word: str) -> Split | None:
    """What a folder's name ("test", "train2017") says, or None."""
    return _SIDES.get(word.lower().rstrip("0123456789"))


def side_in(stem: str) -> Split | None:
    """What a file's stem ("train_labels", "instances_val2017", "validation-annotations-bbox") says, or None."""
    sides = {_SIDES[word] for word in _WORDS.findall(stem.lower()) if word in _SIDES}
    return sides.pop() if len(sides) == 1 else None
