"""The faults of jobs: when a job reaches a state, its machine goes, it is killed, or it jumps to another state."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from gcpod.localcloud.faults_plan import JobFault
from gcpod.localcloud.jobdb import TERMINAL, JobRecord
from gcpod.localcloud.restarts import EXHAUSTED

STOCKOUT_MESSAGE = "STOCKOUT: the region has no machines of this kind to give at the moment. Try again later."
_JUMPS = ("state", "stockout")
_LOOK_S = 0.02


class Engine(Protocol):
    """What runs jobs, as far as faults need it (`scheduler.Scheduler`)."""

    observers: list[Callable[[JobRecord], None]]
    """Called outside locks after every change of a job's state."""

    def preempt(self, job_id: str) -> None:
        """Takes the job's machine away as a spot machine is taken."""

    def lose_machine(self, job_id: str) -> None:
        """Has the job's machine fail."""

    def jump(self, job_id: str, state: str, code: int = 0, message: str = "") -> None:
        """Forces a state onto a job."""

    def signal(self, job_id: str, number: int) -> bool:
        """Sends a signal to the process groups of a job; False where it has none (yet)."""
        ...


class JobFaults:
    """Does the faults of jobs.

    A jump without delay happens while the engine tells of the state, so that none is too short to be met; everything
    else in a thread of its own, so that the engine does not wait.

    Args:
        rules: what shall go wrong.
        find: a job by its id, as it is now.
        note: told of each fault: its rule, the job's display name, the how manieth of that rule and job.
    """

    def __init__(
        self, rules: Sequence[JobFault], find: Callable[[str], JobRecord | None],
        note: Callable[[JobFault, str, int], None],
    ) -> None:
        self._rules, self._find, self._note = tuple(rules), find, note
        self._lock, self._end = threading.Lock(), threading.Event()
        self._last: dict[str, tuple[str, int]] = {}
        self._done = Counter[tuple[int, str]]()
        self._timers: set[threading.Timer] = set()
        self._engine: Engine | None = None
        self._jumping = threading.local()

    def watch(self, engine: Engine) -> None:
        """Lets the jobs of an engine have their faults."""
        self._engine = engine
        if self._rules:
            engine.observers.append(self.reached)

    def reached(self, job: JobRecord) -> None:
        """Takes note that a job is in a state; the same news twice is one."""
        now = (job.state, job.starts)
        with self._lock:
            if self._end.is_set() or self._last.get(job.id) == now:
                return
            if job.state in TERMINAL:
                self._last.pop(job.id, None)
                return
            self._last[job.id] = now
        for number, rule in enumerate(self._rules):
            if rule.when == job.state and rule.fits(str(job.body.get("displayName", "")), job.id):
                self._plan(number, rule, job)

    def _plan(self, number: int, rule: JobFault, job: JobRecord) -> None:
        # A jump within a jump waits for its turn: two rules may send a job to and fro.
        if rule.after_s or rule.do not in _JUMPS or getattr(self._jumping, "now", False):
            self._plan_later(number, rule, job)
            return
        self._jumping.now = True
        try:
            self._fire(number, rule, job)
        finally:
            self._jumping.now = False

    def close(self) -> None:
        """Ends every timer, and lets those end that act."""
        with self._lock:
            self._end.set()
            timers = list(self._timers)
        for timer in timers:
            timer.cancel()
        for timer in timers:
            if timer is not threading.current_thread():
                timer.join()

    def _plan_later(self, number: int, rule: JobFault, job: JobRecord) -> None:
        def fire() -> None:
            try:
                self._fire(number, rule, job)
            finally:
                with self._lock:
                    self._timers.discard(timer)

        timer = threading.Timer(rule.after_s, fire)
        timer.daemon, timer.name = True, f"fault-{job.id}"
        with self._lock:
            if self._end.is_set():
                return
            self._timers.add(timer)
            timer.start()

    def _fire(self, number: int, rule: JobFault, job: JobRecord) -> None:
        if not self._still(job):
            return
        with self._lock:
            if self._end.is_set() or (rule.times != "always" and self._done[number, job.id] >= rule.times):
                return
            self._done[number, job.id] += 1
            count = self._done[number, job.id]
        self._note(rule, str(job.body.get("displayName", "")), count)
        self._act(rule, job)

    def _still(self, job: JobRecord) -> bool:
        """Whether a job has not left the state since it was told; its starts also count replicas started again."""
        now = self._find(job.id)
        with self._lock:
            told = self._last.get(job.id)
        return now is not None and now.state == job.state and told == (job.state, job.starts)

    def _act(self, rule: JobFault, job: JobRecord) -> None:
        engine, job_id = self._engine, job.id
        assert engine is not None
        if rule.do == "preempt":
            engine.preempt(job_id)
        elif rule.do == "lose_machine":
            engine.lose_machine(job_id)
        elif rule.do == "stockout":
            engine.jump(job_id, "FAILED", EXHAUSTED, STOCKOUT_MESSAGE)
        elif rule.do == "state":
            engine.jump(job_id, rule.state or "", rule.code or 0, rule.message or "")
        else:
            # A job is RUNNING a moment before its processes are there.
            while self._still(job) and not engine.signal(job_id, rule.signal_number):
                if self._end.wait(_LOOK_S):
                    return
