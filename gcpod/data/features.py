"""What the bytes of one ``tf.train.Example`` hold, read without TensorFlow: lists of bytes, floats or integers by key.

Message layout: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/example/feature.proto and
example.proto beside it. What a reader of protobuf has to accept is that of
https://protobuf.dev/programming-guides/encoding/: repeated numbers packed or not, maps in any order with the last of
equal keys winning, messages that come in several parts, fields that are unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from gcpod.errors import DataError
from gcpod.wire import (
    DELIMITED,
    FIXED32,
    VARINT,
    Value,
    fields,
    to_bytes,
    to_float,
    to_int64,
    unpack_floats,
    unpack_int64,
)

_BYTES, _FLOATS, _INT64S = 1, 2, 3
_KINDS: Final = {_BYTES: "bytes", _FLOATS: "floats", _INT64S: "integers"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Feature:
    """One list of values; at most one of the three kinds has any.

    Attributes:
        raw: the encoded ``tf.train.Feature`` message.
    """

    raw: bytes
    byte_strings: tuple[bytes, ...] = ()
    floats: tuple[float, ...] = ()
    integers: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """What the values are, in words: "bytes", "floats" or "integers"; "" of an empty list."""
        kinds = zip(_KINDS.values(), (self.byte_strings, self.floats, self.integers), strict=True)
        return next((kind for kind, values in kinds if values), "")


@dataclass(frozen=True)
class Example:
    """All lists of one record by key; one that is missing reads as empty.

    Every method raises a `DataError` with code D104 where the list is not what is asked for: of another kind, longer
    than one, not UTF-8.
    """

    features: Mapping[str, Feature]

    def byte_strings(self, key: str) -> tuple[bytes, ...]:
        return self._of_kind(key, "bytes").byte_strings

    def floats(self, key: str) -> tuple[float, ...]:
        return self._of_kind(key, "floats").floats

    def integers(self, key: str) -> tuple[int, ...]:
        return self._of_kind(key, "integers").integers

    def texts(self, key: str) -> tuple[str, ...]:
        try:
            return tuple(value.decode() for value in self.byte_strings(key))
        except UnicodeDecodeError as err:
            raise wrong_record(f"{key} is not UTF-8: {err.object[:40]!r}") from err

    def byte_string(self, key: str) -> bytes:
        """The only value, or b""."""
        return _only(self.byte_strings(key), key, b"")

    def integer(self, key: str) -> int:
        """The only value, or 0."""
        return _only(self.integers(key), key, 0)

    def _of_kind(self, key: str, kind: str) -> Feature:
        feature = self.features.get(key, Feature(b""))
        if feature.kind not in ("", kind):
            raise wrong_record(f"{key} holds {feature.kind} where {kind} are expected")
        return feature


def parse_example(record: bytes) -> Example:
    """Decodes one record.

    Raises:
        DataError: D104; empty, no protobuf, a ``SequenceExample``, a key that is not UTF-8, or without any feature.
    """
    if not record:
        raise wrong_record("the record is empty")
    try:
        found = list(fields(record))
        features = dict(_entry(entry) for part in _messages(found, 1) for entry in _messages(fields(part), 1))
        # Its other field is an Example's only one, so that it would pass for an Example without boxes.
        if _messages(found, 2):
            raise wrong_record("it is a tf.train.SequenceExample, not a tf.train.Example")
    except UnicodeDecodeError as err:
        raise wrong_record(f"a feature's key is not UTF-8: {err.object[:40]!r}") from err
    except DataError as err:
        raise wrong_record(err.found if err.code == "D104" else f"it is no tf.train.Example ({err.found})") from err
    if not features:
        raise wrong_record("it is no tf.train.Example, or one without any feature")
    return Example(features)


def wrong_record(found: str) -> DataError:
    """The error about a record whose frame is sound."""
    fix = "write records as the Object Detection API reads them"
    return DataError("reading", "the record", found, fix, code="D104")


def _messages(found: Iterable[tuple[int, int, Value]], number: int) -> list[bytes]:
    """Values of one field; where it has another wire type it is passed over like an unknown one."""
    return [to_bytes(value) for field, kind, value in found if (field, kind) == (number, DELIMITED)]


def _entry(entry: bytes) -> tuple[str, Feature]:
    found = list(fields(entry))
    keys = [key.decode() for key in _messages(found, 1)]
    return keys[-1] if keys else "", _feature(_messages(found, 2))


def _feature(parts: Sequence[bytes]) -> Feature:
    """Of the three kinds the one that comes last counts; all of it, unless another came in between."""
    last, items = 0, list[tuple[int, Value]]()
    for part in parts:
        for field, kind, value in fields(part):
            if field in _KINDS and kind == DELIMITED:
                if field != last:
                    last, items = field, []
                items += [(form, item) for number, form, item in fields(to_bytes(value)) if number == 1]
    raw = parts[0] if len(parts) == 1 else b"".join(parts)
    if last == _BYTES:
        return Feature(raw, byte_strings=tuple(to_bytes(value) for kind, value in items if kind == DELIMITED))
    if last == _FLOATS:
        return Feature(raw, floats=tuple(number for item in items for number in _floats(*item)))
    return Feature(raw, integers=tuple(number for item in items for number in _integers(*item)))


def _floats(kind: int, value: Value) -> tuple[float, ...]:
    if kind == DELIMITED:
        return unpack_floats(to_bytes(value))
    return (to_float(value),) if kind == FIXED32 else ()


def _integers(kind: int, value: Value) -> tuple[int, ...]:
    if kind == DELIMITED:
        return unpack_int64(to_bytes(value))
    return (to_int64(value),) if kind == VARINT else ()


def _only(values: Sequence[_T], key: str, default: _T) -> _T:
    if len(values) > 1:
        raise wrong_record(f"{key} holds {len(values)} values where one is expected")
    return values[0] if values else default
