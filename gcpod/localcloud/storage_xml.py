"""The part of Cloud Storage's XML API that clients of the JSON API use: ``/BUCKET/OBJECT`` and multipart uploads.

TensorFlow reads objects by it, google-cloud-storage's transfer manager sends parallel parts by it
(https://cloud.google.com/storage/docs/xml-api/reference-methods, https://cloud.google.com/storage/docs/multipart-uploads).
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring
from starlette.datastructures import Headers

from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.blobs import read_range
from gcpod.localcloud.bodies import RawBody
from gcpod.localcloud.discovery import decode
from gcpod.localcloud.messages import Call, Reply
from gcpod.localcloud.records import (
    InvalidRequestError,
    NoSuchBucketError,
    NoSuchObjectError,
    NoSuchUploadError,
    NotModifiedError,
    ObjectMeta,
    Preconditions,
    StoreError,
    Upload,
)
from gcpod.localcloud.storage_common import check_paid, to_api_error
from gcpod.localcloud.storage_limits import refuse_xml
from gcpod.localcloud.storage_media import download, header_text
from gcpod.localcloud.storage_uploads import checksums_of
from gcpod.localcloud.store import Store, check_object_name

_PATH = re.compile(r"/([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/(.+)", re.DOTALL)
_LEAST_PART_BYTES = 5 << 20
_MAX_PART = 10_000
_PARAMETERS = frozenset(("generation", "partNumber", "uploadId", "uploads", "userProject"))
_XML = "application/xml; charset=UTF-8"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_CODES = {
    400: "InvalidArgument",
    404: "NoSuchKey",
    409: "Conflict",
    410: "NoSuchUpload",
    412: "PreconditionFailed",
    416: "InvalidRange",
    499: "NoSuchUpload",
    501: "NotImplemented",
}
_STORE_CODES: dict[type[Exception], str] = {NoSuchBucketError: "NoSuchBucket", NoSuchUploadError: "NoSuchUpload"}
_SETTING_HEADERS = {
    "content-type": "contentType",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "content-disposition": "contentDisposition",
    "cache-control": "cacheControl",
    "x-goog-storage-class": "storageClass",
    "x-goog-encryption-kms-key-name": "kmsKeyName",
}


class XmlApi:
    """Answers ``/BUCKET/OBJECT``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def answer(self, call: Call) -> Reply | None:
        """The reply, in XML when it is a refusal; None for a path that is no object's."""
        found = _PATH.fullmatch(call.raw_path)
        if found is None or call.body is None:
            return None
        try:
            return self._dispatch(call, call.body, found[1], decode(found[2]))
        except NotModifiedError:
            return Reply(304)
        except (StoreError, ApiError) as refusal:
            return _refusal(refusal)

    def _dispatch(self, call: Call, body: RawBody, bucket: str, name: str) -> Reply:
        refuse_xml(call.query, call.headers, _PARAMETERS)
        check_paid(self._store, bucket, call)
        upload, part = call.query.get("uploadId"), call.query.get("partNumber")
        if not body.complete:
            raise ApiError(400, "The request body ended early.")
        if call.verb in ("GET", "HEAD") and upload is None:
            return self._read(call, bucket, name)
        if call.verb == "POST" and "uploads" in call.query:
            return self._initiate(call, bucket, name)
        if upload is None and call.verb in ("PUT", "DELETE"):
            return self._put(call, body, bucket, name) if call.verb == "PUT" else self._delete(call, bucket, name)
        if upload is None:
            raise ApiError(501, f"{call.verb} of an object is not implemented by the local cloud.")
        found = self._upload(upload, bucket, name)
        if call.verb == "PUT" and part is not None:
            return self._put_part(call, body, found, part)
        if call.verb == "POST":
            return self._complete(body, found)
        if call.verb == "DELETE":
            return self._abort(found)
        raise ApiError(501, f"{call.verb} of an upload is not implemented by the local cloud.")

    def _read(self, call: Call, bucket: str, name: str) -> Reply:
        meta, file = self._store.open(bucket, name, _number(call.query.get("generation")), _conditions(call.headers))
        reply = download(meta, file, call.headers, head_only=call.verb == "HEAD", entity=_entity(meta))
        custom = {
            f"x-goog-meta-{key}": header_text(value)
            for key, value in (meta.settings.get("metadata") or {}).items()
            if re.fullmatch(r"[A-Za-z0-9_.-]+", key)
        }
        return Reply(reply.status, content=reply.content, headers={**reply.headers, **custom}, stream=reply.stream)

    def _put(self, call: Call, body: RawBody, bucket: str, name: str) -> Reply:
        if "x-goog-copy-source" in call.headers:
            raise ApiError(501, "Copies by the XML API are not implemented by the local cloud.")
        check_object_name(name)
        self._store.bucket(bucket)
        blob = self._store.blobs.keep(body)
        try:
            checksums_of(call.headers).check(blob)
        except InvalidRequestError:
            self._store.blobs.remove(blob.name)
            raise
        meta = self._store.insert(bucket, name, blob, _settings(call.headers), _conditions(call.headers))
        return Reply(200, headers=_stored_headers(meta))

    def _delete(self, call: Call, bucket: str, name: str) -> Reply:
        self._store.delete(bucket, name, _number(call.query.get("generation")), _conditions(call.headers))
        return Reply(204)

    def _initiate(self, call: Call, bucket: str, name: str) -> Reply:
        check_object_name(name)
        self._store.bucket(bucket)
        request = {"settings": _settings(call.headers)}
        upload = Upload(uuid.uuid4().hex, "multipart", bucket, name, "", self._store.clock(), "open", None, request)
        with self._store.database.change() as change:
            change.put_upload(upload)
        return _xml("InitiateMultipartUploadResult", {"Bucket": bucket, "Key": name, "UploadId": upload.id})

    def _upload(self, upload: str, bucket: str, name: str) -> Upload:
        with self._store.database.view() as view:
            found = view.upload(upload)
        if (
            found is None
            or found.kind != "multipart"
            or found.state != "open"
            or (found.bucket, found.name) != (bucket, name)
        ):
            raise NoSuchUploadError
        return found

    def _put_part(self, call: Call, body: RawBody, found: Upload, part: str) -> Reply:
        number = _number(part)
        if number is None or not 1 <= number <= _MAX_PART:
            raise ApiError(400, f"Part number must be an integer between 1 and {_MAX_PART}, inclusive.")
        blob = self._store.blobs.keep(body)
        entity = f'"{base64.b64decode(blob.md5 or "").hex()}"'
        try:
            checksums_of(call.headers).check(blob)
            with self._store.database.change() as change:
                current = change.upload(found.id)
                if current is None or current.state != "open":
                    raise NoSuchUploadError
                old = [one for one in change.parts(found.id) if one[0] == number]
                change.put_part(found.id, (number, blob.name, blob.size, entity))
        except BaseException:
            self._store.blobs.remove(blob.name)
            raise
        for one in old:
            self._store.blobs.remove(one[1])
        return Reply(200, headers={"ETag": entity, "X-Goog-Hash": f"crc32c={blob.crc32c},md5={blob.md5}"})

    def _complete(self, body: RawBody, found: Upload) -> Reply:
        with self._store.database.view() as view:
            have = {number: (blob, size, entity) for number, blob, size, entity in view.parts(found.id)}
        wanted = _listed_parts(body)
        for place, (number, entity) in enumerate(wanted):
            blob, size, own = have.get(number, ("", 0, ""))
            if not blob or entity.strip('"') != own.strip('"'):
                raise ApiError(400, f"Part {number} was not uploaded, or its ETag differs.", "InvalidPart")
            if size < _LEAST_PART_BYTES and place < len(wanted) - 1:
                raise ApiError(
                    400, f"Part {number} is smaller than the minimum allowed size of 5 MiB.", "EntityTooSmall"
                )
        blob_made = self._store.blobs.write(self._bytes([have[number][:2] for number, _ in wanted]), with_md5=False)
        meta = self._store.insert(found.bucket, found.name, blob_made, found.request["settings"], upload=found.id)
        for blob, _, _ in have.values():
            self._store.blobs.remove(blob)
        return _xml(
            "CompleteMultipartUploadResult",
            {
                "Location": f"http://storage.googleapis.com/{found.bucket}/{found.name}",
                "Bucket": found.bucket,
                "Key": found.name,
                "ETag": _entity(meta),
            },
            _stored_headers(meta),
        )

    def _bytes(self, parts: list[tuple[str, int]]) -> Iterator[bytes]:
        for blob, size in parts:
            with self._store.blobs.path(blob).open("rb") as file:
                yield from read_range(file, 0, size)

    def _abort(self, found: Upload) -> Reply:
        with self._store.database.change() as change:
            parts = change.parts(found.id)
            change.end_upload(found.id, "cancelled")
        for _, blob, _, _ in parts:
            self._store.blobs.remove(blob)
        return Reply(204)


