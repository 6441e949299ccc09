"""The contact sheet of a dataset: which of its images are shown, and their thumbnails."""

from __future__ import annotations

import base64
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Final

from gcpod.data.build import CheckedDataset
from gcpod.data.check import CheckOptions, Progress, examine
from gcpod.data.checked import CheckedSample
from gcpod.data.model import Sample
from gcpod.data.parallel import ordered
from gcpod.data.pixels import Conversion, convert, refused
from gcpod.errors import DataError
from gcpod.spec import Policies
from gcpod.status import Finding

THUMBNAIL_PX: Final = 256
"""Longer side of a thumbnail."""

MAX_DRAWN: Final = 100
"""Boxes drawn on one thumbnail, the largest ones: more hide the picture, and make the page large."""

_MAX_JPEG_BYTES: Final = 22_000
"""Of one thumbnail: 60 of them are 1.8 MB in base64, below the 2 MB that a page may have."""

_QUALITIES: Final = (82, 65, 45, 25)
_SAID: Final = 5
_RANK: Final = {"error": 0, "warning": 1, "note": 2}
_MENDING: Final = CheckOptions(near_duplicates=False, policies=Policies(
    unknown_label="fix", rotation="fix", zero_area="fix", unfit="fix", unlabelled="fix",
))
"""For images that the check refused: their boxes are shown as far as they can be."""


@dataclass(frozen=True)
class Drawn:
    """A box in pixels of the picture; dashed for a crowd or a difficult object."""

    label: str
    x: float
    y: float
    width: float
    height: float
    dashed: bool


@dataclass(frozen=True)
class Tile:
    """One image of the contact sheet.

    Attributes:
        side: of the split; "" without one, "left out" for an image that will not be recorded.
        width, height: pixels of the picture, turned as it is recorded, before it is shrunk; 0 where nobody knows.
        picture: data URI of a JPEG; "" where there is none, and ``fault`` says why.
        boxes: those drawn, of ``count``.
        labels: of all its boxes, in order.
    """

    name: str
    side: str
    width: int
    height: int
    picture: str
    fault: str
    boxes: tuple[Drawn, ...]
    count: int
    labels: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Picture:
    """An image that the contact sheet may show; ``checked`` is None for one that was left out."""

    name: str
    side: str
    labels: frozenset[str]
    findings: tuple[Finding, ...]
    checked: CheckedSample | None
    sample: Sample


def contact_sheet(
    found: CheckedDataset, sides: Mapping[str, str], count: int, progress: Progress | None = None,
) -> tuple[Tile, ...]:
    """Chooses up to ``count`` images, always the same ones of a dataset, and opens these alone.

    Up to a quarter shows findings, the rest the classes on either side of the split, the rarest ones first.

    Args:
        sides: the side of the split by the name of each image that will be recorded; without a split empty.
        progress: called with ("preview", images done, images in all).
    """
    chosen = _chosen(_pictures(found, sides), count)
    mended = _mended([picture.sample for picture in chosen if not picture.checked])
    tiles: list[Tile] = []
    for tile in ordered(lambda picture: _tile(picture, picture.checked or mended.get(picture.name)), chosen):
        tiles.append(tile)
        if progress:
            progress("preview", len(tiles), len(chosen))
    return tuple(tiles)


def _pictures(found: CheckedDataset, sides: Mapping[str, str]) -> list[_Picture]:
    """All that the sheet may show, the copies of a picture last and otherwise as good as shuffled."""
    told = _by_sample(found.scan.samples, found.checked.findings)
    checked = {sample.name: sample for sample in found.checked.samples}
    pictures = []
    for sample in found.scan.samples:
        fit = checked.get(sample.name)
        if fit:
            side, labels = sides.get(sample.name, ""), frozenset(fit.boxes.labels)
        elif sample.image and sample.name in told:
            side, labels = "left out", frozenset[str]()
        else:
            continue
        pictures.append(_Picture(sample.name, side, labels, tuple(told.get(sample.name, ())), fit, sample))
    pictures.sort(key=lambda one: (one.checked.probe.sha256 if one.checked else "", one.name))
    met = Counter[str]()
    copies = {}
    for one in pictures:
        group = one.checked.group if one.checked else one.name
        copies[one.name] = met[group]
        met[group] += 1
    return sorted(pictures, key=lambda one: copies[one.name])


