"""What the local cloud does not keep of Cloud Storage: refused in clear words, for a 200 would promise it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

from starlette.datastructures import Headers, QueryParams

from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.messages import Call, Reply

_PARAMETERS = {
    "predefinedAcl": "Access control lists",
    "destinationPredefinedAcl": "Access control lists",
    "predefinedDefaultObjectAcl": "Access control lists",
    "softDeleted": "Soft delete",
    "restoreToken": "Soft delete",
    "enableObjectRetention": "Object retention",
    "filter": "Listing by object contexts",
    "dropContextGroups": "Dropping object contexts",
}
_FIELDS = {
    "acl": "Access control lists",
    "defaultObjectAcl": "Access control lists",
    "defaultEventBasedHold": "Default event-based holds",
    "ipFilter": "IP filters",
    "retention": "Object retention",
    "retentionPolicy": "Retention policies",
}
_SWITCHES = {
    "autoclass": "Autoclass",
    "hierarchicalNamespace": "Hierarchical namespace",
    "versioning": "Object Versioning",
}
_KEY_HEADERS = ("x-goog-encryption-key", "x-goog-copy-source-encryption-key")


def limited(function: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
    """Refuses a request that asks for what is not kept here, before the handler sees it."""

    @functools.wraps(function)
    def guarded(call: Call) -> Reply:
        refuse_parameters(call.query)
        refuse_customer_keys(call.headers)
        if isinstance(call.json, dict):
            refuse_fields(call.json)
            refuse_fields(call.json.get("destination") or {})
        return function(call)

    return guarded


def refuse_parameters(query: QueryParams) -> None:
    """
    Raises:
        ApiError: 501, a query parameter asks for what is not kept; 400, a rewrite token, as every rewrite here ends in
            one call and gives none.
    """
    for name, feature in _PARAMETERS.items():
        if query.get(name, "").lower() not in ("", "false"):
            raise _missing(feature, name)
    if query.get("rewriteToken"):
        raise ApiError(400, "Invalid rewriteToken: it belongs to no rewrite under way.")


def refuse_fields(resource: Mapping[str, Any]) -> None:
    """
    Raises:
        ApiError: 501, a field of a bucket or an object asks for what is not kept.
    """
    for name, feature in _FIELDS.items():
        if resource.get(name) not in (None, False):
            raise _missing(feature, name)
    for name, feature in _SWITCHES.items():
        if (resource.get(name) or {}).get("enabled"):
            raise _missing(feature, f"{name}.enabled")


def refuse_customer_keys(headers: Headers) -> None:
    """Objects under a customer-supplied key are not kept here.

    Raises:
        ApiError: 501, the request brings such a key.
    """
    if any(name in headers for name in _KEY_HEADERS):
        raise ApiError(501, "Customer-supplied encryption keys are not implemented by the local cloud.")


def refuse_xml(query: QueryParams, headers: Headers, known: Collection[str]) -> None:
    """The same for the XML API, where an unknown parameter means another resource than the object's bytes.

    Raises:
        ApiError: 501; signed URLs among them, as nothing here could tell a good signature from a bad one.
    """
    refuse_customer_keys(headers)
    if "X-Goog-Signature" in query or "Signature" in query:
        raise ApiError(501, "Signed URLs are not implemented by the local cloud.")
    for name in query:
        if name not in known:
            raise _missing("This resource of the XML API", name)
    if "x-goog-acl" in headers:
        raise _missing("Access control lists", "x-goog-acl")


def _missing(feature: str, name: str) -> ApiError:
    return ApiError(501, f"{feature} ({name}): not implemented by the local cloud.")
