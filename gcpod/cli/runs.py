"""run and demo: everything at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import cloud_options, json_option, load, print_json

if TYPE_CHECKING:
    from gcpod.runner import Run, RunOptions
    from gcpod.session import Session
    from gcpod.spec import Spec

INTERRUPTED = 130


@click.command()
@cloud_options
@json_option
@click.option("--dry-run", is_flag=True, help="Print the requests that would be sent, and send nothing.")
@click.option("--again", is_flag=True, help="Start a new run although one of the same inputs exists.")
@click.option("--retry", is_flag=True, help="Submit a new attempt of a job that failed or was cancelled.")
@click.option("--steps", type=int, help="Train that many steps instead of the spec's.")
@click.option("--log", is_flag=True, help="Show the jobs' logs.")
def run(
    file: Path, local: bool, endpoint: str | None, as_json: bool, dry_run: bool, again: bool, retry: bool,
    steps: int | None, log: bool,
) -> None:
    """Dataset, bucket, training, evaluation, export: everything that is not done yet."""
    from gcpod.api import connect
    from gcpod.runner import RunOptions

    spec = load(file)
    if steps is not None:
        spec = dataclasses.replace(spec, train=dataclasses.replace(spec.train, steps=steps))
    if dry_run:
        _dry_run(spec, local, endpoint)
        return
    options = RunOptions(again=again, retry=retry)
    _run(spec, connect(spec, local=local, endpoint=endpoint), options, as_json, log, f"gcpod run --file {file}", local)


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
              help="Where the dataset, the spec and the local cloud lie.")
@click.option("--steps", type=int, default=500, show_default=True, help="Training steps of a new demo.")
@json_option
@click.option("--log", is_flag=True, help="Show the jobs' logs.")
def demo(folder: Path, steps: int, as_json: bool, log: bool) -> None:
    """Draw a small labelled dataset and run everything on the local cloud: no account, no cost.

    An interrupted demo goes on where it stopped; a finished one starts anew.
    """
    from gcpod.api import connect
    from gcpod.demo import make_demo
    from gcpod.runner import RunOptions

    spec = make_demo(folder, steps)
    options = RunOptions(again_when_done=True)
    _run(spec, connect(spec, local=True), options, as_json, log, f"gcpod demo --dir {folder}", True)


def _dry_run(spec: Spec, local: bool, endpoint: str | None) -> None:
    from gcpod.api import settings_of
    from gcpod.prepare import prepare, requests_of

    settings = settings_of(spec, local=local, endpoint=endpoint)
    prepared = prepare(spec, settings, say=lambda text: click.echo(text, err=True))
    for note in prepared.notes:
        click.echo(f"machine of {note}", err=True)
    parent = f"projects/{settings.project.value}/locations/{settings.region.value}"
    bodies = requests_of(prepared, settings)
    print_json([{"method": "POST", "path": f"/v1/{parent}/customJobs", "body": body} for body in bodies])


def _run(
    spec: Spec, session: Session, options: RunOptions, as_json: bool, log: bool, command: str, stop_local: bool,
) -> None:
    from rich.console import Console

    from gcpod.cli.show import Screen, show_result
    from gcpod.runner import Run

    console = Console(stderr=as_json)
    with Screen(console, log) as screen:
        running = Run(spec, session, screen, options)
        try:
            result = running.start()
        except KeyboardInterrupt:
            flags = f" --file {spec.folder / 'gcpod.yaml'}" + (" --local" if stop_local else "")
            _say_how_to_return(running, command, flags)
            raise click.exceptions.Exit(INTERRUPTED) from None
    if as_json:
        print_json(result.to_dict())
    else:
        show_result(console, result)
    if stop_local:
        from gcpod.api import local_root
        from gcpod.localcloud.cloud import stop_running

        stop_running(local_root(spec))


def _say_how_to_return(running: Run, command: str, flags: str) -> None:
    jobs = [followed.info for followed in running.followed.values() if not followed.info.state.terminal]
    click.echo(f"interrupted; {len(jobs)} jobs keep running" if jobs else "interrupted; no job is running", err=True)
    click.echo(f"go on with: {command}", err=True)
    for info in jobs:
        click.echo(f"cancel with: gcpod jobs cancel {info.id}{flags}", err=True)
