"""sweep: many runs with other values, and one table of their results."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import INTERRUPTED, cloud_flags, cloud_options, hints, json_option, load, print_json
from gcpod.cli.costs import max_cost_option, tell_sum
from gcpod.cli.machines import prices_option

if TYPE_CHECKING:
    from rich.console import Console

    from gcpod.jobs.budget import Budget
    from gcpod.sweeps import Table, Variant


@click.command()
@cloud_options
@json_option
@click.option("--dry-run", is_flag=True, help="Print the runs and what they cost at worst; start none.")
@click.option("--retry", is_flag=True, help="Submit a new attempt of jobs that failed or were cancelled.")
@max_cost_option
@prices_option
def sweep(
    file: Path, local: bool, endpoint: str | None, as_json: bool, dry_run: bool, retry: bool,
    max_cost: Decimal | None, prices: Path | None,
) -> None:
    """Run everything that `sweep:` in gcpod.yaml names, some at a time, and compare the results.

    Runs share records and packages. A second start goes on; runs that are done are only read. --max-cost is for all
    runs together.
    """
    from rich.console import Console

    from gcpod.api import open_sweep
    from gcpod.cli.show import Screen
    from gcpod.connection import settings_of
    from gcpod.errors import JobFailedError
    from gcpod.inputs import RunOptions
    from gcpod.jobs.budget import sweep_budget
    from gcpod.sweeps import expand

    spec = load(file)
    if dry_run or max_cost is not None:
        variants = expand(spec)
        settings = settings_of(spec, local=local, endpoint=endpoint)
        runs = [variant.spec for variant in variants]
        budget = sweep_budget(spec, runs, settings, prices=prices, max_cost=max_cost)
        spec = budget.spec
        if dry_run:
            _dry_run(variants, budget, as_json)
            return
        tell_sum(budget)
    console, flags = Console(stderr=as_json), cloud_flags(file, local, endpoint)
    given = {"--max-cost": max_cost, "--prices": prices}
    command = f"gcpod sweep {flags}" + "".join(f" {name} {value}" for name, value in given.items() if value is not None)
    with hints(flags), Screen(console) as screen:
        running = open_sweep(spec, local=local, endpoint=endpoint, options=RunOptions(retry=retry), reporter=screen)
        try:
            results = running.start()
        except KeyboardInterrupt:
            click.echo(f"interrupted; jobs that were submitted keep running\ngo on with: {command}", err=True)
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


def _dry_run(variants: Sequence[Variant], budget: Budget, as_json: bool) -> None:
    from gcpod.jobs.budget import worst_of

    # Each run has as many jobs as any other.
    count = len(budget.costs) // len(variants)
    costs = [budget.costs[number * count : (number + 1) * count] for number in range(len(variants))]
    if as_json:
        print_json([
            {"values": dict(variant.values), "worst": str(worst_of(cost)),
             "hours": {one.kind: one.timeout_s / 3600 for one in cost}}
            for variant, cost in zip(variants, costs, strict=True)
        ])
        return
    for number, (variant, cost) in enumerate(zip(variants, costs, strict=True), 1):
        values = ", ".join(f"{key}: {value}" for key, value in variant.values.items())
        click.echo(f"[{number}] {values}: at worst {worst_of(cost)}")
    click.echo(f"{len(variants)} runs, {budget.spec.sweep.at_once} at a time: at worst {budget.worst}")
    tell_sum(budget)
