"""The whole run: upload, train, evaluate beside it, export, and what came of it.

Every step first looks whether it is done: a second start after any interruption goes on where the first stopped, and
a job is submitted once (jobs/submit.py). A run does what can be done now and returns; who waits between two looks is
following.py.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from gcpod.errors import GcpodError
from gcpod.following import follow
from gcpod.inputs import Inputs, RunOptions
from gcpod.jobs.attempts import Attempts
from gcpod.jobs.board import Board
from gcpod.jobs.budget import JobCost, budget_of
from gcpod.jobs.diagnose import diagnose
from gcpod.jobs.followed import Followed
from gcpod.jobs.logs import LogReader
from gcpod.jobs.notify import notify
from gcpod.jobs.recovery import Again, GiveUp, decide, in_words
from gcpod.jobs.reporter import Reporter
from gcpod.jobs.request import INTENT_LABEL, Kind, intent_of, kinds_of
from gcpod.jobs.service import Jobs
from gcpod.jobs.submit import Submitter
from gcpod.jobs.watch import Pace, Reach, duration, result
from gcpod.outcome import ended_run, result_of
from gcpod.prepare import Prepared, Workdir
from gcpod.results.checkpoints import whole_checkpoints
from gcpod.results.metrics import read_progress_of
from gcpod.results.report import RunResult
from gcpod.results.tensorboard import fetch_tensorboard
from gcpod.session import Session
from gcpod.spec import NotifySpec, Spec, whole_blocks
from gcpod.status import Finding, JobInfo, JobState
from gcpod.storage.mirror import Mirrored
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri

_CANCELLABLE = (JobState.QUEUED, JobState.PENDING, JobState.RUNNING)
_BESIDE = re.compile(r"-eval-(\d+)-\d+$", re.ASCII)
"""The intent of an evaluation beside a training, with that training's attempt."""
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
        self.submitter = Submitter(self.jobs, self.objects, clock, sleep, reporter.say)
        self.attempts = Attempts(self.submitter, session.region, self.options.retry, self._decide, self._look)
        self.kinds = kinds_of(spec)
        self.followed: dict[Kind, Followed] = {}
        self.replaced: list[tuple[Kind, JobInfo]] = []
        self._board = board
        self._prepared: Prepared | None = None
        self._train_attempt, self._begun_at, self._look_at = 1, 0.0, 0.0
        self._again_at: dict[Kind, float] = {}
        self._given_up: set[Kind] = set()
        self._costs: dict[Kind, JobCost] = {}
        self._saved = self._earlier_ended = self._cancelled = False

    def start(self) -> RunResult:
        """Runs to the end.

        Raises:
            GcpodError: an input is wrong, the cloud refuses, or a job failed.
        """
        reach = Reach(self.reporter.say, self.clock, self.options.patience_s)
        try:
            self.begin()
            follow(lambda: [self], self.board, reach, clock=self.clock, sleep=self.sleep, chance=self.chance)
            done = self.finish()
        except GcpodError as e:
            self.tell_end(None, str(e))
            raise
        finally:
            self.close()
        self.tell_end(done)
        return done

    def close(self) -> None:
        """Lets go of the files of logs; the jobs go on."""
        for followed in self.followed.values():
            followed.close()

    def tell_end(self, done: RunResult | None, error: str = "") -> None:
        """Notifies whoever wants to know that the run ended, or could not go on; a receiver that fails is only said."""
        if self.spec.notify == NotifySpec():
            return
        jobs = [*self.replaced, *((kind, followed.info) for kind, followed in self.followed.items())]
        name = self._prepared.run_id if self._prepared else self.spec.name
        for problem in notify(ended_run(name, self.spec, self.session, jobs, done, error), self.spec.notify):
            self.reporter.say(f"warning: {problem}")

    def begin(self) -> None:
        """Uploads what is missing and submits the training, or finds it.

        Raises:
            GcpodError: an input is wrong, or the cloud refuses.
        """
        if self.spec.recovery.max_cost is not None:
            # Now, and not when the first job dies: prices that cannot be read are found before anything runs.
            self._costs = {cost.kind: cost for cost in budget_of(self.spec, self.session.settings).costs}
        self._prepared = self.upload()
        if self._board is None:
            logs = LogReader(self.session, clock=self.clock)
            self._board = Board(self.jobs, logs, self.reporter.say, self._prepared.run_id)
        self._begun_at = self._look_at = self.clock()
        self._submit("train")

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
        self._prepared = self.upload()
        claim = self._claim_of("train")
        while self.submitter.find(claim(self._train_attempt + 1)) is not None:
            self._train_attempt += 1
        return self._submit(kind, checkpoint)

    def fetch(self, out: Path | None = None) -> tuple[Path, Mirrored]:
        """Brings the run's event files up to date in a local folder, by default the run's own.

        Raises:
            GcpodError: an input is wrong, or the bucket cannot be read.
        """
        prepared = self.inputs.prepare()
        folder = out or Workdir.of(self.spec).tensorboard(prepared.run_id)
        return folder, fetch_tensorboard(self.objects, prepared.layout.model, folder)

    @property
    def begun(self) -> bool:
        """Whether everything it needs has been uploaded."""
        return self._prepared is not None

    @property
    def prepared(self) -> Prepared:
        """What was uploaded."""
        assert self._prepared is not None, "the run has not begun"
        return self._prepared

    @property
    def board(self) -> Board:
        """What is known of the jobs."""
        assert self._board is not None, "the run has not begun"
        return self._board

    @property
    def over(self) -> bool:
        """Whether every job that can come has come to its end."""
        ended = all(
            followed.info.state is JobState.SUCCEEDED or kind in self._given_up
            for kind, followed in self.followed.items()
        )
        return ended and ("train" in self._given_up or len(self.followed) == len(self.kinds))

    def advance(self) -> bool:
        """Takes over what the board was told last and does what can be done now; returns whether anything changed.

        Raises:
            OutageError: a service is out of reach; the next call goes on.
            GcpodError: the cloud refuses a job.
        """
        changed = [followed.read(self.board, self.clock()) for followed in self.followed.values()]
        self._cancel_doubles()
        self._look_into_bucket()
        self._watch_loss()
        return any([*changed, self._recover(), self._next()])

    def finish(self) -> RunResult:
        """What came of a run that is over.

        Raises:
            JobFailedError: a job did not succeed.
            StorageError: what it should have left is not there.
        """
        for kind in self.kinds:
            if kind in self.followed:
                result(self.followed[kind].info, self.followed[kind].findings)
        names: dict[str, str] = {kind: followed.info.name for kind, followed in self.followed.items()}
        return result_of(self.spec, self.prepared, self.objects, names, self._train_attempt, self.reporter.say)

    def _next(self) -> bool:
        """Submits what may start now; returns whether it did."""
        train, before = self.followed["train"].info.state, len(self.followed)
        if not self._earlier_ended:
            self._cancel_evaluations(of_this_training=False)
            self._earlier_ended = True
        may_evaluate = train is JobState.SUCCEEDED or (train is JobState.RUNNING and self._saved)
        if "eval" in self.kinds and "eval" not in self.followed and may_evaluate:
            self._submit("eval")
        if "export" not in self.followed and train is JobState.SUCCEEDED and self._best_is_known:
            self._submit("export")
        if "train" in self._given_up and not self._cancelled:
            # Nothing more can come to be evaluated: its machine is not paid for waiting.
            self._cancel_evaluations(of_this_training=True)
            self._cancelled = True
        return len(self.followed) > before

    @property
    def _best_is_known(self) -> bool:
        """Whether the checkpoint to export is decided: the best one only when all were evaluated."""
        if self.spec.export.checkpoint == "last" or "eval" not in self.kinds:
            return True
        ended = "eval" in self.followed and self.followed["eval"].info.state.terminal
        return ended and "eval" not in self._again_at

    def _recover(self) -> bool:
        """Submits what died of no fault of the user's again, when its time has come; returns whether it did."""
        for kind, followed in list(self.followed.items()):
            state = followed.info.state
            if not state.terminal or state is JobState.SUCCEEDED or kind in self._given_up:
                continue
            if kind not in self._again_at:
                self._consider(kind)
            if self._again_at.get(kind, math.inf) <= self.clock():
                del self._again_at[kind]
                self.replaced.append((kind, followed.info))
                if kind == "train":
                    self._forget_evaluation()
                self._submit(kind)
                return True
        return False

    def _forget_evaluation(self) -> None:
        """What evaluates the attempt before waits for an end that never comes: it is cancelled by the next look."""
        evaluation = self.followed.pop("eval", None)
        if evaluation is not None:
            self.replaced.append(("eval", evaluation.info))
            self.board.forget(evaluation.info)
        self._earlier_ended = self._saved = False

    def _consider(self, kind: Kind) -> None:
        """Decides whether a job that did not succeed is submitted again, and says so."""
        made = [info for info in self.attempts.made(self._claim_of(kind)) if info is not None]
        decision = self._decide(kind, made)
        why = in_words(decision.cause)
        if isinstance(decision, Again):
            self._again_at[kind] = self.clock() + decision.pause_s
            when = f" in {duration(decision.pause_s)}" if decision.pause_s else ""
            self.reporter.say(f"{kind}: {why}; attempt {len(made) + 1} of {self.spec.recovery.attempts} follows{when}")
            return
        self._given_up.add(kind)
        if decision.cause not in ("code", "cancelled"):
            self.reporter.say(f"{kind}: {why}; no new attempt: {decision.why}")

    def _decide(self, kind: Kind, attempts: list[JobInfo]) -> Again | GiveUp:
        spec = self.spec
        schedules = {"train": spec.train.schedule, "eval": spec.eval.schedule, "export": spec.export.schedule}
        strategy = schedules[kind].strategy
        cost = self._costs.get(kind)
        if cost is None:
            return decide(attempts, self.spec.recovery, strategy=strategy)
        return decide(attempts, self.spec.recovery, strategy=strategy, per_hour=cost.per_hour,
                      timeout_s=cost.timeout_s)

    def _look(self, info: JobInfo) -> list[Finding]:
        """What the log of a job shows that ended before it was watched here; nothing where it cannot be read."""
        try:
            lines = LogReader(self.session, info.id).poll()
        except GcpodError:
            lines = []
        return diagnose(info.error, (line.text for line in lines), info.id)

    def _submit(self, kind: Kind, checkpoint: str = "") -> JobInfo:
        """Submits a job, or finds the one that an earlier start submitted."""
        claim = self._claim_of(kind, checkpoint)
        attempt = self.attempts.current(kind, claim)
        if kind == "train":
            self._train_attempt = attempt
        body = self.prepared.request(kind, self.session.settings, attempt, self._train_attempt, checkpoint)
        info = self.submitter.submit(body, claim(attempt))
        training = kind == "train"
        followed = self.followed[kind] = Followed(
            kind, info, self.reporter, self._log(kind, attempt, checkpoint),
            whole_blocks(self.spec.train.steps) if training else None,
            self.spec.train.stall_minutes * 60 if training else None,
        )
        self.reporter.state(kind, info)
        if not info.state.terminal:
            self.reporter.say(f"{kind}: see {self.session.console_url(info.id)}")
        if self._board is not None and not info.state.terminal:
            self._board.follow(info, followed.begin())
        return info

    def _log(self, kind: Kind, attempt: int, checkpoint: str) -> Path:
        """The local file of a job's log."""
        intent = intent_of(kind, attempt, self._train_attempt, checkpoint)
        return Workdir.of(self.spec).log(self.prepared.run_id, intent)

    def _claim_of(self, kind: Kind, checkpoint: str = "") -> Callable[[int], GcsUri]:
        layout = self.prepared.layout
        return lambda attempt: layout.claim(intent_of(kind, attempt, self._train_attempt, checkpoint))

    def _cancel_evaluations(self, of_this_training: bool) -> None:
        """Ends evaluations that run for a training which is over."""
        for info in self.board.of_run(self.prepared.run_id):
            # One pass over a checkpoint (eval-ckpt-5-1) waits for no training.
            match = _BESIDE.search(info.labels.get(INTENT_LABEL, ""))
            is_own = match is not None and int(match[1]) == self._train_attempt
            if match is not None and is_own is of_this_training and info.state in _CANCELLABLE:
                self.jobs.cancel(info.name)

    def _cancel_doubles(self) -> None:
        """Ends jobs of an intent that has another job: a create whose fate was unknown may take effect late."""
        chosen = {followed.info.labels.get(INTENT_LABEL): followed.info.name for followed in self.followed.values()}
        for info in self.board.of_run(self.prepared.run_id):
            name = chosen.get(info.labels.get(INTENT_LABEL), info.name)
            if name != info.name and info.state in _CANCELLABLE:
                self.jobs.cancel(info.name)

    def _look_into_bucket(self) -> None:
        """Brings the new TensorBoard bytes, and learns which checkpoints there are."""
        train = self.followed["train"]
        awaited = "eval" in self.kinds and not self._saved and train.info.state is JobState.RUNNING
        now = self.clock()
        # Of many runs at once nobody follows the files; they come with each run's end.
        if not awaited and (now < self._look_at or self.board.run is None):
            return
        self._look_at = now + LOOKS.pause(now - self._begun_at, self.chance())
        model, folder = self.prepared.layout.model, Workdir.of(self.spec).tensorboard(self.prepared.run_id)
        listed = self.objects.list(model)
        self._saved = self._saved or any(info.uri == model / "checkpoint" for info in listed)
        train.saved(whole_checkpoints(info.uri.name for info in listed))
        fetch_tensorboard(self.objects, model, folder, listed)
        if self.board.logs_refused:
            train.got(read_progress_of(folder, train.progress))

    def _watch_loss(self) -> None:
        """Cancels a training whose loss is no number any more, where that is asked for."""
        train = self.followed["train"]
        if not self.spec.train.cancel_on_nan or not train.progress.bad_loss or train.info.state not in _CANCELLABLE:
            return
        if not train.findings:
            found = f"the loss was {train.progress.loss} at step {train.progress.step}, so it was cancelled"
            train.findings.append(Finding("D105", "error", train.info.id, found,
                                          "lower train.learning_rate, or look for boxes without area"))
        self.jobs.cancel(train.info.name)

