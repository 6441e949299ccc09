"""The packages and the records as the real trainer takes them: its entry points import, its decoder reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.data.demo import draw_demo
from gcpod.data.formats.voc import read_voc

from .conftest import Trainer

IMPORT = """
import importlib
module = importlib.import_module("object_detection." + Path(sys.argv[3]).name)
import nets.mobilenet.mobilenet_v2
print("FOUND " + json.dumps([module.__file__, nets.mobilenet.mobilenet_v2.__file__]))
"""

DECODE = """
import tensorflow as tf
from object_detection.core import standard_fields
from object_detection.data_decoders.tf_example_decoder import TfExampleDecoder
field = standard_fields.InputDataFields
decoder = TfExampleDecoder(label_map_proto_file=sys.argv[3])
found = {}
for record in tf.data.TFRecordDataset(sys.argv[4:]):
    read = decoder.decode(record)
    found[read[field.source_id].numpy().decode()] = {
        "boxes": read[field.groundtruth_boxes].numpy().tolist(),
        "classes": read[field.groundtruth_classes].numpy().tolist(),
        "image": read[field.image].shape.as_list(),
        "difficult": read[field.groundtruth_difficult].numpy().tolist(),
    }
print("FOUND " + json.dumps(found))
"""


@pytest.mark.trainer
@pytest.mark.parametrize("name", ["model_main_tf2", "exporter_main_v2"])
def test_the_entry_points_import_from_the_packages(trainer: Trainer, tmp_path: Path, name: str) -> None:
    found: Any = trainer(tmp_path / "unpacked", IMPORT, Path(name))
    assert [Path(file).name for file in found] == [f"{name}.py", "mobilenet_v2.py"]
    assert all(Path(file).is_relative_to(tmp_path) for file in found)


@pytest.mark.trainer
def test_the_apis_own_decoder_reads_the_records(trainer: Trainer, tmp_path: Path) -> None:
    draw_demo(tmp_path, train=12, eval=4)
    images, annotations = tmp_path / "images", tmp_path / "annotations"
    manifest = build_dataset(DatasetRequest(images, annotations, tmp_path / "out"))
    shards = [path for split in ("train", "eval") for path in manifest.shard_paths(split)]
    found: Any = trainer(tmp_path / "unpacked", DECODE, tmp_path / "out" / manifest.label_map, *shards)
    ids = manifest.read_label_map().ids()
    assert len(found) == 16
    for name, example in found.items():
        truth = read_voc((annotations / name).with_suffix(".xml"))
        width, height = truth.width, truth.height
        expected = [[b.ymin / height, b.xmin / width, b.ymax / height, b.xmax / width] for b in truth.boxes]
        assert len(example["boxes"]) == len(expected) > 0
        for box, wanted in zip(example["boxes"], expected, strict=True):
            assert box == pytest.approx(wanted, abs=1e-6)
        assert example["classes"] == [ids[box.label] for box in truth.boxes]
        assert example["difficult"] == [box.difficult for box in truth.boxes]
        assert example["image"] == [height, width, 3]
