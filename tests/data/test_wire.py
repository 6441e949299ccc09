from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod import wire
from gcpod.errors import DataError
from tests.wiring import fixed32, fixed64

from .making import outcome

FLOAT32 = st.floats(width=32, allow_nan=False)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def test_examples_of_the_encoding_guide() -> None:
    assert wire.varint(150) == b"\x96\x01"
    assert wire.integer(1, 150) == b"\x08\x96\x01"
    assert wire.delimited(2, b"testing") == b"\x12\x07testing"
    assert wire.integer(1, -2) == b"\x08" + b"\xfe" + b"\xff" * 8 + b"\x01"
    assert wire.packed_int64(6, [3, 270, 86942]) == bytes.fromhex("3206038e029ea705")


@given(INT64)
def test_integers_come_back(number: int) -> None:
    [(field, wire_type, value)] = wire.fields(wire.integer(7, number))
    assert (field, wire_type, wire.to_int64(value)) == (7, wire.VARINT, number)


@given(st.lists(FLOAT32), st.lists(INT64), FLOAT32, st.floats(allow_nan=False), st.binary())
def test_every_kind_comes_back(
    floats: list[float], numbers: list[int], single: float, double: float, blob: bytes,
) -> None:
    data = b"".join([
        wire.packed_floats(1, floats), wire.packed_int64(2, numbers), fixed32(3, single), fixed64(4, double),
        *wire.nested(5, wire.nested(6, [blob, blob])),
    ])
    found = {field: value for field, _, value in wire.fields(memoryview(data))}
    assert wire.unpack_floats(wire.to_bytes(found.get(1, b""))) == tuple(floats)
    assert wire.unpack_int64(wire.to_bytes(found.get(2, b""))) == tuple(numbers)
    assert (wire.to_float(found[3]), wire.to_float(found[4])) == (single, double)
    assert list(wire.fields(wire.to_bytes(found[5]))) == [(6, wire.DELIMITED, blob + blob)]


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_fail_with_a_code(data: bytes) -> None:
    assert outcome(lambda: list(wire.fields(data))) in ("", "E102")
    assert outcome(lambda: wire.unpack_int64(data)) in ("", "E102")


@pytest.mark.parametrize("data", [
    b"\x08", b"\x08\x80", b"\x12\x05abc", b"\x0d\x00", b"\x09\x00", b"\x03", b"\x0b\x0c", b"\x00\x00",
    b"\x08" + b"\xff" * 10 + b"\x01", b"\x08" + b"\xff" * 9 + b"\x7f",
])
def test_damaged_input_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        list(wire.fields(data))


def test_values_of_the_wrong_kind_are_refused() -> None:
    for refused in (
        lambda: wire.to_int64(b"x"), lambda: wire.to_bytes(1), lambda: wire.to_float(1), lambda: wire.to_float(b"abc"),
        lambda: wire.unpack_floats(b"abcde"), lambda: wire.varint(1 << 64), lambda: wire.tag(0, 0),
        lambda: wire.packed_floats(1, [1e300]),
    ):
        with pytest.raises(DataError):
            refused()


def test_the_tag_of_a_large_field_number() -> None:
    assert wire.tag((1 << 29) - 1, wire.FIXED32) == bytes.fromhex("fdffffff0f")
    assert struct.unpack("<f", wire.packed_floats(1, [0.5])[2:]) == (0.5,)
