"""What Google's own client can ask for and the local cloud does not keep: a clear refusal, never a wrong 200."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from google.api_core import exceptions

from tests.localcloud.conftest import Raw

KEY = b"0123456789abcdef0123456789abcdef"


def put(bucket: Any, **options: Any) -> None:
    bucket.blob("y").upload_from_string(b"content", **options)


def with_acl(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.acl.all().grant_read()
    blob.acl.loaded = True
    blob.acl.save()


def with_field(bucket: Any, name: str, value: object) -> None:
    setattr(bucket, name, value)
    bucket.patch()


def made(bucket: Any, **options: Any) -> None:
    bucket.client.create_bucket(bucket.name + "-2", **options)


def no_soft_delete(bucket: Any) -> None:
    list(bucket.list_blobs(soft_deleted=True))


CALLS: dict[str, Callable[[Any], Any]] = {
    "predefined ACL of an upload": lambda b: put(b, predefined_acl="publicRead"),
    "predefined ACL of a session": lambda b: b.blob("y").create_resumable_upload_session(predefined_acl="private"),
    "predefined ACL of a bucket": lambda b: made(b, predefined_acl="private"),
    "default ACL of a bucket": lambda b: made(b, predefined_default_object_acl="private"),
    "ACL of an object": with_acl,
    "reading the ACL of an object": lambda b: b.blob("x").acl.reload(),
    "reading the ACL of a bucket": lambda b: b.acl.reload(),
    "reading the default ACL": lambda b: b.default_object_acl.reload(),
    "making an object public": lambda b: b.blob("x").make_public(),
    "making a bucket private": lambda b: b.make_private(),
    "policy of an object": lambda b: b.blob("x").get_iam_policy(),
    "permissions on an object": lambda b: b.blob("x").test_iam_permissions(["storage.objects.get"]),
    "versioning": lambda b: with_field(b, "versioning_enabled", True),
    "retention policy": lambda b: with_field(b, "retention_period", 100),
    "default holds": lambda b: with_field(b, "default_event_based_hold", True),
    "object retention": lambda b: made(b, enable_object_retention=True),
    "soft deleted objects": no_soft_delete,
    "soft deleted object": lambda b: b.get_blob("x", generation=1, soft_deleted=True),
    "restoring an object": lambda b: b.restore_blob("x", generation=1),
    "restoring a bucket": lambda b: b.client.restore_bucket(b.name, generation=1),
    "listing by contexts": lambda b: list(b.list_blobs(filter_='contexts."k":*')),
    "notifications": lambda b: list(b.list_notifications()),
    "a notification": lambda b: b.notification("topic", topic_project="p").create(),
    "HMAC keys": lambda b: list(b.client.list_hmac_keys(project_id="p")),
    "an HMAC key": lambda b: b.client.create_hmac_key("a@example.com", project_id="p"),
    "customer's key, up": lambda b: b.blob("y", encryption_key=KEY).upload_from_string(b""),
    "customer's key, resumable": lambda b: b.blob("y", encryption_key=KEY).upload_from_file(io.BytesIO(b"")),
    "customer's key, down": lambda b: b.blob("x", encryption_key=KEY).download_as_bytes(),
    "customer's key, reload": lambda b: b.blob("x", encryption_key=KEY).reload(),
    "customer's key, rewrite": lambda b: b.blob("y", encryption_key=KEY).rewrite(b.blob("x")),
}


@pytest.mark.parametrize("call", CALLS)
def test_not_implemented(bucket: Any, call: str) -> None:
    bucket.blob("x").upload_from_string(b"kept")
    bucket.reload()
    with pytest.raises(exceptions.MethodNotImplemented, match="not implemented"):
        CALLS[call](bucket)
    assert [one.name for one in bucket.list_blobs()] == ["x"]
    found = bucket.get_blob("x")
    assert (found.metageneration, found.download_as_bytes()) == (1, b"kept")
    assert bucket.client.get_bucket(bucket.name).metageneration == 1


@pytest.mark.parametrize(("verb", "path", "body"), [
    ("PATCH", "/o/x", b'{"retention":{"mode":"Unlocked","retainUntilTime":"2030-01-01T00:00:00Z"}}'),
    ("PUT", "/o/x", b'{"acl":[]}'),
    ("POST", "/lockRetentionPolicy?ifMetagenerationMatch=1", None),
    ("POST", "/o/y/compose", b'{"sourceObjects":[{"name":"x"}],"destination":{"acl":[]}}'),
    ("POST", "/o/y/compose?destinationPredefinedAcl=private", b'{"sourceObjects":[{"name":"x"}]}'),
    ("POST", "/o/x/rewriteTo/b/{}/o/y?dropContextGroups=custom", b"{}"),
    ("PATCH", "", b'{"ipFilter":{"mode":"Enabled"}}'), ("PUT", "", b'{"autoclass":{"enabled":true}}'),
    ("GET", "/o/x/acl", None), ("GET", "/folders", None), ("GET", "/anywhereCaches", None),
])
def test_not_implemented_on_the_wire(raw: Raw, bucket: Any, verb: str, path: str, body: bytes | None) -> None:
    bucket.blob("x").upload_from_string(b"kept")
    reply = raw(verb, f"/storage/v1/b/{bucket.name}{path}".format(bucket.name), body)
    assert (reply.status, "not implemented" in reply.json["error"]["message"]) == (501, True)
    assert [one.name for one in bucket.list_blobs()] == ["x"]
    assert bucket.get_blob("x").metageneration == 1


def test_hierarchical_namespace(client: Any, bucket: Any) -> None:
    wanted = client.bucket(bucket.name + "-2")
    wanted.hierarchical_namespace_enabled = True
    wanted.iam_configuration.uniform_bucket_level_access_enabled = True
    with pytest.raises(exceptions.MethodNotImplemented, match="Hierarchical"):
        client.create_bucket(wanted)
    assert not wanted.exists()


def test_switched_off_is_what_it_is(client: Any, bucket: Any) -> None:
    bucket.versioning_enabled = False
    bucket.default_event_based_hold = False
    bucket.patch()
    assert not client.get_bucket(bucket.name).versioning_enabled


@pytest.mark.parametrize("query", [
    "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=c&X-Goog-Signature=00", "GoogleAccessId=a&Signature=b",
    "acl", "tagging", "response-content-type=a",
])
@pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE"])
def test_signed_urls_and_other_resources(raw: Raw, bucket: Any, query: str, verb: str) -> None:
    bucket.blob("x").upload_from_string(b"kept")
    reply = raw(verb, f"/{bucket.name}/x?{query}", b"new" if verb == "PUT" else None)
    assert reply.status == 501
    assert bucket.blob("x").download_as_bytes() == b"kept"


def test_requester_pays_by_either_api(raw: Raw, client: Any, bucket: Any) -> None:
    bucket.blob("x").upload_from_string(b"content")
    bucket.requester_pays = True
    bucket.patch()
    with pytest.raises(exceptions.BadRequest, match="requester pays"):
        client.bucket(bucket.name).blob("x").download_as_bytes()
    assert raw("GET", f"/{bucket.name}/x").status == 400
    assert raw("GET", f"/{bucket.name}/x", X_Goog_User_Project="p").content == b"content"
    paying = client.bucket(bucket.name, user_project="p")
    assert paying.blob("x").download_as_bytes() == b"content"
    with pytest.raises(exceptions.BadRequest, match="requester pays"):
        client.bucket(bucket.name).copy_blob(paying.blob("x"), client.bucket(bucket.name), "y")
    assert paying.copy_blob(paying.blob("x"), paying, "y").name == "y"
