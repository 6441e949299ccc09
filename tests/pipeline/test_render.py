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
    "fine_tune_checkpoint", "step:", "decay_steps", "burnin_steps", "hold_base_rate_steps", "delay",
)


def real_configs(shared_data: Path) -> dict[str, str]:
    folder = shared_data / "pipeline-configs"
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.config"))}


def lines_changed(before: str, after: str) -> tuple[list[str], list[str]]:
    diff = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [line[2:].strip() for line in diff if line[0] == "-"], [line[2:].strip() for line in diff if line[0] == "+"]


def test_the_built_in_template_is_named_and_read() -> None:
    assert "ssd_mobilenet_v2" in template_names()
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
        known = ["C206"] if name.startswith("centernet") else ["C203"] if "graph_rewriter" in text else []
        assert [finding.code for finding in findings] == known, name
        assert all("keypoint_label_map_path" in one.found or one.severity == "warning" for one in findings)


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


def test_a_template_with_backslashes_in_its_paths_is_refused_where_they_stand() -> None:
    text = 'model { ssd { } }\ntrain_input_reader { label_map_path: "C:\\data\\map.pbtxt" }'
    with pytest.raises(ConfigError, match="C201") as caught:
        render_config(text, REQUEST, "mine.config")
    assert caught.value.on == "mine.config:2:41"


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


def schedule(text: str) -> str:
    optimizer = f"optimizer {{ a {{ learning_rate {{ {text} }} }} }}"
    return f"model {{ ssd {{ }} }} train_config {{ batch_size: 24 num_steps: 2400 {optimizer} }}"


def rendered(text: str, request: RenderRequest) -> str:
    tree = parse(render_config(schedule(text), request))
    rate = tree.find("train_config.optimizer.a.learning_rate")
    assert isinstance(rate, Message)
    return " ".join(f"{path.rpartition('.')[2]}={value.value}" for path, value in rate.walk())


@pytest.mark.parametrize(("text", "expected"), [
    ("manual_step_learning_rate { initial_learning_rate: .01 schedule { step: 900 learning_rate: .001 } schedule { "
     "step: 901 learning_rate: .0001 } schedule { step: 2000 learning_rate: .00001 } }",
     "initial_learning_rate=.01 step=450 learning_rate=.001 step=451 learning_rate=.0001 step=1000 "
     "learning_rate=.00001"),
    ("exponential_decay_learning_rate { initial_learning_rate: 0.004 decay_steps: 800 burnin_steps: 1 }",
     "initial_learning_rate=0.004 decay_steps=400 burnin_steps=1"),
    ("cosine_decay_learning_rate { learning_rate_base: 0.08 hold_base_rate_steps: 100 }",
     "learning_rate_base=0.08 hold_base_rate_steps=50 total_steps=1200 warmup_steps=120"),
    ("constant_learning_rate { learning_rate: 0.1 }", "learning_rate=0.1"),
])
def test_a_schedules_own_steps_are_scaled_along(text: str, expected: str) -> None:
    assert rendered(text, REQUEST) == expected


def test_quantization_begins_at_the_same_share_of_the_training() -> None:
    text = "model { ssd { } } train_config { num_steps: 2400 } graph_rewriter { quantization { delay: 800 } }"
    assert parse(render_config(text, REQUEST)).text("graph_rewriter.quantization.delay") == "400"
    assert "delay: 800" in render_config(text, replace(REQUEST, steps=2400))


@pytest.mark.parametrize(("text", "expected"), [
    ("manual_step_learning_rate { initial_learning_rate: .01 schedule { step: 9 learning_rate: .001 } }",
     "initial_learning_rate=0.02 step=4 learning_rate=0.002"),
    ("exponential_decay_learning_rate { burnin_learning_rate: 0.5 }",
     "burnin_learning_rate=1 initial_learning_rate=0.004"),
    ("cosine_decay_learning_rate { }",
     "total_steps=1200 warmup_steps=120 learning_rate_base=0.004 warmup_learning_rate=0.0004"),
    ("constant_learning_rate { learning_rate: 0.1f }", "learning_rate=0.2"),
])
def test_rates_follow_the_batch_when_asked(text: str, expected: str) -> None:
    assert rendered(text, replace(REQUEST, batch_size=48, scale_learning_rate=True)) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("manual_step_learning_rate { initial_learning_rate: .01 schedule { step: 9 learning_rate: .001 } }",
     "initial_learning_rate=0.5 step=4 learning_rate=0.05"),
    ("cosine_decay_learning_rate { learning_rate_base: 0.1 warmup_learning_rate: 0.01 }",
     "learning_rate_base=0.5 warmup_learning_rate=0.05 total_steps=1200 warmup_steps=120"),
    ("constant_learning_rate { }", "learning_rate=0.5"),
])
def test_a_given_rate_is_the_peak_and_the_others_keep_their_share(text: str, expected: str) -> None:
    assert rendered(text, replace(REQUEST, learning_rate=0.5, scale_learning_rate=True)) == expected


