"""Writes what a plan says: each shard's records, then the manifest. Memory holds a few images at a time."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar, cast

import google_crc32c

from gcpod.checksums import crc32c_text
from gcpod.data.check import Progress
from gcpod.data.checked import CheckedSample
from gcpod.data.crew import Crew, batches
from gcpod.data.examples import ExampleOptions, encode_example
from gcpod.data.manifest import LABEL_MAP_NAME, DatasetManifest, ShardInfo
from gcpod.data.parallel import ordered
from gcpod.data.plan import Compression, DatasetPlan, ShardPlan
from gcpod.data.store import ShardStore
from gcpod.errors import DataError
from gcpod.records import Writable, framed

T = TypeVar("T")

_BATCH_BYTES: Final = 1 << 18
_MAX_BATCH: Final = 16
_APART_BYTES: Final = 1 << 26
_WAITING: Final = 2


def write_dataset(
    plan: DatasetPlan, store: ShardStore, out: Path, progress: Progress | None = None, crew: Crew | None = None,
) -> DatasetManifest:
    """Writes what a plan says, as far as it is not there.

    Args:
        crew: who writes, where each shard is a file of its own; None is this process alone.

    Raises:
        DataError: see `build_dataset`.
    """
    try:
        there = store.present(plan)
        if there:
            return there
        with store.building(plan):
            return _write(plan, store, out, progress, crew or Crew(0))
    except OSError as err:
        found = err.strerror or str(err)
        raise DataError("writing the dataset to", out, found, "make room, or choose another folder") from err


def _write(
    plan: DatasetPlan, store: ShardStore, out: Path, progress: Progress | None, crew: Crew,
) -> DatasetManifest:
    ticks = _Ticks(sum(plan.images_by_split().values()), progress)
    done = store.finished(plan)
    for shard in plan.shards:
        if shard.name in done:
            ticks.tick(len(shard.samples))
    for info in _apart(plan, done.keys(), store, crew):
        store.keep(plan, info)
        done[info.name] = info
        ticks.tick(info.examples)
    for shard in plan.shards:
        if shard.name not in done:
            with store.shard(plan, shard.name) as file:
                done[shard.name] = write_shard(shard, plan, file, ticks.tick)
            store.keep(plan, done[shard.name])
    return store.publish(plan, manifest_of(plan, done, out))


def _apart(plan: DatasetPlan, done: Container[str], store: ShardStore, crew: Crew) -> Iterator[ShardInfo]:
    """Writes the shards of a large dataset that a process each can write; where pixels are encoded, a single one keeps
    every core busy."""
    files = ((shard, store.part(plan, shard.name)) for shard in plan.shards)
    shards = [(shard, path) for shard, path in files if path and not (shard.name in done or _encodes(shard))]
    if sum(sample.probe.size_bytes for shard, _ in shards for sample in shard.samples) < _APART_BYTES:
        return
    common = replace(plan, shards=(), findings=())
    with closing(crew.ordered(partial(_write_part, common), shards, ahead=1)) as infos:
        yield from infos


def _write_part(plan: DatasetPlan, shard_and_path: tuple[ShardPlan, Path]) -> ShardInfo:
    shard, path = shard_and_path
    with path.open("wb") as file:
        return write_shard(shard, plan, file, lambda: None)


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
    return ordered(records, parts, waiting=_WAITING) if _encodes(shard) else map(records, parts)


def _encodes(shard: ShardPlan) -> bool:
    return any(sample.conversion or sample.boxes.masked for sample in shard.samples)


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
