"""What the storage handlers share: refusals, preconditions from queries, and resources in the words of the JSON API."""

from __future__ import annotations

import base64
import functools
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from starlette.datastructures import QueryParams

from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.messages import Call, Reply
from gcpod.localcloud.records import (
    Bucket,
    BucketExistsError,
    BucketNotEmptyError,
    HeldError,
    InvalidRequestError,
    NoSuchBucketError,
    NoSuchObjectError,
    NoSuchUploadError,
    NotModifiedError,
    ObjectMeta,
    PreconditionError,
    Preconditions,
    StoreError,
    UploadCancelledError,
    UploadGoneError,
)
from gcpod.localcloud.store import Store

OBJECT_SETTINGS = (
    "acl",
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "contexts",
    "customTime",
    "eventBasedHold",
    "kmsKeyName",
    "metadata",
    "retention",
    "storageClass",
    "temporaryHold",
)
_FIXED_BUCKET_FIELDS = frozenset(
    (
        "etag",
        "generation",
        "hardDeleteTime",
        "id",
        "kind",
        "metageneration",
        "name",
        "owner",
        "projectNumber",
        "satisfiesPZI",
        "satisfiesPZS",
        "selfLink",
        "softDeleteTime",
        "timeCreated",
        "updated",
        "locationType",
    )
)
IAM_POLICY = "\0iamPolicy"
_MULTI_REGIONS = ("US", "EU", "ASIA")
_DUAL_REGIONS = ("NAM4", "EUR4", "EUR5", "EUR7", "EUR8", "ASIA1")
# https://cloud.google.com/storage/docs/json_api/v1/status-codes
_REFUSALS: Mapping[type[StoreError], tuple[int, str]] = {
    NoSuchBucketError: (404, "The specified bucket does not exist."),
    BucketExistsError: (409, "Your previous request to create the named bucket succeeded and you already own it."),
    BucketNotEmptyError: (409, "The bucket you tried to delete is not empty."),
    PreconditionError: (412, "At least one of the pre-conditions you specified did not hold."),
    NotModifiedError: (304, "Not Modified"),
    NoSuchUploadError: (404, "The upload session does not exist."),
    UploadGoneError: (410, "The upload session has expired or was ended."),
    UploadCancelledError: (499, "The upload was cancelled."),
}


def to_api_error(refusal: StoreError) -> ApiError:
    """What the service says for a refusal of the store."""
    if isinstance(refusal, NoSuchObjectError):
        return ApiError(404, str(refusal))
    if isinstance(refusal, HeldError):
        return ApiError(403, str(refusal))
    if isinstance(refusal, InvalidRequestError):
        return ApiError(400, str(refusal), "required" if str(refusal) == "Required" else "invalid")
    status, message = _REFUSALS[type(refusal)]
    return ApiError(status, message)


