"""What a run asks of Vertex AI: pure functions from a spec to the body of customJobs.create.

Fields: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gcpod.errors import SpecError
from gcpod.jobs.machines import kind_of, offered
from gcpod.jobs.pools import Pool, eval_pool, export_pool, once_pool, to_pool, train_pool, with_evaluator
from gcpod.layout import RunLayout
from gcpod.runtimes import Runtime
from gcpod.runtimes.recipe import image_address
from gcpod.spec import EvalSpec, ExportSpec, MachineSpec, ScheduleSpec, Spec, TrainSpec

Kind = Literal["train", "eval", "export"]
KINDS: tuple[Kind, ...] = ("train", "eval", "export")
RUN_LABEL = "gcpod_run"
INTENT_LABEL = "gcpod_intent"
KIND_LABEL = "gcpod_kind"
_MAX_LABEL = 63
_MAX_NAME = 16
"""Of a checkpoint, in the name of an intent, which shares a label with the run's id."""
_MAX_DISPLAY_NAME = 128
"""Characters (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs)."""


@dataclass(frozen=True)
class JobPlan:
    """One job as it would be submitted.

    Attributes:
        kind: train, eval or export.
        pools: what runs on which machines, in Vertex AI's order; None for an empty pool.
        packages: gs:// addresses, in import order.
        timeout_s: seconds after which Vertex AI ends it.
        schedule: how it gets its machines.
        labels: the user's and gcpod's own.
    """

    kind: Kind
    pools: tuple[Pool | None, ...]
    packages: tuple[str, ...]
    timeout_s: int
    schedule: ScheduleSpec = ScheduleSpec()
    labels: dict[str, str] = field(default_factory=dict)


def kinds_of(spec: Spec) -> tuple[Kind, ...]:
    """The jobs of a run: an evaluation that is a pool of the training's job is none of its own."""
    return ("train", "export") if spec.eval.beside == "pool" else KINDS


def wanted_of(spec: Spec, kind: Kind) -> TrainSpec | EvalSpec | ExportSpec:
    """What is asked of one kind of job: its machine, time limit and schedule among it."""
    asked: dict[Kind, TrainSpec | EvalSpec | ExportSpec] = {
        "train": spec.train, "eval": spec.eval, "export": spec.export,
    }
    return asked[kind]


def machines_of(spec: Spec, region: str) -> tuple[dict[Kind, MachineSpec], tuple[str, ...]]:
    """The machine each kind of job will run on in a region, and what to say where it is another than asked."""
    answers = {kind: offered(wanted_of(spec, kind).machine, region) for kind in KINDS}
    notes = tuple(f"{kind}: {note}" for kind, (_, note) in answers.items() if note)
    return {kind: machine for kind, (machine, _) in answers.items()}, notes


def intent_of(kind: Kind, attempt: int, train_attempt: int, checkpoint: str = "") -> str:
    """Names one attempt of a job within its run: an evaluation or export belongs to the training it works on.

    One pass over a checkpoint, a name such as ckpt-5 or a gs:// address, is an intent of its own (``eval-ckpt-5-1``).
    """
    if kind == "train":
        return f"train-{attempt}"
    if not checkpoint:
        return f"{kind}-{train_attempt}-{attempt}"
    name = label(checkpoint.rsplit("/", 1)[-1])[-_MAX_NAME:]
    if name != checkpoint:
        name += f"-{hashlib.sha256(checkpoint.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return f"{kind}-{name}-{attempt}"


