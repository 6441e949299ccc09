"""What a run asks of Vertex AI: pure functions from a spec to the body of customJobs.create.

Fields: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gcpod.jobs.machines import kind_of
from gcpod.layout import RunLayout
from gcpod.runtimes import Runtime
from gcpod.runtimes.recipe import image_address
from gcpod.spec import MachineSpec, Spec, checkpoint_interval

Kind = Literal["train", "eval", "export"]
KINDS: tuple[Kind, ...] = ("train", "eval", "export")
RUN_LABEL = "gcpod_run"
INTENT_LABEL = "gcpod_intent"
KIND_LABEL = "gcpod_kind"
_V5E = {"NEXT_PLUGGABLE_DEVICE_USE_C_API": "true", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so"}
"""What TensorFlow finds a v5e by (https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm)."""
_MAX_LABEL = 63


@dataclass(frozen=True)
class JobPlan:
    """One job as it would be submitted.

    Attributes:
        kind: train, eval or export.
        machine: what the region will run.
        module: run as ``__main__`` in the job.
        arguments: the module's own.
        launcher: options of the launcher, before ``--module``.
        packages: gs:// addresses, in import order.
    """

    kind: Kind
    machine: MachineSpec
    module: str
    arguments: tuple[str, ...]
    launcher: tuple[str, ...]
    packages: tuple[str, ...]
    timeout_s: int
    labels: dict[str, str] = field(default_factory=dict)


def intent_of(kind: Kind, attempt: int, train_attempt: int) -> str:
    """Names one attempt of a job within its run: an evaluation or export belongs to the training it works on."""
    return f"train-{attempt}" if kind == "train" else f"{kind}-{train_attempt}-{attempt}"


def plan_job(
    kind: Kind, attempt: int, spec: Spec, layout: RunLayout, machine: MachineSpec, packages: Sequence[str], run_id: str,
    train_attempt: int,
) -> JobPlan:
    """The plan of one of a run's jobs.

    Args:
        kind: which job.
        attempt: counted from 1; each attempt is an intent of its own.
        spec: what the user asks for.
        layout: where the run's things lie.
        machine: what the region offers for it.
        packages: gs:// addresses of the uploaded packages.
        run_id: names the run.
        train_attempt: the training whose end an evaluation waits for.
    """
    marker = str(layout.marker(train_attempt))
    arguments: tuple[str, ...]
    launcher: tuple[str, ...]
    if kind == "train":
        module, arguments = "object_detection.model_main_tf2", _train_arguments(spec, layout, machine)
        launcher = ("--role", "train", "--marker", marker)
        hours = spec.train.timeout_hours
    elif kind == "eval":
        module, arguments = "object_detection.model_main_tf2", _eval_arguments(layout)
        launcher = ("--role", "eval", "--marker", marker, "--poll_s", f"{spec.eval.poll_s:g}",
                    "--timeout_s", str(int(spec.eval.timeout_hours * 3600)))
        hours = spec.eval.timeout_hours
    else:
        module, arguments, launcher = "object_detection.exporter_main_v2", _export_arguments(layout), ()
        hours = spec.export.timeout_hours
    intent = intent_of(kind, attempt, train_attempt)
    labels = {RUN_LABEL: label(run_id), INTENT_LABEL: label(f"{run_id}-{intent}"), KIND_LABEL: kind}
    return JobPlan(kind, machine, module, arguments, launcher, tuple(packages), int(hours * 3600), labels)


def _train_arguments(spec: Spec, layout: RunLayout, machine: MachineSpec) -> tuple[str, ...]:
    arguments = (
        f"--model_dir={layout.model}",
        f"--pipeline_config_path={layout.config}",
        f"--checkpoint_every_n={checkpoint_interval(spec.train)}",
        "--alsologtostderr",
    )
    # On a TPU VM the host's own TPU is called "local"; any other name looks for a TPU node (finding J401).
    return (*arguments, "--use_tpu=true", "--tpu_name=local") if machine.is_tpu else arguments


def _eval_arguments(layout: RunLayout) -> tuple[str, ...]:
    return (
        f"--model_dir={layout.model}",
        f"--pipeline_config_path={layout.config}",
        f"--checkpoint_dir={layout.model}",
        "--alsologtostderr",
    )


def _export_arguments(layout: RunLayout) -> tuple[str, ...]:
    return (
        "--input_type=image_tensor",
        f"--pipeline_config_path={layout.config}",
        f"--trained_checkpoint_dir={layout.model}",
        f"--output_directory={layout.export}",
    )


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


def to_request(plan: JobPlan, spec: Spec, layout: RunLayout, run_id: str, image: str) -> dict[str, Any]:
    """The body of customJobs.create, as it goes over the wire."""
    launcher = [*plan.launcher, "--module", plan.module, "--", *plan.arguments]
    machine: dict[str, Any] = {"machineType": plan.machine.type}
    if plan.machine.tpu_topology:
        machine["tpuTopology"] = plan.machine.tpu_topology
    elif plan.machine.accelerator:
        machine |= {"acceleratorType": plan.machine.accelerator, "acceleratorCount": plan.machine.count}
    pool: dict[str, Any] = {"machineSpec": machine, "replicaCount": "1"}
    if spec.runtime.mode == "container":
        fetched = [part for uri in plan.packages for part in ("--package", uri)]
        pool["containerSpec"] = {
            "imageUri": image, "command": ["python", "-m", "gcpod_launcher"], "args": [*fetched, *launcher],
        }
        if plan.machine.tpu_topology:
            pool["containerSpec"]["env"] = [{"name": key, "value": value} for key, value in _V5E.items()]
    else:
        pool["pythonPackageSpec"] = {
            "executorImageUri": image, "packageUris": list(plan.packages),
            "pythonModule": "gcpod_launcher.__main__", "args": launcher,
        }
    job_spec: dict[str, Any] = {
        "workerPoolSpecs": [pool],
        "scheduling": {"timeout": f"{plan.timeout_s}s"},
        "baseOutputDirectory": {"outputUriPrefix": str(layout.root)},
    }
    if spec.service_account:
        job_spec["serviceAccount"] = spec.service_account
    return {"displayName": f"{run_id}-{plan.kind}", "labels": dict(plan.labels), "jobSpec": job_spec}
