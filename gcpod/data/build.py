"""Builds a dataset: scan, check, plan, write. The same input gives the same bytes, on any machine and under any folder.

Everything is written into a folder of its own within the target and renamed into place, the manifest last: while a
manifest's checksums fit its shards, the dataset is whole. Memory holds one image at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from gcpod.checksums import crc32c_text
from gcpod.data.check import Checked, Policies, Progress, examine
from gcpod.data.examples import encode_example
from gcpod.data.labelmap import LabelMap, render_pbtxt
from gcpod.data.manifest import (
    LABEL_MAP_NAME,
    MANIFEST_NAME,
    DatasetManifest,
    ShardInfo,
    intact,
    read_manifest,
)
from gcpod.data.plan import DatasetPlan, ShardPlan, plan_dataset
from gcpod.data.scan import scan_dataset
from gcpod.errors import DataError, SpecError
from gcpod.records import write_records
from gcpod.status import Finding

SHARD_BYTES = 128 << 20
"""Default size of a shard: "ideally 100 MB or more" (https://www.tensorflow.org/tutorials/load_data/tfrecord)."""

_ASIDE = ".building"


class DatasetError(DataError):
    """The check found errors; ``findings`` holds them and all warnings, and the error has the code of the first."""

    def __init__(self, images: Path, findings: tuple[Finding, ...]) -> None:
        errors = [finding for finding in findings if finding.severity == "error"]
        first, more = errors[0], f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        super().__init__(f"checking {images},", first.where, first.found, first.fix + more, code=first.code)
        self.findings = findings


@dataclass(frozen=True)
class DatasetRequest:
    """What to build from what.

    Attributes:
        images: folder of JPEG and PNG files; subfolders are walked, and ``train/`` beside ``test/``, ``eval/`` or
            ``val/`` is kept as the split.
        annotations: folder of the XML files; None means beside the images.
        out: folder of the dataset, made when missing.
        eval_fraction: share of the images that evaluates, between 0 and 1.
        labels: imposed classes: names in the order of their ids, or a whole label map. None derives them.
        shard_bytes: about how large a shard gets.
        policies: what happens to faults that can be mended.
    """

    images: Path
    annotations: Path | None
    out: Path
    eval_fraction: float = 0.1
    labels: Sequence[str] | LabelMap | None = None
    shard_bytes: int = SHARD_BYTES
    policies: Policies = field(default_factory=Policies)

    @property
    def label_map(self) -> LabelMap | None:
        """The imposed label map."""
        if self.labels is None or isinstance(self.labels, LabelMap):
            return self.labels
        return LabelMap.impose(self.labels)


def build_dataset(request: DatasetRequest, progress: Progress | None = None) -> DatasetManifest:
    """Builds the dataset, or returns at once when ``out`` holds it already.

    "Already" means that a manifest of the same digest lies there, and the shards have its sizes and checksums.

    Args:
        progress: called with ("check" or "write", images done, images in all).

    Raises:
        DatasetError: the check found errors.
        DataError: nothing to build from, an image that changed meanwhile, or a target that cannot be written.
        SpecError: an eval fraction or a shard size out of range.
    """
    if request.shard_bytes < 1:
        raise SpecError("building shards of", f"{request.shard_bytes} bytes", "that is no size", f"use {SHARD_BYTES}")
    label_map = request.label_map
    checked = examine(scan_dataset(request.images, request.annotations), label_map, request.policies, progress)
    if checked.errors:
        raise DatasetError(request.images, checked.findings)
    plan = plan_dataset(
        checked.samples, label_map, eval_fraction=request.eval_fraction, shard_bytes=request.shard_bytes,
        findings=_portable(checked, request),
    )
    try:
        return _present(plan, request.out) or _write(plan, request.out, progress)
    except OSError as err:
        found = err.strerror or str(err)
        raise DataError("writing the dataset to", request.out, found, "make room, or choose another folder") from err


def _portable(checked: Checked, request: DatasetRequest) -> tuple[Finding, ...]:
    """The findings with places relative to the two folders, so that a manifest does not depend on where they lie."""
    roots = sorted({f"{request.images}/", f"{request.annotations or request.images}/"}, key=len, reverse=True)

    def relative(where: str) -> str:
        return next((where.removeprefix(root) for root in roots if where.startswith(root)), where)

    return tuple(replace(finding, where=relative(finding.where)) for finding in checked.findings)


def _present(plan: DatasetPlan, out: Path) -> DatasetManifest | None:
    with suppress(DataError):
        manifest = read_manifest(out)
        same = manifest.digest == plan.digest and manifest.read_label_map() == plan.label_map
        return manifest if same and intact(manifest) else None
    return None


def _write(plan: DatasetPlan, out: Path, progress: Progress | None) -> DatasetManifest:
    aside = out / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        ticks = _Ticks(sum(plan.images_by_split().values()), progress)
        shards = tuple(_write_shard(shard, plan.label_map.ids(), aside, ticks) for shard in plan.shards)
        manifest = DatasetManifest(
            folder=out, digest=plan.digest, label_map=LABEL_MAP_NAME, num_classes=plan.label_map.num_classes,
            shards=shards, images=plan.images_by_split(), boxes=plan.boxes_by_split(), findings=plan.findings,
        )
        (aside / LABEL_MAP_NAME).write_bytes(render_pbtxt(plan.label_map).encode())
        (aside / MANIFEST_NAME).write_bytes(manifest.to_json().encode())
        _move(aside, out, manifest)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _move(aside: Path, out: Path, manifest: DatasetManifest) -> None:
    """Renames the finished files into place, then removes the shards of an earlier build that this one lacks."""
    stale: set[str] = set()
    with suppress(DataError):
        stale = {shard.name for shard in read_manifest(out).shards} - {shard.name for shard in manifest.shards}
    for name in (*(shard.name for shard in manifest.shards), LABEL_MAP_NAME, MANIFEST_NAME):
        (aside / name).replace(out / name)
    for name in stale:
        (out / name).unlink(missing_ok=True)


class _Ticks:
    """Counts written images for the progress callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def tick(self) -> None:
        self._done += 1
        if self._progress:
            self._progress("write", self._done, self._total)


class _Summed:
    """A file that keeps the size and CRC-32C of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.crc, self.size_bytes = file, 0, 0

    def write(self, data: bytes) -> int:
        self.crc = google_crc32c.extend(self.crc, data)
        self.size_bytes += len(data)
        return self._file.write(data)


def _write_shard(shard: ShardPlan, ids: dict[str, int], folder: Path, ticks: _Ticks) -> ShardInfo:
    with (folder / shard.name).open("wb", buffering=0) as file:
        summed = _Summed(file)
        count = write_records(summed, _examples(shard, ids, ticks))
    return ShardInfo(shard.name, shard.split, count, summed.size_bytes, crc32c_text(summed.crc))


def _examples(shard: ShardPlan, ids: dict[str, int], ticks: _Ticks) -> Iterator[bytes]:
    for sample in shard.samples:
        try:
            image = sample.image.read_bytes()
        except OSError as err:
            raise _changed(sample.image) from err
        if google_crc32c.value(image) != sample.probe.crc32c:
            raise _changed(sample.image)
        yield encode_example(sample, ids, image)
        ticks.tick()


def _changed(path: Path) -> DataError:
    return DataError("recording the image", path, "it changed after it was checked", "build again", code="D106")
