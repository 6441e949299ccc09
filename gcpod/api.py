"""The commands as Python calls: each takes a spec or the path of one, and the same choice of cloud."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from gcpod.checks import check as check_spec
from gcpod.connection import LOCAL_PATIENCE_S, connect, loaded, objects_of, settings_of
from gcpod.data.build import DatasetRequest
from gcpod.data.check import Progress
from gcpod.data.manifest import DatasetManifest
from gcpod.inputs import RunOptions
from gcpod.jobs.budget import budget_of, sweep_budget
from gcpod.jobs.ended import findings_of
from gcpod.jobs.reporter import Quiet, Reporter
from gcpod.jobs.request import Kind
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import JobWatch
from gcpod.jobs.watch import result as succeeded
from gcpod.layout import RunLayout
from gcpod.results.report import RunResult
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.spec import Spec
from gcpod.status import Finding, JobInfo
from gcpod.storage.datasets import build_and_upload, build_to_bucket
from gcpod.storage.mirror import Mirrored
from gcpod.sweeping import Sweep
from gcpod.sweeps import Table, expand
from gcpod.uris import GcsUri


def build_in_bucket(
    request: DatasetRequest, to: str, spec: Spec | Path | str | None = None, *, copy: bool = False, local: bool = False,
    endpoint: str | None = None, progress: Progress | None = None,
) -> DatasetManifest:
    """Builds a dataset into a bucket.

    Args:
        request: what to build.
        to: ``gs://BUCKET/FOLDER``; the bucket is made where it is missing.
        spec: names project, region and credentials, or leaves them to the environment and to gcloud.
        copy: also keep it in ``request.out``, and upload each shard while the next one is built.
        local, endpoint: see connect.
        progress: called with ("check" or "write", images done, images in all).

    Raises:
        DataError, SpecError: an input is wrong.
        StorageError, AuthError: the bucket cannot be written.
    """
    uri = GcsUri.parse(to)
    session = connect(loaded(spec or Spec()), local=local, endpoint=endpoint)
    objects = objects_of(session)
    objects.ensure_bucket(uri.bucket)
    make = build_and_upload if copy else build_to_bucket
    return make(request, objects, uri, progress)


def check(spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None) -> list[Finding]:
    """Everything that can be known before a cent is spent; see checks.check."""
    asked = loaded(spec)
    return check_spec(asked, settings_of(asked, local=local, endpoint=endpoint))


def open_run(
    spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, options: RunOptions | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """A run of a spec, not started; see runner.Run."""
    asked = loaded(spec)
    session = connect(asked, local=local, endpoint=endpoint)
    return Run(asked, session, reporter or Quiet(), _patient(options, session))


def open_sweep(
    spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, options: RunOptions | None = None,
    reporter: Reporter | None = None,
) -> Sweep:
    """The runs of a spec's sweep, not started; see sweeping.Sweep."""
    asked = loaded(spec)
    session = connect(asked, local=local, endpoint=endpoint)
    return Sweep(asked, session, reporter or Quiet(), _patient(options, session))


def _patient(options: RunOptions | None, session: Session) -> RunOptions:
    """A server on this machine that is gone does not come back by itself, as a network does."""
    chosen = options or RunOptions()
    return replace(chosen, patience_s=LOCAL_PATIENCE_S) if session.is_local else chosen


def run(
    spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, again: bool = False,
    retry: bool = False, max_cost: Decimal | str | None = None, reporter: Reporter | None = None,
) -> RunResult:
    """Dataset, bucket, training, evaluation, export: everything that is not done yet.

    Args:
        spec: what to train, or the path of its gcpod.yaml.
        local, endpoint: see connect.
        again: start a new run although one of the same inputs exists.
        retry: submit a new attempt of a job that failed or was cancelled.
        max_cost: shortens the jobs' time limits to what it pays for, in the currency of the prices; None: no limit.
        reporter: told what happens; by default nobody.

    Raises:
        GcpodError: an input is wrong, the cloud refuses, or a job failed.
    """
    asked = loaded(spec)
    if max_cost is not None:
        settings = settings_of(asked, local=local, endpoint=endpoint)
        asked = budget_of(asked, settings, max_cost=max_cost).spec
    options = RunOptions(again=again, retry=retry)
    return open_run(asked, local=local, endpoint=endpoint, options=options, reporter=reporter).start()


