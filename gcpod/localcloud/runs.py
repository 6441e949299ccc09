"""The jobs that have not ended, each with a thread: what one waits for, what it is told meanwhile, what all share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from gcpod.localcloud.config import CloudConfig
from gcpod.localcloud.quota import Ledger, refusal
from gcpod.localcloud.replicas import Replicas
from gcpod.localcloud.restarts import End

MAX_RUNNING = 4
"""Jobs at once; what this machine can bear, not a rule of Vertex AI's."""


class InterruptedRunError(Exception):
    """A job was told how it ends while it waited."""


@dataclass(frozen=True)
class Order:
    """What a job's thread is told.

    Attributes:
        cause: "end" to end it; "preempt" and "lose" take the machines of a job away that runs.
        end: how it ends; None: it is left as it is, to be taken up by the next server.
        at_once: its processes are killed, not told to end.
    """

    cause: Literal["end", "preempt", "lose"]
    end: End | None = None
    at_once: bool = False

    def obey(self, replicas: Replicas) -> None:
        """Ends the processes that an order is about."""
        if self.at_once:
            replicas.kill()
        else:
            replicas.end()


@dataclass(eq=False)
class Run:
    """One job's thread. ``deadline`` is on the monotonic clock; ``running``: it has a machine that may be lost."""

    id: str
    thread: threading.Thread | None = None
    order: Order | None = None
    replicas: Replicas | None = None
    running: bool = False
    deadline: float | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def interrupted(self) -> bool:
        return self.order is not None and self.order.cause == "end"


class Runs:
    """All runs, the quota they hold and the machines they share; every method may be called from any thread."""

    def __init__(self, config: CloudConfig) -> None:
        self._changed = threading.Condition()
        self._runs: dict[str, Run] = {}
        self._ledger = Ledger({one.name: {limit.metric: limit.limit for limit in one.quota} for one in config.regions})
        self._free, self._closed = MAX_RUNNING, False

    def __contains__(self, job_id: str) -> bool:
        with self._changed:
            return job_id in self._runs

    def start(self, run: Run, work: Callable[[Run], None]) -> None:
        """Has a thread do a run's work, unless the server stops."""
        run.thread = threading.Thread(target=work, args=(run,), name=f"job-{run.id}")
        with self._changed:
            if not self._closed:
                self._runs[run.id] = run
                run.thread.start()

    def forget(self, run: Run) -> None:
        """Gives back what a run holds."""
        with self._changed:
            self._runs.pop(run.id, None)
            self._ledger.give_back(run.id)
            self._changed.notify_all()

    def close(self) -> None:
        """Has every run leave its job as it is, and waits for it."""
        with self._changed:
            self._closed = True
            runs = list(self._runs.values())
        for run in runs:
            self.give(run.id, Order("end"))
        for run in runs:
            if run.thread is not None:
                run.thread.join()

    def get(self, job_id: str) -> Run | None:
        with self._changed:
            return self._runs.get(job_id)

    def give(self, job_id: str, order: Order) -> bool:
        """Tells a run; whether there is one that heeds it. The first order to end stands."""
        with self._changed:
            run = self._runs.get(job_id)
            if run is None or (order.cause != "end" and not run.running):
                return False
            if not run.interrupted:
                run.order = order if order.cause == "end" else run.order or order
            self._changed.notify_all()
            replicas = run.replicas
        if replicas is not None:
            order.obey(replicas)
        return True

    def has_machine(self, run: Run) -> None:
        """From now on machines of the run may be lost."""
        with self._changed:
            run.running = True

    @contextmanager
    def watching(self, run: Run, replicas: Replicas) -> Iterator[None]:
        """Has a run's orders reach its processes."""
        with self._changed:
            run.replicas, order = replicas, run.order
        if order is not None:
            order.obey(replicas)
        try:
            yield
        finally:
            with self._changed:
                run.replicas, run.running = None, False

    def order_of(self, run: Run) -> Order | None:
        """The loss of machines that ended a run's processes, which is forgotten with that.

        Raises:
            InterruptedRunError: it was told how it ends.
        """
        with self._changed:
            if run.interrupted:
                raise InterruptedRunError
            order, run.order = run.order, None
            return order

    def pause(self, run: Run, limit_s: float | None, until: Callable[[], bool] = lambda: False) -> bool:
        """Waits until something holds, or so many seconds; whether it held. Others are kept out while it is asked.

        Raises:
            InterruptedRunError: the run was told how it ends meanwhile.
        """
        with self._changed:
            held = self._changed.wait_for(
                lambda: run.interrupted or until(), None if limit_s is None else min(limit_s, threading.TIMEOUT_MAX),
            )
            if run.interrupted:
                raise InterruptedRunError
            return held

    @contextmanager
    def slot(self, run: Run) -> Iterator[None]:
        """A share of this machine, once there is one."""
        def taken() -> bool:
            self._free -= 1
            return True

        self.pause(run, None, lambda: self._free > 0 and taken())
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def take(self, job_id: str, project: str, location: str, demand: Mapping[str, int], force: bool = False) -> bool:
        """Whether a job has the quota that it demands now; with ``force`` it has, as a job that ran already."""
        with self._changed:
            return self._ledger.take(job_id, project, location, demand, force)

    def take_or_refuse(self, job_id: str, project: str, location: str, demand: Mapping[str, int]) -> None:
        """The quota that a job demands.

        Raises:
            ApiError: 429, there is too little.
        """
        with self._changed:
            short = self._ledger.short_of(project, location, demand)
            if short:
                raise refusal(project, short)
            self._ledger.take(job_id, project, location, demand)
