"""Evaluation that follows a training and ends with it.

model_main_tf2 looks for a checkpoint every 300 s, and after the training waits up to an hour for one that cannot come,
unless a checkpoint's step equals num_steps (object_detection/model_lib_v2.py, eval_continuously). Here it looks as
often as it is told, and a marker object written by the training job says that the checkpoint it sees is the last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

UNREADABLE_LOOKS = 5
"""After the training's end, how often an index of checkpoints that cannot be read is looked at again."""


def write(uri: str, text: str) -> None:
    """Writes a small object."""
    import tensorflow as tf

    with tf.io.gfile.GFile(uri, "w") as f:
        f.write(text)


def checkpoints(
    latest: Callable[[], str | None], ended: Callable[[], bool], poll_s: float, timeout_s: float,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yields each new checkpoint until the training ended or none came for ``timeout_s`` seconds.

    Args:
        latest: returns the newest checkpoint's prefix, or None.
        ended: returns whether the training is over.
        poll_s: seconds between two looks.
        timeout_s: seconds without a new checkpoint after which to give up.
        clock, sleep: the process's own unless given.
    """
    last, waiting_since, unreadable = None, clock(), 0
    while True:
        # Asked before looking: a checkpoint written before the marker is then never missed.
        over = ended()
        newest = latest()
        if newest is not None and newest != last:
            last = newest
            yield newest
            waiting_since = clock()
            continue
        unreadable = unreadable + 1 if over and newest is None else 0
        if (over and not 0 < unreadable <= UNREADABLE_LOOKS) or clock() - waiting_since >= timeout_s:
            return
        sleep(poll_s)


def follow(marker: str | None, poll_s: float, timeout_s: float) -> None:
    """Makes TensorFlow's checkpoints_iterator follow the rule above for the rest of this process."""
    # TensorFlow remembers an object's size for five seconds (gcs_file_system.cc), and so reads a checkpoint index that
    # grew meanwhile as a damaged one.
    os.environ.setdefault("GCS_STAT_CACHE_MAX_AGE", "0")
    import tensorflow as tf

    def iterator(checkpoint_dir: str, **_: object) -> Iterator[str]:
        return checkpoints(
            lambda: tf.train.latest_checkpoint(checkpoint_dir),
            lambda: bool(marker) and tf.io.gfile.exists(marker),
            poll_s, timeout_s,
        )

    tf.compat.v1.train.checkpoints_iterator = iterator
