"""Handlers of ``storage.objects`` (https://cloud.google.com/storage/docs/json_api/v1/objects), uploads excepted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.http import Api
from gcpod.localcloud.listing import MAX_PAGE, ListQuery
from gcpod.localcloud.messages import Call, Reply
from gcpod.localcloud.records import ComposeSource, ObjectMeta, PreconditionError, Preconditions
from gcpod.localcloud.routing import RouteKind
from gcpod.localcloud.storage_common import (
    conditions,
    etag,
    flag,
    number,
    object_resource,
    object_settings,
    patched,
    storage_handler,
)
from gcpod.localcloud.storage_media import download
from gcpod.localcloud.store import Store
from gcpod.localcloud.store_buckets import Settings

_OBJECT_MAPS = ("metadata",)


def register(api: Api, store: Store) -> None:
    """Adds the handlers to a service."""
    objects = _Objects(store)
    handlers = {
        "get": objects.get,
        "list": objects.list,
        "patch": objects.patch,
        "update": objects.update,
        "delete": objects.delete,
        "compose": objects.compose,
        "rewrite": objects.rewrite,
        "copy": objects.copy,
        "move": objects.move,
    }
    for name, function in handlers.items():
        api.handler(f"storage.objects.{name}")(storage_handler(function))


class _Objects:
    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, call: Call) -> Reply:
        bucket, name, wanted = call.path["bucket"], call.path["object"], conditions(call.query)
        generation = number(call.query, "generation")
        if call.kind is RouteKind.PLAIN and call.query.get("alt", "json") == "json":
            meta = self._store.get(bucket, name, generation, wanted)
            refusal = _by_etag(call, meta)
            tag = {"ETag": etag(meta.generation, meta.metageneration)}
            return refusal or Reply(value=object_resource(meta, call.base_url), headers=tag)
        meta, file = self._store.open(bucket, name, generation, wanted)
        try:
            refusal = _by_etag(call, meta)
        except PreconditionError:
            file.close()
            raise
        if refusal is not None:
            file.close()
            return refusal
        return download(meta, file, call.headers)

    def list(self, call: Call) -> Reply:
        query = call.query
        page = self._store.list(
            call.path["bucket"],
            ListQuery(
                query.get("prefix", ""),
                query.get("delimiter", ""),
                flag(query, "includeTrailingDelimiter"),
                query.get("startOffset", ""),
                query.get("endOffset", ""),
                query.get("matchGlob", ""),
                number(query, "maxResults") or MAX_PAGE,
                query.get("pageToken", ""),
            ),
        )
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if page.objects:
            answer["items"] = [object_resource(one, call.base_url) for one in page.objects]
        if page.prefixes:
            answer["prefixes"] = list(page.prefixes)
        if page.next_token is not None:
            answer["nextPageToken"] = page.next_token
        return Reply(value=answer)

    def patch(self, call: Call) -> Reply:
        given = call.json or {}
        change = {**{name: None for name, value in given.items() if value is None}, **object_settings(given)}
        return self._changed(call, lambda old: patched(old, change, _OBJECT_MAPS))

    def update(self, call: Call) -> Reply:
        settings = object_settings(call.json)
        return self._changed(call, lambda old: {**{name: old[name] for name in _LASTING if name in old}, **settings})

    def _changed(self, call: Call, edit: Callable[[Settings], Settings]) -> Reply:
        def checked(old: Settings) -> Settings:
            new = edit(old)
            _check_custom_time(old.get("customTime"), new.get("customTime"))
            return new

        generation, wanted = number(call.query, "generation"), conditions(call.query)
        meta = self._store.change_object(call.path["bucket"], call.path["object"], checked, generation, wanted)
        return Reply(value=object_resource(meta, call.base_url))

    def delete(self, call: Call) -> Reply:
        generation, wanted = number(call.query, "generation"), conditions(call.query)
        self._store.delete(call.path["bucket"], call.path["object"], generation, wanted)
        return Reply(204)

    def compose(self, call: Call) -> Reply:
        request = call.json or {}
        bucket, destination = call.path["destinationBucket"], request.get("destination")
        sources = [_compose_source(one or {}) for one in request.get("sourceObjects") or []]
        settings = None if destination is None else object_settings(destination)
        if call.query.get("kmsKeyName"):
            settings = {**(settings or {}), "kmsKeyName": call.query["kmsKeyName"]}
        name = call.path["destinationObject"]
        meta = self._store.compose(bucket, name, sources, settings, conditions(call.query))
        if request.get("deleteSourceObjects"):
            for one in {source.name for source in sources} - {name}:
                self._store.delete(bucket, one)
        return Reply(value=object_resource(meta, call.base_url))

    def rewrite(self, call: Call) -> Reply:
        resource = self._copied(call)
        size = resource["size"]
        return Reply(
            value={
                "kind": "storage#rewriteResponse",
                "totalBytesRewritten": size,
                "objectSize": size,
                "done": True,
                "resource": resource,
            }
        )

    def copy(self, call: Call) -> Reply:
        return Reply(value=self._copied(call))

    def _copied(self, call: Call) -> dict[str, Any]:
        source = self._store.get(
            call.path["sourceBucket"],
            call.path["sourceObject"],
            number(call.query, "sourceGeneration"),
            _strict(conditions(call.query, "ifSource"), call, self._store),
        )
        settings = object_settings(call.json)
        if not set(settings) - {"storageClass", "kmsKeyName"}:
            settings = {
                **{name: value for name, value in source.settings.items() if name not in _NOT_COPIED},
                **settings,
            }
        if "destinationKmsKeyName" in call.query:
            settings["kmsKeyName"] = call.query["destinationKmsKeyName"]
        meta = self._store.copy(
            source, call.path["destinationBucket"], call.path["destinationObject"], settings, conditions(call.query)
        )
        return object_resource(meta, call.base_url)

    def move(self, call: Call) -> Reply:
        meta = self._store.move(
            call.path["bucket"],
            call.path["sourceObject"],
            call.path["destinationObject"],
            conditions(call.query, "ifSource"),
            conditions(call.query),
        )
        return Reply(value=object_resource(meta, call.base_url))


_LASTING = ("storageClass", "customTime", "kmsKeyName")
_NOT_COPIED = ("acl", "storageClass", "kmsKeyName", "eventBasedHold", "temporaryHold", "retention")


def _strict(wanted: Preconditions, call: Call, store: Store) -> Preconditions:
    # On the source of a copy a not-match condition that fails is 412, not the 304 of a plain read.
    if wanted.generation_not_match is None and wanted.metageneration_not_match is None:
        return wanted
    meta = store.get(call.path["sourceBucket"], call.path["sourceObject"], number(call.query, "sourceGeneration"))
    wanted.check(meta.generation, meta.metageneration)
    return wanted


def _check_custom_time(old: str | None, new: str | None) -> None:
    # https://cloud.google.com/storage/docs/metadata#custom-time
    if old is not None and (new is None or _moment(new) < _moment(old)):
        raise ApiError(400, "Custom time cannot be removed or set to an earlier date time.")


def _moment(text: str) -> datetime:
    whole, _, rest = text.partition(".")
    zone = rest.lstrip("0123456789") or whole[19:]
    fraction = rest[: len(rest) - len(rest.lstrip("0123456789"))][:6].ljust(6, "0")
    try:
        return datetime.fromisoformat(f"{whole[:19]}.{fraction}{zone.replace('Z', '+00:00')}")
    except ValueError:
        raise ApiError(400, f"Invalid custom time: {text}") from None


def _compose_source(told: dict[str, Any]) -> ComposeSource:
    if not told.get("name"):
        raise ApiError(400, "Required", "required")
    generation, wanted = told.get("generation"), (told.get("objectPreconditions") or {}).get("ifGenerationMatch")
    return ComposeSource(
        told["name"], None if generation is None else int(generation), None if wanted is None else int(wanted)
    )


def _by_etag(call: Call, meta: ObjectMeta) -> Reply | None:
    tags = (etag(meta.generation, meta.metageneration), "*")
    wanted, unwanted = call.headers.get("if-match"), call.headers.get("if-none-match")
    if wanted is not None and not any(one.strip().strip('"') in tags for one in wanted.split(",")):
        raise PreconditionError
    if unwanted is not None and any(one.strip().strip('"') in tags for one in unwanted.split(",")):
        return Reply(304)
    return None
