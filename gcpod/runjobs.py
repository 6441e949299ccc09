"""The jobs of one run: which attempt of each is watched, what is submitted next, and what is cancelled."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from gcpod.errors import AuthError, GcpodError, JobFailedError, NotFoundError, OutageError, ServiceError
from gcpod.inputs import RunOptions
from gcpod.jobs.attempts import Attempts
from gcpod.jobs.board import Board
from gcpod.jobs.budget import JobCost, budget_of
from gcpod.jobs.ended import findings_of
from gcpod.jobs.filters import JobFilter
from gcpod.jobs.followed import Followed
from gcpod.jobs.recovery import Again, GiveUp, decide, in_words
from gcpod.jobs.reporter import Reporter
from gcpod.jobs.request import INTENT_LABEL, KIND_LABEL, KINDS, Kind, intent_of, kinds_of
from gcpod.jobs.service import Jobs, timeout_of
from gcpod.jobs.submit import Submitter
from gcpod.jobs.watch import duration, result
from gcpod.prepare import Prepared, Workdir
from gcpod.session import Session
from gcpod.spec import Spec, whole_blocks
from gcpod.status import Finding, JobInfo, JobState
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri

_BESIDE = re.compile(r"-eval-(\d+)-\d+$", re.ASCII)
"""The intent of an evaluation beside a training, with that training's attempt."""