def _listed_parts(body: RawBody) -> list[tuple[int, str]]:
    with body.open() as file:
        content = file.read(4 << 20)
    try:
        root: Any = fromstring(content)
        parts = [({child.tag.rpartition("}")[2]: (child.text or "").strip() for child in one}) for one in root]
        listed = [(int(one["PartNumber"]), one["ETag"]) for one in parts]
    except (ParseError, DefusedXmlException, KeyError, ValueError, LookupError):
        raise ApiError(400, "The XML you provided was not well-formed or did not validate.", "MalformedXML") from None
    numbers = [number for number, _ in listed]
    if not listed or numbers != sorted(set(numbers)):
        raise ApiError(400, "The list of parts was not in ascending order, or is empty.", "InvalidPartOrder")
    return listed


def _settings(headers: Headers) -> dict[str, Any]:
    settings: dict[str, Any] = {field: headers[name] for name, field in _SETTING_HEADERS.items() if headers.get(name)}
    metadata = {
        name.removeprefix("x-goog-meta-"): value for name, value in headers.items() if name.startswith("x-goog-meta-")
    }
    return {**settings, "metadata": metadata} if metadata else settings


def _conditions(headers: Headers) -> Preconditions:
    return Preconditions(
        _number(headers.get("x-goog-if-generation-match")),
        None,
        _number(headers.get("x-goog-if-metageneration-match")),
        None,
    )


