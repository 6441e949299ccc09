"""A template's text with the run's values set: pure text in, text out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gcpod.errors import ConfigError
from gcpod.pipeline.edit import edit, quote
from gcpod.pipeline.fields import literal_of, whole
from gcpod.pipeline.reading import read
from gcpod.pipeline.schedule import Change, schedule_values
from gcpod.pipeline.schema import Schema, built_in_schema
from gcpod.textproto import Message, Scalar, position

TEMPLATES = Path(__file__).parent / "templates"

_REPLACED = tuple(f"{reader}.{path}" for reader in ("train_input_reader", "eval_input_reader")
                  for path in ("label_map_path", "tf_record_input_reader.input_path"))
_DECIDED = {
    r"train_config\.num_steps": "train.steps",
    r"model\.\w+\.num_classes": "data.labels, or the images' own labels",
    r"(train|eval)_input_reader\.(label_map_path|tf_record_input_reader\.input_path)": "data.images",
    r"train_config\.fine_tune_checkpoint(_type)?": "model.fine_tune_checkpoint",
}
"""What runs fill in and count on, with the key of gcpod.yaml that changes it."""
_INDEX = re.compile(r"\[[0-9]+\]")

@dataclass(frozen=True)
class RenderRequest:
    """The values a run fills in; None leaves the template's own.

    Attributes:
        records: ``gs://`` pattern of the training shards.
        eval_records: the same for evaluation.
        image_size: input height and width in pixels.
        steps: training steps, a whole number of hundreds; a schedule's own steps are scaled along.
        warmup_steps: of a cosine schedule; None keeps the template's share of the training.
        learning_rate: the peak of the schedule; its other rates keep their proportion to it.
        scale_learning_rate: where no rate is given, scale the template's by the batch size over the template's, the
            linear rule of https://arxiv.org/abs/1706.02677.
        eval_examples: pictures that evaluate, for a template that states their number.
        metrics: name of the metrics that evaluation computes, such as "coco_detection_metrics".
        settings: anything else, raw values by path (`gcpod.pipeline.edit.edit`), but for what the run itself decides.
    """

    num_classes: int
    records: str
    eval_records: str
    label_map: str
    batch_size: int
    steps: int
    warmup_steps: int | None = None
    image_size: int | None = None
    depth_multiplier: float | None = None
    learning_rate: float | None = None
    scale_learning_rate: bool = False
    fine_tune_checkpoint: str | None = None
    fine_tune_checkpoint_type: str = "detection"
    eval_examples: int | None = None
    metrics: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def template_names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in TEMPLATES.glob("*.config")))


def template_text(name: str, folder: Path) -> tuple[str, str]:
    """The text of a template and what to call it: a built-in name, or a path below ``folder``.

    Raises:
        ConfigError: there is neither.
    """
    path = TEMPLATES / f"{name}.config" if name in template_names() else folder / name
    try:
        return path.read_bytes().decode("utf-8"), name
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(
            "reading the template", path, getattr(e, "strerror", None) or "it is not UTF-8",
            f"name a file, or one of: {', '.join(template_names())}",
        ) from e


def render_config(
    template: str, request: RenderRequest, where: str = "the template", schema: Schema | None = None,
) -> str:
    """The template with the request's values set.

    Args:
        schema: of the release that will read it, for ``request.settings``; by default the built-in one.

    Raises:
        ConfigError: the template does not parse, has no model that can be told its classes, or has another resizer
            than the wanted size needs; a path in it has backslashes (C201); or there is no such setting (C202).
    """
    schema = schema or built_in_schema()
    tree = _tree(template, where)
    architecture = _only(tree, "model", where)
    literals = {path: literal_of(path, value, schema) for path, value in request.settings.items()}
    for path in literals:
        _refuse_decided(path)
    for path in (*_REPLACED, *(("eval_config.metrics_set",) if request.metrics else ())):
        _refuse_several(tree, path, where)
    batch_size = whole(literals.get("train_config.batch_size", "")) or request.batch_size
    values = {
        f"model.{architecture}.num_classes": str(request.num_classes),
        "train_config.batch_size": str(request.batch_size),
        "train_config.num_steps": str(request.steps),
        **_model(tree, architecture, request, where),
        **schedule_values(tree, Change(
            request.steps, request.warmup_steps, batch_size, request.learning_rate, request.scale_learning_rate,
        )),
        **_checkpoint(tree, architecture, request, schema),
        **_evaluation(tree, request),
    }
    for reader, records in (("train_input_reader", request.records), ("eval_input_reader", request.eval_records)):
        values[f"{reader}.label_map_path"] = quote(request.label_map)
        values[f"{reader}.tf_record_input_reader.input_path"] = quote(records)
    return edit(template, values | literals, where)


def _tree(template: str, where: str) -> Message:
    reading = read(template, where)
    if reading.mended:
        place = f"{where}:{position(template, reading.mended[0])}"
        found, fix = "a path has backslashes, which are escapes", "write it with forward slashes"
        raise ConfigError("reading the template", place, found, fix, code="C201")
    return reading.tree


def _refuse_decided(path: str) -> None:
    name = _INDEX.sub("", path)
    key = next((key for pattern, key in _DECIDED.items() if re.fullmatch(pattern, name)), None)
    if key is not None:
        raise ConfigError("setting", path, "the run decides it", f"use {key}", code="C202")


def _refuse_several(tree: Message, path: str, where: str) -> None:
    """A template's own records, beside which the run's would be trained too."""
    messages: list[Scalar | Message] = [tree]
    for name in path.split("."):
        messages = [one for message in messages if isinstance(message, Message) for one in message.all(name)]
    if len(messages) > 1:
        found = f"{where} has {len(messages)} of them"
        raise ConfigError("filling in", path, found, "keep one, whose place the run's own takes")


def _evaluation(tree: Message, request: RenderRequest) -> dict[str, str]:
    values: dict[str, str] = {}
    if request.eval_examples is not None and tree.find("eval_config.num_examples") is not None:
        values["eval_config.num_examples"] = str(request.eval_examples)
    if request.metrics is not None:
        values["eval_config.metrics_set"] = quote(request.metrics)
    return values


def _only(tree: Message, path: str, where: str) -> str:
    message = tree.find(path)
    if not isinstance(message, Message) or not message.fields:
        raise ConfigError("rendering", where, f"it has no {path} {{ … }}", "start from a whole pipeline config")
    return message.fields[-1][0]


def _model(tree: Message, architecture: str, request: RenderRequest, where: str) -> dict[str, str]:
    values: dict[str, str] = {}
    resizer = f"model.{architecture}.image_resizer.fixed_shape_resizer"
    if request.image_size is not None:
        # A oneof: a second kind beside the template's own is refused by the trainer.
        other = tree.find(f"model.{architecture}.image_resizer")
        if isinstance(other, Message) and any(name != "fixed_shape_resizer" for name, _, _ in other.fields):
            raise ConfigError("setting", "model.image_size", f"{where} has a {other.fields[-1][0]}",
                              "leave image_size empty, or write a fixed_shape_resizer into the template")
        values |= {f"{resizer}.height": str(request.image_size), f"{resizer}.width": str(request.image_size)}
    extractor = f"model.{architecture}.feature_extractor"
    if request.depth_multiplier is not None and isinstance(tree.find(extractor), Message):
        values[f"{extractor}.depth_multiplier"] = repr(request.depth_multiplier)
    return values


def _checkpoint(tree: Message, architecture: str, request: RenderRequest, schema: Schema) -> dict[str, str]:
    if request.fine_tune_checkpoint is not None:
        extractor = tree.text(f"model.{architecture}.feature_extractor.type")
        return {
            "train_config.fine_tune_checkpoint": quote(request.fine_tune_checkpoint),
            "train_config.fine_tune_checkpoint_type": quote(request.fine_tune_checkpoint_type),
            "train_config.fine_tune_checkpoint_version": "V1" if extractor in schema.extractors.get("1", ()) else "V2",
        }
    # Without a checkpoint a template's placeholder must not reach the job.
    given = tree.find("train_config.fine_tune_checkpoint")
    return {"train_config.fine_tune_checkpoint": '""'} if isinstance(given, Scalar) else {}
