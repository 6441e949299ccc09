"""What a build would write, worked out from checked samples alone: label map, splits, shards, one digest of it all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Final, Literal

from gcpod.data.checked import CheckedSample
from gcpod.data.examples import ExampleOptions
from gcpod.data.labelmap import LabelMap, render_pbtxt
from gcpod.data.model import SPLITS, Box, Split
from gcpod.data.pixels import library_version
from gcpod.data.split import Picture, plan_split
from gcpod.errors import DataError, SpecError
from gcpod.status import Finding

FORMAT_VERSION = 2
"""Part of the digest: raised whenever the same plan would give other bytes."""

SHARD_BYTES: Final = 128 << 20
"""Default size of a shard: "ideally 100 MB or more" (https://www.tensorflow.org/tutorials/load_data/tfrecord)."""

Compression = Literal["none", "gzip"]
SUFFIXES: Final[dict[Compression, str]] = {"none": ".tfrecord", "gzip": ".tfrecord.gz"}

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
    example: ExampleOptions
    compression: Compression = "none"

    def samples(self, split: Split) -> tuple[CheckedSample, ...]:
        return tuple(sample for shard in self.shards if shard.split == split for sample in shard.samples)

    def images_by_split(self) -> dict[str, int]:
        return {split: len(self.samples(split)) for split in SPLITS}

    def boxes_by_split(self) -> dict[str, dict[str, int]]:
        """Number of boxes by split and label, in the label map's order."""
        ids = self.label_map.ids()
        counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for shard in self.shards:
            for sample in shard.samples:
                counts[shard.split].update(sample.boxes.labels)
        labels = sorted(set().union(*counts.values()), key=lambda label: (ids[label], label))
        return {split: {label: counts[split][label] for label in labels} for split in SPLITS}


@dataclass(frozen=True)
class PlanOptions:
    """How the samples are dealt.

    Attributes:
        eval_fraction: share of the images that evaluates, between 0 and 1.
        shard_bytes: about how large a shard gets; a larger image makes a larger shard.
        shard_examples: the most images of a shard; None for no limit.
        compression: "gzip" or "none"; a shard's size is meant before compression.
        train_shards: the least shards of the training split, where it has so many images: machines that train together
            deal whole files among themselves (tf.data's auto-sharding, which object_detection/inputs.py leaves on).
    """

    eval_fraction: float = 0.1
    shard_bytes: int = SHARD_BYTES
    shard_examples: int | None = None
    compression: Compression = "none"
    train_shards: int = 1


def plan_dataset(
    samples: Sequence[CheckedSample], label_map: LabelMap | None = None, options: PlanOptions | None = None,
    findings: tuple[Finding, ...] = (),
) -> DatasetPlan:
    """Splits the samples, derives the label map where none is imposed, and deals the samples to shards.

    Within a split the order is that of the images' SHA-256: as good as shuffled for training, and the same whatever the
    files are called.

    Raises:
        DataError: no boxes at all, or fewer than two distinct pictures, of which one could evaluate.
        SpecError: the eval fraction is not between 0 and 1, or a shard could hold nothing.
    """
    options = options or PlanOptions()
    if options.shard_bytes < 1 or (options.shard_examples is not None and options.shard_examples < 1):
        size = f"{options.shard_bytes} bytes and {options.shard_examples} examples"
        raise SpecError("building shards of", size, "a shard would hold nothing", f"use {SHARD_BYTES} bytes")
    labels = {label for sample in samples for label in set(sample.boxes.labels)}
    if not labels:
        raise DataError(
            "planning the records of", f"{len(samples)} images", "there is not one usable box in their annotations",
            "draw boxes in a labelling tool, or see why they were left out",
        )
    if len({sample.group for sample in samples}) < 2:
        raise DataError(
            "splitting", f"{len(samples)} images", "there is only one distinct picture, so none could evaluate",
            "label at least two, or set data.near_duplicates: false if they do differ", code="D107",
        )
    shared: dict[frozenset[str], frozenset[str]] = {}
    sets = (frozenset(sample.boxes.labels) for sample in samples)
    pictures = [
        Picture(sample.group, sample.given, shared.setdefault(labels, labels))
        for sample, labels in zip(samples, sets, strict=True)
    ]
    sides = plan_split(pictures, options.eval_fraction)
    by_side = {split: [one for one, side in zip(samples, sides, strict=True) if side == split] for split in SPLITS}
    if not by_side["train"]:
        raise DataError(
            "splitting", f"{len(samples)} images", "each picture that would train is a copy of one that evaluates",
            "delete the copies, or set data.policies.straddling: warn", code="D107",
        )
    shards = tuple(shard for split in SPLITS for shard in _deal(split, by_side[split], options))
    chosen = label_map or LabelMap.derive(labels)
    example = ExampleOptions(
        chosen.ids(), any(sample.boxes.crowded for sample in samples), any(sample.boxes.masked for sample in samples),
    )
    digest = _digest(chosen, shards, findings, options.compression)
    return DatasetPlan(chosen, shards, findings, digest, example, options.compression)


def _deal(split: Split, samples: Sequence[CheckedSample], options: PlanOptions) -> Iterator[ShardPlan]:
    groups: list[list[CheckedSample]] = []
    room, most = 0, options.shard_examples
    if split == "train" and options.train_shards > 1:
        most = min(most or len(samples), max(1, len(samples) // options.train_shards))
    for sample in sorted(samples, key=lambda sample: (sample.probe.sha256, sample.name)):
        size = sample.probe.size_bytes + _EXAMPLE_OVERHEAD_BYTES
        if not groups or size > room or len(groups[-1]) == most:
            groups.append([])
            room = options.shard_bytes
        groups[-1].append(sample)
        room -= size
    suffix = SUFFIXES[options.compression]
    for index, group in enumerate(groups):
        yield ShardPlan(f"{split}-{index:05d}-of-{len(groups):05d}{suffix}", split, tuple(group))


def _digest(
    label_map: LabelMap, shards: Sequence[ShardPlan], findings: Sequence[Finding], compression: Compression,
) -> str:
    total = hashlib.sha256(f"{FORMAT_VERSION}\n{compression}\n{render_pbtxt(label_map)}".encode())
    converted = False
    for shard in shards:
        total.update(f"{shard.name}\n".encode())
        for sample in shard.samples:
            probe = sample.probe
            known = [sample.name, probe.sha256, probe.format, sample.width, sample.height]
            total.update(json.dumps(known).encode())
            for box in sample.boxes:
                total.update(json.dumps(_told(box)).encode())
            for key, feature in sorted(sample.image.extras().items()):
                total.update(json.dumps([key, len(feature)]).encode() + feature)
            if sample.conversion:
                converted = True
                total.update(json.dumps(astuple(sample.conversion)).encode())
    if converted:
        total.update(library_version().encode())
    total.update(json.dumps([astuple(finding) for finding in findings]).encode())
    return total.hexdigest()


def _told(box: Box) -> list[object]:
    mask = hashlib.sha256(repr(box.mask).encode()).hexdigest() if box.mask else None
    edges = [box.xmin, box.ymin, box.xmax, box.ymax]
    return [box.label, *edges, box.difficult, box.truncated, box.crowd, box.pose, mask]
