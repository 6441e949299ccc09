"""Cloud Storage's JSON API over the object store: buckets here, objects and uploads in their own modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcpod.localcloud import storage_objects
from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api
from gcpod.localcloud.messages import Call, Reply
from gcpod.localcloud.records import InvalidRequestError
from gcpod.localcloud.sessions import Sessions
from gcpod.localcloud.storage_common import (
    IAM_POLICY,
    bucket_resource,
    bucket_settings,
    conditions,
    location_type,
    number,
    paid,
    patched,
    project_number,
    storage_handler,
)
from gcpod.localcloud.storage_limits import limited
from gcpod.localcloud.storage_uploads import Uploads
from gcpod.localcloud.storage_xml import XmlApi
from gcpod.localcloud.store import Store

_BUCKET_MAPS = ("labels", "iamConfiguration")
_MAX_BUCKETS_PAGE = 1000


def storage_api(store: Store) -> Api:
    """The storage service over a store: JSON API, uploads, and the XML API's paths as fallback."""
    sessions = Sessions(store)
    api = Api(load("storage.v1"), fallback=XmlApi(store).answer)
    uploads = Uploads(store, sessions, api.document)
    api.handler("storage.objects.insert")(storage_handler(uploads.answer))
    storage_objects.register(api, store)
    buckets = _Buckets(store)
    handlers = {
        "buckets.insert": buckets.insert,
        "buckets.get": buckets.get,
        "buckets.list": buckets.list,
        "buckets.patch": buckets.patch,
        "buckets.update": buckets.update,
        "buckets.delete": buckets.delete,
        "buckets.getIamPolicy": buckets.get_policy,
        "buckets.setIamPolicy": buckets.set_policy,
        "buckets.testIamPermissions": buckets.test_permissions,
        "buckets.getStorageLayout": buckets.layout,
        "managedFolders.list": buckets.managed_folders,
        "projects.serviceAccount.get": _service_account,
    }
    for name, function in handlers.items():
        api.handler(f"storage.{name}")(storage_handler(function))
    api.handlers = {name: paid(store, limited(handler)) for name, handler in api.handlers.items()}
    return api


class _Buckets:
    """Handlers of ``storage.buckets`` (https://cloud.google.com/storage/docs/json_api/v1/buckets)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def insert(self, call: Call) -> Reply:
        resource = _object_body(call)
        name = resource.get("name")
        if not name:
            raise ApiError(400, "Required", "required")
        bucket = self._store.create_bucket(name, call.query["project"], bucket_settings(resource))
        return Reply(value=bucket_resource(bucket, call.base_url))

    def get(self, call: Call) -> Reply:
        bucket = self._store.bucket(call.path["bucket"], conditions(call.query))
        return Reply(value=bucket_resource(bucket, call.base_url))

    def list(self, call: Call) -> Reply:
        limit = min(number(call.query, "maxResults") or _MAX_BUCKETS_PAGE, _MAX_BUCKETS_PAGE)
        after, project = call.query.get("pageToken", ""), call.query["project"]
        found = [
            one
            for one in self._store.buckets(call.query.get("prefix", ""))
            if one.name > after and one.project == project
        ]
        answer: dict[str, Any] = {"kind": "storage#buckets"}
        if found:
            answer["items"] = [bucket_resource(one, call.base_url) for one in found[:limit]]
        if len(found) > limit:
            answer["nextPageToken"] = found[limit - 1].name
        return Reply(value=answer)

    def patch(self, call: Call) -> Reply:
        change = {**dict.fromkeys(_nulls(call)), **bucket_settings(_object_body(call))}
        return self._changed(call, lambda old: patched(old, change, _BUCKET_MAPS))

    def update(self, call: Call) -> Reply:
        settings = bucket_settings(_object_body(call))
        return self._changed(call, lambda old: {**_lasting(old), **settings})

    def _changed(self, call: Call, edit: Any) -> Reply:
        bucket = self._store.change_bucket(call.path["bucket"], edit, conditions(call.query))
        return Reply(value=bucket_resource(bucket, call.base_url))

    def delete(self, call: Call) -> Reply:
        self._store.delete_bucket(call.path["bucket"], conditions(call.query))
        return Reply(204)

    def layout(self, call: Call) -> Reply:
        resource = bucket_resource(self._store.bucket(call.path["bucket"]), call.base_url)
        return Reply(
            value={
                "kind": "storage#storageLayout",
                "bucket": resource["name"],
                "location": resource["location"],
                "locationType": location_type(resource["location"]),
                "hierarchicalNamespace": {"enabled": False},
            }
        )

    def managed_folders(self, call: Call) -> Reply:
        self._store.bucket(call.path["bucket"])
        return Reply(value={"kind": "storage#managedFolders"})

    def get_policy(self, call: Call) -> Reply:
        bucket = self._store.bucket(call.path["bucket"])
        empty = {"kind": "storage#policy", "version": 1, "etag": "CAE="}
        return Reply(
            value={**empty, "resourceId": f"projects/_/buckets/{bucket.name}", **bucket.settings.get(IAM_POLICY, {})}
        )

    def set_policy(self, call: Call) -> Reply:
        policy = _object_body(call)
        self._store.change_bucket(call.path["bucket"], lambda old: {**old, IAM_POLICY: policy}, conditions(call.query))
        return self.get_policy(call)

    def test_permissions(self, call: Call) -> Reply:
        self._store.bucket(call.path["bucket"])
        granted = call.query.getlist("permissions")
        return Reply(value={"kind": "storage#testIamPermissionsResponse", "permissions": granted})


def _service_account(call: Call) -> Reply:
    address = f"service-{project_number(call.path['projectId'])}@gs-project-accounts.iam.gserviceaccount.com"
    return Reply(value={"kind": "storage#serviceAccount", "email_address": address})


def _object_body(call: Call) -> Mapping[str, Any]:
    if not isinstance(call.json, dict):
        raise InvalidRequestError("Required")
    return call.json


def _nulls(call: Call) -> list[str]:
    return [name for name, value in _object_body(call).items() if value is None]


def _lasting(old: Mapping[str, Any]) -> dict[str, Any]:
    # Where a bucket lies and who may use it are not part of a metadata update.
    return {name: old[name] for name in ("location", "customPlacementConfig", IAM_POLICY) if name in old}
