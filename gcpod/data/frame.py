"""How an image is recorded, and which of its pixels the boxes mean: format, EXIF rotation, declared size, shrinking.

Findings D102 (sizes, rotation) and D106 (formats), by `gcpod.spec.Policies`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gcpod.data.boxes import Frame, judged
from gcpod.data.images import ImageProbe
from gcpod.data.model import Annotation
from gcpod.data.pixels import Conversion
from gcpod.spec import Policies
from gcpod.status import Finding

_SAME_SHAPE: Final = 0.02
"""Two sizes of one picture have sides in the same proportion, but for rounding them to whole pixels."""


@dataclass(frozen=True)
class Prepared:
    """The picture that boxes are on, and what becomes of the image; None when its bytes are recorded as they are."""

    frame: Frame
    conversion: Conversion | None


class _Faults:
    """Findings about one image, and whether it is still kept."""

    def __init__(self, policies: Policies) -> None:
        self.policies, self.findings, self.keep = policies, list[Finding](), True

    def add(self, code: str, kind: str, where: str, found: str, mended: str, fix: str) -> None:
        policy = getattr(self.policies, kind)
        self.findings.append(judged(code, policy, where, found, mended, fix))
        self.keep = self.keep and policy == "fix"


def prepare_image(
    annotation: Annotation, probe: ImageProbe, policies: Policies, max_side: int | None, promised: str | None,
    image: str,
) -> tuple[Prepared | None, list[Finding]]:
    """Decides about one image; None when it is refused or left out.

    Args:
        promised: the format that the image's name promises.
        image: the image's place, for messages.
    """
    faults = _Faults(policies)
    if probe.unfit:
        fix = "convert it to JPEG or PNG, or set data.policies.unfit: fix"
        faults.add("D106", "unfit", image, f"it is {probe.unfit}", "its first frame is converted", fix)
    if promised not in (None, probe.format):
        found = f"the file is a {probe.format.upper()}, its name or record says {promised!r}"
        faults.add("D106", "format", image, found, f"it is recorded as {probe.format}", "give it its right suffix")
    orientation = _orientation(annotation, probe, faults)
    width, height = (probe.height, probe.width) if orientation >= 5 else (probe.width, probe.height)
    frame = _frame(annotation, width, height, faults)
    if not faults.keep:
        return None, faults.findings
    return Prepared(frame, _conversion(probe, orientation, width, height, max_side)), faults.findings


def _orientation(annotation: Annotation, probe: ImageProbe, faults: _Faults) -> int:
    """The EXIF orientation to apply. TensorFlow ignores EXIF; labelling tools differ.

    Only declared proportions that are those of the stored picture, and not of the turned one, prove that boxes were
    drawn on the picture as stored.
    """
    if probe.orientation == 1 or not annotation.boxes:
        return 1
    where, turns = str(annotation.path), f"EXIF orientation {probe.orientation} turns the image"
    stored, turned = _drawn_on(annotation, probe)
    if stored:
        found = f"{turns}, its boxes were drawn without"
        faults.findings.append(Finding("D102", "warning", where, found, "it is trained as stored, on its side"))
        return 1
    found = f"{turns}, which the trainer ignores" + (", and its boxes were drawn on it turned" if turned else "")
    fix = "set data.policies.rotation: fix if its boxes were drawn on it as viewers show it, else remove the EXIF entry"
    faults.add("D102", "rotation", where, found, "its pixels are turned", fix)
    return probe.orientation


def _drawn_on(annotation: Annotation, probe: ImageProbe) -> tuple[bool, bool]:
    """Whether the declared proportions are those of the picture as stored, and as turned; neither proves anything where
    the two are alike."""
    if not (probe.swaps_axes and annotation.width and annotation.height):
        return False, False
    declared, stored = annotation.width / annotation.height, probe.width / probe.height
    if _same_shape(stored, 1 / stored):
        return False, False
    return _same_shape(declared, stored), _same_shape(declared, 1 / stored)


def _frame(annotation: Annotation, width: int, height: int, faults: _Faults) -> Frame:
    if annotation.fraction:
        return Frame(width, height, width, height)
    declared_width, declared_height = annotation.width, annotation.height
    if (declared_width, declared_height) in ((width, height), (0, 0)):
        return Frame(width, height)
    found = f"<size> is {declared_width} x {declared_height}, the image has {width} x {height} pixels"
    fix = "correct it in the labelling tool"
    if declared_width and declared_height and _same_shape(declared_width / declared_height, width / height):
        faults.add("D102", "size", str(annotation.path), found, "it was resized since, so its boxes were scaled", fix)
        return Frame(width, height, width / declared_width, height / declared_height)
    faults.add("D102", "size", str(annotation.path), found, "the real size was used, so look at its boxes", fix)
    return Frame(width, height)


def _same_shape(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME_SHAPE * other


def _conversion(
    probe: ImageProbe, orientation: int, width: int, height: int, max_side: int | None,
) -> Conversion | None:
    longer = max(width, height)
    factor = max_side / longer if max_side and longer > max_side else 1.0
    why = [probe.unfit] if probe.unfit else []
    why += ["turned"] if orientation != 1 else []
    why += ["shrunk"] if factor < 1 else []
    if not why:
        return None
    kind: Literal["jpeg", "png"] = "jpeg" if probe.format == "jpeg" else "png"
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return Conversion(orientation, *size, kind, ", ".join(why))
