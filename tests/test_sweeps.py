"""Sweeps: which runs a grid or a list comes to, what is refused, and the table of what became of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.jobs.prices import Money, Unknown
from gcpod.naming import run_name
from gcpod.spec import Spec, SweepSpec
from gcpod.specfile import parse_spec, render_spec
from gcpod.status import Metrics
from gcpod.sweeps import MAX_RUNS, Row, best_of, expand, table
from tests.data.making import drawn

FOLDER = Path("somewhere")
LOSS = "Loss/total_loss"


def read(text: str) -> Spec:
    return parse_spec(text, FOLDER / "gcpod.yaml")


def grid(**listed: tuple[str, ...]) -> Spec:
    """A spec with a grid; keys with '__' for the dots."""
    return Spec(folder=FOLDER, sweep=SweepSpec(grid={key.replace("__", "."): v for key, v in listed.items()}))


def refusal(spec: Spec) -> str:
    with pytest.raises(SpecError) as caught:
        expand(spec)
    return caught.value.message


def test_a_grid_is_every_combination_in_the_order_of_the_file() -> None:
    spec = read("""
name: birds
train: {steps: 300, batch_size: 4}
model: {set: {train_config.batch_size: 7, model.ssd.freeze_batchnorm: true}}
sweep:
  at_once: 3
  grid:
    train.learning_rate: [0.1, 1e-3]
    train.batch_size: [8, 16, 32]
    model.set.train_config.max_number_of_boxes: [50]
""")
    variants = expand(spec)
    assert [(v.spec.train.learning_rate, v.spec.train.batch_size) for v in variants] == [
        (0.1, 8), (0.1, 16), (0.1, 32), (0.001, 8), (0.001, 16), (0.001, 32)]
    assert variants[3].values == {
        "train.learning_rate": "1e-3", "train.batch_size": "8", "model.set.train_config.max_number_of_boxes": "50"}
    for variant in variants:
        assert variant.spec.model.set == {**(spec.model.set or {}), "train_config.max_number_of_boxes": "50"}
        assert (variant.spec.name, variant.spec.train.steps, variant.spec.folder) == ("birds", 300, FOLDER)
        assert variant.spec.sweep == SweepSpec()
    assert spec.model.set == {"train_config.batch_size": "7", "model.ssd.freeze_batchnorm": "true"}
    assert len(set(names(spec))) == 6
    assert all(name.startswith("birds-") for name in names(spec))


def test_a_list_is_each_of_its_runs() -> None:
    spec = read("""
sweep:
  runs:
    - {train.batch_size: 8, train.steps: 500}
    - {model.image_size: 320, runtime.name: tf2.12}
    - {}
