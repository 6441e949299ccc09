"""Downloads: ranges, checksums in headers, and gzip undone for clients that cannot take it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from email.utils import formatdate
from typing import BinaryIO

from starlette.datastructures import Headers

from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.blobs import read_range
from gcpod.localcloud.messages import Reply
from gcpod.localcloud.records import ObjectMeta
from gcpod.localcloud.storage_common import etag

_INLINE_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_PLAIN_HEADERS = {
    "contentDisposition": "Content-Disposition",
    "contentLanguage": "Content-Language",
    "cacheControl": "Cache-Control",
}


def download(meta: ObjectMeta, file: BinaryIO, asked: Headers, *, head_only: bool = False, entity: str = "") -> Reply:
    """The bytes of an object, or those of the Range header; takes charge of closing the file.

    Rules: https://cloud.google.com/storage/docs/json_api/v1/parameters#range and
    https://cloud.google.com/storage/docs/transcoding (a transcoded reply ignores ranges and has no length).

    Raises:
        ApiError: 416, the range begins past the end.
    """
    try:
        headers = media_headers(meta, entity)
        if _to_be_inflated(meta, asked) and _is_gzip(file):
            del headers["Content-Encoding"]
            headers["Warning"] = "214 UploadServer gunzipped"
            return _reply(200, headers, file, _inflated(file), inline=False, head_only=head_only)
        span = _asked_range(asked.get("range", ""), meta.size)
        start, end = span or (0, meta.size)
        headers["Content-Length"] = str(end - start)
        if span is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{meta.size}"
        chunks = read_range(file, start, end)
        return _reply(
            206 if span else 200, headers, file, chunks, inline=end - start <= _INLINE_BYTES, head_only=head_only
        )
    except BaseException:
        file.close()
        raise


def media_headers(meta: ObjectMeta, entity: str = "") -> dict[str, str]:
    """The headers that go with an object's bytes (https://cloud.google.com/storage/docs/xml-api/reference-headers)."""
    settings = meta.settings
    checksums = f"crc32c={meta.crc32c}" + (f",md5={meta.md5}" if meta.md5 else "")
    headers = {
        "Content-Type": settings.get("contentType") or "application/octet-stream",
        "ETag": entity or etag(meta.generation, meta.metageneration),
        "Accept-Ranges": "bytes",
        "Last-Modified": formatdate(meta.updated_us // 1_000_000, usegmt=True),
        "X-Goog-Hash": checksums,
        "X-Goog-Generation": str(meta.generation),
        "X-Goog-Metageneration": str(meta.metageneration),
        "X-Goog-Stored-Content-Length": str(meta.size),
        "X-Goog-Stored-Content-Encoding": settings.get("contentEncoding") or "identity",
        "X-Goog-Storage-Class": settings.get("storageClass") or "STANDARD",
    }
    if settings.get("contentEncoding"):
        headers["Content-Encoding"] = settings["contentEncoding"]
    headers |= {header: settings[name] for name, header in _PLAIN_HEADERS.items() if settings.get(name)}
    if meta.component_count is not None:
        headers["X-Goog-Component-Count"] = str(meta.component_count)
    return {name: header_text(value) for name, value in headers.items()}


def header_text(value: str) -> str:
    """A value as UTF-8 bytes in header form, without control characters."""
    return _CONTROL.sub(" ", value).encode("utf-8", "replace").decode("latin-1")


def _asked_range(text: str, size: int) -> tuple[int, int] | None:
    # A header that is no single byte range is ignored (RFC 9110, 14.2).
    found = _RANGE.fullmatch(text)
    if found is None or found[1] == found[2] == "" or (found[1] and found[2] and int(found[2]) < int(found[1])):
        return None
    if found[1]:
        start, end = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    else:
        start, end = max(size - int(found[2]), 0), size
    if start >= size:
        raise ApiError(416, "The requested range cannot be satisfied.", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _to_be_inflated(meta: ObjectMeta, asked: Headers) -> bool:
    accepted = "gzip" in asked.get("accept-encoding", "").lower()
    kept = "no-transform" in str(meta.settings.get("cacheControl", "")).lower()
    return meta.settings.get("contentEncoding") == "gzip" and not accepted and not kept


def _is_gzip(file: BinaryIO) -> bool:
    # An object may claim gzip and be something else; then it is served as it is.
    file.seek(0)
    try:
        zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(file.read(4096))
    except zlib.error:
        return False
    file.seek(0)
    return True


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    member = zlib.decompressobj(16 + zlib.MAX_WBITS)
    while chunk := member.unconsumed_tail or file.read(_INLINE_BYTES):
        if plain := member.decompress(chunk, _INLINE_BYTES):
            yield plain
        if member.eof:
            return


class _FileStream:
    """Chunks of a file that is closed at their end, or when the client goes away before."""

    def __init__(self, file: BinaryIO, chunks: Iterator[bytes]) -> None:
        self._file, self._chunks = file, chunks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()


def _reply(
    status: int,
    headers: dict[str, str],
    file: BinaryIO,
    chunks: Iterator[bytes],
    *,
    inline: bool,
    head_only: bool,
) -> Reply:
    if not inline and not head_only:
        return Reply(status, headers=headers, stream=_FileStream(file, chunks))
    content = b"" if head_only else b"".join(chunks)
    file.close()
    return Reply(status, headers=headers, content=content)
