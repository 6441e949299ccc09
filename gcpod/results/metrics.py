"""The numbers of evaluation and training, out of their event files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gcpod.results.events import Scalar, read_scalars
from gcpod.status import Metrics, Progress

EVENT_FILES = "**/events.out.tfevents.*"
_LOSS_TAG, _RATE_TAG = "Loss/total_loss", "steps_per_sec"
"""What train_loop of object_detection/model_lib_v2.py writes."""
_PRECISION = "DetectionBoxes_Precision/"


def to_metrics(scalars: Iterable[Scalar]) -> list[Metrics]:
    """One Metrics for each evaluated step, in the order of the steps."""
    by_step: dict[int, dict[str, float]] = {}
    for scalar in scalars:
        if scalar.tag.startswith(("DetectionBoxes_", "Loss/")):
            by_step.setdefault(scalar.step, {})[scalar.tag] = scalar.value
    return [
        Metrics(
            step=step, ap=values[f"{_PRECISION}mAP"], ap50=values.get(f"{_PRECISION}mAP@.50IOU", float("nan")),
            ap75=values.get(f"{_PRECISION}mAP@.75IOU", float("nan")), values=values,
        )
        for step, values in sorted(by_step.items()) if f"{_PRECISION}mAP" in values
    ]


def read_metrics(folder: Path) -> list[Metrics]:
    """The metrics in all event files below a folder.

    Raises:
        DataError: a file is damaged.
    """
    files = sorted(folder.glob(EVENT_FILES))
    return to_metrics(scalar for path in files for scalar in read_scalars(path))


def progress_of_events(progress: Progress, scalars: Iterable[Scalar]) -> Progress:
    """The progress that the scalars of a training's event files tell."""
    for scalar in scalars:
        if scalar.tag == _LOSS_TAG and scalar.step >= (progress.step or 0):
            progress = replace(progress, step=scalar.step, loss=scalar.value)
        elif scalar.tag == _RATE_TAG and scalar.value > 0:
            progress = replace(progress, steps_per_s=scalar.value)
    return progress


def read_progress_of(folder: Path, progress: Progress) -> Progress:
    """The progress that the training's event files in a run's folder tell, for who may not read its log.

    Raises:
        DataError: a file is damaged.
    """
    for path in sorted((folder / "train").glob(EVENT_FILES)):
        progress = progress_of_events(progress, read_scalars(path))
    return progress
