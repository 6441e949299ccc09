from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gcpod.pipeline.lint import LintContext, lint_config
from gcpod.pipeline.render import RenderRequest, render_config, template_names, template_text
from gcpod.textproto import Message, Scalar, parse

REQUEST = RenderRequest(
    num_classes=7, records="gs://b/run/train-*", eval_records="gs://b/run/eval-*", label_map="gs://b/run/map.pbtxt",
    batch_size=24, steps=1200, warmup_steps=120, eval_examples=60,
)
OF_THE_RUN = re.compile(
    r"(num_classes|batch_size|num_steps|label_map_path|input_path|fine_tune_checkpoint\w*|num_examples"
    r"|total_steps|warmup_steps|step|delay): \S+"
)
"""Lines that a run's values may change; whatever else a template says has to reach the trainer as it stands."""


@dataclass(frozen=True)
class Kind:
    """What a template is for: its trainer's major version, its extractor, and whether a TPU can train it."""

    trainer: int
    extractor: str
    tpu: bool


KINDS = {
    "ssd_mobilenet_v1_fpn_640": Kind(1, "ssd_mobilenet_v1_fpn", tpu=True),
    "ssd_inception_v2": Kind(1, "ssd_inception_v2", tpu=False),
    "ssd_mobilenet_v1": Kind(1, "ssd_mobilenet_v1", tpu=False),
    "ssd_mobilenet_v2_quantized_300": Kind(1, "ssd_mobilenet_v2", tpu=False),
    "faster_rcnn_inception_v2": Kind(1, "faster_rcnn_inception_v2", tpu=False),
    "ssd_mobilenet_v2_320": Kind(2, "ssd_mobilenet_v2_keras", tpu=True),
    "ssd_mobilenet_v2_fpnlite_320": Kind(2, "ssd_mobilenet_v2_fpn_keras", tpu=True),
    "efficientdet_d0": Kind(2, "ssd_efficientnet-b0_bifpn_keras", tpu=True),
    "faster_rcnn_resnet50_v1_640": Kind(2, "faster_rcnn_resnet50_keras", tpu=True),
    "centernet_resnet50": Kind(2, "resnet_v1_50_fpn", tpu=True),
}

each = pytest.mark.parametrize("name", KINDS)


def text_of(name: str) -> str:
    return template_text(name, Path())[0]


def whole(tree: Message, path: str) -> int:
    return int(tree.text(path) or "")


def the_model(tree: Message) -> tuple[str, Message]:
    model = tree.find("model")
    assert isinstance(model, Message)
    [(architecture, _, body)] = model.fields
    assert isinstance(body, Message)
    return architecture, body


def test_these_are_the_templates_beside_the_quick_one() -> None:
    assert set(template_names()) - {"ssd_mobilenet_v2"} == set(KINDS)


@each
def test_the_first_two_lines_say_for_which_trainer_and_which_checkpoint(name: str) -> None:
    first, second, third = text_of(name).splitlines()[:3]
    assert f"for the TensorFlow {KINDS[name].trainer} trainer" in first
    assert second.startswith("# Fits ")
    assert third == ""


@each
def test_a_template_says_what_its_trainer_needs(name: str) -> None:
    tree, kind = parse(text_of(name), name), KINDS[name]
    _, model = the_model(tree)
    assert model.text("num_classes") == "1"
    assert model.text("feature_extractor.type") == kind.extractor
    assert tree.text("eval_config.metrics_set") == "coco_detection_metrics"
    assert tree.text("train_config.optimizer.use_moving_average") == "false"
    assert tree.text("train_config.fine_tune_checkpoint_type") == "detection"
    modern = kind.trainer == 2
    assert tree.text("train_config.fine_tune_checkpoint_version") == ("V2" if modern else None)
    assert tree.text("eval_config.use_moving_averages") == ("false" if modern else None)
    # An evaluation by TensorFlow 2 ends with its epoch; legacy.eval counts, over records without end.
    assert tree.text("eval_input_reader.num_epochs") == ("1" if modern else None)
    assert tree.text("train_config.max_number_of_boxes") == ("100" if kind.tpu else None)
    assert tree.text("train_config.unpad_groundtruth_tensors") == ("false" if kind.tpu else None)


@each
@pytest.mark.parametrize("rendered", [False, True])
def test_a_templates_schedule_ends_with_its_training(name: str, rendered: bool) -> None:
    tree = parse(render_config(text_of(name), REQUEST, name) if rendered else text_of(name), name)
    steps = whole(tree, "train_config.num_steps")
    assert steps % 100 == 0
    optimizer = tree.find("train_config.optimizer")
    assert isinstance(optimizer, Message)
    [rate] = [found for _, _, body in optimizer.fields
              if isinstance(body, Message) and isinstance(found := body.find("learning_rate"), Message)]
    [(schedule, _, body)] = rate.fields
    assert isinstance(body, Message)
    if schedule == "cosine_decay_learning_rate":
        assert whole(body, "total_steps") == steps
        assert whole(body, "warmup_steps") == steps // 10
        assert 0 < float(body.text("warmup_learning_rate") or "") < float(body.text("learning_rate_base") or "")
    else:
        assert schedule == "manual_step_learning_rate"
        entries = [entry for entry in body.all("schedule") if isinstance(entry, Message)]
        at = [whole(entry, "step") for entry in entries]
        rates = [float(body.text("initial_learning_rate") or "")]
        rates += [float(entry.text("learning_rate") or "") for entry in entries]
        assert [0, *at, steps] == sorted({0, *at, steps})
        assert rates == sorted(set(rates), reverse=True)


