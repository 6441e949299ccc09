"""Evaluation that follows a training and ends with it, or looks at one checkpoint.

model_main_tf2 looks for a checkpoint every 300 s, and after the training waits up to an hour for one that cannot come,
unless a checkpoint's step equals num_steps (object_detection/model_lib_v2.py, eval_continuously). Here it looks as
often as it is told, and a marker object written by the training job says that the checkpoint it sees is the last.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gcpod_launcher.best import Judge
from gcpod_launcher.checkpoints import parts, split
from gcpod_launcher.objects import Files

UNREADABLE_LOOKS = 5
"""After the training's end, how often an index of checkpoints that cannot be read is looked at again."""


def ready() -> None:
    """Has to come before TensorFlow is imported.

    TensorFlow remembers an object's size for five seconds (gcs_file_system.cc), and so reads a checkpoint index that
    grew meanwhile as a damaged one.
    """
    os.environ.setdefault("GCS_STAT_CACHE_MAX_AGE", "0")


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


def ended(files: Files, marker: str | None, beside: bool) -> Callable[[], bool]:
    """Tells whether the training has ended; a storage that does not answer says no.

    Args:
        files: where the marker lies.
        marker: the object that says so; None for a training that is never known to have ended.
        beside: whether this is a machine of the training's own job, which starts anew together with it: a marker of a
            training that failed, if it is there at the start, is then an earlier start's.
    """
    def version() -> int | None:
        try:
            return files.version(marker) if marker else None
        except OSError:
            return None

    old = version() if beside and _failed(files, marker) else None
    return lambda: version() not in (None, old)


def _failed(files: Files, marker: str | None) -> bool:
    """Whether a marker says of its training that it failed."""
    try:
        found = json.loads((files.read(marker) if marker else None) or "{}")
        return isinstance(found, dict) and found.get("exit_code", 0) != 0
    except (OSError, ValueError, RecursionError):
        return False


def fetch(files: Files, prefix: str, folder: Path) -> str:
    """Copies a checkpoint into a folder, in place of what is in there; returns the copy's prefix.

    The trainer keeps its last seven checkpoints, and restoring one from a bucket takes a request or more for each
    variable: often enough one would go while it is restored, and it may have gone before it turns out to be the best.

    Raises:
        OSError: it is not whole, or the storage failed.
    """
    source, name = split(prefix)
    whole = parts(files.names(source))
    if name not in whole:
        raise GoneError(f"there is no whole checkpoint of this name; there are: {', '.join(whole) or 'none'}")
    for old in folder.iterdir():
        old.unlink()
    for file in whole[name]:
        files.copy(f"{source}/{file}", str(folder / file))
    return str(folder / name)


class GoneError(OSError):
    """The checkpoint is not there, or not any more: asking again does not help."""


PAUSES_S = (1.0, 5.0, 20.0)


@dataclass
class Followed:
    """The checkpoint that is being evaluated, and the prefix of its copy here; "" before the first."""

    prefix: str = ""
    local: str = ""


def each(
    files: Files, prefixes: Iterable[str], folder: Path, followed: Followed, say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yields a copy of each checkpoint; one that is gone by then is left out and said."""
    for prefix in prefixes:
        try:
            followed.prefix, followed.local = prefix, patiently(partial(fetch, files, prefix, folder), sleep)
        except OSError as e:
            say(f"evaluating {prefix}: {e}; going on with the next")
            continue
        yield followed.local


def patiently(act: Callable[[], str], sleep: Callable[[float], None]) -> str:
    """What is tried again when the storage fails for a moment: no other checkpoint may follow.

    Raises:
        OSError: it failed every time, or there is no such checkpoint.
    """
    for pause in PAUSES_S:
        try:
            return act()
        except GoneError:
            raise
        except OSError:
            sleep(pause)
    return act()


def only(
    files: Files, prefix: str, folder: Path, followed: Followed, sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yields a copy of one checkpoint.

    Raises:
        SystemExit: it is not whole, or the storage failed.
    """
    try:
        followed.prefix, followed.local = prefix, patiently(partial(fetch, files, prefix, folder), sleep)
    except OSError as e:
        sys.exit(f"gcpod_launcher: evaluating {prefix}: {e}")
    return iter([followed.local])


def follow(found: Callable[[Callable[[], str | None]], Iterator[str]]) -> None:
    """Makes TensorFlow's checkpoints_iterator yield other checkpoints in this process.

    Args:
        found: makes the iterator, from a function that returns the prefix of a folder's newest checkpoint, or None.
    """
    import tensorflow as tf

    def latest(folder: str) -> str | None:
        try:
            found: str | None = tf.train.latest_checkpoint(folder)
        except tf.errors.OpError:
            return None
        return found

    tf.compat.v1.train.checkpoints_iterator = lambda folder, **_: found(lambda: latest(folder))


def judge_each(judge: Judge, followed: Followed) -> None:
    """Tells a judge the metrics of each checkpoint that object_detection evaluates in this process."""
    library: Any = importlib.import_module("object_detection.model_lib_v2")
    evaluate = library.eager_eval_loop

    def judged(*args: Any, **kwargs: Any) -> Any:
        metrics = evaluate(*args, **kwargs)
        judge.see(followed.prefix, int(kwargs["global_step"].numpy()), metrics, followed.local)
        return metrics

    library.eager_eval_loop = judged
