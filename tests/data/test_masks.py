from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gcpod.data.masks import MAX_PIXELS, MAX_POINTS, Polygons, Rle, decode_counts, parse_segmentation
from gcpod.errors import DataError

from .making import drawn, outcome

Rows = list[list[int]]
SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]
MASKS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: st.lists(
    st.lists(st.integers(0, 1), min_size=size[0], max_size=size[0]), min_size=size[1], max_size=size[1],
))
EDGES = st.floats(-3, 15).map(lambda edge: round(edge, 2))
"""Of some hundredths, so that corners lie apart by more than rounding errors."""
RINGS = st.lists(EDGES, min_size=6, max_size=14).map(lambda edges: edges[: len(edges) // 2 * 2])


def rows(png: bytes) -> Rows:
    image = Image.open(BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "L")
    data, width = image.tobytes(), image.width
    return [list(data[start : start + width]) for start in range(0, len(data), width)]


def run_lengths(mask: Rows) -> list[int]:
    column_major = [row[column] for column in range(len(mask[0])) for row in mask]
    runs = [len(list(group)) for _, group in groupby(column_major)]
    return [0, *runs] if column_major[0] else runs


def compressed(counts: Sequence[int]) -> str:
    """As COCO's rleToString writes them."""
    text = ""
    for index, count in enumerate(counts):
        number = count - counts[index - 2] if index > 2 else count
        while True:
            digit, number = number & 0x1F, number >> 5
            done = number == (-1 if digit & 0x10 else 0)
            text += chr(48 + digit + (0 if done else 0x20))
            if done:
                break
    return text


def inside(ring: Sequence[float], x: float, y: float) -> bool:
    """Whether a ray to the left crosses the ring an odd number of times."""
    points = list(zip(ring[::2], ring[1::2], strict=True))
    return sum(
        (y1 <= y) != (y2 <= y) and x >= x1 + (y - y1) / (y2 - y1) * (x2 - x1)
        for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True)
    ) % 2 == 1


@given(MASKS)
def test_run_lengths_come_back_as_they_were_drawn(mask: Rows) -> None:
    height, width = len(mask), len(mask[0])
    counts = run_lengths(mask)
    plain = parse_segmentation({"size": [height, width], "counts": counts})
    packed = parse_segmentation({"size": [height, width], "counts": compressed(counts)})
    assert rows(plain.png(width, height)) == mask
    assert plain == packed
    assert hash(plain) == hash(packed)


@given(st.lists(st.integers(0, MAX_PIXELS), max_size=20))
def test_compressed_run_lengths_of_any_size(counts: list[int]) -> None:
    assert list(decode_counts(compressed(counts))) == counts


def test_a_compressed_string_worked_out_by_hand() -> None:
    # 7: 00111. 40: 01000 with more, 00001. 9: 01001. 42 as +2 to 40: 00010. 5 as -4 to 9: 11100, its sign set.
    assert list(decode_counts("7X192L")) == [7, 40, 9, 42, 5]


def test_runs_go_down_the_columns() -> None:
    assert rows(Rle(2, 3, array("L", [1, 2, 3])).png(3, 2)) == [[0, 1, 0], [1, 0, 0]]


def test_a_run_length_mask_of_another_size_is_cut_or_filled_up() -> None:
    mask = Rle(2, 2, array("L", [0, 4]))
    assert rows(mask.png(1, 3)) == [[1], [1], [0]]


def test_a_rectangle_covers_the_pixels_between_its_edges() -> None:
    drawn = rows(parse_segmentation([SQUARE]).png(8, 5))
    assert drawn == [[int(2 <= x < 6 and 1 <= y < 4) for x in range(8)] for y in range(5)]


def test_polygons_are_united_and_cut_at_the_edge() -> None:
    two = parse_segmentation([SQUARE, [5, 3, 99, 3, 99, 99, 5, 99]])
    assert rows(two.png(7, 5)) == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 1, 1],
    ]


@given(st.lists(RINGS, min_size=1, max_size=2))
@drawn(60)
def test_a_pixel_is_inside_when_its_centre_is(rings: list[list[float]]) -> None:
    drawn = rows(parse_segmentation(rings).png(12, 9))
    assert drawn == [
        [int(any(inside(ring, x + 0.5, y + 0.5) for ring in rings)) for x in range(12)] for y in range(9)
    ]


