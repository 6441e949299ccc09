"""TFRecord files: length-framed payloads with masked CRC-32C checksums.

The framing is that of https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details (uint64 length,
uint32 masked crc of the length, payload, uint32 masked crc of the payload, all little endian). Shards of a dataset and
TensorBoard's event files are both such files; event files grow while they are read, so a reader may accept a
half-written end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

import google_crc32c

from gcpod.errors import DataError

FRAMING_BYTES = 16
"""Bytes a record needs beside its payload."""

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_READ_BYTES = 1 << 24


class Writable(Protocol):
    """What records can be written to: a file opened for binary writing, or anything with its ``write``."""

    def write(self, data: bytes, /) -> object: ...


def masked_crc32c(data: bytes, *more: bytes) -> int:
    """The CRC-32C of a payload, given in one chunk or several, rotated by 15 bits plus a constant, both from the format
    details page named above."""
    crc: int = google_crc32c.value(data)
    for chunk in more:
        crc = google_crc32c.extend(crc, chunk)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """One record as it stands in the file: `FRAMING_BYTES` longer than the payload."""
    return b"".join(framed([payload]))


def framed(payload: Sequence[bytes]) -> list[bytes]:
    """One record in chunks, of a payload in chunks: none of them is copied."""
    size = sum(map(len, payload)).to_bytes(8, "little")
    return [size, _CRC.pack(masked_crc32c(size)), *payload, _CRC.pack(masked_crc32c(b"", *payload))]


def read_records(file: BinaryIO, *, partial_tail: bool = False) -> Iterator[bytes]:
    """Yields the payloads in one pass, holding one record in memory.

    Args:
        file: opened for binary reading, at the start of a record.
        partial_tail: end quietly at a last record that is only partly there, as a file that still grows has it. A
            checksum that does not fit is an error all the same.

    Raises:
        DataError: a checksum does not fit or the file ends within a record; it names the file and the record's offset
            in bytes.
    """
    name = str(getattr(file, "name", "a stream"))
    offset = 0
    while header := _read(file, _HEADER.size):
        if len(header) < _HEADER.size:
            if partial_tail:
                return
            raise _broken(name, offset, "the file ends within a record's header")
        size, crc = _HEADER.unpack(header)
        if masked_crc32c(header[:8]) != crc:
            raise _broken(name, offset, "the checksum of the length does not fit")
        body = _read(file, size + _CRC.size)
        if len(body) < size + _CRC.size:
            if partial_tail:
                return
            raise _broken(name, offset, f"the record announces {size} bytes, the file ends before")
        payload = body[:size]
        if masked_crc32c(payload) != _CRC.unpack_from(body, size)[0]:
            raise _broken(name, offset, "the checksum of the payload does not fit")
        yield payload
        offset += size + FRAMING_BYTES


def _read(file: BinaryIO, size: int) -> bytes:
    """Reads in bounded steps: a length that lies must not reserve that much memory."""
    first = file.read(min(size, _READ_BYTES))
    if len(first) == size or not first:
        return first
    parts, left = [first], size - len(first)
    while left and (part := file.read(min(left, _READ_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _broken(name: str, offset: int, found: str) -> DataError:
    return DataError(
        "reading records of", f"{name} at byte {offset}", found,
        "the file is damaged or is no TFRecord file, so build or fetch it again",
    )
