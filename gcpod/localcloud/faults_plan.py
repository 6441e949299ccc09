"""What shall go wrong in the local cloud: faults of calls, faults of jobs, a clock that is off.

A plan is made in Python or read from YAML (docs/local_cloud.md); `faults` acts on it.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Literal

from gcpod.localcloud.discovery import load
from gcpod.localcloud.jobdb import TERMINAL
from gcpod.localcloud.strict_yaml import UnfitError, load_record, parse_record, suggest

Times = int | Literal["always"]
CallAction = Literal["error", "lost_reply", "reset", "truncate", "delay", "stall"]
JobAction = Literal["preempt", "lose_machine", "stockout", "state", "exit"]
Signal = Literal["HUP", "INT", "QUIT", "ILL", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
                 "TERM"]
When = Literal["QUEUED", "PENDING", "RUNNING", "CANCELLING", "PAUSED", "UPDATING"]

DOCUMENTS = ("storage.v1", "aiplatform.v1", "cloudbuild.v1", "artifactregistry.v1", "logging.v2", "cloudbilling.v1")
"""The discovery documents of what the local cloud serves."""
CREATE = "aiplatform.projects.locations.customJobs.create"
ERROR_STATUS, ERROR_MESSAGE = 503, "The fault plan of the local cloud refused this call."
_MAX_COUNT = 10**9
_MAX_WAIT_S = 7 * 86400.0
_MAX_SKEW_S = 10 * 365 * 86400.0
_MAX_CODE = 16
_VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "*")
_REQUEST = re.compile(r"([A-Z]+|\*) ([/*].*)")
_STATE = re.compile(r"[A-Z][A-Z_]{0,63}")
_OF_A_JOB = re.compile(r"aiplatform\.projects\.locations\.customJobs\.(create|get|cancel|delete)")
_ON_A_MACHINE = ("preempt", "lose_machine", "exit")


@dataclass(frozen=True)
class CallFault:
    """A fault of requests.

    Attributes:
        call: a glob of method ids as discovery documents have them (``storage.objects.*``), or a verb and a glob of
            decoded paths (``GET /storage/v1/b/*``; either may be ``*``), or ``*`` for any request.
        do: ``error`` answers in place of the work; ``lost_reply`` does the work and breaks the connection; ``reset``
            breaks it before; ``truncate`` gives the first half of the reply's body; ``delay`` waits, then works;
            ``stall`` says nothing for a while, then breaks the connection.
        job: a glob of a job's display name or id; only requests about such a job count.
        after: so many requests that fit go well first.
        times: how many fail then.
        status, message, retry_after_s: of ``error``: HTTP status (400 to 599), text, header Retry-After in seconds.
        seconds: of ``delay`` and ``stall``.

    Raises:
        UnfitError: fields contradict one another, or no method has such an id.
    """

    call: str
    do: CallAction
    job: str = ""
    after: int = 0
    times: Times = 1
    status: int | None = None
    message: str | None = None
    retry_after_s: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        _check_counts(self, after=self.after, times=self.times)
        for name in ("status", "message", "retry_after_s"):
            _only(self, name, self.do == "error", "error")
        _only(self, "seconds", self.do in ("delay", "stall"), "delay or stall")
        _within(self, "status", self.status, 400, 599)
        _within(self, "retry_after_s", self.retry_after_s, 0, int(_MAX_WAIT_S))
        if self.do in ("delay", "stall") and self.seconds is None:
            raise UnfitError("a call fault", "do", f"{self.do} needs seconds", "add `seconds: …`")
        _within(self, "seconds", self.seconds, 0, _MAX_WAIT_S)
        self._check_call()

    def _check_call(self) -> None:
        words = _REQUEST.fullmatch(self.call)
        if words is not None:
            if words[1] not in _VERBS:
                raise UnfitError("a call fault", "call", f"call has the verb {words[1]!r}", suggest(words[1], _VERBS))
            return
        named = [one for one in method_ids() if fnmatchcase(one, self.call)]
        if not named:
            raise UnfitError("a call fault", "call", f"call is {self.call!r}, which is no method's id",
                             _nearest_call(self.call))
        if self.job and not any(map(_OF_A_JOB.fullmatch, named)):
            raise UnfitError("a call fault", "job", f"job is given, but {self.call} is not about one job",
                             "take the job away, or name create, get, cancel or delete of customJobs")

    def fits(self, verb: str, path: str, method: str, jobs: tuple[str, ...]) -> bool:
        """Whether the rule is about a request: verb, decoded path, method id or "", names of the job it is about."""
        if self.job and not any(fnmatchcase(one, self.job) for one in jobs):
            return False
        words = _REQUEST.fullmatch(self.call)
        if words is None:
            return self.call == "*" or fnmatchcase(method, self.call)
        return words[1] in ("*", verb) and fnmatchcase(path, words[2])

    def __str__(self) -> str:
        about = f"{self.call}{f' of job {self.job}' if self.job else ''}"
        details = [f"{self.seconds:g} s" if self.seconds is not None else ""]
        if self.do == "error":
            after = "" if self.retry_after_s is None else f"retry after {self.retry_after_s} s"
            details = [str(self.status or ERROR_STATUS), after]
        first = f"after {self.after}, " if self.after else ""
        return f"{about}: {first}{_how_often(self.times)}: {' '.join([self.do, *filter(None, details)])}"


@dataclass(frozen=True)
class JobFault:
    """A fault of jobs.

    Attributes:
        job: a glob of display names or ids.
        do: ``preempt`` and ``lose_machine`` take the machine away; ``stockout`` fails the job as Vertex AI does when
            it has no more machines; ``state`` has it jump to a state; ``exit`` sends its processes a signal.
        when: the state it has to reach.
        after_s: real seconds after that; nothing happens when the job has left the state by then.
        times: how often for each job; ``always`` is each time it reaches the state.
        state, code, message: of ``state``: its name without JOB_STATE_ (any name, to see what clients make of it),
            and the error's google.rpc.Code and text.
        signal: of ``exit``: a name without SIG; KILL by default.

    Raises:
        UnfitError: fields contradict one another.
    """

    job: str
    do: JobAction
    when: When = "RUNNING"
    after_s: float = 0.0
    times: Times = 1
    state: str | None = None
    code: int | None = None
    message: str | None = None
    signal: Signal | None = None

    def __post_init__(self) -> None:
        _check_counts(self, times=self.times)
        _within(self, "after_s", self.after_s, 0, _MAX_WAIT_S)
        for name in ("state", "code", "message"):
            _only(self, name, self.do == "state", "state")
        _only(self, "signal", self.do == "exit", "exit")
        # https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
        _within(self, "code", self.code, 0, _MAX_CODE)
        if not self.job:
            raise UnfitError("a job fault", "job", "job is empty", 'write "*" for every job')
        if self.do in _ON_A_MACHINE and self.when != "RUNNING":
            raise UnfitError("a job fault", "when", f"{self.do} when {self.when}", "a job has machines when RUNNING")
        if self.do == "state":
            self._check_state()

    def _check_state(self) -> None:
        if self.state is None:
            raise UnfitError("a job fault", "do", "state needs the state to go to", "add `state: …`")
        if not _STATE.fullmatch(self.state) or self.state.startswith("JOB_STATE_"):
            raise UnfitError("a job fault", "state", f"state is {self.state!r}",
                             "write it in capitals, without JOB_STATE_, for example EXPIRED")
        if self.times == "always" and self.state not in TERMINAL:
            raise UnfitError("a job fault", "times", f"always, and the job can come back from {self.state}",
                             "give a number, so that it ends")
        if self.state == self.when:
            raise UnfitError("a job fault", "state", f"the job is {self.state} already", "name another state")

    def fits(self, display_name: str, job_id: str) -> bool:
        """Whether the rule is about a job."""
        return fnmatchcase(display_name, self.job) or fnmatchcase(job_id, self.job)

    @property
    def signal_number(self) -> int:
        """What ``exit`` sends."""
        return int(signal.Signals[f"SIG{self.signal or 'KILL'}"])

    def __str__(self) -> str:
        detail = f" {self.state}" if self.do == "state" else f" {self.signal or 'KILL'}" if self.do == "exit" else ""
        later = f" for {self.after_s:g} s" if self.after_s else ""
        return f"job {self.job}: when {self.when}{later}, {_how_often(self.times)}: {self.do}{detail}"


@dataclass(frozen=True)
class ClockFault:
    """``skew_s``: seconds by which the service's clock is ahead of the real one; negative when behind."""

    skew_s: float = 0.0

    def __post_init__(self) -> None:
        _within(self, "skew_s", self.skew_s, -_MAX_SKEW_S, _MAX_SKEW_S)


@dataclass(frozen=True)
class FaultPlan:
    """All that shall go wrong; of several rules that are due for one request the first acts."""

    calls: tuple[CallFault, ...] = ()
    jobs: tuple[JobFault, ...] = ()
    clock: ClockFault = field(default_factory=ClockFault)

    def lines(self) -> list[str]:
        """Every rule in a line."""
        skew = [f"clock: {self.clock.skew_s:+g} s"] if self.clock.skew_s else []
        return [*map(str, self.calls), *map(str, self.jobs), *skew]


def load_plan(path: Path) -> FaultPlan:
    """Reads a plan.

    Raises:
        SpecError: it is missing, is no YAML, or a rule does not fit; with its line.
    """
    return load_record(path, FaultPlan)


def parse_plan(text: str, path: Path) -> FaultPlan:
    """The plan in a text; ``path`` is for messages.

    Raises:
        SpecError: as for load_plan.
    """
    return parse_record(text, path, FaultPlan)


@cache
def method_ids() -> tuple[str, ...]:
    """The ids of all methods that the services have, in order."""
    return tuple(sorted(one for name in DOCUMENTS for one in load(name).methods))


def _nearest_call(call: str) -> str:
    # All of them are thousands: only what is near is worth telling.
    fix = suggest(call, method_ids())
    return fix if fix.startswith("did you mean") else "write a method's id, `VERB /path`, or \"*\""


def _how_often(times: Times) -> str:
    return times if times == "always" else "once" if times == 1 else f"{times} times"


def _kind(rule: object) -> str:
    return {"CallFault": "a call fault", "JobFault": "a job fault"}.get(type(rule).__name__, "the clock's fault")


def _check_counts(rule: object, times: Times, after: int = 0) -> None:
    _within(rule, "after", after, 0, _MAX_COUNT)
    if times != "always":
        _within(rule, "times", times, 1, _MAX_COUNT)


def _only(rule: object, name: str, may: bool, action: str) -> None:
    if getattr(rule, name) is not None and not may:
        raise UnfitError(_kind(rule), name, f"{name} says nothing here", f"it goes with `do: {action}`")


def _within(rule: object, name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise UnfitError(_kind(rule), name, f"{name} is {value:g}", f"give {low:g} to {high:g}")
