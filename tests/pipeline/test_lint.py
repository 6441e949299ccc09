from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.pipeline.lint import LintContext, fix_config, lint_config

CLEAN = """\
model {
  ssd {
    num_classes: 2
    image_resizer { fixed_shape_resizer { height: 96 width: 96 } }
  }
}
train_config {
  batch_size: 16
  num_steps: 500
  max_number_of_boxes: 100
  unpad_groundtruth_tensors: false
  fine_tune_checkpoint: "gs://b/ckpt/model.ckpt"
  fine_tune_checkpoint_type: "detection"
  optimizer { adam_optimizer { learning_rate { manual_step_learning_rate { schedule { step: 90 } } } } }
}
train_input_reader {
  label_map_path: "/gcs/b/map.pbtxt"
  tf_record_input_reader { input_path: "gs://b/train-*" }
}
"""
CONTEXT = LintContext(num_labels=2)
TPU = LintContext(num_labels=2, tpu_cores=8)


def changed(old: str, new: str) -> str:
    assert CLEAN.count(old) == 1
    return CLEAN.replace(old, new)


def test_a_clean_config_has_no_findings() -> None:
    assert lint_config(CLEAN, "f", CONTEXT) == []
    assert lint_config(CLEAN, "f", TPU) == []
    assert lint_config(CLEAN, "f") == []


@pytest.mark.parametrize(("text", "code", "place", "fix"), [
    ("model {\n  ssd {", "C200", "2:8", "write a field name or '}' there"),
    (changed('"detection"', "“detection”"), "C204", "13:30", 'type a plain " there'),
    (changed("model.ckpt", "model.ckpt.index"), "C201", "12:25", "with forward slashes"),
    (changed("model.ckpt", "model.ckpt.data-00000-of-00001"), "C201", "12:25", "PREFIX.index"),
    (changed("/model.ckpt", "\\\\model.ckpt"), "C201", "12:25", "backslashes are escapes"),
    (changed("model.ckpt", "checkpoint"), "C201", "12:25", "PREFIX.index"),
    (changed('"detection"', '"detektion"'), "C203", "13:30", "use one of: detection, classification"),
    (changed('"detection"', '"fine_tune"'), "C203", "13:30", "write detection"),
    (changed("num_classes: 2", "num_classes: 3"), "C205", "3:18", "write num_classes: 2"),
    (changed("gs://b/train-*", "PATH_TO_BE_CONFIGURED"), "C206", "18:40", "give the real path"),
    (changed("gs://b/train-*", "/home/me/train-*"), "C207", "18:40", "give its gs:// address"),
    (changed("gs://b/ckpt/model.ckpt", "ckpt/model.ckpt"), "C207", "12:25", "give its gs:// address"),
    (changed("/gcs/b/map.pbtxt", "C:/map.pbtxt"), "C207", "17:19", "give its gs:// address"),
    (changed("step: 90", "step: 0"), "C209", "14:93", "give its rate as initial_learning_rate"),
    (changed("num_steps: 500", "num_steps: 501"), "C210", "9:14", "write num_steps: 600"),
])
def test_one_fault_gives_one_finding(text: str, code: str, place: str, fix: str) -> None:
    [finding] = lint_config(text, "f", CONTEXT)
    assert (finding.code, finding.severity, finding.where) == (code, "error", f"f:{place}")
    assert fix in finding.fix


@pytest.mark.parametrize(("text", "place", "fix"), [
    (changed("batch_size: 16", "batch_size: 12"), "8:15", "make it a multiple of 8"),
    (changed("fixed_shape_resizer { height: 96 width: 96 }", "keep_aspect_ratio_resizer { min_dimension: 9 }"),
     "4:21", "use fixed_shape_resizer"),
    (changed("fixed_shape_resizer { height: 96 width: 96 }", "identity_resizer { }"),
     "4:21", "use fixed_shape_resizer"),
    (changed("unpad_groundtruth_tensors: false", ""), "7:15", "write unpad_groundtruth_tensors: false"),
    (changed("tensors: false", "tensors: true"), "11:30", "write unpad_groundtruth_tensors: false"),
])
def test_a_tpu_asks_for_fixed_shapes(text: str, place: str, fix: str) -> None:
    [finding] = lint_config(text, "f", TPU)
    assert (finding.code, finding.where) == ("C208", f"f:{place}")
    assert fix in finding.fix
    assert lint_config(text, "f", CONTEXT) == []


