"""Buckets: made where the jobs run, closed to the public, swept of what gcpod left; and a look at those there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gcpod.errors import AuthError, SpecError, StorageError
from gcpod.session import Session
from gcpod.settings import LOCAL_REGION
from gcpod.spec import STORAGE_CLASSES
from gcpod.status import Finding, Severity
from gcpod.storage.names import PARTS_FOLDER
from gcpod.storage.objects import TIMEOUT_S, translated

SWEEP_DAYS: Final = 7
"""A resumable upload can be gone on with for so long
(https://cloud.google.com/storage/docs/resumable-uploads#session-uris); its pieces need not stay longer."""
NOT_REGIONAL, ELSEWHERE, FINE_GRAINED, UNSWEPT, UNLIKE = "S504", "S505", "S506", "S507", "S508"
_PART = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_IP = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_REGION = re.compile(rf"[a-z]+(-[a-z]+)+[0-9]+|{LOCAL_REGION}")
"""Multi-regions and dual-regions have no hyphen (https://cloud.google.com/storage/docs/locations)."""
_KEY = re.compile(r"projects/[^/\s]+/locations/([^/\s]+)/keyRings/[^/\s]+/cryptoKeys/[^/\s]+")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


class HiddenBucketError(AuthError):
    """A bucket of that name is there, but this account may not look at it, or it is somebody else's."""


@dataclass(frozen=True)
class BucketInfo:
    """What the service says of a bucket.

    Attributes:
        name: without gs://.
        location: lower case, such as us-central1 or us.
        location_type: "region", "dual-region" or "multi-region".
        storage_class: of objects that name none themselves.
        uniform_access: whether permissions are the bucket's alone, and no object has its own.
        public_access_prevention: "enforced" or "inherited".
        kms_key: resource name of the key of objects that name none themselves; "" for Google's own keys.
        labels: of the bucket.
        swept: whether a rule deletes what is left in `PARTS_FOLDER`.
    """

    name: str
    location: str
    location_type: str
    storage_class: str
    uniform_access: bool
    public_access_prevention: str
    kms_key: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    swept: bool = False


def plan_bucket(
    name: str, location: str, *, storage_class: str = "STANDARD", kms_key: str = "",
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The bucket to make (https://cloud.google.com/storage/docs/json_api/v1/buckets#resource).

    In a region, as training wants it; with uniform access, never public; pieces of uploads that nobody went on with
    are deleted after `SWEEP_DAYS`.

    Args:
        name: without gs://.
        location: a region.
        storage_class: one of `spec.STORAGE_CLASSES`, in upper or lower case.
        kms_key: ``projects/P/locations/L/keyRings/R/cryptoKeys/K`` of the same region; "" for Google's own keys. The
            local cloud, which encrypts nothing, stands for a key's region too.
        labels: key to value.

    Raises:
        SpecError: one of them breaks the rules of Cloud Storage.
    """
    _check_bucket_name(name)
    region, chosen = location.lower(), storage_class.upper()
    if not _REGION.fullmatch(region):
        raise SpecError("planning the bucket in", ascii(location), "it is no region", "name one such as us-central1; "
                        "training wants its data in one region")
    if chosen not in STORAGE_CLASSES:
        raise SpecError("planning the bucket of class", ascii(storage_class), "there is no such storage class",
                        f"use one of: {', '.join(STORAGE_CLASSES)}")
    body: dict[str, Any] = {
        "name": name,
        "location": region,
        "storageClass": chosen,
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"},
        "lifecycle": {"rule": [
            {"action": {"type": "Delete"}, "condition": {"age": SWEEP_DAYS, "matchesPrefix": [f"{PARTS_FOLDER}/"]}},
            {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": SWEEP_DAYS}},
        ]},
    }
    if kms_key:
        _check_key(kms_key, region)
        body["encryption"] = {"defaultKmsKeyName": kms_key}
    if labels:
        _check_labels(labels)
        body["labels"] = dict(labels)
    return body


def _check_bucket_name(name: str) -> None:
    """https://cloud.google.com/storage/docs/buckets#naming"""
    parts = name.split(".")
    found = ""
    if not 3 <= len(name) <= 222 or not all(_PART.fullmatch(part) for part in parts):
        found = ("a name has 3 to 63 lower-case letters, digits, '-' and '_', or more such parts with '.' between, and "
                 "starts and ends with a letter or digit")
    elif _IP.fullmatch(name):
        found = "it looks like an IP address"
    elif name.startswith("goog") or "google" in name or "g00gle" in name:
        found = "a name may not start with goog or have google in it"
    if found:
        raise SpecError("planning the bucket", ascii(name[:230]), found, "choose another name")


def _check_key(kms_key: str, region: str) -> None:
    """https://cloud.google.com/storage/docs/encryption/customer-managed-keys#restrictions"""
    named = _KEY.fullmatch(kms_key)
    if named is None:
        raise SpecError("planning the bucket with the key", ascii(kms_key), "it is no name of a key",
                        "write projects/P/locations/L/keyRings/R/cryptoKeys/K")
    if region not in (named[1].lower(), LOCAL_REGION):
        raise SpecError("planning the bucket with the key", kms_key, f"it is in {named[1]}, the bucket in {region}",
                        "use a key of the bucket's region")


def _check_labels(labels: Mapping[str, str]) -> None:
    """The part in ASCII of https://cloud.google.com/storage/docs/tags-and-labels#bucket-labels"""
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise SpecError("planning the bucket with the label", ascii(f"{key}={value}"), "Cloud Storage refuses it",
                            "use up to 63 lower-case letters, digits, '-' and '_'; the key starts with a letter")


def to_bucket_info(resource: Mapping[str, Any]) -> BucketInfo:
    """Reads a bucket's resource; what a service leaves out counts as unset."""
    access = resource.get("iamConfiguration") or {}
    rules = (resource.get("lifecycle") or {}).get("rule") or []
    return BucketInfo(
        name=str(resource.get("name", "")),
        location=str(resource.get("location", "")).lower(),
        location_type=str(resource.get("locationType", "")),
        storage_class=str(resource.get("storageClass", "")),
        uniform_access=(access.get("uniformBucketLevelAccess") or {}).get("enabled") is True,
        public_access_prevention=str(access.get("publicAccessPrevention", "inherited")),
        kms_key=str((resource.get("encryption") or {}).get("defaultKmsKeyName", "")),
        labels=dict(resource.get("labels") or {}),
        swept=any(_sweeps(rule) for rule in rules),
    )


def _sweeps(rule: Mapping[str, Any]) -> bool:
    condition = rule.get("condition") or {}
    prefixes = condition.get("matchesPrefix") or []
    deletes = (rule.get("action") or {}).get("type") == "Delete"
    return deletes and set(condition) == {"age", "matchesPrefix"} and f"{PARTS_FOLDER}/" in prefixes


def check_bucket(
    info: BucketInfo, region: str, *, tpu: bool, asked: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """What about a bucket stands against using it (S504 to S508).

    Args:
        info: the bucket.
        region: where the jobs run.
        tpu: whether the training runs on a TPU, which wants a regional bucket
            (https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm).
        asked: a plan that the bucket was found in place of.
    """
    where = f"gs://{info.name}"
    found: list[Finding] = []

    def add(code: str, severity: Severity, what: str, fix: str) -> None:
        found.append(Finding(code, severity, where, what, fix))

    if tpu and info.location_type != "region":
        add(NOT_REGIONAL, "error", f"it is in {info.location}, a {info.location_type}; training on TPU wants a region",
            f"make another one: `gcpod bucket create NAME --region {region}`")
    elif info.location_type == "region" and info.location != region.lower():
        add(ELSEWHERE, "warning", f"it is in {info.location}, the jobs run in {region}: slower, and what is read and "
            "written between regions is paid for", "use a bucket of that region")
    if not info.uniform_access:
        add(FINE_GRAINED, "warning", "each object may have an access list of its own, so the bucket's permissions do "
            "not tell who reads what", f"run `gcloud storage buckets update {where} --uniform-bucket-level-access`")
    if not info.swept:
        add(UNSWEPT, "note", f"no rule deletes what interrupted uploads leave below {PARTS_FOLDER}/",
            f"add a lifecycle rule: Delete, age {SWEEP_DAYS}, that prefix")
    return found + _unlike(info, asked or {}, where)


def _unlike(info: BucketInfo, asked: Mapping[str, Any], where: str) -> list[Finding]:
    wanted = to_bucket_info({**asked, "locationType": info.location_type}) if asked else info
    pairs = [
        ("location", info.location, wanted.location), ("storage class", info.storage_class, wanted.storage_class),
        ("key", info.kms_key or "Google's own", wanted.kms_key or "Google's own"),
    ]
    return [
        Finding(UNLIKE, "warning", where, f"its {what} is {there}, asked was for {other}", "use another name for a new "
                "bucket; this one is left as it is")
        for what, there, other in pairs if there != other
    ]


def find_bucket(session: Session, name: str, retry: Any = None) -> BucketInfo | None:
    """Looks a bucket up; None when there is none.

    Args:
        session: who asks.
        name: without gs://.
        retry: when the client tries again; by default as Google's client does for reads.

    Raises:
        HiddenBucketError: it is there, but may not be looked at.
        StorageError, AuthError, OutageError: see `objects.translated`.
    """
    from google.api_core.exceptions import Forbidden, NotFound
    from google.cloud.storage.retry import DEFAULT_RETRY

    with translated("looking for the bucket", f"gs://{name}"):
        try:
            asked = session.storage.bucket(name, user_project=session.settings.storage.user_project)
            bucket = session.storage.get_bucket(asked, timeout=TIMEOUT_S, retry=retry or DEFAULT_RETRY)
        except NotFound:
            return None
        except Forbidden as e:
            raise HiddenBucketError(
                "looking for the bucket", f"gs://{name}", "it is there, but is somebody else's or not for you to see",
                "choose another name, or grant storage.buckets.get (roles/storage.legacyBucketReader) on it",
            ) from e
    return _info(bucket)


def create_bucket(
    session: Session, name: str, *, location: str = "", storage_class: str = "", kms_key: str = "",
    labels: Mapping[str, str] | None = None, retry: Any = None,
) -> tuple[BucketInfo, bool]:
    """Makes a bucket as `plan_bucket` has it; one that is there is left as it is.

    Args:
        session: who makes it; has the region, class and key that are not given here.
        name, location, storage_class, kms_key, labels: see `plan_bucket`.
        retry: as for `find_bucket`.

    Returns:
        the bucket, and whether it was made.

    Raises:
        SpecError: see `plan_bucket`; only of a bucket that is not there.
        HiddenBucketError: the name is taken by a bucket that may not be looked at.
        StorageError, AuthError, OutageError: see `objects.translated`.
    """
    from google.api_core.exceptions import Conflict
    from google.cloud.storage.retry import DEFAULT_RETRY

    there = find_bucket(session, name, retry)
    if there is not None:
        return there, False
    own = session.settings.storage
    body = plan_bucket(
        name, location or session.region, storage_class=storage_class or own.storage_class or "STANDARD",
        kms_key=kms_key or own.kms_key or "", labels=labels,
    )
    with translated("making the bucket", f"gs://{name}"):
        bucket = _described(session.storage.bucket(name), body)
        try:
            made = session.storage.create_bucket(
                bucket, location=body["location"], timeout=TIMEOUT_S, retry=retry or DEFAULT_RETRY,
            )
            return _info(made), True
        except Conflict:
            pass  # by somebody else meanwhile, or by a request of ours whose reply got lost
    there = find_bucket(session, name, retry)
    if there is None:
        raise StorageError("making the bucket", f"gs://{name}", "the name is taken, and there is no bucket",
                           "wait a moment, or choose another name")
    return there, False


def _described(bucket: Any, body: Mapping[str, Any]) -> Any:
    """The client's bucket with all that a plan says."""
    bucket.storage_class = body["storageClass"]
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = body["iamConfiguration"]["publicAccessPrevention"]
    bucket.lifecycle_rules = body["lifecycle"]["rule"]
    if "encryption" in body:
        bucket.default_kms_key_name = body["encryption"]["defaultKmsKeyName"]
    if "labels" in body:
        bucket.labels = body["labels"]
    return bucket


def _info(bucket: Any) -> BucketInfo:
    return to_bucket_info({
        "name": bucket.name, "location": bucket.location, "locationType": bucket.location_type,
        "storageClass": bucket.storage_class, "iamConfiguration": dict(bucket.iam_configuration),
        "lifecycle": {"rule": [dict(rule) for rule in bucket.lifecycle_rules]},
        "encryption": {"defaultKmsKeyName": bucket.default_kms_key_name or ""}, "labels": bucket.labels,
    })
