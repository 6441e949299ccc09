from __future__ import annotations

import json
from pathlib import Path

import pytest
from gcpod_launcher.best import Best, Judge, is_better
from gcpod_launcher.checkpoints import named_by, parts
from hypothesis import given
from hypothesis import strategies as st

from .folder import Folder, save

MAP = "DetectionBoxes_Precision/mAP"
NAN = float("nan")


@pytest.mark.parametrize(("value", "best", "metric", "min_delta", "expected"), [
    (0.5, None, MAP, 0.1, True), (-1.0, None, MAP, 0.0, True), (NAN, None, MAP, 0.0, False),
    (float("inf"), None, MAP, 0.0, False), (NAN, 0.1, MAP, 0.0, False), (0.5, 0.5, MAP, 0.0, False),
    (0.75, 0.5, MAP, 0.25, False), (0.76, 0.5, MAP, 0.25, True), (0.4, 0.5, MAP, 0.0, False),
    (0.4, 0.5, "Loss/total_loss", 0.0, True), (0.6, 0.5, "Loss/total_loss", 0.0, False),
    (0.25, 0.5, "Loss/total_loss", 0.25, False), (NAN, 0.5, "Loss/total_loss", 0.0, False),
])
def test_better_is_larger_and_of_losses_smaller(
    value: float, best: float | None, metric: str, min_delta: float, expected: bool,
) -> None:
    assert is_better(value, best, metric, min_delta) is expected


class Run:
    """A model folder, the folder of the best, and a judge between them."""

    def __init__(self, root: Path, stop_after: int | None = None, min_delta: float = 0.0, metric: str = MAP) -> None:
        self.model, self.best, self.stop = root / "model", root / "best", root / "stop.json"
        self.files, self.metric, self.said = Folder(), metric, list[str]()
        self.options = (metric, min_delta, stop_after, str(self.stop))
        self.restart()

    def restart(self, files: Folder | None = None) -> None:
        self.judge = Judge(files or self.files, str(self.best), *self.options, say=self.said.append)

    def see(self, number: int, value: float, content: str = "") -> None:
        prefix = save(self.model, f"ckpt-{number}", content=content)
        self.judge.see(prefix, (number - 1) * 100, {self.metric: value, "Loss/other": 0.0})

    @property
    def kept(self) -> str | None:
        """The name in the index, whose checkpoint has to be whole, and to be what ``metrics.json`` speaks of."""
        name = named_by(self.files.read(f"{self.best}/checkpoint"))
        assert name is None or name in parts(self.files.names(str(self.best)))
        return name


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_the_best_lies_there_alone_with_its_metrics(run: Run) -> None:
    for number, value in ((2, 0.25), (3, 0.5), (4, 0.375)):
        run.see(number, value)
    assert sorted(p.name for p in run.best.iterdir()) == [
        "checkpoint", "ckpt-3.data-00000-of-00001", "ckpt-3.index", "metrics.json"]
    assert run.kept == "ckpt-3"
    assert json.loads((run.best / "metrics.json").read_text()) == {
        "step": 200, "checkpoint": "ckpt-3", "metric": MAP, "value": 0.5}
    assert (run.best / "ckpt-3.index").read_bytes() == (run.model / "ckpt-3.index").read_bytes()
    assert run.said[-1] == f"{run.model}/ckpt-3 of step 200 is the best so far: {MAP} 0.5"


def test_the_best_is_kept_from_its_copy(run: Run, tmp_path: Path) -> None:
    run.judge.see(f"{run.model}/ckpt-2", 100, {MAP: 0.5}, save(tmp_path / "copy", "ckpt-2"))
    assert run.kept == "ckpt-2"
    assert run.said == [f"{run.model}/ckpt-2 of step 100 is the best so far: {MAP} 0.5"]


def test_of_losses_the_smallest_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, metric="Loss/total_loss")
    for number, value in ((2, 0.5), (3, 0.25), (4, 0.375)):
        run.see(number, value)
    assert run.kept == "ckpt-3"


def test_the_untrained_checkpoint_and_nan_are_never_the_best(run: Run) -> None:
    run.see(1, 0.9)
    run.see(2, NAN)
    assert (run.kept, run.best.exists()) == (None, False)
    run.see(3, 0.1)
    assert run.kept == "ckpt-3"


def test_a_metric_that_the_evaluation_has_not_is_said(run: Run) -> None:
    run.judge.see(save(run.model, "ckpt-2"), 100, {"Loss/total_loss": 0.5})
    assert run.kept is None
    assert run.said == [f"judging {run.model}/ckpt-2: its evaluation has no {MAP}, so none is kept as the best; "
                        "set eval.best_metric to one of: Loss/total_loss"]


def test_a_restarted_evaluation_goes_on_from_the_best(run: Run) -> None:
    run.see(2, 0.5)
    run.restart()
    assert run.judge.best == Best(100, "ckpt-2", MAP, 0.5)
    run.see(3, 0.25)
    assert run.kept == "ckpt-2"


