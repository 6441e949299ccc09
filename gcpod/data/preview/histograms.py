"""Histograms of a dataset's boxes and images: numbers, not yet drawn."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from gcpod.data.checked import CheckedSample

_BARS: Final = 16
_PERCENT: Final = "\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class Bar:
    """``name`` is the range that it counts, ``mark`` what stands below it, ``share`` its height (0 to 1)."""

    name: str
    mark: str
    count: int
    share: float


@dataclass(frozen=True)
class Histogram:
    """``things`` are what is counted; marks stand below the middle of the bars, or below their left edges."""

    title: str
    things: str
    note: str
    bars: tuple[Bar, ...]
    centred: bool = False


def histograms(samples: Sequence[CheckedSample]) -> tuple[Histogram, ...]:
    """Box sizes and aspect ratios, boxes per image, and the images' longer sides."""
    sizes, ratios = [], []
    for sample in samples:
        area = sample.width * sample.height
        for box in sample.boxes:
            width, height = box.xmax - box.xmin, box.ymax - box.ymin
            sizes.append(math.sqrt(width * height / area))
            ratios.append(width / height)
    tenths = [step / 20 for step in range(21)]
    halves = [2 ** ((2 * step - 1) / 4) for step in range(-6, 8)]
    middles = [_ratio(2 ** (step / 2)) for step in range(-6, 7)]
    return (
        _histogram(
            "Box size", "boxes", "side of the square of its area, as a share of the image's", sizes, tenths,
            [f"{100 * edge:.0f} to {100 * edge + 5:.0f}{_PERCENT}" for edge in tenths[:-1]],
            ["" if step % 4 else f"{5 * step}{_PERCENT}" for step in range(20)],
            lambda size: f"{100 * size:.3g}{_PERCENT}",
        ),
        replace(_histogram(
            "Box aspect ratio", "boxes", "width to height", ratios, halves,
            [f"about {name}" if 0 < step < 12 else f"{name} and beyond" for step, name in enumerate(middles)],
            ["" if step % 2 else name for step, name in enumerate(middles)], _ratio,
        ), centred=True),
        _whole("Boxes per image", "", [len(sample.boxes) for sample in samples]),
        _whole("Image size", "longer side in pixels", [max(sample.width, sample.height) for sample in samples]),
    )


def _ratio(ratio: float) -> str:
    return f"{ratio:.2g}:1" if ratio >= 1 else f"1:{1 / ratio:.2g}"


def _whole(title: str, unit: str, numbers: Sequence[int]) -> Histogram:
    """Whole numbers in steps of 1, 2 or 5 times a power of ten."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    step = next(step for power in range(10) for step in (10**power, 2 * 10**power, 5 * 10**power)
                if high // step - low // step < _BARS)
    edges = [step * number for number in range(low // step, high // step + 2)]
    names = [str(edge) if step == 1 else f"{edge} to {edge + step - 1}" for edge in edges[:-1]]
    every = 1 + (len(names) - 1) // 8
    marks = ["" if number % every else str(edge) for number, edge in enumerate(edges[:-1])]
    made = _histogram(title, "images", unit, numbers, edges, names, marks, lambda number: f"{number:g}")
    return replace(made, centred=step == 1)


def _histogram(
    title: str, things: str, unit: str, values: Sequence[float], edges: Sequence[float], names: Sequence[str],
    marks: Sequence[str], told: Callable[[float], str],
) -> Histogram:
    """Counts the values between the edges; those beyond belong to the outermost bars."""
    last = len(names) - 1
    counts = Counter(min(max(bisect_right(edges, value) - 1, 0), last) for value in values)
    highest = max(counts.values(), default=1)
    bars = (Bar(names[n], marks[n], counts[n], counts[n] / highest) for n in range(last + 1))
    note = f"median {told(median(values))}, from {told(min(values))} to {told(max(values))}" if values else "none"
    return Histogram(title, things, "; ".join(filter(None, (unit, note))), tuple(bars) if values else ())
