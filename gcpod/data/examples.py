"""One checked sample to the bytes of one ``tf.train.Example``, with the keys that the Object Detection API's decoder
reads.

Keys: https://github.com/tensorflow/models/blob/master/research/object_detection/data_decoders/tf_example_decoder.py;
message layout: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/example/feature.proto. Keys are
written in sorted order: protobuf leaves a map's order open, and the same input shall give the same bytes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from gcpod.data.checked import CheckedSample
from gcpod.data.masks import Polygons
from gcpod.data.model import Box
from gcpod.data.pixels import convert, shrink_mask
from gcpod.wire import delimited, nested, packed_floats, packed_int64

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_ENCODED: Final = "image/encoded"


@dataclass(frozen=True)
class ExampleOptions:
    """What a dataset's examples have in common.

    Attributes:
        ids: label map ids by label.
        crowd: write ``image/object/is_crowd`` and ``image/object/group_of``; True where any box of the dataset is one.
        masks: write ``image/object/mask``, a PNG for each box; True where any box of the dataset has one.
    """

    ids: Mapping[str, int]
    crowd: bool = False
    masks: bool = False


def encode_example(sample: CheckedSample, options: ExampleOptions, data: bytes) -> list[bytes]:
    """Encodes one image with its boxes; the chunks of the message, so that the image is not copied here.

    ``image/encoded`` holds the image's bytes as they are, or as its conversion gives them. Box edges are fractions of
    the image's width and height (0 to 1). ``image/source_id`` is the path below the image folder, unique as the
    evaluator needs it; ``image/filename`` its last part.

    Args:
        data: the bytes that ``sample.probe`` describes.

    Raises:
        DataError: D106; the image cannot be converted, or D104; an outline cannot be drawn.
    """
    features = {**sample.image.extras(), **_features(sample, options)}
    picture = _picture(sample, data)
    entries = [_entry(key, feature) for key, feature in sorted({**features, **picture.features}.items())]
    before = sum(key < _ENCODED for key in (features.keys() | picture.features.keys()))
    encoded = nested(1, [_key(_ENCODED), *nested(2, nested(_BYTES_LIST, nested(1, [picture.data])))])
    return nested(1, [*entries[:before], *encoded, *entries[before:]])


@dataclass(frozen=True)
class _Picture:
    """The bytes that are recorded, and the features that tell of them."""

    data: bytes
    features: Mapping[str, bytes]


def _picture(sample: CheckedSample, data: bytes) -> _Picture:
    probe, conversion = sample.probe, sample.conversion
    width, height, kind, sha256 = probe.width, probe.height, str(probe.format), probe.sha256
    if conversion:
        data = convert(data, conversion, sample.image)
        width, height, kind = conversion.width, conversion.height, conversion.format
        sha256 = hashlib.sha256(data).hexdigest()
    return _Picture(data, {
        "image/format": _bytes([kind.encode()]),
        "image/height": _int64([height]),
        "image/key/sha256": _bytes([sha256.encode()]),
        "image/width": _int64([width]),
    })


def _features(sample: CheckedSample, options: ExampleOptions) -> dict[str, bytes]:
    boxes, width, height = sample.boxes, sample.width, sample.height
    name = sample.name.encode("utf-8", "surrogateescape")
    features = {
        "image/filename": _bytes([name.rpartition(b"/")[2]]),
        "image/object/bbox/xmax": _floats(boxes.edges("xmax", width)),
        "image/object/bbox/xmin": _floats(boxes.edges("xmin", width)),
        "image/object/bbox/ymax": _floats(boxes.edges("ymax", height)),
        "image/object/bbox/ymin": _floats(boxes.edges("ymin", height)),
        "image/object/class/label": _int64([options.ids[label] for label in boxes.labels]),
        "image/object/class/text": _bytes([label.encode() for label in boxes.labels]),
        "image/object/difficult": _int64(boxes.flags("difficult")),
        "image/object/truncated": _int64(boxes.flags("truncated")),
        "image/object/view": _bytes([pose.encode() for pose in boxes.poses]),
        "image/source_id": _bytes([name]),
    }
    if options.crowd:
        crowd = _int64(boxes.flags("crowd"))
        features |= {"image/object/is_crowd": crowd, "image/object/group_of": crowd}
    if options.masks:
        features["image/object/mask"] = _bytes([_mask(box, sample) for box in boxes])
    return features


def _mask(box: Box, sample: CheckedSample) -> bytes:
    """The outline as a PNG of the recorded image's size; the whole box where it has none."""
    drawn = (box.mask or _rectangle(box)).png(sample.width, sample.height)
    if sample.conversion and (sample.conversion.width, sample.conversion.height) != (sample.width, sample.height):
        return shrink_mask(drawn, sample.conversion.width, sample.conversion.height, sample.image)
    return drawn


def _rectangle(box: Box) -> Polygons:
    ring = (box.xmin, box.ymin, box.xmax, box.ymin, box.xmax, box.ymax, box.xmin, box.ymax)
    return Polygons((array("d", ring),))


@cache
def _key(key: str) -> bytes:
    """The key of a map's entry; examples share a handful of them, whatever a dataset's records bring along."""
    return delimited(1, key.encode())


def _entry(key: str, feature: bytes) -> bytes:
    return delimited(1, _key(key) + delimited(2, feature))


def _bytes(values: Sequence[bytes]) -> bytes:
    return delimited(_BYTES_LIST, b"".join([delimited(1, value) for value in values]))


def _floats(values: Sequence[float]) -> bytes:
    return delimited(_FLOAT_LIST, packed_floats(1, values))


def _int64(values: Sequence[int]) -> bytes:
    return delimited(_INT64_LIST, packed_int64(1, values))
