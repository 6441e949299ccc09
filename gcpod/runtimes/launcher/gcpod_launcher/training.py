"""What goes with a training: where it begins, the marker of its end, and the object that ends it early.

Vertex AI starts a job again from the beginning after its machine was taken away. So the training begins with the newest
whole checkpoint, and takes away the marker of an earlier start.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gcpod_launcher import checkpoints
from gcpod_launcher.objects import Files
from gcpod_launcher.replicas import Replica

LOOK_S = 10.0
"""Between two looks for the object that ends a training."""
SAVE_S = 120.0
"""How long an early end waits for a checkpoint that is being written; it takes seconds."""
EVALUATION_S = 3600.0
"""How long the chief waits for the evaluator of its own job, as long as the evaluation for a checkpoint."""
WRITES = 30
"""How often an ended training tries to write its marker before it ends without: five minutes."""


def evaluated(marker: str) -> str:
    """The object by which the evaluator of a training's own job says that it has ended."""
    return f"{marker.removesuffix('.json')}.evaluated.json"


def reason_in(text: str) -> str:
    """Why a training is to end, in one line, from whatever the stop object holds."""
    try:
        found = json.loads(text)
        reason = found.get("reason") if isinstance(found, dict) else None
    except (ValueError, RecursionError):
        reason = None
    return " ".join(str(reason or "").split())[:500] or "no reason is given"


class Training:
    """One machine's part in a training.

    Args:
        files: where the objects lie.
        marker: the object that says that the training ended, or None.
        stop: the object that ends it early, or None.
        replica: which machine this is; only the chief writes.
        say: told what happens, in one line each.
        leave: ends this process with an exit code, whatever its threads are doing.
        look_s: seconds between two looks.
    """

    def __init__(
        self, files: Files, marker: str | None, stop: str | None, replica: Replica, say: Callable[[str], None],
        leave: Callable[[int], object] = os._exit, look_s: float = LOOK_S,
    ) -> None:
        self._files, self._marker, self._stop, self._replica = files, marker, stop, replica
        self._say, self._leave, self._look_s = say, leave, look_s
        self._ending = threading.Lock()
        self._over = threading.Event()
        self.saving = threading.Lock()
        """Held while a checkpoint is written."""

    def begin(self, model_dir: str | None) -> None:
        """Readies the model folder and the marker.

        Raises:
            OSError: the storage failed.
        """
        if not self._replica.chief:
            return
        if self._marker:
            self._files.remove(self._marker)
            self._files.remove(evaluated(self._marker))
        if model_dir:
            checkpoints.mend(self._files, model_dir, self._say)

    def watch(self) -> None:
        """Looks for the stop object from now on, beside the training."""
        if self._stop:
            threading.Thread(target=self._look, name="gcpod-stop", daemon=True).start()

    def end(self, code: int) -> int:
        """Marks the end of the training; returns the exit code for the process.

        A training that fails while it is asked to stop has been stopped: the other machines of its cluster left.
        """
        self._over.set()
        self._ending.acquire()  # for ever, when the watching thread is ending this process already
        reason = self._wanted() if code and self._stop else None
        if reason is not None:
            self._say(f"the training stops early: {reason}")
            code = 0
        if self._replica.chief and self._marker:
            self._mark(self._marker, code, reason is not None)
            self._wait_for_evaluator(code)
        return code

    def _wanted(self) -> str | None:
        """Why the training is to stop, if it is; a storage that does not answer says nothing."""
        try:
            text = self._files.read(self._stop or "")
        except OSError:
            return None
        return None if text is None else reason_in(text)

    def _look(self) -> None:
        while (reason := self._wanted()) is None:
            if self._over.wait(self._look_s):
                return
        if not self._ending.acquire(blocking=False):
            return
        # A checkpoint cut in the middle does no harm, as its index comes last; but it would be lost.
        self.saving.acquire(timeout=SAVE_S)
        self._say(f"the training stops early: {reason}")
        if self._marker and self._replica.chief:
            self._mark(self._marker, 0, True)
            self._wait_for_evaluator(0)
        elif self._marker:
            # A machine that left before the chief would look to the chief's collectives like one that failed.
            marker = self._marker
            self._wait(lambda: self._files.version(marker) is not None, SAVE_S)
        flush()
        self._leave(0)

    def _mark(self, marker: str, code: int, stopped: bool) -> None:
        text = json.dumps({"exit_code": code, "stopped": True} if stopped else {"exit_code": code})
        for _ in range(WRITES):
            try:
                self._files.write(marker, text)
                return
            except OSError as e:
                self._say(f"writing {marker}: {e}; trying again")
                time.sleep(self._look_s)

    def _wait_for_evaluator(self, code: int) -> None:
        """Vertex AI ends a job's other machines with its chief, and so would cut the last evaluation short."""
        if code == 0 and self._marker and self._replica.evaluator_beside:
            self._say("waiting for the job's evaluator to end")
            done = evaluated(self._marker)
            self._wait(lambda: self._files.version(done) is not None, EVALUATION_S)

    def _wait(self, done: Callable[[], bool], at_most_s: float) -> None:
        deadline = time.monotonic() + at_most_s
        while time.monotonic() < deadline:
            try:
                if done():
                    return
            except OSError as e:
                self._say(f"looking: {e}; trying again")
            time.sleep(self._look_s)


def guard_saves(saving: threading.Lock) -> None:
    """Has TensorFlow's CheckpointManager hold a lock while it writes."""
    import tensorflow as tf

    manager = tf.train.CheckpointManager
    save = manager.save

    def guarded(*args: Any, **kwargs: Any) -> Any:
        with saving:
            return save(*args, **kwargs)

    manager.save = guarded


def flush() -> None:
    """Puts down what this process has written: its output, and summaries, which TensorFlow keeps for two minutes."""
    if (tf := sys.modules.get("tensorflow")) is not None:
        for thing in gc.get_objects():
            if issubclass(type(thing), tf.summary.SummaryWriter):
                try:
                    thing.flush()
                except Exception as e:  # whatever it is, the process ends well
                    sys.stdout.write(f"gcpod_launcher: flushing summaries: {type(e).__name__}\n")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
