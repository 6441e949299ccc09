"""The best checkpoint so far, kept where the trainer does not rotate it away, and the word to stop when none is better.

The folder holds one checkpoint at a time, the index that names it, and ``metrics.json``. Whatever moment this process
ends at, the index names a whole checkpoint: first come the files of a better one, under a name that is not in use, then
``metrics.json``, then the index, and only then the older files go.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from gcpod_launcher import checkpoints
from gcpod_launcher.objects import Files

METRICS = "metrics.json"
_NAME = re.compile(r"[^/\\\"\s]{1,200}")


@dataclass(frozen=True)
class Best:
    """What ``metrics.json`` says: ``checkpoint`` is a name in the same folder, ``value`` that of ``metric``."""

    step: int
    checkpoint: str
    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Best | None:
        """None where the text is not what this module writes."""
        try:
            found = json.loads(text)
            best = cls(int(found["step"]), str(found["checkpoint"]), str(found["metric"]), float(found["value"]))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return best if math.isfinite(best.value) and _NAME.fullmatch(best.checkpoint) else None


def is_better(value: float, best: float | None, metric: str, min_delta: float) -> bool:
    """Whether a value beats the best by more than ``min_delta``: larger is better, of losses smaller.

    What is no finite number is never better; any other is better than none.
    """
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return (best - value if metric.startswith("Loss/") else value - best) > min_delta


class Judge:
    """Told of each evaluated checkpoint; keeps the best, and asks the training to stop when there is nothing to gain.

    Args:
        files: where the folder and the stop object lie.
        folder: of the best checkpoint.
        metric: tag of the metric, such as ``DetectionBoxes_Precision/mAP``.
        min_delta: by how much a better one has to be better.
        stop_after: evaluations without a better one after which to stop the training; None for never.
        stop: the object that stops it.
        say: told what happens, in one line each.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(
        self, files: Files, folder: str, metric: str, min_delta: float = 0.0, stop_after: int | None = None,
        stop: str | None = None, say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._files, self._folder, self._metric, self._min_delta = files, folder.rstrip("/"), metric, min_delta
        self._stop_after, self._stop, self._say = stop_after, stop, say
        self._no_better, self._asked = 0, False
        self.best = self._read()

    def see(self, prefix: str, step: int, metrics: Mapping[str, object], local: str = "") -> None:
        """Judges an evaluated checkpoint by its metrics; a storage that fails is said, and the evaluation goes on.

        ``local`` is the prefix of a copy to keep it from; by default it is taken from where it lies.
        The checkpoint of step 0, which the trainer writes before it trains, is neither kept nor counted.
        """
        if step == 0:
            return
        if self._metric not in metrics:
            there = ", ".join(sorted(metrics)) or "none"
            self._say(f"judging {prefix}: its evaluation has no {self._metric}, so none is kept as the best; "
                      f"set eval.best_metric to one of: {there}")
            return
        value = float(metrics[self._metric])  # type: ignore[arg-type]  # a number of numpy or TensorFlow
        if is_better(value, self.best.value if self.best else None, self._metric, self._min_delta):
            self._no_better = 0
            self._try(f"keeping {prefix} as the best", lambda: self._keep(prefix, local or prefix, step, value))
            return
        if self.best is not None and step <= self.best.step:
            # An evaluation that starts again looks at the newest checkpoint again, which is no better than itself.
            return
        self._no_better += 1
        if self._stop_after and self._no_better >= self._stop_after and not self._asked:
            self._try("asking the training to stop", lambda: self._ask(step))

    def _try(self, tried: str, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as e:
            self._say(f"{tried}: {e}; going on without")

    def _read(self) -> Best | None:
        """The best of an earlier start of this evaluation, its folder in order again."""
        text = self._files.read(f"{self._folder}/{METRICS}")
        best = Best.parse(text) if text is not None else None
        if text is not None and best is None:
            self._say(f"reading {self._folder}/{METRICS}: it is damaged; the next evaluated one is the best")
        if best is None:
            return None
        if best.checkpoint not in checkpoints.parts(self._files.names(self._folder)):
            self._say(f"reading {self._folder}: {best.checkpoint} is not whole; the next evaluated one is the best")
            return None
        if self._named() != best.checkpoint:
            self._files.write(f"{self._folder}/{checkpoints.INDEX}", checkpoints.index_text([best.checkpoint]))
        if best.metric != self._metric:
            self._say(f"reading {self._folder}: the best was chosen by {best.metric}; it is chosen anew")
            return None
        return best

    def _named(self) -> str | None:
        return checkpoints.named_by(self._files.read(f"{self._folder}/{checkpoints.INDEX}"))

    def _keep(self, prefix: str, copy: str, step: int, value: float) -> None:
        source, name = checkpoints.split(copy)
        files = checkpoints.parts(self._files.names(source)).get(name)
        if files is None:
            raise OSError(f"{copy} is not whole any more")
        # A training that goes on from an earlier checkpoint gives the same names again.
        kept = f"{name}-again" if self._named() == name else name
        mine = [kept + file[len(name):] for file in files]
        for file, target in zip(files, mine, strict=True):
            self._files.copy(f"{source}/{file}", f"{self._folder}/{target}")
        best = Best(step, kept, self._metric, value)
        self._files.write(f"{self._folder}/{METRICS}", json.dumps(asdict(best)) + "\n")
        self._files.write(f"{self._folder}/{checkpoints.INDEX}", checkpoints.index_text([kept]))
        self.best = best
        self._say(f"{prefix} of step {step} is the best so far: {self._metric} {value:.6g}")
        for file in self._files.names(self._folder):
            if file not in (METRICS, checkpoints.INDEX, *mine) and not file.endswith("/"):
                self._files.remove(f"{self._folder}/{file}")

    def _ask(self, step: int) -> None:
        best = f"{self.best.value:.6g} of step {self.best.step}" if self.best else "none"
        count = f"{self._no_better} evaluation{'s' * (self._no_better > 1)}"
        reason = f"{count} without a better {self._metric}, which is {best}"
        if self._stop and self._files.version(self._stop) is None:
            self._files.write(self._stop, json.dumps({"reason": reason, "step": step}) + "\n")
        self._asked = True
        self._say(f"asking the training to stop: {reason}")
