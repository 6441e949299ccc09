"""machines: what jobs can run on, where, with which runtime and at what price."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcpod.cli.common import cloud_options, json_option, load_if_there, print_json

if TYPE_CHECKING:
    from gcpod.jobs.prices import MachinePrice, Price, PriceTable
    from gcpod.settings import Settings
    from gcpod.spec import MachineSpec

PIPE_COLUMNS = 200
"""Width of a table that is not on a terminal: nothing is folded for the program that reads it."""
prices_option = click.option(
    "--prices", type=click.Path(path_type=Path), help="A file of prices, in place of those fetched last.",
)


@click.command()
@cloud_options
@click.option("--region", help="Only what is offered there, with its prices; by default your own region.")
@click.option("--accelerator", metavar="NAME", help="Only machines with it, such as NVIDIA_TESLA_T4.")
@click.option("--runtime", metavar="NAME", help="Only machines that it has an image for.")
@prices_option
@click.option("--refresh", is_flag=True, help="Fetch the prices from the Cloud Billing catalogue first.")
@click.option("--currency", metavar="CODE", default="USD", show_default=True, help="Of the prices to fetch.")
@json_option
def machines(
    file: Path, local: bool, endpoint: str | None, region: str | None, accelerator: str | None, runtime: str | None,
    prices: Path | None, refresh: bool, currency: str, as_json: bool,
) -> None:
    """Machines for jobs: where they are offered, which runtimes have an image, what an hour costs."""
    from gcpod.jobs.prices import MachinePrice, find_prices, usual_prices

    if refresh and prices is not None:
        raise click.UsageError("--refresh writes the usual file: give either --refresh or --prices")
    settings = _settings(file, local, endpoint)
    is_local = local or endpoint is not None or (settings is not None and bool(settings.endpoint.value))
    if refresh:
        _refresh(file, local, endpoint, currency, usual_prices(is_local))
    where = region or (settings.region.value if settings else "")
    table = find_prices(prices, usual_prices(is_local))
    rows = [MachinePrice.of(one, where, table) for one in _chosen(where, accelerator, runtime)]
    if as_json:
        told = {"date": table.date, "currency": table.currency, "source": table.source, "file": table.path}
        print_json({"region": where or None, "prices": told if table.date else None,
                    "machines": [_plain(row) for row in rows]})
        return
    _print(rows)
    click.echo(_told(table, where), err=True)


def _settings(file: Path, local: bool, endpoint: str | None) -> Settings | None:
    """Those of the project, as far as there is one: a list needs neither account nor project."""
    from gcpod.connection import settings_of
    from gcpod.errors import AuthError

    try:
        return settings_of(load_if_there(file), local=local, endpoint=endpoint)
    except AuthError:
        return None


def _refresh(file: Path, local: bool, endpoint: str | None, currency: str, path: Path) -> None:
    import datetime

    from gcpod.connection import connect
    from gcpod.jobs.catalogue import refresh

    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    found = refresh(connect(load_if_there(file), local=local, endpoint=endpoint), currency, today, path)
    for name in found.doubtful:
        click.echo(f"not one clear price in the catalogue: {name}", err=True)
    click.echo(f"{len(found.table.rates)} prices: {path}", err=True)


def _chosen(region: str, accelerator: str | None, runtime: str | None) -> list[MachineSpec]:
    """The rows of the table that an option leaves.

    Raises:
        SpecError: an option names nothing known, or they leave no machine.
    """
    from gcpod.errors import SpecError
    from gcpod.jobs.machines import accelerators, listed, nearest, offered, regions_of, runtimes_for
    from gcpod.runtimes import find_runtime

    if accelerator is not None and accelerator not in accelerators():
        raise SpecError("choosing the accelerator", accelerator, "it is not known or retired",
                        f"use one of: {', '.join(accelerators())}", code="J402")
    name = find_runtime(runtime).name if runtime is not None else None
    chosen = [
        one for one in listed()
        if accelerator in (None, one.accelerator) and (name is None or name in runtimes_for(one))
    ]
    here = [
        one for one in chosen
        if not region or (region in (regions_of(one) or (region,)) and not offered(one, region)[1])
    ]
    if not here:
        near = nearest(chosen[0], region) if chosen else None
        fix = f"the nearest that runs: {near[0]} in {near[1]}" if near else "leave one of the options out"
        raise SpecError("listing machines in", region or "any region", "none is left by the options", fix, code="J402")
    return here


def _plain(row: MachinePrice) -> dict[str, Any]:
    from gcpod.jobs.machines import regions_of, runtimes_for

    machine = row.machine
    return {
        "type": machine.type, "accelerator": machine.accelerator, "count": machine.count,
        "tpu_topology": machine.tpu_topology, "regions": list(regions_of(machine)) or None,
        "runtimes": list(runtimes_for(machine)), "per_hour": amount(row.standard), "spot_per_hour": amount(row.spot),
    }


def amount(price: Price) -> str | None:
    """The number alone, exact, as text; None for unknown."""
    from gcpod.jobs.prices import Money

    return f"{price.amount:f}" if isinstance(price, Money) else None


def _print(rows: list[MachinePrice]) -> None:
    from rich.console import Console
    from rich.table import Table

    from gcpod.jobs.machines import regions_of, runtimes_for

    table = Table("machine", "regions", "runtimes with an image", "per hour", "spot per hour")
    for column in table.columns:
        column.overflow = "fold"  # a name that is cut short names nothing
    for row in rows:
        regions, runtimes = regions_of(row.machine) or ("not listed",), runtimes_for(row.machine) or ("none",)
        table.add_row(str(row.machine), ", ".join(regions), ", ".join(runtimes), str(row.standard), str(row.spot))
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(table)


def _told(table: PriceTable, region: str) -> str:
    if not table.date:
        return "no prices: fetch them with `gcpod machines --refresh`, or name a file with --prices"
    source = f", from the {table.source}" if table.source else ""
    where = "" if region else "; prices differ by region: name one with --region"
    return f"prices of {table.date}{source} ({table.path}), without disk, storage, network and logs{where}"
