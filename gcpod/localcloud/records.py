"""What the object store holds and refuses: buckets, objects, preconditions, one exception per kind of refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class StoreError(Exception):
    """Base of the store's refusals."""


class NoSuchBucketError(StoreError):
    """The bucket does not exist."""


class NoSuchObjectError(StoreError):
    """The object, or the generation asked for, does not exist."""

    def __init__(self, bucket: str, name: str) -> None:
        super().__init__(f"No such object: {bucket}/{name}")


class BucketExistsError(StoreError):
    """A bucket of that name is there already."""


class BucketNotEmptyError(StoreError):
    """A bucket with objects in it cannot be deleted."""


class PreconditionError(StoreError):
    """A generation or metageneration does not match."""


class HeldError(StoreError):
    """A hold keeps the object from being deleted or overwritten (https://cloud.google.com/storage/docs/object-holds)."""

    def __init__(self, bucket: str, name: str, kind: str) -> None:
        super().__init__(
            f"Object '{bucket}/{name}' is under active {kind} hold and cannot be deleted, overwritten or archived "
            "until hold is removed."
        )


class NotModifiedError(StoreError):
    """A read with a not-match condition found just what the reader has."""


class InvalidRequestError(StoreError):
    """The request makes no sense; the message says why."""


class NoSuchUploadError(StoreError):
    """The upload session never existed."""


class UploadGoneError(StoreError):
    """The upload session was there and is over (expired, or its object refused)."""


class UploadCancelledError(StoreError):
    """The upload session was cancelled by the client."""


@dataclass(frozen=True)
class Preconditions:
    """The four conditions of https://cloud.google.com/storage/docs/request-preconditions.

    Generation 0 stands for "does not exist".
    """

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    def check(self, generation: int, metageneration: int, *, reading: bool = False) -> None:
        """Compares with what is there (0, 0 when nothing is).

        Raises:
            PreconditionError: a condition does not hold.
            NotModifiedError: the same for a not-match condition, when ``reading``.
        """
        for wanted, found in ((self.generation_match, generation), (self.metageneration_match, metageneration)):
            if wanted is not None and wanted != found:
                raise PreconditionError
        for unwanted, found in (
            (self.generation_not_match, generation),
            (self.metageneration_not_match, metageneration),
        ):
            if unwanted is not None and unwanted == found:
                raise NotModifiedError if reading else PreconditionError


NO_CONDITIONS = Preconditions()


@dataclass(frozen=True)
class Bucket:
    """A bucket. Times are microseconds since 1970; ``settings`` are the fields a client may set, as in the JSON API."""

    name: str
    project: str
    generation: int
    metageneration: int
    created_us: int
    updated_us: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectMeta:
    """The live generation of an object. Times are microseconds since 1970; checksums are base64.

    ``settings`` are the fields a client may set, as in the JSON API. ``md5`` is None and ``component_count`` is set for
    composed objects (https://cloud.google.com/storage/docs/composed-objects).
    """

    bucket: str
    name: str
    generation: int
    metageneration: int
    size: int
    crc32c: str
    md5: str | None
    component_count: int | None
    created_us: int
    updated_us: int
    blob: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def check_holds(self) -> None:
        """
        Raises:
            HeldError: the object may not be deleted or overwritten.
        """
        for name, kind in (("temporaryHold", "Temporary"), ("eventBasedHold", "Event-Based")):
            if self.settings.get(name):
                raise HeldError(self.bucket, self.name, kind)


@dataclass(frozen=True)
class ComposeSource:
    """One source of a compose: an object of the same bucket, tied to a generation if the client asked for that."""

    name: str
    generation: int | None = None
    generation_match: int | None = None


@dataclass(frozen=True)
class Upload:
    """An upload in several requests. ``request`` is what the first one said, ``generation`` the result's."""

    id: str
    kind: str
    bucket: str
    name: str
    blob: str
    created_us: int
    state: str
    generation: int | None
    request: Mapping[str, Any] = field(default_factory=dict)