def test_the_same_name_again_never_mixes_two_checkpoints(run: Run) -> None:
    for value, content in ((0.25, "first"), (0.5, "second"), (0.75, "third")):
        run.see(2, value, content)
        assert (run.best / f"{run.kept}.index").read_text() == content
        assert len(list(run.best.glob("*.index"))) == 1


def test_another_metric_chooses_anew(tmp_path: Path) -> None:
    Run(tmp_path).see(2, 0.9)
    run = Run(tmp_path, metric="Loss/total_loss")
    assert "chosen anew" in run.said[0]
    run.see(2, 5.0, "again")
    assert (run.best / f"{run.kept}.index").read_text() == "again"


@pytest.mark.parametrize("fail_at", range(9))
def test_wherever_it_is_cut_the_best_is_whole_and_goes_on(tmp_path: Path, fail_at: int) -> None:
    run = Run(tmp_path)
    run.see(2, 0.25)
    run.restart(Folder(fail_at))
    run.see(3, 0.5)
    assert run.kept == ("ckpt-2" if fail_at < 4 else "ckpt-3")
    assert ("going on without" in run.said[-1]) == (fail_at < 6)
    run.restart()
    assert run.judge.best is not None
    assert run.judge.best.checkpoint == run.kept
    # What was written before the cut counts: a worse one does not take its place.
    run.see(4, 0.375)
    assert run.kept == ("ckpt-4" if fail_at < 3 else "ckpt-3")
    run.see(5, 0.75)
    assert run.kept == "ckpt-5"
    assert len(list(run.best.iterdir())) == 4


def test_a_best_without_its_files_is_chosen_anew(run: Run) -> None:
    run.see(2, 0.5)
    (run.best / "ckpt-2.data-00000-of-00001").unlink()
    run.restart()
    assert run.judge.best is None
    run.see(3, 0.25)
    assert run.kept == "ckpt-3"


@given(st.one_of(st.text(max_size=100), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.dictionaries(st.sampled_from(["step", "checkpoint", "metric", "value"]), inner), max_leaves=6,
).map(json.dumps)))
def test_whatever_metrics_json_holds_it_is_read_or_refused(text: str) -> None:
    best = Best.parse(text)
    assert best is None or ("/" not in best.checkpoint and best.value == best.value)


def test_damaged_metrics_are_said_and_replaced(run: Run) -> None:
    run.see(2, 0.5)
    (run.best / "metrics.json").write_text("{")
    run.restart()
    assert "damaged" in run.said[-1]
    run.see(3, 0.25)
    assert run.kept == "ckpt-3"


def test_a_checkpoint_that_is_gone_by_then_costs_nothing(run: Run) -> None:
    run.see(2, 0.25)
    run.judge.see(f"{run.model}/ckpt-3", 200, {MAP: 0.5})
    assert run.said[-1] == (f"keeping {run.model}/ckpt-3 as the best: {run.model}/ckpt-3 is not whole any more; "
                            "going on without")
    assert run.kept == "ckpt-2"


def test_so_many_evaluations_without_a_better_one_ask_to_stop_once(tmp_path: Path) -> None:
    run = Run(tmp_path, stop_after=2, min_delta=0.125)
    for number, value in ((1, 0.0), (2, 0.25), (3, 0.3125), (4, 0.5), (5, 0.5)):
        run.see(number, value)
        assert not run.stop.exists()
    run.see(6, NAN)
    found = json.loads(run.stop.read_text())
    assert found == {"step": 500, "reason": f"2 evaluations without a better {MAP}, which is 0.5 of step 300"}
    run.stop.unlink()
    run.see(7, 0.5)
    assert not run.stop.exists()


def test_a_stop_that_somebody_else_asked_for_stays(tmp_path: Path) -> None:
    run = Run(tmp_path, stop_after=1)
    run.stop.write_text("mine")
    run.see(2, 0.5)
    run.see(3, 0.5)
    assert run.stop.read_text() == "mine"


def test_a_stop_that_could_not_be_written_is_written_after_the_next(tmp_path: Path) -> None:
    run = Run(tmp_path, stop_after=1)
    run.see(2, 0.5)
    run.files.fail_at = run.files.changes
    run.see(3, 0.5)
    assert "asking the training to stop: the storage went away" in run.said[-1]
    run.files.fail_at = None
    run.see(4, 0.5)
    assert json.loads(run.stop.read_text())["step"] == 300


def test_a_restarted_evaluation_does_not_count_the_best_against_itself(tmp_path: Path) -> None:
    run = Run(tmp_path, stop_after=1)
    run.see(2, 0.1)
    run.see(3, 0.2)
    run.restart()
    run.see(3, 0.2)
    assert not run.stop.exists()
    run.see(4, 0.15)
    assert run.stop.exists()
