"""The steps of a run as commands of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import cloud_flags, cloud_options, hints, json_option, print_json

if TYPE_CHECKING:
    from gcpod.jobs.request import Kind
    from gcpod.runner import Run


@click.command()
@cloud_options
@json_option
def upload(file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """Put records, label map, config, packages and checkpoint into the bucket."""
    run = _run(file, local, endpoint)
    layout = run.upload().layout
    if as_json:
        print_json({"run": str(layout.root), "config": str(layout.config), "data": str(layout.data)})
    else:
        click.echo(str(layout.root))


@click.command()
@click.argument("kind", type=click.Choice(["train", "eval", "export"]))
@cloud_options
@json_option
@click.option("--retry", is_flag=True, help="A new attempt, where the last one failed or was cancelled.")
@click.option("--checkpoint", default="", metavar="NAME", help="Evaluate that one, such as ckpt-5, in one pass.")
def submit(
    kind: Kind, file: Path, local: bool, endpoint: str | None, as_json: bool, retry: bool, checkpoint: str,
) -> None:
    """Upload what is missing and submit one job; a job that was submitted before is only named."""
    with hints(cloud_flags(file, local, endpoint)):
        info = _run(file, local, endpoint, retry=retry).submit(kind, checkpoint)
    if as_json:
        print_json({"name": info.name, "state": info.state.value})
    else:
        click.echo(f"{info.name} {info.state.short}")


@click.group()
def tensorboard() -> None:
    """Fetch the TensorBoard files of a run."""


@tensorboard.command()
@cloud_options
@json_option
@click.option("--out", type=click.Path(path_type=Path), help="Local folder.")
def fetch(file: Path, local: bool, endpoint: str | None, as_json: bool, out: Path | None) -> None:
    """Bring the event files up to date: only new bytes travel."""
    folder, fetched = _run(file, local, endpoint).fetch(out)
    if as_json:
        print_json({"folder": str(folder), "files": fetched.files, "bytes": fetched.bytes})
    else:
        click.echo(f"{fetched.files} files changed, {fetched.bytes} bytes fetched: tensorboard --logdir {folder}")


def _run(file: Path, local: bool, endpoint: str | None, retry: bool = False) -> Run:
    from rich.console import Console

    from gcpod.api import open_run
    from gcpod.cli.show import Screen
    from gcpod.inputs import RunOptions

    screen = Screen(Console(stderr=True))
    return open_run(file, local=local, endpoint=endpoint, options=RunOptions(retry=retry), reporter=screen)
