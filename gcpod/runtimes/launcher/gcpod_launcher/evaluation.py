"""Evaluation that follows a training and ends with it.

model_main_tf2 looks for a checkpoint every 300 s, and after the training waits up to an hour for one that cannot come,
unless a checkpoint's step equals num_steps (object_detection/model_lib_v2.py, eval_continuously). Here it looks as often
as it is told, and a marker object written by the training job says that the checkpoint it sees is the last.
"""

import time


def write(uri, text):
    import tensorflow as tf

    with tf.io.gfile.GFile(uri, "w") as f:
        f.write(text)


def checkpoints(latest, ended, poll_s, timeout_s, clock=time.monotonic, sleep=time.sleep):
    """Yields each new checkpoint until the training ended or none came for ``timeout_s`` seconds.

    Args:
        latest: returns the newest checkpoint's prefix, or None.
        ended: returns whether the training is over.
    """
    last, waiting_since = None, clock()
    while True:
        # Asked before looking: a checkpoint written before the marker is then never missed.
        over = ended()
        newest = latest()
        if newest is not None and newest != last:
            last = newest
            yield newest
            waiting_since = clock()
        elif over or clock() - waiting_since >= timeout_s:
            return
        else:
            sleep(poll_s)


def follow(marker, poll_s, timeout_s):
    """Makes TensorFlow's checkpoints_iterator follow the rule above for the rest of this process."""
    import tensorflow as tf

    def iterator(checkpoint_dir, min_interval_secs=0, timeout=None, timeout_fn=None):
        del min_interval_secs, timeout, timeout_fn
        return checkpoints(
            lambda: tf.train.latest_checkpoint(checkpoint_dir),
            lambda: bool(marker) and tf.io.gfile.exists(marker),
            poll_s, timeout_s,
        )

    tf.compat.v1.train.checkpoints_iterator = iterator
