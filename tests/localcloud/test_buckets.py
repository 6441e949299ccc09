"""Buckets, through Google's clients."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from googleapiclient import discovery

from gcpod.localcloud.server import LocalCloud


def test_life_of_a_bucket(client: Any) -> None:
    bucket = client.bucket(f"b-{uuid.uuid4().hex}")
    bucket.storage_class = "NEARLINE"
    bucket.labels = {"a": "1", "b": "2"}
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.add_lifecycle_delete_rule(age=7)
    client.create_bucket(bucket, location="us-central1")
    found = client.get_bucket(bucket.name)
    assert (found.location, found.location_type, found.storage_class) == ("US-CENTRAL1", "region", "NEARLINE")
    assert found.iam_configuration.uniform_bucket_level_access_enabled
    assert [rule["action"]["type"] for rule in found.lifecycle_rules] == ["Delete"]
    found.labels = {"a": "3"}
    found.patch()
    assert client.get_bucket(bucket.name).labels == {"a": "3"}
    with pytest.raises(exceptions.Conflict):
        client.create_bucket(bucket.name)
    blob = found.blob("x")
    blob.upload_from_string(b"")
    with pytest.raises(exceptions.Conflict, match="not empty"):
        found.delete()
    blob.delete()
    found.delete()
    assert client.lookup_bucket(bucket.name) is None


def test_pages_of_buckets(client: Any) -> None:
    prefix = f"p-{uuid.uuid4().hex[:8]}-"
    for number in range(5):
        client.create_bucket(f"{prefix}{number}")
    assert [one.name for one in client.list_buckets(prefix=prefix, page_size=2)] == [
        f"{prefix}{number}" for number in range(5)
    ]


def test_policy(bucket: Any) -> None:
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append({"role": "roles/storage.objectViewer", "members": {"user:a@example.com"}})
    bucket.set_iam_policy(policy)
    assert bucket.get_iam_policy().bindings[0]["role"] == "roles/storage.objectViewer"
    assert bucket.test_iam_permissions(["storage.objects.get"]) == ["storage.objects.get"]


@pytest.mark.parametrize("name", ["UPPER", "ab", "-x-", "a b c"])
def test_bad_names(client: Any, name: str) -> None:
    with pytest.raises((exceptions.BadRequest, ValueError)):
        client.create_bucket(name)


def test_discovery_client(cloud: LocalCloud, bucket: Any) -> None:
    service = discovery.build(
        "storage",
        "v1",
        static_discovery=True,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": f"{cloud.url}/storage/v1/"},
    )
    try:
        bucket.blob("a b").upload_from_string(b"12345")
        found = service.objects().get(bucket=bucket.name, object="a b").execute()
        assert found["size"] == "5"
        listed = service.objects().list(bucket=bucket.name, fields="items(name,size)").execute()
        assert listed == {"items": [{"name": "a b", "size": "5"}]}
    finally:
        service.close()