def _by_sample(samples: Iterable[Sample], findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The findings by the name of the sample that they are about: at its image, its file, or the line of its box."""
    at: defaultdict[str, list[Finding]] = defaultdict(list)
    within: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        at[finding.where].append(finding)
        file, _, line = finding.where.rpartition(":")
        within[file if line.isdigit() else finding.where].append(finding)
    samples = list(samples)
    files = Counter(str(sample.annotation.path) for sample in samples if sample.annotation)
    told = {}
    for sample in samples:
        about = at.get(str(sample.image), [])[:] if sample.image else []
        about += [finding for fault in sample.faults for finding in at.get(fault.where, [])]
        if sample.annotation and str(sample.annotation.path) in within:
            path = str(sample.annotation.path)
            places = {sample.annotation.place(box.line) for box in sample.annotation.boxes if box.line}
            of_boxes = (finding for place in sorted(places) for finding in at.get(place, []))
            about += within[path] if files[path] == 1 else of_boxes
        if about:
            told[sample.name] = sorted(dict.fromkeys(about), key=lambda finding: _RANK[finding.severity])
    return told


def _chosen(pictures: Sequence[_Picture], count: int) -> list[_Picture]:
    chosen: dict[str, _Picture] = {}
    _choose(chosen, math.ceil(count / 4), pictures, lambda one: {(finding.code, "") for finding in one.findings})
    whole = [one for one in pictures if one.checked]
    _choose(chosen, count, whole, lambda one: {(label, one.side) for label in one.labels or ("",)})
    _choose(chosen, count, pictures, lambda _: {("", "")})
    return list(chosen.values())


def _choose(
    chosen: dict[str, _Picture], limit: int, pictures: Sequence[_Picture],
    kinds: Callable[[_Picture], set[tuple[str, str]]],
) -> None:
    """Adds pictures up to the limit: one of every kind, then a second one of each, the rarest kinds first."""
    of_kind: defaultdict[tuple[str, str], list[_Picture]] = defaultdict(list)
    for picture in pictures:
        for kind in kinds(picture):
            of_kind[kind].append(picture)
    rarity = Counter[str]()
    for (subject, _), ones in of_kind.items():
        rarity[subject] += len(ones)
    order = sorted(of_kind, key=lambda kind: (rarity[kind[0]], kind))
    queues = {kind: iter(ones) for kind, ones in of_kind.items()}
    have = Counter(kind for picture in chosen.values() for kind in kinds(picture))
    for wanted in range(1, limit + 1):
        for kind in order:
            if len(chosen) >= limit:
                return
            if have[kind] < wanted:
                found = next((one for one in queues[kind] if one.name not in chosen), None)
                if found:
                    chosen[found.name] = found
                    have.update(kinds(found))


def _mended(samples: Sequence[Sample]) -> dict[str, CheckedSample]:
    """What can be shown of images that were refused: with their boxes mended, or failing that without boxes."""
    shown: dict[str, CheckedSample] = {}
    whole = [replace(sample, faults=()) for sample in samples]
    for tried in (whole, [replace(sample, annotation=None) for sample in whole]):
        left = [sample for sample in tried if sample.name not in shown]
        shown |= {one.name: one for one in examine(left, _MENDING).samples}
    return shown


def _tile(picture: _Picture, sample: CheckedSample | None) -> Tile:
    findings = picture.findings[:_SAID]
    if sample is None:
        return Tile(picture.name, picture.side, 0, 0, "", "it cannot be read", (), 0, (), findings)
    try:
        uri, fault = f"data:image/jpeg;base64,{base64.b64encode(thumbnail(sample)).decode()}", ""
    except DataError as err:
        uri, fault = "", err.found
    largest = sorted(sample.boxes, key=lambda box: (box.xmin - box.xmax) * (box.ymax - box.ymin))
    boxes = tuple(
        Drawn(box.label, box.xmin, box.ymin, box.xmax - box.xmin, box.ymax - box.ymin, box.crowd or box.difficult)
        for box in largest[:MAX_DRAWN]
    )
    return Tile(
        picture.name, picture.side, sample.width, sample.height, uri, fault, boxes, len(sample.boxes),
        tuple(sorted(set(sample.boxes.labels))), findings,
    )


def thumbnail(sample: CheckedSample) -> bytes:
    """A JPEG of the picture as it is recorded, turned where it is turned, no side longer than `THUMBNAIL_PX`.

    Raises:
        DataError: D106; it cannot be read or decoded.
    """
    from PIL import Image

    try:
        data = sample.image.read()
    except OSError as err:
        raise refused(sample.image, err.strerror or str(err), "put it there, or delete its label") from err
    factor = min(1.0, THUMBNAIL_PX / max(sample.width, sample.height))
    size = (max(1, round(sample.width * factor)), max(1, round(sample.height * factor)))
    orientation = sample.conversion.orientation if sample.conversion else 1
    small = convert(data, Conversion(orientation, *size, "png", "a thumbnail"), sample.image)
    with Image.open(BytesIO(small)) as image:
        plain = image.convert("L" if image.mode == "L" else "RGB")
    for quality in _QUALITIES:
        out = BytesIO()
        plain.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= _MAX_JPEG_BYTES:
            break
    return out.getvalue()
