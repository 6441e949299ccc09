"""The whole run: upload, train, evaluate beside it, export, and what came of it.

Every step first looks whether it is done: a second start after any interruption goes on where the first stopped, and
a job is submitted once (jobs/submit.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gcpod.cache import cache_dir
from gcpod.errors import AuthError, JobFailedError, NotFoundError, OutageError, StorageError
from gcpod.jobs.logs import LogReader
from gcpod.jobs.progress import read_progress
from gcpod.jobs.reporter import Reporter
from gcpod.jobs.request import INTENT_LABEL, KIND_LABEL, KINDS, RUN_LABEL, Kind, intent_of, label
from gcpod.jobs.service import Jobs
from gcpod.jobs.submit import Submitter
from gcpod.jobs.watch import MAX_POLL_S, POLL_S, result
from gcpod.layout import RunLayout, model_folder
from gcpod.models.fetch import FetchedModel, fetch_model, in_words
from gcpod.models.zoo import ZooModel
from gcpod.prepare import Prepared, Workdir, prepare
from gcpod.results.metrics import read_metrics
from gcpod.results.report import RunResult, write_result
from gcpod.results.tensorboard import fetch_tensorboard
from gcpod.session import Session
from gcpod.spec import Spec, whole_blocks
from gcpod.status import JobInfo, JobState, Progress
from gcpod.storage.mirror import Mirrored
from gcpod.storage.objects import Objects
from gcpod.uploads import moved, upload_model, upload_run
from gcpod.uris import GcsUri

_CANCELLABLE = (JobState.QUEUED, JobState.PENDING, JobState.RUNNING)
_SHARE = 0.1
"""Of the time since something last happened, as the pause before the next poll."""


@dataclass(frozen=True)
class RunOptions:
    """How a run deals with what lies there.

    Attributes:
        again: start a new run even though one of the same inputs has been made.
        again_when_done: the same, but only when the newest such run came to its end.
        retry: submit a new attempt of a job whose last one failed, was cancelled or is gone.
        patience_s: seconds that the cloud may be out of reach while jobs run before the run gives up watching.
    """

    again: bool = False
    again_when_done: bool = False
    retry: bool = False
    patience_s: float = math.inf


@dataclass
class _Followed:
    """A job while it is watched."""

    info: JobInfo
    progress: Progress


class Run:
    """One run of a spec in a session; ``start`` does everything that is not done yet.

    Args:
        spec: what to train.
        session: who and where.
        reporter: told what happens.
        clock, sleep: seconds; the process's own unless given.
    """

    def __init__(
        self, spec: Spec, session: Session, reporter: Reporter, options: RunOptions | None = None,
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.spec, self.session, self.reporter = spec, session, reporter
        self.options = options or RunOptions()
        self.clock, self.sleep = clock, sleep
        self.jobs, self.objects = Jobs(session), Objects(session)
        self.submitter = Submitter(self.jobs, self.objects, clock, sleep, reporter.say)
        self.followed: dict[Kind, _Followed] = {}
        self.logs = LogReader(session)
        self._train_attempt = 1
        self._earlier_ended = self._cancelled = self._logs_refused = False

    def start(self) -> RunResult:
        """Runs to the end.

        Raises:
            GcpodError: an input is wrong, the cloud refuses, or a job failed.
        """
        prepared = self.upload()
        self._work(prepared)
        return self._result(prepared)

    def upload(self) -> Prepared:
        """Builds what is missing and makes the bucket hold it.

        Raises:
            GcpodError: an input is wrong, or the bucket cannot be written.
        """
        bucket = self.session.settings.bucket_uri
        made = self.objects.ensure_bucket(bucket.bucket)
        self.reporter.say(f"bucket: gs://{bucket.bucket}" + (" (made)" if made else ""))
        prepared = prepare(
            self.spec, self.session.settings, run_id=self._run_id, say=self.reporter.say, fetch=self._fetch_model,
        )
        for note in prepared.notes:
            self.reporter.say(f"machine of {note}")
        if prepared.fetched is not None:
            plan = upload_model(self.objects, prepared.fetched, bucket, self.reporter.moving)
            self.reporter.say(f"model: {moved(plan)}: {model_folder(bucket, prepared.fetched.model.name)}")
        upload_run(self.objects, prepared, self.reporter.say, self.reporter.moving)
        return prepared

    def _fetch_model(self, model: ZooModel) -> FetchedModel:
        import requests

        with requests.Session() as http:
            return fetch_model(
                model, cache_dir(), http, base=self.spec.model.zoo_mirror, say=self.reporter.say, sleep=self.sleep,
                progress=in_words(self.reporter.say, model.name),
            )

    def submit(self, kind: Kind) -> JobInfo:
        """Uploads what is missing and submits one job, or finds it where it was submitted before.

        Raises:
            GcpodError: as for upload, or the service refuses the job.
        """
        prepared = self.upload()
        while self.submitter.find(prepared.layout.claim(intent_of("train", self._train_attempt + 1, 0))) is not None:
            self._train_attempt += 1
        self._submit(kind, prepared)
        return self.followed[kind].info

    def fetch(self, out: Path | None = None) -> tuple[Path, Mirrored]:
        """Brings the run's event files up to date in a local folder, by default the run's own.

        Raises:
            GcpodError: an input is wrong, or the bucket cannot be read.
        """
        prepared = prepare(self.spec, self.session.settings, run_id=self._run_id)
        folder = out or Workdir.of(self.spec).tensorboard(prepared.run_id)
        return folder, fetch_tensorboard(self.objects, prepared.layout.model, folder)

    def _run_id(self, name: str) -> str:
        """The newest run of these inputs, or a fresh one when asked for another."""
        bucket, number = self.session.settings.bucket_uri, 1
        while self.objects.exists(RunLayout.of(bucket, _numbered(name, number)).manifest):
            number += 1
        newest = _numbered(name, max(1, number - 1))
        done = self.options.again_when_done and Workdir.of(self.spec).result(newest).exists()
        return _numbered(name, number) if self.options.again or done else newest

    def _work(self, prepared: Prepared) -> None:
        """Submits each job when its turn comes and follows all of them to their ends."""
        self._submit("train", prepared)
        quiet_since = reached = self.clock()
        while not self._over():
            moved = False
            try:
                moved = self._poll(prepared)
                moved = self._next(prepared) or moved
                reached = self.clock()
            except OutageError as e:
                if self.clock() - reached >= self.options.patience_s:
                    raise
                self.reporter.say(f"waiting: {e}")
            quiet_since = self.clock() if moved else quiet_since
            if not self._over():
                self.sleep(min(MAX_POLL_S, max(POLL_S, _SHARE * (self.clock() - quiet_since))))
        self._read_logs()
        for kind in KINDS:
            if kind in self.followed:
                result(self.followed[kind].info)

    def _next(self, prepared: Prepared) -> bool:
        """Submits what may start now; returns whether it did."""
        train, before = self.followed["train"].info.state, len(self.followed)
        if not self._earlier_ended:
            self._cancel_evaluations(prepared, of_this_training=False)
            self._earlier_ended = True
        if "eval" not in self.followed and self._evaluable(train, prepared):
            self._submit("eval", prepared)
        if "export" not in self.followed and train is JobState.SUCCEEDED:
            self._submit("export", prepared)
        if self._train_failed and not self._cancelled:
            # Nothing more can come to be evaluated: its machine is not paid for waiting.
            self._cancel_evaluations(prepared, of_this_training=True)
            self._cancelled = True
        return len(self.followed) > before

    def _evaluable(self, train: JobState, prepared: Prepared) -> bool:
        if train is JobState.RUNNING:
            return self.objects.exists(prepared.layout.model / "checkpoint")
        return train is JobState.SUCCEEDED

    def _cancel_evaluations(self, prepared: Prepared, of_this_training: bool) -> None:
        """Ends evaluations that run for a training which is over."""
        own = label(f"{prepared.run_id}-eval-{self._train_attempt}-")
        for info in self.jobs.list({RUN_LABEL: label(prepared.run_id), KIND_LABEL: "eval"}):
            is_own = info.labels.get(INTENT_LABEL, "").startswith(own)
            if is_own is of_this_training and info.state in _CANCELLABLE:
                self.jobs.cancel(info.name)

    @property
    def _train_failed(self) -> bool:
        state = self.followed["train"].info.state
        return state.terminal and state is not JobState.SUCCEEDED

    def _over(self) -> bool:
        ended = all(followed.info.state.terminal for followed in self.followed.values())
        return ended and (self._train_failed or len(self.followed) == len(KINDS))

    def _submit(self, kind: Kind, prepared: Prepared) -> None:
        """Submits a job, or finds the one that an earlier start submitted."""
        attempt = self._attempt_of(kind, prepared.layout)
        if kind == "train":
            self._train_attempt = attempt
        body = prepared.request(kind, self.session.settings, attempt, self._train_attempt)
        info = self.submitter.submit(body, self._claim(kind, attempt, prepared.layout))
        steps = whole_blocks(self.spec.train.steps) if kind == "train" else None
        self.followed[kind] = _Followed(info, Progress(total_steps=steps))
        if not info.state.terminal:
            self.logs.job_ids.append(info.id)
        self.reporter.state(kind, info)

    def _claim(self, kind: Kind, attempt: int, layout: RunLayout) -> GcsUri:
        return layout.claim(intent_of(kind, attempt, self._train_attempt))

    def _attempt_of(self, kind: Kind, layout: RunLayout) -> int:
        """The attempt to go on with: the last one claimed, or the next when that one failed and a retry is wanted."""
        attempt = 1
        while True:
            claim = self.submitter.find(self._claim(kind, attempt, layout))
            if claim is None or not claim.job:
                return attempt
            found = self._ended_badly(claim.job)
            if not found:
                return attempt
            if not self.options.retry and self.submitter.find(self._claim(kind, attempt + 1, layout)) is None:
                raise JobFailedError(f"going on with the {kind} job", claim.job, found,
                                     "read its log with `gcpod jobs logs`, then run again with --retry")
            attempt += 1

    def _ended_badly(self, name: str) -> str:
        """Why a job is nothing to go on with; "" when it is."""
        if f"/locations/{self.session.region}/" not in name:
            return f"it ran in another region than {self.session.region}"
        try:
            info = self.jobs.get(name)
        except NotFoundError:
            return "it was deleted"
        if not info.state.terminal or info.state is JobState.SUCCEEDED:
            return ""
        return f"its last attempt ended {info.state.short}" + (f": {info.error}" if info.error else "")

    def _poll(self, prepared: Prepared) -> bool:
        """One listing for all jobs, their new log lines, the new TensorBoard bytes; returns whether anything moved.

        Raises:
            OutageError: a service is out of reach.
        """
        moved = False
        infos = {info.name: info for info in self.jobs.list({RUN_LABEL: label(prepared.run_id)})}
        for kind, followed in self.followed.items():
            info = infos.get(followed.info.name) or self.jobs.get(followed.info.name)
            if info.state is not followed.info.state:
                followed.info, moved = info, True
                self.reporter.state(kind, info)
        self._cancel_doubles(infos.values())
        moved = self._read_logs() or moved
        fetch_tensorboard(self.objects, prepared.layout.model, Workdir.of(self.spec).tensorboard(prepared.run_id))
        return moved

    def _cancel_doubles(self, infos: Iterable[JobInfo]) -> None:
        """Ends jobs of an intent that has another job: a create whose fate was unknown may take effect late."""
        chosen = {followed.info.labels.get(INTENT_LABEL): followed.info.name for followed in self.followed.values()}
        for info in infos:
            name = chosen.get(info.labels.get(INTENT_LABEL), info.name)
            if name != info.name and info.state in _CANCELLABLE:
                self.jobs.cancel(info.name)

    def _read_logs(self) -> bool:
        """New lines of all jobs, and the progress they tell; who may not read logs trains without them."""
        if self._logs_refused or not self.logs.job_ids:
            return False
        try:
            lines = self.logs.poll()
        except AuthError as e:
            self._logs_refused = True
            self.reporter.say(f"going on without logs: {e}")
            return False
        for kind, followed in self.followed.items():
            mine = [line for line in lines if line.job == followed.info.id]
            progress = read_progress(followed.progress, (line.text for line in mine))
            if mine:
                self.reporter.lines(kind, mine)
            if progress != followed.progress:
                followed.progress = progress
                self.reporter.progress(kind, progress)
        return bool(lines)

    def _result(self, prepared: Prepared) -> RunResult:
        folder = Workdir.of(self.spec).tensorboard(prepared.run_id)
        fetch_tensorboard(self.objects, prepared.layout.model, folder)
        if not self.objects.exists(prepared.layout.saved_model / "saved_model.pb"):
            raise StorageError("looking for the exported model", prepared.layout.saved_model, "it is not there",
                               "start over with `gcpod run --again`")
        outcome = RunResult(
            run_id=prepared.run_id, root=str(prepared.layout.root), saved_model=str(prepared.layout.saved_model),
            tensorboard=folder, jobs={kind: followed.info.name for kind, followed in self.followed.items()},
            metrics=tuple(read_metrics(folder)),
        )
        steps = whole_blocks(self.spec.train.steps)
        if outcome.final is None or outcome.final.step < steps:
            self.reporter.say(f"warning: the checkpoint of step {steps} was not evaluated; see the eval job's log")
        write_result(outcome, Workdir.of(self.spec).result(prepared.run_id))
        return outcome


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
