"""TensorFlow itself reads the records back: the same boxes, labels and image bytes."""

from __future__ import annotations

import base64
import json
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.data.demo import draw_demo
from gcpod.data.formats.voc import read_voc, to_voc
from gcpod.data.manifest import DatasetManifest
from gcpod.data.model import Annotation, Box

READER = """
import base64, json, sys
import tensorflow as tf

def var(kind):
    return tf.io.VarLenFeature(kind)

def one(kind):
    return tf.io.FixedLenFeature([], kind)

spec = {
    "image/encoded": one(tf.string), "image/format": one(tf.string), "image/filename": one(tf.string),
    "image/source_id": one(tf.string), "image/key/sha256": one(tf.string),
    "image/height": one(tf.int64), "image/width": one(tf.int64),
    "image/object/bbox/xmin": var(tf.float32), "image/object/bbox/xmax": var(tf.float32),
    "image/object/bbox/ymin": var(tf.float32), "image/object/bbox/ymax": var(tf.float32),
    "image/object/class/text": var(tf.string), "image/object/class/label": var(tf.int64),
    "image/object/difficult": var(tf.int64), "image/object/truncated": var(tf.int64),
    "image/object/view": var(tf.string),
}

def plain(value):
    value = tf.sparse.to_dense(value) if isinstance(value, tf.sparse.SparseTensor) else value
    if value.dtype == tf.string:
        coded = [base64.b64encode(item).decode() for item in tf.reshape(value, [-1]).numpy().tolist()]
        return coded if value.shape.rank else coded[0]
    return value.numpy().tolist()

for record in tf.data.TFRecordDataset(sys.argv[1:]):
    parsed = tf.io.parse_single_example(record, spec)
    keys = sorted(tf.train.Example.FromString(record.numpy()).features.feature)
    shape = tf.io.decode_image(parsed["image/encoded"], channels=3).shape.as_list()
    print(json.dumps({"keys": keys, "shape": shape, **{key: plain(value) for key, value in parsed.items()}}))
"""


def read_by_tensorflow(python: Path, manifest: DatasetManifest) -> dict[str, dict[str, Any]]:
    shards = [str(path) for split in ("train", "eval") for path in manifest.shard_paths(split)]
    done = subprocess.run([python, "-c", READER, *shards], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {text(one["image/source_id"]): one for one in found}


def text(coded: str) -> str:
    return base64.b64decode(coded).decode()


def add_odd_ones(folder: Path) -> None:
    """Beside the demo's pictures: a PNG with names beyond ASCII, every flag set, and one picture without boxes."""
    flagged = Box("chat «noir»", 1, 2, 30, 40, difficult=True, truncated=True, pose="Frontal")
    boxes = [flagged, Box("circle", 0, 0, 64, 48)]
    for name, found in (("é.png", boxes), ("empty.png", [])):
        out = BytesIO()
        Image.new("RGB", (64, 48), (len(found), 20, 30)).save(out, "PNG")
        (folder / "images" / "train" / name).write_bytes(out.getvalue())
        xml = to_voc(name, 64, 48, found)
        (folder / "annotations" / "train" / name).with_suffix(".xml").write_text(xml, encoding="utf-8")


def compare(example: dict[str, Any], image: Path, truth: Annotation, ids: dict[str, int]) -> None:
    assert base64.b64decode(example["image/encoded"]) == image.read_bytes()
    assert text(example["image/filename"]) == image.name
    assert text(example["image/format"]) == {".jpg": "jpeg", ".png": "png"}[image.suffix]
    assert len(text(example["image/key/sha256"])) == 64
    assert (example["image/width"], example["image/height"]) == (truth.width, truth.height)
    assert example["shape"] == [truth.height, truth.width, 3]
    for edge, side in (("xmin", truth.width), ("xmax", truth.width), ("ymin", truth.height), ("ymax", truth.height)):
        expected = [getattr(box, edge) / side for box in truth.boxes]
        assert example[f"image/object/bbox/{edge}"] == pytest.approx(expected, abs=1e-6)
    assert [text(one) for one in example["image/object/class/text"]] == [box.label for box in truth.boxes]
    assert example["image/object/class/label"] == [ids[box.label] for box in truth.boxes]
    assert example["image/object/difficult"] == [box.difficult for box in truth.boxes]
    assert example["image/object/truncated"] == [box.truncated for box in truth.boxes]
    assert [text(one) for one in example["image/object/view"]] == [box.pose for box in truth.boxes]


@pytest.mark.trainer
def test_tensorflow_reads_back_what_was_written(runtime_python: Path, tmp_path: Path) -> None:
    draw_demo(tmp_path, train=20, eval=5)
    add_odd_ones(tmp_path)
    images, annotations = tmp_path / "images", tmp_path / "annotations"
    manifest = build_dataset(DatasetRequest(images, annotations, tmp_path / "out", shard_bytes=50_000))
    found = read_by_tensorflow(runtime_python, manifest)
    assert len(found) == 27
    keys = {"keys", "shape"}
    for name, example in found.items():
        assert set(example["keys"]) == set(example) - keys
        truth = read_voc((annotations / name).with_suffix(".xml"))
        compare(example, images / name, truth, manifest.read_label_map().ids())