def test_equal_outlines_are_equal_and_hash_alike() -> None:
    same = {parse_segmentation([SQUARE]), parse_segmentation([[float(edge) for edge in SQUARE]])}
    assert len(same) == 1
    assert parse_segmentation([SQUARE[::-1]]) not in same


@pytest.mark.parametrize(("value", "found"), [
    (None, "neither a list"),
    ("7X19", "neither a list"),
    ([], "no polygon"),
    (SQUARE, "no list of polygons"),
    ([[1, 2, 3, 4]], "has 4 numbers"),
    ([[1, 2, 3, 4, 5, 6, 7]], "has 7 numbers"),
    ([[1, 2, 3, 4, 5, "6"]], "other than numbers"),
    ([[1, 2, 3, 4, 5, True]], "other than numbers"),
    ([[1, 2, 3, 4, 5, 10**400]], "no image has"),
    ([[1, 2, 3, 4, 5, -1e300]], "no image has"),
    ([[1, 2, 3, 4, 5, float("nan")]], "no image has"),
    ([[float("inf"), 2, 3, 4, 5, 6]], "no image has"),
    ([[1] * (2 * MAX_POINTS + 2)], "more than 65536 points"),
    ([[1] * (MAX_POINTS + 2)] * 2, "more than 65536 points"),
    ({}, "not .height, width."),
    ({"size": [2, 2]}, "neither a list nor a string"),
    ({"size": [2], "counts": [4]}, "not .height, width."),
    ({"size": [2, 2.0], "counts": [4]}, "not .height, width."),
    ({"size": [0, 2], "counts": []}, "no pixels"),
    ({"size": [-2, -2], "counts": [4]}, "no pixels"),
    ({"size": [1 << 15, 1 << 15], "counts": [1 << 30]}, "no run length"),
    ({"size": [1 << 15, 1 << 15], "counts": [1 << 28, 1 << 28, 1 << 28, 1 << 28]}, "too large"),
    ({"size": [2, 2], "counts": [1, 2]}, "do not fill"),
    ({"size": [2, 2], "counts": [6, -2]}, "no run length"),
    ({"size": [2, 2], "counts": [1, 3.0]}, "no run length"),
    ({"size": [2, 2], "counts": [True, 3]}, "no run length"),
    ({"size": [2, 2], "counts": "4/"}, "no compressed run lengths"),
    ({"size": [2, 2], "counts": "4é"}, "no compressed run lengths"),
    ({"size": [2, 2], "counts": "oooooooo1"}, "no compressed run lengths"),
    ({"size": [2, 2], "counts": "4P"}, "within a number"),
    ({"size": [2, 2], "counts": "N"}, "no run length"),
])
def test_damaged_segmentations(value: object, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_segmentation(value)
    assert caught.value.code == "D104"


NUMBERS = st.one_of(st.floats(), st.integers(-5, 20), st.integers(), st.none(), st.booleans())
VALUES = st.one_of(
    st.lists(st.one_of(NUMBERS, st.lists(NUMBERS, max_size=8), st.lists(st.floats(width=32), min_size=6, max_size=6))),
    st.fixed_dictionaries({}, optional={
        "size": st.lists(st.one_of(NUMBERS, st.integers(0, 3)), max_size=3),
        "counts": st.one_of(st.text("0123456789/LNPoé\ud800", max_size=8), st.lists(st.integers(-1, 9), max_size=4)),
    }),
)


@given(VALUES)
def test_any_value_can_be_drawn_or_fails_with_a_code(value: object) -> None:
    assert outcome(lambda: parse_segmentation(value).png(9, 7)) in ("", "D104")


@pytest.mark.parametrize("ring", [
    [0, 0.5, 5, 0.5, 5, 0.5], [1e9, 5e-324, -1e9, 0, 3, 3], [-2e9, -2e9, 2e9, -2e9, 0, 2e9],
    [0, 0.5 - 1e-17, 9, 0.5, 9, 9],
])
def test_thin_and_huge_polygons_can_be_drawn(ring: Iterable[float]) -> None:
    assert len(rows(Polygons((array("d", ring),)).png(9, 7))) == 7
