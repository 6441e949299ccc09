"""A learning-rate schedule brought along when steps, batch or peak change: else it would train at the wrong rate.

Kinds and fields of schedules: object_detection/protos/optimizer.proto; those not stated count with its defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gcpod.pipeline.fields import number_of
from gcpod.textproto import Message

_PEAKS: Final = {
    "constant_learning_rate": "learning_rate", "cosine_decay_learning_rate": "learning_rate_base",
    "exponential_decay_learning_rate": "initial_learning_rate", "manual_step_learning_rate": "initial_learning_rate",
}
_RATES: Final = (
    "learning_rate", "learning_rate_base", "initial_learning_rate", "warmup_learning_rate", "burnin_learning_rate",
    "min_learning_rate",
)
_STEPS: Final = ("decay_steps", "burnin_steps", "hold_base_rate_steps")
_DEFAULT_RATE: Final = 0.002
_DEFAULT_WARMUP: Final = 0.0002
_DEFAULT_BATCH: Final = 32


@dataclass(frozen=True)
class Change:
    """What changes for the schedule; see `gcpod.pipeline.render.RenderRequest`."""

    steps: int
    warmup_steps: int | None
    batch_size: int
    learning_rate: float | None = None
    scale_learning_rate: bool = False


def schedule_values(tree: Message, change: Change) -> dict[str, str]:
    """Literals by path that bring the schedule of a pipeline config along."""
    optimizer = tree.find("train_config.optimizer")
    values = _rewriter(tree, change)
    for name, _, _ in optimizer.fields if isinstance(optimizer, Message) else ():
        path = f"train_config.optimizer.{name}.learning_rate"
        rate = tree.find(path)
        for kind, _, schedule in rate.fields if isinstance(rate, Message) else ():
            if kind in _PEAKS and isinstance(schedule, Message):
                values |= _schedule(tree, f"{path}.{kind}", kind, schedule, change)
    return values


def _rewriter(tree: Message, change: Change) -> dict[str, str]:
    """Quantization begins after its delay, which is a number of steps too (graph_rewriter.proto)."""
    path, before = "graph_rewriter.quantization.delay", number_of(tree.find("train_config.num_steps"))
    delay = number_of(tree.find(path))
    if not delay or before in (0, change.steps):
        return {}
    return {path: str(max(1, round(delay * change.steps / before)))}


def _schedule(tree: Message, path: str, kind: str, schedule: Message, change: Change) -> dict[str, str]:
    factor = _factor(tree, kind, schedule, change)
    before = number_of(tree.find("train_config.num_steps"))
    ratio = change.steps / before if before else 1.0
    values = {f"{path}.{name}": literal for name, literal in _scaled(schedule, factor, ratio).items()}
    if kind == "cosine_decay_learning_rate":
        warmup = _warmup(schedule, change, before)
        values |= {f"{path}.total_steps": str(change.steps), f"{path}.warmup_steps": str(warmup)}
    peak = _PEAKS[kind]
    if factor != 1 and schedule.find(peak) is None:
        values[f"{path}.{peak}"] = _rate(_DEFAULT_RATE * factor)
    if factor != 1 and kind == "cosine_decay_learning_rate" and schedule.find("warmup_learning_rate") is None:
        values[f"{path}.warmup_learning_rate"] = _rate(_DEFAULT_WARMUP * factor)
    last = 0
    for index, entry in enumerate(schedule.all("schedule")):
        if isinstance(entry, Message):
            inner = {f"{path}.schedule[{index}].{name}": one for name, one in _scaled(entry, factor, ratio).items()}
            step = number_of(entry.find("step"))
            if ratio != 1 and step:
                last = max(last + 1, round(step * ratio))
                inner[f"{path}.schedule[{index}].step"] = str(last)
            values |= inner
    return values


def _warmup(schedule: Message, change: Change, before: float) -> int:
    """As told, else the same share of the training as in the template; a tenth where that says nothing of either."""
    stated = schedule.find("warmup_steps")
    if change.warmup_steps is not None or stated is None or not before:
        return change.steps // 10 if change.warmup_steps is None else change.warmup_steps
    return min(change.steps, round(number_of(stated) * change.steps / before))


def _factor(tree: Message, kind: str, schedule: Message, change: Change) -> float:
    """What all rates are multiplied by."""
    if change.learning_rate is not None:
        entries = [entry.find("learning_rate") for entry in schedule.all("schedule") if isinstance(entry, Message)]
        rates = [number_of(schedule.find(_PEAKS[kind])) or _DEFAULT_RATE, *map(number_of, entries)]
        return change.learning_rate / max(rates)
    if change.scale_learning_rate:
        return change.batch_size / (number_of(tree.find("train_config.batch_size")) or _DEFAULT_BATCH)
    return 1.0


def _scaled(message: Message, factor: float, ratio: float) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for name, _, value in message.fields:
        number = number_of(value)
        if name in _RATES and factor != 1 and number:
            values[name] = _rate(number * factor)
        elif name in _STEPS and ratio != 1 and number:
            values[name] = str(max(1, round(number * ratio)))
    return values


def _rate(number: float) -> str:
    """Six significant digits: 32-bit floats hold no seventh."""
    return f"{number:.6g}"
