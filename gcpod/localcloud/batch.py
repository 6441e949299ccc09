"""The JSON batch endpoint: many requests in one multipart/mixed body (https://cloud.google.com/storage/docs/batch)."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from gcpod.localcloud import bodies
from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.messages import Incoming, Reply

_MAX_CALLS = 100
_LIMIT_BYTES = 10 << 20


async def answer(ask: Callable[[Incoming], Awaitable[Reply]], outer: Incoming) -> Reply:
    """Asks every request of a batch in turn and packs the replies; at most 100 calls and 10 MiB.

    Raises:
        ApiError: 400 no readable batch, 413 more than 10 MiB.
    """
    boundary = bodies.boundary_of(outer.headers.get("content-type", ""))
    content = bytearray()
    async for chunk in outer.chunks():
        content += chunk
        if len(content) > _LIMIT_BYTES:
            raise ApiError(413, "The batch is too large.")
    parts = bodies.split_mixed(bytes(content), boundary)
    if len(parts) > _MAX_CALLS:
        raise ApiError(400, f"The batch holds {len(parts)} calls; the limit is {_MAX_CALLS}.")
    reply_boundary = f"batch_{uuid.uuid4().hex}"
    packed = bytearray()
    for part in parts:
        inner = _unpack(bytes(content[part.start : part.end]), outer)
        packed += f"--{reply_boundary}\r\n".encode() + _pack(await ask(inner), part.headers.get("content-id", ""))
    packed += f"--{reply_boundary}--\r\n".encode()
    return Reply(200, content=bytes(packed), headers={"Content-Type": f"multipart/mixed; boundary={reply_boundary}"})


def _unpack(content: bytes, outer: Incoming) -> Incoming:
    line, _, rest = content.replace(b"\r\n", b"\n").lstrip(b"\n").partition(b"\n")
    words = line.decode("latin-1").split(" ")
    if len(words) not in (2, 3) or words[1].startswith("/batch"):
        raise ApiError(400, f"Failed to parse the batch request: {line[:80]!r} is no request line.")
    head, _, body = rest.partition(b"\n\n") if not rest.startswith(b"\n") else (b"", b"", rest[1:])
    headers = {"host": outer.headers.get("host", ""), **bodies.parse_headers(head)}
    headers["host"] = outer.headers.get("host", "")
    try:
        target = urlsplit(words[1])
    except ValueError:
        raise ApiError(400, "Failed to parse the batch request: the address cannot be read.") from None

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    return Incoming(words[0].upper(), target.path, target.query, Headers(headers), chunks)


def _pack(reply: Reply, content_id: str) -> bytes:
    content = reply.content if reply.value is None else json.dumps(reply.value).encode()
    if reply.stream is not None:
        content = b"".join(reply.stream)
    headers = {**reply.headers, "Content-Length": str(len(content))}
    if reply.value is not None:
        headers["Content-Type"] = "application/json; charset=UTF-8"
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = ""
    lines = ["Content-Type: application/http"]
    if content_id:
        lines.append(f"Content-ID: <response-{content_id.removeprefix('<').removesuffix('>')}>")
    lines += ["", f"HTTP/1.1 {reply.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + content + b"\r\n"
