"""What can be known wrong about a pipeline config before a job reads it (findings C200 to C210)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gcpod.errors import ConfigError
from gcpod.spec import STEPS_PER_BLOCK, whole_blocks
from gcpod.status import Finding
from gcpod.textproto import Message, Scalar, parse, position

_PATHS = re.compile(r"(^|\.)(input_path|label_map_path|fine_tune_checkpoint|label_map|model_dir)$")
_CHECKPOINT_TYPES = ("detection", "classification", "fine_tune", "full")
_PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d+-of-\d+)$|(^|/)checkpoint$")


@dataclass(frozen=True)
class LintContext:
    """What the config is for.

    Attributes:
        num_labels: classes in the label map; None when unknown.
        tpu_cores: cores the training will use; 0 off a TPU.
        cloud: paths must be readable by a job (gs:// or /gcs/).
    """

    num_labels: int | None = None
    tpu_cores: int = 0
    cloud: bool = True


def lint_config(text: str, where: str, context: LintContext | None = None) -> list[Finding]:
    """Every finding of a config, in the order of the text.

    Args:
        text: the config.
        where: its path, for the findings.
        context: what it is for; by default a cloud job of unknown machine and labels.
    """
    try:
        tree = parse(text, where)
    except ConfigError as e:
        return [Finding(e.code, "error", e.on, e.found, e.fix)]
    lint = _Lint(text, where, tree, context or LintContext())
    rules = (lint.placeholders, lint.paths, lint.checkpoint, lint.classes, lint.steps, lint.schedules, lint.tpu)
    return [finding for rule in rules for finding in rule()]


def _whole(value: Scalar | Message | None) -> int:
    """A plain number of the config; 0, which no rule here objects to, for anything else."""
    return int(value.value) if isinstance(value, Scalar) and re.fullmatch("[0-9]{1,18}", value.value) else 0


class _Lint:
    def __init__(self, text: str, where: str, tree: Message, context: LintContext) -> None:
        self.text, self.where, self.tree, self.context = text, where, tree, context

    def error(self, code: str, at: Scalar | Message, found: str, fix: str) -> Finding:
        return Finding(code, "error", f"{self.where}:{position(self.text, at.start)}", found, fix)

    def placeholders(self) -> Iterator[Finding]:
        for path, value in self.tree.walk():
            if "PATH_TO_BE_CONFIGURED" in value.value:
                yield self.error("C206", value, f"{path} still is {value.value!r}", "give the real path")

    def paths(self) -> Iterator[Finding]:
        for path, value in self.tree.walk():
            if not _PATHS.search(path) or not value.value or "PATH_TO_BE_CONFIGURED" in value.value:
                continue
            if self.context.cloud and not value.value.startswith(("gs://", "/gcs/")):
                yield self.error("C207", value, f"{path} is the local path {value.value!r}",
                                 "a job reads gs:// only: upload it and give its gs:// address")

    def checkpoint(self) -> Iterator[Finding]:
        value = self.tree.find("train_config.fine_tune_checkpoint")
        if isinstance(value, Scalar) and (_PART_OF_CHECKPOINT.search(value.value) or "\\" in value.value):
            yield self.error("C201", value, f"fine_tune_checkpoint is {value.value!r}",
                             "give what PREFIX.index and PREFIX.data-00000-of-00001 share, with forward slashes")
        kind = self.tree.find("train_config.fine_tune_checkpoint_type")
        if isinstance(kind, Scalar) and kind.value not in _CHECKPOINT_TYPES:
            yield self.error("C203", kind, f"fine_tune_checkpoint_type is {kind.value!r}",
                             f"use one of: {', '.join(_CHECKPOINT_TYPES)}")

    def classes(self) -> Iterator[Finding]:
        wanted = self.context.num_labels
        for path, value in self.tree.walk():
            if wanted is not None and re.fullmatch(r"model\.\w+\.num_classes", path) and value.value != str(wanted):
                yield self.error("C205", value, f"num_classes is {value.value}, the label map has {wanted} classes",
                                 f"write num_classes: {wanted}")

    def steps(self) -> Iterator[Finding]:
        value = self.tree.find("train_config.num_steps")
        steps = _whole(value)
        if isinstance(value, Scalar) and steps % STEPS_PER_BLOCK:
            found = f"num_steps is {value.value}: blocks of 100 are run, so evaluation waits for a step that never is"
            yield self.error("C210", value, found, f"write num_steps: {whole_blocks(steps)}")

    def schedules(self) -> Iterator[Finding]:
        for path, value in self.tree.walk():
            if path.endswith("manual_step_learning_rate.schedule.step") and value.value in ("0", "+0", "-0"):
                yield self.error("C209", value, "the learning-rate schedule has an entry at step 0",
                                 "remove that entry and give its rate as initial_learning_rate")

    def tpu(self) -> Iterator[Finding]:
        cores = self.context.tpu_cores
        if not cores:
            return
        batch = self.tree.find("train_config.batch_size")
        if isinstance(batch, Scalar) and _whole(batch) % cores:
            yield self.error("C208", batch, f"batch_size {batch.value} does not divide among {cores} TPU cores",
                             f"make it a multiple of {cores}")
        for path, value in self.tree.walk():
            if ".image_resizer." in path and ".fixed_shape_resizer." not in path:
                yield self.error("C208", value, f"{path} gives images of varying shape, which a TPU cannot compile",
                                 "use fixed_shape_resizer")
                break
        train = self.tree.find("train_config")
        if isinstance(train, Message) and train.find("max_number_of_boxes") is None:
            yield self.error("C208", train, "max_number_of_boxes is not set, so shapes vary on a TPU",
                             "write max_number_of_boxes: 100")
        unpad = self.tree.find("train_config.unpad_groundtruth_tensors")
        if unpad is None or (isinstance(unpad, Scalar) and unpad.value != "false"):
            found = "unpad_groundtruth_tensors is not false, so shapes vary on a TPU"
            yield self.error("C208", unpad or self.tree, found, "write unpad_groundtruth_tensors: false")
