"""A dataset built straight into a bucket, or uploaded while it is built."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.data.check import Progress
from gcpod.data.labelmap import parse_pbtxt, render_pbtxt
from gcpod.data.manifest import LABEL_MAP_NAME, MANIFEST_NAME, DatasetManifest, ShardInfo, parse_manifest
from gcpod.data.plan import DatasetPlan
from gcpod.data.store import FolderStore
from gcpod.errors import DataError, StorageError
from gcpod.records import Writable
from gcpod.storage.known import local_files
from gcpod.storage.objects import Objects
from gcpod.storage.plan import ObjectInfo, Upload
from gcpod.storage.transfer import send_all, upload_files
from gcpod.uris import GcsUri

_DIGEST: Final = "gcpod-digest"
_AT_ONCE: Final = 4


def build_to_bucket(
    request: DatasetRequest, objects: Objects, to: GcsUri, progress: Progress | None = None,
) -> DatasetManifest:
    """Builds a dataset into a bucket; nothing of it is written to this machine's disk.

    An interrupted build goes on where it stopped: shards carry the digest of their plan as metadata.

    Returns:
        the manifest, its ``folder`` meaningless.

    Raises:
        DataError, SpecError: see `gcpod.data.build.build_dataset`.
        StorageError, AuthError: the bucket cannot be written.
    """
    return replace(build_dataset(request, progress, BucketStore(objects, to)), folder=Path())


def build_and_upload(
    request: DatasetRequest, objects: Objects, to: GcsUri, progress: Progress | None = None,
) -> DatasetManifest:
    """Builds a dataset into ``request.out`` and uploads each shard while the next one is written.

    Raises:
        DataError, SpecError: see `gcpod.data.build.build_dataset`.
        StorageError, AuthError: the bucket cannot be written.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            manifest = build_dataset(request, progress, _Mirrored(request.out, objects, to, pool))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    names = [*(shard.name for shard in manifest.shards), manifest.label_map]
    upload_files(objects, local_files([(manifest.folder / name, to / name) for name in names]), to)
    before = _manifest_in(objects, to)
    # Last, as in the folder: while it is there, all it names is there.
    upload_files(objects, local_files([(manifest.folder / MANIFEST_NAME, to / MANIFEST_NAME)]), to)
    _remove_stale(objects, to, before, manifest)
    return manifest


def _directly_in(objects: Objects, to: GcsUri) -> dict[str, ObjectInfo]:
    """What lies in a folder of the bucket, not in folders below it, by name there."""
    names = ((info.uri.name.removeprefix(to.prefix), info) for info in objects.list(to))
    return {name: info for name, info in names if "/" not in name}


def _manifest_in(objects: Objects, to: GcsUri) -> DatasetManifest | None:
    content = objects.read(to / MANIFEST_NAME)
    with suppress(DataError, UnicodeDecodeError):
        return parse_manifest(content.content.decode(), Path()) if content else None
    return None


def _remove_stale(objects: Objects, to: GcsUri, before: DatasetManifest | None, manifest: DatasetManifest) -> None:
    """Deletes shards of the dataset that lay there before, and of builds that never came to their end."""
    old = {shard.name for shard in before.shards} if before else set()
    new = {shard.name for shard in manifest.shards}
    for name, info in _directly_in(objects, to).items():
        if name not in new and (name in old or _DIGEST in info.metadata):
            objects.delete_if(info.uri, info.generation)