def storage_handler(function: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
    """Turns the store's refusals into the service's; 304 has no body."""

    @functools.wraps(function)
    def guarded(call: Call) -> Reply:
        try:
            return function(call)
        except NotModifiedError:
            return Reply(304)
        except StoreError as refusal:
            raise to_api_error(refusal) from None

    return guarded


def paid(store: Store, function: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
    """Asks `check_paid` before the handler sees a request."""

    @functools.wraps(function)
    def billed(call: Call) -> Reply:
        for name in ("bucket", "sourceBucket", "destinationBucket"):
            check_paid(store, call.path.get(name, ""), call)
        return function(call)

    return billed


def check_paid(store: Store, bucket: str, call: Call) -> None:
    """Refuses a request to a requester-pays bucket that names no project to bill
    (https://cloud.google.com/storage/docs/requester-pays); an upload under way was paid for when it began.

    Raises:
        ApiError: 400.
    """
    named = call.query.get("userProject") or call.headers.get("x-goog-user-project")
    under_way = "upload_id" in call.query or "uploadId" in call.query
    if not named and not under_way and store.requester_pays(bucket):
        raise ApiError(400, "Bucket is requester pays bucket but no user project provided.", "required")


def conditions(query: QueryParams, prefix: str = "if") -> Preconditions:
    """The four conditions of a query; ``ifSource`` is the prefix of those on the source of a copy."""
    names = ("GenerationMatch", "GenerationNotMatch", "MetagenerationMatch", "MetagenerationNotMatch")
    return Preconditions(*(number(query, prefix + name) for name in names))


def number(query: QueryParams, name: str) -> int | None:
    """An integer of a query that was checked before; None when absent."""
    return int(query[name]) if name in query else None


def flag(query: QueryParams, name: str) -> bool:
    """A boolean of a query; absent is False."""
    return query.get(name, "").lower() == "true"


def object_settings(resource: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of an object resource that a client may set."""
    given = resource or {}
    return {name: given[name] for name in OBJECT_SETTINGS if given.get(name) is not None}


def bucket_settings(resource: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a bucket resource that a client may set."""
    return {name: value for name, value in resource.items() if name not in _FIXED_BUCKET_FIELDS and value is not None}


def patched(old: Mapping[str, Any], patch: Mapping[str, Any], maps: tuple[str, ...]) -> dict[str, Any]:
    """Patch semantics: null removes a field; the named maps are merged key by key, other fields are replaced whole
    (https://cloud.google.com/storage/docs/json_api#patch)."""
    new = dict(old)
    for name, value in patch.items():
        if name in maps and isinstance(value, dict):
            value = patched(old.get(name) or {}, value, ()) or None
        if value is None:
            new.pop(name, None)
        else:
            new[name] = value
    return new


def etag(generation: int, metageneration: int) -> str:
    """An entity tag that changes with content and metadata."""
    return base64.b64encode(generation.to_bytes(8, "big") + metageneration.to_bytes(4, "big")).decode()


def rfc3339(time_us: int) -> str:
    """Microseconds since 1970 as the service writes times."""
    return (
        datetime.fromtimestamp(time_us // 1_000_000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        + f".{time_us // 1000 % 1000:03d}Z"
    )


def object_resource(meta: ObjectMeta, base_url: str) -> dict[str, Any]:
    """https://cloud.google.com/storage/docs/json_api/v1/objects#resource"""
    place = f"storage/v1/b/{meta.bucket}/o/{quote(meta.name, safe='')}"
    created = rfc3339(meta.created_us)
    resource: dict[str, Any] = {
        "kind": "storage#object",
        "id": f"{meta.bucket}/{meta.name}/{meta.generation}",
        "selfLink": f"{base_url}/{place}",
        "mediaLink": f"{base_url}/download/{place}?generation={meta.generation}&alt=media",
        "name": meta.name,
        "bucket": meta.bucket,
        "generation": str(meta.generation),
        "metageneration": str(meta.metageneration),
        "storageClass": "STANDARD",
        "size": str(meta.size),
        "crc32c": meta.crc32c,
        "etag": etag(meta.generation, meta.metageneration),
        "timeCreated": created,
        "updated": rfc3339(meta.updated_us),
        "timeStorageClassUpdated": created,
        "timeFinalized": created,
        **meta.settings,
    }
    if meta.md5 is not None:
        resource["md5Hash"] = meta.md5
    if meta.component_count is not None:
        resource["componentCount"] = meta.component_count
    return resource


def project_number(project: str) -> str:
    """A stable twelve-digit number for a project's name."""
    return str(100_000_000_000 + zlib.crc32(project.encode("utf-8", "replace")))


def bucket_resource(bucket: Bucket, base_url: str) -> dict[str, Any]:
    """https://cloud.google.com/storage/docs/json_api/v1/buckets#resource"""
    settings = {name: value for name, value in bucket.settings.items() if name != IAM_POLICY}
    location = str(settings.get("location", "US")).upper()
    access = {
        "bucketPolicyOnly": {"enabled": False},
        "uniformBucketLevelAccess": {"enabled": False},
        "publicAccessPrevention": "inherited",
        **settings.get("iamConfiguration", {}),
    }
    return {
        "kind": "storage#bucket",
        "id": bucket.name,
        "selfLink": f"{base_url}/storage/v1/b/{bucket.name}",
        "name": bucket.name,
        "projectNumber": project_number(bucket.project),
        "generation": str(bucket.generation),
        "metageneration": str(bucket.metageneration),
        "storageClass": "STANDARD",
        "etag": etag(bucket.generation, bucket.metageneration),
        "timeCreated": rfc3339(bucket.created_us),
        "updated": rfc3339(bucket.updated_us),
        **settings,
        "location": location,
        "locationType": location_type(location),
        "iamConfiguration": access,
    }


def location_type(location: str) -> str:
    """``multi-region``, ``dual-region`` or ``region`` (https://cloud.google.com/storage/docs/locations)."""
    return "multi-region" if location in _MULTI_REGIONS else "dual-region" if location in _DUAL_REGIONS else "region"
