"""The object store apart from HTTP: metadata in one sqlite database, bytes in files.

Every change is one transaction. A blob is written before its record and removed after it, so that a crash leaves at
worst a blob without a record; those are swept when the store is opened. There is no object versioning: an overwritten
generation is gone at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from gcpod.localcloud.blobs import Blob, read_range
from gcpod.localcloud.database import Change
from gcpod.localcloud.listing import ListPage, ListQuery, list_page
from gcpod.localcloud.records import (
    NO_CONDITIONS,
    ComposeSource,
    InvalidRequestError,
    NoSuchObjectError,
    ObjectMeta,
    Preconditions,
)
from gcpod.localcloud.store_buckets import BucketStore, Settings, present

MAX_COMPOSE = 32
MAX_NAME_BYTES = 1024
_INHERITED = ("storageClass",)
"""Settings of a bucket that its new objects get (https://cloud.google.com/storage/docs/storage-classes#default)."""


class Store(BucketStore):
    """Buckets and objects below a folder. Thread-safe; one process at a time."""

    def get(
        self,
        bucket: str,
        name: str,
        generation: int | None = None,
        conditions: Preconditions = NO_CONDITIONS,
    ) -> ObjectMeta:
        """The live generation of an object.

        Raises:
            NoSuchBucketError, NoSuchObjectError, PreconditionError, NotModifiedError: as they say.
        """
        with self.database.view() as view:
            found = view.object(bucket, name)
            if found is None:
                present(view.bucket(bucket))
        meta = _live(found, bucket, name, generation)
        conditions.check(meta.generation, meta.metageneration, reading=True)
        return meta

    def open(
        self,
        bucket: str,
        name: str,
        generation: int | None = None,
        conditions: Preconditions = NO_CONDITIONS,
    ) -> tuple[ObjectMeta, BinaryIO]:
        """An object and its bytes, which stay readable whatever happens to the object meanwhile.

        Raises:
            NoSuchBucketError, NoSuchObjectError, PreconditionError, NotModifiedError: as they say.
        """
        while True:
            meta = self.get(bucket, name, generation, conditions)
            try:
                return meta, self.blobs.path(meta.blob).open("rb")
            except FileNotFoundError:
                # Overwritten between the two steps: look again, unless the record itself still names the lost file.
                if self.get(bucket, name, generation, conditions).blob == meta.blob:
                    raise

    def insert(
        self,
        bucket: str,
        name: str,
        blob: Blob,
        settings: Settings,
        conditions: Preconditions = NO_CONDITIONS,
        *,
        component_count: int | None = None,
        upload: str | None = None,
    ) -> ObjectMeta:
        """Makes a blob the live generation of an object; the blob is dropped when it cannot be.

        Args:
            upload: the id of the upload session that this finishes, in the same transaction.

        Raises:
            NoSuchBucketError, PreconditionError, HeldError: as they say.
            InvalidRequestError: no object name.
        """
        try:
            check_object_name(name)
            with self.database.change() as change:
                home = present(change.bucket(bucket))
                old = _replaceable(change, bucket, name, conditions)
                now = self.clock()
                meta = ObjectMeta(
                    bucket,
                    name,
                    change.next_generation(now),
                    1,
                    blob.size,
                    blob.crc32c,
                    blob.md5,
                    component_count,
                    now,
                    now,
                    blob.name,
                    {**{key: home.settings[key] for key in _INHERITED if key in home.settings}, **settings},
                )
                change.put_object(meta)
                if upload is not None:
                    change.finish_upload(upload, meta.generation)
        except BaseException:
            self.blobs.remove(blob.name)
            raise
        if old is not None:
            self.blobs.remove(old.blob)
        return meta

    def change_object(
        self,
        bucket: str,
        name: str,
        edit: Callable[[Settings], Settings],
        generation: int | None,
        conditions: Preconditions,
    ) -> ObjectMeta:
        """Rewrites an object's settings and raises its metageneration.

        Raises:
            NoSuchBucketError, NoSuchObjectError, PreconditionError: as they say.
        """
        with self.database.change() as change:
            present(change.bucket(bucket))
            found = _live(change.object(bucket, name), bucket, name, generation)
            conditions.check(found.generation, found.metageneration)
            meta = replace(
                found, settings=edit(found.settings), metageneration=found.metageneration + 1, updated_us=self.clock()
            )
            change.put_object(meta)
        return meta

    def delete(
        self,
        bucket: str,
        name: str,
        generation: int | None = None,
        conditions: Preconditions = NO_CONDITIONS,
    ) -> None:
        """Drops an object.

        Raises:
            NoSuchBucketError, NoSuchObjectError, PreconditionError, HeldError: as they say.
        """
        with self.database.change() as change:
            present(change.bucket(bucket))
            found = _live(change.object(bucket, name), bucket, name, generation)
            conditions.check(found.generation, found.metageneration)
            found.check_holds()
            change.drop_object(bucket, name)
        self.blobs.remove(found.blob)

    def list(self, bucket: str, query: ListQuery) -> ListPage:
        """One page of a bucket.

        Raises:
            NoSuchBucketError: as it says.
            InvalidRequestError: a page token or a glob that cannot be read.
        """
        with self.database.view() as view:
            present(view.bucket(bucket))

            def fetch(start: str, inclusive: bool, end: str | None, limit: int) -> Sequence[ObjectMeta]:
                return view.objects(bucket, start, inclusive, end, limit)

            return list_page(query, fetch)

    def compose(
        self,
        bucket: str,
        name: str,
        sources: Sequence[ComposeSource],
        settings: Settings | None,
        conditions: Preconditions = NO_CONDITIONS,
    ) -> ObjectMeta:
        """Joins 1 to 32 objects of a bucket (https://cloud.google.com/storage/docs/composite-objects).

        Raises:
            InvalidRequestError: no source, or more than 32.
            NoSuchBucketError, NoSuchObjectError, PreconditionError: as they say.
        """
        if not 1 <= len(sources) <= MAX_COMPOSE:
            raise InvalidRequestError(
                "You must provide at least one source component."
                if not sources
                else f"The number of source components provided ({len(sources)}) exceeds the maximum ({MAX_COMPOSE}).",
            )
        opened: list[tuple[ObjectMeta, BinaryIO]] = []
        try:
            for source in sources:
                wanted = Preconditions(generation_match=source.generation_match)
                opened.append(self.open(bucket, source.name, source.generation, wanted))
            blob = self.blobs.write(_joined(opened), with_md5=False)
        finally:
            for _, file in opened:
                file.close()
        count = sum(meta.component_count or 1 for meta, _ in opened)
        if settings is None:
            kept = opened[0][0].settings.get("contentType")
            settings = {} if kept is None else {"contentType": kept}
        return self.insert(bucket, name, blob, settings, conditions, component_count=count)

    def copy(
        self,
        source: ObjectMeta,
        bucket: str,
        name: str,
        settings: Settings,
        conditions: Preconditions = NO_CONDITIONS,
    ) -> ObjectMeta:
        """Copies an object as looked up before, without moving bytes.

        Raises:
            NoSuchBucketError, NoSuchObjectError, PreconditionError, InvalidRequestError: as they say.
        """
        try:
            blob = Blob(self.blobs.link(source.blob), source.size, source.crc32c, source.md5)
        except FileNotFoundError:
            raise NoSuchObjectError(source.bucket, source.name) from None
        return self.insert(bucket, name, blob, settings, conditions, component_count=source.component_count)

    def move(
        self,
        bucket: str,
        source: str,
        name: str,
        source_conditions: Preconditions,
        conditions: Preconditions,
    ) -> ObjectMeta:
        """Renames an object within its bucket (https://cloud.google.com/storage/docs/json_api/v1/objects/move).

        Raises:
            NoSuchBucketError, NoSuchObjectError, PreconditionError, HeldError, InvalidRequestError: as they say.
        """
        check_object_name(name)
        with self.database.change() as change:
            present(change.bucket(bucket))
            found = _live(change.object(bucket, source), bucket, source, None)
            source_conditions.check(found.generation, found.metageneration)
            found.check_holds()
            old = _replaceable(change, bucket, name, conditions)
            now = self.clock()
            change.drop_object(bucket, source)
            meta = replace(
                found,
                name=name,
                generation=change.next_generation(now),
                metageneration=1,
                created_us=now,
                updated_us=now,
            )
            change.put_object(meta)
        if old is not None and old.blob != meta.blob:
            self.blobs.remove(old.blob)
        return meta


def check_object_name(name: str) -> None:
    """The rules of https://cloud.google.com/storage/docs/objects#naming.

    Raises:
        InvalidRequestError: a name that breaks them.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= MAX_NAME_BYTES:
        raise InvalidRequestError(
            "Required"
            if not size
            else f"The maximum object length is 1024 characters, but got a name with {size} characters: '{name[:40]}…'"
        )
    if "\r" in name or "\n" in name or name in (".", "..") or name.startswith(".well-known/acme-challenge/"):
        raise InvalidRequestError(f"Disallowed object name: {json.dumps(name)}")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequestError("The object name is not valid UTF-8.") from None


def _joined(opened: Sequence[tuple[ObjectMeta, BinaryIO]]) -> Iterator[bytes]:
    for meta, file in opened:
        yield from read_range(file, 0, meta.size)


def _replaceable(change: Change, bucket: str, name: str, conditions: Preconditions) -> ObjectMeta | None:
    old = change.object(bucket, name)
    conditions.check(old.generation if old else 0, old.metageneration if old else 0)
    if old is not None:
        old.check_holds()
    return old


def _live(meta: ObjectMeta | None, bucket: str, name: str, generation: int | None) -> ObjectMeta:
    if meta is None or generation not in (None, meta.generation):
        raise NoSuchObjectError(bucket, name)
    return meta
