"""TensorFlow's own strategy for several machines over the TF_CONFIG that the local cloud gives each replica."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gcpod.cache import cache_dir
from gcpod.localcloud.cloud import JobCloud
from gcpod.runtimes import find_runtime
from tests.localcloud.test_job_runs import ENDS, job, said, submit
from tests.waiting import until

PROGRAM = """
import json, os
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
task = json.loads(os.environ["TF_CONFIG"])["task"]

@tf.function
def together():
    def mine():
        number = 1.0 if task["type"] == "chief" else 41.0
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(number))
    return strategy.experimental_local_results(strategy.run(mine))[0]

print("REDUCED", task["type"], strategy.num_replicas_in_sync, float(together()), flush=True)
"""


def reduced(cloud: JobCloud, number: str, task: str) -> list[str]:
    return [text for _, text in said(cloud, number, task) if text.startswith("REDUCED")]


@pytest.mark.trainer
def test_two_workers_reduce_a_number(tmp_path: Path) -> None:
    image = f"us-docker.pkg.dev/p/gcpod/{find_runtime('tf2.15').images['cpu']}:latest"
    pool: dict[str, Any] = {
        "machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1",
        "containerSpec": {"imageUri": image, "command": ["python", "-c", PROGRAM]},
    }
    body = {"displayName": "reduce", "jobSpec": {"workerPoolSpecs": [pool, pool], "scheduling": {"timeout": "150s"}}}
    with JobCloud(tmp_path / "cloud", cache=cache_dir()) as cloud:
        number = submit(cloud, body)
        found = until(lambda: one if (one := job(cloud, number))["state"] in ENDS else None, 200) or {}
        lines = [text for task in ("workerpool0-0", "workerpool1-0") for _, text in said(cloud, number, task)]
        assert found["state"] == "JOB_STATE_SUCCEEDED", lines[-20:]
        assert reduced(cloud, number, "workerpool0-0") == ["REDUCED chief 2 42.0"]
