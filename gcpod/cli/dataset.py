"""dataset: inspect, check, preview and build."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gcpod.cli.common import file_option, json_option, load_if_there, print_findings, print_json

if TYPE_CHECKING:
    from gcpod.data.build import DatasetRequest
    from gcpod.data.manifest import DatasetManifest
    from gcpod.spec import DataSpec, Policies, Spec

_F = TypeVar("_F", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)

_SOURCE = (
    click.option("--images", metavar="PATH", help="Folder of images or TFRecords; default: gcpod.yaml's."),
    click.option("--annotations", type=_PATH, help="Folder, file or pattern of labels; default: beside the images."),
    click.option("--format", "format_", metavar="FORMAT", help="voc, vott1, csv, openimages, coco, yolo, tfrecord."),
)
_CHECK = (
    click.option("--label", "labels", multiple=True, help="Class names in the order of their ids."),
    click.option("--label-map", type=_PATH, help="A label_map.pbtxt to impose."),
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


source_options = _options((file_option, *_SOURCE))
check_options = _options((file_option, *_SOURCE, *_CHECK))


@click.group()
def dataset() -> None:
    """Inspect, check, preview and build a dataset."""


@dataset.command()
@click.argument("path", type=_PATH)
@click.option("--annotations", type=_PATH, help="Folder, file or pattern of labels; default: inside of PATH.")
@click.option("--format", "format_", metavar="FORMAT", default="auto", help="Insist on a format.")
@json_option
def inspect(path: Path, annotations: Path | None, format_: str, as_json: bool) -> None:
    """Say which format lies in PATH and what it holds; opens no image."""
    from gcpod.data.inspect import inspect_dataset

    found = inspect_dataset(path, annotations, format_)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    click.echo(f"{found.place}: {found.format}")
    for other in found.also:
        click.echo(f"also there: {other} (--format chooses)")
    click.echo(f"images:   {found.images}, {found.annotated} annotated")
    sides = ", ".join(f"{count} {side or 'of no side'}" for side, count in found.given.items())
    click.echo(f"split:    {sides if len(found.given) > 1 else 'none given'}")
    click.echo(f"boxes:    {sum(found.boxes.values())} of {len(found.boxes)} classes")
    for label, count in found.boxes.items():
        number = f" (id {found.label_map[label]})" if label in found.label_map else ""
        click.echo(f"  {count:8} {label}{number}")
    for finding in found.findings:
        click.echo(str(finding))


@dataset.command()
@check_options
@json_option
def check(as_json: bool, **given: Any) -> None:
    """Find every fault, with file and line; writes nothing."""
    from gcpod.data.build import check_dataset

    request = _request(given)
    with _Bar(as_json) as bar:
        found = check_dataset(request, bar.update)
    print_findings(found.checked.findings, as_json, request.images)


@dataset.command()
@check_options
@click.option("--out", type=_PATH, default=Path("preview.html"), show_default=True, help="The page.")
@click.option("--sheet", type=click.IntRange(0, 2000), default=60, show_default=True, help="How many images it shows.")
def preview(out: Path, sheet: int, **given: Any) -> None:
    """Write a self-contained HTML page to look at before you trust the data."""
    from gcpod.data.build import check_dataset, plan_checked
    from gcpod.data.preview.page import build_preview
    from gcpod.errors import DataError

    request = _request(given)
    with _Bar(False) as bar:
        found = check_dataset(request, bar.update)
    plan = None
    with suppress(DataError):
        plan = plan_checked(found, request)
    page = build_preview(found, plan, out, str(request.images), sheet)
    count, errors = len(found.checked.findings), len(found.checked.errors)
    click.echo(f"wrote {page}: {len(found.checked.samples)} images, {count} findings, {errors} of them errors")


@dataset.command()
@check_options
@click.option("--out", type=_PATH, help="Folder for records, label map and manifest.")
@click.option("--to", metavar="gs://…", help="Write into a bucket; without --out nothing is written to this disk.")
@click.option("--local", is_flag=True, help="The bucket is in the local cloud of this project.")
@click.option("--endpoint", metavar="URL", help="The bucket is in a local cloud that serves already.")
@click.option("--shard-bytes", type=int, help="About how large a shard gets; 128 MiB by default.")
@click.option("--shard-examples", type=int, help="The most images of a shard.")
@click.option("--gzip", is_flag=True, help="Pack the shards; the Object Detection API reads none of these.")
@click.option("--materialise", type=_PATH, help="Copy the images into a new folder by split, too.")
@click.option("--runner", help="Build by Apache Beam: DirectRunner, DataflowRunner… (docs/beam.md).")
@click.option("--project", help="Of a Dataflow job.")
@click.option("--region", help="Of a Dataflow job.")
@click.option("--temp-location", metavar="gs://…", help="For the work files of a pipeline.")
@click.option("--beam-option", "beam_options", multiple=True, metavar="--NAME=VALUE", help="Any other option of Beam.")
@json_option
def build(
    out: Path | None, to: str | None, local: bool, endpoint: str | None, shard_bytes: int | None,
    shard_examples: int | None, gzip: bool, materialise: Path | None, runner: str | None, project: str | None,
    region: str | None, temp_location: str | None, beam_options: tuple[str, ...], as_json: bool, **given: Any,
) -> None:
    """Build TFRecords, a label map and a manifest."""
    from gcpod.data.build import DatasetError, build_dataset
    from gcpod.errors import SpecError

    if out is None and to is None:
        raise SpecError("building the dataset into", "nothing", "no place is given", "name one with --out or --to")
    asked = _request(given, out)
    request = dataclasses.replace(
        asked, shard_bytes=asked.shard_bytes if shard_bytes is None else shard_bytes, shard_examples=shard_examples,
        compression="gzip" if gzip else "none", materialise=materialise,
    )
    try:
        with _Bar(as_json) as bar:
            if runner is not None:
                manifest = _by_beam(
                    request, given["images"], to or str(out), runner=runner, project=project, region=region,
                    temp_location=temp_location, extra=beam_options,
                )
            elif to is None:
                manifest = build_dataset(request, bar.update)
            else:
                manifest = _into_bucket(given["file"], request, to, out is None, local, endpoint, bar)
    except DatasetError as e:
        for finding in e.findings:
            click.echo(str(finding), err=True)
        raise
    _show(manifest, request, to, as_json)


def _into_bucket(
    file: Path, request: DatasetRequest, to: str, no_copy: bool, local: bool, endpoint: str | None, bar: _Bar,
) -> DatasetManifest:
    from gcpod.api import build_in_bucket

    return build_in_bucket(
        request, to, load_if_there(file), copy=not no_copy, local=local, endpoint=endpoint, progress=bar.update,
    )


def _by_beam(request: DatasetRequest, images: str | None, place: str, **options: Any) -> DatasetManifest:
    from gcpod.beam.options import BeamOptions
    from gcpod.beam.pipeline import build_with_beam

    stored = images if images and images.startswith("gs://") else None
    if stored and request.annotations:
        request = dataclasses.replace(request, images=request.annotations)
    return build_with_beam(request, place, BeamOptions(**options), stored, lambda text: click.echo(text, err=True))


def _show(manifest: DatasetManifest, request: DatasetRequest, to: str | None, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(manifest))
        return
    for finding in manifest.findings:
        click.echo(str(finding), err=True)
    place = to.rstrip("/") if to else str(request.out)
    for shard in manifest.shards:
        click.echo(f"{place}/{shard.name}: {shard.examples} examples, {shard.size_bytes} bytes")
    labels = {label: None for counts in manifest.boxes.values() for label in counts}
    click.echo(f"{place}/{manifest.label_map}: {', '.join(labels)}")


def _request(given: dict[str, Any], out: Path | None = None) -> DatasetRequest:
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
        name: given[name] for name in ("verify", "near_duplicates", "max_side", "masks", "eval_fraction")
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


def _one_of(record: type[DataSpec] | type[Policies], name: str, value: str) -> str:
    """A value that the spec's own rule for it allows."""
    choices = {field.name: field.metadata.get("choices", ()) for field in dataclasses.fields(record)}
    if value not in choices.get(name, ()):
        known = ", ".join(choices.get(name, ()) or choices)
        raise click.UsageError(f"{name}={value} is not known; known are {known}")
    return value


class _Bar:
    """Progress on a terminal, nothing elsewhere."""

    def __init__(self, silent: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description:6}"), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(*columns, console=console, transient=True, disable=silent or not console.is_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total)
        self._bars.update(self._tasks[phase], completed=done)
