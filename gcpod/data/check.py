"""Findings D101 to D107: whatever would stop a training or spoil it in silence, told by file and line before anything
is uploaded.

Declared sizes and suffixes are claims; what counts is what `gcpod.data.images` finds in the bytes. Boxes that can be
mended are mended with a warning, or refused when the policy says so; each policy names its finding.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gcpod.data.images import ImageProbe, probe_image, promised_format
from gcpod.data.labelmap import LabelMap
from gcpod.data.scan import Sample, claimed_name
from gcpod.data.split import Split
from gcpod.data.voc import Annotation, Box
from gcpod.errors import DataError
from gcpod.status import Finding, Severity

Policy = Literal["error", "fix"]
Progress = Callable[[str, int, int], None]
"""Called with the phase ("check", "write"), what is done of it, and the whole."""

MIN_SIDE_PX = 0.01
"""Boxes thinner than this have no area: the two edges of one, divided by a side of up to 65,535 pixels (JPEG's limit)
and stored as 32-bit floats (24 significant bits), would differ by hardly more than two steps."""

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Policies:
    """What happens to what can be mended: "fix" mends it and warns, "error" refuses it.

    Attributes:
        size: D102, a declared size that is not the real one; mended by using the real one.
        outside: D102, a box that reaches outside the image; mended by clipping.
        reversed: D103, xmax < xmin or ymax < ymin; mended by swapping.
        zero_area: D105, a box without area, also after clipping; mended by dropping it.
        format: D106, a suffix that lies about the format; mended by using the real one.
    """

    size: Policy = "fix"
    outside: Policy = "fix"
    reversed: Policy = "fix"
    zero_area: Policy = "error"
    format: Policy = "fix"


@dataclass(frozen=True)
class CheckedSample:
    """An image fit for training: its boxes lie within it, in pixels as stored, with xmin < xmax and ymin < ymax."""

    name: str
    image: Path
    probe: ImageProbe
    boxes: tuple[Box, ...]
    given: Split | None = None


@dataclass(frozen=True)
class Checked:
    """Samples fit for training in the order of their names, and all findings."""

    samples: tuple[CheckedSample, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")


def examine(
    samples: Sequence[Sample],
    label_map: LabelMap | None = None,
    policies: Policies | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Checks each sample, one image in memory at a time; samples with an error are left out of the result.

    Args:
        label_map: an imposed one: labels it lacks are errors (D101). None means it will be derived from the data.
    """
    rules = policies or Policies()
    findings: list[Finding] = []
    good: list[CheckedSample] = []
    for done, sample in enumerate(samples, 1):
        checked, found = _check_sample(sample, label_map, rules)
        findings += found
        if checked:
            good.append(checked)
        if progress:
            progress("check", done, len(samples))
    findings += _unlabelled(samples)
    findings += _duplicates(good)
    if label_map is None:
        findings += _lookalikes(good)
    return Checked(tuple(good), tuple(findings))


def check_box(box: Box, width: int, height: int, policies: Policies) -> tuple[Box | None, list[Finding]]:
    """Mends one box of an image of that many pixels; None when nothing is left of it or it is refused.

    Findings carry only ":line" as their place, for the caller to put the file's name before it.
    """
    where = f":{box.line}" if box.line else ""
    edges = (box.xmin, box.ymin, box.xmax, box.ymax)
    shown = f"the box of {box.label!r} ({', '.join(f'{edge:g}' for edge in edges)})"
    if not all(map(math.isfinite, edges)):
        return None, [Finding("D102", "error", where, f"{shown} is not finite", "draw the box again")]
    findings = []
    if box.xmax < box.xmin or box.ymax < box.ymin:
        findings.append(_mended("D103", policies.reversed, where, f"{shown} is reversed", "its edges were swapped"))
        xs, ys = sorted((box.xmin, box.xmax)), sorted((box.ymin, box.ymax))
        box = replace(box, xmin=xs[0], xmax=xs[1], ymin=ys[0], ymax=ys[1])
    clipped = replace(
        box, xmin=_clip(box.xmin, width), xmax=_clip(box.xmax, width), ymin=_clip(box.ymin, height),
        ymax=_clip(box.ymax, height),
    )
    if clipped != box:
        found = f"{shown} reaches outside the image of {width} x {height}"
        findings.append(_mended("D102", policies.outside, where, found, "it was clipped"))
    if clipped.xmax - clipped.xmin < MIN_SIDE_PX or clipped.ymax - clipped.ymin < MIN_SIDE_PX:
        findings.append(_mended("D105", policies.zero_area, where, f"{shown} has no area", "it was dropped"))
        return None, findings
    return (None if any(item.severity == "error" for item in findings) else clipped), findings


def _check_sample(
    sample: Sample, label_map: LabelMap | None, policies: Policies,
) -> tuple[CheckedSample | None, list[Finding]]:
    findings = list(sample.faults)
    annotation = sample.annotation
    if annotation is None or sample.image is None:
        if annotation and not findings:
            fix = f"put {claimed_name(annotation) or 'the image'} into the image folder, or delete the annotation"
            findings.append(Finding("D106", "warning", str(annotation.path), "it has no image and was skipped", fix))
        return None, findings
    try:
        probe = probe_image(sample.image)
    except DataError as err:
        return None, [*findings, Finding(err.code, "error", err.on, err.found, err.fix)]
    findings += _check_file(sample.image, annotation, probe, policies)
    findings += _check_frame(annotation, probe, policies)
    boxes = []
    for box in annotation.boxes:
        kept, found = check_box(box, probe.width, probe.height, policies)
        findings += (replace(finding, where=f"{annotation.path}{finding.where}") for finding in found)
        if kept:
            boxes.append(kept)
    if label_map:
        findings += _unknown_labels(annotation, label_map)
    if any(finding.severity == "error" for finding in findings):
        return None, findings
    return CheckedSample(sample.name, sample.image, probe, tuple(boxes), sample.given), findings


def _check_file(image: Path, annotation: Annotation, probe: ImageProbe, policies: Policies) -> Iterator[Finding]:
    if promised_format(image) != probe.format:
        found = f"the file is a {probe.format.upper()}, its name ends with {image.suffix!r}"
        yield _mended("D106", policies.format, str(image), found, f"it is recorded as {probe.format}")
    claimed = claimed_name(annotation)
    if claimed and claimed != image.name:
        found = f"<filename> is {claimed!r}, the image {image.name!r} was taken by its name"
        yield Finding("D106", "warning", str(annotation.path), found, "correct <filename> if that is right")


def _check_frame(annotation: Annotation, probe: ImageProbe, policies: Policies) -> Iterator[Finding]:
    """Whether the boxes were drawn on the pixels that the trainer will see.

    TensorFlow ignores EXIF; labelling tools differ. Only a declared size equal to the stored one, where the two views
    differ in size, proves that the boxes fit.
    """
    declared, real = (annotation.width, annotation.height), (probe.width, probe.height)
    where = str(annotation.path)
    if probe.orientation != 1 and annotation.boxes:
        if not (probe.swaps_axes and declared == real and probe.width != probe.height):
            found = f"EXIF orientation {probe.orientation} turns the image, which the trainer ignores"
            fix = "turn the pixels themselves (jpegtran, exiftran), then check its boxes in LabelImg"
            yield Finding("D102", "error", where, found, fix)
            return
        yield Finding("D102", "warning", where, "the image is trained as stored, on its side", "turn its pixels")
    if declared not in (real, (0, 0)):
        found = f"<size> is {declared[0]} x {declared[1]}, the image has {real[0]} x {real[1]} pixels"
        yield _mended("D102", policies.size, where, found, "the real size was used, so look at its boxes in LabelImg")


def _unknown_labels(annotation: Annotation, label_map: LabelMap) -> Iterator[Finding]:
    known = label_map.ids()
    for box in annotation.boxes:
        if box.label not in known:
            nearest = label_map.nearest(box.label)
            fix = f"did you mean {nearest!r}?" if nearest else "correct it, or add it to the label map"
            where = f"{annotation.path}:{box.line}" if box.line else str(annotation.path)
            yield Finding("D101", "error", where, f"the label {box.label!r} is not in the label map", fix)


def _unlabelled(samples: Iterable[Sample]) -> Iterator[Finding]:
    alone = [sample for sample in samples if sample.annotation is None and sample.image and not sample.faults]
    if alone:
        found = f"{len(alone)} images have no annotation and were skipped: {_listed(sample.name for sample in alone)}"
        fix = "label them, or save an annotation without objects"
        yield Finding("D106", "warning", str(alone[0].image), found, fix)


def _duplicates(samples: Iterable[CheckedSample]) -> Iterator[Finding]:
    same: defaultdict[str, list[CheckedSample]] = defaultdict(list)
    for sample in samples:
        same[sample.probe.sha256].append(sample)
    for group in same.values():
        names, where = _listed(sample.name for sample in group), str(group[0].image)
        if len({frozenset(sample.boxes) for sample in group}) > 1:
            found = f"the same picture has different boxes: {names}"
            yield Finding("D107", "warning", where, found, "keep one of them")
        if {sample.given for sample in group} >= {"train", "eval"}:
            found = f"the same picture is in train and eval: {names}"
            yield Finding("D107", "warning", where, found, "all of them evaluate, so delete those in train")


def _lookalikes(samples: Iterable[CheckedSample]) -> Iterator[Finding]:
    spelt: dict[str, dict[str, CheckedSample]] = {}
    for sample in samples:
        for box in sample.boxes:
            spelt.setdefault(box.label.casefold(), {}).setdefault(box.label, sample)
    for forms in spelt.values():
        if len(forms) > 1:
            found = f"labels differ only in case and become {len(forms)} classes: {_listed(sorted(forms))}"
            yield Finding("D101", "warning", str(forms[max(forms)].image), found, "spell them alike if they are one")


def _mended(code: str, policy: Policy, where: str, found: str, done: str) -> Finding:
    severity: Severity = "error" if policy == "error" else "warning"
    return Finding(code, severity, where, found, "correct it in LabelImg" if policy == "error" else done)


def _clip(edge: float, side: int) -> float:
    return min(max(edge, 0.0), float(side))


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return ", ".join(found[:_NAMES_SHOWN]) + more
