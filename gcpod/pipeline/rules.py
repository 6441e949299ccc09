"""What a schema cannot say about a pipeline config: findings C201, C203 and C205 to C210.

What the trainer does with each value was read in object_detection 2.8: model_lib_v2.py, utils/config_util.py,
utils/learning_schedules.py, builders/dataset_builder.py and the ``restore_from_objects`` of its meta architectures.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gcpod.pipeline.edit import Edit, insertion, quote
from gcpod.pipeline.fields import number_of, whole
from gcpod.pipeline.problem import Config, Problem
from gcpod.pipeline.reading import in_cloud, is_path
from gcpod.pipeline.schema import ROOT, Field, Schema
from gcpod.spec import STEPS_PER_BLOCK, whole_blocks
from gcpod.textproto import Message, Scalar

_PLACEHOLDER: Final = "PATH_TO_BE_CONFIGURED"
_CHECKPOINT: Final = "train_config.fine_tune_checkpoint"
_CHECKPOINT_TYPES: Final = {"1": ("detection", "classification"), "2": ("detection", "classification", "full")}
_DEFAULT_BATCH: Final = 32
"""TrainConfig.batch_size of object_detection/protos/train.proto."""
_PART_OF_CHECKPOINT: Final = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")


def placeholders(config: Config) -> Iterator[Problem]:
    for path, value in config.tree.walk():
        if _PLACEHOLDER in value.value:
            yield config.problem("C206", value.start, f"{path} still is {value.value!r}", "give the real path")


def paths(config: Config) -> Iterator[Problem]:
    for path, value in config.tree.walk():
        if not is_path(path) or not value.value or _PLACEHOLDER in value.value:
            continue
        if config.backslashed(value):
            if path != _CHECKPOINT:
                yield _backslashes(config, path, value, value.value.replace("\\", "/"))
        elif config.context.cloud and not in_cloud(value.value):
            fix = "a job reads gs:// only: upload it and give its gs:// address"
            yield config.problem("C207", value.start, f"{path} is the local path {value.value!r}", fix)


def _backslashes(config: Config, path: str, value: Scalar, slashed: str) -> Problem:
    """C201; mended is an address in the cloud, elsewhere only its author knows where the file will be."""
    edits = [Edit(value.start, value.end, quote(slashed))] if in_cloud(slashed) and slashed.isprintable() else []
    told = "gs://BUCKET/PATH" if config.context.cloud else "the path with forward slashes"
    raw = " ".join(config.text[value.start : value.end].split())
    return config.problem("C201", value.start, f"{path} is {raw}", f"backslashes are escapes: write {told}", edits)


def checkpoint(config: Config) -> Iterator[Problem]:
    value = config.tree.find(_CHECKPOINT)
    if not isinstance(value, Scalar) or not value.value:
        return
    prefix = _PART_OF_CHECKPOINT.sub("", value.value.replace("\\", "/"))
    if config.backslashed(value):
        yield _backslashes(config, _CHECKPOINT, value, prefix)
    elif prefix != value.value or prefix.rpartition("/")[2] == "checkpoint":
        named = prefix.isprintable() and prefix.rpartition("/")[2] != "checkpoint"
        edits = [Edit(value.start, value.end, quote(prefix))] if named else []
        fix = "give what PREFIX.index and PREFIX.data-00000-of-00001 share, with forward slashes"
        yield config.problem("C201", value.start, f"fine_tune_checkpoint is {value.value!r}", fix, edits)
    if _world(config) == "2":
        yield from _version(config)


def _version(config: Config) -> Iterator[Problem]:
    version = config.tree.find("train_config.fine_tune_checkpoint_version")
    train = config.tree.find("train_config")
    if isinstance(train, Message) and (
        version is None or (isinstance(version, Scalar) and version.value != "V2" and whole(version.value) != 2)
    ):
        edits = [Edit(version.start, version.end, "V2")] if version else (
            insertion(config.text, train, "fine_tune_checkpoint_version: V2")
        )
        found = f"fine_tune_checkpoint_version is {version.value if isinstance(version, Scalar) else 'V1 by default'}"
        fix = "write fine_tune_checkpoint_version: V2, TensorFlow 2 restores no other"
        yield config.problem("C202", version.start if version else train.start, found, fix, edits)


def checkpoint_type(config: Config) -> Iterator[Problem]:
    kind = config.tree.find("train_config.fine_tune_checkpoint_type")
    if not config.tree.text(_CHECKPOINT):
        return  # Without a checkpoint nothing asks for its type.
    world = _world(config)
    allowed = _CHECKPOINT_TYPES[world or "2"]
    if not isinstance(kind, Scalar) or not kind.value or kind.value in allowed:
        return
    edits, fix = [], f"use one of: {', '.join(allowed)}"
    if kind.value == "fine_tune":
        # What it did for CenterNet is what "detection" does since 2.5; no other model knew it.
        edits, fix = [Edit(kind.start, kind.end, '"detection"')], "write detection, which does the same"
    yield config.problem("C203", kind.start, f"fine_tune_checkpoint_type is {kind.value!r}", fix, edits)


def extractor(config: Config) -> Iterator[Problem]:
    """A name that the release has, for the TensorFlow that will train."""
    kind, known = _extractor(config), config.context.schema.extractors
    if kind is None or not known:
        return
    wanted = known.get(config.context.tensorflow) or frozenset().union(*known.values())
    if kind.value in wanted:
        return
    other = next((world for world, names in known.items() if kind.value in names), None)
    found = f"the feature extractor {kind.value!r} is " + (f"for TensorFlow {other}" if other else "not known")
    twins = [one for one in (f"{kind.value}_keras", kind.value.removesuffix("_keras")) if one in wanted]
    near = twins or difflib.get_close_matches(kind.value, sorted(wanted), n=1)
    fix = f"did you mean {near[0]}?" if near else "use a name of object_detection/builders/model_builder.py"
    yield config.problem("C203", kind.start, found, fix)


def rewriter(config: Config) -> Iterator[Problem]:
    """Quantization rewrites graphs by tensorflow.contrib.quantize, which went with TensorFlow 1."""
    for name, offset, _ in config.tree.fields:
        if name == "graph_rewriter":
            found = "graph_rewriter quantizes while training, which only TensorFlow 1.15 can and no runtime here has"
            yield config.problem("C203", offset, found, "take it out to train without", severity="warning")


def _extractor(config: Config) -> Scalar | None:
    model = config.tree.find("model")
    for name, _, _ in model.fields if isinstance(model, Message) else ():
        kind = config.tree.find(f"model.{name}.feature_extractor.type")
        if isinstance(kind, Scalar):
            return kind
    return None


def _world(config: Config) -> str:
    """The TensorFlow that trains: as told, else the one that the feature extractor is for; "" when nobody knows."""
    kind = _extractor(config)
    worlds = [world for world, names in config.context.schema.extractors.items() if kind and kind.value in names]
    return config.context.tensorflow or (worlds[0] if len(worlds) == 1 else "")


def classes(config: Config) -> Iterator[Problem]:
    wanted = config.context.num_labels
    model = config.tree.find("model")
    named = _with_classes(config.context.schema) if wanted is not None else ()
    for name, offset, value in model.fields if isinstance(model, Message) else ():
        if name in named and isinstance(value, Message) and value.find("num_classes") is None:
            line = f"num_classes: {wanted}"
            edits = insertion(config.text, value, line)
            yield config.problem("C205", offset, f"{name} has no num_classes", f"write {line}", edits)
    for path, value in config.tree.walk():
        if wanted is not None and re.fullmatch(r"model\.\w+\.num_classes", path) and value.value != str(wanted):
            found = f"num_classes is {value.value}, the label map has {wanted} classes"
            edits = [Edit(value.start, value.end, str(wanted))]
            yield config.problem("C205", value.start, found, f"write num_classes: {wanted}", edits)


def _with_classes(schema: Schema) -> frozenset[str]:
    """The architectures that are told how many classes there are."""
    model = schema.messages[ROOT].get("model", Field(""))
    architectures = schema.messages.get(model.kind, {})
    return frozenset(name for name, one in architectures.items() if "num_classes" in schema.messages.get(one.kind, {}))


def steps(config: Config) -> Iterator[Problem]:
    value = config.tree.find("train_config.num_steps")
    count, train = _whole(value), config.tree.find("train_config")
    if count == 0 and isinstance(train, Message) and _world(config) == "2" and not isinstance(value, Message):
        found = "num_steps is not set, and training ends at no step"
        yield config.problem("C210", value.start if value else train.start, found, "write a multiple of 100")
    if isinstance(value, Scalar) and count % STEPS_PER_BLOCK and _world(config) != "1":
        found = f"num_steps is {value.value}: blocks of 100 are run, so evaluation waits for a step that never is"
        rounded = str(whole_blocks(count))
        edits = [Edit(value.start, value.end, rounded)]
        yield config.problem("C210", value.start, found, f"write num_steps: {rounded}", edits)


def schedules(config: Config) -> Iterator[Problem]:
    for rate in _messages(config.tree, "learning_rate"):
        for name, offset, value in rate.fields:
            if name == "manual_step_learning_rate" and isinstance(value, Message):
                yield from _manual(config, value)
            elif name == "cosine_decay_learning_rate" and isinstance(value, Message):
                yield from _cosine(config, offset, value)


def _manual(config: Config, schedule: Message) -> Iterator[Problem]:
    last = 0
    for entry in schedule.all("schedule"):
        if not isinstance(entry, Message):
            continue
        step = entry.find("step")
        if step is None or (isinstance(step, Scalar) and _whole(step) == 0 and step.value.strip("+-").startswith("0")):
            fix = "remove that entry and give its rate as initial_learning_rate"
            at = entry.start if step is None else step.start
            yield config.problem("C209", at, "the learning-rate schedule has an entry at step 0", fix)
        elif isinstance(step, Scalar) and 0 < _whole(step) <= last:
            found = f"the learning-rate schedule has step {step.value} after step {last}"
            yield config.problem("C209", step.start, found, "put its entries in the order of their steps")
        last = max(last, _whole(step))


def _cosine(config: Config, offset: int, schedule: Message) -> Iterator[Problem]:
    total, warmup = (number_of(schedule.find(name), default) for name, default in (
        ("total_steps", 4_000_000), ("warmup_steps", 10_000),
    ))
    base, start = (number_of(schedule.find(name), default) for name, default in (
        ("learning_rate_base", 0.002), ("warmup_learning_rate", 0.0002),
    ))
    if total < warmup:
        found = f"the schedule warms up for {warmup:g} of {total:g} steps"
        yield config.problem("C209", offset, found, "make total_steps larger, or warmup_steps smaller")
    if warmup > 0 and base < start:
        found = f"the schedule warms up from {start:g}, above its learning_rate_base {base:g}"
        yield config.problem("C209", offset, found, "make warmup_learning_rate smaller")


def accelerators(config: Config) -> Iterator[Problem]:
    """The global batch is divided among all that train (tf.distribute's get_per_replica_batch_size)."""
    cores, gpus = config.context.tpu_cores, config.context.gpus
    batch, train = config.tree.find("train_config.batch_size"), config.tree.find("train_config")
    size = _DEFAULT_BATCH if batch is None else _whole(batch)
    for count, what in ((cores, "TPU cores"), (gpus, "GPUs")):
        if count and size % count and isinstance(train, Message):
            found = f"batch_size {size} does not divide among {count} {what}"
            yield config.problem("C208", (batch or train).start, found, f"make it a multiple of {count}")
    if cores:
        yield from _fixed_shapes(config)


def _fixed_shapes(config: Config) -> Iterator[Problem]:
    model = config.tree.find("model")
    for resizer in _messages(model, "image_resizer") if isinstance(model, Message) else ():
        for name, offset, value in resizer.fields:
            if name != "fixed_shape_resizer" and not _padded(value):
                found = f"{name} gives images of varying shape, which a TPU cannot compile"
                yield config.problem("C208", offset, found, "use fixed_shape_resizer")
    train = config.tree.find("train_config")
    if not isinstance(train, Message):
        return
    unpad = train.find("unpad_groundtruth_tensors")
    if unpad is None or (isinstance(unpad, Scalar) and unpad.value not in ("false", "False", "f", "0")):
        line = "unpad_groundtruth_tensors: false"
        edits = [Edit(unpad.start, unpad.end, "false")] if unpad else insertion(config.text, train, line)
        found = "unpad_groundtruth_tensors is not false, so shapes vary on a TPU"
        yield config.problem("C208", unpad.start if unpad else train.start, found, f"write {line}", edits)


def _padded(resizer: Scalar | Message) -> bool:
    """Whether a resizer that keeps proportions fills its images up to one size."""
    return isinstance(resizer, Message) and resizer.text("pad_to_max_dimension") in ("true", "True", "t", "1")


def _messages(message: Message, name: str) -> Iterator[Message]:
    for key, _, value in message.fields:
        if isinstance(value, Message):
            if key == name:
                yield value
            yield from _messages(value, name)


def _whole(value: Scalar | Message | None) -> int:
    """A plain number of the config; 0, which no rule here objects to, for anything else."""
    number = whole(value.value) if isinstance(value, Scalar) and not value.quoted else None
    return max(0, number or 0)


RULES: Final[Sequence[Callable[[Config], Iterator[Problem]]]] = (
    placeholders, paths, checkpoint, checkpoint_type, extractor, rewriter, classes, steps, schedules, accelerators,
)
