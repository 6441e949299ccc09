"""The steps of a run as commands of their own."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import cloud_flags, cloud_options, hints, json_option, load, print_json
from gcpod.cli.costs import dry_run_option, format_option, max_cost_option, print_requests, tell_costs
from gcpod.cli.job_options import plain
from gcpod.cli.machines import prices_option

if TYPE_CHECKING:
    from gcpod.jobs.request import Kind
    from gcpod.runner import Run
    from gcpod.spec import Spec


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
@dry_run_option
@format_option
@max_cost_option
@prices_option
@click.option("--retry", is_flag=True, help="A new attempt, where the last one failed or was cancelled.")
@click.option("--checkpoint", default="", metavar="NAME", help="Evaluate that one, such as ckpt-5, in one pass.")
def submit(
    kind: Kind, file: Path, local: bool, endpoint: str | None, as_json: bool, dry_run: bool, shape: str,
    max_cost: Decimal | None, prices: Path | None, retry: bool, checkpoint: str,
) -> None:
    """Upload what is missing and submit one job; a job that was submitted before is only named."""
    from gcpod.connection import settings_of
    from gcpod.jobs.budget import budget_of

    spec = load(file)
    if dry_run or max_cost is not None:
        settings = settings_of(spec, local=local, endpoint=endpoint)
        budget = budget_of(spec, settings, prices=prices, max_cost=max_cost, kinds=[kind])
        tell_costs(budget)
        spec = budget.spec
        if dry_run:
            print_requests(budget, settings, shape, checkpoint=checkpoint, again=retry)
            return
    with hints(cloud_flags(file, local, endpoint)):
        run = _run(spec, local, endpoint, retry=retry)
        info = run.submit(kind, checkpoint)
    told = plain(info, run.jobs)
    if as_json:
        print_json(told)
    else:
        click.echo(f"{info.name} {info.state.short} {told['page']}")


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


def _run(spec: Spec | Path, local: bool, endpoint: str | None, retry: bool = False) -> Run:
    from rich.console import Console

    from gcpod.api import open_run
    from gcpod.cli.show import Screen
    from gcpod.inputs import RunOptions

    screen = Screen(Console(stderr=True))
    return open_run(spec, local=local, endpoint=endpoint, options=RunOptions(retry=retry), reporter=screen)