def test_the_evaluation_is_told_its_pictures_and_metrics() -> None:
    request = replace(REQUEST, eval_examples=37, metrics="coco_mask_metrics")
    text = 'model { ssd { } } eval_config { num_examples: 8000 # of COCO\n metrics_set: "x" }'
    tree = parse(render_config(text, request))
    assert tree.text("eval_config.num_examples") == "37"
    assert tree.text("eval_config.metrics_set") == "coco_mask_metrics"
    assert "num_examples" not in render_config("model { ssd { } } eval_config { }", request)


def test_anything_else_is_set_by_its_path() -> None:
    text = BUILT_IN.replace("train_config {", "train_config { data_augmentation_options { ssd_random_crop { } }", 1)
    options = "train_config.data_augmentation_options"
    count = text.count("data_augmentation_options")
    rendered = render_config(text, replace(REQUEST, settings={
        "train_config.batch_size": "99", "model.ssd.image_resizer.fixed_shape_resizer.height": "64",
        f"{options}[0].random_horizontal_flip.probability": "0.25",
        f"{options}[{count}].normalize_image.original_minval": "0",
        "train_config.fine_tune_checkpoint_version": "V1",
    }))
    tree = parse(rendered)
    assert tree.text("train_config.batch_size") == "99"
    assert tree.text("model.ssd.image_resizer.fixed_shape_resizer.height") == "64"
    assert tree.text("train_config.fine_tune_checkpoint_version") == "V1"
    train = tree.find("train_config")
    assert isinstance(train, Message)
    first, *_, last = train.all("data_augmentation_options")
    assert isinstance(first, Message)
    assert isinstance(last, Message)
    assert first.text("random_horizontal_flip.probability") == "0.25"
    assert last.text("normalize_image.original_minval") == "0"


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean batch_size") as caught:
        render_config(BUILT_IN, replace(REQUEST, settings={"train_config.batch_sise": "1"}))
    assert caught.value.code == "C202"
    with pytest.raises(ConfigError, match="the template has 1 ssd; use an index up to 1"):
        render_config(BUILT_IN, replace(REQUEST, settings={"model.ssd[2].add_background_class": "true"}))


@pytest.mark.parametrize(("path", "key"), [
    ("train_config.num_steps", "train.steps"), ("model.ssd[0].num_classes", "data.labels"),
    ("eval_input_reader[0].label_map_path", "data.images"), ("train_config.fine_tune_checkpoint", "model.fine_tune"),
])
def test_what_the_run_decides_is_changed_by_its_own_key(path: str, key: str) -> None:
    with pytest.raises(ConfigError, match="the run decides it") as caught:
        render_config(BUILT_IN, replace(REQUEST, settings={path: "1"}))
    assert key in caught.value.fix


@pytest.mark.parametrize("extra", [
    'train_input_reader { tf_record_input_reader { input_path: ["gs://x/coco", "gs://x/own"] } }',
    'eval_input_reader { label_map_path: "a" } eval_input_reader { label_map_path: "b" }',
])
def test_records_of_the_templates_own_are_not_trained_beside_the_runs(extra: str) -> None:
    with pytest.raises(ConfigError, match="has 2 of them; keep one"):
        render_config(f"model {{ ssd {{ }} }} {extra}", REQUEST)


@pytest.mark.parametrize(("text", "expected"), [
    ("cosine_decay_learning_rate { warmup_steps: 0 }", "warmup_steps=0 total_steps=1200"),
    ("cosine_decay_learning_rate { warmup_steps: 600 }", "warmup_steps=300 total_steps=1200"),
    ("cosine_decay_learning_rate { }", "total_steps=1200 warmup_steps=120"),
])
def test_the_warm_up_keeps_its_share(text: str, expected: str) -> None:
    assert rendered(text, replace(REQUEST, warmup_steps=None)) == expected


def test_a_batch_that_is_set_scales_the_rate() -> None:
    request = replace(REQUEST, scale_learning_rate=True, settings={"train_config.batch_size": "48"})
    assert rendered("constant_learning_rate { learning_rate: 0.1 }", request) == "learning_rate=0.2"


def test_the_peak_of_a_schedule_that_rises_is_its_highest_rate() -> None:
    entries = "schedule { step: 2 learning_rate: .1 } schedule { step: 4 learning_rate: .01 }"
    text = f"manual_step_learning_rate {{ {entries} }}"
    assert rendered(text, replace(REQUEST, learning_rate=0.5)) == (
        "step=1 learning_rate=0.5 step=2 learning_rate=0.05 initial_learning_rate=0.01"
    )


@pytest.mark.parametrize("number", ["nan", "inf", "1e999"])
def test_numbers_without_end_stay_as_they_are(number: str) -> None:
    text = f"exponential_decay_learning_rate {{ decay_steps: {number} }}"
    assert rendered(text, replace(REQUEST, scale_learning_rate=True)) == f"decay_steps={number}"


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine.config").write_bytes(BUILT_IN.replace("\n", "\r\n").encode())
    template, _ = template_text("mine.config", tmp_path)
    assert render_config(template, REQUEST).replace("\r\n", "").count("\n") == 0
