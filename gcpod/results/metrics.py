"""The evaluation's numbers, out of its event files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gcpod.results.events import Scalar, read_scalars
from gcpod.status import Metrics

EVENT_FILES = "**/events.out.tfevents.*"
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
