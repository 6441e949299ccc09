"""A template's text with the run's values set: pure text in, text out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gcpod.errors import ConfigError
from gcpod.pipeline.edit import edit, quote
from gcpod.textproto import Message, Scalar, parse

TEMPLATES = Path(__file__).parent / "templates"
_RATE = "train_config.optimizer.{optimizer}.learning_rate"
_WARMUP_SHARE = 8
"""The built-in schedule starts its warm-up at an eighth of its peak; a changed peak keeps that share."""


@dataclass(frozen=True)
class RenderRequest:
    """The values a run fills in; None leaves the template's own.

    Attributes:
        records: ``gs://`` pattern of the training shards.
        eval_records: the same for evaluation.
        image_size: input height and width in pixels.
        steps: training steps, a whole number of hundreds.
    """

    num_classes: int
    records: str
    eval_records: str
    label_map: str
    batch_size: int
    steps: int
    warmup_steps: int
    image_size: int | None = None
    depth_multiplier: float | None = None
    learning_rate: float | None = None
    fine_tune_checkpoint: str | None = None
    fine_tune_checkpoint_type: str = "detection"


def template_names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in TEMPLATES.glob("*.config")))


def template_text(name: str, folder: Path) -> tuple[str, str]:
    """The text of a template and what to call it: a built-in name, or a path below ``folder``.

    Raises:
        ConfigError: there is neither.
    """
    path = TEMPLATES / f"{name}.config" if name in template_names() else folder / name
    try:
        return path.read_text(encoding="utf-8"), name
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(
            "reading the template", path, getattr(e, "strerror", None) or "it is not UTF-8",
            f"name a file, or one of: {', '.join(template_names())}",
        ) from e


def render_config(template: str, request: RenderRequest, where: str = "the template") -> str:
    """The template with the request's values set.

    Raises:
        ConfigError: the template does not parse, has no model, or has another resizer than the wanted size needs.
    """
    tree = parse(template, where)
    architecture = _only(tree, "model", where)
    values = {
        f"model.{architecture}.num_classes": str(request.num_classes),
        "train_config.batch_size": str(request.batch_size),
        "train_config.num_steps": str(request.steps),
        **_model(tree, architecture, request, where),
        **_schedule(tree, request),
        **_checkpoint(tree, request),
    }
    for reader, records in (("train_input_reader", request.records), ("eval_input_reader", request.eval_records)):
        values[f"{reader}.label_map_path"] = quote(request.label_map)
        values[f"{reader}.tf_record_input_reader.input_path"] = quote(records)
    return edit(template, values, where)


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


def _schedule(tree: Message, request: RenderRequest) -> dict[str, str]:
    """The schedule's own step counts follow the run's: a decay that ends elsewhere trains at the wrong rate."""
    optimizer = tree.find("train_config.optimizer")
    for name, _, _ in optimizer.fields if isinstance(optimizer, Message) else []:
        path = _RATE.format(optimizer=name) + ".cosine_decay_learning_rate"
        if isinstance(tree.find(path), Message):
            values = {f"{path}.total_steps": str(request.steps), f"{path}.warmup_steps": str(request.warmup_steps)}
            if request.learning_rate is not None:
                values[f"{path}.learning_rate_base"] = repr(request.learning_rate)
                values[f"{path}.warmup_learning_rate"] = repr(request.learning_rate / _WARMUP_SHARE)
            return values
    return {}


def _checkpoint(tree: Message, request: RenderRequest) -> dict[str, str]:
    if request.fine_tune_checkpoint is not None:
        return {
            "train_config.fine_tune_checkpoint": quote(request.fine_tune_checkpoint),
            "train_config.fine_tune_checkpoint_type": quote(request.fine_tune_checkpoint_type),
            "train_config.fine_tune_checkpoint_version": "V2",
        }
    # Without a checkpoint a template's placeholder must not reach the job.
    given = tree.find("train_config.fine_tune_checkpoint")
    return {"train_config.fine_tune_checkpoint": '""'} if isinstance(given, Scalar) else {}
