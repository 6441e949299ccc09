"""What a build would write, worked out from checked samples alone: label map, splits, shards, one digest of it all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from gcpod.data.check import CheckedSample
from gcpod.data.labelmap import LabelMap, render_pbtxt
from gcpod.data.split import SPLITS, Split, plan_split
from gcpod.errors import DataError
from gcpod.status import Finding

FORMAT_VERSION = 1
"""Part of the digest: raised whenever the same plan would give other bytes."""

_EXAMPLE_OVERHEAD_BYTES = 1024


@dataclass(frozen=True)
class ShardPlan:
    """One file of records to be written, its samples in their order."""

    name: str
    split: Split
    samples: tuple[CheckedSample, ...]


@dataclass(frozen=True)
class DatasetPlan:
    """Everything that decides the bytes of a dataset.

    Attributes:
        findings: warnings, with places relative to the image and annotation folders.
        digest: SHA-256, in hexadecimal, over all of the plan, image digests included; the "source digest".
    """

    label_map: LabelMap
    shards: tuple[ShardPlan, ...]
    findings: tuple[Finding, ...]
    digest: str

    def samples(self, split: Split) -> tuple[CheckedSample, ...]:
        return tuple(sample for shard in self.shards if shard.split == split for sample in shard.samples)

    def images_by_split(self) -> dict[str, int]:
        return {split: len(self.samples(split)) for split in SPLITS}

    def boxes_by_split(self) -> dict[str, dict[str, int]]:
        """Number of boxes by split and label, in the label map's order."""
        ids = self.label_map.ids()
        counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for shard in self.shards:
            counts[shard.split].update(box.label for sample in shard.samples for box in sample.boxes)
        labels = sorted(set().union(*counts.values()), key=lambda label: (ids[label], label))
        return {split: {label: counts[split][label] for label in labels} for split in SPLITS}


def plan_dataset(
    samples: Sequence[CheckedSample],
    label_map: LabelMap | None = None,
    *,
    eval_fraction: float = 0.1,
    shard_bytes: int,
    findings: tuple[Finding, ...] = (),
) -> DatasetPlan:
    """Splits the samples, derives the label map where none is imposed, and deals the samples to shards.

    Within a split the order is that of the images' SHA-256: as good as shuffled for training, and the same whatever the
    files are called.

    Args:
        shard_bytes: about how large a shard gets; a larger image makes a larger shard.

    Raises:
        DataError: no boxes at all, or fewer than two distinct pictures, of which one could evaluate.
        SpecError: the eval fraction is not between 0 and 1.
    """
    labels = {box.label for sample in samples for box in sample.boxes}
    if not labels:
        raise DataError(
            "planning the records of", f"{len(samples)} images", "there is not one usable box in their annotations",
            "draw boxes in LabelImg and save them as Pascal VOC",
        )
    if len({sample.probe.sha256 for sample in samples}) < 2:
        raise DataError(
            "splitting", f"{len(samples)} images", "there is only one distinct picture, so none could evaluate",
            "label at least two",
        )
    sides = plan_split([(sample.probe.sha256, sample.given) for sample in samples], eval_fraction)
    shards = tuple(
        shard
        for split in SPLITS
        for shard in _deal(split, [one for one, side in zip(samples, sides, strict=True) if side == split], shard_bytes)
    )
    chosen = label_map or LabelMap.derive(labels)
    return DatasetPlan(chosen, shards, findings, _digest(chosen, shards, findings))


def _deal(split: Split, samples: Sequence[CheckedSample], shard_bytes: int) -> Iterator[ShardPlan]:
    groups: list[list[CheckedSample]] = []
    room = 0
    for sample in sorted(samples, key=lambda sample: (sample.probe.sha256, sample.name)):
        size = sample.probe.size_bytes + _EXAMPLE_OVERHEAD_BYTES
        if not groups or size > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(sample)
        room -= size
    for index, group in enumerate(groups):
        yield ShardPlan(f"{split}-{index:05d}-of-{len(groups):05d}.tfrecord", split, tuple(group))


def _digest(label_map: LabelMap, shards: Sequence[ShardPlan], findings: Sequence[Finding]) -> str:
    total = hashlib.sha256(f"{FORMAT_VERSION}\n{render_pbtxt(label_map)}".encode())
    for shard in shards:
        total.update(f"{shard.name}\n".encode())
        for sample in shard.samples:
            probe = sample.probe
            boxes = [astuple(box)[:-1] for box in sample.boxes]
            known = [sample.name, probe.sha256, probe.format, probe.width, probe.height, boxes]
            total.update(json.dumps(known).encode())
    total.update(json.dumps([astuple(finding) for finding in findings]).encode())
    return total.hexdigest()