def _number(text: str | None) -> int | None:
    if text is not None and not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise ApiError(400, f"Invalid argument: {text}")
    return None if text is None else int(text)


def _entity(meta: ObjectMeta) -> str:
    if meta.md5 is not None:
        return f'"{base64.b64decode(meta.md5).hex()}"'
    return f'"{hashlib.md5(f"{meta.generation}".encode(), usedforsecurity=False).hexdigest()}-1"'


def _stored_headers(meta: ObjectMeta) -> dict[str, str]:
    checksums = f"crc32c={meta.crc32c}" + (f",md5={meta.md5}" if meta.md5 else "")
    return {
        "ETag": _entity(meta),
        "X-Goog-Hash": checksums,
        "X-Goog-Generation": str(meta.generation),
        "X-Goog-Metageneration": str(meta.metageneration),
        "X-Goog-Stored-Content-Length": str(meta.size),
    }


def _xml(tag: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?><{tag} xmlns="{_NAMESPACE}">{inner}</{tag}>'
    return Reply(200, content=text.encode(), headers={"Content-Type": _XML, **(headers or {})})


def _refusal(refusal: StoreError | ApiError) -> Reply:
    error = refusal if isinstance(refusal, ApiError) else to_api_error(refusal)
    code = _STORE_CODES.get(type(refusal)) or error.reason
    code = code if code and code[0].isupper() else _CODES.get(error.status, "InvalidRequest")
    message = "The specified key does not exist." if isinstance(refusal, NoSuchObjectError) else error.message
    text = (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    )
    return Reply(error.status, content=text.encode("utf-8", "replace"), headers={**error.headers, "Content-Type": _XML})