""")
    first, second, third = expand(spec)
    assert (first.spec.train.batch_size, first.spec.train.steps) == (8, 500)
    assert (second.spec.model.image_size, second.spec.runtime.name) == (320, "tf2.12")
    assert third.spec == replace(spec, sweep=SweepSpec())
    assert third.values == {}


@pytest.mark.parametrize("sweep", [
    SweepSpec(), SweepSpec(grid={}), SweepSpec(runs=()), SweepSpec(grid={"train.steps": ("100",)}, runs=({},)),
])
def test_it_is_a_grid_or_a_list(sweep: SweepSpec) -> None:
    assert "both grid and runs" in refusal(Spec(sweep=sweep)) or "neither grid nor runs" in refusal(Spec(sweep=sweep))


@pytest.mark.parametrize(("key", "reason"), [
    *((key, "does not change what is learned") for key in (
        "name", "project", "bucket", "region", "credentials", "service_account", "sweep.at_once", "notify.command",
        "notify.webhook", "train.machine.type", "train.timeout_hours", "train.schedule.strategy", "train.stall_minutes",
        "train.cancel_on_nan", "eval.metrics", "eval.best_metric", "export.checkpoint", "storage.workers",
        "model.zoo_mirror", "jobs.labels.team", "recovery.attempts", "train.machine")),
    ("data.images", "the same records"), ("data.aliases.dog", "the same records"),
    ("packages.training", "the same packages"),
])
def test_keys_that_leave_the_runs_name_as_it_is_may_not_vary(key: str, reason: str) -> None:
    told = refusal(Spec(sweep=SweepSpec(grid={key: ("1", "2")})))
    assert reason in told
    assert f"sweep.grid, {key}: 1" in told


@pytest.mark.parametrize(("key", "value", "told"), [
    ("train.stepz", "100", "unknown key 'train.stepz'; did you mean 'steps'?"),
    ("trian.steps", "100", "unknown key 'trian'; did you mean 'train'?"),
    ("train.steps", "many", "train.steps is 'many'; give a whole number"),
    ("train.steps", "1.5", "train.steps is '1.5'; give a whole number"),
    ("train.steps", "0", "train.steps is 0; give a whole number between 1"),
    ("train.steps", "null", "train.steps is 'null'; give a whole number"),
    ("train.steps", "", "train.steps is ''; give a whole number"),
    ("train.steps", "[1, 2]", "train.steps is '[1, 2]'; give a whole number"),
    ("train.steps", "1\nname: other", "give a whole number"),
    ("train.steps", "9" * 5000, "cannot be read"),
    ("train.steps.more", "1", "train.steps is 'not a plain value'"),
    ("train.scale_learning_rate", "1", "give true or false"),
    ("train.learning_rate", ".nan", "give a number between"),
    ("train.arguments", "--x", "train.arguments is no list of names"),
    ("model.template", "2026-11-21", "model.template is '2026-11-21'; give text"),
    ("model.template", "2026-99-99", "a number or a date that cannot be read"),
    ("model.fine_tune_checkpoint_type", "detect", "did you mean 'detection'?"),
    ("model.set", "1", "model.set is no mapping of names"),
    ("train", "1", "train is no mapping"),
    ("train.", "1", "unknown key"),
    ("", "1", "unknown key ''"),
    (".", "1", "unknown key ''"),
])
def test_values_are_checked_as_in_the_file_and_the_key_is_named(key: str, value: str, told: str) -> None:
    message = refusal(Spec(sweep=SweepSpec(grid={key: (value,)})))
    assert told in message
    assert message.startswith("reading sweep.grid, ")
    assert "did you mean" in told or "sweep.runs" in refusal(Spec(sweep=SweepSpec(runs=({key: value},))))


def test_values_mean_what_they_mean_in_the_file() -> None:
    values = {
        "train.learning_rate": "1e-3", "train.steps": "0x40", "model.image_size": "1_28", "model.template": "a: b # c",
        "runtime.image": "us-docker.pkg.dev/p/r/i:1", "train.scale_learning_rate": "yes",
        "model.set.eval_config.x[1].y": "'quoted'", "train.module": "my.trainer",
    }
    [variant] = expand(Spec(sweep=SweepSpec(runs=(values,))))
    spec = variant.spec
    assert (spec.train.learning_rate, spec.train.steps, spec.model.image_size) == (0.001, 64, 128)
    assert (spec.model.template, spec.runtime.image) == ("a: b # c", "us-docker.pkg.dev/p/r/i:1")
    assert (spec.train.scale_learning_rate, spec.train.module) == (True, "my.trainer")
    assert spec.model.set == {"eval_config.x[1].y": "'quoted'"}


@pytest.mark.parametrize("runs", [
    ({"train.learning_rate": "0.001"}, {"train.learning_rate": "1e-3"}),
    ({"train.batch_size": "16"}, {}),
    ({"train.workers": "0"}, {}),
    ({"model.fine_tune_checkpoint_type": "detection"}, {}),
])
def test_two_that_come_to_the_same_run_are_refused(runs: tuple[dict[str, str], ...]) -> None:
    told = refusal(Spec(sweep=SweepSpec(runs=runs)))
    assert "are the same run" in told
    assert next(iter(runs[0].values())) in told


def test_there_are_not_too_many() -> None:
    steps, sizes = ([str(number) for number in range(1, size + 1)] for size in (MAX_RUNS // 10, 10))
    assert len(expand(grid(train__steps=tuple(steps), train__batch_size=tuple(sizes)))) == MAX_RUNS
    assert f"more than {MAX_RUNS}" in refusal(grid(train__steps=(*steps, "5000"), train__batch_size=tuple(sizes)))
    assert f"more than {MAX_RUNS}" in refusal(Spec(sweep=SweepSpec(runs=({},) * (MAX_RUNS + 1))))
    huge = SweepSpec(grid={f"model.set.a{number}": ("1", "2") for number in range(20_000)})
    assert f"more than {MAX_RUNS}" in refusal(Spec(sweep=huge))


ANY = st.text(st.characters(codec=None), max_size=12)
KEYS = st.sampled_from((
    "train.steps", "model.template", "model.set.a.b", "model.set", "train", "name", "train.scale_learning_rate",
)) | ANY
VALUES = st.sampled_from(("1", "true", "~", "<<", "=", "!x", "&a", "*a", "zoo:x", "%", "\x7f", "2026-99-99")) | ANY
FIT = st.fixed_dictionaries({}, optional={
    "train.steps": st.integers(1, 3).map(str), "train.learning_rate": st.sampled_from(("0.1", "1e-1", "0.2", ".3")),
    "model.set.a.b": st.text("a 1:#'[", max_size=3), "runtime.image": st.text("a 1:#'[", max_size=3),
    "train.workers": st.sampled_from("01"), "train.scale_learning_rate": st.sampled_from(("yes", "true", "false")),
})


def names(spec: Spec) -> list[str]:
    """The run names of a sweep; none where it is refused."""
    try:
        return [run_name(variant.spec, "digest") for variant in expand(spec)]
    except SpecError:
        return []


@drawn(60, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=2), min_size=1, max_size=3))
def test_whatever_is_swept_ends_in_runs_or_a_coded_error(runs: list[dict[str, str]]) -> None:
    try:
        variants = expand(Spec(folder=FOLDER, sweep=SweepSpec(runs=tuple(runs))))
    except SpecError:
        return
    assert [variant.values for variant in variants] == runs
    for variant in variants:
        assert parse_spec(render_spec(variant.spec), FOLDER / "gcpod.yaml") == variant.spec


@drawn(20, deadline=None)
@given(st.lists(FIT, min_size=2, max_size=4))
def test_a_sweep_is_refused_exactly_where_two_of_its_runs_would_have_one_name(runs: list[dict[str, str]]) -> None:
    alone = [names(Spec(folder=FOLDER, sweep=SweepSpec(runs=(run,)))) for run in runs]
    whole = names(Spec(folder=FOLDER, sweep=SweepSpec(runs=tuple(runs))))
    single = [name for one in alone for name in one]
    fit = all(alone) and len(set(single)) == len(runs)
    assert whole == (single if fit else [])


LISTED = (
    st.tuples(st.just("steps"), st.lists(st.integers(1, 10**7), min_size=1, max_size=4, unique=True))
    | st.tuples(st.just("learning_rate"), st.lists(st.floats(1e-8, 10.0), min_size=1, max_size=4, unique=True))
)


@drawn(25, deadline=None)
@given(LISTED)
def test_what_a_file_lists_is_what_the_runs_have(listed: tuple[str, list[float]]) -> None:
    key, values = listed
    spec = read(yaml.safe_dump({"sweep": {"grid": {f"train.{key}": values}}}))
    assert [getattr(variant.spec.train, key) for variant in expand(spec)] == values


def metrics(step: int, ap: float, **values: float) -> Metrics:
    return Metrics(step, ap, ap + 0.25, ap + 0.125, {"DetectionBoxes_Precision/mAP": ap, **values})


def row(name: str, state: str = "SUCCEEDED", found: Metrics | None = None, **more: Any) -> Row:
    return Row(name, {"train.steps": name}, state, found, **more)


ROWS = (
    row("failed", "FAILED", metrics(100, 0.9), error="its code ended with 1"),
    row("waiting", "WAITING"),
    row("second", "RUNNING", metrics(100, 0.25, **{LOSS: 0.5}), hours=1.25, cost=Unknown("no price of x")),
    row("none", "SUCCEEDED", metrics(100, math.nan)),
    row("first", found=metrics(200, 0.5, **{LOSS: 0.75}), hours=2.0, cost=Money(Decimal("1.5"), "USD")),
    row("cancelled", "CANCELLED"),
)


def test_the_best_is_first_and_what_failed_is_last() -> None:
    assert [one.run_id for one in table(ROWS).rows] == ["first", "second", "waiting", "none", "failed", "cancelled"]
    by_loss = [one.run_id for one in table(ROWS, LOSS).rows]
    assert by_loss == ["second", "first", "waiting", "none", "failed", "cancelled"]


def test_the_table_as_columns() -> None:
    made = table(ROWS)
    assert made.columns == ("run", "train.steps", "state", "step", "AP", "AP50", "AP75", "hours", "cost")
    cells = list(made.cells())
    assert cells[0] == ("first", "first", "SUCCEEDED", "200", "0.500", "0.750", "0.625", "2.0", "1.50 USD")
    assert cells[1][-2:] == ("1.2", "unknown")
    assert cells[2] == ("waiting", "waiting", "WAITING", "", "", "", "", "", "")
    assert cells[3][3:7] == ("100", "", "", "")
    lossy = table(ROWS, LOSS)
    assert lossy.columns[4:8] == ("AP", "AP50", "AP75", LOSS)
    assert [line[7] for line in lossy.cells()][:3] == ["0.500", "0.750", ""]
    assert all(len(line) == len(lossy.columns) for line in lossy.cells())


def test_runs_with_different_keys_share_one_table() -> None:
    made = table((Row("a", {"train.steps": "1"}, "WAITING"), Row("b", {"model.image_size": "64"}, "WAITING")))
    assert made.columns[1:3] == ("train.steps", "model.image_size")
    assert [line[1:3] for line in made.cells()] == [("1", ""), ("", "64")]
    assert table(()).to_dicts() == []


def test_the_table_as_json() -> None:
    plain = json.loads(json.dumps(table(ROWS).to_dicts(), allow_nan=False))
    assert plain[0] == {
        "run": "first", "values": {"train.steps": "first"}, "state": "SUCCEEDED", "error": None, "step": 200, "AP": 0.5,
        "AP50": 0.75, "AP75": 0.625, "hours": 2.0, "cost": "1.5", "currency": "USD", "cost_unknown": None,
    }
    assert (plain[1]["cost"], plain[1]["cost_unknown"]) == (None, "no price of x")
    assert (plain[3]["step"], plain[3]["AP"]) == (100, None)
    assert plain[4]["error"] == "its code ended with 1"


def test_the_best_evaluation_of_a_run() -> None:
    three = [metrics(100, 0.25, **{LOSS: 0.5}), metrics(200, 0.5, **{LOSS: 0.75}), metrics(300, 0.5, **{LOSS: 0.75})]
    assert best_of(three) is three[1]
    assert best_of(three, LOSS) is three[0]
    assert best_of(three, "DetectionBoxes_Recall/AR@1") is None
    assert best_of([metrics(100, math.nan), three[0]]) is three[0]
    assert best_of([]) is None
