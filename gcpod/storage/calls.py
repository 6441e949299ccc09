"""Requests about single objects on a channel: what is there, what a new one gets, and its removal."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcpod.errors import StorageError
from gcpod.storage.channel import Channel
from gcpod.storage.patience import Patience, checked
from gcpod.uris import GcsUri

API, UPLOADS = "/storage/v1", "/upload/storage/v1"
FIELDS = "name,generation,size,crc32c"


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


def new_metadata(piece: Piece, channel: Channel) -> dict[str, str]:
    """The resource of the new object. What is temporary is no archive: other classes bill months for a minute
    (https://cloud.google.com/storage/docs/storage-classes)."""
    kind = mimetypes.guess_type(piece.uri.name)[0] or "application/octet-stream"
    told = {"name": piece.uri.name, "crc32c": piece.crc32c, "contentType": kind}
    chosen = "STANDARD" if piece.temporary else channel.line.objects.storage_class
    return {**told, "storageClass": chosen} if chosen else told


def conditions(piece: Piece, channel: Channel) -> dict[str, str]:
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


def remove(uri: GcsUri, generation: int, channel: Channel) -> None:
    """Deletes that generation of an object, if it is there.

    Raises:
        AuthError, OutageError, StorageError: it cannot be deleted.
    """
    path = channel.line.path(API, uri, {"ifGenerationMatch": str(generation)})
    patience = Patience(channel.traffic, "deleting", uri)
    patience.run(lambda: checked(channel.ask("DELETE", path), "deleting", uri, 204, 404, 412))
