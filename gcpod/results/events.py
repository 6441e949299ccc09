"""TensorBoard event files read without TensorFlow.

An event file is a TFRecord file of ``Event`` messages (tensorflow/core/util/event.proto, summary.proto, tensor.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gcpod import wire
from gcpod.records import read_records

_EVENT_STEP, _EVENT_SUMMARY = 2, 5
_SUMMARY_VALUE = 1
_VALUE_TAG, _VALUE_SIMPLE, _VALUE_TENSOR = 1, 2, 8
_TENSOR_DTYPE, _TENSOR_CONTENT, _TENSOR_FLOATS, _TENSOR_DOUBLES = 1, 4, 5, 6
_DT_FLOAT, _DT_DOUBLE = 1, 2


@dataclass(frozen=True)
class Scalar:
    """One number of a summary."""

    step: int
    tag: str
    value: float


def read_scalars(path: Path) -> Iterator[Scalar]:
    """The scalars of an event file, in order; other summaries and a last record still being written are passed over.

    Raises:
        DataError: the file is damaged.
    """
    with path.open("rb") as f:
        for payload in read_records(f, partial_tail=True):
            yield from event_scalars(payload)


def event_scalars(payload: bytes) -> Iterator[Scalar]:
    """The scalars of one serialized Event.

    Raises:
        DataError: it is no such message.
    """
    step, summaries = 0, []
    for number, kind, value in wire.fields(payload):
        if number == _EVENT_STEP and kind == wire.VARINT:
            step = wire.to_int64(value)
        elif number == _EVENT_SUMMARY and kind == wire.DELIMITED:
            summaries.append(wire.to_bytes(value))
    for summary in summaries:
        for number, kind, value in wire.fields(summary):
            if number == _SUMMARY_VALUE and kind == wire.DELIMITED:
                named = _value(wire.to_bytes(value))
                if named is not None:
                    yield Scalar(step, *named)


def _value(message: bytes) -> tuple[str, float] | None:
    tag, number = "", None
    for field, kind, value in wire.fields(message):
        if field == _VALUE_TAG and kind == wire.DELIMITED:
            tag = wire.to_bytes(value).decode("utf-8", "replace")
        elif field == _VALUE_SIMPLE and kind == wire.FIXED32:
            number = wire.to_float(value)
        elif field == _VALUE_TENSOR and kind == wire.DELIMITED:
            number = _tensor(wire.to_bytes(value))
    return None if number is None else (tag, number)


def _tensor(message: bytes) -> float | None:
    """The number of a tensor that holds one float or double; None for any other."""
    dtype, content = 0, b""
    for field, kind, value in wire.fields(message):
        if field == _TENSOR_DTYPE and kind == wire.VARINT:
            dtype = wire.to_int64(value)
        elif field in (_TENSOR_CONTENT, _TENSOR_FLOATS, _TENSOR_DOUBLES) and isinstance(value, bytes):
            content = value
    layout = {_DT_FLOAT: "<f", _DT_DOUBLE: "<d"}.get(dtype)
    if layout is None or len(content) != struct.calcsize(layout):
        return None
    number: float = struct.unpack(layout, content)[0]
    return number
