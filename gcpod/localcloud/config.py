"""What the local cloud pretends to be: regions, the machines each offers, quota, and how long jobs wait.

As YAML::

    regions:
      - name: us-central1
        accelerators: [NVIDIA_TESLA_T4, TPU_V2]
        machines: [ct5lp-hightpu-4t]
        max_replicas: 8
        quota:
          - {metric: custom_model_training_nvidia_t4_gpus, limit: 2}
        short: queue
        queued_s: 0
        pending_s: 0
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gcpod.localcloud.strict_yaml import UnfitError, load_record

LOCATION = "local"
MAX_S = 86_400.0
MAX_REPLICAS = 1000
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_METRIC = re.compile(r"custom_model_training_[a-z0-9_]{1,80}")
_ACCELERATOR = re.compile(r"(NVIDIA|TPU)_[A-Z0-9_]{1,40}")
_TPU_MACHINE = re.compile(r"ct\w{1,20}(-\w{1,20}){1,3}", re.ASCII)


@dataclass(frozen=True)
class Limit:
    """How much of a metric, such as ``custom_model_training_cpus``, the jobs of one project may use at once."""

    metric: str
    limit: int

    def __post_init__(self) -> None:
        _matches("Limit", "metric", (self.metric,), _METRIC)
        _within("Limit", "limit", self.limit, 0, 10**9)


@dataclass(frozen=True)
class Region:
    """One region.

    Attributes:
        name: as in ``projects/P/locations/NAME``; Google's own SDK and gcloud accept no other than a real region's.
        accelerators: values of ``acceleratorType`` it pretends to have; their jobs run on this machine's CPU.
        machines: machine types with TPUs that are asked for by ``tpuTopology``, likewise.
        max_replicas: how many machines one job may have.
        quota: limits by metric; a metric that is not named has none.
        short: what becomes of a job that finds too little quota: it stays QUEUED, or is refused with 429.
        queued_s: seconds that a job is QUEUED at least.
        pending_s: seconds that a job is PENDING at least.
    """

    name: str = LOCATION
    accelerators: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    max_replicas: int = 100
    quota: tuple[Limit, ...] = ()
    short: Literal["queue", "refuse"] = "queue"
    queued_s: float = 0.0
    pending_s: float = 0.0

    def __post_init__(self) -> None:
        _matches("Region", "name", (self.name,), _NAME)
        _matches("Region", "accelerators", self.accelerators, _ACCELERATOR)
        _matches("Region", "machines", self.machines, _TPU_MACHINE)
        _within("Region", "max_replicas", self.max_replicas, 1, MAX_REPLICAS)
        _within("Region", "queued_s", self.queued_s, 0, MAX_S)
        _within("Region", "pending_s", self.pending_s, 0, MAX_S)
        _differ("Region", "quota", [one.metric for one in self.quota])


@dataclass(frozen=True)
class CloudConfig:
    """The regions of a local cloud; the first one is its home, whose image repositories and prices it serves."""

    regions: tuple[Region, ...] = field(default_factory=lambda: (Region(),))

    def __post_init__(self) -> None:
        if not self.regions:
            raise UnfitError("CloudConfig", "regions", "regions is empty", "name at least one")
        _differ("CloudConfig", "regions", [one.name for one in self.regions])

    @property
    def home(self) -> Region:
        return self.regions[0]

    def region(self, name: str) -> Region | None:
        """The region of that name; "" stands for the home."""
        return next((one for one in self.regions if one.name == name), None if name else self.home)


def load_config(path: Path) -> CloudConfig:
    """Reads a configuration.

    Raises:
        SpecError: it cannot be read, is no YAML, or holds something unknown or wrong; with its line.
    """
    return load_record(path, CloudConfig)


def _matches(kind: str, field: str, texts: Sequence[str], pattern: re.Pattern[str]) -> None:
    for text in texts:
        if not pattern.fullmatch(text):
            raise UnfitError(kind, field, f"{field} has {text[:60]!r}", f"it must match {pattern.pattern}")
    _differ(kind, field, texts)


def _within(kind: str, field: str, number: float, low: float, high: float) -> None:
    if not low <= number <= high:
        raise UnfitError(kind, field, f"{field} is {number}", f"give {low:g} to {high:g}")


def _differ(kind: str, field: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise UnfitError(kind, field, f"{field} names something twice", "keep each once")
