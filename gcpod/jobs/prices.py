"""What a machine costs per hour: dated tables of prices, sums over them, and "unknown" wherever one is missing.

Amounts are decimals in the currency of their table; nothing here converts, rounds down or takes a missing price for 0.
"""

from __future__ import annotations

import decimal
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import yaml

from gcpod.cache import cache_dir
from gcpod.errors import SpecError
from gcpod.jobs.dated import is_day, read_text, refuse_odd
from gcpod.spec import MachineSpec

PRICES_VARIABLE = "GCPOD_PRICES"
MAX_BYTES = 5_000_000
_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_UP = decimal.Context(prec=40, rounding=decimal.ROUND_CEILING)
_KEYS = ("date", "currency", "source", "regions")
_HOUR_S = 3600


@dataclass(frozen=True)
class Money:
    """An amount in a currency of ISO 4217."""

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        """Rounded up to a hundredth of a cent, so that it never reads as less or as nothing; two decimals at least."""
        whole, _, cents = _plain(self.amount.quantize(Decimal("0.0001"), context=_UP)).partition(".")
        return f"{whole}.{cents.ljust(2, '0')} {self.currency}"


@dataclass(frozen=True)
class Unknown:
    """A price or a cost that no source told, and what is missing."""

    why: str

    def __str__(self) -> str:
        return "unknown"


Price = Money | Unknown


@dataclass(frozen=True)
class Rate:
    """Prices of one thing for one hour; None where the table has none."""

    standard: Decimal | None = None
    spot: Decimal | None = None


@dataclass(frozen=True)
class PriceTable:
    """Prices of one day in one currency.

    Attributes:
        date: the day they were read, as 2026-11-21; "" for an empty table.
        source: who told them.
        path: the file they were read from; "" where there is none.
        rates: by region and name: a machine type without accelerators, one accelerator, or a whole machine as
            MachineSpec prints it (``cloud-tpu with 8 x TPU_V2``).
    """

    date: str = ""
    currency: str = ""
    source: str = ""
    path: str = ""
    rates: Mapping[tuple[str, str], Rate] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class MachinePrice:
    """What a machine costs in a region for an hour."""

    machine: MachineSpec
    region: str
    standard: Price
    spot: Price

    @classmethod
    def of(cls, machine: MachineSpec, region: str, table: PriceTable) -> MachinePrice:
        return cls(machine, region, price_of(machine, region, table), price_of(machine, region, table, spot=True))


def price_of(machine: MachineSpec, region: str, table: PriceTable, *, spot: bool = False) -> Price:
    """The price of an hour: the whole machine's where the table has it, else its type's plus its accelerators'.

    The boot disk, storage, network, logs and image builds are not in it (docs/machines.md).

    Args:
        machine: as it will run.
        region: where.
        table: the prices.
        spot: for the scheduling strategy SPOT.
    """
    def rate(name: str) -> Decimal | None:
        found = table.rates.get((region, name), Rate())
        return found.spot if spot else found.standard

    whole = rate(str(machine))
    if whole is not None:
        return Money(whole, table.currency)
    parts = [(str(machine), 1)]
    if machine.accelerator is not None and machine.tpu_topology is None and machine.type != "cloud-tpu":
        parts = [(machine.type, 1), (machine.accelerator, machine.count)]
    missing = " and ".join(name for name, _ in parts if rate(name) is None)
    if missing:
        known = f"the prices of {table.date} lack" if table.date else "there are no prices, so none of"
        return Unknown(f"{known} {missing} in {region}{' as spot' if spot else ''}")
    return Money(sum(((rate(name) or Decimal(0)) * count for name, count in parts), Decimal(0)), table.currency)


def worst_cost(price: Price, timeout_s: int) -> Price:
    """What a job costs that runs until its timeout, in seconds; rounded up where the division does not end."""
    if isinstance(price, Unknown):
        return price
    return Money(_UP.divide(_UP.multiply(price.amount, Decimal(timeout_s)), Decimal(_HOUR_S)), price.currency)


def total(prices: list[Price]) -> Price:
    """The sum; unknown as soon as one of them is.

    Raises:
        ValueError: there are none, or they are in several currencies.
    """
    for price in prices:
        if isinstance(price, Unknown):
            return price
    known = [price for price in prices if isinstance(price, Money)]
    [currency] = {price.currency for price in known}
    return Money(sum((price.amount for price in known), Decimal(0)), currency)


def usual_prices(local: bool) -> Path:
    """The file that `gcpod machines --refresh` writes, in the user's cache; the local cloud's prices have their own."""
    return cache_dir() / ("prices-local.yaml" if local else "prices.yaml")


