"""Requests about single objects on a channel: what is there, what a new one gets, small ones whole, and removal."""

from __future__ import annotations

import json
import mimetypes
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gcpod.errors import StorageError
from gcpod.storage.channel import MOST_BYTES, BrokenError, Channel
from gcpod.storage.patience import Patience, checked
from gcpod.uris import GcsUri

API, UPLOADS = "/storage/v1", "/upload/storage/v1"
FIELDS = "name,generation,size,crc32c"


class DamagedError(Exception):
    """Bytes that arrived, here or there, do not match their checksum; to move them again may help."""


@dataclass(frozen=True)
class Content:
    """An object's bytes and the generation they belong to."""

    content: bytes
    generation: int


class New(Protocol):
    """What is to be known of a new object; see `Piece`."""

    @property
    def uri(self) -> GcsUri: ...
    @property
    def crc32c(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def temporary(self) -> bool: ...


@dataclass(frozen=True)
class Small:
    """Bytes in memory on their way to an object; ``uri``, ``generation`` and ``temporary`` as for `Piece`."""

    content: bytes
    uri: GcsUri
    generation: int = 0
    temporary: bool = False

    @property
    def crc32c(self) -> str:
        return _crc32c(self.content)


@dataclass(frozen=True)
class Piece:
    """Bytes of a file on their way to an object.

    Attributes:
        path, start, size: bytes ``start`` to ``start + size`` of that file.
        crc32c: of these bytes, as Cloud Storage writes it.
        uri: the object.
        generation: what it replaces; 0: nothing.
        temporary: it is put together with others, and removed then.
    """

    path: Path
    start: int
    size: int
    crc32c: str
    uri: GcsUri
    generation: int = 0
    temporary: bool = False


def new_metadata(piece: New, channel: Channel) -> dict[str, str]:
    """The resource of the new object. What is temporary is no archive: other classes bill months for a minute
    (https://cloud.google.com/storage/docs/storage-classes)."""
    kind = mimetypes.guess_type(piece.uri.name)[0] or "application/octet-stream"
    told = {"name": piece.uri.name, "crc32c": piece.crc32c, "contentType": kind}
    chosen = "STANDARD" if piece.temporary else channel.line.objects.storage_class
    return {**told, "storageClass": chosen} if chosen else told


def conditions(piece: New, channel: Channel) -> dict[str, str]:
    """The query of a request that makes the object."""
    key = channel.line.objects.kms_key or ""
    return {"ifGenerationMatch": str(piece.generation), "fields": FIELDS, "kmsKeyName": key}


def look(uri: GcsUri, channel: Channel) -> Mapping[str, Any] | None:
    """The object's resource with its `FIELDS`; None when there is none.

    Raises:
        AgainError, BrokenError: a repetition may help.
        AuthError, StorageError: the service refuses.
    """
    answer = channel.ask("GET", channel.line.path(API, uri, {"fields": FIELDS}))
    return None if answer.status == 404 else checked(answer, "looking at", uri).resource()


def lying(piece: Piece, channel: Channel) -> int:
    """After a lost answer, the repeated request meets what the first one wrote: its generation.

    Raises:
        StorageError: other bytes lie there.
    """
    found = look(piece.uri, channel)
    same = found is not None and (found.get("crc32c"), int(found["size"])) == (piece.crc32c, piece.size)
    if found is None or not same or int(found["generation"]) == piece.generation:
        raise StorageError("uploading", piece.uri, "another object with other bytes lies there since this upload began",
                           "make sure that nobody else writes there and run the command again")
    return int(found["generation"])


def remove(uri: GcsUri, generation: int, channel: Channel) -> bool:
    """Deletes that generation of an object; False when it is not there (any more).

    Raises:
        AuthError, OutageError, StorageError: it cannot be deleted.
    """
    path = channel.line.path(API, uri, {"ifGenerationMatch": str(generation)})
    patience = Patience(channel.traffic, "deleting", uri)
    answer = patience.run(lambda: checked(channel.ask("DELETE", path), "deleting", uri, 204, 404, 412))
    return answer.status not in (404, 412)


def fetch(uri: GcsUri, channel: Channel) -> Content | None:
    """A small object whole, unpacked where it is stored as gzip; None when there is none.

    Raises:
        AgainError, BrokenError, DamagedError: a repetition may help.
        AuthError, StorageError: the service refuses, or the object is no small one.
    """
    # Without the header, the service would unpack it, and what came could not be held against the checksum
    # (https://cloud.google.com/storage/docs/transcoding).
    answer = channel.ask("GET", channel.line.path(API, uri, {"alt": "media"}), {"Accept-Encoding": "gzip"})
    if answer.status == 404:
        return None
    checked(answer, "reading", uri)
    told = re.search(r"crc32c=([A-Za-z0-9+/=]+)", answer.headers.get("x-goog-hash", ""))
    if told and told[1] != _crc32c(answer.body):
        raise DamagedError
    packed = answer.headers.get("content-encoding", "") == "gzip"
    content = _unpacked(answer.body, uri) if packed else answer.body
    return Content(content, _number(answer.headers.get("x-goog-generation")))


def put(new: Small, channel: Channel) -> int | None:
    """Writes a small object in one request; returns its generation, None where another than it replaces lies there.

    Raises:
        AgainError, BrokenError, DamagedError: a repetition may help; it may meet what this request wrote.
        AuthError, StorageError: the service refuses.
    """
    headers, head, tail = multipart(new_metadata(new, channel))
    query = {"uploadType": "multipart", **conditions(new, channel)}
    body = head + new.content + tail
    path = channel.line.path(UPLOADS, GcsUri(new.uri.bucket), query)
    answer = channel.ask("POST", path, headers, [body], len(body))
    if answer.status == 412:
        return None
    if answer.status == 400 and "crc32c" in answer.message.lower():
        raise DamagedError
    resource = checked(answer, "writing", new.uri).resource()
    if resource.get("crc32c") != new.crc32c:
        raise BrokenError("the service's answer tells of other bytes")
    return _number(resource.get("generation"))


def multipart(metadata: Mapping[str, str]) -> tuple[dict[str, str], bytes, bytes]:
    """The headers of an upload in one request, and what goes before and behind the object's bytes
    (https://cloud.google.com/storage/docs/uploading-objects#rest-upload-objects)."""
    edge = secrets.token_hex(16)
    head = (f"--{edge}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(metadata)}"
            f"\r\n--{edge}\r\nContent-Type: application/octet-stream\r\n\r\n")
    return {"Content-Type": f"multipart/related; boundary={edge}"}, head.encode(), f"\r\n--{edge}--\r\n".encode()


def is_bucket(name: str, channel: Channel) -> bool:
    """Whether there is a bucket of that name, be it one that this account may not look at.

    Raises:
        AgainError, BrokenError: a repetition may help.
        AuthError, StorageError: the service refuses.
    """
    answer = channel.ask("GET", channel.line.bucket_path(API, name, {"fields": "name"}))
    return checked(answer, "looking for the bucket", f"gs://{name}", 403, 404).status != 404


def _number(told: object) -> int:
    if not isinstance(told, str) or not re.fullmatch(r"[0-9]{1,19}", told):
        raise BrokenError("the service's answer tells no generation")
    return int(told)


def _crc32c(content: bytes) -> str:
    import google_crc32c

    from gcpod.checksums import crc32c_text

    return crc32c_text(google_crc32c.value(content))


def _unpacked(content: bytes, uri: GcsUri) -> bytes:
    """Undoes gzip, of up to `MOST_BYTES`.

    Raises:
        StorageError: it is no gzip, or unpacks to more.
    """
    import gzip
    import io
    import zlib

    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            found = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise StorageError("reading", uri, "it says that it is gzip, and is none", "write it anew") from None
    if len(found) > MOST_BYTES:
        raise StorageError("reading", uri, f"it unpacks to more than {MOST_BYTES} bytes", "use `gcpod copy` for it")
    return found
