"""The real Object Detection API builds every built-in template, each the model that is published under its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.pipeline.edit import edit
from gcpod.pipeline.render import RenderRequest, render_config, template_text
from gcpod.pipeline.schema import built_in_schema
from gcpod.textproto import Message, parse

from .conftest import Trainer

REQUEST = RenderRequest(
    num_classes=5, records="gs://b/train-*", eval_records="gs://b/eval-*", label_map="gs://b/map.pbtxt", batch_size=8,
    steps=300, warmup_steps=30,
)

TF1 = """
import tensorflow as tf
compat.apply("object_detection.model_main")
scope = lambda: tf.Graph().as_default()
def peak(train):
    step = tf.compat.v1.train.get_or_create_global_step()
    _, (rate, *_) = optimizer_builder.build(train.optimizer)
    with tf.compat.v1.Session() as session:
        return session.run(rate, {step: 30})
"""

TF2 = """
import contextlib
import tensorflow as tf
scope = contextlib.nullcontext
def peak(train):
    _, (rate, *_) = optimizer_builder.build(train.optimizer, global_step=tf.Variable(30, dtype=tf.int64))
    return rate()
"""

BUILD = """
from object_detection.builders import model_builder, optimizer_builder, preprocessor_builder
from object_detection.utils import config_util
found = {}
for path in map(Path, sys.argv[3:]):
    configs = config_util.get_configs_from_pipeline_file(str(path))
    train, evaluation = configs["train_config"], configs["eval_config"]
    with scope():
        model = model_builder.build(configs["model"], is_training=True)
        found[path.stem] = {
            "kind": type(model).__name__, "classes": model.num_classes,
            "shape": model.preprocess(tf.zeros([1, 40, 60, 3]))[0].shape.as_list(),
            "rate": round(float(peak(train)), 8), "checkpoint": train.fine_tune_checkpoint_type,
            "augmentation": [preprocessor_builder.build(o)[0].__name__ for o in train.data_augmentation_options],
            "trained": [train.batch_size, train.num_steps], "metrics": list(evaluation.metrics_set),
            "records": [list(configs["train_input_config"].tf_record_input_reader.input_path),
                        list(configs["eval_input_configs"][0].tf_record_input_reader.input_path)],
            "quantized": "graph_rewriter_config" in configs,
        }
print("FOUND " + json.dumps(found))
"""

FLIP_AND_CROP = ["random_horizontal_flip", "random_crop_image"]
FLIP_AND_SSD_CROP = ["random_horizontal_flip", "ssd_random_crop"]
COLOURS = ["random_adjust_hue", "random_adjust_contrast", "random_adjust_saturation", "random_adjust_brightness"]

# Kind, height and width that a picture of 40 by 60 gets, the learning rate where the warm-up ends, the augmentation.
BUILT_BY_TF1 = {
    "ssd_mobilenet_v1_fpn_640": ("SSDMetaArch", [640, 640], 0.02, FLIP_AND_CROP),
    "ssd_inception_v2": ("SSDMetaArch", [300, 300], 0.004, FLIP_AND_SSD_CROP),
    "ssd_mobilenet_v1": ("SSDMetaArch", [300, 300], 0.004, FLIP_AND_SSD_CROP),
    "ssd_mobilenet_v2_quantized_300": ("SSDMetaArch", [300, 300], 0.004, FLIP_AND_SSD_CROP),
    "faster_rcnn_inception_v2": ("FasterRCNNMetaArch", [600, 900], 0.0002, ["random_horizontal_flip"]),
}
BUILT_BY_TF2 = {
    "ssd_mobilenet_v2_320": ("SSDMetaArch", [300, 300], 0.05, FLIP_AND_SSD_CROP),
    "ssd_mobilenet_v2_fpnlite_320": ("SSDMetaArch", [320, 320], 0.02, FLIP_AND_CROP),
    "efficientdet_d0": ("SSDMetaArch", [512, 512], 0.01,
                        ["random_horizontal_flip", "random_scale_crop_and_pad_to_square"]),
    "faster_rcnn_resnet50_v1_640": ("FasterRCNNMetaArch", [640, 640], 0.005, ["random_horizontal_flip"]),
    "centernet_resnet50": ("CenterNetMetaArch", [512, 512], 0.000125,
                           [*FLIP_AND_CROP, *COLOURS, "random_absolute_pad_image"]),
}


@pytest.mark.trainer
@pytest.mark.parametrize(("start", "built"), [(TF1, BUILT_BY_TF1), (TF2, BUILT_BY_TF2)], ids=["tf1", "tf2"])
def test_the_api_builds_every_template(
    trainer: Trainer, tmp_path: Path, start: str, built: dict[str, tuple[str, list[int], float, list[str]]],
) -> None:
    request = replace(REQUEST, fine_tune_checkpoint="gs://b/ckpt-0")
    paths = [tmp_path / f"{name}.config" for name in built]
    for path in paths:
        path.write_text(render_config(template_text(path.stem, Path())[0], request), encoding="utf-8")
    found = trainer(tmp_path / "unpacked", start + BUILD, *paths)
    assert found == {
        name: {
            "kind": kind, "classes": 5, "shape": [1, *shape, 3], "rate": rate, "augmentation": augmentation,
            "checkpoint": "detection", "trained": [8, 300], "metrics": ["coco_detection_metrics"],
            "records": [["gs://b/train-*"], ["gs://b/eval-*"]], "quantized": "quantized" in name,
        } for name, (kind, shape, rate, augmentation) in built.items()
    }


BUILD_ONLY = """
from object_detection.builders import model_builder
from object_detection.utils import config_util
found = {}
for path in map(Path, sys.argv[3:]):
    configs = config_util.get_configs_from_pipeline_file(str(path))
    with scope():
        model = model_builder.build(configs["model"], is_training=True)
        found[path.stem] = [type(model).__name__, model.num_classes, configs["train_config"].num_steps]
