"""A bucket behind the fault proxy, and folders on this side: what tests of transfers stand on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gcpod.checksums import file_crc32c
from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.known import local_files
from gcpod.storage.objects import Objects
from gcpod.storage.receive import Download
from gcpod.storage.traffic import TransferOptions
from gcpod.storage.transfer import fetch_all, upload_files
from gcpod.uris import GcsUri

from .faulty import Faulty
from .faulty_faults import (
    Action,
    ResetAfter,
    ResetBefore,
    StallBefore,
    StallReply,
    StallRequest,
    Status,
    StatusAfter,
)

CHUNK = 512 << 10
SMALL, LARGE = 100_000, 4 * CHUNK + 123_456
OPTIONS = TransferOptions(
    workers=2, chunk_bytes=CHUNK, single_bytes=CHUNK, stall_s=5.0, patience_s=20.0, pause_s=0.01,
)
IMPATIENT = replace(OPTIONS, patience_s=0.2)
PASSING: tuple[Action, ...] = (
    *(Status(code) for code in (408, 429, 500, 502, 503, 504)), StatusAfter(503), ResetBefore(), ResetAfter(),
    StallBefore(), StallReply(0), StallReply(1),
)


def options_for(action: Action) -> TransferOptions:
    """Short of patience with a connection that stands still only where one will."""
    return replace(OPTIONS, stall_s=0.2) if isinstance(action, (StallBefore, StallReply, StallRequest)) else OPTIONS


@dataclass
class Place:
    """A bucket behind a proxy, and folders on this side."""

    objects: Objects
    proxy: Faulty
    folder: Path
    root: GcsUri

    def source(self, size: int, name: str = "file.bin") -> Path:
        path = self.folder / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(size))
        return path

    def upload(self, *paths: Path, options: TransferOptions = OPTIONS) -> None:
        upload_files(self.objects, local_files([(p, self.root / p.name) for p in paths]), self.root, options=options)

    def download(self, options: TransferOptions = OPTIONS) -> Path:
        out = self.folder / "out"
        listed = self.objects.list(self.root)
        fetch_all(self.objects, [Download(one, out / one.uri.name.rsplit("/", 1)[-1]) for one in listed], out,
                  options=options)
        return out

    def check_bucket(self, *paths: Path) -> None:
        """Exactly these files lie in the whole bucket, and nothing is remembered as under way."""
        there = {one.uri: one.crc32c for one in self.objects.list(GcsUri(self.root.bucket))}
        assert there == {self.root / path.name: file_crc32c(path) for path in paths}
        assert list((self.folder / "cache" / "transfers").glob("*")) == []

    def check_folder(self, *paths: Path) -> None:
        """Exactly these files were downloaded."""
        out = self.folder / "out"
        assert {p.relative_to(out).as_posix(): file_crc32c(p) for p in out.rglob("*")} == \
            {path.name: file_crc32c(path) for path in paths}


@contextmanager
def placed(cloud: LocalCloud, folder: Path, spec: Spec | None = None) -> Iterator[Place]:
    """A place of a test's own; the cache is not its business."""
    with Faulty(cloud.url) as proxy:
        objects = Objects(Session(resolve(spec or Spec(), endpoint=proxy.url, environ={}, home=Path())))
        bucket = f"b-{folder.name.lower().replace('_', '-')[:40].strip('-')}-{os.urandom(4).hex()}"
        objects.ensure_bucket(bucket)
        proxy.clear()
        yield Place(objects, proxy, folder, GcsUri(bucket, "tree"))
        objects.session.storage.close()
