"""What passed the check."""

from __future__ import annotations

from dataclasses import dataclass

from gcpod.data.images import ImageProbe
from gcpod.data.model import Boxes, ImageSource, Split
from gcpod.data.pixels import Conversion
from gcpod.status import Finding


@dataclass(frozen=True, slots=True)
class CheckedSample:
    """An image fit for training: its boxes lie within it, with xmin < xmax and ymin < ymax.

    Attributes:
        boxes: in pixels of ``width`` x ``height``.
        width, height: pixels of the picture, turned if it is turned, before it is shrunk.
        conversion: what is done to the image before it is recorded; None when its bytes are recorded as they are.
        group: the lowest SHA-256 of the pictures that are near-identical to this one, itself included.
    """

    name: str
    image: ImageSource
    probe: ImageProbe
    boxes: Boxes
    width: int
    height: int
    group: str
    conversion: Conversion | None = None
    given: Split | None = None


@dataclass(frozen=True)
class Checked:
    """Samples fit for training in the order of their names, and all findings."""

    samples: tuple[CheckedSample, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")
