from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import DataError
from gcpod.records import FRAMING_BYTES, frame, framed, masked_crc32c, read_records

PAYLOADS = st.lists(st.binary(max_size=200), max_size=6)


def test_the_bytes_are_those_that_tensorflow_writes() -> None:
    # tf.io.TFRecordWriter("f").write(b"hello") of TensorFlow 2.12
    assert frame(b"hello").hex() == "0500000000000000eab2043e68656c6c6fbb1f1c19"
    assert masked_crc32c(b"") == 0xA282EAD8


@given(PAYLOADS)
def test_records_come_back(payloads: list[bytes]) -> None:
    file = BytesIO(b"".join(map(frame, payloads)))
    assert len(file.getvalue()) == sum(len(payload) + FRAMING_BYTES for payload in payloads)
    assert list(read_records(file)) == payloads
    assert all(b"".join(framed([payload[:3], b"", payload[3:]])) == frame(payload) for payload in payloads)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.data())
def test_a_flipped_bit_never_goes_unseen(payloads: list[bytes], data: st.DataObject) -> None:
    raw = bytearray(b"".join(map(frame, payloads)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DataError, match="at byte"):
        list(read_records(BytesIO(bytes(raw))))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.data())
def test_a_growing_file_ends_at_its_last_whole_record(payloads: list[bytes], data: st.DataObject) -> None:
    last = frame(payloads[-1])
    whole = b"".join(map(frame, payloads[:-1]))
    cut = whole + last[: data.draw(st.integers(1, len(last) - 1))]
    assert list(read_records(BytesIO(cut), partial_tail=True)) == payloads[:-1]
    with pytest.raises(DataError, match=f"at byte {len(whole)}"):
        list(read_records(BytesIO(cut)))


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_read_or_fail_with_a_code(data: bytes, partial: bool) -> None:
    try:
        found = list(read_records(BytesIO(data), partial_tail=partial))
    except DataError:
        return
    assert b"".join(map(frame, found)) == data[: sum(len(one) + FRAMING_BYTES for one in found)]


def test_a_length_that_lies_reserves_no_memory_and_names_the_file(tmp_path: Path) -> None:
    size = (1 << 60).to_bytes(8, "little")
    path = tmp_path / "broken.tfrecord"
    path.write_bytes(frame(b"one") + size + masked_crc32c(size).to_bytes(4, "little") + b"abc")
    with path.open("rb") as file, pytest.raises(DataError, match=r"broken\.tfrecord at byte 19.*announces"):
        list(read_records(file))
