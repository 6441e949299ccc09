"""Resumable upload sessions (https://cloud.google.com/storage/docs/performing-resumable-uploads), apart from HTTP.

What arrived so far is the length of the session's file, so a session survives a restart of the server without a record
per chunk. Checksums run along in memory and are taken anew from the file after a restart.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gcpod.localcloud.blobs import Blob, Hasher, read_range, write_all
from gcpod.localcloud.bodies import RawBody
from gcpod.localcloud.records import (
    InvalidRequestError,
    NoSuchUploadError,
    ObjectMeta,
    Preconditions,
    StoreError,
    Upload,
    UploadCancelledError,
    UploadGoneError,
)
from gcpod.localcloud.store import Store, check_object_name

QUANTUM_BYTES = 256 * 1024
_LIFETIME_US = 7 * 24 * 3600 * 1_000_000


@dataclass(frozen=True)
class Checksums:
    """What the client says the bytes come to, in base64."""

    crc32c: str | None = None
    md5: str | None = None

    def check(self, blob: Blob) -> None:
        """Compares with what arrived.

        Raises:
            InvalidRequestError: another value.
        """
        if self.crc32c is not None and self.crc32c != blob.crc32c:
            raise InvalidRequestError(
                f'Provided CRC32C "{self.crc32c}" doesn\'t match calculated CRC32C "{blob.crc32c}".'
            )
        if self.md5 is not None and blob.md5 is not None and self.md5 != blob.md5:
            raise InvalidRequestError(
                f'Provided MD5 hash "{self.md5}" doesn\'t match calculated MD5 hash "{blob.md5}".'
            )

    def merged(self, later: Checksums) -> Checksums:
        """These, with what a later request adds.

        Raises:
            InvalidRequestError: it says another value, so that one of the two is wrong whatever the bytes are.
        """
        for kind, one, other in (("CRC32C", self.crc32c, later.crc32c), ("MD5 hash", self.md5, later.md5)):
            if one is not None and other is not None and one != other:
                raise InvalidRequestError(f'Provided {kind} "{other}" doesn\'t match {kind} "{one}" provided before.')
        return Checksums(later.crc32c or self.crc32c, later.md5 or self.md5)


@dataclass(frozen=True)
class Intent:
    """What the first request of a session asked for; ``size`` in bytes, when it said so."""

    bucket: str
    name: str
    settings: Mapping[str, Any]
    conditions: Preconditions
    checksums: Checksums
    size: int | None


@dataclass(frozen=True)
class ContentRange:
    """``bytes START-END/TOTAL``, the end exclusive; ``start`` is None in a status query, ``total`` when unknown."""

    start: int | None
    end: int
    total: int | None


class Sessions:
    """The resumable uploads of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._hashers: dict[str, tuple[Hasher, int]] = {}

    def start(self, intent: Intent) -> str:
        """Opens a session and gives its id. Conditions that fail already are refused now, as the service does.

        Raises:
            NoSuchBucketError, PreconditionError, InvalidRequestError: as they say.
        """
        check_object_name(intent.name)
        store, upload = self._store, uuid.uuid4().hex
        blob = store.blobs.new_name()
        with store.database.change() as change:
            store.bucket(intent.bucket)
            old = change.object(intent.bucket, intent.name)
            intent.conditions.check(old.generation if old else 0, old.metageneration if old else 0)
            store.blobs.path(blob).touch()
            change.put_upload(
                Upload(
                    upload, "resumable", intent.bucket, intent.name, blob, store.clock(), "open", None, asdict(intent)
                )
            )
        return upload

    def append(
        self,
        upload: str,
        place: ContentRange | None,
        body: RawBody,
        checksums: Checksums,
    ) -> ObjectMeta | int:
        """Takes the next bytes, or answers a status query: the finished object, or how many bytes are there.

        Bytes that are there already are skipped. When the client went away in the middle, whole quanta of 256 KiB stay.

        Raises:
            InvalidRequestError: a gap, a size that contradicts an earlier one, an odd chunk before the end, a checksum.
            NoSuchUploadError, UploadGoneError, UploadCancelledError, PreconditionError, NoSuchBucketError: as they say.
        """
        with self._locked(upload):
            found = self._open(upload)
            if isinstance(found, ObjectMeta):
                return found
            intent = _intent(found)
            received = self._store.blobs.path(found.blob).stat().st_size
            if place is None:
                place = ContentRange(0, body.size, body.size if body.complete else None)
            total = _agreed_total(place, intent)
            if place.start is not None:
                received = self._take(found, place, body, received, total)
            if total is None or received != total or not body.complete:
                return received
            return self._finish(found, intent, checksums)

    def cancel(self, upload: str) -> None:
        """Drops a session and its bytes.

        Raises:
            NoSuchUploadError, UploadGoneError, UploadCancelledError: as they say.
        """
        with self._locked(upload):
            found = self._open(upload)
            if isinstance(found, Upload):
                self._end(found, "cancelled")

    @contextlib.contextmanager
    def _locked(self, upload: str) -> Iterator[None]:
        with self._locks[upload]:
            yield
        if upload not in self._hashers:
            self._locks.pop(upload, None)

    def _open(self, upload: str) -> Upload | ObjectMeta:
        with self._store.database.view() as view:
            found = view.upload(upload)
        if found is None or found.kind != "resumable":
            raise NoSuchUploadError
        if found.state == "cancelled":
            raise UploadCancelledError
        if found.state == "done":
            try:
                return self._store.get(found.bucket, found.name, found.generation)
            except StoreError:
                raise UploadGoneError from None
        if found.state == "open" and self._store.clock() - found.created_us > _LIFETIME_US:
            self._end(found, "gone")
        elif found.state == "open":
            return found
        raise UploadGoneError

    def _take(self, found: Upload, place: ContentRange, body: RawBody, received: int, total: int | None) -> int:
        start = place.start or 0
        if body.complete and body.size != place.end - start:
            raise InvalidRequestError(f"Content-Range announces {place.end - start} bytes, the body has {body.size}.")
        if start > received:
            raise InvalidRequestError(
                f"Invalid request. According to the Content-Range header, the upload offset is {start} byte(s), "
                f"which exceeds already uploaded size of {received} byte(s)."
            )
        if body.complete and place.end != total and place.end % QUANTUM_BYTES:
            raise InvalidRequestError("Chunks other than the last must be multiples of 256 KiB.")
        end = start + body.size
        if not body.complete:
            end = end // QUANTUM_BYTES * QUANTUM_BYTES
        if end <= received:
            return received
        self._write(found, body, received - start, end - start)
        return end

    def _write(self, found: Upload, body: RawBody, begin: int, stop: int) -> None:
        path = self._store.blobs.path(found.blob)
        size = path.stat().st_size
        hasher, hashed = self._hashers.pop(found.id, (Hasher(), 0))
        if hashed != size:
            hasher = self._store.blobs.hash(found.blob)
        with body.open() as source:
            if size == begin == 0 and body.path is not None and stop == body.size:
                body.path.replace(path)
                for chunk in read_range(source, 0, stop):
                    hasher.update(chunk)
            else:
                with path.open("ab", buffering=0) as file:
                    for chunk in read_range(source, begin, stop):
                        write_all(file, chunk)
                        hasher.update(chunk)
        self._hashers[found.id] = hasher, size + stop - begin

    def _finish(self, found: Upload, intent: Intent, checksums: Checksums) -> ObjectMeta:
        store = self._store
        size = store.blobs.path(found.blob).stat().st_size
        hasher, hashed = self._hashers.pop(found.id, (Hasher(), 0))
        if hashed != size:
            hasher = store.blobs.hash(found.blob)
        blob = Blob(found.blob, size, hasher.crc32c, hasher.md5)
        try:
            intent.checksums.merged(checksums).check(blob)
            return store.insert(intent.bucket, intent.name, blob, intent.settings, intent.conditions, upload=found.id)
        except StoreError:
            self._end(found, "gone")
            raise

    def _end(self, found: Upload, state: str) -> None:
        with self._store.database.change() as change:
            change.end_upload(found.id, state)
        self._store.blobs.remove(found.blob)
        self._hashers.pop(found.id, None)


def _intent(found: Upload) -> Intent:
    told = dict(found.request)
    return Intent(
        **{**told, "conditions": Preconditions(**told["conditions"]), "checksums": Checksums(**told["checksums"])}
    )


def _agreed_total(place: ContentRange, intent: Intent) -> int | None:
    if place.total is not None and intent.size is not None and place.total != intent.size:
        raise InvalidRequestError(f"The upload was announced with {intent.size} bytes, not {place.total}.")
    total = place.total if place.total is not None else intent.size
    if total is not None and place.start is not None and place.end > total:
        raise InvalidRequestError(f"The chunk ends at byte {place.end}, beyond the {total} announced.")
    return total
