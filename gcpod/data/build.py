"""Builds a dataset: scan, check, plan, write. The same input gives the same bytes, on any machine and under any folder.

Memory holds a few images at a time, whatever the size of the dataset.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeVar, cast

import google_crc32c

from gcpod.checksums import crc32c_text
from gcpod.data.check import CheckOptions, Progress, examine
from gcpod.data.checked import Checked, CheckedSample
from gcpod.data.examples import ExampleOptions, encode_example
from gcpod.data.labelmap import LabelItem, LabelMap
from gcpod.data.manifest import LABEL_MAP_NAME, DatasetManifest, ShardInfo
from gcpod.data.materialise import materialise
from gcpod.data.parallel import batches, ordered
from gcpod.data.plan import SHARD_BYTES, Compression, DatasetPlan, PlanOptions, ShardPlan, plan_dataset
from gcpod.data.scan import Scan, scan_dataset
from gcpod.data.store import FolderStore, ShardStore
from gcpod.errors import DataError
from gcpod.records import Writable, framed
from gcpod.spec import Policies
from gcpod.status import Finding

T = TypeVar("T")

_BATCH_BYTES: Final = 1 << 18
_MAX_BATCH: Final = 16
_WAITING: Final = 2


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

    @property
    def plan_options(self) -> PlanOptions:
        return PlanOptions(self.eval_fraction, self.shard_bytes, self.shard_examples, self.compression)

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


def check_dataset(request: DatasetRequest, progress: Progress | None = None) -> CheckedDataset:
    """Scans and checks without writing anything; findings have places relative to the folders, as far as they can.

    Raises:
        DataError: there is nothing to check, or labels cannot be read at all.
    """
    scan = scan_dataset(request.images, request.annotations, request.format, request.masks)
    options = request.check_options(scan.label_map)
    checked = examine(scan.samples, options, progress, scan.faults)
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
    plan = plan_checked(check_dataset(request, progress), request)
    if request.materialise:
        _check_apart(request.materialise, request)
    manifest = write_dataset(plan, store or FolderStore(request.out), request.out, progress)
    if request.materialise:
        materialise(plan, request.materialise)
    return manifest


def _check_apart(folder: Path, request: DatasetRequest) -> None:
    for read in (request.images, request.annotations or request.images):
        if folder.absolute().resolve().is_relative_to(read.absolute().resolve()):
            found = f"it lies in {read}, where the next build would find the copies"
            raise DataError("copying the split to", folder, found, "choose a folder elsewhere")


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


def write_dataset(
    plan: DatasetPlan, store: ShardStore, out: Path, progress: Progress | None = None,
) -> DatasetManifest:
    """Writes what a plan says, as far as it is not there.

    Raises:
        DataError: see `build_dataset`.
    """
    try:
        there = store.present(plan)
        if there:
            return there
        with store.building(plan):
            return _write(plan, store, out, progress)
    except OSError as err:
        found = err.strerror or str(err)
        raise DataError("writing the dataset to", out, found, "make room, or choose another folder") from err


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


def _write(plan: DatasetPlan, store: ShardStore, out: Path, progress: Progress | None) -> DatasetManifest:
    ticks = _Ticks(sum(plan.images_by_split().values()), progress)
    done = store.finished(plan)
    for shard in plan.shards:
        if shard.name in done:
            ticks.tick(len(shard.samples))
            continue
        with store.shard(plan, shard.name) as file:
            done[shard.name] = write_shard(shard, plan, file, ticks.tick)
        store.keep(plan, done[shard.name])
    return store.publish(plan, manifest_of(plan, done, out))


def manifest_of(plan: DatasetPlan, done: Mapping[str, ShardInfo], out: Path) -> DatasetManifest:
    """The manifest of a plan whose shards are written."""
    return DatasetManifest(
        folder=out, digest=plan.digest, label_map=LABEL_MAP_NAME, num_classes=plan.label_map.num_classes,
        shards=tuple(done[shard.name] for shard in plan.shards), images=plan.images_by_split(),
        boxes=plan.boxes_by_split(), findings=plan.findings,
    )


class _Ticks:
    """Counts written images for the progress callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def tick(self, count: int = 1) -> None:
        self._done += count
        if self._progress:
            self._progress("write", self._done, self._total)


class _Summed:
    """A file that keeps the size and CRC-32C of what is written to it."""

    def __init__(self, file: Writable) -> None:
        self._file, self.crc, self.size_bytes = file, 0, 0

    def write(self, data: bytes) -> int:
        self.crc = google_crc32c.extend(self.crc, data)
        self.size_bytes += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """For gzip, which calls it; every write went through."""


def write_shard(shard: ShardPlan, plan: DatasetPlan, file: Writable, tick: Callable[[], None]) -> ShardInfo:
    """Writes the records of one shard.

    Args:
        tick: called after each record.

    Raises:
        DataError: D106; an image is not what it was when it was checked.
    """
    summed = _Summed(file)

    def records(batch: Sequence[CheckedSample]) -> tuple[int, bytes]:
        return len(batch), b"".join([chunk for sample in batch for chunk in _record(sample, plan.example)])

    with _packed(summed, plan.compression) as target:
        for count, block in _mapped(records, shard):
            target.write(block)
            for _ in range(count):
                tick()
    return ShardInfo(shard.name, shard.split, len(shard.samples), summed.size_bytes, crc32c_text(summed.crc))


def _mapped(records: Callable[[Sequence[CheckedSample]], T], shard: ShardPlan) -> Iterator[T]:
    """Plain records are little more than copying, best written from the cache of the core that made them; where pixels
    are encoded, every core helps."""
    parts = batches(shard.samples, _batch(shard))
    if any(sample.conversion or sample.boxes.masked for sample in shard.samples):
        return ordered(records, parts, waiting=_WAITING)
    return map(records, parts)


def _packed(summed: _Summed, compression: Compression) -> AbstractContextManager[Writable]:
    if compression == "none":
        return nullcontext(summed)
    # No name and no time in the header: the same input gives the same bytes.
    return gzip.GzipFile(filename="", mode="wb", fileobj=cast(BinaryIO, summed), mtime=0)


def _batch(shard: ShardPlan) -> int:
    """Images that one thread takes at once: many small ones, or a single large one."""
    average = sum(sample.probe.size_bytes for sample in shard.samples) // len(shard.samples)
    return max(1, min(_MAX_BATCH, _BATCH_BYTES // max(1, average)))


def _record(sample: CheckedSample, options: ExampleOptions) -> list[bytes]:
    try:
        data = sample.image.read()
    except OSError as err:
        raise _changed(sample) from err
    if google_crc32c.value(data) != sample.probe.crc32c:
        raise _changed(sample)
    return framed(encode_example(sample, options, data))


def _changed(sample: CheckedSample) -> DataError:
    return DataError("recording the image", sample.image, "it changed after it was checked", "build again", code="D106")