@pytest.mark.parametrize("path", [
    r"C:\new\train.record", r"C:\data\train.record", r"C:\Users\me\x", r"C:\x", r"C:\\data\\x", r"\\srv\share\x",
    "C:\\data\\",
    r"data\train.record", r"gs://b\data\x", r"gs://b\new", r"gs://b/data\\x",
])
def test_backslashes_in_an_address_are_said_wherever_they_stand(path: str) -> None:
    for old in ("gs://b/train-*", "/gcs/b/map.pbtxt", "gs://b/ckpt/model.ckpt"):
        [finding] = lint_config(changed(old, path), "f", CONTEXT)
        assert (finding.code, finding.severity) == ("C201", "error")
        assert finding.found.endswith(f'path is "{path}"' if "ckpt" not in old else f'fine_tune_checkpoint is "{path}"')
        assert finding.fix == "backslashes are escapes: write gs://BUCKET/PATH"


def test_each_backslashed_address_is_said_beside_all_else() -> None:
    text = changed('"gs://b/train-*"', r"""["C:\data\a", 'D:\data' '\b', "gs://b/c"]""")
    text = text.replace("num_classes: 2", "num_classes: 3")
    findings = [(finding.code, finding.where) for finding in lint_config(text, "f", CONTEXT)]
    assert findings == [("C201", "f:18:41"), ("C201", "f:18:54"), ("C205", "f:3:18")]
    assert fix_config(text, "f", CONTEXT) == (text, [])


@pytest.mark.parametrize("address", [r"gs://b/\303\251", r"gs://b/\"x\"", r"/gcs/b/\'x\'"])
def test_an_objects_name_may_be_written_with_escapes(address: str) -> None:
    assert lint_config(changed("gs://b/train-*", address), "f", CONTEXT) == []


def test_a_path_of_windows_may_be_meant_where_no_cloud_is() -> None:
    windows = LintContext(num_labels=2, cloud=False)
    assert lint_config(changed("gs://b/train-*", r"C:\\new\\train.record"), "f", windows) == []
    for path in (r"C:\new\train.record", r"C:\data"):
        [finding] = lint_config(changed("gs://b/train-*", path), "f", windows)
        assert (finding.code, finding.fix) == ("C201", "backslashes are escapes: write the path with forward slashes")


@pytest.mark.parametrize(("text", "place"), [
    (changed("num_classes: 2", r'feature_extractor { type: "a\data" }'), "3:33"),
    (changed('"detection"', r'"a\data"').replace("gs://b/train-*", r"C:\data"), "13:32"),
    (changed('"gs://b/train-*"', r'"C:\data'), "18:40"),
    (changed('"gs://b/train-*"', '"x\\d" ' * 60), "18:42"),
])
def test_escapes_that_are_none_elsewhere_are_no_text_format(text: str, place: str) -> None:
    [finding] = lint_config(text, "f", CONTEXT)
    assert (finding.code, finding.where) == ("C200", f"f:{place}")


def test_local_paths_are_fine_where_no_cloud_is_meant() -> None:
    text = changed("gs://b/train-*", "/home/me/train-*")
    assert lint_config(text, "f", LintContext(num_labels=2, cloud=False)) == []


def test_classes_are_compared_only_where_they_are_known() -> None:
    assert lint_config(changed("num_classes: 2", "num_classes: 3"), "f", LintContext()) == []


def test_every_fault_is_found_at_once() -> None:
    text = changed("num_steps: 500", "num_steps: 501").replace("num_classes: 2", "num_classes: 3")
    assert [finding.code for finding in lint_config(text, "f", CONTEXT)] == ["C205", "C210"]


@pytest.mark.parametrize("value", ['"²"', "1" * 5000, "-100", "many", "{ a: 1 }", '""'])
def test_numbers_that_are_none_are_the_schemas_matter(value: str) -> None:
    text = changed("num_steps: 500", f"num_steps: {value}").replace("batch_size: 16", f"batch_size: {value}")
    assert {finding.code for finding in lint_config(text, "f", TPU)} == {"C202"}


