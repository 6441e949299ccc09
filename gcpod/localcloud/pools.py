"""Worker pools: which replicas a job has, where each finds the others, and how they come into its environment."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

PRIMARY = "workerpool0-0"
"""The task name of the replica that decides whether a job succeeded."""
ROLES = ("chief", "worker", "ps", "evaluator")
"""What the pools are to TensorFlow, by their place
(https://cloud.google.com/vertex-ai/docs/training/distributed-training)."""
_TPU_MACHINE = re.compile(r"ct\w+-.*-([0-9]+)t")
_BOARD_CORES = 8
"""TPU v2 and v3: what one board has; more is a pod (https://cloud.google.com/vertex-ai/docs/training/configure-compute)."""


@dataclass(frozen=True)
class Pool:
    """One worker pool that is not empty; ``place`` counts the empty ones too."""

    place: int
    replicas: int
    body: Mapping[str, Any]

    @property
    def machine(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.body.get("machineSpec", {})
        return found

    @property
    def program(self) -> Mapping[str, Any]:
        """The containerSpec or the pythonPackageSpec."""
        found: Mapping[str, Any] = self.body.get("containerSpec") or self.body.get("pythonPackageSpec", {})
        return found

    @property
    def accelerator(self) -> str:
        """The acceleratorType; "" for none."""
        kind = str(self.machine.get("acceleratorType", ""))
        return "" if kind == "ACCELERATOR_TYPE_UNSPECIFIED" else kind

    @property
    def chips(self) -> int:
        """How many accelerators each of its machines has: GPUs, cores of a TPU v2 or v3, chips of later ones."""
        count = int(self.machine.get("acceleratorCount", 0))
        for side in str(self.machine.get("tpuTopology", "")).split("x"):
            if side.isdigit():
                count = (count or 1) * int(side)
        return count

    @property
    def is_tpu(self) -> bool:
        kind = str(self.machine.get("machineType", ""))
        return (kind == "cloud-tpu" or self.accelerator.startswith("TPU_") or bool(self.machine.get("tpuTopology"))
                or bool(_TPU_MACHINE.fullmatch(kind)))

    @property
    def is_pod(self) -> bool:
        """Whether its TPU takes more than one host."""
        match = _TPU_MACHINE.fullmatch(str(self.machine.get("machineType", "")))
        return self.is_tpu and self.chips > (int(match[1]) if match else _BOARD_CORES)


@dataclass(frozen=True)
class Replica:
    """One machine of a job."""

    pool: Pool
    index: int

    @property
    def task(self) -> str:
        """Its name in the log."""
        return f"workerpool{self.pool.place}-{self.index}"


def pools_of(job_spec: Mapping[str, Any]) -> list[Pool]:
    """The pools that are not empty."""
    listed = enumerate(job_spec.get("workerPoolSpecs", []))
    return [Pool(place, replica_count(body), body) for place, body in listed if replica_count(body)]


def replica_count(pool: Mapping[str, Any]) -> int:
    """How many machines a pool has: none where it only keeps a place, one where nothing is said."""
    says = any(pool.get(key) for key in ("machineSpec", "containerSpec", "pythonPackageSpec"))
    return int(pool.get("replicaCount", 1 if says else 0))


def replicas_of(job_spec: Mapping[str, Any]) -> list[Replica]:
    """Every replica, the primary first."""
    return [Replica(pool, index) for pool in pools_of(job_spec) for index in range(pool.replicas)]


def free_addresses(count: int) -> list[str]:
    """So many ``HOST:PORT`` of this machine that nothing listened on a moment ago."""
    with ExitStack() as stack:
        # All are open at once, so that no two are the same.
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def cluster_variables(
    replica: Replica, replicas: Sequence[Replica], addresses: Sequence[str], job_spec: Mapping[str, Any],
) -> dict[str, str]:
    """CLUSTER_SPEC and TF_CONFIG of one replica.

    TF_CONFIG's cluster has no evaluator, which takes no part in the training
    (https://cloud.google.com/vertex-ai/docs/training/distributed-training#tf-config).
    """
    by_pool: dict[int, list[str]] = {}
    for one, address in zip(replicas, addresses, strict=True):
        by_pool.setdefault(one.pool.place, []).append(address)
    place, index = replica.pool.place, replica.index
    spec = {
        "cluster": {f"workerpool{number}": listed for number, listed in by_pool.items()},
        "environment": "cloud",
        "task": {"type": f"workerpool{place}", "index": index, "trial": ""},
        "job": job_spec,
    }
    config = {
        "cluster": {ROLES[number]: listed for number, listed in by_pool.items() if ROLES[number] != "evaluator"},
        "environment": "cloud",
        "task": {"type": ROLES[place], "index": index},
        "job": job_spec,
    }
    return {"CLUSTER_SPEC": json.dumps(spec), "TF_CONFIG": json.dumps(config)}
