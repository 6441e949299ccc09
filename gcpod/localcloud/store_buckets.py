"""The object store's buckets, and what it stands on: a folder, a database, a clock."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gcpod.localcloud.blobs import Blobs
from gcpod.localcloud.database import Database
from gcpod.localcloud.records import (
    NO_CONDITIONS,
    Bucket,
    BucketExistsError,
    BucketNotEmptyError,
    InvalidRequestError,
    NoSuchBucketError,
    Preconditions,
)

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
Settings = Mapping[str, Any]


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class BucketStore:
    """Buckets below a folder. Thread-safe; one process at a time.

    Args:
        root: the folder, created when absent.
        clock: microseconds since 1970; generations follow it, strictly increasing.
    """

    def __init__(self, root: Path, clock: Callable[[], int] = now_us) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.clock = clock
        self.database = Database(root / "storage.sqlite")
        self.blobs = Blobs(root / "blobs")
        used = self.database.used_blobs()
        self.blobs.sweep(used.__contains__)
        self._paying = {bucket.name for bucket in self.buckets() if _requester_pays(bucket)}

    def close(self) -> None:
        """Closes the database."""
        self.database.close()

    def create_bucket(self, name: str, project: str, settings: Settings) -> Bucket:
        """Makes a bucket (https://cloud.google.com/storage/docs/buckets#naming).

        Raises:
            InvalidRequestError: no bucket name.
            BucketExistsError: it is there already.
        """
        if not _BUCKET_NAME.fullmatch(name):
            raise InvalidRequestError(f"Invalid bucket name: '{name}'")
        with self.database.change() as change:
            now = self.clock()
            bucket = Bucket(name, project, change.next_generation(now), 1, now, now, settings)
            if change.bucket(name) is not None:
                raise BucketExistsError
            change.put_bucket(bucket)
        self._note(bucket)
        return bucket

    def requester_pays(self, name: str) -> bool:
        """Whether requests to a bucket have to name a project to bill; kept in memory, for every request asks."""
        return name in self._paying

    def _note(self, bucket: Bucket) -> None:
        (self._paying.add if _requester_pays(bucket) else self._paying.discard)(bucket.name)

    def bucket(self, name: str, conditions: Preconditions = NO_CONDITIONS) -> Bucket:
        """Looks a bucket up.

        Raises:
            NoSuchBucketError, PreconditionError, NotModifiedError: as they say.
        """
        with self.database.view() as view:
            bucket = present(view.bucket(name))
        conditions.check(bucket.generation, bucket.metageneration, reading=True)
        return bucket

    def buckets(self, prefix: str = "") -> list[Bucket]:
        """All buckets whose names start with a prefix, in order."""
        with self.database.view() as view:
            return [bucket for bucket in view.buckets() if bucket.name.startswith(prefix)]

    def change_bucket(self, name: str, edit: Callable[[Settings], Settings], conditions: Preconditions) -> Bucket:
        """Rewrites a bucket's settings and raises its metageneration.

        Raises:
            NoSuchBucketError, PreconditionError: as they say.
        """
        with self.database.change() as change:
            found = present(change.bucket(name))
            conditions.check(found.generation, found.metageneration)
            bucket = replace(
                found, settings=edit(found.settings), metageneration=found.metageneration + 1, updated_us=self.clock()
            )
            change.put_bucket(bucket)
        self._note(bucket)
        return bucket

    def delete_bucket(self, name: str, conditions: Preconditions = NO_CONDITIONS) -> None:
        """Drops an empty bucket.

        Raises:
            NoSuchBucketError, BucketNotEmptyError, PreconditionError: as they say.
        """
        with self.database.change() as change:
            found = present(change.bucket(name))
            conditions.check(found.generation, found.metageneration)
            if change.objects(name, "", True, None, 1):
                raise BucketNotEmptyError
            change.drop_bucket(name)
        self._paying.discard(name)


def _requester_pays(bucket: Bucket) -> bool:
    return bool((bucket.settings.get("billing") or {}).get("requesterPays"))


def present(bucket: Bucket | None) -> Bucket:
    """The bucket.

    Raises:
        NoSuchBucketError: there is none.
    """
    if bucket is None:
        raise NoSuchBucketError
    return bucket
