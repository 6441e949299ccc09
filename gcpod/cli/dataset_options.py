"""The options of the dataset commands, and the request that they and gcpod.yaml make together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gcpod.cli.common import file_option, load_if_there

if TYPE_CHECKING:
    from gcpod.data.build import DatasetRequest
    from gcpod.spec import DataSpec, Policies, Spec

_F = TypeVar("_F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)

_SOURCE = (
    click.option("--images", metavar="PATH", help="Folder of images or TFRecords; default: gcpod.yaml's."),
    click.option("--annotations", type=PATH, help="Folder, file or pattern of labels; default: beside the images."),
    click.option("--format", "format_", metavar="FORMAT", help="voc, vott1, csv, openimages, coco, yolo, tfrecord."),
)
_CHECK = (
    click.option("--label", "labels", multiple=True, help="Class names in the order of their ids."),
    click.option("--label-map", type=PATH, help="A label_map.pbtxt to impose."),
    click.option("--alias", "aliases", multiple=True, metavar="OLD=NEW", help="Rename or merge a label."),
    click.option("--policy", "policies", multiple=True, metavar="FAULT=error|fix|warn", help="As data.policies."),
    click.option("--verify", type=click.Choice(["header", "decode"]), help="Read headers, or decode every image."),
    click.option("--near-duplicates/--no-near-duplicates", default=None, help="Look for re-encoded copies."),
    click.option("--max-side", type=int, help="Shrink larger images to so many pixels."),
    click.option("--masks", is_flag=True, default=None, help="Record COCO's masks."),
    click.option("--eval-fraction", type=float, help="Share kept for evaluation; 0.1 by default."),
)


def _options(options: tuple[Callable[[_F], _F], ...]) -> Callable[[_F], _F]:
    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


check_options = _options((file_option, *_SOURCE, *_CHECK))


def request_of(given: dict[str, Any], out: Path | None = None) -> DatasetRequest:
    """The request of gcpod.yaml's data section, where there is one, with what the command line says instead."""
    from gcpod.errors import SpecError
    from gcpod.prepare import dataset_request

    spec = load_if_there(given["file"])
    if given["images"] is None and not given["file"].exists():
        found = f"neither --images nor {given['file']} says which images"
        raise SpecError("looking for", "the dataset", found, "name a folder with --images")
    return dataset_request(dataclasses.replace(spec, data=_data(spec, given)), out or Path())


def _data(spec: Spec, given: dict[str, Any]) -> DataSpec:
    from gcpod.spec import DataSpec, Policies

    changed: dict[str, Any] = {
        name: _within(name, given[name]) for name in ("verify", "near_duplicates", "max_side", "masks", "eval_fraction")
        if given[name] is not None
    }
    if given["images"] is not None:
        changed |= {"images": _from(spec, Path(given["images"])), "annotations": None, "format": "auto"}
    if given["annotations"] is not None:
        changed["annotations"] = _from(spec, given["annotations"])
    if given["format_"] is not None:
        changed["format"] = _one_of(DataSpec, "format", given["format_"])
    if given["labels"] or given["label_map"]:
        label_map = given["label_map"] and _from(spec, given["label_map"])
        changed |= {"labels": given["labels"] or None, "label_map": label_map}
    if given["aliases"]:
        changed["aliases"] = {**(spec.data.aliases or {}), **_pairs("--alias", given["aliases"])}
    asked = _pairs("--policy", given["policies"])
    policies: dict[str, Any] = {name: _one_of(Policies, name, value) for name, value in asked.items()}
    changed["policies"] = dataclasses.replace(spec.data.policies, **policies)
    return dataclasses.replace(spec.data, **changed)


def _from(spec: Spec, path: Path) -> str:
    """A path of the command line, which starts from here, as the spec would give it from its own folder."""
    return str(path if spec.folder == Path() else path.absolute())


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise click.UsageError(f"{option} wants NAME=VALUE, not {name + sign + value!r}")
    return {name: value for name, _, value in pairs}


def _within(name: str, value: Any) -> Any:
    """A value that the spec's own rule for it allows."""
    from gcpod.spec import DataSpec

    [rule] = [field.metadata for field in dataclasses.fields(DataSpec) if field.name == name]
    if "min" in rule and not rule["min"] <= value <= rule["max"]:
        raise click.UsageError(f"{name} is {value}; give {rule['min']} to {rule['max']}")
    return value


def _one_of(record: type[DataSpec] | type[Policies], name: str, value: str) -> str:
    """A value that the spec's own rule for it allows."""
    choices = {field.name: field.metadata.get("choices", ()) for field in dataclasses.fields(record)}
    if value not in choices.get(name, ()):
        known = ", ".join(choices.get(name, ()) or choices)
        raise click.UsageError(f"{name}={value} is not known; known are {known}")
    return value
