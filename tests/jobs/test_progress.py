"""Progress out of the trainer's own lines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.jobs.progress import read_progress
from gcpod.status import Progress


def test_step_and_loss() -> None:
    lines = [
        "I1121 10:00:00.000000 140 model_lib_v2.py:705] Step 300 per-step time 0.250s",
        "I1121 10:00:00.000000 140 model_lib_v2.py:708] {'Loss/classification_loss': 0.25,",
        " 'Loss/total_loss': 0.75,",
        " 'learning_rate': 0.04}",
    ]
    progress = read_progress(Progress(step=200, total_steps=500), lines)
    assert progress == Progress(step=300, total_steps=500, loss=0.75, steps_per_s=4.0)
    assert progress.left_s == 50.0


@pytest.mark.parametrize(("text", "loss"), [
    ("0.5", 0.5), ("12", 12.0), ("3.", 3.0), ("-1.5e-05", -1.5e-05), ("2E3", 2000.0), ("inf", math.inf),
    ("-inf", -math.inf), ("np.float32(0.625)", 0.625), ("np.float32(1e-3)", 1e-3), ("np.float32(inf)", math.inf),
])
def test_losses(text: str, loss: float) -> None:
    assert read_progress(Progress(), [f"{{'Loss/total_loss': {text}, 'x': 1}}"]).loss == loss


@pytest.mark.parametrize("text", ["nan", "np.float32(nan)"])
def test_loss_that_is_no_number(text: str) -> None:
    loss = read_progress(Progress(loss=1.0), [f" 'Loss/total_loss': {text},"]).loss
    assert loss is not None
    assert math.isnan(loss)


def test_the_first_block_tells_no_speed() -> None:
    first = read_progress(Progress(), ["Step 100 per-step time 0.500s"])
    assert first == Progress(step=100)
    assert read_progress(first, ["Step 200 per-step time 0.500s"]) == Progress(step=200, steps_per_s=2.0)


def test_other_lines_change_nothing() -> None:
    progress = Progress(step=100, total_steps=500, loss=0.5, steps_per_s=2.0)
    lines = ["", "Step by step", "'Loss/total_loss': much", "Loss/total_loss", "Step -1"]
    assert read_progress(progress, lines) == progress


def test_evaluation_and_zero_time() -> None:
    assert read_progress(Progress(), ["INFO: Eval metrics at step 400"]).step == 400
    assert read_progress(Progress(step=0), ["Step 100 per-step time 0.000s"]) == Progress(step=100)
    assert Progress(step=100, total_steps=200).left_s is None
    assert Progress(step=300, total_steps=200, steps_per_s=1.0).left_s == 0.0


@given(st.lists(st.text()))
def test_any_lines(lines: list[str]) -> None:
    once = read_progress(Progress(), lines)
    split = read_progress(read_progress(Progress(), lines[: len(lines) // 2]), lines[len(lines) // 2 :])
    assert repr(once) == repr(split)
