"""Outlines of objects as COCO states them, polygons or run lengths, kept small until a PNG is drawn of one.

The Object Detection API takes a PNG of one channel for each box, of the image's size, and holds every pixel above 0
for the object's (``_decode_png_instance_masks`` in
https://github.com/tensorflow/models/blob/master/research/object_detection/data_decoders/tf_example_decoder.py).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Final

from gcpod.errors import DataError

MAX_POINTS: Final = 1 << 16
"""Of one object's polygons together: drawing takes time in proportion, and a traced outline has some thousands."""
MAX_EDGE: Final = float(1 << 31)
"""Pixels; coordinates beyond it are no image's."""
MAX_PIXELS: Final = 1 << 28
"""Of one run-length mask, as each pixel is a byte while it is drawn."""

_POINTS_AT_LEAST = 3
_DIGIT_BITS, _MORE, _SIGN, _ZERO = 5, 0x20, 0x10, 48
_MAX_DIGITS = 7
_DRAW = "draw the outline again, or delete the segmentation"


@dataclass(frozen=True, slots=True)
class Polygons:
    """The union of polygons; where one crosses itself, what is inside an even number of times is outside.

    A pixel belongs to the object when its centre lies inside, the centre of the upper left one being (0.5, 0.5).

    Attributes:
        rings: x and y in turn, in pixels, at least three points each.

    Raises:
        DataError: D104; no ring, too few or too many points, half a point, or a coordinate that is not finite.
    """

    rings: tuple[array[float], ...]

    def __post_init__(self) -> None:
        if not self.rings:
            raise _damaged("it has no polygon")
        if sum(map(len, self.rings)) > 2 * MAX_POINTS:
            raise _damaged(f"its polygons have more than {MAX_POINTS} points")
        for ring in self.rings:
            if len(ring) % 2 or len(ring) < 2 * _POINTS_AT_LEAST:
                raise _damaged(f"a polygon has {len(ring)} numbers, not an x and a y for each of three points or more")
            if not math.isfinite(sum(ring)) or max(max(ring), -min(ring)) > MAX_EDGE:
                raise _damaged("a polygon has a coordinate that no image has")

    def __hash__(self) -> int:
        return hash(tuple(map(tuple, self.rings)))

    def png(self, width: int, height: int) -> bytes:
        """A PNG of one channel, 1 inside and 0 outside; what lies beyond the image is cut off.

        Raises:
            DataError: D104; more than `MAX_PIXELS` pixels.
        """
        if width * height > MAX_PIXELS:
            raise _damaged(f"{width} x {height} pixels are more than a mask may have")
        pixels = bytearray(width * height)
        for ring in self.rings:
            for row, left, right in _spans(ring, height):
                start, stop = _first_centre(left, width), _first_centre(right, width)
                pixels[row * width + start : row * width + stop] = b"\1" * (stop - start)
        return _png(pixels, (width, height), (width, height))


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask in run lengths: down the first column, down the second, and so on, from outside the object in turns.

    Attributes:
        height, width: pixels of the mask.
        counts: lengths of the runs outside, inside, outside…; together height * width.

    Raises:
        DataError: D104; a mask without or with too many pixels, or runs that do not fill it.
    """

    height: int
    width: int
    counts: array[int]

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.height * self.width > MAX_PIXELS:
            raise _damaged("its size has no pixels" if min(self.height, self.width) < 1 else "its size is too large")
        if sum(self.counts) != self.height * self.width:
            raise _damaged(f"its runs do not fill its size of {self.width} x {self.height}")

    def __hash__(self) -> int:
        return hash((self.height, self.width, self.counts.tobytes()))

    def png(self, width: int, height: int) -> bytes:
        """A PNG of one channel, 1 inside and 0 outside; of another size than the mask's, it is cut or filled up."""
        columns = bytearray(self.height * self.width)
        end = 0
        for index, count in enumerate(self.counts):
            if index % 2:
                columns[end : end + count] = b"\1" * count
            end += count
        return _png(columns, (self.width, self.height), (width, height), by_column=True)