def find_prices(named: Path | None, usual: Path, environ: Mapping[str, str] | None = None) -> PriceTable:
    """The prices of the file that was named, else of the one in GCPOD_PRICES, else of the usual one if it is there.

    Raises:
        SpecError: the file that was named cannot be read, or any of them is no table of prices.
    """
    env = os.environ if environ is None else environ
    if named is None and env.get(PRICES_VARIABLE):
        named = Path(env[PRICES_VARIABLE])
    if named is None and not usual.exists():
        return PriceTable()
    return load_prices(named or usual)


def load_prices(path: Path) -> PriceTable:
    """Reads a file of prices.

    Raises:
        SpecError: J408, it is missing, too large, no YAML, or holds anything but prices; with its line.
    """
    text = read_text(path, MAX_BYTES, _wrong, "write it with `gcpod machines --refresh`, or by hand")
    return parse_prices(text, path)


def parse_prices(text: str, path: Path) -> PriceTable:
    """The table in a text; ``path`` is for messages.

    Raises:
        SpecError: as for load_prices.
    """
    try:
        refuse_odd(text, path, _wrong)
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError) as e:
        mark = getattr(e, "problem_mark", None)
        raise _wrong(f"{path}:{mark.line + 1}" if mark else path, "it is no YAML", "correct it there") from e
    top = _mapping(node, path, f"a mapping with the keys {', '.join(_KEYS)}")
    if set(top) - set(_KEYS) or set(_KEYS) - {"source"} - set(top):
        raise _wrong(path, f"its keys are {', '.join(top) or 'none'}", f"it needs {', '.join(_KEYS)}")
    date, currency = _text(top["date"], path), _text(top["currency"], path)
    if not is_day(date):
        raise _wrong(_line(top["date"], path), "date is no day", "write the day they were read, as 2026-11-21")
    if not _CURRENCY.fullmatch(currency):
        raise _wrong(_line(top["currency"], path), f"currency is {currency!r}", "write a code of ISO 4217, such as USD")
    rates = {
        (region, name): _rate(rate, path)
        for region, names in _mapping(top["regions"], path, "regions").items()
        for name, rate in _mapping(names, path, "prices by machine").items()
    }
    source = _text(top["source"], path) if "source" in top else ""
    return PriceTable(date, currency, source, str(path), MappingProxyType(rates))


def _rate(node: yaml.Node, path: Path) -> Rate:
    if isinstance(node, yaml.ScalarNode):
        return Rate(standard=_amount(node, path))
    known = _mapping(node, path, "a price, or {standard: …, spot: …}")
    if not known or set(known) - {"standard", "spot"}:
        raise _wrong(_line(node, path), f"it has the keys {', '.join(known) or 'none'}", "write standard, spot or both")
    return Rate(**{key: _amount(value, path) for key, value in known.items()})


def _amount(node: yaml.Node, path: Path) -> Decimal:
    text = _text(node, path)
    if not _AMOUNT.fullmatch(text) or not Decimal(text):
        raise _wrong(_line(node, path), f"{text[:40]!r} is no price",
                  "write what an hour costs, as 0.25, and leave out what you do not know")
    return Decimal(text)


def _text(node: yaml.Node, path: Path) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(_line(node, path), "it is no text", "write one value")
    return str(node.value)


def _mapping(node: yaml.Node | None, path: Path, what: str) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        where = _line(node, path) if node else path
        raise _wrong(where, f"it is not {what}", "see docs/machines.md for the format")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = _text(key, path)
        if name in found:
            raise _wrong(_line(key, path), f"{name} is given twice", "keep one of them")
        found[name] = value
    return found


def _line(node: yaml.Node, path: Path) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _wrong(where: object, found: str, fix: str) -> SpecError:
    return SpecError("reading the prices in", where, found, fix, code="J408")


def render_prices(table: PriceTable) -> str:
    """The table as the file that parse_prices reads."""
    regions: dict[str, dict[str, dict[str, str]]] = {}
    for (region, name), rate in sorted(table.rates.items()):
        told = {"standard": rate.standard, "spot": rate.spot}
        regions.setdefault(region, {})[name] = {key: _plain(one) for key, one in told.items() if one is not None}
    whole = {"date": table.date, "currency": table.currency, "source": table.source, "regions": regions}
    head = "# What an hour costs: of a machine type, of one accelerator, or of a whole machine. Written by gcpod.\n"
    return head + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)


def _plain(amount: Decimal) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def write_prices(table: PriceTable, path: Path) -> None:
    """Puts the table into a file, aside and renamed, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        aside.write_text(render_prices(table), encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
