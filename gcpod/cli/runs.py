"""run and demo: everything at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import INTERRUPTED, cloud_flags, cloud_options, hints, json_option, load, print_json
from gcpod.cli.costs import dry_run_option, format_option, max_cost_option, print_requests, tell_costs
from gcpod.cli.machines import prices_option

if TYPE_CHECKING:
    from gcpod.inputs import RunOptions
    from gcpod.runner import Run
    from gcpod.spec import Spec


@click.command()
@cloud_options
@json_option
@dry_run_option
@format_option
@click.option("--again", is_flag=True, help="Start a new run although one of the same inputs exists.")
@click.option("--retry", is_flag=True, help="Submit a new attempt of a job that failed or was cancelled.")
@click.option("--steps", type=click.IntRange(min=1), help="Train that many steps instead of the spec's.")
@max_cost_option
@prices_option
@click.option("--log", is_flag=True, help="Show the jobs' logs.")
def run(
    file: Path, local: bool, endpoint: str | None, as_json: bool, dry_run: bool, shape: str, again: bool, retry: bool,
    steps: int | None, max_cost: Decimal | None, prices: Path | None, log: bool,
) -> None:
    """Dataset, bucket, training, evaluation, export: everything that is not done yet."""
    from gcpod.connection import settings_of
    from gcpod.inputs import RunOptions
    from gcpod.jobs.budget import budget_of

    spec = load(file)
    if steps is not None:
        spec = dataclasses.replace(spec, train=dataclasses.replace(spec.train, steps=steps))
    if dry_run or max_cost is not None:
        settings = settings_of(spec, local=local, endpoint=endpoint)
        budget = budget_of(spec, settings, prices=prices, max_cost=max_cost)
        tell_costs(budget)
        spec = budget.spec
        if dry_run:
            print_requests(budget, settings, shape, again=again or retry)
            return
    flags = cloud_flags(file, local, endpoint)
    given = {"--steps": steps, "--max-cost": max_cost, "--prices": prices}
    command = f"gcpod run {flags}" + "".join(f" {name} {value}" for name, value in given.items() if value is not None)
    options = RunOptions(again=again, retry=retry)
    with hints(flags), _stopped_after(spec, local and endpoint is None):
        _run(spec, local, endpoint, options, as_json, log, command, flags)


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
              help="Where the dataset, the spec and the local cloud lie.")
@click.option("--steps", type=click.IntRange(min=1), default=500, show_default=True,
              help="Training steps of a new demo.")
@json_option
@click.option("--log", is_flag=True, help="Show the jobs' logs.")
def demo(folder: Path, steps: int, as_json: bool, log: bool) -> None:
    """Draw a small labelled dataset and run everything on the local cloud: no account, no cost.

    An interrupted demo goes on where it stopped; a finished one starts anew.
    """
    from gcpod.demo import make_demo
    from gcpod.inputs import RunOptions

    spec = make_demo(folder, steps)
    flags, options = cloud_flags(folder / "gcpod.yaml", True, None), RunOptions(again_when_done=True)
    with hints(flags), _stopped_after(spec, True):
        _run(spec, True, None, options, as_json, log, f"gcpod demo --dir {folder}", flags)


@contextmanager
def _stopped_after(spec: Spec, local: bool) -> Iterator[None]:
    """Ends the project's local cloud again if this command started it, it did its work and no job is left."""
    from gcpod.connection import connect, local_root

    if not local:
        yield
        return
    from gcpod.jobs.service import Jobs
    from gcpod.localcloud.cloud import running_url, stop_running

    was_running = running_url(local_root(spec)) is not None
    yield
    if not was_running and all(info.state.terminal for info in Jobs(connect(spec, local=True)).list()):
        stop_running(local_root(spec))


def _run(
    spec: Spec, local: bool, endpoint: str | None, options: RunOptions, as_json: bool, log: bool, command: str,
    flags: str,
) -> None:
    from rich.console import Console

    from gcpod.api import open_run
    from gcpod.cli.show import Screen, show_result

    console = Console(stderr=as_json)
    with Screen(console, log) as screen:
        running = open_run(spec, local=local, endpoint=endpoint, options=options, reporter=screen)
        try:
            result = running.start()
        except KeyboardInterrupt:
            _say_how_to_return(running, command, flags)
            raise click.exceptions.Exit(INTERRUPTED) from None
    if as_json:
        print_json(result.to_dict())
    else:
        show_result(console, result)


def _say_how_to_return(running: Run, command: str, flags: str) -> None:
    jobs = [followed.info for followed in running.followed.values() if not followed.info.state.terminal]
    if jobs:
        count = "1 job keeps" if len(jobs) == 1 else f"{len(jobs)} jobs keep"
        click.echo(f"interrupted; {count} running", err=True)
    else:
        click.echo(f"interrupted; jobs submitted before keep running: gcpod jobs list {flags}", err=True)
    click.echo(f"go on with: {command}", err=True)
    for info in jobs:
        click.echo(f"cancel with: gcpod jobs cancel {info.id} {flags}", err=True)