@pytest.mark.parametrize(("old", "new", "place", "found"), [
    ("schedule { step: 90 }", "schedule { step: 90 } schedule { step: 90 }", "14:115", "step 90 after step 90"),
    ("schedule { step: 90 }", "schedule { step: 0x5a } schedule { step: 0x10 }", "14:117", "step 0x10 after step 90"),
    ("schedule { step: 90 }", "schedule { learning_rate: .1 }", "14:86", "an entry at step 0"),
    ("manual_step_learning_rate { schedule { step: 90 } }",
     "cosine_decay_learning_rate { total_steps: 9 warmup_steps: 10 }", "14:48", "warms up for 10 of 9 steps"),
    ("manual_step_learning_rate { schedule { step: 90 } }", "cosine_decay_learning_rate { learning_rate_base: 1e-5 }",
     "14:48", "warms up from 0.0002, above its learning_rate_base 1e-05"),
])
def test_schedules_that_the_trainer_refuses(old: str, new: str, place: str, found: str) -> None:
    [finding] = lint_config(changed(old, new), "f", CONTEXT)
    assert (finding.code, finding.where) == ("C209", f"f:{place}")
    assert found in finding.found


def test_the_default_batch_counts_where_none_is_written() -> None:
    [finding] = lint_config(changed("batch_size: 16", ""), "f", LintContext(num_labels=2, gpus=3))
    assert finding.found == "batch_size 32 does not divide among 3 GPUs"


def test_a_model_that_says_no_number_of_classes_is_told_it() -> None:
    text = changed("    num_classes: 2\n", "")
    [finding] = lint_config(text, "f", CONTEXT)
    assert (finding.code, finding.where, finding.found) == ("C205", "f:2:3", "ssd has no num_classes")
    mended, _ = fix_config(text, "f", CONTEXT)
    assert lint_config(mended, "f", CONTEXT) == []


@pytest.mark.parametrize("steps", ["", "num_steps: 0"])
def test_a_training_that_never_ends_is_said(steps: str) -> None:
    version = f"{steps} fine_tune_checkpoint_version: V2"
    text = with_extractor("ssd_mobilenet_v2_keras").replace("num_steps: 500", version)
    [finding] = lint_config(text, "f", CONTEXT)
    assert (finding.code, finding.found) == ("C210", "num_steps is not set, and training ends at no step")


def test_without_a_checkpoint_its_type_is_nobodys_matter() -> None:
    text = changed("gs://b/ckpt/model.ckpt", "").replace('"detection"', '"fine_tune"')
    assert lint_config(text, "f", CONTEXT) == []


@pytest.mark.parametrize("value", ["gs://b/m\\nx.index", "gs://b/\\377.index", "gs://b/“m"])
def test_what_cannot_be_mended_whole_is_not_touched(value: str) -> None:
    text = changed('"gs://b/ckpt/model.ckpt"', f'"{value}"' if "“" not in value else "“gs://b/“m")
    mended, findings = fix_config(text, "f", CONTEXT)
    assert (mended, findings) == (text, [])


def test_a_batch_divides_among_gpus() -> None:
    [finding] = lint_config(CLEAN, "f", LintContext(num_labels=2, gpus=3))
    assert (finding.code, finding.found) == ("C208", "batch_size 16 does not divide among 3 GPUs")
    assert lint_config(CLEAN, "f", LintContext(num_labels=2, gpus=4)) == []


def with_extractor(name: str) -> str:
    return changed("num_classes: 2", f'num_classes: 2\n    feature_extractor {{ type: "{name}" }}')


@pytest.mark.parametrize(("name", "tensorflow", "found", "fix"), [
    ("ssd_mobilenet_v2_keras", "1", "is for TensorFlow 2", "did you mean ssd_mobilenet_v2?"),
    ("ssd_mobilenet_v2", "2", "is for TensorFlow 1", "did you mean ssd_mobilenet_v2_keras?"),
    ("ssd_mobilnet_v2", "", "is not known", "did you mean ssd_mobilenet_v2?"),
    ("yolo", "", "is not known", "model_builder.py"),
])
def test_extractors_of_another_world(name: str, tensorflow: str, found: str, fix: str) -> None:
    findings = lint_config(with_extractor(name), "f", LintContext(num_labels=2, tensorflow=tensorflow))
    [finding] = [one for one in findings if one.code == "C203"]
    assert finding.where == "f:4:31"
    assert found in finding.found
    assert fix in finding.fix