def plan_job(
    kind: Kind, attempt: int, spec: Spec, layout: RunLayout, machines: Mapping[Kind, MachineSpec],
    packages: Sequence[str], run_id: str, train_attempt: int, checkpoint: str = "",
) -> JobPlan:
    """The plan of one of a run's jobs.

    Args:
        kind: which job.
        attempt: counted from 1; each attempt is an intent of its own.
        spec: what the user asks for.
        layout: where the run's things lie.
        machines: what the region offers, by kind of job.
        packages: gs:// addresses of the uploaded packages.
        run_id: names the run.
        train_attempt: the training whose end an evaluation waits for.
        checkpoint: the one to evaluate or export, a name such as ckpt-5 in the run's model or a gs:// address; by
            default an evaluation follows the training, and an export takes what export.checkpoint says.

    Raises:
        SpecError: there is no such checkpoint or job.
    """
    pools: tuple[Pool | None, ...]
    wanted = wanted_of(spec, kind)
    if kind == "train":
        pools = _train_pools(spec, layout, machines, train_attempt, checkpoint)
    elif kind == "export":
        pools = (export_pool(spec, layout, machines[kind], checkpoint),)
    elif checkpoint:
        pools = (once_pool(layout, machines[kind], checkpoint),)
    elif spec.eval.beside == "pool":
        raise SpecError("planning the evaluation of", run_id, "it is a pool of the training's job (eval.beside)",
                        "name a checkpoint to evaluate, such as ckpt-5, or set eval.beside: job")
    else:
        pools = (eval_pool(spec, layout, machines[kind], train_attempt),)
    intent = intent_of(kind, attempt, train_attempt, checkpoint)
    labels = {RUN_LABEL: label(run_id), INTENT_LABEL: label(f"{run_id}-{intent}"), KIND_LABEL: kind}
    timeout_s = int(wanted.timeout_hours * 3600)
    return JobPlan(kind, pools, tuple(packages), timeout_s, wanted.schedule, {**(spec.jobs.labels or {}), **labels})


def _train_pools(
    spec: Spec, layout: RunLayout, machines: Mapping[Kind, MachineSpec], train_attempt: int, checkpoint: str,
) -> tuple[Pool | None, ...]:
    if checkpoint:
        raise SpecError("planning the training with", checkpoint, "a training goes on from its own last checkpoint",
                        "set model.fine_tune_checkpoint to start from another one")
    sizes = (1, spec.train.workers) if spec.train.workers else (1,)
    pools = tuple(train_pool(spec, layout, machines["train"], train_attempt, replicas) for replicas in sizes)
    if spec.eval.beside == "pool":
        return with_evaluator(pools, eval_pool(spec, layout, machines["eval"], train_attempt))
    return pools


def label(text: str) -> str:
    """A label value: lower case, digits, '_' and '-', at most 63 characters
    (https://cloud.google.com/vertex-ai/docs/general/labels)."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[-_MAX_LABEL:]


def image_uri(spec: Spec, runtime: Runtime, machine: MachineSpec, project: str, region: str) -> str:
    """The image a job starts: the spec's own, else the project's trainer image, else Google's prebuilt one."""
    if spec.runtime.image:
        return spec.runtime.image
    kind = kind_of(machine)
    if spec.runtime.mode == "package":
        return runtime.prebuilt.get(kind, runtime.prebuilt["cpu"])
    return f"{image_address(runtime, kind, project, region)}:latest"


def to_request(
    plan: JobPlan, spec: Spec, layout: RunLayout, run_id: str, image: Callable[[MachineSpec], str],
) -> dict[str, Any]:
    """The body of customJobs.create, as it goes over the wire; ``image`` gives the image for a machine."""
    job_spec: dict[str, Any] = {
        "workerPoolSpecs": [to_pool(pool, spec.jobs, spec.runtime.mode, plan.packages, image) for pool in plan.pools],
        "scheduling": _to_scheduling(plan.schedule, plan.timeout_s),
        "baseOutputDirectory": {"outputUriPrefix": str(layout.root)},
    }
    given = {"serviceAccount": spec.service_account, "network": spec.jobs.network, "tensorboard": spec.jobs.tensorboard}
    job_spec |= {key: value for key, value in given.items() if value}
    body = {"displayName": _display_name(run_id, plan.kind), "labels": dict(plan.labels), "jobSpec": job_spec}
    if spec.jobs.kms_key:
        body["encryptionSpec"] = {"kmsKeyName": spec.jobs.kms_key}
    return body


def _display_name(run_id: str, kind: Kind) -> str:
    """The end of a run's id is what tells it from others."""
    return f"{run_id}-{kind}"[-_MAX_DISPLAY_NAME:]


def _to_scheduling(schedule: ScheduleSpec, timeout_s: int) -> dict[str, Any]:
    """https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec#Scheduling, without its defaults."""
    wire: dict[str, Any] = {"timeout": f"{timeout_s}s"}
    if schedule.strategy != "standard":
        wire["strategy"] = schedule.strategy.upper()
    if schedule.strategy == "flex_start" and schedule.max_wait_hours is not None:
        wire["maxWaitDuration"] = f"{int(schedule.max_wait_hours * 3600)}s"
    if schedule.restart_workers:
        wire["restartJobOnWorkerRestart"] = True
    if not schedule.retries:
        wire["disableRetries"] = True
    return wire
