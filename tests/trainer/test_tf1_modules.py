"""The TensorFlow 1 entry points on TensorFlow 2.12: a few real steps each, by the launcher, from packages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.data.demo import draw_demo
from gcpod.results.metrics import read_metrics
from gcpod.runtimes import LAUNCHER

from .conftest import Trainer

pytestmark = pytest.mark.trainer

# rms_prop_optimizer without `use_moving_average: false`, as the samples of TensorFlow 1 have it, trains averages too.
CONFIG = """
model { ssd {
  num_classes: 3
  feature_extractor {
    type: "ssd_mobilenet_v1" depth_multiplier: 0.25 min_depth: 8
    conv_hyperparams {
      activation: RELU_6
      regularizer { l2_regularizer { weight: 0.00004 } }
      initializer { truncated_normal_initializer { stddev: 0.03 } }
      batch_norm { decay: 0.97 epsilon: 0.001 }
    }
  }
  image_resizer { fixed_shape_resizer { height: 96 width: 96 } }
  box_coder { faster_rcnn_box_coder { y_scale: 10 x_scale: 10 height_scale: 5 width_scale: 5 } }
  matcher { argmax_matcher { matched_threshold: 0.5 unmatched_threshold: 0.5 force_match_for_each_row: true } }
  similarity_calculator { iou_similarity { } }
  anchor_generator { ssd_anchor_generator { num_layers: 6 min_scale: 0.2 max_scale: 0.95 aspect_ratios: 1 } }
  box_predictor { convolutional_box_predictor { conv_hyperparams {
    regularizer { l2_regularizer { weight: 0.00004 } }
    initializer { truncated_normal_initializer { stddev: 0.03 } }
  } } }
  loss {
    classification_loss { weighted_sigmoid { } }
    localization_loss { weighted_smooth_l1 { } }
    classification_weight: 1 localization_weight: 1
  }
  normalize_loss_by_num_matches: true
  post_processing {
    batch_non_max_suppression {
      score_threshold: 1e-8 iou_threshold: 0.6 max_detections_per_class: 10 max_total_detections: 10
    }
    score_converter: SIGMOID
  }
} }
train_config {
  batch_size: 2
  num_steps: 3
  optimizer { rms_prop_optimizer {
    learning_rate { exponential_decay_learning_rate { initial_learning_rate: 0.004 } }
  } }
}
train_input_reader {
  label_map_path: "%(label_map)s"
  tf_record_input_reader { input_path: "%(train)s" }
}
eval_config {
  num_examples: 4 num_visualizations: 0 max_evals: 1 use_moving_averages: true
  metrics_set: "coco_detection_metrics"
}
eval_input_reader {
  label_map_path: "%(label_map)s" shuffle: false
  tf_record_input_reader { input_path: "%(eval)s" }
}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline config beside eight drawn pictures to train on and four to evaluate."""
    folder = tmp_path_factory.mktemp("tf1")
    draw_demo(folder, train=8, eval=4, size=96)
    manifest = build_dataset(DatasetRequest(folder / "images", folder / "annotations", folder / "out"))
    [train], [held_out] = manifest.shard_paths("train"), manifest.shard_paths("eval")
    path = folder / "pipeline.config"
    path.write_text(CONFIG % {
        "label_map": folder / "out" / manifest.label_map, "train": train, "eval": held_out,
    })
    return path


Launch = Callable[..., str]


@pytest.fixture(scope="module")
def launch(trainer: Trainer, config: Path) -> Launch:
    """Runs a module of object_detection with flags to its end; returns what it logged."""
    def run(module: str, **flags: object) -> str:
        packages = [f"--package={archive}" for archive in trainer.archives]
        given = [f"--{name}={value}" for name, value in {"pipeline_config_path": config, **flags}.items()]
        done = subprocess.run(
            [trainer.python, "-m", "gcpod_launcher", *packages, "--module", f"object_detection.{module}", "--", *given],
            env={**os.environ, "PYTHONPATH": str(LAUNCHER)}, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr
    return run


@pytest.fixture(scope="module")
def trained(launch: Launch, config: Path) -> Path:
    """The folder in which legacy.train left its checkpoints."""
    folder = config.parent / "trained"
    log = launch("legacy.train", train_dir=folder)
    assert [f"global step {step}: loss = " in log for step in (1, 2, 3, 4)] == [True, True, True, False]
    return folder


def steps(folder: Path) -> set[str]:
    """The steps of the checkpoints in a folder, by their data files."""
    return {path.name.removeprefix("model.ckpt-").split(".")[0] for path in folder.glob("model.ckpt-*.data-*")}


def test_legacy_train_stops_at_its_last_step_with_a_checkpoint(trained: Path) -> None:
    assert "3" in steps(trained)
    assert (trained / "checkpoint").read_text().startswith(f'model_checkpoint_path: "{trained}/model.ckpt-3"\n')


def test_legacy_eval_writes_metrics_of_that_checkpoint_and_ends(launch: Launch, trained: Path, tmp_path: Path) -> None:
    launch("legacy.eval", checkpoint_dir=trained, eval_dir=tmp_path)
    [metrics] = read_metrics(tmp_path)
    assert metrics.step == 3
    assert 0 <= metrics.ap <= metrics.ap50 <= 1


def test_model_main_trains_evaluates_at_the_end_and_exports(launch: Launch, tmp_path: Path) -> None:
    log = launch("model_main", model_dir=tmp_path)
    assert "Loss for final step: " in log
    assert "3" in steps(tmp_path)
    [metrics] = read_metrics(tmp_path / "eval_0")
    assert metrics.step == 3
    assert 0 <= metrics.ap <= metrics.ap50 <= 1
    assert len(list((tmp_path / "export" / "Servo").glob("*/saved_model.pb"))) == 1


DETECT = """
import numpy as np
import tensorflow.compat.v1 as tf
exported, trained, picture = sys.argv[3:]
pixels = np.asarray(__import__("PIL.Image").Image.open(picture))[None]
names = [f"detection_{name}:0" for name in ("boxes", "scores", "classes")] + ["num_detections:0"]