@each
def test_the_gradients_of_two_stages_are_clipped(name: str) -> None:
    clipped = parse(text_of(name), name).text("train_config.gradient_clipping_by_norm")
    assert clipped == ("10.0" if name.startswith("faster_rcnn") else None)


def test_only_the_quantized_template_rewrites_its_graph() -> None:
    trees = {name: parse(text_of(name), name) for name in KINDS}
    assert [name for name, tree in trees.items() if tree.find("graph_rewriter")] == ["ssd_mobilenet_v2_quantized_300"]
    tree = trees["ssd_mobilenet_v2_quantized_300"]
    # A delay beyond the last step would never quantize at all.
    assert whole(tree, "graph_rewriter.quantization.delay") < whole(tree, "train_config.num_steps")


@each
@pytest.mark.parametrize("checkpoint", [None, "gs://b/run/fine_tune/ckpt-0"])
def test_a_rendered_template_is_clean(name: str, checkpoint: str | None) -> None:
    text = render_config(text_of(name), replace(REQUEST, fine_tune_checkpoint=checkpoint), name)
    assert "PATH_TO_BE_CONFIGURED" not in text
    kind = KINDS[name]
    context = LintContext(num_labels=7, tpu_cores=8 if kind.tpu else 0, tensorflow=str(kind.trainer))
    warnings = ["C203"] if name == "ssd_mobilenet_v2_quantized_300" else []
    findings = lint_config(text, name, context)
    assert [(one.code, one.severity) for one in findings] == [(code, "warning") for code in warnings]
    tree = parse(text, name)
    _, model = the_model(tree)
    expected = {
        "train_config.batch_size": "24",
        "train_config.num_steps": "1200",
        "train_config.fine_tune_checkpoint": checkpoint or "",
        "train_config.fine_tune_checkpoint_type": "detection",
        "train_input_reader.label_map_path": "gs://b/run/map.pbtxt",
        "train_input_reader.tf_record_input_reader.input_path": "gs://b/run/train-*",
        "eval_input_reader.label_map_path": "gs://b/run/map.pbtxt",
        "eval_input_reader.tf_record_input_reader.input_path": "gs://b/run/eval-*",
        "eval_config.num_examples": "60" if kind.trainer == 1 else None,
    }
    assert {path: tree.text(path) for path in expected} == expected
    assert model.text("num_classes") == "7"
    version = tree.text("train_config.fine_tune_checkpoint_version")
    assert version == "V2" if kind.trainer == 2 else version in (None, "V1")


@each
def test_rendering_keeps_every_other_line(name: str) -> None:
    before, after = text_of(name), render_config(text_of(name), REQUEST, name)
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert changed
    assert [line for line in changed if not OF_THE_RUN.search(line)] == []
    assert [path for path, _ in parse(before).walk()] == [path for path, _ in parse(after).walk()]


@each
def test_rendering_a_template_twice_is_rendering_it_once(name: str) -> None:
    once = render_config(text_of(name), REQUEST, name)
    assert render_config(once, REQUEST, name) == once


def test_a_tpu_refuses_the_template_whose_images_keep_their_shape() -> None:
    text = render_config(text_of("faster_rcnn_inception_v2"), REQUEST)
    findings = lint_config(text, "f", LintContext(num_labels=7, tpu_cores=8))
    assert {finding.code for finding in findings} == {"C208"}
    assert any("keep_aspect_ratio_resizer" in finding.found for finding in findings)


def digest(text: str) -> str:
    """Of a config without its comments and spacing."""
    return hashlib.sha256(" ".join(re.sub(r"#[^\n]*", "", text).split()).encode()).hexdigest()


def fields(value: Scalar | Message) -> object:
    """What a config says, in the order it says it."""
    return value.value if isinstance(value, Scalar) else [(name, fields(inner)) for name, _, inner in value.fields]


@pytest.mark.parametrize("view", [digest, lambda text: fields(parse(text))])
def test_no_template_is_a_copy_of_a_published_config(shared_data: Path, view: Callable[[str], object]) -> None:
    published = [path.read_text(encoding="utf-8") for path in (shared_data / "pipeline-configs").glob("*.config")]
    assert len(published) == 16
    assert not [name for name in KINDS if view(text_of(name)) in [view(text) for text in published]]
    assert view(published[0]) == view(published[0] + "\n# the same\n")
