"""Quota of custom jobs: what a job takes of each metric, what is taken, and Google's refusal where it is short.

https://cloud.google.com/vertex-ai/docs/quotas
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.pools import Pool, pools_of

_CHEAP = {"SPOT", "FLEX_START", "LOW_COST"}
"""The strategies whose machines count as preemptible."""
_CPUS = re.compile(r"([a-z][a-z0-9]*)-[a-z]+-([0-9]+)")
_SHARED_FAMILIES = ("n1", "e2")
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"


@dataclass(frozen=True)
class Shortage:
    """One metric of which too little is free."""

    metric: str
    location: str
    asked: int
    taken: int
    limit: int


def strategy_of(job_spec: Mapping[str, Any]) -> str:
    """STANDARD, SPOT or FLEX_START; the old names ON_DEMAND and LOW_COST mean the first two."""
    told = str(job_spec.get("scheduling", {}).get("strategy", "STANDARD"))
    return {"ON_DEMAND": "STANDARD", "STRATEGY_UNSPECIFIED": "STANDARD", "LOW_COST": "SPOT"}.get(told, told)


def demand_of(job_spec: Mapping[str, Any]) -> dict[str, int]:
    """How much a job takes of each metric, all its replicas together.

    CPUs of N1 and E2 machines count as ``…_cpus``, those of another family as ``…_FAMILY_cpus``, GPUs by their name
    as ``…_nvidia_t4_gpus``, TPU cores as ``…_tpu_v2``; where machines may be taken away all begin with
    ``custom_model_training_preemptible_``.
    """
    head = "custom_model_training_" + ("preemptible_" if strategy_of(job_spec) in _CHEAP else "")
    found: Counter[str] = Counter()
    for pool in pools_of(job_spec):
        for name, count in _of_one(pool).items():
            found[head + name] += count * pool.replicas
    return dict(found)


def _of_one(pool: Pool) -> dict[str, int]:
    kind, accelerator = str(pool.machine.get("machineType", "")), pool.accelerator
    found: dict[str, int] = {}
    if pool.is_tpu:
        found[accelerator.lower() if accelerator else f"tpu_{kind.partition('-')[0]}"] = pool.chips
    elif accelerator:
        name = accelerator.removeprefix("NVIDIA_").removeprefix("TESLA_").lower()
        found[f"nvidia_{name}_gpus"] = pool.chips
    match = _CPUS.fullmatch(kind)
    if match and not pool.is_tpu:
        found["cpus" if match[1] in _SHARED_FAMILIES else f"{match[1]}_cpus"] = int(match[2])
    return found


class Ledger:
    """Who holds how much, per project, region and metric; whoever uses it keeps others out meanwhile.

    Args:
        limits: of each region, by metric; one that is not named has no limit.
    """

    def __init__(self, limits: Mapping[str, Mapping[str, int]]) -> None:
        self.limits = limits
        self._held: dict[str, tuple[str, str, Mapping[str, int]]] = {}

    def short_of(self, project: str, location: str, demand: Mapping[str, int]) -> list[Shortage]:
        """What stands in the way of a demand."""
        taken: Counter[str] = Counter()
        for owner, region, held in self._held.values():
            if (owner, region) == (project, location):
                taken.update(held)
        limits = self.limits.get(location, {})
        return [
            Shortage(metric, location, asked, taken[metric], limits[metric]) for metric, asked in demand.items()
            if metric in limits and asked + taken[metric] > limits[metric]
        ]

    def take(self, job_id: str, project: str, location: str, demand: Mapping[str, int], force: bool = False) -> bool:
        """Whether the job has what it demands now; with ``force`` it has, as a job that ran already."""
        if job_id not in self._held:
            if self.short_of(project, location, demand) and not force:
                return False
            self._held[job_id] = project, location, demand
        return True

    def give_back(self, job_id: str) -> None:
        self._held.pop(job_id, None)


def refusal(project: str, shortages: Sequence[Shortage]) -> ApiError:
    """The 429 that names each metric and region."""
    names = ", ".join(f"aiplatform.googleapis.com/{one.metric} (region {one.location})" for one in shortages)
    violations = [
        {"subject": f"projects/{project}", "description": f"{one.metric} in the region {one.location}: {one.asked} "
         f"asked for, {one.taken} of {one.limit} in use."} for one in shortages
    ]
    return ApiError(429, f"The following quota metrics exceed quota limits: {names}",
                    details=[{"@type": _QUOTA_FAILURE, "violations": violations}])