class RunJobs:
    """The jobs of a run; each is submitted once, whoever else submits them too.

    Args:
        spec, session, prepared: of the run.
        jobs, objects: the services.
        reporter: told what happens.
        options: whether a user asks for new attempts.
        clock, sleep: seconds.
        board: what is known of the jobs; None where one is submitted and nobody watches.
    """

    def __init__(
        self, spec: Spec, session: Session, prepared: Prepared, jobs: Jobs, objects: Objects, reporter: Reporter,
        options: RunOptions, clock: Callable[[], float], sleep: Callable[[float], None], board: Board | None,
    ) -> None:
        self.spec, self.session, self.prepared, self.jobs, self.reporter = spec, session, prepared, jobs, reporter
        self.options, self.clock, self._board = options, clock, board
        self.submitter = Submitter(jobs, objects, clock, sleep, reporter.say)
        self.attempts = Attempts(self.submitter, session.region, options.retry, self._decide, self._look)
        self.kinds = kinds_of(spec)
        self.followed: dict[Kind, Followed] = {}
        self.train_attempt = 1
        self.watched = self._cleared = False
        self._again_at: dict[Kind, float] = {}
        self._given_up: set[Kind] = set()
        self._refused: dict[Kind, JobFailedError] = {}
        self._costs: dict[Kind, JobCost] | None = None

    def close(self) -> None:
        """Lets go of the files of logs, and of the board; the jobs go on."""
        for followed in self.followed.values():
            followed.close()
            if self._board is not None:
                self._board.forget(followed.info)

    @property
    def board(self) -> Board:
        assert self._board is not None, "nobody watches these jobs"
        return self._board

    @property
    def train(self) -> Followed:
        return self.followed["train"]

    def begin(self) -> None:
        """Submits the training, or finds it.

        Raises:
            JobFailedError: the training failed, and no new attempt is right.
        """
        if self.spec.recovery.max_cost is not None:
            # Now, and not when the first job dies: prices that cannot be read are found before anything runs.
            self._known_costs()
        try:
            self.submit("train")
        except JobFailedError:
            # It failed while nobody watched: what evaluates it waits for an end that never comes.
            with suppress(OutageError):
                self._cancel_evaluations(self.listed(), before=math.inf)
            raise

    def newest_training(self) -> None:
        """Takes the newest attempt of the training for the one that other jobs belong to."""
        claim = self._claim_of("train")
        while self.submitter.find(claim(self.train_attempt + 1)) is not None:
            self.train_attempt += 1

    def submit(self, kind: Kind, checkpoint: str = "") -> JobInfo:
        """Submits a job, or finds the one that an earlier start submitted.

        Raises:
            JobFailedError: its last attempt did not succeed, and no new one is right.
        """
        claim = self._claim_of(kind, checkpoint)
        attempt = self.attempts.current(kind, claim)
        train_attempt = attempt if kind == "train" else self.train_attempt
        body = self.prepared.request(kind, self.session.settings, attempt, train_attempt, checkpoint)
        info = self.submitter.submit(body, claim(attempt))
        self.train_attempt = train_attempt
        self._take_up(kind, info, self._log(kind, attempt, checkpoint), timeout_of(body))
        return info

    def read(self) -> bool:
        """Takes over what the board was told last; returns whether a job's state changed."""
        changed = [followed.read(self.board, self.clock()) for followed in self.followed.values()]
        return any(changed)

    def go_on(self, saved: bool) -> bool:
        """Submits what is due, again or for the first time; returns whether anything was.

        An outage with one job holds up no other.

        Args:
            saved: whether the training has written a checkpoint.

        Raises:
            OutageError: a service is out of reach; the next call goes on.
        """
        done, trouble = False, list[OutageError]()
        for step in (*(lambda kind=kind: self._recover(kind) for kind in KINDS), lambda: self._evaluate(saved),
                     self._export):
            try:
                done = step() or done
            except OutageError as e:
                trouble.append(e)
        if trouble:
            raise trouble[0]
        return done

    def clear_away(self) -> None:
        """Cancels what runs for nothing: evaluations of trainings that are over, and second jobs of one intent."""
        # The board may know only of jobs as old as those that are watched.
        known = list(self.board.of_run(self.prepared.run_id)) if self._cleared else self.listed()
        self._cleared = True
        self._cancel_evaluations(known, before=self.train_attempt + ("train" in self._given_up))
        chosen = {followed.info.labels.get(INTENT_LABEL): followed.info.name for followed in self.followed.values()}
        for info in known:
            # A create whose fate was unknown may take effect late.
            if chosen.get(info.labels.get(INTENT_LABEL), info.name) != info.name and info.state.cancellable:
                self.cancel(info)

    def cancel(self, info: JobInfo) -> None:
        """Asks a job to stop; who may not do that is told, and goes on.

        Raises:
            OutageError: the service is out of reach.
        """
        with suppress(NotFoundError):
            try:
                self.jobs.cancel(info.name)
            except (AuthError, ServiceError) as e:
                self.reporter.say(f"warning: {e}")

    @property
    def ended(self) -> bool:
        """Whether every job that can come has come to its end."""
        over = all(followed.info.state is JobState.SUCCEEDED or kind in self._given_up
                   for kind, followed in self.followed.items())
        return over and ("train" in self._given_up or len(self.followed) == len(self.kinds))

    def check(self) -> dict[str, str]:
        """The resource name of each job, all of which have ended.

        Raises:
            JobFailedError: one did not succeed.
        """
        for kind in self.kinds:
            if kind in self._refused:
                raise self._refused[kind]
            if kind in self.followed:
                result(self.followed[kind].info, self.followed[kind].findings)
        return {kind: followed.info.name for kind, followed in self.followed.items()}

    def listed(self) -> list[JobInfo]:
        """Every job of the run, by a listing of its own.

        Raises:
            OutageError: the service stays out of reach.
        """
        return self.submitter.patiently(lambda: self.jobs.list(JobFilter(run=self.prepared.run_id)))

    def made(self) -> list[tuple[Kind, JobInfo]]:
        """Every job of the run with its kind, of all attempts; of those watched here where they cannot be listed."""
        try:
            infos = self.listed()
        except GcpodError:
            return [(kind, followed.info) for kind, followed in self.followed.items()]
        return [(kind, info) for info in infos for kind in KINDS if info.labels.get(KIND_LABEL) == kind]

    def _evaluate(self, saved: bool) -> bool:
        state = self.train.info.state
        due = state is JobState.SUCCEEDED or (state is JobState.RUNNING and saved)
        return "eval" in self.kinds and due and self._first("eval")

    def _export(self) -> bool:
        # The best checkpoint is known when all were evaluated.
        waits = self.spec.export.checkpoint == "best" and "eval" in self.kinds and not self._evaluated
        return self.train.info.state is JobState.SUCCEEDED and not waits and self._first("export")

    @property
    def _evaluated(self) -> bool:
        evaluation = self.followed.get("eval")
        return evaluation is not None and evaluation.info.state.terminal and "eval" not in self._again_at

    def _first(self, kind: Kind) -> bool:
        """Submits a job that is not watched yet; one that failed for good before is taken up as it is."""
        if kind in self.followed:
            return False
        try:
            self.submit(kind)
        except JobFailedError as e:
            made = [info for info in self.attempts.made(self._claim_of(kind)) if info is not None]
            if not made:
                raise
            self._take_up(kind, made[-1], self._log(kind, len(made), ""))
            self._given_up.add(kind)
            self._refused[kind] = e
        return True

    def _recover(self, kind: Kind) -> bool:
        """Submits what died of no fault of the user's again, when its time has come; returns whether it did."""
        followed = self.followed.get(kind)
        if followed is None or kind in self._given_up:
            return False
        if not followed.info.state.terminal or followed.info.state is JobState.SUCCEEDED:
            return False
        if kind == "eval" and "train" in self._given_up:
            # Nothing more can come to be evaluated.
            self._given_up.add(kind)
            return False
        if kind not in self._again_at:
            self._consider(kind, followed)
        if self._again_at.get(kind, math.inf) > self.clock():
            return False
        try:
            self.submit(kind)
        except JobFailedError as e:
            self._refused[kind] = e
            self._given_up.add(kind)
            return False
        finally:
            followed.close()
        del self._again_at[kind]
        if kind == "train":
            self._forget_evaluation()
        return True

    def _consider(self, kind: Kind, followed: Followed) -> None:
        """Decides whether a job that did not succeed is submitted again, and says so."""
        made = self.attempts.made(self._claim_of(kind))
        if made and (made[-1] is None or made[-1].name != followed.info.name):
            # Somebody else has submitted the next attempt already: that one is gone on with.
            self._again_at[kind] = self.clock()
            return
        known = [info for info in made if info is not None] or [followed.info]
        if followed.asked_anew:
            decision: Again | GiveUp = Again("cancelled", 0.0)
        else:
            decision = self._decide(kind, known)
        why = in_words(decision.cause)
        if isinstance(decision, Again):
            self._again_at[kind] = self.clock() + decision.pause_s
            when = f" in {duration(decision.pause_s)}" if decision.pause_s else ""
            self.reporter.say(f"{kind}: {why}; attempt {len(known) + 1} of {self.spec.recovery.attempts} follows{when}")
            return
        self._given_up.add(kind)
        if decision.cause not in ("code", "cancelled"):
            self.reporter.say(f"{kind}: {why}; no new attempt: {decision.why}")

    def _forget_evaluation(self) -> None:
        """What evaluates the attempt before waits for an end that never comes."""
        evaluation = self.followed.pop("eval", None)
        self._again_at.pop("eval", None)
        self._given_up.discard("eval")
        self._refused.pop("eval", None)
        if evaluation is not None:
            evaluation.close()
            self.board.forget(evaluation.info)
            if evaluation.info.state.cancellable:
                self.cancel(evaluation.info)

    def _decide(self, kind: Kind, attempts: list[JobInfo]) -> Again | GiveUp:
        spec = self.spec
        schedules = {"train": spec.train.schedule, "eval": spec.eval.schedule, "export": spec.export.schedule}
        strategy = schedules[kind].strategy
        if spec.recovery.max_cost is None:
            return decide(attempts, spec.recovery, strategy=strategy)
        cost = self._known_costs().get(kind)
        return decide(attempts, spec.recovery, strategy=strategy, per_hour=cost.per_hour if cost else None,
                      timeout_s=cost.timeout_s if cost else 0)

    def _known_costs(self) -> dict[Kind, JobCost]:
        if self._costs is None:
            self._costs = {cost.kind: cost for cost in budget_of(self.spec, self.session.settings).costs}
        return self._costs

    def _look(self, info: JobInfo) -> list[Finding]:
        """What the log of a job shows that ended before it was watched here."""
        return findings_of(self.session, info)

    def _take_up(self, kind: Kind, info: JobInfo, log: Path, timeout_s: float = 0.0) -> None:
        """Watches a job from now on; of one that has ended only the rest of its log is read.

        ``timeout_s`` is the time limit that it would be given today.
        """
        training = kind == "train"
        followed = self.followed[kind] = Followed(
            kind, info, self.reporter, log, whole_blocks(self.spec.train.steps) if training else None,
            self.spec.train.stall_minutes * 60 if training else None, self.spec.train.module is None,
        )
        followed.asked_anew = self.options.retry and info.state is JobState.CANCELLING
        self.reporter.state(kind, info)
        if info.state.terminal:
            followed.catch_up(self.session)
            return
        self.watched = True
        self.reporter.say(f"{kind}: see {self.jobs.page(info)}")
        if info.timeout_s and info.timeout_s != timeout_s:
            limit = duration(info.timeout_s)
            self.reporter.say(f"{kind}: it was submitted with a time limit of {limit}, which it keeps")
        if self._board is not None:
            self._board.follow(info, followed.begin())

    def _log(self, kind: Kind, attempt: int, checkpoint: str) -> Path:
        """The local file of a job's log."""
        intent = intent_of(kind, attempt, self.train_attempt, checkpoint)
        return Workdir.of(self.spec).log(self.prepared.run_id, intent)

    def _claim_of(self, kind: Kind, checkpoint: str = "") -> Callable[[int], GcsUri]:
        layout, train_attempt = self.prepared.layout, self.train_attempt
        return lambda attempt: layout.claim(intent_of(kind, attempt, train_attempt, checkpoint))

    def _cancel_evaluations(self, known: Iterable[JobInfo], before: float) -> None:
        """Ends evaluations beside earlier attempts of the training than one; a later one may be somebody else's."""
        for info in known:
            # One pass over a checkpoint (eval-ckpt-5-1) waits for no training.
            match = _BESIDE.search(info.labels.get(INTENT_LABEL, ""))
            if match is not None and int(match[1]) < before and info.state.cancellable:
                self.cancel(info)
