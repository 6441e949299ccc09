"""Files moved between this machine and the bucket: what is there already is not moved, what is moved is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gcpod.cache import cache_dir
from gcpod.storage.aside import transfer_folder
from gcpod.storage.calls import Piece, look
from gcpod.storage.channel import Channel, Line
from gcpod.storage.journal import Journal
from gcpod.storage.objects import Objects
from gcpod.storage.parts import PARTS_FROM_BYTES, Parts
from gcpod.storage.patience import Patience
from gcpod.storage.plan import LocalFile, ObjectInfo, Upload, UploadPlan, plan_upload
from gcpod.storage.receive import Download, Receiver
from gcpod.storage.send import send
from gcpod.storage.traffic import Traffic, TransferOptions
from gcpod.storage.workers import Work, Workers
from gcpod.uris import GcsUri


@dataclass(frozen=True)
class Progress:
    """How far a transfer is: files and bytes that moved for good, and all that have to."""

    files: int
    all_files: int
    bytes: int
    all_bytes: int


Tell = Callable[[Progress], None]


def upload_files(
    objects: Objects, files: Iterable[LocalFile], prefix: GcsUri, tell: Tell = lambda _: None,
    options: TransferOptions | None = None,
) -> UploadPlan:
    """Makes the bucket hold the files; what lies there unchanged is not sent again.

    Args:
        objects: the bucket's objects.
        files: what should be there, all below ``prefix``.
        prefix: listed once, to know what is there.
        tell: told how far it is, from this thread.
        options: how bytes move.

    Returns:
        what was done.

    Raises:
        StorageError, AuthError, OutageError: the first failure; files already moved stay and are not sent again.
    """
    plan = plan_changes(objects, list(files), objects.list(prefix))
    send_all(objects, plan.uploads, tell, options)
    return plan


def plan_changes(objects: Objects, files: Sequence[LocalFile], there: Sequence[ObjectInfo]) -> UploadPlan:
    """As `plan.plan_upload`, where a listing lacks checksums; those that decide are asked for.

    Raises:
        StorageError, AuthError, OutageError: the service refuses.
    """
    sizes = {(file.uri, file.size) for file in files}
    unknown = [info for info in there if not info.crc32c and (info.uri, info.size) in sizes]
    known = {info.uri: info for info in with_checksums(objects, unknown)}
    return plan_upload(files, [known.get(info.uri, info) for info in there])


def send_all(
    objects: Objects, uploads: Sequence[Upload], tell: Tell = lambda _: None, options: TransferOptions | None = None,
) -> None:
    """Moves files, each to replace the generation that was planned for; the largest ones begin."""
    traffic = Traffic(options or objects.transfer_options)
    journal = Journal(cache_dir() / "transfers")
    journal.prune()
    works: list[Work] = []
    for upload in sorted(uploads, key=lambda one: -one.file.size):
        works += _upload_works(upload, traffic, journal)
    run_all(objects, traffic, works, tell, len(uploads), sum(upload.file.size for upload in uploads))


def _upload_works(upload: Upload, traffic: Traffic, journal: Journal) -> list[Work]:
    file = upload.file
    piece = Piece(file.path, 0, file.size, file.crc32c, file.uri, upload.generation)
    if traffic.options.parts > 1 and file.size >= PARTS_FROM_BYTES:
        return Parts(piece, traffic.options.parts, journal, lambda _: traffic.count(files=1)).works
    return [partial(_send_one, piece, journal)]


def _send_one(piece: Piece, journal: Journal, channel: Channel) -> None:
    send(piece, channel, journal)
    channel.traffic.count(files=1)


def fetch_all(
    objects: Objects, downloads: Sequence[Download], folder: Path, tell: Tell = lambda _: None,
    options: TransferOptions | None = None,
) -> None:
    """Brings objects to their paths, all below ``folder``; the largest ones begin.

    Raises:
        StorageError, AuthError, OutageError: the first failure; files already there stay and are not fetched again.
    """
    traffic = Traffic(options or objects.transfer_options)
    works: list[Work] = []
    with transfer_folder(folder) as aside:
        for download in sorted(downloads, key=lambda one: -one.info.size):
            receiver = Receiver(download, aside, traffic.options.chunk_bytes, lambda: traffic.count(files=1))
            works += receiver.works()
            traffic.count(moved=receiver.earlier_bytes)
        run_all(objects, traffic, works, tell, len(downloads), sum(download.info.size for download in downloads))


def with_checksums(objects: Objects, infos: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """The same, with checksums that the listing does not tell, as of some encrypted objects: each is asked for.

    Raises:
        StorageError, AuthError, OutageError: the service refuses.
    """
    found: dict[GcsUri, str] = {}

    def ask(info: ObjectInfo, channel: Channel) -> None:
        there = Patience(channel.traffic, "looking at", info.uri).run(lambda: look(info.uri, channel))
        if there is not None and int(there["generation"]) == info.generation:
            found[info.uri] = str(there.get("crc32c", ""))

    works: list[Work] = [partial(ask, info) for info in infos if not info.crc32c]
    run_all(objects, Traffic(objects.transfer_options), works, lambda _: None, 0, 0)
    return [replace(info, crc32c=info.crc32c or found.get(info.uri, "")) for info in infos]


def run_all(
    objects: Objects, traffic: Traffic, works: Sequence[Work], tell: Tell, all_files: int, all_bytes: int,
) -> None:
    """Does the works of so many files and bytes, and tells how far it is."""
    def tick() -> None:
        counts = traffic.counts
        tell(Progress(counts.files, all_files, counts.bytes, all_bytes))

    if works:
        Workers(Line(objects.session, traffic), works, tick).run()
