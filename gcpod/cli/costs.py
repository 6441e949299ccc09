"""What commands that submit jobs share: their cost told, limited by money, and the requests shown in place of sent."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import print_json
from gcpod.cli.machines import amount

if TYPE_CHECKING:
    from gcpod.jobs.budget import Budget, JobCost
    from gcpod.settings import Settings


def _money(_: click.Context, __: click.Parameter, text: str | None) -> Decimal | None:
    """A sum of money, exactly as it was written."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not Decimal(text):
        raise click.BadParameter(f"{text!r} is no sum of money: write it as 20 or 7.50")
    return Decimal(text)


max_cost_option = click.option(
    "--max-cost", metavar="AMOUNT", callback=_money, help="Shorten time limits to what it pays for, one attempt of "
    "each job, in the currency of the prices.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print the requests that would be sent and their cost; send nothing.",
)
format_option = click.option(
    "--format", "shape", type=click.Choice(["json", "yaml"]), default="json", show_default=True,
    help="Of the requests that --dry-run prints.",
)


def tell_costs(budget: Budget) -> None:
    """The jobs' costs, on standard error."""
    for cost in budget.costs:
        hours, minutes = divmod(cost.timeout_s // 60, 60)
        click.echo(f"cost of {cost.kind}: {cost.per_hour} per hour on {cost.machines}, at worst {cost.worst} until its "
                   f"time limit of {hours} h {minutes} min", err=True)
    tell_sum(budget)


def tell_sum(budget: Budget) -> None:
    """What all jobs come to, and what they may when they die and are submitted again; on standard error."""
    from gcpod.jobs.prices import Unknown

    worst, attempts = budget.worst, budget.spec.recovery.attempts
    told = f"prices of {budget.table.date}, without disk, storage, network and logs"
    click.echo(f"cost of all: at worst {worst}, one attempt each ({worst.why if isinstance(worst, Unknown) else told})",
               err=True)
    if attempts > 1 and not isinstance(worst, Unknown):
        click.echo(f"cost of all attempts that recovery allows, {attempts} a job: at worst {budget.worst_of_attempts}",
                   err=True)


def print_requests(
    budget: Budget, settings: Settings, shape: str, *, checkpoint: str = "", again: bool = False,
) -> None:
    """Prints the requests of the jobs of a budget; ``again`` says that a bucket might tell of earlier attempts."""
    from gcpod.prepare import prepare

    prepared = prepare(budget.spec, settings, say=lambda text: click.echo(text, err=True))
    for note in prepared.notes:
        click.echo(f"machine of {note}", err=True)
    if again:
        click.echo("these are the requests of a first run's first attempts: which run or attempt is the next one, only "
                   "the bucket tells, and a dry run asks nobody", err=True)
    kinds = [cost.kind for cost in budget.costs]
    bodies = [prepared.request(kind, settings, checkpoint=checkpoint) for kind in kinds]
    parent = f"projects/{settings.project.value}/locations/{settings.region.value}"
    listed = [
        {"method": "POST", "path": f"/v1/{parent}/customJobs", "body": body, "cost": _plain(cost)}
        for body, cost in zip(bodies, budget.costs, strict=True)
    ]
    if shape == "json":
        print_json(listed)
        return
    import yaml

    click.echo(yaml.safe_dump(listed, sort_keys=False, allow_unicode=True), nl=False)


def _plain(cost: JobCost) -> dict[str, object]:
    """Amounts exact, as text; null for unknown."""
    currency = getattr(cost.per_hour, "currency", None)
    return {"per_hour": amount(cost.per_hour), "worst": amount(cost.worst), "currency": currency}
