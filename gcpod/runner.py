"""The whole run: upload, train, evaluate beside it, export, and what came of it.

Every step first looks whether it is done: a second start after any interruption goes on where the first stopped, and
a job is submitted once (jobs/submit.py). A run does what can be done now and returns; who waits between two looks is
following.py.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from gcpod.errors import GcpodError, OutageError
from gcpod.following import follow
from gcpod.inputs import Inputs, RunOptions
from gcpod.jobs.board import Board
from gcpod.jobs.followed import Followed
from gcpod.jobs.logs import LogReader
from gcpod.jobs.notify import notify
from gcpod.jobs.reporter import Reporter
from gcpod.jobs.request import Kind
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import Pace, Reach
from gcpod.outcome import ended_run, result_of
from gcpod.prepare import Prepared, Workdir
from gcpod.results.checkpoints import whole_checkpoints
from gcpod.results.metrics import read_progress_of
from gcpod.results.report import RunResult
from gcpod.results.tensorboard import fetch_tensorboard
from gcpod.runjobs import RunJobs
from gcpod.session import Session
from gcpod.spec import NotifySpec, Spec
from gcpod.status import Finding, JobInfo, JobState
from gcpod.storage.mirror import Mirrored
from gcpod.storage.objects import Objects

LOOKS = Pace(first_s=10.0, most_s=1800.0, share=0.1)
"""Between looks into the bucket, by the time since the run was begun here: its files steer nothing."""


class Run:
    """One run of a spec in a session; ``start`` does everything that is not done yet.

    Args:
        spec: what to train.
        session: who and where.
        reporter: told what happens.
        clock, sleep: seconds; the process's own unless given.
        chance: numbers between 0 and 1, for pauses that vary.
        board: what is known of the jobs of several runs; by default the run has its own.
    """

    def __init__(
        self, spec: Spec, session: Session, reporter: Reporter, options: RunOptions | None = None,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random, board: Board | None = None,
    ) -> None:
        self.spec, self.session, self.reporter = spec, session, reporter
        self.options = options or RunOptions()
        self.clock, self.sleep, self.chance = clock, sleep, chance
        self.jobs, self.objects = Jobs(session), Objects(session)
        self.inputs = Inputs(spec, session, self.objects, reporter, self.options, sleep)
        self.result: RunResult | None = None
        self._board = board
        self._crew: RunJobs | None = None
        self._begun_at = self._look_at = 0.0
        self._saved = self._files_refused = False

    def start(self) -> RunResult:
        """Runs to the end.

        Raises:
            GcpodError: an input is wrong, the cloud refuses, or a job failed.
        """
        reach = Reach(self.reporter.say, self.clock, self.options.patience_s)
        try:
            self.begin()
            follow(lambda: [self], self.board, reach, clock=self.clock, sleep=self.sleep, chance=self.chance)
        except OutageError:
            # Its jobs go on: nothing has ended.
            raise
        except GcpodError as e:
            self.tell_end(str(e))
            raise
        finally:
            self.close()
        self.tell_end()
        assert self.result is not None
        return self.result

    def close(self) -> None:
        """Lets go of the files of logs; the jobs go on."""
        if self._crew is not None:
            self._crew.close()

    def tell_end(self, error: str = "") -> None:
        """Notifies whoever wants to know that the run ended, or could not go on; a receiver that fails is only said.

        Of a success that was told when it happened nobody is told again.
        """
        if self.spec.notify == NotifySpec() or (not error and self._crew is not None and not self._crew.watched):
            return
        name, jobs = self.spec.name, list[tuple[Kind, JobInfo]]()
        if self._crew is not None:
            name, jobs = self._crew.prepared.run_id, self._crew.made()
        outcome = ended_run(name, self.spec, self.session, jobs, self.result, error)
        for problem in notify(outcome, self.spec.notify):
            self.reporter.say(f"warning: {problem}")

    def begin(self) -> None:
        """Uploads what is missing and submits the training, or finds it.

        Raises:
            GcpodError: an input is wrong, or the cloud refuses.
        """
        prepared = self.upload()
        if self._board is None:
            logs = LogReader(self.session, clock=self.clock)
            self._board = Board(self.jobs, logs, self.reporter.say, prepared.run_id)
        self._begun_at = self._look_at = self.clock()
        self._crew = self._jobs_of(prepared, self._board)
        self._crew.begin()

    def upload(self) -> Prepared:
        """Builds what is missing and makes the bucket hold it.

        Raises:
            GcpodError: an input is wrong, or the bucket cannot be written.
        """
        return self.inputs.upload()

    def submit(self, kind: Kind, checkpoint: str = "") -> JobInfo:
        """Uploads what is missing and submits one job, or finds it where it was submitted before.

        Args:
            kind: which job.
            checkpoint: the one to evaluate or export, such as ckpt-5; "" for what the run would do.

        Raises:
            GcpodError: as for upload, or the service refuses the job.
        """
        crew = self._crew = self._jobs_of(self.upload(), None)
        crew.newest_training()
        return crew.submit(kind, checkpoint)

    def fetch(self, out: Path | None = None) -> tuple[Path, Mirrored]:
        """Brings the run's event files up to date in a local folder, by default the run's own.

        Raises:
            GcpodError: an input is wrong, or the bucket cannot be read.
        """
        prepared = self.inputs.prepare()
        folder = out or Workdir.of(self.spec).tensorboard(prepared.run_id)
        return folder, fetch_tensorboard(self.objects, prepared.layout.model, folder)

    @property
    def crew(self) -> RunJobs:
        """Its jobs."""
        assert self._crew is not None, "the run has not begun"
        return self._crew

    @property
    def begun(self) -> bool:
        """Whether everything it needs has been uploaded."""
        return self._crew is not None

    @property
    def followed(self) -> dict[Kind, Followed]:
        """The jobs that are watched, by kind."""
        return self._crew.followed if self._crew is not None else {}

    @property
    def board(self) -> Board:
        """What is known of the jobs."""
        assert self._board is not None, "the run has not begun"
        return self._board

    @property
    def over(self) -> bool:
        """Whether it came to its end, with a result."""
        return self.result is not None

    def advance(self) -> bool:
        """Takes over what the board was told last and does what can be done now; returns whether anything changed.

        Raises:
            OutageError: a service is out of reach; the next call goes on.
            JobFailedError: every job has ended, and one did not succeed.
            GcpodError: the cloud refuses a job, or what the jobs should have left is not there.
        """
        crew, trouble = self.crew, list[OutageError]()
        changed = crew.read()
        for step in (crew.clear_away, self._look_into_bucket, self._watch_loss):
            try:
                step()
            except OutageError as e:
                trouble.append(e)
        changed = crew.go_on(self._saved) or changed
        if crew.ended:
            self.result = result_of(self.spec, crew.prepared, self.objects, crew.check(), crew.train_attempt,
                                    self.reporter.say)
        if trouble:
            raise trouble[0]
        return changed

    def _jobs_of(self, prepared: Prepared, board: Board | None) -> RunJobs:
        return RunJobs(self.spec, self.session, prepared, self.jobs, self.objects, self.reporter, self.options,
                       self.clock, self.sleep, board)

    def _look_into_bucket(self) -> None:
        """Brings the new TensorBoard bytes, and learns which checkpoints there are."""
        train, prepared = self.crew.train, self.crew.prepared
        awaited = "eval" in self.crew.kinds and not self._saved and train.info.state is JobState.RUNNING
        # Of many runs at once nobody follows the files, unless they alone tell of progress; they come with each end.
        needed = self.board.logs_refused or self.spec.train.module is not None
        now = self.clock()
        if not awaited and (now < self._look_at or (self.board.run is None and not needed)):
            return
        pause = LOOKS.pause(now - self._begun_at, self.chance())
        self._look_at = now + (min(pause, self.spec.train.stall_minutes * 60 / 3) if needed else pause)
        model, folder = prepared.layout.model, Workdir.of(self.spec).tensorboard(prepared.run_id)
        listed = self.objects.list(model)
        self._saved = self._saved or any(info.uri == model / "checkpoint" for info in listed)
        train.saved(whole_checkpoints(info.uri.name for info in listed))
        try:
            fetch_tensorboard(self.objects, model, folder, listed)
            if needed:
                train.got(read_progress_of(folder, train.progress))
        except OutageError:
            raise
        except GcpodError as e:
            # A full disk here is no reason to leave the jobs alone; the run's end will tell.
            if not self._files_refused:
                self.reporter.say(f"going on without event files: {e}")
            self._files_refused = True

    def _watch_loss(self) -> None:
        """Cancels a training whose loss is no number any more, where that is asked for."""
        train = self.crew.train
        if not self.spec.train.cancel_on_nan or not train.progress.bad_loss or not train.info.state.cancellable:
            return
        if not train.findings:
            found = f"the loss was {train.progress.loss} at step {train.progress.step}, so it was cancelled"
            train.findings.append(Finding("D105", "error", train.info.id, found,
                                          "lower train.learning_rate, or look for boxes without area"))
        self.crew.cancel(train.info)
