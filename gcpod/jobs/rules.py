"""What Vertex AI would refuse of a run's jobs, or what contradicts itself in them, said before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from gcpod.errors import PackageError, SpecError
from gcpod.jobs.machines import check_machine, is_pod, runs_tensorflow, runtimes_for, tensorflow_of, tpu_cores
from gcpod.jobs.pools import PLACEHOLDER, environment
from gcpod.jobs.request import KINDS, Kind, machines_of, wanted_of
from gcpod.runtimes import find_runtime
from gcpod.settings import Settings
from gcpod.spec import MachineSpec, ScheduleSpec, Spec
from gcpod.status import Finding

LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
MAX_LABELS = 60
"""Of the 64 that a resource may have (https://cloud.google.com/vertex-ai/docs/general/labels); the rest is gcpod's."""
MAX_ENV = 100
"""https://cloud.google.com/vertex-ai/docs/reference/rest/v1/ContainerSpec"""
_OWN_LABELS = "gcpod_"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENV_OF_VERTEX = re.compile(r"(AIP_|CLOUD_ML_).*|TF_CONFIG|CLUSTER_SPEC")
"""https://cloud.google.com/vertex-ai/docs/training/code-requirements#environment-variables"""
FLEX_START = frozenset({"NVIDIA_L4", "NVIDIA_TESLA_A100", "NVIDIA_A100_80GB", "NVIDIA_H100_80GB",
                        "NVIDIA_H100_MEGA_80GB", "NVIDIA_H200_141GB", "NVIDIA_B200"})
"""https://cloud.google.com/vertex-ai/docs/training/schedule-jobs-dws#requirements, read 2026-11-21"""
_METRICS = {
    "coco_detection_metrics": "DetectionBoxes_", "coco_mask_metrics": "DetectionMasks_",
    "pascal_voc_detection_metrics": "PascalBoxes_", "oid_V2_detection_metrics": "OpenImagesV2_",
    "weighted_pascal_voc_detection_metrics": "WeightedPascalBoxes_",
    "oid_challenge_detection_metrics": "OpenImagesDetectionChallenge_",
}
"""How the names of each metrics_set begin (object_detection/metrics/, utils/object_detection_evaluation.py)."""
_LOSS = "Loss/"
_WORD = re.compile(r"\{[a-z_]+\}")


def check_jobs(spec: Spec, settings: Settings) -> list[Finding]:
    """All findings about a spec's jobs in a project and region; nothing is asked of any service.

    Raises:
        SpecError: there is no such runtime, or the user's table of machines cannot be read.
    """
    region = settings.region.value
    machines, _ = machines_of(spec, region)
    findings = [
        finding for kind in KINDS
        for finding in check_machine(machines[kind], region, f"{kind}.machine", evaluation=kind == "eval")
    ]
    for kind in KINDS:
        findings += _runtime(spec, kind, machines[kind])
        findings += _schedule(kind, wanted_of(spec, kind).schedule, wanted_of(spec, kind).machine)
    for rule in (_together, _beside, _metric, _module, _arguments, _labels, _env):
        findings += rule(spec)
    return findings + list(_resources(spec, settings))


def refuse_jobs(spec: Spec, settings: Settings) -> None:
    """Ends what would only fail later.

    Raises:
        SpecError: the first error of check_jobs, or as that raises.
    """
    errors = [finding for finding in check_jobs(spec, settings) if finding.severity == "error"]
    if errors:
        first, more = errors[0], f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        raise SpecError("planning the jobs by", first.where, first.found, first.fix + more, code=first.code)


def _wrong(where: str, found: str, fix: str, code: str = "E101") -> Finding:
    return Finding(code, "error", where, found, fix)


def _runtime(spec: Spec, kind: Kind, machine: MachineSpec) -> Iterator[Finding]:
    """What the machine asks of TensorFlow, which is the runtime's whatever image it comes in."""
    runtime = find_runtime(spec.runtime.name)
    # An evaluation on what needs a TensorFlow of its own, a TPU, is refused for that already.
    if kind != "eval" and not runs_tensorflow(machine, runtime.tensorflow):
        able = runtimes_for(machine)
        yield _wrong(f"{kind}.machine", f"{machine} needs TensorFlow {tensorflow_of(machine)}, {runtime.name} has "
                     f"{runtime.tensorflow}", f"set runtime.name: {able[0]}" if able else "choose another machine",
                     "J402")


def _schedule(kind: Kind, schedule: ScheduleSpec, machine: MachineSpec) -> Iterator[Finding]:
    where, flex = f"{kind}.schedule", schedule.strategy == "flex_start"
    if schedule.max_wait_hours is not None and not flex:
        yield _wrong(f"{where}.max_wait_hours", f"only flex_start waits for a machine, and the strategy is "
                     f"{schedule.strategy}", f"set {where}.strategy: flex_start, or leave it empty")
    if schedule.restart_workers and not schedule.retries:
        yield _wrong(f"{where}.restart_workers", "Vertex AI restarts nothing where retries are off",
                     f"set {where}.retries: true, or restart_workers: false")
    if schedule.strategy == "spot" and is_pod(machine):
        yield _wrong(f"{where}.strategy", f"{machine} is a TPU pod, which is not offered as spot",
                     "use standard, or a TPU of one machine", "J402")
    if flex and machine.accelerator not in FLEX_START:
        yield _wrong(f"{where}.strategy", f"{machine} cannot be waited for by flex_start",
                     f"use standard or spot, or an accelerator of {', '.join(sorted(FLEX_START))}", "J402")


def _together(spec: Spec) -> Iterator[Finding]:
    """Machines that train together."""
    train, machine = spec.train, spec.train.machine
    if not train.workers:
        return
    if machine.is_tpu:
        yield _wrong("train.workers", f"{machine} trains alone: a job on TPUs is one machine to Vertex AI",
                     "set train.workers: 0; more TPU cores are a larger count or topology", "J402")
    elif machine.accelerator is None and train.batch_size % (train.workers + 1):
        yield _wrong("train.batch_size", f"a batch of {train.batch_size} does not divide among "
                     f"{train.workers + 1} machines", f"make it a multiple of {train.workers + 1}", "C208")


def _beside(spec: Spec) -> Iterator[Finding]:
    """An evaluation that is a pool of the training's job."""
    if spec.eval.beside != "pool":
        return
    if tpu_cores(spec.train.machine):
        yield _wrong("eval.beside", f"a job on {spec.train.machine} has no other machines", "set eval.beside: job",
                     "J402")
    if spec.train.schedule.strategy == "flex_start" and spec.eval.machine != spec.train.machine:
        yield _wrong("eval.beside", "flex_start waits for machines of one kind only",
                     "set eval.beside: job, or give both the same machine", "J402")
    if spec.eval.schedule != ScheduleSpec():
        yield Finding("E101", "warning", "eval.schedule", "a pool of the training's job gets its machine as that does",
                      "train.schedule counts; this one counts for passes over one checkpoint only")


def _metric(spec: Spec) -> Iterator[Finding]:
    wanted, where = spec.eval.best_metric, "eval.best_metric"
    if not wanted or wanted.startswith("-"):
        yield _wrong(where, f"{wanted!r} is no name of a metric", "name one as TensorBoard shows it")
        return
    start = _METRICS.get(spec.eval.metrics or "", "")
    if start and not wanted.startswith((start, _LOSS)):
        yield _wrong(where, f"an evaluation by {spec.eval.metrics} has no {wanted}, so that no checkpoint is the best",
                     f"name one that begins with {start} or {_LOSS}")


def _module(spec: Spec) -> Iterator[Finding]:
    """The user's own module in place of the trainer's."""
    module, where = spec.train.module, "train.module"
    if module is None:
        if spec.train.arguments is not None:
            yield _wrong("train.arguments", "they are a module's of your own, and train.module names none",
                         "name it, or set fields of the config by model.set")
        return
    if spec.packages.training is None:
        yield _wrong(where, f"no package brings {module}", "name its folder as packages.training")
        return
    from gcpod.packaging.project import read_project

    with suppress(PackageError):  # Told with the packages.
        files = read_project(spec.local_path(spec.packages.training)).sdist.files
        path = module.replace(".", "/")
        if f"{path}.py" not in files and f"{path}/__main__.py" not in files:
            known = sorted(one.removesuffix(".py").replace("/", ".") for one in files if one.endswith(".py"))
            yield _wrong(where, f"{spec.packages.training} has no module {module} that can be run",
                         f"it has {', '.join(known[:10])}{', …' if len(known) > 10 else ''}")


def _arguments(spec: Spec) -> Iterator[Finding]:
    for argument in spec.train.arguments or ():
        for word in _WORD.findall(argument):
            if not PLACEHOLDER.fullmatch(word):
                yield Finding("E101", "warning", "train.arguments", f"{word} stands for nothing and stays as it is",
                              "known are {data}, {config}, {model}, {label_map} and {root}")


def _labels(spec: Spec) -> Iterator[Finding]:
    labels, where = spec.jobs.labels or {}, "jobs.labels"
    if len(labels) > MAX_LABELS:
        yield _wrong(where, f"there are {len(labels)} of them", f"keep {MAX_LABELS}")
    for key, value in labels.items():
        if key.startswith(_OWN_LABELS):
            yield _wrong(where, f"{key} has the beginning of gcpod's own", f"rename it so that it does not start with "
                         f"{_OWN_LABELS}")
        elif not LABEL_KEY.fullmatch(key):
            yield _wrong(where, f"{key!r} is no name of a label",
                         "use up to 63 lower-case letters, digits, '_' and '-', and a letter first")
        if not LABEL_VALUE.fullmatch(value):
            yield _wrong(where, f"{key} is {value!r}, which is no value of a label",
                         "use up to 63 lower-case letters, digits, '_' and '-'")


def _env(spec: Spec) -> Iterator[Finding]:
    where = "jobs.env"
    count = max(len(environment(machine, spec.jobs)) for machine in (spec.train.machine, spec.export.machine))
    if count > MAX_ENV:
        yield _wrong(where, f"a job would get {count} variables", f"Vertex AI takes {MAX_ENV}")
    for name in spec.jobs.env or {}:
        if not _ENV_NAME.fullmatch(name):
            yield _wrong(where, f"{name!r} is no name of a variable", "use letters, digits and '_', no digit first")
        elif _ENV_OF_VERTEX.fullmatch(name):
            yield _wrong(where, f"{name} is set by Vertex AI itself", "leave it out")


def _resources(spec: Spec, settings: Settings) -> Iterator[Finding]:
    """Things of Vertex AI's and Cloud KMS's that have to lie where the jobs run."""
    project, region = settings.project.value, settings.region.value
    if spec.jobs.tensorboard is not None:
        where, (_, its_project, _, its_region, *_) = "jobs.tensorboard", spec.jobs.tensorboard.split("/")
        if spec.service_account is None:
            yield _wrong(where, "jobs that write to a Vertex AI TensorBoard run as a service account of yours",
                         "name it as service_account")
        if its_region != region:
            yield _wrong(where, f"it lies in {its_region}, the jobs run in {region}", f"name one in {region}")
        # A number may be the project's own: which it is could only be asked.
        if its_project != project and not its_project.isdecimal():
            yield _wrong(where, f"it belongs to {its_project}, the jobs to {project}", f"name one of {project}")
    if spec.jobs.kms_key is not None:
        its_region = spec.jobs.kms_key.split("/")[3]
        if its_region != region:
            yield _wrong("jobs.kms_key", f"it lies in {its_region}, the jobs run in {region}",
                         f"name a key of a key ring in {region}")
