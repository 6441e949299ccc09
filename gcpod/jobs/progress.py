"""Progress read from the trainer's own log lines.

The TF2 trainer says ``Step 100 per-step time 0.357s`` every hundred steps and then prints a dictionary of losses
(object_detection/model_lib_v2.py, train_loop).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

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