def sweep(
    spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, retry: bool = False,
    max_cost: Decimal | str | None = None, reporter: Reporter | None = None,
) -> Table:
    """Runs everything that the spec's ``sweep`` names, some at a time; what became of each, the best first.

    A run that fails ends no other: its row says why. ``max_cost`` is for all runs together, as for run.

    Raises:
        SpecError: the sweep cannot be understood, or the money cannot be kept to.
        OutageError: the cloud was out of reach for longer than patience lasts.
    """
    options, asked = RunOptions(retry=retry), loaded(spec)
    if max_cost is not None:
        settings = settings_of(asked, local=local, endpoint=endpoint)
        asked = sweep_budget(asked, [one.spec for one in expand(asked)], settings, max_cost=max_cost).spec
    return open_sweep(asked, local=local, endpoint=endpoint, options=options, reporter=reporter).start()


def upload(spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None) -> RunLayout:
    """Builds records, config and packages, makes the bucket hold them, and returns where they lie."""
    return open_run(spec, local=local, endpoint=endpoint).upload().layout


def submit(
    kind: Kind, spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, retry: bool = False,
    checkpoint: str = "", max_cost: Decimal | str | None = None,
) -> JobInfo:
    """Uploads what is missing and submits one job, or finds it where it was submitted before.

    ``checkpoint``, such as ckpt-5, makes an evaluation one pass over that; ``max_cost`` is for this job, as for run.
    """
    asked = loaded(spec)
    if max_cost is not None:
        settings = settings_of(asked, local=local, endpoint=endpoint)
        asked = budget_of(asked, settings, max_cost=max_cost, kinds=[kind]).spec
    return open_run(asked, local=local, endpoint=endpoint, options=RunOptions(retry=retry)).submit(kind, checkpoint)


def wait(
    *names: str, spec: Spec | Path | str | None = None, local: bool = False, endpoint: str | None = None,
    deadline_s: float | None = None, say: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> dict[str, JobInfo]:
    """Waits until jobs have ended, on any machine; the last word on each by its resource name, also on those that
    failed.

    Args:
        names: ids, or resource names, which may be of other regions.
        spec: names project, region and credentials, or leaves them to the environment and to gcloud.
        local, endpoint: see connect.
        deadline_s: seconds after which waiting is given up; None: never.
        say: told of outages.
        clock, sleep: seconds; the process's own unless given.

    Raises:
        DeadlineError: the time is over; the jobs go on.
        NotFoundError: there is no such job.
        OutageError: a local cloud was out of reach for a minute.
    """
    return _ended(_jobs(spec, local, endpoint), names, deadline_s, say, clock, sleep)


def result(
    *names: str, spec: Spec | Path | str | None = None, local: bool = False, endpoint: str | None = None,
    deadline_s: float | None = None, say: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> dict[str, JobInfo]:
    """As wait, and all jobs have succeeded.

    Raises:
        JobFailedError: a job did not; of the first in the order of the names, with what its log shows.
        DeadlineError, NotFoundError, OutageError: as wait.
    """
    jobs = _jobs(spec, local, endpoint)
    ended = _ended(jobs, names, deadline_s, say, clock, sleep)
    for name, info in ended.items():
        succeeded(info, findings_of(jobs.session_of(name), info))
    return ended


def _jobs(spec: Spec | Path | str | None, local: bool, endpoint: str | None) -> Jobs:
    return Jobs(connect(loaded(spec or Spec()), local=local, endpoint=endpoint))


def _ended(
    jobs: Jobs, names: Sequence[str], deadline_s: float | None, say: Callable[[str], None],
    clock: Callable[[], float], sleep: Callable[[float], None],
) -> dict[str, JobInfo]:
    patience_s = LOCAL_PATIENCE_S if jobs.session.is_local else math.inf
    return JobWatch(jobs, names, clock, sleep, say=say, patience_s=patience_s).wait(deadline_s)


def fetch_tensorboard(
    spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, out: Path | None = None,
) -> tuple[Path, Mirrored]:
    """Brings a run's event files up to date in a local folder: only new bytes travel."""
    return open_run(spec, local=local, endpoint=endpoint).fetch(out)
