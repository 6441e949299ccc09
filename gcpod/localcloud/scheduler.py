"""Takes custom jobs through their states: QUEUED until there is quota, PENDING until they start, RUNNING, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gcpod.errors import GcpodError
from gcpod.localcloud.config import LOCATION, CloudConfig, Region
from gcpod.localcloud.images import EnvironmentOf, Images, project_number
from gcpod.localcloud.jobdb import TERMINAL, JobDatabase, JobRecord
from gcpod.localcloud.pools import PRIMARY, replicas_of
from gcpod.localcloud.quota import demand_of, strategy_of
from gcpod.localcloud.replicas import Replicas
from gcpod.localcloud.restarts import (
    DEADLINE,
    FAILED,
    INTERNAL,
    MAX_PREEMPTIONS,
    MAX_STARTS,
    End,
    after_loss,
    after_preemption,
    longest_wait_of,
    restarts_whole,
    timeout_of,
)
from gcpod.localcloud.runs import MAX_RUNNING, InterruptedRunError, Order, Run, Runs
from gcpod.localcloud.runtime import ensure_environment
from gcpod.localcloud.supervise import GRACE_S

__all__ = ["LOCATION", "MAX_RUNNING", "MAX_STARTS", "TASK", "EnvironmentOf", "Scheduler", "project_number"]
TASK = PRIMARY
_CANCELLED = End("CANCELLED")


class Scheduler:
    """Takes jobs through their states.

    Args:
        database: jobs and entries.
        root: the local cloud's folder; jobs work below ``root/jobs``.
        cache: the user's cache directory, for runtimes.
        url: base URL of the local cloud.
        variables: what a job needs so that its gs:// paths lead here.
        environment_of: makes a runtime's interpreter; given by tests that need no TensorFlow.
        config: the regions.

    Attributes:
        observers: called with the job after each change of its state, in the thread that changed it, without a lock.
    """

    def __init__(
        self, database: JobDatabase, root: Path, cache: Path, url: str, variables: Mapping[str, str],
        environment_of: EnvironmentOf = ensure_environment, config: CloudConfig | None = None,
    ) -> None:
        self.database, self.url, self.config = database, url, config or CloudConfig()
        self.observers: list[Callable[[JobRecord], None]] = []
        self._images = Images(root, cache, url, variables, environment_of)
        self._runs, self._ending = Runs(self.config), threading.Lock()

    def region_of(self, job: JobRecord) -> Region:
        """The region of a job; the home for one of a region that is not configured any more."""
        return self.config.region(job.location) or self.config.home

    def submit(self, job: JobRecord) -> None:
        """Takes in a new job, in the state QUEUED.

        Raises:
            ApiError: 429 where its region refuses jobs that find too little quota.
        """
        region, spec = self.region_of(job), job.body["jobSpec"]
        if _refused(spec, region):
            self._runs.take_or_refuse(job.id, project_number(job.project), region.name, demand_of(spec))
        self.database.add(job)
        self._tell(job)
        self._runs.start(Run(job.id), self._run)

    def resume(self) -> None:
        """Takes up the jobs that a server which is gone left unfinished."""
        for job in reversed(self.database.all()):
            if job.state == "CANCELLING":
                self._end(job.id, End("CANCELLED"))
            elif job.state not in TERMINAL and job.id not in self._runs:
                if job.state != "QUEUED" or _refused(job.body["jobSpec"], self.region_of(job)):
                    self._take(job, force=True)
                self._runs.start(Run(job.id), self._run)

    def cancel(self, job_id: str) -> None:
        """Ends a job that has not ended yet; it passes through CANCELLING."""
        cancelling = self._change(job_id, state="CANCELLING")
        if cancelling is not None and not self._runs.give(job_id, Order("end", _CANCELLED)):
            self._end(job_id, _CANCELLED)

    def preempt(self, job_id: str) -> None:
        """Takes the machines of a running job away: SIGTERM, then SIGKILL after the grace; else harmless."""
        self._runs.give(job_id, Order("preempt"))

    def lose_machine(self, job_id: str, task: str = TASK) -> None:
        """Has the machine of one replica of a running job fail without a warning; else harmless.

        The whole job is started again where it has one replica only or its scheduling wishes so, else that replica.
        """
        job = self.database.get(job_id)
        if job is None:
            return
        spec = job.body["jobSpec"]
        alone = len(replicas_of(spec)) > 1 and not restarts_whole(spec) and after_loss(job) is None
        run = self._runs.get(job_id)
        replicas = run.replicas if run else None
        if alone and replicas is not None and replicas.replace(task):
            self._note(job_id, f"The machine of {task} failed; that replica is started again.")
            self.database.update(job_id, starts=job.starts + 1)
        else:
            self._runs.give(job_id, Order("lose", at_once=True))

    def signal(self, job_id: str, number: int) -> bool:
        """Sends a signal to the process groups of a job; False where it has none (yet)."""
        run = self._runs.get(job_id)
        replicas = run.replicas if run else None
        if replicas is not None:
            replicas.signal(number)
        return replicas is not None

    def jump(self, job_id: str, state: str, code: int = 0, message: str = "") -> None:
        """Forces a state onto a job, known or not, with or without JOB_STATE_; for tests and fault plans.

        A state that ends it kills its processes before it shows; after any other the job goes on by itself.
        """
        state, job = state.removeprefix("JOB_STATE_"), self.database.get(job_id)
        if state not in TERMINAL or (job is not None and job.state in TERMINAL):
            ended = self.database.clock() if state in TERMINAL else ""
            self._change(job_id, unless=(), state=state, ended=ended, error_code=code, error=message)
            return
        run, end = self._runs.get(job_id), End(state, code, message)
        if run is None or not self._runs.give(job_id, Order("end", end, at_once=True)):
            self._end(job_id, end)
        elif run.thread is not threading.current_thread():
            run.done.wait(GRACE_S)

    def stop(self) -> None:
        """Ends every process and leaves the jobs as they are, to be taken up by the next server."""
        self._runs.close()

    @property
    def active(self) -> int:
        """Jobs that have not ended."""
        return sum(job.state not in TERMINAL for job in self.database.all())

    def _run(self, run: Run) -> None:
        end: End | None
        try:
            end = self._live(run)
        except InterruptedRunError:
            end = run.order.end if run.order is not None and run.interrupted else _CANCELLED
        except Exception as e:
            text = str(e) if isinstance(e, GcpodError) else f"Internal error: {type(e).__name__}: {e}"
            end = End("FAILED", INTERNAL, text)
        self._images.clear(run.id)
        self._runs.forget(run)
        if end is not None:
            self._end(run.id, end)
        run.done.set()

    def _live(self, run: Run) -> End | None:
        """Takes a job to its end; None where that is not this server's to say."""
        job = self.database.get(run.id)
        if job is None or job.state in TERMINAL:
            return None
        region = self.region_of(job)
        end = after_loss(job) if job.starts else None
        if end is None and job.state == "QUEUED":
            self._runs.pause(run, region.queued_s)
            end = self._queue(run, job)
        while end is None:
            self._move(run, state="PENDING")
            self._runs.pause(run, region.pending_s)
            with self._runs.slot(run):
                end = self._run_once(run, region)
        return end

    def _queue(self, run: Run, job: JobRecord) -> End | None:
        """Waits for quota; FLEX_START not for ever."""
        limit_s = longest_wait_of(job.body["jobSpec"])
        if self._runs.pause(run, limit_s, lambda: self._take(job)):
            return None
        return End("EXPIRED", DEADLINE, f"The job waited for its resources longer than its maxWaitDuration of "
                   f"{limit_s:g} s.")

    def _run_once(self, run: Run, region: Region) -> End | None:
        """One start of a job; None where it is to be started again."""
        job = self.database.get(run.id)
        if job is None:
            return None
        commands = self._images.prepare(job, region.name, lambda line: self._note(run.id, line))
        self._runs.has_machine(run)
        job = self._move(run, state="RUNNING", starts=job.starts + 1, started=job.started or self.database.clock())
        replicas = Replicas(commands, lambda task, severity, line: self.database.log(run.id, severity, task, [line]))
        with self._runs.watching(run, replicas), self._limited(run, timeout_of(job.body["jobSpec"])):
            task, code = replicas.wait()
        order = self._runs.order_of(run)
        if order is not None:
            return self._after(order, run.id)
        return _end_of(task, code, f"{self.url}/v2/entries:list?resource=ml_job%2Fjob_id%2F{run.id}")

    def _after(self, order: Order, job_id: str) -> End | None:
        """What the loss of its machines means for a job; only spot machines are taken away by rule."""
        job = self.database.get(job_id)
        if job is None:
            return None
        if order.cause == "preempt" and strategy_of(job.body["jobSpec"]) == "SPOT":
            end = after_preemption(job)
            if end is None:
                count = job.preemptions + 1
                self.database.update(job_id, preemptions=count)
                self._note(job_id, f"The job was preempted; it is started again ({count} of {MAX_PREEMPTIONS}).")
            return end
        end = after_loss(job)
        if end is None:
            self._note(job_id, "A machine of the job failed; it is started again.")
        return end

    @contextmanager
    def _limited(self, run: Run, limit_s: float) -> Iterator[None]:
        """Ends the job when it runs too long, all its starts together."""
        if run.deadline is None:
            run.deadline = time.monotonic() + limit_s
        end = End("FAILED", DEADLINE, f"The job ran longer than its timeout of {limit_s:g} s.")
        left_s = min(max(0.0, run.deadline - time.monotonic()), threading.TIMEOUT_MAX)
        timer = threading.Timer(left_s, self._runs.give, (run.id, Order("end", end)))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _take(self, job: JobRecord, force: bool = False) -> bool:
        project, region = project_number(job.project), self.region_of(job)
        return self._runs.take(job.id, project, region.name, demand_of(job.body["jobSpec"]), force)

    def _move(self, run: Run, **changes: Any) -> JobRecord:
        job = self._change(run.id, unless=(*TERMINAL, "CANCELLING"), **changes)
        if job is None or run.interrupted:
            raise InterruptedRunError
        return job

    def _change(self, job_id: str, unless: tuple[str, ...] = tuple(TERMINAL), **changes: Any) -> JobRecord | None:
        job = self.database.update(job_id, unless=unless, **changes)
        if job is not None:
            self._tell(job)
        return job

    def _tell(self, job: JobRecord) -> None:
        for observer in tuple(self.observers):
            observer(job)

    def _note(self, job_id: str, line: str, severity: str = "INFO") -> None:
        self.database.log(job_id, severity, "service", [line])

    def _end(self, job_id: str, end: End) -> None:
        with self._ending:
            job = self.database.get(job_id)
            if job is None or job.state in TERMINAL:
                return
            # The last line comes before the end, so that who sees the end can read every line.
            self._note(job_id, end.line, "INFO" if end.state in ("SUCCEEDED", "CANCELLED") else "ERROR")
            job = self.database.update(job_id, state=end.state, ended=self.database.clock(), error_code=end.code,
                                       error=end.message)
        if job is not None:
            self._tell(job)


def _refused(job_spec: Mapping[str, Any], region: Region) -> bool:
    """Whether a job has its quota from the first moment or is refused; FLEX_START is for waiting."""
    return region.short == "refuse" and strategy_of(job_spec) != "FLEX_START"


def _end_of(task: str, code: int, logs: str) -> End:
    if code == 0:
        return End("SUCCEEDED")
    return End("FAILED", FAILED, f"The replica {task} exited with a non-zero status of {code}. To find out more about "
               f"why your job exited please check the logs: {logs}")
