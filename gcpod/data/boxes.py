"""Boxes against the picture they were drawn on: moved into its pixels, then each mended, left out or refused.

Findings D101 (labels), D102 (outside), D103 (reversed) and D105 (no area), by `gcpod.spec.Policies`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from gcpod.data.labelmap import LabelMap
from gcpod.data.model import Annotation, Box, Boxes, Mask
from gcpod.data.pixels import shrink_mask
from gcpod.spec import Policies, Policy
from gcpod.status import Finding

MIN_SIDE_PX: Final = 0.01
"""Boxes thinner than this have no area: the two edges of one, divided by a side of up to 65,535 pixels (JPEG's limit)
and stored as 32-bit floats (24 significant bits), would differ by hardly more than two steps."""

LEFT_OUT: Final = "it was left out"


@dataclass(frozen=True)
class Frame:
    """The picture that the boxes are on.

    Attributes:
        width, height: its pixels.
        scale_x, scale_y: what the annotation's edges are multiplied by to be pixels of it.
    """

    width: int
    height: int
    scale_x: float = 1.0
    scale_y: float = 1.0


class Labeller:
    """Knows what each label of an annotation becomes: renamed by the aliases, then looked up in the label map."""

    def __init__(self, label_map: LabelMap | None, aliases: Mapping[str, str], policy: Policy) -> None:
        self._map, self._aliases, self._policy = label_map, aliases, policy
        self._known = label_map.ids() if label_map else None
        self._plain = {_plain(known): known for known in self._known or ()}

    def keeps(self, labels: set[str]) -> bool:
        """Whether all of them stay as they are."""
        return labels.isdisjoint(self._aliases) and (self._known is None or labels <= self._known.keys())

    def label(self, label: str, where: str) -> tuple[str | None, Finding | None]:
        """The label to record, or None, and what to say about it."""
        wanted = self._aliases.get(label, label)
        if self._map is None or self._known is None or wanted in self._known:
            return wanted, None
        found = f"the label {wanted!r} is not in the label map"
        same = self._plain.get(_plain(wanted))
        if self._policy == "fix" and same:
            return same, Finding("D101", "warning", where, found, f"it was taken for {same!r}")
        if self._policy == "warn":
            return None, Finding("D101", "warning", where, found, f"its box {LEFT_OUT.removeprefix('it ')}")
        nearest = self._map.nearest(wanted)
        fix = f"did you mean {nearest!r}?" if nearest else "correct it, or add it to the label map"
        return None, Finding("D101", "error", where, found, fix)


def _plain(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


def judged(code: str, policy: Policy, where: str, found: str, mended: str, fix: str) -> Finding:
    """The finding of a fault under its policy: ``fix`` is what to do about an error, ``mended`` what was done."""
    if policy == "error":
        return Finding(code, "error", where, found, fix)
    return Finding(code, "warning", where, found, mended if policy == "fix" else LEFT_OUT)


def place_boxes(
    annotation: Annotation, frame: Frame, labeller: Labeller, policies: Policies,
) -> tuple[Boxes, list[Finding]]:
    """The boxes that are kept, in pixels of the frame, and what was found."""
    boxes = annotation.boxes
    as_they_are = frame.scale_x == frame.scale_y == 1
    if as_they_are and labeller.keeps(set(boxes.labels)) and boxes.within(frame.width, frame.height, MIN_SIDE_PX):
        return boxes, []
    findings: list[Finding] = []

    def kept() -> Iterator[Box]:
        for box in boxes:
            where = annotation.place(box.line)
            label, told = labeller.label(box.label, where)
            findings.extend([told] if told else [])
            moved = _placed(box, label or box.label, annotation, frame)
            placed, found = check_box(moved, frame, policies, where)
            findings.extend(found)
            if label is not None and placed is not None:
                yield placed

    return Boxes(kept()), findings


def _placed(box: Box, label: str, annotation: Annotation, frame: Frame) -> Box:
    x, y = frame.scale_x, frame.scale_y
    mask = box.mask
    if mask and not annotation.fraction and (x, y) != (1, 1):
        mask = _Resized(mask, annotation.width, annotation.height)
    xs, ys = (box.xmin * x, box.xmax * x), (box.ymin * y, box.ymax * y)
    return replace(box, label=label, xmin=xs[0], xmax=xs[1], ymin=ys[0], ymax=ys[1], mask=mask)


@dataclass(frozen=True, slots=True)
class _Resized:
    """The outline of an object in a picture that was resized since; drawn at that size, in pixels."""

    mask: Mask
    width: int
    height: int

    def png(self, width: int, height: int) -> bytes:
        return shrink_mask(self.mask.png(self.width, self.height), width, height, "the outline")


def check_box(box: Box, frame: Frame, policies: Policies, where: str) -> tuple[Box | None, list[Finding]]:
    """Mends one box, given in the frame's pixels; None when nothing is left of it, or it is left out or refused.

    A box that passes has ``0 <= xmin < xmax <= width`` and ``0 <= ymin < ymax <= height``.
    """
    edges = (box.xmin, box.ymin, box.xmax, box.ymax)
    shown = f"the box of {box.label!r} ({', '.join(f'{edge:g}' for edge in edges)})"
    redraw = "correct it in the labelling tool"
    if not all(map(math.isfinite, edges)):
        return None, [Finding("D102", "error", where, f"{shown} is not finite", "draw the box again")]
    findings: list[Finding] = []
    keep = True
    if box.xmax < box.xmin or box.ymax < box.ymin:
        found, done = f"{shown} is reversed", "its edges were swapped"
        findings.append(judged("D103", policies.reversed, where, found, done, redraw))
        keep = policies.reversed == "fix"
        xs, ys = sorted((box.xmin, box.xmax)), sorted((box.ymin, box.ymax))
        box = replace(box, xmin=xs[0], xmax=xs[1], ymin=ys[0], ymax=ys[1])
    clipped = _clipped(box, frame)
    if clipped is not box:
        if _slips(box, clipped, frame):
            found = f"{shown} reaches outside the image of {frame.width} x {frame.height}"
            findings.append(judged("D102", policies.outside, where, found, "it was clipped", redraw))
            keep = keep and policies.outside == "fix"
        box = clipped
    if box.xmax - box.xmin < MIN_SIDE_PX or box.ymax - box.ymin < MIN_SIDE_PX:
        found = f"{shown} has no area"
        findings.append(judged("D105", policies.zero_area, where, found, "it was dropped", redraw))
        return None, findings
    return box if keep else None, findings


def _clipped(box: Box, frame: Frame) -> Box:
    width, height = float(frame.width), float(frame.height)
    if box.xmin >= 0 and box.xmax <= width and box.ymin >= 0 and box.ymax <= height:
        return box
    return replace(
        box, xmin=_clip(box.xmin, width), xmax=_clip(box.xmax, width), ymin=_clip(box.ymin, height),
        ymax=_clip(box.ymax, height),
    )


def _slips(box: Box, clipped: Box, frame: Frame) -> bool:
    """Whether a box was clipped by more than the rounding of its fractions, which six decimals give it."""
    allowance = (0.0, 0.0) if frame.scale_x == frame.scale_y == 1 else (frame.width * 1e-5, frame.height * 1e-5)
    return (
        max(clipped.xmin - box.xmin, box.xmax - clipped.xmax) > allowance[0]
        or max(clipped.ymin - box.ymin, box.ymax - clipped.ymax) > allowance[1]
        or box.xmin > frame.width or box.ymin > frame.height or box.xmax < 0 or box.ymax < 0
    )


def _clip(edge: float, side: float) -> float:
    return min(max(edge, 0.0), side)
