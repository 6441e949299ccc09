"""Builds a dataset: scan, check, plan, write. The same input gives the same bytes, on any machine and under any folder.

Memory holds a few images at a time, whatever the size of the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from gcpod.data.check import CheckOptions, Progress, examine
from gcpod.data.checked import Checked
from gcpod.data.crew import Crew
from gcpod.data.labelmap import LabelItem, LabelMap
from gcpod.data.manifest import DatasetManifest
from gcpod.data.materialise import materialise
from gcpod.data.plan import SHARD_BYTES, Compression, DatasetPlan, PlanOptions, plan_dataset
from gcpod.data.scan import Scan, scan_dataset
from gcpod.data.store import FolderStore, ShardStore
from gcpod.data.write import write_dataset
from gcpod.errors import DataError
from gcpod.spec import Policies
from gcpod.status import Finding


class DatasetError(DataError):
    """The check found errors; ``findings`` holds them and all warnings, and the error has the code of the first."""

    def __init__(self, images: object, findings: tuple[Finding, ...]) -> None:
        errors = [finding for finding in findings if finding.severity == "error"]
        first, more = errors[0], f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        super().__init__(f"checking {images},", first.where, first.found, first.fix + more, code=first.code)
        self.findings = findings


@dataclass(frozen=True)
class DatasetRequest:
    """What to build from what.

    Attributes:
        images: folder of images, or of TFRecords; subfolders are walked, and ``train/`` beside ``test/``, ``eval/`` or
            ``val/`` is kept as the split.
        annotations: folder, file or pattern of the labels; None means that they lie in the image folder.
        out: folder of the dataset, made when missing.
        eval_fraction: share of the images that evaluates, between 0 and 1.
        labels: imposed classes: names in the order of their ids, or a whole label map. None takes the one that comes
            with the labels, or derives one.
        shard_bytes: about how large a shard gets.
        policies: what happens to faults.
        format: of the labels, see `gcpod.data.recognise.Format`; "auto" finds out.
        aliases: new names by old ones, applied to labels first.
        verify, near_duplicates, max_side: see `gcpod.data.check.CheckOptions`.
        masks: record COCO's masks.
        shard_examples: the most images of a shard.
        compression: "gzip" packs the shards; the Object Detection API reads none of these.
        materialise: a new folder that the images are copied to by split, too.
        train_shards: see `gcpod.data.plan.PlanOptions`.
    """

    images: Path
    annotations: Path | None
    out: Path
    eval_fraction: float = 0.1
    labels: Sequence[str] | LabelMap | None = None
    shard_bytes: int = SHARD_BYTES
    policies: Policies = field(default_factory=Policies)
    format: str = "auto"
    aliases: Mapping[str, str] = field(default_factory=dict)
    verify: Literal["header", "decode"] = "header"
    near_duplicates: bool = True
    max_side: int | None = None
    masks: bool = False
    shard_examples: int | None = None
    compression: Compression = "none"
    materialise: Path | None = None
    train_shards: int = 1

    @property
    def plan_options(self) -> PlanOptions:
        return PlanOptions(
            self.eval_fraction, self.shard_bytes, self.shard_examples, self.compression, self.train_shards,
        )

    def check_options(self, given: LabelMap | None) -> CheckOptions:
        """How to check, with the imposed label map, else the one that comes with the labels."""
        imposed = self.labels if self.labels is None or isinstance(self.labels, LabelMap) else (
            LabelMap.impose(self.labels)
        )
        return CheckOptions(
            imposed or _renamed(given, self.aliases), self.aliases, self.policies, self.verify, self.near_duplicates,
            self.max_side,
        )


@dataclass(frozen=True)
class CheckedDataset:
    """What a dataset was found to be; ``label_map`` is None when it will be derived."""

    scan: Scan
    checked: Checked
    label_map: LabelMap | None


def check_dataset(
    request: DatasetRequest, progress: Progress | None = None, crew: Crew | None = None,
) -> CheckedDataset:
    """Scans and checks without writing anything; findings have places relative to the folders, as far as they can.

    Args:
        progress: called with ("check", images done, images in all).
        crew: who shares the work; None is one for this call.

    Raises:
        DataError: there is nothing to check, or labels cannot be read at all.
    """
    with nullcontext(crew) if crew else Crew() as crew:
        scan = scan_dataset(request.images, request.annotations, request.format, request.masks, crew=crew)
        options = request.check_options(scan.label_map)
        checked = examine(scan.samples, options, progress, scan.faults, crew)
    return CheckedDataset(scan, checked, options.label_map)


def build_dataset(
    request: DatasetRequest, progress: Progress | None = None, store: ShardStore | None = None,
) -> DatasetManifest:
    """Builds the dataset, or returns at once when it is there already.

    "Already" means that a manifest of the same digest lies there, and the shards have its sizes and checksums.

    Args:
        progress: called with ("check" or "write", images done, images in all).
        store: where to, instead of the folder ``request.out``.

    Raises:
        DatasetError: the check found errors.
        DataError: nothing to build from, an image that changed meanwhile, or a target that cannot be written.
        SpecError: an eval fraction or a shard size out of range.
    """
    with Crew() as crew:
        plan = plan_checked(check_dataset(request, progress, crew), request)
        if request.materialise:
            _check_apart(request.materialise, request)
        manifest = write_dataset(plan, store or FolderStore(request.out), request.out, progress, crew)
    if request.materialise:
        materialise(plan, request.materialise)
    return manifest


def _check_apart(folder: Path, request: DatasetRequest) -> None:
    for read in (request.images, request.annotations or request.images):
        if folder.absolute().resolve().is_relative_to(read.absolute().resolve()):
            found = f"it lies in {read}, where the next build would find the copies"
            raise DataError("copying the split to", folder, found, "choose a folder elsewhere")


def try_plan(found: CheckedDataset, request: DatasetRequest) -> tuple[DatasetPlan | None, CheckedDataset]:
    """What would be written, None when nothing can be; what keeps it from being planned becomes the last finding."""
    try:
        return plan_checked(found, request), found
    except DatasetError:
        return None, found
    except DataError as err:
        fault = Finding(err.code, "error", str(request.images), err.found, err.fix)
        return None, replace(found, checked=replace(found.checked, findings=(*found.checked.findings, fault)))


def plan_checked(found: CheckedDataset, request: DatasetRequest) -> DatasetPlan:
    """What would be written.

    Raises:
        DatasetError: the check found errors.
        DataError, SpecError: see `gcpod.data.plan.plan_dataset`.
    """
    if found.checked.errors:
        raise DatasetError(request.images, found.checked.findings)
    findings = portable(found.checked.findings, request)
    try:
        return plan_dataset(found.checked.samples, found.label_map, request.plan_options, findings)
    except OSError as err:
        why = err.strerror or str(err)
        raise DataError("planning the records of", request.images, why, "leave the files be, and build again") from err


def portable(findings: tuple[Finding, ...], request: DatasetRequest) -> tuple[Finding, ...]:
    """The findings with places relative to the two folders, so that a manifest does not depend on where they lie."""
    return relative_to(roots_of(request), findings)


def roots_of(request: DatasetRequest) -> tuple[str, ...]:
    """The folders that findings name places in, the deepest first."""
    folders = [request.images, request.annotations or request.images]
    folders += [folder.parent for folder in folders if not folder.is_dir()]
    return tuple(sorted({f"{folder}/" for folder in folders}, key=len, reverse=True))


def relative_to(roots: Sequence[str], findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings with places relative to those folders, as far as they lie in one."""

    def relative(text: str) -> str:
        for root in roots:
            text = text.replace(root, "")
        return text

    return tuple(
        replace(one, where=relative(one.where), found=relative(one.found), fix=relative(one.fix)) for one in findings
    )


def _renamed(label_map: LabelMap | None, aliases: Mapping[str, str]) -> LabelMap | None:
    """A label map that came with the labels, its names as the aliases have them.

    Of classes that become one, the id is that of the name that stays, else the lowest.
    """
    if label_map is None or not aliases:
        return label_map
    items: dict[str, LabelItem] = {}
    for item in sorted(label_map.items, key=lambda item: item.name in aliases):
        name = aliases.get(item.name, item.name)
        items.setdefault(name, item if name == item.name else LabelItem(item.id, name))
    return LabelMap(tuple(items.values()))
