"""The real TensorFlow and Object Detection API fail in ways that can be had here; their own words are diagnosed."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from gcpod.jobs.diagnose import diagnose

from .conftest import Trainer

FAIL = """
import traceback
import tensorflow as tf
from google.protobuf import text_format
from object_detection.builders import model_builder
from object_detection.core import box_list, box_list_ops
from object_detection.protos import model_pb2, pipeline_pb2
from object_detection.utils import label_map_util, learning_schedules

junk, labels = folder / "junk.data-00000-of-00001", folder / "labels.pbtxt"
junk.write_text("junk")
labels.write_text('item { id: 0 name: "a" }')

def parse(text, message=pipeline_pb2.TrainEvalPipelineConfig):
    return text_format.Parse(text, message())

def build(extractor):
    parts = f'feature_extractor {{ type: "{extractor}" }} box_coder {{ faster_rcnn_box_coder {{}} }}'
    model_builder.build(parse(f"ssd {{ num_classes: 1 {parts} }}", model_pb2.DetectionModel), True)

@tf.function
def check(ymin, ymax):
    with tf.control_dependencies([tf.Assert(tf.reduce_all(ymax >= ymin), [ymin, ymax])]):
        return ymin + ymax

@tf.function
def absolute(corners):
    return box_list_ops.to_absolute_coordinates(box_list.BoxList(corners), 100, 100).get()

WAYS = {
    "C200": [lambda: parse("model { ssd ")],
    "C201": [lambda: tf.train.load_checkpoint("/nowhere/ckpt-0"), lambda: tf.train.load_checkpoint(str(junk))],
    "C202": [lambda: parse("model { ssd { colour: 3 } }"),
             lambda: parse("train_config { fine_tune_checkpoint_version: V9 }")],
    "C203": [lambda: build("ssd_mobilenet_v2"), lambda: build("ssd_of_nobody")],
    "C204": [lambda: parse("train_config { fine_tune_checkpoint: \\u201cgs://b/ckpt-0\\u201d }")],
    "C205": [lambda: label_map_util.load_labelmap(str(labels))],
    "C206": [lambda: tf.train.load_checkpoint("PATH_TO_BE_CONFIGURED")],
    "C207": [lambda: next(iter(tf.data.TFRecordDataset("/Users/me/train.record")))],
    "C208": [lambda: tf.distribute.InputContext(1, 0, 8).get_per_replica_batch_size(12)],
    "C209": [lambda: learning_schedules.manual_stepping(tf.constant(1), [0, 10], [0.1, 0.2, 0.3])],
    "D102": [lambda: absolute(tf.constant([[0.0, 0.0, 1.5, 1.0]]))],
    "D103": [lambda: check(tf.constant([0.9, 0.2]), tf.constant([0.4, 0.7])),
             lambda: check(tf.constant([[0.9], [0.2]]), tf.constant([[0.4], [0.7]]))],
    "D105": [lambda: tf.debugging.check_numerics(tf.constant(float("nan")), "LossTensor is inf or nan.")],
    "D106": [lambda: tf.io.decode_image(b"junk")],
    "K301": [lambda: __import__("nets_of_nobody")],
    "K304": [lambda: __import__("tensorflow.contrib.of_nobody")],
}
found = []
for code, ways in WAYS.items():
    for way in ways:
        try:
            way()
            found.append([code, ""])
        except Exception:
            found.append([code, traceback.format_exc()])
print("FOUND " + json.dumps(found))
"""


@pytest.mark.trainer
def test_what_the_trainer_says_is_diagnosed(trainer: Trainer, tmp_path: Path) -> None:
    failures = cast(list[list[str]], trainer(tmp_path / "unpacked", FAIL))
    assert len(failures) == 20
    told = {trace[-300:]: [one.code for one in diagnose("", trace.splitlines(), "job")] for _, trace in failures}
    assert told == {trace[-300:]: [code] for code, trace in failures}
