"""Progress read from the trainer's own log lines.

The TF2 trainer says ``Step 100 per-step time 0.357s`` every hundred steps and then prints a dictionary of losses
(object_detection/model_lib_v2.py, train_loop).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gcpod.status import Progress

_STEP = re.compile(r"Step (\d+) per-step time (\d+(?:\.\d+)?)s")
_LOSS = re.compile(r"'Loss/total_loss': (?:np\.float32\()?([-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|inf|nan))")
_EVALUATED = re.compile(r"Eval metrics at step (\d+)")


def read_progress(progress: Progress, lines: Iterable[str]) -> Progress:
    """The progress after some more lines of a job's log; lines that say nothing of it are passed over."""
    for line in lines:
        step, loss, evaluated = _STEP.search(line), _LOSS.search(line), _EVALUATED.search(line)
        # Each line comes twice, by two loggers; the second says nothing new.
        if step and int(step.group(1)) != progress.step:
            # The first block includes tracing the graph, which tells nothing about the steps to come.
            seconds = float(step.group(2)) if progress.step is not None else 0.0
            progress = replace(progress, step=int(step.group(1)), steps_per_s=1 / seconds if seconds else None)
        if loss:
            progress = replace(progress, loss=float(loss.group(1)))
        if evaluated:
            progress = replace(progress, step=int(evaluated.group(1)))
    return progress


@dataclass
class Stall:
    """Notices that a job which should make steps makes none.

    Attributes:
        limit_s: seconds without a step after which it has stalled.
    """

    limit_s: float
    _step: int | None = None
    _since: float | None = None
    _told: bool = False

    def look(self, now: float, running: bool, step: int | None) -> float | None:
        """Seconds since the last step where that has just become too long; None else, and for the rest of a stall."""
        if not running or self._since is None or step != self._step:
            self._step, self._since, self._told = step, now, False
            return None
        quiet_s = now - self._since
        if quiet_s < self.limit_s or self._told:
            return None
        self._told = True
        return quiet_s
