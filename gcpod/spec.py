"""What the user asks for: the frozen shape of gcpod.yaml.

Each field carries its own rule and the comment that `gcpod init` writes, so the file, its check and its documentation
cannot drift apart. Reading the file is specfile.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
MONEY = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_PART = r"[A-Za-z0-9_.:-]+"
NETWORK = re.compile(r"projects/[0-9]+/global/networks/[a-z][a-z0-9-]{0,62}")
TENSORBOARD = re.compile(f"projects/{_PART}/locations/{_PART}/tensorboards/[0-9]+")
KMS_KEY = re.compile(f"projects/{_PART}/locations/{_PART}/keyRings/{_PART}/cryptoKeys/{_PART}")
STEPS_PER_BLOCK = 100
"""The TF2 trainer runs whole blocks of 100 steps (object_detection/model_lib_v2.py, NUM_STEPS_PER_ITERATION)."""


def _key(default: Any, comment: str, **rule: Any) -> Any:
    """A field with a default, the comment for `gcpod init`, and rules: ``min``, ``max``, ``choices``, ``pattern``."""
    return field(default=default, metadata={"comment": comment, **rule})


@dataclass(frozen=True)
class MachineSpec:
    """One machine of Vertex AI (https://cloud.google.com/vertex-ai/docs/training/configure-compute)."""

    type: str = _key("n1-standard-8", "machine type, such as n1-standard-8 or cloud-tpu")
    accelerator: str | None = _key(None, "such as TPU_V2 or NVIDIA_TESLA_T4; leave empty for none")
    count: int = _key(0, "number of accelerators; a TPU v2 or v3 board counts 8", min=0, max=4096)
    tpu_topology: str | None = _key(None, "such as 2x2, for TPU v5e machines only")

    @property
    def is_tpu(self) -> bool:
        return self.tpu_topology is not None or (self.accelerator or "").startswith("TPU_")

    def __str__(self) -> str:
        extra = self.tpu_topology or (f"{self.count} x {self.accelerator}" if self.accelerator else "")
        return f"{self.type} with {extra}" if extra else self.type


STRATEGIES = ("standard", "spot", "flex_start")
"""https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec#Strategy"""


@dataclass(frozen=True)
class ScheduleSpec:
    """How a job gets its machine (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec#Scheduling)."""

    strategy: str = _key("standard", "standard, spot (cheaper, may be taken away) or flex_start (waits for a machine)",
                         choices=STRATEGIES)
    max_wait_hours: float | None = _key(None, "flex_start: how long it may wait for its machine; empty: 24 hours",
                                        min=0.1, max=168.0)
    restart_workers: bool = _key(False, "start the whole job again when one of its machines restarts")
    retries: bool = _key(True, "let Vertex AI retry the job after failures of its own")


_TPU = MachineSpec("cloud-tpu", "TPU_V2", 8)
_GPU = MachineSpec("n1-standard-4", "NVIDIA_TESLA_T4", 1)
_CPU = MachineSpec("n1-standard-4")


Policy = Literal["error", "fix", "warn"]
_ANY: Any = get_args(Policy)
_REFUSE: Any = ("error", "warn")


@dataclass(frozen=True)
class Policies:
    """What happens to each kind of fault: "error" refuses it, "fix" mends it, "warn" leaves out what has it.

    Whatever is mended or left out is said. Codes: docs/findings.md.
    """

    unknown_label: Policy = _key("error", "D101 not in the label map; fix: the label that differs in case or spaces",
                                 choices=_ANY)
    size: Policy = _key("fix", "D102 declared size is not the real one; fix: boxes follow the image", choices=_ANY)
    rotation: Policy = _key("error", "D102 EXIF turns the image; fix: its pixels are turned", choices=_ANY)
    outside: Policy = _key("fix", "D102 box reaches outside the image; fix: it is clipped", choices=_ANY)
    reversed: Policy = _key("fix", "D103 box drawn backwards; fix: its corners are swapped", choices=_ANY)
    annotation: Policy = _key("error", "D104 annotation that cannot be read", choices=_REFUSE)
    zero_area: Policy = _key("error", "D105 box without area; fix: as warn", choices=_ANY)
    image: Policy = _key("error", "D106 image that cannot be read", choices=_REFUSE)
    format: Policy = _key("fix", "D106 suffix that lies; fix: the real format is recorded", choices=_ANY)
    unfit: Policy = _key("error", "D106 WebP, GIF, BMP, CMYK, animated; fix: its first frame is converted",
                         choices=_ANY)
    missing_image: Policy = _key("warn", "D106 annotation without image", choices=_REFUSE)
    unlabelled: Policy = _key("warn", "D106 image without annotation; fix: it is one without objects", choices=_ANY)
    straddling: Policy = _key("fix", "D107 same picture on both sides of a given split; fix: all evaluate",
                              choices=_ANY)


METRICS = ("coco_detection_metrics", "coco_mask_metrics", "pascal_voc_detection_metrics", "oid_V2_detection_metrics",
           "weighted_pascal_voc_detection_metrics", "oid_challenge_detection_metrics")
"""Names of EVAL_METRICS_CLASS_DICT in object_detection/eval_util.py."""

STORAGE_CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
"""https://cloud.google.com/storage/docs/storage-classes"""

FORMATS = ("auto", "voc", "vott1", "csv", "openimages", "coco", "yolo", "tfrecord")


@dataclass(frozen=True)
class DataSpec:
    """The labelled images."""

    images: str = _key("images", "folder of images; train/ and eval/ (or test/, val/) inside it keep their split")
    annotations: str | None = _key(None, "their labels: a folder, a file or a pattern; empty: in the image folder")
    format: str = _key("auto", "of the labels; `gcpod dataset inspect` tells what auto finds", choices=FORMATS)
    eval_fraction: float = _key(0.1, "share of the images kept for evaluation", min=0.01, max=0.9)
    labels: tuple[str, ...] | None = _key(None, "class names in the order of their ids; empty: taken from the data")
    label_map: str | None = _key(None, "a label_map.pbtxt to impose instead; empty: none")
    aliases: Mapping[str, str] | None = _key(None, "labels to rename or merge, as `old: new`; empty: none")
    max_side: int | None = _key(None, "larger images are shrunk to so many pixels; empty: none is", min=16, max=65535)
    verify: Literal["header", "decode"] = _key("header", "header, or decode to decode every image",
                                               choices=("header", "decode"))
    near_duplicates: bool = _key(True, "keep pictures that were encoded again on one side of the split")
    masks: bool = _key(False, "record COCO's masks too")
    policies: Policies = _key(Policies(), "what happens to faults: error, fix, or warn, which leaves them out")


@dataclass(frozen=True)
class ModelSpec:
    """The detector."""

    template: str = _key("ssd_mobilenet_v2", "a built-in pipeline config, or the path of your own template")
    image_size: int | None = _key(None, "input width and height in pixels; empty: the template's", min=64, max=2048)
    depth_multiplier: float | None = _key(None, "width of the backbone; empty: the template's", min=0.1, max=2.0)
    fine_tune_checkpoint: str | None = _key(None, "what to start from: zoo:NAME of `gcpod model list`, or a "
                                            "checkpoint's prefix, gs:// or local; empty: none")
    fine_tune_checkpoint_type: str | None = _key(
        None, "what the checkpoint restores; empty: detection, or what the zoo says",
        choices=("detection", "classification", "full"),
    )
    zoo_mirror: str | None = _key(None, "address to fetch zoo:NAME from, as https://HOST/FOLDER; empty: the zoo's own")
    set: Mapping[str, str] | None = _key(None, "any other field of the config, as `train_config.batch_size: 16`; "
                                         "empty: none", scalars=True)


@dataclass(frozen=True)
class TrainSpec:
    """The training job."""

    steps: int = _key(5000, "training steps; the trainer runs whole hundreds", min=1, max=100_000_000)
    batch_size: int = _key(16, "images a step; on a TPU a multiple of its cores", min=1, max=65536)
    learning_rate: float | None = _key(None, "peak of the schedule; empty: the template's", min=1e-8, max=10.0)
    scale_learning_rate: bool = _key(False, "where no rate is given, scale the template's with the batch")
    warmup_steps: int | None = _key(None, "steps of linear warm-up; empty: the template's share", min=0)
    checkpoint_every: int | None = _key(None, "steps between checkpoints; empty: a tenth of the steps", min=1)
    timeout_hours: float = _key(24.0, "the job is ended after this time", min=0.1, max=168.0)
    machine: MachineSpec = _key(_TPU, "where it trains")
    workers: int = _key(0, "further machines of that kind that train together with it; 0 on a TPU", min=0, max=100)
    schedule: ScheduleSpec = _key(ScheduleSpec(), "how it gets its machine")
    module: str | None = _key(None, "module of packages.training to run as __main__ in place of the Object Detection "
                              "API's; empty: none", pattern=MODULE)
    arguments: tuple[str, ...] | None = _key(None, "its own, in place of those of the Object Detection API", free=True)
    stall_minutes: float = _key(30.0, "say so when no step was done for so long", min=1.0, max=10_000.0)
    cancel_on_nan: bool = _key(False, "cancel the job when its loss is no number any more")


@dataclass(frozen=True)
class EvalSpec:
    """The evaluation job, which runs beside the training."""

    metrics: str | None = _key(None, "metrics_set of the evaluation; empty: the template's",
                               choices=METRICS)
    poll_s: float = _key(10.0, "seconds between looks for a new checkpoint", min=1.0, max=3600.0)
    timeout_hours: float = _key(24.0, "the job is ended after this time", min=0.1, max=168.0)
    machine: MachineSpec = _key(_GPU, "where it evaluates (never a TPU)")
    schedule: ScheduleSpec = _key(ScheduleSpec(), "how it gets its machine")
    beside: Literal["job", "pool"] = _key("job", "job: a job of its own; pool: a machine of the training's job, which "
                                          "Vertex AI calls its evaluator", choices=("job", "pool"))
    best_metric: str = _key("DetectionBoxes_Precision/mAP", "what tells the best checkpoint; larger is better, of "
                            "losses smaller")
    stop_after: int | None = _key(None, "end the training after so many evaluations without a better one; empty: never",
                                  min=1, max=10_000)
    min_delta: float = _key(0.0, "what counts as better: by more than this", min=0.0, max=1e6)


@dataclass(frozen=True)
class ExportSpec:
    """The job that writes the SavedModel."""

    timeout_hours: float = _key(2.0, "the job is ended after this time", min=0.1, max=168.0)
    checkpoint: Literal["last", "best"] = _key("last", "which checkpoint is exported: the last, or the best evaluated",
                                               choices=("last", "best"))
    machine: MachineSpec = _key(_CPU, "where it exports")
    schedule: ScheduleSpec = _key(ScheduleSpec(), "how it gets its machine")


@dataclass(frozen=True)
class RuntimeSpec:
    """What the jobs run in."""

    name: str = _key("tf2.15", "a runtime of `gcpod runtime list`")
    mode: str = _key("container", "container: your trainer image; package: Python packages on a prebuilt image",
                     choices=("container", "package"))
    image: str | None = _key(None, "image URI; empty: the trainer image in your project's Artifact Registry")


@dataclass(frozen=True)
class StorageSpec:
    """What new objects get, who pays for requests, and how much of the line transfers take."""

    user_project: str | None = _key(None, "project billed for a requester-pays bucket; empty: its owner pays")
    kms_key: str | None = _key(None, "customer-managed key, projects/…/cryptoKeys/KEY; empty: the bucket's default")
    storage_class: str | None = _key(None, "of new objects; empty: the bucket's default", choices=STORAGE_CLASSES)
    workers: int | None = _key(None, "connections at once; empty: found by measuring", min=1, max=256)
    limit_bytes: int | None = _key(None, "bytes a second at the most; empty: no limit", min=1000)


@dataclass(frozen=True)
class PackagesSpec:
    """Where the code that the jobs run comes from."""

    source: str | None = _key(None, "tensorflow/models checkout, its research/ or a .tar.gz; empty: the pinned archive")
    training: str | None = _key(None, "folder of your own Python package for the jobs; empty: none")


DISK_TYPES = ("pd-ssd", "pd-standard")
"""https://cloud.google.com/vertex-ai/docs/reference/rest/v1/DiskSpec"""


@dataclass(frozen=True)
class JobsSpec:
    """What every job of the run gets (https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec)."""

    network: str | None = _key(None, "VPC network to peer with, projects/NUMBER/global/networks/NAME; empty: none",
                               pattern=NETWORK)
    tensorboard: str | None = _key(None, "Vertex AI TensorBoard, projects/P/locations/R/tensorboards/ID; empty: none",
                                   pattern=TENSORBOARD)
    kms_key: str | None = _key(None, "customer-managed key of the jobs, projects/…/cryptoKeys/KEY; empty: Google's",
                               pattern=KMS_KEY)
    labels: Mapping[str, str] | None = _key(None, "labels of the jobs, for bills and filters, as `team: birds`",
                                            scalars=True)
    env: Mapping[str, str] | None = _key(None, "environment of the jobs, as `TF_CPP_MIN_LOG_LEVEL: 1`", scalars=True)
    disk_type: str | None = _key(None, "of the boot disk; empty: pd-ssd", choices=DISK_TYPES)
    disk_gb: int | None = _key(None, "size of the boot disk; empty: 100", min=100, max=64_000)


@dataclass(frozen=True)
class RecoverySpec:
    """What is done about jobs that died of preemption, of no machine to be had, or of a failing one."""

    attempts: int = _key(3, "how often a job is submitted in all; 1: never again", min=1, max=100)
    hours: float | None = _key(None, "no new attempt so long after the first one's start; empty: no limit", min=0.1,
                               max=10_000.0)
    max_cost: str | None = _key(None, "no new attempt that could take the job's cost above this; empty: no limit",
                                pattern=MONEY)


@dataclass(frozen=True)
class NotifySpec:
    """Who is told when a run ends."""

    command: str | None = _key(None, "a command, which gets the outcome as JSON on its standard input; empty: none")
    webhook: str | None = _key(None, "an https:// address that the outcome is posted to as JSON; empty: none")


@dataclass(frozen=True)
class SweepSpec:
    """Many runs, each with other values (`gcpod sweep`)."""

    grid: Mapping[str, tuple[str, ...]] | None = _key(None, "every combination, as `train.batch_size: [8, 16]`")
    runs: tuple[Mapping[str, str], ...] | None = _key(None, "these, each as `{train.batch_size: 8, train.steps: 500}`")
    at_once: int = _key(2, "runs whose jobs run at the same time", min=1, max=1000)


@dataclass(frozen=True)
class Spec:
    """The whole of gcpod.yaml."""

    name: str = _key("detector", "name of the run: lower-case letters, digits and '-'", pattern=NAME)
    project: str | None = _key(None, "project id; empty: environment, then gcloud's configuration")
    region: str | None = _key(None, "Vertex AI region, such as us-central1; empty: as for the project")
    bucket: str | None = _key(None, "gs://BUCKET or gs://BUCKET/FOLDER; empty: gs://PROJECT-gcpod")
    credentials: str | None = _key(None, "service account key file; empty: Application Default Credentials")
    service_account: str | None = _key(None, "identity the jobs run as; empty: Vertex AI's own")
    storage: StorageSpec = _key(StorageSpec(), "what new objects get, who pays, how much of the line transfers take")
    data: DataSpec = _key(DataSpec(), "the labelled images")
    model: ModelSpec = _key(ModelSpec(), "the detector")
    train: TrainSpec = _key(TrainSpec(), "the training job")
    eval: EvalSpec = _key(EvalSpec(), "the evaluation job")
    export: ExportSpec = _key(ExportSpec(), "the export job")
    runtime: RuntimeSpec = _key(RuntimeSpec(), "what the jobs run in")
    packages: PackagesSpec = _key(PackagesSpec(), "the code that the jobs run")
    jobs: JobsSpec = _key(JobsSpec(), "what every job gets")
    recovery: RecoverySpec = _key(RecoverySpec(), "what is done about jobs that died of no fault of yours")
    notify: NotifySpec = _key(NotifySpec(), "who is told when a run ends")
    sweep: SweepSpec = _key(SweepSpec(), "many runs with other values, for `gcpod sweep`")
    folder: Path = field(default=Path(), compare=False, metadata={"hidden": True})

    def local_path(self, text: str) -> Path:
        """A path of the spec, which is relative to the folder that gcpod.yaml lies in."""
        with suppress(RuntimeError):  # ~name of nobody here is a name like any other
            return self.folder / Path(text).expanduser()
        return self.folder / text


def whole_blocks(steps: int) -> int:
    """Steps rounded up to what the trainer will really run (finding C210)."""
    return -(-steps // STEPS_PER_BLOCK) * STEPS_PER_BLOCK


def checkpoint_interval(train: TrainSpec) -> int:
    """Steps between checkpoints: whole blocks, and a divisor of the steps so that the last step is saved.

    The trainer only saves when this many steps passed since the last save (model_lib_v2.py, train_loop), so an
    interval that does not divide the steps loses the end of the training.
    """
    blocks = whole_blocks(train.steps) // STEPS_PER_BLOCK
    wanted = train.checkpoint_every if train.checkpoint_every is not None else -(-train.steps // 10)
    wanted_blocks = min(blocks, max(1, wanted // STEPS_PER_BLOCK))
    while blocks % wanted_blocks:
        wanted_blocks -= 1
    return wanted_blocks * STEPS_PER_BLOCK
