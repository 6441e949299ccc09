"""What a run came to: metrics and model where they should be, written down, and told to whoever wants to know."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

from gcpod.errors import GcpodError, StorageError
from gcpod.jobs.budget import budget_of
from gcpod.jobs.notify import EndedJob, Outcome
from gcpod.jobs.prices import Price, Unknown, total, worst_cost
from gcpod.jobs.request import Kind
from gcpod.prepare import Prepared, Workdir
from gcpod.results.metrics import read_metrics
from gcpod.results.report import RunResult, write_result
from gcpod.results.tensorboard import fetch_tensorboard
from gcpod.session import Session
from gcpod.spec import Spec, whole_blocks
from gcpod.status import JobInfo
from gcpod.storage.objects import Objects
from gcpod.sweeps import best_of


def result_of(
    spec: Spec, prepared: Prepared, objects: Objects, jobs: dict[str, str], train_attempt: int,
    say: Callable[[str], None],
) -> RunResult:
    """The result of a run whose jobs succeeded, which is written beside its logs too.

    Args:
        spec, prepared: of the run.
        objects: its bucket's.
        jobs: resource name of each job by kind.
        train_attempt: the training that led to it.
        say: told what is odd.

    Raises:
        StorageError: the exported model is not there.
    """
    layout, folder = prepared.layout, Workdir.of(spec).tensorboard(prepared.run_id)
    fetch_tensorboard(objects, layout.model, folder)
    if not objects.exists(layout.saved_model / "saved_model.pb"):
        raise StorageError("looking for the exported model", layout.saved_model, "it is not there",
                           "start over with `gcpod run --again`")
    outcome = RunResult(
        run_id=prepared.run_id, root=str(layout.root), saved_model=str(layout.saved_model), tensorboard=folder,
        jobs=jobs, metrics=tuple(read_metrics(folder)),
    )
    stopped, steps = objects.read(layout.stop(train_attempt)), whole_blocks(spec.train.steps)
    if stopped is not None:
        say(f"stopped early: {_reason(stopped.content)}")
    elif outcome.final is None or outcome.final.step < steps:
        say(f"warning: the checkpoint of step {steps} was not evaluated; see the eval job's log")
    write_result(outcome, Workdir.of(spec).result(prepared.run_id))
    return outcome


def _reason(content: bytes) -> str:
    """Why somebody had the training end, as whoever did wrote it down."""
    try:
        told = json.loads(content)
        return f"{told['reason']} (step {int(told['step'])})"
    except (ValueError, KeyError, TypeError):
        return "somebody wrote the word to stop into the bucket"


def ended_run(
    run_id: str, spec: Spec, session: Session, jobs: Sequence[tuple[Kind, JobInfo]], done: RunResult | None, error: str,
) -> Outcome:
    """How a run ended, for whoever is notified.

    Args:
        run_id, spec, session: of the run.
        jobs: every job that was watched, with those that others took the place of.
        done: what came of it; None where it failed.
        error: why it did.
    """
    infos = [info for _, info in jobs]
    return Outcome(
        run_id=run_id, state="SUCCEEDED" if done is not None else "FAILED", error=error,
        jobs=tuple(EndedJob(kind, info.name, info.state, session.console_url(info.id)) for kind, info in jobs),
        metrics=best_of(done.metrics, spec.eval.best_metric) if done is not None else None,
        started=min((info.create_time for info in infos), default=""),
        ended=max((info.end_time for info in infos), default=""),
        cost=spent(spec, session, jobs) if jobs else None,
    )


def spent(spec: Spec, session: Session, jobs: Sequence[tuple[Kind, JobInfo]]) -> Price:
    """What jobs have cost from their starts to their ends, by the prices at hand; unknown while one runs."""
    try:
        hourly = {cost.kind: cost.per_hour for cost in budget_of(spec, session.settings).costs}
    except GcpodError as e:
        # A sum that nobody steers by must not cost a run its end.
        return Unknown(str(e))
    parts = [
        worst_cost(hourly[kind], math.ceil(info.run_s)) if info.end_time else Unknown(f"the {kind} job has not ended")
        for kind, info in jobs if kind in hourly
    ]
    return total(parts) if parts else Unknown("no job has run")
