"""Stands for the trainer image in tests of everything around it: writes what the real trainer writes, in half a second.

It gets the launcher's arguments. Its behaviour is set by objects in the bucket below ``<run>/behave/``: ``fail-train``
makes the training exit with 1, ``hang-train`` and ``hang-eval`` make that job wait until the object is gone,
``nan-train`` makes it log a loss that is no number before that, ``killed-train`` makes it die as if out of memory.
With QUICK_TRAINER_S in its environment each job takes so many seconds longer, and logs LINES numbered lines meanwhile.
"""

from __future__ import annotations

import http.client
import os
import struct
import sys
import time
from urllib.parse import quote

from gcpod import wire
from gcpod.records import frame

LINES = 20


def scalar_event(step: int, tag: str, value: float) -> bytes:
    """A record of an event file with one scalar, as tf.summary.scalar of TF 2 writes it."""
    tensor = wire.integer(1, 1) + wire.delimited(4, struct.pack("<f", value))
    summary = wire.delimited(1, wire.delimited(1, tag.encode()) + wire.delimited(8, tensor))
    now = wire.tag(1, wire.FIXED64) + struct.pack("<d", time.time())
    return frame(now + wire.integer(2, step) + wire.delimited(5, summary))


def option(name: str) -> str:
    flag = f"--{name}"
    for position, argument in enumerate(sys.argv):
        if argument == flag:
            return sys.argv[position + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return ""


def linger(role: str) -> None:
    """Takes its time where it is told to."""
    seconds = float(os.environ.get("QUICK_TRAINER_S", "0"))
    for number in range(LINES if seconds else 0):
        print(f"INFO:tensorflow:{role} line {number}", file=sys.stderr, flush=True)
        time.sleep(seconds / LINES)


def main() -> int:
    role, config = option("role"), option("pipeline_config_path")
    root = config.rpartition("/")[0]
    bucket, _, prefix = root.removeprefix("gs://").partition("/")

    def ask(verb: str, path: str, body: bytes | None = None) -> int:
        connection = http.client.HTTPConnection(os.environ["STORAGE_EMULATOR_HOST"].removeprefix("http://"))
        connection.request(verb, path, body)
        status = connection.getresponse().status
        connection.close()
        return status

    def there(name: str) -> bool:
        return ask("GET", f"/storage/v1/b/{bucket}/o/{quote(f'{prefix}/{name}', safe='')}") == 200

    def put(name: str, content: bytes) -> None:
        where = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(f'{prefix}/{name}', safe='')}"
        assert ask("POST", where, content) == 200, name

    def wanted(name: str) -> bool:
        return there(f"behave/{name}")

    assert there("pipeline.config"), config

    if role == "train":
        put("model/checkpoint", b'model_checkpoint_path: "ckpt-1"\n')
        print("INFO:tensorflow:Step 100 per-step time 0.050s", file=sys.stderr, flush=True)
        print("INFO:tensorflow:{'Loss/total_loss': 0.5,", file=sys.stderr, flush=True)
        if wanted("nan-train"):
            print("INFO:tensorflow:{'Loss/total_loss': nan,", file=sys.stderr, flush=True)
        put("model/train/events.out.tfevents.1", scalar_event(100, "Loss/total_loss", 0.5))
        linger(role)
        while wanted("hang-train"):
            time.sleep(0.02)
        if wanted("fail-train"):
            print("ValueError: the training was told to fail", file=sys.stderr, flush=True)
            return 1
        if wanted("killed-train"):
            return 137
    elif role == "eval":
        linger(role)
        while wanted("hang-eval"):
            time.sleep(0.02)
        put("model/eval/events.out.tfevents.1", b"".join(
            scalar_event(step, f"DetectionBoxes_Precision/{name}", value)
            for step, shift in ((0, 0.0), (100, 0.5))
            for name, value in (("mAP", shift), ("mAP@.50IOU", shift + 0.25), ("mAP@.75IOU", shift + 0.125))
        ))
    else:
        linger(role)
        put("export/saved_model/saved_model.pb", b"model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
