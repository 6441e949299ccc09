"""Files that grow in the bucket, kept up to date on this machine: only the bytes that are new travel."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gcpod.checksums import file_crc32c
from gcpod.storage.aside import transfer_folder
from gcpod.storage.channel import Channel
from gcpod.storage.objects import Objects
from gcpod.storage.receive import Download, Receiver, ReplacedError
from gcpod.storage.traffic import Traffic, TransferOptions
from gcpod.storage.transfer import Tell, run_all, with_checksums
from gcpod.storage.workers import Work


@dataclass(frozen=True)
class Mirrored:
    """Files that changed, and bytes that came over the network."""

    files: int
    bytes: int


def mirror(
    objects: Objects, downloads: Sequence[Download], folder: Path, options: TransferOptions | None = None,
    tell: Tell = lambda _: None,
) -> Mirrored:
    """Makes each path hold its object's bytes.

    A file that is shorter than its object is taken for its beginning: the rest is asked for, of the very generation
    that was listed, and the whole is held against the service's checksum, so that a seam that does not fit shows. Then,
    as for every other file, all of it is fetched. A file that was replaced since it was listed waits for the next time.

    Raises:
        StorageError, AuthError, OutageError: a file or an object cannot be read or written.
    """
    traffic = Traffic(options or objects.transfer_options)
    complete = with_checksums(objects, [one.info for one in downloads])
    downloads = [replace(one, info=info) for one, info in zip(downloads, complete, strict=True)]
    changed = [one for one in downloads if not _same(one)]
    works: list[Work] = []
    with transfer_folder(folder) as aside:
        for one in changed:
            receiver = Receiver(one, aside, traffic.options.chunk_bytes, lambda: traffic.count(files=1))
            there = one.path.exists() and one.path.stat().st_size > 0
            works += [partial(_unless_replaced, work) for work in ([receiver.grow] if there else receiver.works())]
        run_all(objects, traffic, works, tell, len(changed), sum(one.info.size for one in changed))
    return Mirrored(traffic.counts.files, traffic.counts.sent_bytes)


def _unless_replaced(work: Work, channel: Channel) -> None:
    with suppress(ReplacedError):
        work(channel)


def _same(one: Download) -> bool:
    if not one.path.exists() or one.path.stat().st_size != one.info.size:
        return False
    return one.info.size == 0 or file_crc32c(one.path) == one.info.crc32c