def parse_segmentation(value: object) -> Polygons | Rle:
    """What stands under ``segmentation`` in COCO's JSON (https://cocodataset.org/#format-data).

    Args:
        value: a list of polygons [x1, y1, x2, y2…], or {"size": [height, width], "counts": …} with the counts as
            list of run lengths or as compressed string.

    Raises:
        DataError: D104; it is neither, or see `Polygons`, `Rle` and `decode_counts`.
    """
    if isinstance(value, list):
        if not all(isinstance(ring, list) for ring in value):
            raise _damaged("it is no list of polygons, each a list of its own")
        return Polygons(tuple(_ring(ring) for ring in value))
    if not isinstance(value, dict):
        raise _damaged("it is neither a list of polygons nor an object with size and counts")
    height, width = _size(value.get("size"))
    counts = value.get("counts")
    if isinstance(counts, str):
        return Rle(height, width, decode_counts(counts))
    if not isinstance(counts, list):
        raise _damaged("its counts are neither a list nor a string")
    return Rle(height, width, _runs(counts))


def decode_counts(text: str) -> array[int]:
    """Run lengths out of a compressed string.

    Each character from "0" on carries five bits, the lowest first, and whether more follow; the last one's highest bit
    is the sign. From the fourth number on, a number is the difference to the run two before
    (``rleFrString`` in https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c).

    Raises:
        DataError: D104; another character, a number cut off or too long, or a negative run.
    """
    runs: list[int] = []
    number = bits = 0
    for char in text:
        digit = ord(char) - _ZERO
        if not 0 <= digit < 2 * _MORE or bits == _MAX_DIGITS * _DIGIT_BITS:
            raise _damaged("its counts are no compressed run lengths")
        number |= (digit & (_MORE - 1)) << bits
        bits += _DIGIT_BITS
        if not digit & _MORE:
            if digit & _SIGN:
                number -= 1 << bits
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = bits = 0
    if bits:
        raise _damaged("its counts end within a number")
    return _runs(runs)


def _ring(values: list[object]) -> array[float]:
    if len(values) > 2 * MAX_POINTS:
        raise _damaged(f"its polygons have more than {MAX_POINTS} points")
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        raise _damaged("a polygon has something other than numbers in it")
    try:
        return array("d", numbers)
    except OverflowError as err:
        raise _damaged("a polygon has a coordinate that no image has") from err


def _size(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(side) is int for side in value):
        raise _damaged("its size is not [height, width]")
    return value[0], value[1]


def _runs(values: Iterable[object]) -> array[int]:
    runs = array("L")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PIXELS:
            raise _damaged("one of its counts is no run length")
        runs.append(value)
    return runs


def _spans(ring: array[float], height: int) -> Iterator[tuple[int, float, float]]:
    """Row by row, the pieces of the line through the pixels' centres that lie inside: row, left and right end."""
    crossings: dict[int, list[float]] = {}
    points = list(zip(ring[::2], ring[1::2], strict=True))
    for (x1, y1), (x2, y2) in pairwise([*points, points[0]]):
        for row in range(_first_centre(min(y1, y2), height), _first_centre(max(y1, y2), height)):
            crossings.setdefault(row, []).append(x1 + (row + 0.5 - y1) / (y2 - y1) * (x2 - x1))
    for row, edges in crossings.items():
        edges.sort()
        yield from ((row, left, right) for left, right in zip(edges[::2], edges[1::2], strict=True))


def _first_centre(edge: float, side: int) -> int:
    """The first pixel along a side whose centre is not before the edge."""
    return math.ceil(min(max(edge, 0.0), float(side)) - 0.5)


def _png(pixels: bytearray, drawn: tuple[int, int], size: tuple[int, int], *, by_column: bool = False) -> bytes:
    from PIL import Image

    if by_column:
        image = Image.frombytes("L", drawn[::-1], pixels).transpose(Image.Transpose.TRANSPOSE)
    else:
        image = Image.frombytes("L", drawn, pixels)
    if drawn != size:
        image = image.crop((0, 0, *size))
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _damaged(found: str) -> DataError:
    return DataError("reading", "the segmentation", found, _DRAW, code="D104")
