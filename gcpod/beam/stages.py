"""What a worker does at each stage of the pipeline; all that decides about the dataset is `gcpod.data`'s.

A stage hands on bytes and places in work files only. Faults of the data are results, not exceptions: an exception is
what a runner tries again, several times, and ends the pipeline with in words of its own.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from gcpod.beam import places
from gcpod.beam.places import Part
from gcpod.data.build import DatasetError, relative_to
from gcpod.data.check import CheckOptions, Seen, conclude, see, wanted
from gcpod.data.checked import Checked
from gcpod.data.labelmap import LabelMap, render_pbtxt
from gcpod.data.manifest import LABEL_MAP_NAME, MANIFEST_NAME, DatasetManifest, ShardInfo, parse_manifest
from gcpod.data.model import Sample
from gcpod.data.parallel import ordered
from gcpod.data.plan import DatasetPlan, PlanOptions, plan_dataset
from gcpod.data.write import manifest_of, write_shard
from gcpod.errors import DataError, GcpodError, SpecError
from gcpod.status import Finding

OUTCOME: Final = "outcome.json"
SAMPLES: Final = "samples"


@dataclass(frozen=True)
class Job:
    """What all workers know.

    Attributes:
        images: the image folder, for messages.
        out: folder of the dataset.
        work: folder of work files.
        aside: folder within ``out`` where shards lie until all of them are there.
        roots: folders, longest first, that findings are told relative to.
        check, plan: how to check and to plan.
    """

    images: str
    out: str
    work: str
    aside: str
    roots: tuple[str, ...]
    check: CheckOptions
    plan: PlanOptions


def look(part: Part, job: Job) -> tuple[int, bytes]:
    """Stage 1: reads the images of some samples.

    Returns:
        where the samples stand in their file, and what was seen of each.
    """
    samples: Sequence[Sample] = places.read_part(part)
    prints: dict[str, bytes] = {}

    def look_at(sample: Sample) -> Seen:
        known = sample.image if wanted(sample, job.check.policies) else None
        return see(known, prints, job.check) if known else Seen(None)

    seen = [(one.probe, _told(one.fault)) for one in ordered(look_at, samples)]
    return part[1], pickle.dumps((seen, prints))


def plan(looks: Iterable[tuple[int, bytes]], job: Job) -> Iterator[tuple[Part, Part]]:
    """Stage 2: decides about the whole dataset, on one worker.

    Returns:
        for each shard where its plan stands, and where the manifest's draft does; none when there were errors, which
        are the outcome then.
    """
    try:
        planned = _planned(looks, job)
    except GcpodError as err:
        _tell(job, err)
        return
    old = _manifest_at(job.out)
    known = {shard.name: shard for shard in old.shards} if old and old.digest == planned.digest else {}
    names = {shard.name for shard in planned.shards}
    stale = sorted({shard.name for shard in old.shards} - names) if old else []
    draft = manifest_of(planned, {
        shard.name: ShardInfo(shard.name, shard.split, len(shard.samples), 0, "") for shard in planned.shards
    }, Path(job.out))
    common = replace(planned, shards=(), findings=())
    first, *parts = places.write_parts(f"{job.work}/plan-{uuid4().hex}", (
        (draft, planned.label_map, stale), *((shard, common, known.get(shard.name)) for shard in planned.shards),
    ))
    yield from ((part, first) for part in parts)


def write(shard_and_draft: tuple[Part, Part], job: Job) -> tuple[Part, bytes]:
    """Stage 3: writes one shard, unless it is there already.

    Returns:
        where the manifest's draft stands, and what became of the shard: a `ShardInfo` or an error.
    """
    part, draft = shard_and_draft
    shard, common, known = places.read_part(part)
    if known and places.holds(f"{job.out}/{shard.name}", known):
        return draft, pickle.dumps((shard.name, known, None))
    try:
        with places.written(f"{job.aside}/{shard.name}") as file:
            info = write_shard(shard, common, file, lambda: None)
    except DataError as err:
        return draft, pickle.dumps((shard.name, None, _told(err)))
    return draft, pickle.dumps((shard.name, info, None))


def finish(shards: Iterable[tuple[Part, bytes]], job: Job) -> None:
    """Stage 4: puts all shards into place, then label map and manifest; or tells what went wrong with one."""
    done: dict[str, ShardInfo] = {}
    wrong: dict[str, tuple[str, ...]] = {}
    results = list(shards)
    for _, result in results:
        name, info, fault = pickle.loads(result)  # noqa: S301
        if fault:
            wrong[name] = fault
        else:
            done[name] = info
    if wrong:
        _tell(job, _error(wrong[min(wrong)]))
        return
    draft, label_map, stale = places.read_part(results[0][0])
    manifest = replace(draft, shards=tuple(done[shard.name] for shard in draft.shards))
    _publish(manifest, label_map, stale, job)
    places.write_bytes(f"{job.work}/{OUTCOME}", json.dumps({"manifest": manifest.to_json()}).encode())


def outcome(job: Job) -> DatasetManifest | None:
    """What the pipeline came to; None when it ended before it came to anything.

    Raises:
        DatasetError: the check found errors.
        DataError, SpecError: as `gcpod.data.build.build_dataset` raises them.
    """
    content = places.read_bytes(f"{job.work}/{OUTCOME}")
    if content is None:
        return None
    told: Mapping[str, Any] = json.loads(content)
    if "findings" in told:
        raise DatasetError(job.images, tuple(Finding(**finding) for finding in told["findings"]))
    if "error" in told:
        raise _error(told["error"])
    return parse_manifest(told["manifest"], Path(job.out))


def _planned(looks: Iterable[tuple[int, bytes]], job: Job) -> DatasetPlan:
    found = _concluded(looks, job)
    if found.errors:
        raise DatasetError(job.images, found.findings)
    return plan_dataset(found.samples, job.check.label_map, job.plan, relative_to(job.roots, found.findings))


def _concluded(looks: Iterable[tuple[int, bytes]], job: Job) -> Checked:
    prints: dict[str, bytes] = {}
    ordered_looks = [content for _, content in sorted(looks)]

    def seen() -> Iterator[Seen]:
        for content in ordered_looks:
            several, more = pickle.loads(content)  # noqa: S301
            prints.update(more)
            yield from (Seen(probe, _fault(fault)) for probe, fault in several)

    parts = places.read_parts(f"{job.work}/{SAMPLES}")
    faults: tuple[Finding, ...] = next(parts)
    return conclude((sample for part in parts for sample in part), seen(), prints, job.check, faults)


def _publish(manifest: DatasetManifest, label_map: LabelMap, stale: Iterable[str], job: Job) -> None:
    def place(name: str) -> None:
        aside = f"{job.aside}/{name}"
        # It is in place already when this stage is run once more.
        if places.exists(aside):
            places.move(aside, f"{job.out}/{name}")

    for _ in ordered(place, [shard.name for shard in manifest.shards]):
        pass
    places.write_bytes(f"{job.out}/{LABEL_MAP_NAME}", render_pbtxt(label_map).encode())
    places.write_bytes(f"{job.out}/{MANIFEST_NAME}", manifest.to_json().encode())
    for name in stale:
        places.remove_file(f"{job.out}/{name}")
    places.remove_folder(job.aside)


def _manifest_at(out: str) -> DatasetManifest | None:
    with suppress(DataError, UnicodeDecodeError):
        content = places.read_bytes(f"{out}/{MANIFEST_NAME}")
        return parse_manifest(content.decode(), Path(out)) if content else None
    return None


def _tell(job: Job, err: GcpodError) -> None:
    told: dict[str, Any] = {"error": _told(err)}
    if isinstance(err, DatasetError):
        told = {"findings": [asdict(finding) for finding in err.findings]}
    places.write_bytes(f"{job.work}/{OUTCOME}", json.dumps(told).encode())


def _told(err: GcpodError | None) -> tuple[str, ...] | None:
    """An error in words: exceptions with arguments of their own are not to be pickled."""
    if err is None:
        return None
    return type(err).__name__, err.tried, err.on, err.found, err.fix, err.code


def _error(told: Sequence[str]) -> GcpodError:
    kind, tried, on, found, fix, code = told
    return (SpecError if kind == SpecError.__name__ else DataError)(tried, on, found, fix, code=code)


def _fault(told: Sequence[str] | None) -> DataError | None:
    err = _error(told) if told else None
    return err if isinstance(err, DataError) else None
