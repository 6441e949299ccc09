"""dataset: inspect, check, preview and build."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcpod.cli.common import json_option, load_if_there, print_findings, print_json
from gcpod.cli.dataset_options import PATH, check_options, request_of

if TYPE_CHECKING:
    from gcpod.data.build import DatasetRequest
    from gcpod.data.manifest import DatasetManifest


@click.group()
def dataset() -> None:
    """Inspect, check, preview and build a dataset."""


@dataset.command()
@click.argument("path", type=PATH)
@click.option("--annotations", type=PATH, help="Folder, file or pattern of labels; default: inside of PATH.")
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
    from gcpod.data.build import check_dataset, try_plan

    request = request_of(given)
    with _Bar(as_json) as bar:
        found = check_dataset(request, bar.update)
    _, found = try_plan(found, request)
    print_findings(found.checked.findings, as_json, request.images)


@dataset.command()
@check_options
@click.option("--out", type=PATH, default=Path("preview.html"), show_default=True, help="The page.")
@click.option("--sheet", type=click.IntRange(0, 2000), default=60, show_default=True, help="How many images it shows.")
@json_option
def preview(out: Path, sheet: int, as_json: bool, **given: Any) -> None:
    """Write an HTML page to look at the data."""
    from gcpod.data.build import check_dataset, try_plan
    from gcpod.data.preview.page import build_preview

    request = request_of(given)
    with _Bar(as_json) as bar:
        found = check_dataset(request, bar.update)
    plan, found = try_plan(found, request)
    page = build_preview(found, plan, out, str(request.images), sheet)
    checked = found.checked
    errors, others = len(checked.errors), len(checked.findings) - len(checked.errors)
    if as_json:
        print_json({"page": str(page), "images": len(checked.samples), "errors": errors, "warnings": others})
        return
    click.echo(f"wrote {page}: images fit for training: {len(checked.samples)}, errors: {errors}, warnings: {others}")


@dataset.command()
@check_options
@click.option("--out", type=PATH, help="Folder for records, label map and manifest.")
@click.option("--to", metavar="gs://…", help="Write into a bucket; without --out nothing is written to this disk.")
@click.option("--local", is_flag=True, help="The bucket is in the local cloud of this project.")
@click.option("--endpoint", metavar="URL", help="The bucket is in a local cloud that serves already.")
@click.option("--shard-bytes", type=int, help="About how large a shard gets; 128 MiB by default.")
@click.option("--shard-examples", type=int, help="The most images of a shard.")
@click.option("--gzip", is_flag=True, help="Pack the shards; the Object Detection API reads none of these.")
@click.option("--materialise", type=PATH, help="Copy the images into a new folder by split, too.")
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
    if to is None and (local or endpoint):
        raise click.UsageError("--local and --endpoint say where the bucket of --to is; --to is missing")
    if runner is None and (project or region or temp_location or beam_options):
        raise click.UsageError("--project, --region, --temp-location and --beam-option need --runner")
    if runner is not None and out is not None and to is not None:
        raise click.UsageError("a pipeline writes to one place: give --out or --to")
    asked = request_of(given, out)
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
