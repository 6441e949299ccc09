"""What a service or a check said: frozen records that every layer may hand around."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing a check found.

    Attributes:
        code: stable code (D101…, C201…, J401…; docs/findings.md).
        severity: "error" stops a run, "warning" does not.
        where: file (with ``:line`` and ``:column`` where known), URI or spec key.
        found: what is there.
        fix: what to do about it.
    """

    code: str
    severity: Severity
    where: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.code} {self.where}: {self.found}; {self.fix}"


class JobState(str, enum.Enum):
    """Vertex AI's JobState (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/JobState)."""

    UNSPECIFIED = "JOB_STATE_UNSPECIFIED"
    QUEUED = "JOB_STATE_QUEUED"
    PENDING = "JOB_STATE_PENDING"
    RUNNING = "JOB_STATE_RUNNING"
    SUCCEEDED = "JOB_STATE_SUCCEEDED"
    FAILED = "JOB_STATE_FAILED"
    CANCELLING = "JOB_STATE_CANCELLING"
    CANCELLED = "JOB_STATE_CANCELLED"
    PAUSED = "JOB_STATE_PAUSED"
    EXPIRED = "JOB_STATE_EXPIRED"
    UPDATING = "JOB_STATE_UPDATING"
    PARTIALLY_SUCCEEDED = "JOB_STATE_PARTIALLY_SUCCEEDED"

    @classmethod
    def from_wire(cls, text: str | None) -> JobState:
        """A state this version does not know is UNSPECIFIED: not terminal, so a watcher keeps watching."""
        try:
            return cls(text)
        except ValueError:
            return cls.UNSPECIFIED

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL

    @property
    def cancellable(self) -> bool:
        """Whether it makes sense to ask for an end."""
        return not self.terminal and self is not JobState.CANCELLING

    @property
    def short(self) -> str:
        return self.value.removeprefix("JOB_STATE_")


_TERMINAL = frozenset({
    JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.PARTIALLY_SUCCEEDED,
})


@dataclass(frozen=True)
class JobInfo:
    """One answer of the job service about one custom job; times are RFC 3339 in UTC, "" when unset.

    Attributes:
        error_code: a number of google.rpc.Code, 0 without an error.
        machine: of the first worker pool, as MachineSpec prints it.
        replicas: machines of all pools.
        timeout_s: its time limit; 0 when the request left that to the service.
        strategy: STANDARD, SPOT, FLEX_START…; "" when the request left it to the service.
    """

    name: str
    display_name: str
    state: JobState
    create_time: str = ""
    start_time: str = ""
    end_time: str = ""
    error: str = ""
    error_code: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    update_time: str = ""
    machine: str = ""
    replicas: int = 0
    strategy: str = ""
    timeout_s: float = 0.0

    @property
    def id(self) -> str:
        """The last part of the resource name, as Cloud Logging's ``job_id`` wants it."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def run_s(self) -> float:
        """Seconds that it ran until it ended; 0 while it has not, or when it never started."""
        return seconds_between(self.start_time, self.end_time) if self.start_time and self.end_time else 0.0


def seconds_between(start: str, end: str) -> float:
    """Between two RFC 3339 times in UTC, to the second; 0 when the end comes first."""
    moments = [datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S") for text in (start, end)]
    return max(0.0, (moments[1] - moments[0]).total_seconds())


@dataclass(frozen=True)
class Progress:
    """What a trainer's log lines and files told so far; None where nothing was said yet.

    ``checkpoint`` is the newest whole one, such as ckpt-5.
    """

    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    steps_per_s: float | None = None
    checkpoint: str | None = None

    @property
    def bad_loss(self) -> bool:
        """Whether the loss is no number any more: nothing good can come of further steps."""
        return self.loss is not None and not math.isfinite(self.loss)

    @property
    def left_s(self) -> float | None:
        """Estimated seconds until the last step."""
        if self.step is None or not self.total_steps or not self.steps_per_s:
            return None
        return max(0.0, (self.total_steps - self.step) / self.steps_per_s)


@dataclass(frozen=True)
class Metrics:
    """COCO detection metrics of one evaluated checkpoint; the values are fractions of 1.

    Names follow the Object Detection API's ``DetectionBoxes_*`` summaries
    (https://cocodataset.org/#detection-eval).
    """

    step: int
    ap: float
    ap50: float
    ap75: float
    values: dict[str, float] = field(default_factory=dict)
