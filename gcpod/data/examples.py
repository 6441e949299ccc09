"""One checked sample to the bytes of one ``tf.train.Example``, with the keys that the Object Detection API's decoder
reads.

Keys: https://github.com/tensorflow/models/blob/master/research/object_detection/data_decoders/tf_example_decoder.py;
message layout: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/example/feature.proto. Keys are
written in sorted order: protobuf leaves a map's order open, and the same input shall give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from gcpod.data.check import CheckedSample
from gcpod.wire import delimited, nested, packed_floats, packed_int64

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_Chunks = Sequence[bytes]


def encode_example(sample: CheckedSample, ids: Mapping[str, int], image: bytes) -> bytes:
    """Encodes one image with its boxes.

    ``image/encoded`` holds the image's bytes as they are. Box edges are fractions of the image's width and height (0
    to 1). ``image/source_id`` is the path below the image folder, unique as the evaluator needs it; ``image/filename``
    its last part.

    Args:
        ids: label map ids by label; every label of the sample is in it.
        image: the bytes of the file that ``sample.probe`` describes.
    """
    return b"".join(nested(1, _entries(_features(sample, ids, image))))


def _features(sample: CheckedSample, ids: Mapping[str, int], image: bytes) -> dict[str, _Chunks]:
    probe, boxes = sample.probe, sample.boxes
    return {
        "image/encoded": _bytes([image]),
        "image/filename": _bytes([PurePosixPath(sample.name).name.encode("utf-8", "surrogateescape")]),
        "image/format": _bytes([probe.format.encode()]),
        "image/height": _int64([probe.height]),
        "image/key/sha256": _bytes([probe.sha256.encode()]),
        "image/object/bbox/xmax": _floats([box.xmax / probe.width for box in boxes]),
        "image/object/bbox/xmin": _floats([box.xmin / probe.width for box in boxes]),
        "image/object/bbox/ymax": _floats([box.ymax / probe.height for box in boxes]),
        "image/object/bbox/ymin": _floats([box.ymin / probe.height for box in boxes]),
        "image/object/class/label": _int64([ids[box.label] for box in boxes]),
        "image/object/class/text": _bytes([box.label.encode() for box in boxes]),
        "image/object/difficult": _int64([int(box.difficult) for box in boxes]),
        "image/object/truncated": _int64([int(box.truncated) for box in boxes]),
        "image/object/view": _bytes([box.pose.encode() for box in boxes]),
        "image/source_id": _bytes([sample.name.encode("utf-8", "surrogateescape")]),
        "image/width": _int64([probe.width]),
    }


def _entries(features: Mapping[str, _Chunks]) -> list[bytes]:
    chunks: list[bytes] = []
    for key in sorted(features):
        chunks += nested(1, [delimited(1, key.encode()), *nested(2, features[key])])
    return chunks


def _bytes(values: Sequence[bytes]) -> _Chunks:
    return nested(_BYTES_LIST, [chunk for value in values for chunk in nested(1, [value])])


def _floats(values: Sequence[float]) -> _Chunks:
    return nested(_FLOAT_LIST, [packed_floats(1, values)])


def _int64(values: Sequence[int]) -> _Chunks:
    return nested(_INT64_LIST, [packed_int64(1, values)])
