"""The zoo as data: complete, as published, and as the sample configs of the same names have it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gcpod.errors import SpecError
from gcpod.models.download import check_address
from gcpod.models.start import WIDTH
from gcpod.models.zoo import ZOO, all_models, find_model
from gcpod.pipeline.render import template_names
from gcpod.textproto import Scalar, parse

CONFIGS = {
    "ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync_2018_07_03":
        "ssd_mobilenet_v1_fpn_shared_box_predictor_640x640_coco14_sync",
    "ssd_inception_v2_coco_2018_01_28": "ssd_inception_v2_coco",
    "ssd_mobilenet_v1_coco_2018_01_28": "ssd_mobilenet_v1_coco",
    "ssd_mobilenet_v2_quantized_300x300_coco_2019_01_03": "ssd_mobilenet_v2_quantized_300x300_coco",
    "faster_rcnn_inception_v2_coco_2018_01_28": "faster_rcnn_inception_v2_pets",
    "ssd_mobilenet_v2_320x320_coco17_tpu-8": "ssd_mobilenet_v2_320x320_coco17_tpu-8",
    "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8": "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8",
    "efficientdet_d0_coco17_tpu-32": "ssd_efficientdet_d0_512x512_coco17_tpu-8",
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8": "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",
    "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8": "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8",
}
"""Each model's sample config, or that of its closest relative: pets for COCO, boxes for keypoints."""


def test_every_model_is_complete_and_from_its_own_page() -> None:
    raw = yaml.safe_load(ZOO.read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(raw["updated"]))
    assert set(raw["pages"]) == {1, 2}
    for name, model in all_models().items():
        assert model.url.endswith(f"/{name}.tar.gz")
        assert ("/tf2/" in model.url) == (model.tensorflow == 2)
        assert model.coco_map is not None
        assert 15 < model.coco_map < 60
        assert model.speed_ms is not None
        assert 5 < model.speed_ms < 2000
        check_address(model.url)


def test_published_numbers() -> None:
    models = all_models().values()
    assert {(m.template, m.coco_map, m.speed_ms) for m in models if m.tensorflow == 1} == {
        ("ssd_mobilenet_v1_fpn_640", 32, 56), ("ssd_inception_v2", 24, 42), ("ssd_mobilenet_v1", 21, 30),
        ("ssd_mobilenet_v2_quantized_300", 22, 29), ("faster_rcnn_inception_v2", 28, 58),
    }
    assert {(m.template, m.coco_map, m.speed_ms) for m in models if m.tensorflow == 2} == {
        ("ssd_mobilenet_v2_320", 20.2, 19), ("ssd_mobilenet_v2_fpnlite_320", 22.2, 22), ("efficientdet_d0", 33.6, 39),
        ("faster_rcnn_resnet50_v1_640", 29.3, 53), ("centernet_resnet50", 31.2, 27),
    }


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_model_is_what_its_sample_config_says(shared_data: Path, name: str) -> None:
    path = shared_data / "pipeline-configs" / f"{CONFIGS[name]}.config"
    tree, model = parse(path.read_text(encoding="utf-8"), path.name), find_model(name)
    sides = ("height", "width") if model.resizer == "fixed_shape_resizer" else ("min_dimension", "max_dimension")
    paths = ("feature_extractor.type", *(f"image_resizer.{model.resizer}.{side}" for side in sides))
    found = [tree.find(f"model.{model.architecture}.{path}") for path in paths]
    assert [isinstance(one, Scalar) and one.value for one in found] == [model.extractor, *map(str, model.input_px)]
    assert float(tree.text(f"model.{model.architecture}.feature_extractor.depth_multiplier") or WIDTH) == WIDTH


def test_every_sample_config_has_a_model() -> None:
    assert set(CONFIGS) == set(all_models())


def test_every_model_goes_with_a_built_in_template() -> None:
    assert {model.template for model in all_models().values()} <= set(template_names())


@pytest.mark.parametrize(("name", "said"), [
    ("ssd_mobilenet_v2_320x320", "did you mean ssd_mobilenet_v2_320x320_coco17_tpu-8 or "),
    ("efficientdet_d0", "efficientdet_d0_coco17_tpu-32"),
    ("?", "gcpod model list"),
    ("", "gcpod model list"),
])
def test_an_unknown_name_is_answered_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        find_model(name)
    assert said in str(caught.value)


def test_sizes_in_words() -> None:
    assert find_model("faster_rcnn_inception_v2_coco_2018_01_28").input_text == "600 to 1024"
    assert find_model("efficientdet_d0_coco17_tpu-32").input_text == "512x512"
    assert find_model("ssd_mobilenet_v2_320x320_coco17_tpu-8").input_text == "300x300"
