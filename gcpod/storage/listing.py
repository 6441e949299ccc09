"""Listings of a bucket, on a channel: Google's client takes longer to import than a whole listing takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gcpod.storage.channel import Channel
from gcpod.storage.patience import Patience, checked
from gcpod.storage.plan import ObjectInfo
from gcpod.uris import GcsUri

_FIELDS = "items(name,size,generation,crc32c,metadata),nextPageToken"
PAGE_SIZE = 1000
"""The most that the service gives (https://cloud.google.com/storage/docs/json_api/v1/objects/list)."""


def list_objects(channel: Channel, uri: GcsUri, prefix: str, before: str = "") -> Iterator[ObjectInfo]:
    """The objects of a bucket whose names start so, in the order of their names.

    Args:
        channel: is asked.
        uri: in that bucket; and for errors.
        prefix: of their names.
        before: only names that sort before it; "" for all.

    Raises:
        StorageError, AuthError, OutageError: they cannot be listed.
    """
    token = ""
    while True:
        page = _page(channel, uri, prefix, before, token)
        for item in page.get("items", []):
            yield ObjectInfo(
                GcsUri(uri.bucket, item["name"]), int(item["size"]), int(item["generation"]),
                item.get("crc32c", ""), item.get("metadata", {}),
            )
        token = page.get("nextPageToken", "")
        if not token:
            return


def _page(channel: Channel, uri: GcsUri, prefix: str, before: str, token: str) -> dict[str, Any]:
    query = {"prefix": prefix, "endOffset": before, "pageToken": token, "maxResults": PAGE_SIZE, "fields": _FIELDS}
    path = channel.line.path("/storage/v1", GcsUri(uri.bucket), query)

    def attempt() -> dict[str, Any]:
        return checked(channel.ask("GET", path), "listing", uri).resource()

    return Patience(channel.traffic, "listing", uri).run(attempt)
