"""Passes HTTP/1.1 requests on with one clear length each.

libcurl as TensorFlow drives it sends ``Content-Length`` beside ``Transfer-Encoding: identity`` or ``chunked``; a strict
server refuses such requests because their end is ambiguous (RFC 9112, 6.3, says which of the two counts).
"""

from __future__ import annotations

import asyncio
import re

HEAD_LIMIT_BYTES = 256 << 10
_PIECE_BYTES = 256 << 10
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class FramingError(Exception):
    """The bytes are no HTTP request that can be delimited."""


def reframe(head: bytes) -> tuple[bytes, int | None]:
    """A request's head with at most one length header, and the body's length in bytes; None stands for chunked.

    Raises:
        FramingError: the length cannot be read.
    """
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept, chunked = [first], False
    lengths: set[bytes] = set()
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if name == b"transfer-encoding":
            chunked = chunked or value.lower() == b"chunked"
        elif name == b"content-length":
            lengths.add(value)
        else:
            kept.append(line)
    if chunked:
        return b"\r\n".join([*kept, b"Transfer-Encoding: chunked", b"", b""]), None
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,18}", one) for one in lengths):
        raise FramingError("Content-Length cannot be read")
    length = int(lengths.pop()) if lengths else None
    if length is not None:
        kept.append(b"Content-Length: %d" % length)
    return b"\r\n".join([*kept, b"", b""]), length or 0


async def pump_requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Relays requests until the client ends; the reader's limit must be `HEAD_LIMIT_BYTES`.

    Raises:
        FramingError: something that is no HTTP request.
        asyncio.IncompleteReadError: the client ended in the middle of a request.
    """
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as ended:
            if ended.partial:
                raise
            return
        except asyncio.LimitOverrunError:
            raise FramingError("the head is too long") from None
        clear, length = reframe(head)
        writer.write(clear)
        if length is None:
            await _pump_chunks(reader, writer)
        else:
            await _pump_exactly(reader, writer, length)


async def _pump_exactly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    while size:
        piece = await reader.read(min(size, _PIECE_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
        writer.write(piece)
        await writer.drain()
    await writer.drain()


async def _pump_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise FramingError("a chunk's size cannot be read")
        writer.write(line)
        size = int(found[1], 16)
        if size == 0:
            break
        await _pump_exactly(reader, writer, size + 2)
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        writer.write(line)
    writer.write(line)
    await writer.drain()
