"""Object uploads of the JSON API: media, multipart and resumable (https://cloud.google.com/storage/docs/uploads-downloads)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import Headers

from gcpod.localcloud import bodies
from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.bodies import RawBody
from gcpod.localcloud.discovery import Document
from gcpod.localcloud.messages import Call, Reply
from gcpod.localcloud.records import InvalidRequestError, ObjectMeta
from gcpod.localcloud.schema import check_body
from gcpod.localcloud.sessions import Checksums, ContentRange, Intent, Sessions
from gcpod.localcloud.storage_common import conditions, object_resource, object_settings
from gcpod.localcloud.storage_limits import refuse_fields
from gcpod.localcloud.store import Store, check_object_name

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)", re.ASCII)


class Uploads:
    """The handler of ``storage.objects.insert`` and of the sessions it opens."""

    def __init__(self, store: Store, sessions: Sessions, document: Document) -> None:
        self._store, self._sessions, self._document = store, sessions, document

    def answer(self, call: Call) -> Reply:
        """Takes any request to an upload path.

        Raises:
            ApiError: 400, 404, 410, 412 and 499, as the service does.
        """
        body = call.body
        if body is None:
            raise ApiError(400, "Upload requests must be sent to an /upload path.", "badRequest")
        if "upload_id" in call.query:
            return self._continue(call, body)
        if call.verb != "POST":
            raise ApiError(400, "An upload_id is needed to continue an upload.", "badRequest")
        kind = call.query.get("uploadType", "")
        if kind == "resumable":
            return self._start(call, body)
        if not body.complete:
            raise ApiError(400, "The request body ended early.", "badRequest")
        if kind == "media":
            return self._media(call, body)
        if kind == "multipart":
            return self._multipart(call, body)
        raise ApiError(400, f"Invalid uploadType: '{kind}'", "badRequest")

    def _media(self, call: Call, body: RawBody) -> Reply:
        resource = {"contentType": call.headers.get("content-type", "application/octet-stream")}
        intent = self._intent(call, resource, body.size)
        return self._stored(call, intent, body, 0, None)

    def _multipart(self, call: Call, body: RawBody) -> Reply:
        boundary = bodies.boundary_of(call.headers.get("content-type", ""))
        with body.open() as file:
            metadata, media = bodies.split_related(file, body.size, boundary)
            file.seek(metadata.start)
            resource = self._resource(file.read(metadata.end - metadata.start))
        if media.headers.get("content-type"):
            resource = {"contentType": media.headers["content-type"], **resource}
        intent = self._intent(call, resource, media.end - media.start)
        return self._stored(call, intent, body, media.start, media.end)

    def _stored(self, call: Call, intent: Intent, body: RawBody, start: int, end: int | None) -> Reply:
        check_object_name(intent.name)
        self._store.bucket(intent.bucket)
        blob = self._store.blobs.keep(body, start, end)
        try:
            intent.checksums.merged(checksums_of(call.headers)).check(blob)
        except InvalidRequestError:
            self._store.blobs.remove(blob.name)
            raise
        return _object_reply(
            self._store.insert(intent.bucket, intent.name, blob, intent.settings, intent.conditions), call
        )

    def _start(self, call: Call, body: RawBody) -> Reply:
        with body.open() as file:
            resource = self._resource(file.read())
        announced = call.headers.get("x-upload-content-type")
        if announced:
            resource = {"contentType": announced, **resource}
        length = call.headers.get("x-upload-content-length", "")
        if length and not re.fullmatch(r"\d{1,18}", length, re.ASCII):
            raise ApiError(400, f"Invalid X-Upload-Content-Length: '{length}'")
        upload = self._sessions.start(self._intent(call, resource, int(length) if length else None))
        query = urlencode({"uploadType": "resumable", "name": call.query.get("name", ""), "upload_id": upload})
        location = f"{call.base_url}{call.raw_path}?{query}"
        return Reply(200, headers={"Location": location, "X-GUploader-UploadID": upload})

    def _continue(self, call: Call, body: RawBody) -> Reply:
        upload = call.query["upload_id"]
        if call.verb == "DELETE":
            self._sessions.cancel(upload)
            return Reply(499)
        place = _content_range(call.headers.get("content-range"))
        done = self._sessions.append(upload, place, body, checksums_of(call.headers))
        if isinstance(done, ObjectMeta):
            return _object_reply(done, call)
        headers = {"X-GUploader-UploadID": upload, **({"Range": f"bytes=0-{done - 1}"} if done else {})}
        if call.headers.get("x-guploader-no-308") == "yes":
            return Reply(200, headers={**headers, "X-HTTP-Status-Code-Override": "308"})
        return Reply(308, headers=headers)

    def _resource(self, content: bytes) -> dict[str, Any]:
        value = bodies.parse_json(content)
        checked = check_body(self._document, "Object", value) if value is not None else {}
        refuse_fields(checked)
        return {name: one for name, one in checked.items() if one is not None}

    def _intent(self, call: Call, resource: Mapping[str, Any], size: int | None) -> Intent:
        name = call.query.get("name") or resource.get("name")
        if not name:
            raise ApiError(400, "Required", "required")
        settings = object_settings(resource)
        for parameter in ("contentEncoding", "kmsKeyName"):
            if call.query.get(parameter):
                settings[parameter] = call.query[parameter]
        expected = Checksums(resource.get("crc32c"), resource.get("md5Hash")).merged(checksums_of(call.headers))
        return Intent(call.path["bucket"], name, settings, conditions(call.query), expected, size)


def checksums_of(headers: Headers) -> Checksums:
    """What ``X-Goog-Hash`` and ``Content-MD5`` announce (https://cloud.google.com/storage/docs/xml-api/reference-headers)."""
    found = {"md5": headers.get("content-md5")}
    for value in headers.getlist("x-goog-hash"):
        for one in value.split(","):
            name, _, checksum = one.strip().partition("=")
            found[name.lower()] = checksum
    return Checksums(found.get("crc32c"), found.get("md5"))


def _content_range(text: str | None) -> ContentRange | None:
    if text is None:
        return None
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        raise ApiError(400, f"Invalid Content-Range: '{text}'")
    total = None if found[3] == "*" else int(found[3])
    if found[1] is None:
        return ContentRange(None, 0, total)
    if int(found[2]) < int(found[1]):
        raise ApiError(400, f"Invalid Content-Range: '{text}'")
    return ContentRange(int(found[1]), int(found[2]) + 1, total)


def _object_reply(meta: ObjectMeta, call: Call) -> Reply:
    resource = object_resource(meta, call.base_url)
    checksums = f"crc32c={meta.crc32c}" + (f",md5={meta.md5}" if meta.md5 else "")
    return Reply(200, resource, headers={"ETag": resource["etag"], "X-Goog-Hash": checksums})
