"""One HTML page that shows a dataset before it is trusted: numbers, findings and a contact sheet with the boxes drawn.

The page holds everything itself and fetches nothing. Labels, names and findings come from strangers: the template
escapes them, and the page's own policy allows its one script and its one style sheet by their hashes alone.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gcpod.data.build import CheckedDataset, relative_to
from gcpod.data.check import Progress
from gcpod.data.checked import CheckedSample
from gcpod.data.labelmap import LabelMap
from gcpod.data.model import SPLITS
from gcpod.data.plan import DatasetPlan
from gcpod.data.preview.contact_sheet import Tile, contact_sheet
from gcpod.data.preview.histograms import Histogram, histograms
from gcpod.data.recognise import NAMES
from gcpod.errors import DataError, SpecError
from gcpod.status import Finding, Severity

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE: Final = Path(__file__).with_name("page.html")
COLOURS: Final = 7
"""The template's: Okabe and Ito's for all kinds of colour vision, but for black (https://jfly.uni-koeln.de/color/)."""

MAX_SHOWN: Final = 50
"""Findings of one code that are listed."""

_SIZES = 10
_SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
_ABOUT: Final = {
    "D101": "Labels and label maps", "D102": "Sizes, edges and rotation", "D103": "Boxes drawn backwards",
    "D104": "Annotations that cannot be read", "D105": "Boxes without area", "D106": "Image files",
    "D107": "Copies of a picture",
}


@dataclass(frozen=True)
class SideRow:
    """One side of the split, or "all": how many images, boxes, and images without boxes."""

    name: str
    images: int
    boxes: int
    bare: int


@dataclass(frozen=True)
class ClassRow:
    """One class: boxes by side and their shares of the longest bar (0 to 1); ``mark`` says what is odd about it."""

    id: int | None
    label: str
    colour: int
    counts: tuple[int, ...]
    shares: tuple[float, ...]
    mark: str


@dataclass(frozen=True)
class FindingGroup:
    """All findings of one code: how many of each severity, and the first of them, errors first."""

    code: str
    about: str
    counts: tuple[tuple[Severity, int], ...]
    shown: tuple[Finding, ...]

    @property
    def more(self) -> int:
        return sum(count for _, count in self.counts) - len(self.shown)


@dataclass(frozen=True)
class Preview:
    """Everything that the page shows.

    Attributes:
        format: of the labels, in words.
        digest: the plan's; "" without a plan.
        severities: number of findings by severity.
        sides: the sides of the split; without a plan only "all".
        total: all images fit for training.
        left_out: number of images that are not.
        sizes: (width, height, images), the most frequent first.
        other_sizes: number of images of none of these sizes.
    """

    title: str
    format: str
    digest: str
    severities: Mapping[Severity, int]
    sides: tuple[SideRow, ...]
    total: SideRow
    left_out: int
    classes: tuple[ClassRow, ...]
    histograms: tuple[Histogram, ...]
    sizes: tuple[tuple[int, int, int], ...]
    other_sizes: int
    findings: tuple[FindingGroup, ...]
    tiles: tuple[Tile, ...]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Where in ``classes`` each label is."""
        return {row.label: number for number, row in enumerate(self.classes)}

    @cached_property
    def on_sheet(self) -> Counter[str]:
        """How many tiles show each label."""
        return Counter(label for tile in self.tiles for label in tile.labels)


def build_preview(
    found: CheckedDataset, plan: DatasetPlan | None, out: Path, title: str, sheet: int = 60,
    progress: Progress | None = None,
) -> Path:
    """Writes the page; of the images only those on the contact sheet are opened.

    Args:
        plan: None when the check found errors: no split is shown then.
        out: the HTML file; its folder is made when missing.
        sheet: how many images the contact sheet has.
        progress: called with ("preview", images done, images in all).

    Returns:
        ``out``.

    Raises:
        SpecError: ``sheet`` is negative.
        DataError: the file cannot be written.
    """
    page = render_preview(view_dataset(found, plan, title, sheet, progress))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # File names that are not UTF-8 hold surrogates.
        out.write_bytes(page.encode("utf-8", "replace"))
    except OSError as err:
        raise DataError("writing the preview to", out, err.strerror or str(err), "choose another file") from err
    return out


def render_preview(view: Preview) -> str:
    """The page, the same text for the same ``view``."""
    return _template().render(view=view)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(count=lambda number: f"{number:,}", short=lambda number: f"{number:.6g}", csp=_csp)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _csp(inline: str) -> str:
    """What names an inline script or style in a Content-Security-Policy (https://www.w3.org/TR/CSP3/)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"


def view_dataset(
    found: CheckedDataset, plan: DatasetPlan | None, title: str, sheet: int = 60, progress: Progress | None = None,
) -> Preview:
    """What there is to show; see `build_preview`."""
    if sheet < 0:
        raise SpecError("making a contact sheet of", f"{sheet} images", "that is less than none", "use 0 or more")
    samples = found.checked.samples
    by_side: dict[str, Sequence[CheckedSample]] = {"all": samples}
    if plan:
        by_side = {split: plan.samples(split) for split in SPLITS}
    sides = {one.name: side for side, ones in by_side.items() for one in ones} if plan else {}
    findings = _relative(found)
    told = dict(zip(found.checked.findings, findings, strict=True))
    tiles = [
        replace(tile, findings=tuple(told[finding] for finding in tile.findings))
        for tile in contact_sheet(found, sides, sheet, progress)
    ]
    shown = {label for tile in tiles for label in tile.labels}
    classes = class_rows(by_side, plan.label_map if plan else found.label_map, shown)
    sizes = Counter((sample.width, sample.height) for sample in samples)
    frequent = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_SIZES]
    images = sum(1 for sample in found.scan.samples if sample.image)
    return Preview(
        title, NAMES[found.scan.source.format], plan.digest if plan else "",
        Counter(finding.severity for finding in findings),
        tuple(_side_row(side, ones) for side, ones in by_side.items()), _side_row("all", samples),
        images - len(samples), classes, histograms(samples), tuple((*size, count) for size, count in frequent),
        len(samples) - sum(count for _, count in frequent), group_findings(findings), tuple(tiles),
    )


def _relative(found: CheckedDataset) -> tuple[Finding, ...]:
    """The findings with places relative to the folders, so that the page does not depend on where they lie."""
    files = ((str(sample.image), sample.name) for sample in found.scan.samples if sample.image)
    images = next((file.removesuffix(name) for file, name in files if file.endswith(f"/{name}")), "")
    roots = {f"{found.scan.source.folder}/", images} - {""}
    return relative_to(sorted(roots, key=len, reverse=True), found.checked.findings)


def _side_row(side: str, samples: Sequence[CheckedSample]) -> SideRow:
    boxes = [len(sample.boxes) for sample in samples]
    return SideRow(side, len(boxes), sum(boxes), boxes.count(0))


def class_rows(
    by_side: Mapping[str, Sequence[CheckedSample]], label_map: LabelMap | None, left_out: Iterable[str] = (),
) -> tuple[ClassRow, ...]:
    """A row for each label and for each class of the label map, in the order of ids.

    Args:
        left_out: labels of boxes that are shown but not counted, as their images were left out.
    """
    counts = {side: Counter[str]() for side in by_side}
    for side, samples in by_side.items():
        for sample in samples:
            counts[side].update(sample.boxes.labels)
    ids = label_map.ids() if label_map else {}
    found = set().union(*counts.values(), left_out)
    met = {ids.get(label) for label in found}
    labels = found | {item.name for item in label_map.items if item.id not in met} if label_map else found
    order = sorted(labels, key=lambda label: (ids.get(label, math.inf), label))
    longest = {side: max(counts[side].values(), default=1) for side in by_side}
    rows = []
    for number, label in enumerate(order):
        boxes = {side: counts[side][label] for side in by_side}
        rows.append(ClassRow(
            ids.get(label), label, number % COLOURS, tuple(boxes.values()),
            tuple(boxes[side] / longest[side] for side in by_side), _odd(boxes, label in found),
        ))
    return tuple(rows)


def _odd(boxes: Mapping[str, int], shown: bool) -> str:
    has = [side for side, count in boxes.items() if count]
    if not has:
        return "left out" if shown else "no boxes"
    return f"{has[0]} only" if len(has) < len(boxes) else ""


def group_findings(findings: Iterable[Finding]) -> tuple[FindingGroup, ...]:
    """The findings by code, codes with errors first."""
    by_code: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_code[finding.code].append(finding)
    groups = []
    for code, ones in by_code.items():
        counts = Counter(one.severity for one in ones)
        ones.sort(key=_rank)
        severities = tuple((severity, counts[severity]) for severity in _SEVERITIES if counts[severity])
        groups.append(FindingGroup(code, _ABOUT.get(code, ""), severities, tuple(ones[:MAX_SHOWN])))
    return tuple(sorted(groups, key=lambda group: (_rank(group.shown[0]), group.code)))


def _rank(finding: Finding) -> int:
    return _SEVERITIES.index(finding.severity)