print("FOUND " + json.dumps(found))
"""
KINDS = {"ssd": "SSDMetaArch", "faster_rcnn": "FasterRCNNMetaArch", "center_net": "CenterNetMetaArch"}


@pytest.mark.trainer
@pytest.mark.parametrize(("start", "world"), [(TF1, "1"), (TF2, "2")], ids=["tf1", "tf2"])
def test_the_api_builds_every_real_config(
    trainer: Trainer, shared_data: Path, tmp_path: Path, start: str, world: str,
) -> None:
    expected, paths = {}, []
    for source in sorted((shared_data / "pipeline-configs").glob("*.config")):
        template = source.read_text(encoding="utf-8")
        tree = parse(template)
        model = tree.find("model")
        assert isinstance(model, Message)
        kind = model.fields[-1][0]
        extractor = tree.text(f"model.{kind}.feature_extractor.type")
        if extractor not in built_in_schema().extractors[world]:
            continue
        settings = {}
        if tree.find(f"{KEYPOINTS}.task_name") is not None:
            settings["model.center_net.keypoint_label_map_path"] = str(keypoint_map(tree, tmp_path / "map.pbtxt"))
        paths.append(tmp_path / source.name)
        paths[-1].write_text(render_config(template, replace(REQUEST, settings=settings)), encoding="utf-8")
        expected[source.stem] = [KINDS[kind], 5, 300]
    assert len(paths) == {"1": 9, "2": 7}[world]
    assert trainer(tmp_path / "unpacked", start + BUILD_ONLY, *paths) == expected


KEYPOINTS = "model.center_net.keypoint_estimation_task"


def keypoint_map(tree: Message, path: Path) -> Path:
    """A label map with the keypoints that a config of CenterNet names; its model looks them up when it is built."""
    task = tree.find(KEYPOINTS)
    assert isinstance(task, Message)
    names = [one.text("key") for one in task.all("keypoint_label_to_std") if isinstance(one, Message)]
    points = " ".join(f'keypoints {{ id: {number} label: "{name}" }}' for number, name in enumerate(names))
    name = task.text("keypoint_class_name")
    path.write_text(f'item {{ id: 1 name: "{name}" display_name: "person" {points} }}', encoding="utf-8")
    return path


COMPARE = """
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2