def frozen(session):
    graph = tf.GraphDef.FromString(Path(exported, "frozen_inference_graph.pb").read_bytes())
    tf.import_graph_def(graph, name="")

def saved(session):
    signature = tf.saved_model.load(session, ["serve"], exported + "/saved_model").signature_def["serving_default"]
    assert sorted(o.name for o in signature.outputs.values() if o.name in names) == sorted(names)

def detections(load):
    with tf.Graph().as_default(), tf.Session() as session:
        load(session)
        return [value.tolist() for value in session.run(names, {"image_tensor:0": pixels})]

weights = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"
before, after = (tf.train.load_checkpoint(path).get_tensor for path in (trained, exported + "/model.ckpt"))
average = before(weights + "/ExponentialMovingAverage")
print("FOUND " + json.dumps({
    "frozen": detections(frozen), "saved": detections(saved),
    "average": bool((after(weights) == average).all()), "last": bool((after(weights) == before(weights)).all()),
}))
"""


def test_export_inference_graph_writes_what_detects_with_the_averaged_weights(
    launch: Launch, trainer: Trainer, trained: Path, config: Path, tmp_path: Path,
) -> None:
    exported, checkpoint = tmp_path / "exported", trained / "model.ckpt-3"
    launch("export_inference_graph", input_type="image_tensor", trained_checkpoint_prefix=checkpoint,
           output_directory=exported)
    assert {path.name for path in exported.iterdir()} >= {"frozen_inference_graph.pb", "saved_model", "pipeline.config"}
    picture = next((config.parent / "images" / "eval").iterdir())
    found: Any = trainer(tmp_path / "unpacked", DETECT, exported, checkpoint, picture)
    [boxes], [scores], [classes], [count] = found["frozen"]
    assert len(boxes) == len(scores) == count == 10
    assert all(0 <= edge <= 1 for box in boxes for edge in box)
    assert sorted(scores, reverse=True) == scores
    assert set(classes) <= {1, 2, 3}
    assert found["saved"] == found["frozen"]
    assert (found["average"], found["last"]) == (True, False)


STAND_INS = """
from tensorflow.python import tf2
before = tf2.enabled()
compat.apply("object_detection.model_main_tf2")
between = tf2.enabled()
compat.apply("object_detection.model_main")
import tensorflow.compat.v1 as tf
from object_detection.builders import graph_rewriter_builder, optimizer_builder
from object_detection.protos import graph_rewriter_pb2, optimizer_pb2
from nets.nasnet import nasnet
config = optimizer_pb2.Optimizer(moving_average_decay=0.75)
config.momentum_optimizer.momentum_optimizer_value = 0
config.momentum_optimizer.learning_rate.constant_learning_rate.learning_rate = 0.5
x = tf.get_variable("x", initializer=4.0)
optimizer, _ = optimizer_builder.build(config)
step = tf.train.get_or_create_global_step()
train = optimizer.minimize(x * x / 2, global_step=step)
average = next(v for v in tf.global_variables() if v.op.name == "x/ExponentialMovingAverage")
values = []
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(3):
        session.run(train)
        values.append([float(v) for v in session.run([x, average, step])])
rewriter = graph_rewriter_pb2.GraphRewriter()
rewriter.quantization.delay = 10
refusals = []
for training in (True, False):
    try:
        graph_rewriter_builder.build(rewriter, is_training=training)()
    except SystemExit as stop:
        refusals.append(stop.code)
print("FOUND " + json.dumps({
    "tf2": [before, between, tf2.enabled()], "values": values, "refusals": refusals,
    "cells": nasnet.mobile_imagenet_config().num_cells,
}))
"""


def test_what_stands_for_contrib_does_what_the_api_wants_of_it(trainer: Trainer, tmp_path: Path) -> None:
    found: Any = trainer(tmp_path / "unpacked", STAND_INS)
    assert found["tf2"] == [True, True, False]
    # x is halved at each step, and then a quarter of it goes into its average.
    assert found["values"] == [[2, 3.5, 1], [1, 2.875, 2], [0.5, 2.28125, 3]]
    assert len(found["refusals"]) == 2
    assert all("graph_rewriter" in refusal for refusal in found["refusals"])
    assert found["cells"] == 12
