from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.errors import ConfigError
from gcpod.pipeline.lint import LintContext, lint_config
from gcpod.pipeline.render import RenderRequest, render_config, template_names, template_text
from gcpod.textproto import Message, parse

REQUEST = RenderRequest(
    num_classes=7, records="gs://b/run/train-*", eval_records="gs://b/run/eval-*", label_map="gs://b/run/map.pbtxt",
    batch_size=24, steps=1200, warmup_steps=120,
)
BUILT_IN = template_text("ssd_mobilenet_v2", Path())[0]
ALWAYS = {
    "train_config.batch_size": "24",
    "train_config.num_steps": "1200",
    "train_input_reader.label_map_path": "gs://b/run/map.pbtxt",
    "train_input_reader.tf_record_input_reader.input_path": "gs://b/run/train-*",
    "eval_input_reader.label_map_path": "gs://b/run/map.pbtxt",
    "eval_input_reader.tf_record_input_reader.input_path": "gs://b/run/eval-*",
}
FREE_TO_CHANGE = (
    "num_classes", "batch_size", "num_steps", "label_map_path", "input_path", "total_steps", "warmup_steps",
    "fine_tune_checkpoint",
)


def real_configs(shared_data: Path) -> dict[str, str]:
    folder = shared_data / "pipeline-configs"
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.config"))}


def lines_changed(before: str, after: str) -> tuple[list[str], list[str]]:
    diff = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [line[2:].strip() for line in diff if line[0] == "-"], [line[2:].strip() for line in diff if line[0] == "+"]


def test_the_built_in_template_is_named_and_read() -> None:
    assert template_names() == ("ssd_mobilenet_v2",)
    tree = parse(BUILT_IN)
    assert tree.text("model.ssd.feature_extractor.type") == "ssd_mobilenet_v2_keras"


@pytest.mark.parametrize("checkpoint", [None, "gs://b/run/fine_tune/ckpt-0"])
def test_the_built_in_template_renders_clean(checkpoint: str | None) -> None:
    request = replace(REQUEST, image_size=128, depth_multiplier=0.35, learning_rate=0.04)
    request = replace(request, fine_tune_checkpoint=checkpoint)
    text = render_config(BUILT_IN, request)
    assert lint_config(text, "f", LintContext(num_labels=7, tpu_cores=8)) == []
    tree = parse(text)
    schedule = "train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate"
    expected = {
        **ALWAYS,
        "model.ssd.num_classes": "7",
        "model.ssd.image_resizer.fixed_shape_resizer.height": "128",
        "model.ssd.image_resizer.fixed_shape_resizer.width": "128",
        "model.ssd.feature_extractor.depth_multiplier": "0.35",
        f"{schedule}.total_steps": "1200",
        f"{schedule}.warmup_steps": "120",
        f"{schedule}.learning_rate_base": "0.04",
        f"{schedule}.warmup_learning_rate": "0.005",
        "train_config.fine_tune_checkpoint": checkpoint,
        "train_config.fine_tune_checkpoint_type": checkpoint and "detection",
        "train_config.fine_tune_checkpoint_version": checkpoint and "V2",
    }
    assert {path: tree.text(path) for path in expected} == expected


def test_what_is_not_asked_for_stays_the_templates() -> None:
    removed, added = lines_changed(BUILT_IN, render_config(BUILT_IN, REQUEST))
    assert len(removed) == len(added) == 9
    assert all(any(f"{name}:" in line for name in FREE_TO_CHANGE) for line in removed + added)


def test_every_real_config_renders_and_is_clean_afterwards(shared_data: Path) -> None:
    for name, template in real_configs(shared_data).items():
        text = render_config(template, REQUEST, name)
        tree = parse(text, name)
        model = tree.find("model")
        assert isinstance(model, Message)
        architecture = model.fields[-1][0]
        assert {path: tree.text(path) for path in ALWAYS} == ALWAYS, name
        assert tree.text(f"model.{architecture}.num_classes") == "7"
        assert not tree.text("train_config.fine_tune_checkpoint"), name
        findings = lint_config(text, name, LintContext(num_labels=7))
        known = ["C206"] if name.startswith("centernet") else []
        assert [finding.code for finding in findings] == known, name
        assert all("keypoint_label_map_path" in finding.found for finding in findings)


def test_real_configs_keep_every_other_line(shared_data: Path) -> None:
    for name, template in real_configs(shared_data).items():
        removed, added = lines_changed(template, render_config(template, REQUEST, name))
        strange = [line for line in removed + added if not any(field in line for field in FREE_TO_CHANGE)]
        assert strange == [], name


def test_rendering_twice_is_rendering_once(shared_data: Path) -> None:
    for template in (BUILT_IN, *real_configs(shared_data).values()):
        once = render_config(template, REQUEST)
        assert render_config(once, REQUEST) == once


def test_a_size_does_not_go_with_another_kind_of_resizer(shared_data: Path) -> None:
    request = replace(REQUEST, image_size=256)
    configs = list(real_configs(shared_data).items())
    kept = [(name, template) for name, template in configs if "keep_aspect_ratio_resizer" in template]
    fixed = [(name, template) for name, template in configs if "fixed_shape_resizer" in template]
    assert (len(kept), len(fixed)) == (6, 10)
    for name, template in kept:
        with pytest.raises(ConfigError, match=f"{name} has a keep_aspect_ratio_resizer"):
            render_config(template, request, name)
    for name, template in fixed:
        text = render_config(template, request, name)
        assert text.count("height: 256") == text.count("width: 256") == 1, name


@pytest.mark.parametrize("text", ["", "model { }", "model: 3", "train_config { batch_size: 1 }"])
def test_a_template_without_a_model_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="it has no model"):
        render_config(text, REQUEST, "mine.config")


def test_paths_are_quoted_as_the_format_wants() -> None:
    odd = 'gs://b/a "quoted" \\ name\n/train-*'
    tree = parse(render_config(BUILT_IN, replace(REQUEST, records=odd)))
    assert tree.text("train_input_reader.tf_record_input_reader.input_path") == odd


def test_a_template_of_ones_own_is_read_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.config").write_text("model { ssd { } }", encoding="utf-8")
    assert template_text("mine.config", tmp_path) == ("model { ssd { } }", "mine.config")


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"\xff", "it is not UTF-8")])
def test_a_template_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "x.config").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        template_text("x.config", tmp_path)
    assert "ssd_mobilenet_v2" in caught.value.fix