def differences(one, other, path=""):
    # Fields that say different things; a default that is written out says what a missing field says.
    for field in one.DESCRIPTOR.fields:
        here, (a, b) = f"{path}{field.name}", [getattr(message, field.name) for message in (one, other)]
        if field.label == field.LABEL_REPEATED:
            if len(a) != len(b):
                yield here
            elif field.message_type:
                for number, (left, right) in enumerate(zip(a, b)):
                    yield from differences(left, right, f"{here}.{number}.")
            elif list(a) != list(b):
                yield here
        elif field.message_type:
            if one.HasField(field.name) != other.HasField(field.name):
                yield here
            elif one.HasField(field.name):
                yield from differences(a, b, here + ".")
        elif a != b:
            yield here

found, paths = {}, iter(sys.argv[3:])
for pair in zip(paths, paths):
    ours, theirs = [text_format.Parse(Path(p).read_text(), pipeline_pb2.TrainEvalPipelineConfig()) for p in pair]
    for config in (ours, theirs):
        getattr(config.model, config.model.WhichOneof("model")).num_classes = 1
    training = differences(ours.train_config, theirs.train_config)
    found[Path(pair[0]).stem] = {
        "model": list(differences(ours.model, theirs.model)),
        "augmentation": [path for path in training if path.startswith("data_augmentation_options")],
    }
print("FOUND " + json.dumps(found))
"""

PUBLISHED = {
    "ssd_mobilenet_v1_fpn_640": "ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync",
    "ssd_inception_v2": "ssd_inception_v2_coco",
    "ssd_mobilenet_v1": "ssd_mobilenet_v1_coco",
    "ssd_mobilenet_v2_quantized_300": "ssd_mobilenet_v2_quantized_300x300_coco",
    "faster_rcnn_inception_v2": "faster_rcnn_inception_v2_pets",
    "ssd_mobilenet_v2_320": "ssd_mobilenet_v2_320x320_coco17_tpu-8",
    "ssd_mobilenet_v2_fpnlite_320": "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8",
    "efficientdet_d0": "ssd_efficientdet_d0_512x512_coco17_tpu-8",
    "faster_rcnn_resnet50_v1_640": "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",
    "centernet_resnet50": "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8",
}
SAME: dict[str, list[str]] = {"model": [], "augmentation": []}
ALLOWED = {
    # The published config at hand also finds keypoints, by heads of their own: type "detection" restores the feature
    # extractor alone (center_net_meta_arch.py, restore_from_objects), and boxes have no keypoints to swap in a flip.
    "centernet_resnet50": {
        "model": ["center_net.keypoint_label_map_path", "center_net.keypoint_estimation_task"],
        "augmentation": ["data_augmentation_options.0.random_horizontal_flip.keypoint_flip_permutation"],
    },
}


@pytest.mark.trainer
def test_a_template_differs_from_the_published_config_only_where_no_checkpoint_minds(
    trainer: Trainer, shared_data: Path, tmp_path: Path,
) -> None:
    folder = shared_data / "pipeline-configs"
    paths = []
    for name, published in PUBLISHED.items():
        paths += [tmp_path / f"{name}.config", folder / f"{published}.config"]
        paths[-2].write_text(template_text(name, Path())[0], encoding="utf-8")
    # And one that is wrong, to see that it would be seen.
    changed = tmp_path / "changed.config"
    changed.write_text(edit(template_text("efficientdet_d0", Path())[0], {
        "model.ssd.anchor_generator.multiscale_anchor_generator.scales_per_octave": "2",
        "model.ssd.feature_extractor.bifpn.num_filters": "88",
        "model.ssd.mask_head_config.mask_height": "15",
        "train_config.data_augmentation_options.random_scale_crop_and_pad_to_square.scale_max": "1.5",
    }), encoding="utf-8")
    paths += [changed, folder / f"{PUBLISHED['efficientdet_d0']}.config"]
    found = trainer(tmp_path / "unpacked", COMPARE, *paths)
    assert isinstance(found, dict)
    assert found.pop("changed") == {
        "model": ["ssd.feature_extractor.bifpn.num_filters",
                  "ssd.anchor_generator.multiscale_anchor_generator.scales_per_octave", "ssd.mask_head_config"],
        "augmentation": ["data_augmentation_options.1.random_scale_crop_and_pad_to_square.scale_max"],
    }
    assert found == {name: ALLOWED.get(name, SAME) for name in PUBLISHED}
