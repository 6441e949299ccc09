"""sweep: many runs with other values, and one table of their results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import INTERRUPTED, cloud_flags, cloud_options, hints, json_option, load, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from gcpod.spec import Spec
    from gcpod.sweeps import Table


@click.command()
@cloud_options
@json_option
@click.option("--dry-run", is_flag=True, help="Print the runs and what they cost at worst; start none.")
@click.option("--retry", is_flag=True, help="Submit a new attempt of jobs that failed or were cancelled.")
def sweep(file: Path, local: bool, endpoint: str | None, as_json: bool, dry_run: bool, retry: bool) -> None:
    """Run everything that `sweep:` in gcpod.yaml names, some at a time, and compare the results.

    Runs share records and packages. A second start goes on; runs that are done are only read.
    """
    from rich.console import Console

    from gcpod.api import open_sweep
    from gcpod.cli.show import Screen
    from gcpod.errors import JobFailedError
    from gcpod.inputs import RunOptions

    spec = load(file)
    if dry_run:
        _dry_run(spec, local, endpoint, as_json)
        return
    console, flags = Console(stderr=as_json), cloud_flags(file, local, endpoint)
    with hints(flags), Screen(console) as screen:
        running = open_sweep(spec, local=local, endpoint=endpoint, options=RunOptions(retry=retry), reporter=screen)
        try:
            results = running.start()
        except KeyboardInterrupt:
            click.echo(f"interrupted; jobs that were submitted keep running\ngo on with: gcpod sweep {flags}", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
    if as_json:
        print_json(results.to_dicts())
    else:
        _show(console, results)
    failed = [row for row in results.rows if row.error]
    if failed:
        raise JobFailedError("sweeping over", spec.name, f"{len(failed)} of {len(results.rows)} runs failed, the first "
                             f"with: {failed[0].error}", "run it again with --retry")


def _show(console: Console, results: Table) -> None:
    from rich.table import Table as Drawn

    drawn = Drawn(*results.columns, title="sweep")
    for cells in results.cells():
        drawn.add_row(*cells)
    console.print(drawn)


def _dry_run(spec: Spec, local: bool, endpoint: str | None, as_json: bool) -> None:
    from gcpod.connection import settings_of
    from gcpod.jobs.budget import budget_of, worst_of
    from gcpod.sweeps import expand

    settings = settings_of(spec, local=local, endpoint=endpoint)
    variants = expand(spec)
    costs = [budget_of(variant.spec, settings).costs for variant in variants]
    if as_json:
        print_json([{"values": dict(variant.values), "worst": str(worst_of(cost))}
                    for variant, cost in zip(variants, costs, strict=True)])
        return
    for number, (variant, cost) in enumerate(zip(variants, costs, strict=True), 1):
        values = ", ".join(f"{key}: {value}" for key, value in variant.values.items())
        click.echo(f"[{number}] {values}: at worst {worst_of(cost)}")
    click.echo(f"{len(variants)} runs, {spec.sweep.at_once} at a time: at worst "
               f"{worst_of([one for cost in costs for one in cost])}")
