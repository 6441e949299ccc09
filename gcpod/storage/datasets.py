"""A dataset built straight into a bucket, or uploaded while it is built."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
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
from gcpod.storage.objects import ObjectInfo, Objects
from gcpod.storage.plan import Upload, local_file
from gcpod.storage.transfer import upload_files, upload_one
from gcpod.uris import GcsUri

_DIGEST: Final = "gcpod-digest"
_AT_ONCE: Final = 4


def build_to_bucket(
    request: DatasetRequest, objects: Objects, to: GcsUri, progress: Progress | None = None,
) -> DatasetManifest:
    """Builds a dataset into a bucket; nothing of it is written to this machine's disk.

    An interrupted build goes on where it stopped: shards carry the digest of their plan as metadata.

    Raises:
        DataError, SpecError: see `gcpod.data.build.build_dataset`.
        StorageError, AuthError: the bucket cannot be written.
    """
    return build_dataset(request, progress, BucketStore(objects, to))


def build_and_upload(
    request: DatasetRequest, objects: Objects, to: GcsUri, progress: Progress | None = None,
) -> DatasetManifest:
    """Builds a dataset into ``request.out`` and uploads each shard while the next one is written.

    Raises:
        DataError, SpecError: see `gcpod.data.build.build_dataset`.
        StorageError, AuthError: the bucket cannot be written.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        manifest = build_dataset(request, progress, _Mirrored(request.out, objects, to, pool))
    names = [*(shard.name for shard in manifest.shards), manifest.label_map]
    upload_files(objects, [local_file(manifest.folder / name, to / name) for name in names], to)
    # Last, as in the folder: while it is there, all it names is there.
    upload_files(objects, [local_file(manifest.folder / MANIFEST_NAME, to / MANIFEST_NAME)], to)
    return manifest


class _Mirrored(FolderStore):
    """A folder whose shards go to the bucket as soon as they are finished."""

    def __init__(self, out: Path, objects: Objects, to: GcsUri, pool: ThreadPoolExecutor) -> None:
        super().__init__(out)
        self._objects, self._to, self._pool = objects, to, pool
        self._moving: list[Future[None]] = []
        self._there: dict[GcsUri, ObjectInfo] | None = None

    def keep(self, plan: DatasetPlan, info: ShardInfo) -> None:
        super().keep(plan, info)
        if self._there is None:
            self._there = {one.uri: one for one in self._objects.list(self._to)}
        there = self._there.get(self._to / info.name)
        if there is None or there.crc32c != info.crc32c:
            file = local_file(self.aside(plan) / info.name, self._to / info.name)
            upload = Upload(file, there.generation if there else 0)
            client, retry = self._objects.session.storage, self._objects.retry
            self._moving.append(self._pool.submit(upload_one, client, upload, retry))

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
        there = self._list()
        manifest = self._manifest()
        label_map = self._objects.read(self._to / LABEL_MAP_NAME)
        if manifest is None or manifest.digest != plan.digest or label_map is None:
            return None
        with suppress(DataError, UnicodeDecodeError):
            if parse_pbtxt(label_map.content.decode(), Path(LABEL_MAP_NAME)) != plan.label_map:
                return None
            whole = all(self._is(there.get(shard.name), shard) for shard in manifest.shards)
            return manifest if whole else None
        return None

    def building(self, _plan: DatasetPlan) -> Any:
        return nullcontext()

    def finished(self, plan: DatasetPlan) -> dict[str, ShardInfo]:
        found = {}
        there = self._list()
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

    def keep(self, _plan: DatasetPlan, info: ShardInfo) -> None:
        """Compares what the bucket says it has with what was sent."""
        uri = self._to / info.name
        there = next((one for one in self._objects.list(uri) if one.uri == uri), None)
        if not self._is(there, info):
            if there:
                self._objects.delete_if(uri, there.generation)
            found = "the bytes there are not those that were sent"
            raise StorageError("writing", uri, found, "run the command again, it writes only what is missing")

    def publish(self, plan: DatasetPlan, manifest: DatasetManifest) -> DatasetManifest:
        before = self._manifest()
        self._objects.write(self._to / LABEL_MAP_NAME, render_pbtxt(plan.label_map).encode())
        self._objects.write(self._to / MANIFEST_NAME, manifest.to_json().encode())
        stale = {shard.name for shard in before.shards} - {shard.name for shard in manifest.shards} if before else set()
        for name in stale & self._generations.keys():
            self._objects.delete_if(self._to / name, self._generations[name])
        return manifest

    def _list(self) -> dict[str, ObjectInfo]:
        below = {info.uri.name.rsplit("/", 1)[-1]: info for info in self._objects.list(self._to)}
        self._generations = {name: info.generation for name, info in below.items()}
        return below

    def _manifest(self) -> DatasetManifest | None:
        content = self._objects.read(self._to / MANIFEST_NAME)
        with suppress(DataError, UnicodeDecodeError):
            return parse_manifest(content.content.decode(), Path()) if content else None
        return None

    def _is(self, info: ObjectInfo | None, shard: ShardInfo) -> bool:
        return info is not None and (info.size, info.crc32c) == (shard.size_bytes, shard.crc32c)
