"""Many runs at once: each goes on by itself, one board tells of all their jobs, one table of what became of them."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence

from gcpod.errors import GcpodError, OutageError
from gcpod.following import follow
from gcpod.inputs import RunOptions
from gcpod.jobs.board import Board
from gcpod.jobs.logs import LogLine, LogReader
from gcpod.jobs.reporter import Reporter
from gcpod.jobs.request import Kind
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import Reach
from gcpod.outcome import spent
from gcpod.prepare import Workdir
from gcpod.results.metrics import read_metrics
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.spec import Spec
from gcpod.status import JobInfo, Metrics, Progress
from gcpod.storage.transfer import Progress as Moved
from gcpod.sweeps import Row, Table, Variant, best_of, expand, table

WAITING = "WAITING"


class Prefixed:
    """Tells a Reporter what one of many runs says, in lines that begin with its name."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self.reporter, self.name = reporter, name

    def say(self, text: str) -> None:
        self.reporter.say(f"{self.name} {text}")

    def moving(self, now: Moved) -> None:
        self.reporter.moving(now)

    def state(self, kind: Kind, info: JobInfo) -> None:
        self.say(f"{kind}: {info.state.short} {info.name}")

    def lines(self, kind: Kind, lines: list[LogLine]) -> None:
        """Passed over: the lines of many runs at once tell nobody anything, and each can be asked for."""

    def progress(self, kind: Kind, progress: Progress) -> None:
        if progress.step is not None:
            of = f" of {progress.total_steps}" if progress.total_steps else ""
            self.say(f"{kind}: step {progress.step}{of}")


class _Member:
    """One run of a sweep: what goes wrong with it is its own."""

    def __init__(self, variant: Variant, run: Run) -> None:
        self.variant, self.run = variant, run
        self.error: GcpodError | None = None
        self._begun = self._ended = False

    @property
    def over(self) -> bool:
        return self._ended

    def advance(self) -> bool:
        """The run's next step, its first and its last included.

        Raises:
            OutageError: a service is out of reach.
        """
        if self._ended:
            return False
        try:
            return self._step()
        except OutageError:
            raise
        except GcpodError as e:
            self.error, self._ended = e, True
            self.run.reporter.say(str(e))
            self.run.tell_end(str(e))
            going = [followed.info.id for followed in self.run.followed.values() if not followed.info.state.terminal]
            if going:
                self.run.reporter.say(f"its jobs go on: {', '.join(going)}")
            self.run.close()
            return True

    def _step(self) -> bool:
        if not self._begun:
            self.run.begin()
            self._begun = True
            return True
        changed = self.run.advance()
        if self.run.over:
            self._ended = True
            self.run.tell_end()
            self.run.close()
        return changed or self._ended


class Sweep:
    """The runs of a spec's sweep; ``start`` does everything that is not done yet, so it may be started again anywhere.

    Args:
        spec: with a sweep.
        session: who and where.
        reporter: told what happens.
        options: for each run.
        clock, sleep, chance: as for Run.
    """

    def __init__(
        self, spec: Spec, session: Session, reporter: Reporter, options: RunOptions | None = None,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.spec, self.session, self.reporter = spec, session, reporter
        self.options = options or RunOptions()
        self.clock, self.sleep, self.chance = clock, sleep, chance
        self.board = Board(Jobs(session), LogReader(session, clock=clock), reporter.say)
        self.members = [self._member(number, variant) for number, variant in enumerate(expand(spec), 1)]
        self._waiting = deque(self.members)
        self._active: list[_Member] = []

    def _member(self, number: int, variant: Variant) -> _Member:
        told = Prefixed(self.reporter, f"[{number}]")
        run = Run(variant.spec, self.session, told, self.options, self.clock, self.sleep, self.chance, self.board)
        return _Member(variant, run)

    def start(self) -> Table:
        """Runs all to their ends, ``sweep.at_once`` at a time; a run that fails ends no other.

        Raises:
            OutageError: the cloud was out of reach for longer than patience lasts.
        """
        for number, member in enumerate(self.members, 1):
            values = ", ".join(f"{key}: {value}" for key, value in member.variant.values.items())
            self.reporter.say(f"[{number}] {values}")
        reach = Reach(self.reporter.say, self.clock, self.options.patience_s)
        try:
            follow(self._now, self.board, reach, clock=self.clock, sleep=self.sleep, chance=self.chance)
            return self.table()
        finally:
            for member in self.members:
                member.run.close()

    def _now(self) -> Sequence[_Member]:
        """The runs whose turn it is."""
        self._active = [member for member in self._active if not member.over]
        while self._waiting and len(self._active) < self.spec.sweep.at_once:
            self._active.append(self._waiting.popleft())
        return list(self._active)

    def table(self) -> Table:
        """What became of the runs so far."""
        return table([self._row(member) for member in self.members], self.spec.eval.best_metric)

    def _row(self, member: _Member) -> Row:
        run = member.run
        jobs = run.crew.made() if run.begun else []
        name = run.crew.prepared.run_id if run.begun else ""
        hours = sum(info.run_s for _, info in jobs) / 3600 if jobs else None
        state = "SUCCEEDED" if run.result else "FAILED" if member.error else "RUNNING" if jobs else WAITING
        return Row(
            run_id=name, values=member.variant.values, state=state, metrics=self._metrics(member, name), hours=hours,
            cost=spent(member.variant.spec, self.session, jobs) if jobs else None,
            error=str(member.error) if member.error else "",
        )

    def _metrics(self, member: _Member, name: str) -> Metrics | None:
        """Of the checkpoint that is exported: the best one, or the last."""
        if not name:
            return None
        found = read_metrics(Workdir.of(member.variant.spec).tensorboard(name))
        if self.spec.export.checkpoint == "best":
            return best_of(found, self.spec.eval.best_metric)
        return found[-1] if found else None

