"""What a run's training starts from: nothing, a checkpoint in a bucket or on this machine, or a model of the zoo.

A model of the zoo is fetched once into the user's cache and lies once in the bucket, for all runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gcpod.errors import ConfigError
from gcpod.layout import RunLayout, model_folder
from gcpod.models.archive import Version
from gcpod.models.download import check_address
from gcpod.models.fetch import FetchedModel, mirrored
from gcpod.models.zoo import ZooModel, all_models, find_model
from gcpod.spec import Spec
from gcpod.textproto import Message, parse

ZOO = "zoo:"
"""What a fine_tune_checkpoint of gcpod.yaml begins with that names a model of the zoo."""
WIDTH = 1.0
"""Depth multiplier of every model of zoo.yaml (their sample configs), and of a config that names none (2.8.0's
object_detection/protos: ssd.proto, center_net.proto)."""
_TYPE = "detection"


@dataclass(frozen=True)
class Start:
    """What a pipeline config says of its checkpoint.

    Attributes:
        address: ``gs://`` prefix of the checkpoint; None: there is none.
        type: the config's ``fine_tune_checkpoint_type``.
        version: the config's ``fine_tune_checkpoint_version``; None: whichever the feature extractor is for.
    """

    address: str | None
    type: str
    version: Version | None = None


def zoo_model(spec: Spec) -> ZooModel | None:
    """The model of the zoo that a spec starts from; None where it starts from something else.

    Raises:
        SpecError: there is no such model; the message has the nearest names.
        PackageError: M604, ``model.zoo_mirror`` is no address that anything is fetched from.
    """
    given = spec.model.fine_tune_checkpoint
    if given is None or not given.startswith(ZOO):
        return None
    model = find_model(given.removeprefix(ZOO))
    check_address(address(spec, model))
    return model


def address(spec: Spec, model: ZooModel) -> str:
    """Where a spec's model is fetched from."""
    return mirrored(model, spec.model.zoo_mirror) if spec.model.zoo_mirror else model.url


def start_of(spec: Spec, layout: RunLayout, fetched: FetchedModel | None = None) -> Start:
    """What the config of a run says of the checkpoint it starts from.

    Args:
        layout: of the run; a checkpoint on this machine is uploaded to its own folder.
        fetched: the zoo's model where it lies on this machine, as what an archive holds is what counts; else its
            checkpoint is called as those of its kind are.

    Raises:
        SpecError, PackageError: as for zoo_model.
    """
    given, model = spec.model.fine_tune_checkpoint, zoo_model(spec)
    kind = start_type(spec)
    if model is not None:
        name = fetched.prefix.name if fetched else model.checkpoint_name
        version = fetched.fine_tune_checkpoint_version if fetched else model.checkpoint_version
        return Start(str(model_folder(layout.bucket, model.name) / name), kind, version)
    if given is None or given.startswith("gs://"):
        return Start(given, kind)
    return Start(str(layout.checkpoint / Path(given).name), kind)


def start_type(spec: Spec) -> str:
    """What the checkpoint restores: as the spec says, else as the zoo does.

    Raises:
        SpecError, PackageError: as for zoo_model.
    """
    model = zoo_model(spec)
    return spec.model.fine_tune_checkpoint_type or (_TYPE if model is None else model.fine_tune_checkpoint_type)


def fits(model: ZooModel, config: Message) -> bool:
    """Whether a model's checkpoint restores into what a pipeline config builds: the layers have the same names."""
    return config.text(f"model.{model.architecture}.feature_extractor.type") == model.extractor


def check_start(config: str, spec: Spec, templates: Iterable[tuple[str, str]]) -> None:
    """Holds the zoo's model that a spec starts from against the rendered config.

    Args:
        config: the text that the job will read.
        templates: names and texts of those there are, for what to use in place of this one.

    Raises:
        ConfigError: C201, what the config builds has other layers than the checkpoint, or layers of another width.
        SpecError, PackageError: as for zoo_model.
    """
    model = zoo_model(spec)
    if model is None:
        return
    tree = parse(config, spec.model.template)
    if not fits(model, tree):
        found = f"it is of TensorFlow {model.tensorflow}, for the feature extractor {model.extractor}, which " \
                f"{spec.model.template} does not build"
        able = " or ".join(name for name, text in templates if fits(model, parse(text, name)))
        fix = f"use model.template: {able}" if model.tensorflow == 2 else \
              f"it goes with {able}, which is of TensorFlow 1 and no run trains"
        others = " or ".join(f"{ZOO}{one.name}" for one in all_models().values() if fits(one, tree))
        raise _unfit(model, found, fix + (others and f"; this template goes with {others}"))
    width = _number(tree.text(f"model.{model.architecture}.feature_extractor.depth_multiplier"))
    if width != WIDTH:
        raise _unfit(model, f"its layers have depth_multiplier {WIDTH:g}, the config's have {width:g}",
                     "leave model.depth_multiplier empty, or start from nothing")


def _unfit(model: ZooModel, found: str, fix: str) -> ConfigError:
    return ConfigError("starting from", f"{ZOO}{model.name}", found, fix, code="C201")


def _number(text: str | None) -> float:
    """A number of a config; what is none is the lint's to tell."""
    with suppress(ValueError):
        return WIDTH if text is None else float(text.rstrip("fF"))
    return WIDTH


def check_fetched(fetched: FetchedModel) -> None:
    """Holds what an archive holds against what the zoo says of it.

    Raises:
        ConfigError: C201, its checkpoint is of the other TensorFlow.
    """
    model, version = fetched.model, fetched.fine_tune_checkpoint_version
    if version != model.checkpoint_version:
        found = f"its archive holds a checkpoint of version {version} in place of {model.checkpoint_version}"
        raise _unfit(model, found, f"remove {fetched.folder} and fetch it from another place")


def checkpoint_files(spec: Spec) -> list[Path]:
    """The files of a fine-tune checkpoint on this machine; none when it is absent, the zoo's or in a bucket already.

    Raises:
        ConfigError: C201, the prefix has no ``.index`` or no ``.data`` file.
    """
    given = spec.model.fine_tune_checkpoint
    if given is None or given.startswith(("gs://", ZOO)):
        return []
    prefix = spec.local_path(given)
    files = sorted(p for p in prefix.parent.glob(f"{prefix.name}.*") if p.suffix == ".index" or ".data-" in p.name)
    if not any(p.suffix == ".index" for p in files) or not any(".data-" in p.name for p in files):
        raise ConfigError(
            "finding the checkpoint", prefix, "there is no such prefix with an .index and a .data file",
            "give what PREFIX.index and PREFIX.data-00000-of-00001 share", code="C201",
        )
    return files
