"""What the machines of a job run: worker pools, each a kind of machine, how many of it, a module and its arguments.

Vertex AI calls the pools by their places chief, worker, parameter server and evaluator
(https://cloud.google.com/vertex-ai/docs/training/distributed-training).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gcpod.errors import SpecError
from gcpod.layout import RunLayout
from gcpod.spec import JobsSpec, MachineSpec, Spec, checkpoint_interval
from gcpod.uris import GcsUri

EVALUATOR = 3
"""The evaluator's place among the pools; those before it that a job does not need are empty."""
PLACEHOLDER = re.compile(r"\{(data|config|model|label_map|root)\}")
"""What train.arguments may hold in place of an address, by its name in RunLayout."""
V5E_ENV = {"NEXT_PLUGGABLE_DEVICE_USE_C_API": "true", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so"}
"""What TensorFlow finds a v5e by (https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm)."""
_TRAINER = "object_detection.model_main_tf2"
_EXPORTER = "object_detection.exporter_main_v2"
_CHECKPOINT = re.compile(r"ckpt-[0-9]{1,9}")
_PART_OF_CHECKPOINT = re.compile(r"checkpoint|.*\.(index|meta)|.*\.data-[0-9]+-of-[0-9]+")


@dataclass(frozen=True)
class Pool:
    """Machines of one kind that run the same.

    Attributes:
        machine: what the region will run.
        module: run as ``__main__`` on each.
        arguments: the module's own.
        launcher: options of the launcher, before ``--module``.
        replicas: how many of the machine.
    """

    machine: MachineSpec
    module: str
    arguments: tuple[str, ...]
    launcher: tuple[str, ...]
    replicas: int = 1


def train_pool(spec: Spec, layout: RunLayout, machine: MachineSpec, train_attempt: int, replicas: int = 1) -> Pool:
    """The training, on its chief or on its workers: all get the same."""
    launcher = ("--role", "train", "--marker", str(layout.marker(train_attempt)),
                "--stop", str(layout.stop(train_attempt)))
    return Pool(machine, spec.train.module or _TRAINER, _train_arguments(spec, layout, machine), launcher, replicas)


def _train_arguments(spec: Spec, layout: RunLayout, machine: MachineSpec) -> tuple[str, ...]:
    if spec.train.arguments is not None:
        return tuple(PLACEHOLDER.sub(lambda m: str(getattr(layout, m[1])), one) for one in spec.train.arguments)
    arguments: tuple[str, ...] = (
        f"--model_dir={layout.model}",
        f"--pipeline_config_path={layout.config}",
        f"--checkpoint_every_n={checkpoint_interval(spec.train)}",
    )
    if spec.train.module is not None:
        return arguments
    arguments = (*arguments, "--alsologtostderr")
    if spec.train.workers:
        # Any number above 1 makes it a MultiWorkerMirroredStrategy, which takes its members from TF_CONFIG.
        arguments = (*arguments, f"--num_workers={spec.train.workers + 1}")
    # On a TPU VM the host's own TPU is called "local"; any other name looks for a TPU node (finding J401).
    return (*arguments, "--use_tpu=true", "--tpu_name=local") if machine.is_tpu else arguments


def eval_pool(spec: Spec, layout: RunLayout, machine: MachineSpec, train_attempt: int) -> Pool:
    """The evaluation beside a training, which it ends with."""
    wanted = spec.eval
    launcher: tuple[str, ...] = (
        "--role", "eval", "--marker", str(layout.marker(train_attempt)), "--poll_s", f"{wanted.poll_s:g}",
        "--timeout_s", str(int(wanted.timeout_hours * 3600)), "--best", str(layout.best),
        "--metric", wanted.best_metric, "--min_delta", repr(float(wanted.min_delta)),
    )
    if wanted.stop_after is not None:
        launcher = (*launcher, "--stop_after", str(wanted.stop_after), "--stop",
                    str(layout.stop(train_attempt)))
    return Pool(machine, _TRAINER, _eval_arguments(layout, layout.model), launcher)


def once_pool(layout: RunLayout, machine: MachineSpec, checkpoint: str) -> Pool:
    """One pass over one checkpoint.

    Raises:
        SpecError: it is no checkpoint.
    """
    prefix = checkpoint_uri(checkpoint, layout)
    return Pool(machine, _TRAINER, _eval_arguments(layout, _folder(prefix)), ("--role", "eval", "--once", str(prefix)))


def _eval_arguments(layout: RunLayout, checkpoints: GcsUri) -> tuple[str, ...]:
    return (
        f"--model_dir={layout.model}",
        f"--pipeline_config_path={layout.config}",
        f"--checkpoint_dir={checkpoints}",
        "--alsologtostderr",
    )


def export_pool(spec: Spec, layout: RunLayout, machine: MachineSpec, checkpoint: str = "") -> Pool:
    """The export of the last checkpoint, or of the best.

    Raises:
        SpecError: another checkpoint is asked for. The exporter takes the newest one of a folder
            (object_detection/exporter_lib_v2.py, export_inference_graph), so it must lie in one alone.
    """
    folder = layout.best if spec.export.checkpoint == "best" else layout.model
    if checkpoint:
        folder = _folder(checkpoint_uri(checkpoint, layout))
        if folder != layout.best:
            raise SpecError("exporting the checkpoint", checkpoint,
                            "the exporter takes the newest checkpoint of a folder, and this one does not lie alone",
                            f"set export.checkpoint: best, which exports the one in {layout.best}, or last")
    arguments = (
        "--input_type=image_tensor",
        f"--pipeline_config_path={layout.config}",
        f"--trained_checkpoint_dir={folder}",
        f"--output_directory={layout.export}",
    )
    return Pool(machine, _EXPORTER, arguments, ())


def checkpoint_uri(checkpoint: str, layout: RunLayout) -> GcsUri:
    """The prefix of a checkpoint's files, of a name such as ckpt-5 in the run's model or of a gs:// address.

    Raises:
        SpecError: it is neither.
    """
    if _CHECKPOINT.fullmatch(checkpoint):
        return layout.model / checkpoint
    fix = "give a name such as ckpt-5, or gs://BUCKET/FOLDER/ckpt-5 without .index or .data-…"
    if not checkpoint.startswith("gs://"):
        raise SpecError("using the checkpoint", repr(checkpoint), "it is no name of a checkpoint", fix)
    uri = GcsUri.parse(checkpoint)
    folder, _, name = uri.name.rpartition("/")
    if not folder or not name or not name.isprintable() or _PART_OF_CHECKPOINT.fullmatch(name):
        raise SpecError("using the checkpoint", repr(checkpoint), "it is no prefix of a checkpoint's files", fix)
    return uri


def _folder(prefix: GcsUri) -> GcsUri:
    return GcsUri(prefix.bucket, prefix.name.rpartition("/")[0])


def with_evaluator(pools: tuple[Pool, ...], evaluator: Pool) -> tuple[Pool | None, ...]:
    """The pools of a training and its evaluator in its place; None for the empty ones between."""
    return (*pools, *[None] * (EVALUATOR - len(pools)), evaluator)


def to_pool(
    pool: Pool | None, jobs: JobsSpec, mode: str, packages: tuple[str, ...], image: Callable[[MachineSpec], str],
) -> dict[str, Any]:
    """A worker pool as it goes over the wire (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/WorkerPoolSpec).

    Args:
        pool: None for an empty one.
        jobs: what every pool gets: environment and disk.
        mode: container or package.
        packages: gs:// addresses, in import order.
        image: the image for a machine.
    """
    if pool is None:
        return {}
    launcher = [*pool.launcher, "--module", pool.module, "--", *pool.arguments]
    wire: dict[str, Any] = {"machineSpec": _to_machine(pool.machine), "replicaCount": str(pool.replicas)}
    if mode == "container":
        fetched = [part for uri in packages for part in ("--package", uri)]
        task = wire["containerSpec"] = {
            "imageUri": image(pool.machine), "command": ["python", "-m", "gcpod_launcher"], "args": fetched + launcher,
        }
    else:
        task = wire["pythonPackageSpec"] = {
            "executorImageUri": image(pool.machine), "packageUris": list(packages),
            "pythonModule": "gcpod_launcher.__main__", "args": launcher,
        }
    env = environment(pool.machine, jobs)
    if env:
        task["env"] = [{"name": name, "value": value} for name, value in env.items()]
    disk = {"bootDiskType": jobs.disk_type, "bootDiskSizeGb": jobs.disk_gb}
    if given := {key: value for key, value in disk.items() if value is not None}:
        wire["diskSpec"] = given
    return wire


def environment(machine: MachineSpec, jobs: JobsSpec) -> dict[str, str]:
    """The environment of a machine's job beside what Vertex AI sets; what the user gives counts."""
    return {**(V5E_ENV if machine.tpu_topology else {}), **(jobs.env or {})}


def _to_machine(machine: MachineSpec) -> dict[str, Any]:
    wire: dict[str, Any] = {"machineType": machine.type}
    if machine.tpu_topology:
        return wire | {"tpuTopology": machine.tpu_topology}
    if machine.accelerator:
        return wire | {"acceleratorType": machine.accelerator, "acceleratorCount": machine.count}
    return wire
