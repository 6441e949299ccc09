"""Request bodies: JSON in memory up to a limit, media in a spool file, gzip undone, multipart taken apart."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.requests import ClientDisconnect

from gcpod.localcloud.api_error import ApiError

_MEMORY_BYTES = 1 << 20
_JSON_LIMIT_BYTES = 32 << 20
_HEAD_LIMIT_BYTES = 4 << 20
Offload = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments off the event loop."""


@dataclass(frozen=True)
class RawBody:
    """A body as it came, gzip undone: small ones in memory, others in a file that lives as long as the call.

    ``complete`` is False when the client went away before the end.
    """

    size: int
    complete: bool
    data: bytes = b""
    path: Path | None = None

    def open(self) -> BinaryIO:
        """A fresh reader from the first byte."""
        return io.BytesIO(self.data) if self.path is None else self.path.open("rb")

    def discard(self) -> None:
        """Removes the file, unless somebody moved it away."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Part:
    """One part of a multipart body: its headers in lower case, and where its content lies in the whole."""

    headers: dict[str, str]
    start: int
    end: int


async def inflate(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Undoes ``Content-Encoding: gzip`` of a request.

    Raises:
        ApiError: 400, not gzip, or cut short.
    """
    member, fed = zlib.decompressobj(16 + zlib.MAX_WBITS), False
    try:
        async for chunk in chunks:
            fed = fed or bool(chunk)
            while chunk:
                yield member.decompress(chunk, _MEMORY_BYTES)
                chunk = member.unconsumed_tail
                if member.eof and member.unused_data:
                    chunk, member = member.unused_data, zlib.decompressobj(16 + zlib.MAX_WBITS)
    except zlib.error:
        raise ApiError(400, "Failed to decompress the gzip request body.") from None
    if fed and not member.eof:
        raise ApiError(400, "Failed to decompress the gzip request body: it ends early.")


async def read_json(chunks: AsyncIterator[bytes]) -> Any:
    """Reads a JSON body; None when it is empty.

    Raises:
        ApiError: 400 no JSON, 413 more than 32 MiB.
    """
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) > _JSON_LIMIT_BYTES:
            raise ApiError(413, "The request body is too large.")
    return parse_json(bytes(held))


def parse_json(content: bytes) -> Any:
    """JSON, or None for nothing but white space.

    Raises:
        ApiError: 400, no JSON, or not UTF-8.
    """
    if not content.strip():
        return None
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ApiError(400, "Invalid JSON payload received. Parse Error", "parseError") from None


def _no_constant(name: str) -> None:
    raise ValueError(name)


async def spool(chunks: AsyncIterator[bytes], folder: Path, offload: Offload) -> RawBody:
    """Takes a body in, at most 1 MiB of it in memory at a time; the rest goes to a file below ``folder``."""
    held, size, path, complete = bytearray(), 0, None, True
    file: BinaryIO | None = None
    try:
        async for chunk in chunks:
            held += chunk
            size += len(chunk)
            if len(held) >= _MEMORY_BYTES:
                if file is None:
                    file, path = _spool_file(folder)
                await offload(file.write, bytes(held))
                held.clear()
        if file is not None:
            await offload(file.write, bytes(held))
    except ClientDisconnect:
        complete = False
        if file is not None:
            file.write(held)
    except BaseException:
        if path is not None:
            path.unlink(missing_ok=True)
        raise
    finally:
        if file is not None:
            file.close()
    return RawBody(size, complete, b"" if path else bytes(held), path)


def _spool_file(folder: Path) -> tuple[BinaryIO, Path]:
    handle, name = tempfile.mkstemp(dir=folder)
    os.close(handle)
    return Path(name).open("wb", buffering=0), Path(name)


def boundary_of(content_type: str) -> bytes:
    """The boundary parameter of a multipart content type (RFC 2046, 5.1.1).

    Raises:
        ApiError: 400, there is none.
    """
    found = re.search(r"""boundary=("([^"]{1,200})"|'([^']{1,200})'|([^\s;,]{1,200}))""", content_type, re.IGNORECASE)
    if found is None or not content_type.lower().lstrip().startswith("multipart/"):
        raise ApiError(400, "Missing or malformed multipart boundary in the Content-Type header.")
    return (found[2] or found[3] or found[4]).encode("latin-1", "replace")


def split_related(file: BinaryIO, size: int, boundary: bytes) -> tuple[Part, Part]:
    """The metadata part and the media part of a multipart/related upload, without reading the media.

    Line ends may be CRLF or bare LF: gcloud sends the latter, and a CR before its LF is the media's own.

    Raises:
        ApiError: 400, there are not exactly two well-formed parts.
    """
    file.seek(0)
    head = file.read(min(size, _HEAD_LIMIT_BYTES))
    marker = re.compile(rb"(?:^|\r?\n)--" + re.escape(boundary) + rb"[ \t]*\r?\n")
    first = marker.search(head)
    second = first and marker.search(head, first.end() - 1)
    if first is None or second is None:
        raise ApiError(400, "Malformed multipart body.")
    tail_start = max(second.end() - 2, size - len(boundary) - 64)
    file.seek(tail_start)
    tail = file.read()
    line_end = rb"\r?\n" if first[0].endswith(b"\r\n") else rb"\n"
    closing = list(re.finditer(line_end + rb"--" + re.escape(boundary) + rb"--[ \t]*(?:\r?\n)?\Z", tail))
    if not closing:
        raise ApiError(400, "Malformed multipart body: the closing boundary is missing.")
    metadata, media = (
        _part(head, first.end(), second.start()),
        _part(head, second.end(), tail_start + closing[-1].start()),
    )
    return metadata, media


def split_mixed(content: bytes, boundary: bytes) -> list[Part]:
    """The parts of a multipart/mixed body held in memory.

    Raises:
        ApiError: 400, no closing boundary.
    """
    marker = re.compile(rb"(?:^|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r?\n|\Z)")
    parts: list[Part] = []
    start: int | None = None
    at = 0
    while (found := marker.search(content, at)) is not None:
        if start is not None:
            parts.append(_part(content, start, found.start()))
        if found[1]:
            return parts
        start, at = found.end(), max(found.end() - 1, found.start() + 1)
    raise ApiError(400, "Malformed multipart body: the closing boundary is missing.")


def _part(content: bytes, start: int, end: int) -> Part:
    blank = re.compile(rb"(?:\A|\r?\n)\r?\n").search(content, max(start - 1, 0), len(content))
    if blank is None or blank.start() > end:
        raise ApiError(400, "Malformed multipart body: a part has no blank line after its headers.")
    headers = parse_headers(content[start : max(start, blank.start())])
    return Part(headers, min(blank.end(), end), end)


def parse_headers(block: bytes) -> dict[str, str]:
    """``Name: value`` lines, names in lower case; lines that are none are passed over."""
    headers = {}
    for line in block.decode("latin-1").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers
