"""What a dataset holds, told without opening an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gcpod.data.crew import Crew
from gcpod.data.recognise import NAMES
from gcpod.data.scan import Scan, scan_dataset
from gcpod.status import Finding


@dataclass(frozen=True)
class Inspected:
    """A dataset in numbers.

    Attributes:
        format: of its labels, such as "Pascal VOC XML".
        place: the folder or file where they lie.
        also: other formats that lie there too.
        images: images, or records.
        annotated: images with an annotation, if only an empty one.
        boxes: by label, the most frequent first.
        given: images by the side of the split that the dataset names for them; "" for none.
        label_map: ids by label, where the format has ids.
        findings: what is wrong with the annotations, as far as it shows without the images.
    """

    format: str
    place: Path
    also: tuple[str, ...]
    images: int
    annotated: int
    boxes: Mapping[str, int]
    given: Mapping[str, int]
    label_map: Mapping[str, int]
    findings: tuple[Finding, ...]


def inspect_dataset(images: Path, annotations: Path | None = None, format: str = "auto") -> Inspected:
    """Recognises the format and counts.

    Args:
        images, annotations, format: see `gcpod.data.scan.scan_dataset`.

    Raises:
        DataError: nothing is recognised, or labels cannot be read at all.
    """
    with Crew() as crew:
        return summarise(scan_dataset(images, annotations, format, crew=crew))


def summarise(scan: Scan) -> Inspected:
    """The numbers of a scan."""
    boxes: Counter[str] = Counter()
    given: Counter[str] = Counter()
    with_image = [sample for sample in scan.samples if sample.image]
    for sample in with_image:
        given[sample.given or ""] += 1
        if sample.annotation:
            boxes.update(sample.annotation.boxes.labels)
    alone = (fault for sample in scan.samples for fault in sample.faults)
    return Inspected(
        format=NAMES[scan.source.format], place=scan.source.folder,
        also=tuple(NAMES[kind] for kind in scan.source.also),
        images=len(with_image), annotated=sum(sample.annotation is not None for sample in with_image),
        boxes=dict(sorted(boxes.items(), key=lambda item: (-item[1], item[0]))), given=dict(sorted(given.items())),
        label_map=scan.label_map.ids() if scan.label_map else {}, findings=(*scan.faults, *alone),
    )