def test_what_each_tensorflow_restores() -> None:
    second = with_extractor("ssd_mobilenet_v2_keras")
    [finding] = lint_config(second, "f", CONTEXT)
    assert (finding.code, finding.where) == ("C202", "f:8:15")
    assert "V1 by default" in finding.found
    full = second.replace('"detection"', '"full"').replace("num_steps: 500", "num_steps: 500\n  "
                                                           "fine_tune_checkpoint_version: V2")
    assert lint_config(full, "f", CONTEXT) == []
    first = with_extractor("ssd_mobilenet_v2")
    assert lint_config(first, "f", CONTEXT) == []
    [finding] = lint_config(first.replace('"detection"', '"full"'), "f", CONTEXT)
    assert (finding.code, finding.fix) == ("C203", "use one of: detection, classification")
    assert lint_config(first.replace("num_steps: 500", "num_steps: 501"), "f", CONTEXT) == []


MENDED = [
    (changed('"detection"', "“detection”"), CLEAN, ["C204", "C204"]),
    (changed('"detection"', "‘detection’"), changed('"detection"', "'detection'"), ["C204", "C204"]),
    (changed("model.ckpt", "model.ckpt.index"), CLEAN, ["C201"]),
    (changed("/model.ckpt", "\\\\model.ckpt.data-00000-of-00002"), CLEAN, ["C201"]),
    (changed('"detection"', '"fine_tune"'), CLEAN, ["C203"]),
    (changed("/ckpt/model.ckpt", r"\ckpt\model.ckpt.index"), CLEAN, ["C201"]),
    (changed("gs://b/train-*", r"gs://b\\train-*"), CLEAN, ["C201"]),
    (changed("num_classes: 2", "num_classes: 90"), CLEAN, ["C205"]),
    (changed("unpad_groundtruth_tensors: false", "unpad_groundtruth_tensors: true"), CLEAN, ["C208"]),
    (changed("num_steps: 500", "num_steps: 401"), CLEAN, ["C210"]),
    (changed("num_steps: 500", "num_steps: 401").replace("num_classes: 2", "num_classes: 3"), CLEAN, ["C205", "C210"]),
]


@pytest.mark.parametrize(("text", "expected", "codes"), MENDED)
def test_what_is_safe_is_mended_and_nothing_else(text: str, expected: str, codes: list[str]) -> None:
    mended, findings = fix_config(text, "f", TPU)
    assert mended == expected
    assert [finding.code for finding in findings] == codes
    assert fix_config(mended, "f", TPU) == (mended, [])


def test_fields_are_added_where_they_belong() -> None:
    second = with_extractor("ssd_mobilenet_v2_keras").replace("  unpad_groundtruth_tensors: false\n", "")
    mended, findings = fix_config(second, "f", TPU)
    assert [finding.code for finding in findings] == ["C202", "C208"]
    assert lint_config(mended, "f", TPU) == []
    assert set(mended.splitlines()) - set(second.splitlines()) == {
        "  fine_tune_checkpoint_version: V2", "  unpad_groundtruth_tensors: false",
    }


def test_what_has_no_safe_remedy_stays() -> None:
    text = changed("gs://b/train-*", "PATH_TO_BE_CONFIGURED").replace("model.ckpt", "checkpoint")
    assert fix_config(text, "f", TPU) == (text, [])


WINDOWS = (r"C:\d", "a\\", r"gs://b\d")
PIECES = [*CLEAN.split(), *(f"input_path: {quote}{path}{quote}" for quote in "'\"" for path in WINDOWS)]


@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join))
def test_any_text_gives_findings_with_a_place(text: str) -> None:
    for finding in lint_config(text, "f", TPU):
        assert finding.where.startswith("f:")
        assert finding.code.startswith("C2")
    mended, _ = fix_config(text, "f", TPU)
    assert fix_config(mended, "f", TPU) == (mended, [])
