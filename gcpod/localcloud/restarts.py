"""What becomes of a job whose machine is gone: pure rules over its record and its scheduling.

https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec#scheduling
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gcpod.localcloud.jobdb import JobRecord
from gcpod.localcloud.quota import strategy_of

MAX_STARTS = 3
"""How often a job is started in all where machines failed under it, as Vertex AI retries internal errors."""
MAX_PREEMPTIONS = 6
"""After so many restarts a spot job fails with STOCKOUT
(https://cloud.google.com/vertex-ai/docs/training/use-spot-vms)."""
DEFAULT_TIMEOUT_S = 7 * 24 * 3600.0
DEFAULT_WAIT_S = 24 * 3600.0
FAILED, DEADLINE, EXHAUSTED, INTERNAL = 3, 4, 8, 13
"""google.rpc.Code of INVALID_ARGUMENT, which a program's own failure has, DEADLINE_EXCEEDED and so on."""


@dataclass(frozen=True)
class End:
    """How a job ends: a state without JOB_STATE_, and its error's code and message."""

    state: str
    code: int = 0
    message: str = ""

    @property
    def line(self) -> str:
        """The last line of its log."""
        if self.state == "SUCCEEDED":
            return "Job completed successfully."
        return "Job cancelled." if self.state == "CANCELLED" else f"Job failed. {self.message}".rstrip()


def seconds(text: Any, default: float) -> float:
    """A duration such as ``3600s`` in seconds."""
    return float(str(text).removesuffix("s")) if text else default


def timeout_of(job_spec: Mapping[str, Any]) -> float:
    """How long a job may run, in seconds: its scheduling.timeout."""
    return seconds(job_spec.get("scheduling", {}).get("timeout"), DEFAULT_TIMEOUT_S)


def longest_wait_of(job_spec: Mapping[str, Any]) -> float | None:
    """How long a job waits for quota, in seconds; None for as long as it takes, which 0 means in a request."""
    if strategy_of(job_spec) != "FLEX_START":
        return None
    return seconds(job_spec.get("scheduling", {}).get("maxWaitDuration"), DEFAULT_WAIT_S) or None


def restarts_whole(job_spec: Mapping[str, Any]) -> bool:
    """Whether all replicas are started again when one was lost; disableRetries overrides the request's wish."""
    scheduling = job_spec.get("scheduling", {})
    return bool(scheduling.get("restartJobOnWorkerRestart")) and not scheduling.get("disableRetries")


def after_loss(job: JobRecord) -> End | None:
    """What a machine that failed means for its job; None: it is started again."""
    if job.body["jobSpec"].get("scheduling", {}).get("disableRetries"):
        return End("FAILED", INTERNAL, "INTERNAL: a machine of the job failed, and its scheduling disables retries.")
    starts = job.starts - job.preemptions
    if starts >= MAX_STARTS:
        return End("FAILED", INTERNAL, f"INTERNAL: The job was interrupted {starts} times.")
    return None


def after_preemption(job: JobRecord) -> End | None:
    """What taking a spot machine away means for its job; None: it is started again."""
    if job.preemptions < MAX_PREEMPTIONS:
        return None
    return End("FAILED", EXHAUSTED, f"STOCKOUT: the job's spot machines were preempted {job.preemptions + 1} times; "
               f"it is started again {MAX_PREEMPTIONS} times at the most.")
