"""Files moved between this machine and the bucket: what is there already is not moved, what is moved is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gcpod.cache import cache_dir
from gcpod.storage.calls import Piece
from gcpod.storage.channel import Channel, Line
from gcpod.storage.journal import Journal
from gcpod.storage.names import TRANSFER_FOLDER
from gcpod.storage.objects import Objects
from gcpod.storage.parts import PARTS_FROM_BYTES, Parts
from gcpod.storage.plan import LocalFile, Upload, UploadPlan, plan_upload
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
    plan = plan_upload(files, objects.list(prefix))
    send_all(objects, plan.uploads, tell, options)
    return plan


def send_all(
    objects: Objects, uploads: Sequence[Upload], tell: Tell = lambda _: None, options: TransferOptions | None = None,
) -> None:
    """Moves files, each to replace the generation that was planned for; the largest ones begin."""
    traffic = Traffic(options or TransferOptions(patience_s=objects.patience_s))
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
    traffic = Traffic(options or TransferOptions(patience_s=objects.patience_s))
    works: list[Work] = []
    with transfer_folder(folder) as aside:
        for download in sorted(downloads, key=lambda one: -one.info.size):
            receiver = Receiver(download, aside, traffic.options.chunk_bytes, lambda: traffic.count(files=1))
            works += receiver.works()
            traffic.count(moved=receiver.earlier_bytes)
        run_all(objects, traffic, works, tell, len(downloads), sum(download.info.size for download in downloads))


@contextmanager
def transfer_folder(folder: Path) -> Iterator[Path]:
    """Where a download keeps what is not whole yet; it goes when nothing is left in it."""
    aside = folder / TRANSFER_FOLDER
    aside.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
    finally:
        with suppress(OSError):
            aside.rmdir()


def run_all(
    objects: Objects, traffic: Traffic, works: Sequence[Work], tell: Tell, all_files: int, all_bytes: int,
) -> None:
    """Does the works of so many files and bytes, and tells how far it is."""
    def tick() -> None:
        counts = traffic.counts
        tell(Progress(counts.files, all_files, counts.bytes, all_bytes))

    if works:
        Workers(Line(objects.session, traffic), works, tick).run()
