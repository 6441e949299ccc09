from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.runtimes import find_runtime
from gcpod.spec import (
    STEPS_PER_BLOCK,
    DataSpec,
    EvalSpec,
    ExportSpec,
    MachineSpec,
    ModelSpec,
    Policies,
    RuntimeSpec,
    Spec,
    TrainSpec,
    checkpoint_interval,
    whole_blocks,
)
from gcpod.specfile import MAX_BYTES, load_spec, parse_spec, render_spec
from tests.data.making import outcome

HERE = Path("gcpod.yaml")
TEXT = st.text(st.characters(min_codepoint=32, codec="utf-8"), max_size=30)
NAMES = TEXT.filter(bool)
PRIMITIVES: dict[object, st.SearchStrategy[Any]] = {
    str: TEXT, bool: st.booleans(), tuple[str, ...]: st.lists(NAMES, unique=True, max_size=4).map(tuple),
    Mapping[str, str]: st.dictionaries(NAMES, NAMES, max_size=3),
    Mapping[str, tuple[str, ...]]: st.dictionaries(
        NAMES, st.lists(NAMES, unique=True, min_size=1, max_size=3).map(tuple), max_size=3),
    tuple[Mapping[str, str], ...]: st.lists(st.dictionaries(NAMES, NAMES, max_size=3), max_size=3).map(tuple),
}