class _Mirrored(FolderStore):
    """A folder whose shards go to the bucket as soon as they are finished."""

    def __init__(self, out: Path, objects: Objects, to: GcsUri, pool: ThreadPoolExecutor) -> None:
        super().__init__(out)
        self._objects, self._to, self._pool = objects, to, pool
        self._moving: list[Future[None]] = []
        self._there: dict[GcsUri, ObjectInfo] | None = None

    def keep(self, plan: DatasetPlan, info: ShardInfo) -> None:
        super().keep(plan, info)
        for moved in self._moving:
            if moved.done():
                moved.result()
        if self._there is None:
            self._there = {one.uri: one for one in self._objects.list(self._to)}
        there = self._there.get(self._to / info.name)
        if there is None or there.crc32c != info.crc32c:
            (file,) = local_files([(self.aside(plan) / info.name, self._to / info.name)])
            upload = Upload(file, there.generation if there else 0)
            self._moving.append(self._pool.submit(send_all, self._objects, [upload]))

    def publish(self, plan: DatasetPlan, manifest: DatasetManifest) -> DatasetManifest:
        for moved in self._moving:
            moved.result()
        return super().publish(plan, manifest)


class BucketStore:
    """A prefix of a bucket as the place of a dataset (`gcpod.data.store.ShardStore`)."""

    def __init__(self, objects: Objects, to: GcsUri) -> None:
        self._objects, self._to = objects, to
        self._generations: dict[str, int] = {}

    def present(self, plan: DatasetPlan) -> DatasetManifest | None:
        there = _directly_in(self._objects, self._to)
        manifest = _manifest_in(self._objects, self._to)
        label_map = self._objects.read(self._to / LABEL_MAP_NAME)
        if manifest is None or manifest.digest != plan.digest or label_map is None:
            return None
        with suppress(DataError, UnicodeDecodeError):
            if parse_pbtxt(label_map.content.decode(), Path(LABEL_MAP_NAME)) != plan.label_map:
                return None
            whole = all(self._is(there.get(shard.name), shard) for shard in manifest.shards)
            return manifest if whole else None
        return None

    def part(self, _plan: DatasetPlan, _name: str) -> None:
        """There are no files."""

    def building(self, _plan: DatasetPlan) -> Any:
        return nullcontext()

    def finished(self, plan: DatasetPlan) -> dict[str, ShardInfo]:
        found = {}
        there = _directly_in(self._objects, self._to)
        self._generations = {name: info.generation for name, info in there.items()}
        for shard in plan.shards:
            info = there.get(shard.name)
            if info and info.metadata.get(_DIGEST) == plan.digest:
                found[shard.name] = ShardInfo(shard.name, shard.split, len(shard.samples), info.size, info.crc32c)
        return found

    @contextmanager
    def shard(self, plan: DatasetPlan, name: str) -> Iterator[Writable]:
        generation = self._generations.get(name, 0)
        with self._objects.writer(self._to / name, generation, {_DIGEST: plan.digest}) as writer:
            yield writer

    def keep(self, _plan: DatasetPlan, _info: ShardInfo) -> None:
        """Nothing: the digest among its metadata makes an object count, and it came into being whole."""

    def publish(self, plan: DatasetPlan, manifest: DatasetManifest) -> DatasetManifest:
        there = _directly_in(self._objects, self._to)
        for shard in manifest.shards:
            info = there.get(shard.name)
            if not self._is(info, shard):
                raise self._changed(plan, shard, info)
        before = _manifest_in(self._objects, self._to)
        self._objects.write(self._to / LABEL_MAP_NAME, render_pbtxt(plan.label_map).encode())
        self._objects.write(self._to / MANIFEST_NAME, manifest.to_json().encode())
        _remove_stale(self._objects, self._to, before, manifest)
        return manifest

    def _changed(self, plan: DatasetPlan, shard: ShardInfo, info: ObjectInfo | None) -> StorageError:
        if info and info.metadata.get(_DIGEST) == plan.digest:
            # It would count as finished the next time.
            self._objects.delete_if(info.uri, info.generation)
        found = "it is gone, or no longer what was written there"
        return StorageError("writing", self._to / shard.name, found, "make sure that nobody else writes there and run "
                            "the command again, it writes only what is missing")

    def _is(self, info: ObjectInfo | None, shard: ShardInfo) -> bool:
        return info is not None and (info.size, info.crc32c) == (shard.size_bytes, shard.crc32c)
