"""Where shards go while a dataset is built: whole or not at all, and kept when a build is cut short."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from gcpod.checksums import file_crc32c
from gcpod.data.labelmap import render_pbtxt
from gcpod.data.manifest import LABEL_MAP_NAME, MANIFEST_NAME, DatasetManifest, ShardInfo, intact, read_manifest
from gcpod.data.plan import DatasetPlan
from gcpod.errors import DataError
from gcpod.records import Writable

_ASIDE: Final = ".building"
_PART: Final = ".part"
_SHARD: Final = re.compile(r"(train|eval)-\d{5}-of-\d{5}\.tfrecord(\.gz)?", re.ASCII)


class ShardStore(Protocol):
    """A place for one dataset."""

    def present(self, plan: DatasetPlan) -> DatasetManifest | None:
        """The manifest, when exactly what is planned lies there already."""
        ...

    def building(self, plan: DatasetPlan) -> AbstractContextManager[None]:
        """Holds the place while the plan is written to it."""
        ...

    def finished(self, plan: DatasetPlan) -> dict[str, ShardInfo]:
        """Shards, by name, that an earlier build of the same plan left."""
        ...

    def part(self, plan: DatasetPlan, name: str) -> Path | None:
        """The file that any process may write a shard to until it is kept; None where there are no files."""
        ...

    def shard(self, plan: DatasetPlan, name: str) -> AbstractContextManager[Writable]:
        """Takes the bytes of a shard; nothing of it stays when the building ends without keeping it."""
        ...

    def keep(self, plan: DatasetPlan, info: ShardInfo) -> None:
        """Makes a shard whose bytes are there count as finished."""
        ...

    def publish(self, plan: DatasetPlan, manifest: DatasetManifest) -> DatasetManifest:
        """Puts shards and label map into place, the manifest last."""
        ...


class FolderStore:
    """A folder on this machine.

    Shards are written into ``.building/DIGEST`` within it and renamed into place at the end, the manifest last: while
    a manifest's checksums fit its shards, the dataset is whole. One build at a time holds the folder's lock.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def aside(self, plan: DatasetPlan) -> Path:
        return self.out / _ASIDE / plan.digest

    def part(self, plan: DatasetPlan, name: str) -> Path:
        return self.aside(plan) / f"{name}{_PART}"

    def present(self, plan: DatasetPlan) -> DatasetManifest | None:
        with suppress(DataError):
            manifest = read_manifest(self.out)
            same = manifest.digest == plan.digest and manifest.read_label_map() == plan.label_map
            return manifest if same and intact(manifest) else None
        return None

    @contextmanager
    def building(self, plan: DatasetPlan) -> Iterator[None]:
        self.out.mkdir(parents=True, exist_ok=True)
        held = os.open(self.out, os.O_RDONLY)
        try:
            self._lock(held)
            for left in (self.out / _ASIDE).glob("*"):
                if left.name != plan.digest:
                    _remove(left)
            self.aside(plan).mkdir(parents=True, exist_ok=True)
            try:
                yield
            finally:
                for part in self.aside(plan).glob(f"*{_PART}"):
                    _remove(part)
                for empty in (self.aside(plan), self.out / _ASIDE):
                    with suppress(OSError):
                        empty.rmdir()
        finally:
            os.close(held)

    def _lock(self, folder: int) -> None:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            found = "another build is writing there"
            raise DataError("writing the dataset to", self.out, found, "wait for it, or choose another folder") from err

    def finished(self, plan: DatasetPlan) -> dict[str, ShardInfo]:
        found: dict[str, ShardInfo] = {}
        names = {shard.name for shard in plan.shards}
        for path in self.aside(plan).glob("*"):
            info = _told(path)
            if info and info.name in names and _whole(path.with_name(info.name), info):
                found[info.name] = info
        for path in self.aside(plan).glob("*"):
            if path.name.removesuffix(".json") not in found:
                _remove(path)
        return found

    @contextmanager
    def shard(self, plan: DatasetPlan, name: str) -> Iterator[BinaryIO]:
        # Buffered: a raw file may write less than it was given, and only says so.
        with self.part(plan, name).open("wb") as file:
            yield file

    def keep(self, plan: DatasetPlan, info: ShardInfo) -> None:
        self.part(plan, info.name).replace(self.aside(plan) / info.name)
        told = f"{info.name}.json"
        part = self.part(plan, told)
        part.write_text(json.dumps(asdict(info)), encoding="utf-8")
        part.replace(self.aside(plan) / told)

    def publish(self, plan: DatasetPlan, manifest: DatasetManifest) -> DatasetManifest:
        aside, out = self.aside(plan), self.out
        (aside / LABEL_MAP_NAME).write_bytes(render_pbtxt(plan.label_map).encode())
        (aside / MANIFEST_NAME).write_bytes(manifest.to_json().encode())
        for name in (*(shard.name for shard in manifest.shards), LABEL_MAP_NAME, MANIFEST_NAME):
            (aside / name).replace(out / name)
        named = {shard.name for shard in manifest.shards}
        for path in out.iterdir():
            # Of an earlier dataset here, or of a build that was killed while it moved its shards.
            if _SHARD.fullmatch(path.name) and path.name not in named:
                path.unlink(missing_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        return manifest


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _told(path: Path) -> ShardInfo | None:
    if path.suffix != ".json":
        return None
    try:
        return ShardInfo(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _whole(path: Path, info: ShardInfo) -> bool:
    return path.is_file() and path.stat().st_size == info.size_bytes and file_crc32c(path) == info.crc32c
