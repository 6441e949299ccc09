"""Protobuf's wire format, as much of it as ``tf.train.Example`` and TensorBoard's ``Event`` use.

Rules and numbers are those of https://protobuf.dev/programming-guides/encoding/. The point of writing them here is
that neither TensorFlow nor generated classes are needed to write records or to read event files. Everything is pure:
numbers and bytes in, bytes out. A message under construction is a sequence of byte chunks, so that a large payload (an
image) is copied once, by the final ``b"".join``, however deep it is nested.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gcpod.errors import DataError

VARINT: Final = 0
FIXED64: Final = 1
DELIMITED: Final = 2
FIXED32: Final = 5

Value = int | bytes

_MAX_FIELD = (1 << 29) - 1
_MAX_VARINT_BYTES = 10
_MASK64 = (1 << 64) - 1
_BYTES = tuple(bytes((number,)) for number in range(0x80))
_HEADS = tuple(tuple(bytes((field << 3 | DELIMITED, size)) for size in range(0x80)) for field in range(0x10))
"""What stands before a short payload, by field and size: most of an example's bytes, made millions of times."""


def varint(number: int) -> bytes:
    """Encodes an integer of -2**63 to 2**64 - 1; negative ones as their 64-bit two's complement, ten bytes long.

    Raises:
        DataError: the number does not fit 64 bits.
    """
    if 0 <= number < 0x80:
        return _BYTES[number]
    if not -(1 << 63) <= number <= _MASK64:
        raise DataError("encoding the integer", number, "it needs more than 64 bits", "use a smaller number")
    rest = number & _MASK64
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def tag(field: int, wire_type: int) -> bytes:
    """The key before a value: field number (1 to 2**29 - 1) and wire type in one varint.

    Raises:
        DataError: the field number is outside that range.
    """
    if not 1 <= field <= _MAX_FIELD:
        raise DataError("encoding the field number", field, "it is outside 1 to 2**29 - 1", "use another number")
    key = field << 3 | wire_type
    return _BYTES[key] if key < 0x80 else varint(key)


def integer(field: int, number: int) -> bytes:
    """A field of type int64, uint64 or bool."""
    return tag(field, VARINT) + varint(number)


def delimited(field: int, payload: bytes) -> bytes:
    """A field of type bytes, string, message or packed repeated."""
    size = len(payload)
    if 0 < field < 0x10 and size < 0x80:
        return _HEADS[field][size] + payload
    return tag(field, DELIMITED) + varint(size) + payload


def nested(field: int, chunks: Sequence[bytes]) -> list[bytes]:
    """Like `delimited` for a payload that is still in chunks: none of them is copied."""
    return [tag(field, DELIMITED) + varint(sum(map(len, chunks))), *chunks]


def packed_floats(field: int, numbers: Sequence[float]) -> bytes:
    """A packed repeated float field; b"" for no numbers, as protobuf writes it."""
    return delimited(field, _pack(numbers)) if numbers else b""


def packed_int64(field: int, numbers: Iterable[int]) -> bytes:
    """A packed repeated int64 field; b"" for no numbers, as protobuf writes it."""
    payload = b"".join(map(varint, numbers))
    return delimited(field, payload) if payload else b""


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yields (field number, wire type, value) in the order of the bytes.

    The value is an int in 0 to 2**64 - 1 for VARINT, and the raw bytes for FIXED32 (4), FIXED64 (8) and DELIMITED.
    Read it with `to_int64`, `to_float` or `to_bytes`, which check the type.

    Raises:
        DataError: truncated input, a varint of more than ten bytes or 64 bits, field number 0, or a wire type other
            than these four (groups are deprecated and used by none of TensorFlow's messages).
    """
    view = memoryview(data)
    at, end = 0, len(view)
    while at < end:
        start = at
        key, at = _varint_at(view, at)
        field, wire_type = key >> 3, key & 7
        if not 1 <= field <= _MAX_FIELD:
            raise _broken(start, f"field number {field} does not exist")
        if wire_type == VARINT:
            number, at = _varint_at(view, at)
            yield field, wire_type, number
            continue
        if wire_type == DELIMITED:
            size, at = _varint_at(view, at)
        elif wire_type in (FIXED32, FIXED64):
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise _broken(start, f"wire type {wire_type} is unknown")
        if size > end - at:
            raise _broken(start, f"field {field} announces {size} bytes, {end - at} are left")
        yield field, wire_type, bytes(view[at : at + size])
        at += size


def to_int64(value: Value) -> int:
    """A VARINT value as a signed 64-bit integer."""
    if isinstance(value, bytes):
        raise _broken(0, "an integer was expected, bytes were found")
    return value - (1 << 64) if value >> 63 else value


def to_float(value: Value) -> float:
    """A FIXED32 or FIXED64 value as a number."""
    if isinstance(value, bytes) and len(value) in (4, 8):
        number: float = struct.unpack("<f" if len(value) == 4 else "<d", value)[0]
        return number
    raise _broken(0, "a float of 4 or 8 bytes was expected")


def to_bytes(value: Value) -> bytes:
    """A DELIMITED value."""
    if isinstance(value, int):
        raise _broken(0, "bytes were expected, an integer was found")
    return value


def unpack_floats(payload: bytes) -> tuple[float, ...]:
    """The numbers of a packed float field."""
    if len(payload) % 4:
        raise _broken(0, f"{len(payload)} bytes are no whole number of 32-bit floats")
    return struct.unpack(f"<{len(payload) // 4}f", payload)


def unpack_int64(payload: bytes) -> tuple[int, ...]:
    """The numbers of a packed int64 field."""
    view, numbers, at = memoryview(payload), [], 0
    while at < len(view):
        number, at = _varint_at(view, at)
        numbers.append(to_int64(number))
    return tuple(numbers)


def _pack(numbers: Sequence[float]) -> bytes:
    try:
        return struct.pack(f"<{len(numbers)}f", *numbers)
    except OverflowError as err:
        raise DataError("encoding the numbers", str(numbers)[:80], str(err), "use what 32 bits can hold") from err


def _varint_at(view: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for index, byte in enumerate(view[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if number > _MASK64:
                raise _broken(at, "a varint has more than 64 bits")
            return number, at + index + 1
    raise _broken(at, "a varint does not end")


def _broken(at: int, found: str) -> DataError:
    return DataError("decoding protobuf", f"at byte {at}", found, "the data is damaged, so fetch or build it again")
