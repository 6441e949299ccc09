"""The real Object Detection API reads what gcpod renders and builds its model, from the very packages a job gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcpod.pipeline.render import RenderRequest, render_config, template_text

from .conftest import Trainer

BUILD_MODEL = """
import tensorflow as tf
from object_detection.builders import model_builder
from object_detection.utils import config_util
found = []
for path in sys.argv[3:]:
    configs = config_util.get_configs_from_pipeline_file(path)
    model = model_builder.build(configs["model"], is_training=True)
    train = configs["train_config"]
    found.append({
        "file": path, "classes": model.num_classes, "batch": train.batch_size, "steps": train.num_steps,
        "records": list(configs["train_input_config"].tf_record_input_reader.input_path),
        "eval": list(configs["eval_input_configs"][0].tf_record_input_reader.input_path),
        "labels": configs["train_input_config"].label_map_path, "checkpoint": train.fine_tune_checkpoint,
        "shape": model.preprocess(tf.zeros([1, 40, 60, 3]))[0].shape.as_list(), "kind": type(model).__name__,
    })
print("FOUND " + json.dumps(found))
"""

REQUEST = RenderRequest(
    num_classes=5, records="gs://b/train-*", eval_records="gs://b/eval-*", label_map="gs://b/map.pbtxt", batch_size=4,
    steps=300, warmup_steps=30,
)


@pytest.mark.trainer
def test_the_api_builds_the_model_of_each_rendered_config(trainer: Trainer, shared_data: Path, tmp_path: Path) -> None:
    built_in = tmp_path / "built_in.config"
    request = RenderRequest(**{**vars(REQUEST), "image_size": 128, "depth_multiplier": 0.35, "learning_rate": 0.02,
                               "fine_tune_checkpoint": "gs://b/ckpt-0"})
    built_in.write_text(render_config(template_text("ssd_mobilenet_v2", Path())[0], request), encoding="utf-8")
    paths = [built_in]
    for source in sorted((shared_data / "pipeline-configs").glob("ssd_mobilenet_v2*tpu-8.config")):
        paths.append(tmp_path / source.name)
        paths[-1].write_text(render_config(source.read_text(encoding="utf-8"), REQUEST), encoding="utf-8")
    assert len(paths) == 3
    found = trainer(tmp_path / "unpacked", BUILD_MODEL, *paths)
    sizes = (128, 300, 320)
    expected = [{
        "file": str(path), "classes": 5, "batch": 4, "steps": 300, "records": ["gs://b/train-*"],
        "eval": ["gs://b/eval-*"], "labels": "gs://b/map.pbtxt",
        "checkpoint": "gs://b/ckpt-0" if path == built_in else "",
        "shape": [1, size, size, 3], "kind": "SSDMetaArch",
    } for path, size in zip(paths, sizes, strict=True)]
    assert found == expected


PARSE_ALL = """
from google.protobuf import text_format
from object_detection.protos import pipeline_pb2
found = {}
for path in sys.argv[3:]:
    config = text_format.Parse(Path(path).read_text(), pipeline_pb2.TrainEvalPipelineConfig())
    found[Path(path).name] = [config.train_config.num_steps, config.train_config.batch_size]
print("FOUND " + json.dumps(found))
"""


@pytest.mark.trainer
def test_the_apis_own_schema_takes_every_rendered_config(trainer: Trainer, shared_data: Path, tmp_path: Path) -> None:
    paths = []
    for source in sorted((shared_data / "pipeline-configs").glob("*.config")):
        paths.append(tmp_path / source.name)
        paths[-1].write_text(render_config(source.read_text(encoding="utf-8"), REQUEST), encoding="utf-8")
    found = trainer(tmp_path / "unpacked", PARSE_ALL, *paths)
    assert found == {path.name: [300, 4] for path in paths}
