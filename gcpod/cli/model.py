"""model: the zoo's pretrained detectors, brought here and into the bucket."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcpod.cli.bars import byte_bars
from gcpod.cli.common import cloud_options, json_option, load_if_there, print_json

if TYPE_CHECKING:
    from gcpod.models.fetch import FetchedModel
    from gcpod.models.zoo import ZooModel

PIPE_COLUMNS = 200
"""Width of a table that is not on a terminal: nothing is folded for the program that reads it."""
base_option = click.option(
    "--url", "base", metavar="BASE", help="Fetch BASE/NAME.tar.gz, from a mirror, in place of the zoo's own address.",
)


@click.group()
def model() -> None:
    """List, fetch and upload pretrained detectors of the model zoo."""


@model.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """The models that the built-in templates go with, and what was published about them."""
    from rich.console import Console
    from rich.table import Table

    from gcpod.models.zoo import all_models

    models = all_models().values()
    if as_json:
        print_json([asdict(one) for one in models])
        return
    table = Table("model", "TF", "extractor", "input", "COCO mAP", "ms", "template")
    for column in table.columns:
        column.overflow = "fold"  # a name that is cut short names nothing
    for one in models:
        table.add_row(*_row(one))
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def _row(one: ZooModel) -> tuple[str, ...]:
    numbers = ("-" if n is None else f"{n:g}" for n in (one.coco_map, one.speed_ms))
    return (one.name, str(one.tensorflow), one.extractor, one.input_text, *numbers, one.template)


@model.command()
@click.argument("name")
@base_option
@json_option
def fetch(name: str, base: str | None, as_json: bool) -> None:
    """Bring a model's checkpoint to this machine, once; say what to write into gcpod.yaml."""
    found = _fetch(name, base, as_json)
    if as_json:
        print_json(_facts(found, str(found.prefix)))
        return
    _advise(found, str(found.prefix), base)


@model.command()
@click.argument("name")
@cloud_options
@base_option
@json_option
def upload(name: str, file: Path, local: bool, endpoint: str | None, base: str | None, as_json: bool) -> None:
    """Put a model's checkpoint into the bucket, fetching it first where it is not here."""
    from gcpod.connection import connect, objects_of, settings_of
    from gcpod.layout import model_folder
    from gcpod.uploads import upload_model

    spec = load_if_there(file)
    # What is missing there is to be said before a hundred megabytes are fetched.
    settings_of(spec, local=local, endpoint=endpoint)
    found = _fetch(name, base, as_json)
    session = connect(spec, local=local, endpoint=endpoint)
    objects = objects_of(session)
    bucket = session.settings.bucket_uri
    objects.ensure_bucket(bucket.bucket)
    with byte_bars(as_json) as update:
        done = upload_model(objects, found, bucket, lambda now: update("upload", now.bytes, now.all_bytes))
    prefix = str(model_folder(bucket, found.model.name) / found.prefix.name)
    if as_json:
        print_json(_facts(found, prefix) | {"uploaded": len(done.uploads), "unchanged": len(done.unchanged)})
        return
    click.echo(f"uploaded {len(done.uploads)} files ({done.bytes} bytes), {len(done.unchanged)} were there", err=True)
    _advise(found, prefix, base)


def _fetch(name: str, base: str | None, as_json: bool) -> FetchedModel:
    import requests

    from gcpod.cache import cache_dir
    from gcpod.models.fetch import fetch_model
    from gcpod.models.zoo import find_model

    asked = find_model(name)
    with requests.Session() as session, byte_bars(as_json) as progress:
        return fetch_model(
            asked, cache_dir(), session, base=base, progress=progress, say=lambda text: click.echo(text, err=True),
        )


def _facts(found: FetchedModel, prefix: str) -> dict[str, Any]:
    from gcpod.models.start import ZOO

    return {
        "name": found.model.name, "zoo": f"{ZOO}{found.model.name}", "fine_tune_checkpoint": prefix,
        "fine_tune_checkpoint_type": found.model.fine_tune_checkpoint_type,
        "fine_tune_checkpoint_version": found.fine_tune_checkpoint_version, "template": found.model.template,
        "pipeline_config": found.pipeline_config, "sha256": found.sha256,
    }


def _advise(found: FetchedModel, prefix: str, base: str | None) -> None:
    """The prefix on a line of its own, then what gcpod.yaml needs to start from it, and how a run does it all."""
    from gcpod.models.start import ZOO

    click.echo(prefix)
    kind = "1" if found.fine_tune_checkpoint_version == "V1" else "2"
    click.echo(f"\n# in gcpod.yaml; the checkpoint is of TensorFlow {kind}")
    click.echo(_yaml({"model": {
        "template": found.model.template, "fine_tune_checkpoint": prefix,
        "fine_tune_checkpoint_type": found.model.fine_tune_checkpoint_type,
    }}), nl=False)
    if kind == "2":  # Runs train by TensorFlow 2.
        keys = {"fine_tune_checkpoint": f"{ZOO}{found.model.name}"} | ({"zoo_mirror": base} if base else {})
        click.echo("\n# or in place of the last two; a run then fetches and uploads the model itself, once")
        click.echo("".join(f"#   {line}\n" for line in _yaml(keys).splitlines()), nl=False)


def _yaml(values: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(values, sort_keys=False, width=10_000)