def values_of(hint: Any, field: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    options = typing.get_args(hint)
    if type(None) in options:
        return st.none() | values_of(options[0], field)
    rule = field.metadata
    if "choices" in rule:
        return st.sampled_from(rule["choices"])
    if "pattern" in rule:
        return st.from_regex(rule["pattern"], fullmatch=True)
    if hint is int:
        return st.integers(rule["min"], rule.get("max", 10**9))
    if hint is float:
        return st.floats(rule["min"], rule["max"])
    return records(hint) if dataclasses.is_dataclass(hint) else PRIMITIVES[hint]


def records(cls: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if not f.metadata.get("hidden")}
    return st.builds(cls, **{name: values_of(hints[name], field) for name, field in fields.items()})


def refusal(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, HERE)
    assert "\n" not in str(caught.value)
    return caught.value


@settings(deadline=None)
@given(records(Spec))
def test_a_rendered_spec_reads_back_as_it_was(spec: Spec) -> None:
    assert parse_spec(render_spec(spec), HERE) == spec


@given(st.text() | st.text("abns:- []{}\"'\n#!&*<|>?%@,=_0123456789.~\\"))
def test_any_text_is_a_spec_or_an_error(text: str) -> None:
    assert outcome(lambda: parse_spec(text, HERE)) in ("", "E101")


KEYS = st.sampled_from([f.name for f in dataclasses.fields(TrainSpec)] + [f.name for f in dataclasses.fields(Spec)])
ODD = st.sampled_from([
    "~", "", "1e400", ".nan", ".inf", "-.inf", "0x_", "1:30", "2026-99-99", "=", "<<", "9" * 5000, "1" + "0" * 400,
    "true", "[]", "{}", "[a, a]", "[1]", '"\\0"', '"\\ud800"', "!!binary aGk=", "!!bool x", "!!timestamp x", "!!int ''",
    "!!python/object/apply:os.getcwd []", "&a b", "*a", "- x", "? y", "'", '"', "\t", "{machine: {count: -1}}",
])


@given(st.lists(st.tuples(st.sampled_from(["", "  ", "!!null "]), KEYS, ODD), max_size=5))
def test_text_that_looks_like_a_spec_is_a_spec_or_an_error(lines: list[tuple[str, str, str]]) -> None:
    text = "\n".join(f"{pad}{key}: {value}" for pad, key, value in lines)
    assert outcome(lambda: parse_spec(text, HERE)) in ("", "E101")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_takes_every_default(text: str) -> None:
    assert parse_spec(text, Path("below/gcpod.yaml")) == Spec()


def test_empty_values_take_their_default() -> None:
    assert parse_spec("name:\ntrain:\n  steps: ~\n  machine:\nproject:\n", HERE) == Spec()


def test_the_defaults_are_the_documented_machines() -> None:
    spec = Spec()
    assert str(spec.train.machine) == "cloud-tpu with 8 x TPU_V2"
    assert str(spec.eval.machine) == "n1-standard-4 with 1 x NVIDIA_TESLA_T4"
    assert str(spec.export.machine) == "n1-standard-4"
    assert [m.is_tpu for m in (spec.train.machine, spec.eval.machine, spec.export.machine)] == [True, False, False]
    assert str(MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2")) == "ct5lp-hightpu-4t with 2x2"
    assert MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2").is_tpu


def test_the_default_runtime_has_an_image_for_every_default_machine() -> None:
    spec = Spec()
    assert spec.runtime == RuntimeSpec("tf2.15")
    assert {"cpu", "gpu", "tpu"} <= set(find_runtime(spec.runtime.name).recipes)


def test_every_key_of_the_rendered_file_has_its_comment() -> None:
    lines = render_spec(Spec()).splitlines()
    for cls in (DataSpec, Policies, ModelSpec, TrainSpec, EvalSpec, ExportSpec, RuntimeSpec, MachineSpec):
        for field in dataclasses.fields(cls):
            assert any(f" {field.name}:" in line or f"# {field.metadata['comment']}" in line for line in lines)
            assert any(field.metadata["comment"] in line for line in lines)


@pytest.mark.parametrize(("text", "line", "words"), [
    ("name: x\ntrian:\n  steps: 5\n", 2, ["unknown key 'trian'", "did you mean 'train'?"]),
    ("train:\n  machine:\n    acelerator: T4\n", 3, ["train.machine.acelerator", "did you mean 'accelerator'?"]),
    ("zzzzqqq: 1\n", 1, ["unknown key", "known here: bucket,"]),
    ("train:\n  steps: 5\n  steps: 6\n", 3, ["train.steps is given twice"]),
    ("name: x\nname: y\n", 2, ["name is given twice"]),
    ("train:\n  steps: many\n", 2, ["train.steps is 'many'", "a whole number"]),
    ("train:\n  steps: 5.5\n", 2, ["train.steps is '5.5'", "a whole number"]),
    ("train:\n  steps: true\n", 2, ["train.steps is 'true'", "a whole number"]),
    ("project: 123\n", 1, ["project is '123'", "give text"]),
    ("project: [a]\n", 1, ["not a plain value"]),
    ("train:\n\n  steps: 0\n", 3, ["train.steps is 0", "between 1 and 100000000"]),
    ("train: {warmup_steps: -1}\n", 1, ["at least 0"]),
    ("data:\n  eval_fraction: .nan\n", 2, ["between 0.01 and 0.9"]),
    ("train:\n  timeout_hours: 1" + "0" * 400, 2, ["between 0.1 and 168.0"]),
    ("train:\n  timeout_hours: true", 2, ["a number"]),
    ("train:\n  timeout_hours: soon", 2, ["'soon'", "a number"]),
    ("runtime: {mode: containr}\n", 1, ["did you mean 'container'?"]),
    ("name: Über\n", 1, ["it must match"]),
    ("train: 5\n", 1, ["train is no mapping"]),
    ("- a\n- b\n", 1, ["the file is no mapping"]),
    ("just words\n", 1, ["the file is no mapping"]),
    ("data: {labels: [1, 2]}\n", 1, ["no list of names", "quote numbers"]),
    ("data: {aliases: [a]}\n", 1, ["no mapping of names"]),
    ("data:\n  aliases:\n    a: 1\n", 3, ["maps 'a' to 1", "quote numbers"]),
    ("data:\n  aliases:\n    a: b\n    a: c\n", 4, ["names 'a' twice"]),
    ("data: {policies: {size: mend}}\n", 1, ["'mend'", "known here: error, fix, warn"]),
    ("data: {policies: {annotation: fix}}\n", 1, ["'fix'"]),
    ("data: {max_side: 3}\n", 1, ["between 16 and 65535"]),
    ("data: {labels: cat}\n", 1, ["no list of names"]),
    ("data: {labels: [cat, cat]}\n", 1, ["twice"]),
    ('data:\n  labels: ["a\\0"]\n', 2, ["control character"]),
    ('data:\n  images: "a\\0b"\n', 2, ["control character"]),
    ('project: "\\ud800"\n', 1, ["control character"]),
    ("a: &x 1\nname: *x\n", 2, ["alias"]),
    ("name: x\nproject: !!python/object/apply:os.system [id]\n", 2, ["tag"]),
    ("!!binary name: aGk=\n", 1, ["tag"]),
    ("train: !!timestamp x\n", 1, ["tag"]),
    ("name: x\n\ttrain: y\n", 2, ["YAML"]),
    ("name: 'x\n", 2, ["end of stream"]),
    ("name: x\nproject: a\0b\n", 2, ["special characters"]),
    ("train:\n  " + "[" * 5000, 2, ["nested deeper"]),
    ("train:\n  " + "{a: " * 5000, 2, ["nested deeper"]),
])
def test_a_wrong_spec_is_refused_with_its_line(text: str, line: int, words: list[str]) -> None:
    error = refusal(text)
    assert error.on.startswith(f"gcpod.yaml:{line}")
    assert [word for word in words if word not in error.message] == []


@pytest.mark.parametrize("text", ["a: 2026-99-99\n", "train: {steps: " + "1" * 5000 + "}\n", "train: {steps: 0x_}\n"])
def test_numbers_that_yaml_cannot_read_are_refused(text: str) -> None:
    assert "a number or a date that cannot be read" in refusal(text).message


def test_numbers_that_people_mean() -> None:
    assert parse_spec("train: {learning_rate: 1e-3}", HERE).train.learning_rate == 0.001
    assert parse_spec("train: {timeout_hours: 3}", HERE).train.timeout_hours == 3.0
    assert type(parse_spec("train: {timeout_hours: 3}", HERE).train.timeout_hours) is float


def test_an_error_has_its_code_and_exit_code() -> None:
    error = refusal("nme: x")
    assert (error.code, error.exit_code) == ("E101", 3)
    assert str(error) == "E101: reading gcpod.yaml:1: unknown key 'nme'; did you mean 'name'?"


@pytest.mark.parametrize(("content", "words"), [
    (None, "No such file or directory; write one with `gcpod init`"),
    (b"name: \xff\n", "byte 6 is not UTF-8"),
    (b"#" * (MAX_BYTES + 1), f"it has {MAX_BYTES + 1} bytes"),
])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "gcpod.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match="reading") as caught:
        load_spec(path)
    assert words in caught.value.message
    assert str(path) in caught.value.message


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Is a directory"):
        load_spec(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "gcpod.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: mine\n")
    assert load_spec(path).name == "mine"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    spec = parse_spec("", tmp_path / "gcpod.yaml")
    assert spec.local_path("images") == tmp_path / "images"
    assert spec.local_path("/elsewhere") == Path("/elsewhere")
    assert spec.local_path("~") == Path.home()
    assert spec.local_path("~nobody-of-that-name/x") == tmp_path / "~nobody-of-that-name/x"


@given(st.integers(1, 10**7))
def test_whole_blocks_round_up_to_the_next_hundred(steps: int) -> None:
    assert whole_blocks(steps) % STEPS_PER_BLOCK == 0
    assert 0 <= whole_blocks(steps) - steps < STEPS_PER_BLOCK


@given(st.integers(1, 10**6), st.none() | st.integers(1, 10**6))
def test_the_checkpoint_interval_divides_the_steps(steps: int, every: int | None) -> None:
    interval = checkpoint_interval(TrainSpec(steps=steps, checkpoint_every=every))
    assert interval % STEPS_PER_BLOCK == 0
    assert whole_blocks(steps) % interval == 0
    wanted = every if every is not None else -(-steps // 10)
    assert STEPS_PER_BLOCK <= interval <= max(STEPS_PER_BLOCK, wanted)


def test_examples_of_the_checkpoint_interval() -> None:
    cases = {(5000, None): 500, (500, None): 100, (1000, 300): 200, (700, 650): 100, (60, None): 100, (800, 9999): 800}
    assert {case: checkpoint_interval(TrainSpec(steps=case[0], checkpoint_every=case[1])) for case in cases} == cases


def test_a_character_beyond_unicode_is_refused() -> None:
    assert outcome(lambda: parse_spec('a: "\\UFFFFFFFF"\n', HERE)) == SpecError.code
