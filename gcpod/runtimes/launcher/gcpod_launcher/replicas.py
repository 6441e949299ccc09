"""Which machine of a job this is, and the cluster as TensorFlow's strategies want it.

Vertex AI tells by TF_CONFIG (``cluster``, ``task``) and CLUSTER_SPEC (``workerpool0`` the chief, 1 workers, 2 parameter
servers, 3 evaluators): https://cloud.google.com/vertex-ai/docs/training/distributed-training
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Replica:
    """One machine of a job.

    Attributes:
        type: chief, worker, ps or evaluator; chief where the job has one machine.
        index: counted from 0 within its type.
        chief: whether it speaks for the training: the chief, or worker 0 where there is none.
        evaluator_beside: whether another machine of the job evaluates.
    """

    type: str = "chief"
    index: int = 0
    chief: bool = True
    evaluator_beside: bool = False

    @property
    def evaluator(self) -> bool:
        return self.type == "evaluator"


def replica_of(environ: Mapping[str, str]) -> Replica:
    """This machine's place by its environment, whose TF_CONFIG may be missing or empty.

    Raises:
        SystemExit: TF_CONFIG cannot be read; TensorFlow could not either.
    """
    config = _tf_config(environ)
    cluster, task = _part(config, "cluster"), _part(config, "task")
    kind, index = task.get("type", "chief"), task.get("index", 0)
    if not isinstance(kind, str) or not isinstance(index, int):
        sys.exit(f"gcpod_launcher: reading TF_CONFIG: its task is {json.dumps(task)[:200]}; it needs type and index")
    chief = kind == "chief" or (kind == "worker" and index == 0 and not cluster.get("chief"))
    beside = bool(cluster.get("evaluator")) or _has_evaluators(environ.get("CLUSTER_SPEC", ""))
    return Replica(kind, index, chief, beside and kind != "evaluator")


def settle(environ: MutableMapping[str, str], role: str) -> None:
    """Leaves in TF_CONFIG what this machine's TensorFlow is to know of the cluster.

    An evaluation is alone and must not wait for anybody. A training is told of those that train: Vertex AI's chief and
    workers are what MultiWorkerMirroredStrategy takes, but an evaluator in the list would never answer it.

    Raises:
        SystemExit: TF_CONFIG cannot be read.
    """
    config = _tf_config(environ)
    if role == "eval":
        environ.pop("TF_CONFIG", None)
    elif role == "train" and "evaluator" in _part(config, "cluster"):
        cluster = {name: machines for name, machines in config["cluster"].items() if name != "evaluator"}
        environ["TF_CONFIG"] = json.dumps({**config, "cluster": cluster})


def _tf_config(environ: Mapping[str, str]) -> dict[str, Any]:
    text = environ.get("TF_CONFIG", "").strip()
    found: object = {}
    with suppress(ValueError, RecursionError):
        found = json.loads(text) if text else {}
        if isinstance(found, dict):
            return found
    sys.exit(f"gcpod_launcher: reading TF_CONFIG: it is {text[:80]!r}; it has to be a JSON object")


def _has_evaluators(cluster_spec: str) -> bool:
    """Only Vertex AI's TensorFlow-free variable tells a chief of them; what cannot be read there tells nothing."""
    with suppress(ValueError, RecursionError):
        found = json.loads(cluster_spec)
        return isinstance(found, dict) and bool(_part(found, "cluster").get("workerpool3"))
    return False


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}
