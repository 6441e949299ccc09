"""Draws a small labelled dataset on which a detector visibly learns: shapes at free places over light, cluttered
backgrounds.

Sizes and numbers are those measured with the trainer: 1 to 3 circles, squares and triangles of 36 to 72 pixels on 160
x 160, of which 400 train an SSD MobileNet v2 from scratch to AP@0.50 above 0.9 in 500 steps.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gcpod.data.formats.voc import to_voc
from gcpod.data.model import Box
from gcpod.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SHAPES: Final = ("circle", "square", "triangle")

_MIN_SIDE_PX, _MAX_SIDE_PX, _MARGIN_PX = 36, 72, 3
_TRIES = 20
_Rect = tuple[int, int, int, int]


class _Dice:
    """Throws that depend on the seed alone, not on the Python version as `random` may: SHA-256 of a counter."""

    def __init__(self, seed: str) -> None:
        self._seed, self._throws = seed, 0

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        self._throws += 1
        digest = hashlib.sha256(f"{self._seed}/{self._throws}".encode()).digest()
        return low + int.from_bytes(digest[:8], "big") % (high - low + 1)


def draw_demo(folder: Path, train: int = 400, eval: int = 60, size: int = 160, seed: int = 0) -> None:
    """Draws ``train`` + ``eval`` JPEGs of ``size`` x ``size`` pixels with their LabelImg XML, the same ones for a seed.

    They come as ``images/train``, ``images/eval``, ``annotations/train`` and ``annotations/eval``, a given split.

    Raises:
        DataError: the size is too small for one shape, or the folder cannot be written.
    """
    if size < _MAX_SIDE_PX + 2 * _MARGIN_PX:
        fix = f"use {_MAX_SIDE_PX + 2 * _MARGIN_PX} or more, 160 for one"
        raise DataError("drawing pictures of", f"{size} x {size} pixels", "the shapes do not fit", fix)
    try:
        for split, count in (("train", train), ("eval", eval)):
            for kind in ("images", "annotations"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                _draw_one(folder, split, f"{split}-{index:04d}", size, _Dice(f"{seed}/{split}/{index}"))
    except OSError as err:
        raise DataError("drawing the demo into", folder, err.strerror or str(err), "choose another folder") from err


def _draw_one(folder: Path, split: str, stem: str, size: int, rng: _Dice) -> None:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (size, size), _colour(rng, 200, 255))
    draw = ImageDraw.Draw(image)
    _clutter(draw, size, rng)
    boxes = []
    for rect in _places(size, rng):
        label = SHAPES[rng.between(0, len(SHAPES) - 1)]
        _shape(draw, label, rect, _colour(rng, 0, 170))
        xmin, ymin, xmax, ymax = rect
        boxes.append(Box(label, xmin, ymin, xmax, ymax))
    _save(image, folder / "images" / split / f"{stem}.jpg")
    xml = to_voc(f"{stem}.jpg", size, size, boxes, folder=split)
    (folder / "annotations" / split / f"{stem}.xml").write_bytes(xml.encode())


def _clutter(draw: ImageDraw, size: int, rng: _Dice) -> None:
    """Pale bands, blots and thin lines, so that neither colour nor an edge alone gives a shape away."""
    for _ in range(rng.between(4, 8)):
        x, y = rng.between(0, size - 1), rng.between(0, size - 1)
        draw.rectangle((x, y, x + rng.between(20, size), y + rng.between(4, 30)), fill=_colour(rng, 185, 255))
    for _ in range(rng.between(4, 10)):
        x, y, side = rng.between(0, size - 1), rng.between(0, size - 1), rng.between(3, 12)
        draw.ellipse((x, y, x + side, y + side), fill=_colour(rng, 170, 240))
    for _ in range(rng.between(3, 8)):
        ends = [rng.between(0, size - 1) for _ in range(4)]
        draw.line(ends, fill=_colour(rng, 120, 220), width=rng.between(1, 2))


def _places(size: int, rng: _Dice) -> list[_Rect]:
    """One to three rectangles (xmin, ymin, xmax, ymax) that keep a margin from the edges and from each other."""
    places: list[_Rect] = []
    wanted = rng.between(1, 3)
    for _ in range(_TRIES):
        side = rng.between(_MIN_SIDE_PX, _MAX_SIDE_PX)
        x = rng.between(_MARGIN_PX, size - side - _MARGIN_PX)
        y = rng.between(_MARGIN_PX, size - side - _MARGIN_PX)
        rect = (x, y, x + side, y + side)
        if all(_apart(rect, other) for other in places):
            places.append(rect)
        if len(places) == wanted:
            break
    return places


def _apart(one: _Rect, other: _Rect) -> bool:
    return (
        one[0] > other[2] + _MARGIN_PX or other[0] > one[2] + _MARGIN_PX
        or one[1] > other[3] + _MARGIN_PX or other[1] > one[3] + _MARGIN_PX
    )


def _shape(draw: ImageDraw, label: str, rect: _Rect, colour: tuple[int, int, int]) -> None:
    # A box ends where its last pixel ends, ImageDraw's coordinates name that pixel itself.
    left, top, right, bottom = rect[0], rect[1], rect[2] - 1, rect[3] - 1
    if label == "circle":
        draw.ellipse((left, top, right, bottom), fill=colour)
    elif label == "square":
        draw.rectangle((left, top, right, bottom), fill=colour)
    else:
        draw.polygon([((left + right) // 2, top), (left, bottom), (right, bottom)], fill=colour)


def _colour(rng: _Dice, low: int, high: int) -> tuple[int, int, int]:
    return rng.between(low, high), rng.between(low, high), rng.between(low, high)


def _save(image: Image, path: Path) -> None:
    image.save(path, "JPEG", quality=90)
