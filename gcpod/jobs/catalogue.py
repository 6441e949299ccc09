"""Prices from the Cloud Billing catalogue: the SKUs of Vertex AI's training, and the machines that they add up to.

https://cloud.google.com/billing/docs/reference/rest/v1/services.skus/list. An on-demand training job is billed for its
vCPUs, its memory and its accelerators; the SKUs that are matched here hold Vertex AI's fee already, those called
"management fee" belong to spot and flex-start jobs (https://cloud.google.com/vertex-ai/pricing).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gcpod.errors import NotFoundError, ServiceError
from gcpod.jobs.machines import accelerators, shapes
from gcpod.jobs.prices import PriceTable, Rate, write_prices
from gcpod.jobs.service import execute
from gcpod.session import Session

SERVICE = "services/C7E2-9256-1C43"
"""Vertex AI in the catalogue."""
SOURCE, LOCAL_SOURCE = "Cloud Billing catalogue", "local cloud (made up)"
PAGE_SIZE = 5000
MAX_PAGES = 1000
_ROLES = "enable the Cloud Billing API (cloudbilling.googleapis.com) in the project"
_TRIED = "reading the prices of"
_PREFIX = r"Vertex AI: Training/Pipelines on "
_PART = re.compile(
    _PREFIX + r"([A-Z][0-9][A-Z]?)(?: Predefined)? Instance (Core|Ram) (?:running )?in \S.*", re.IGNORECASE,
)
_ACCELERATOR = re.compile(_PREFIX + r"(NVIDIA [A-Z0-9 ]+?)(?: GPU)?(?: running)? in \S.*", re.IGNORECASE)
_UNITS = {"core": ("h",), "ram": ("GiBy.h", "GBy.h"), "": ("h",)}
"""Usage units by part; memory counts in GiB whatever the unit calls it."""
_MAX_NANOS = 999_999_999
_WHOLE = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True)
class SkuPrice:
    """One SKU of training that was understood.

    Attributes:
        name: an accelerator as Vertex AI names it, or a machine series such as N1.
        part: "core" or "ram" of a series; "" for an accelerator.
        regions: that the SKU is for.
        amount: of one vCPU, GiB or accelerator for an hour; None where its price leaves room for doubt.
    """

    name: str
    part: str
    regions: tuple[str, ...]
    amount: Decimal | None


def fetch_skus(session: Session, currency: str = "USD", page_size: int = PAGE_SIZE) -> list[dict[str, Any]]:
    """Every SKU of Vertex AI, with its price in a currency.

    Raises:
        OutageError: the catalogue does not answer; nothing of what came before is kept.
        AuthError, ServiceError: it refuses, or answers what is no catalogue.
    """
    found: list[dict[str, Any]] = []
    token: str | None = None
    for _ in range(MAX_PAGES):
        request = session.billing.skus().list(
            parent=SERVICE, currencyCode=currency, pageSize=page_size, pageToken=token,
        )
        try:
            reply: Any = execute(request, _TRIED, SERVICE, _ROLES)
        except NotFoundError as e:
            raise _odd("the catalogue has no such service any more") from e
        skus = reply.get("skus", []) if isinstance(reply, dict) else None
        if not isinstance(skus, list):
            raise _odd("the answer holds no list of SKUs")
        found += [sku for sku in skus if isinstance(sku, dict)]
        before, token = token, reply.get("nextPageToken")
        if not token:
            return found
        if token == before or not isinstance(token, str):
            raise _odd("its pages do not come to an end")
    raise _odd(f"it has more than {MAX_PAGES} pages")


def _odd(found: str) -> ServiceError:
    return ServiceError(_TRIED, SERVICE, found, "write the prices by hand (docs/machines.md)")


def read_sku(sku: Mapping[str, Any], currency: str) -> SkuPrice | None:
    """What a SKU of the catalogue says about on-demand training; None where it is about something else.

    Args:
        sku: as in the catalogue (Sku of the discovery document), whatever it holds.
        currency: that the price must be in.
    """
    category, described, regions = sku.get("category"), sku.get("description"), sku.get("serviceRegions")
    if not isinstance(category, dict) or category.get("usageType") != "OnDemand" or not isinstance(described, str):
        return None
    part, accelerator = _PART.fullmatch(described), _ACCELERATOR.fullmatch(described)
    if not isinstance(regions, list) or not all(isinstance(one, str) for one in regions):
        return None
    if part:
        name, what = part[1].upper(), part[2].lower()
    elif accelerator:
        name, what = "_".join(accelerator[1].upper().split()), ""
    else:
        return None
    try:
        amount = _amount(sku["pricingInfo"], _UNITS[what], currency)
    except (KeyError, TypeError, IndexError, AttributeError):
        amount = None
    return SkuPrice(name, what, tuple(regions), amount)


def _amount(pricing: Any, units: tuple[str, ...], currency: str) -> Decimal | None:
    """The newest price of an hour, if it is one and the same from the first hour on, and not 0."""
    expression = pricing[-1]["pricingExpression"]
    rates = expression["tieredRates"]
    if expression["usageUnit"] not in units or len(rates) != 1 or rates[0].get("startUsageAmount", 0):
        return None
    price = rates[0]["unitPrice"]
    # An int64 travels as text; what is 0 may be left out.
    whole, nanos = str(price.get("units", "0")), price.get("nanos", 0)
    if price["currencyCode"] != currency or type(nanos) is not int or not 0 <= nanos <= _MAX_NANOS:
        return None
    return (Decimal(whole) + Decimal(nanos).scaleb(-9) or None) if _WHOLE.fullmatch(whole) else None


@dataclass(frozen=True)
class Catalogue:
    """What the catalogue's SKUs come to.

    Attributes:
        doubtful: parts with no price or more than one in a region, as ``N1 core in us-central1``; what needs them is
            unknown.
    """

    table: PriceTable
    doubtful: tuple[str, ...]


def to_table(
    skus: Iterable[Mapping[str, Any]], currency: str, date: str, kinds: Mapping[str, tuple[int, int]],
    names: Iterable[str], source: str = SOURCE,
) -> Catalogue:
    """Prices per hour of machine types and accelerators.

    Args:
        skus: of the catalogue.
        currency: of the prices.
        date: the day they were read.
        kinds: vCPUs and GiB by machine type, whose series is its name up to the first hyphen.
        names: of the accelerators to look for.
        source: who told the prices.
    """
    wanted = set(names)
    parts, doubtful = _parts(filter(None, (read_sku(sku, currency) for sku in skus)))
    rates: dict[tuple[str, str], Rate] = {}
    for (region, name, part), amount in parts.items():
        if not part and name in wanted:
            rates[region, name] = Rate(standard=amount)
    for region in {region for region, _, _ in parts}:
        for kind, (vcpus, memory) in kinds.items():
            series = kind.partition("-")[0].upper()
            core, ram = parts.get((region, series, "core")), parts.get((region, series, "ram"))
            if core is not None and ram is not None:
                rates[region, kind] = Rate(standard=core * vcpus + ram * memory)
    return Catalogue(PriceTable(date, currency, source, "", MappingProxyType(rates)), tuple(sorted(doubtful)))


def refresh(session: Session, currency: str, date: str, path: Path, page_size: int = PAGE_SIZE) -> Catalogue:
    """Puts today's prices of the catalogue into a file; the one that was there stays if anything goes wrong.

    Raises:
        OutageError, AuthError, ServiceError: as for fetch_skus, or none of the SKUs is a price of training.
    """
    skus = fetch_skus(session, currency, page_size)
    found = to_table(skus, currency, date, shapes(), accelerators(), LOCAL_SOURCE if session.is_local else SOURCE)
    if not found.table.rates:
        raise _odd(f"none of its {len(skus)} SKUs is one of training as gcpod knows them")
    write_prices(found.table, path)
    return found


_Parts = dict[tuple[str, str, str], Decimal]


def _parts(prices: Iterable[SkuPrice]) -> tuple[_Parts, set[str]]:
    """Prices by region, name and part; what comes twice or is not understood is left out and told."""
    parts: _Parts = {}
    doubtful: set[tuple[str, str, str]] = set()
    for price in prices:
        for key in _keys(price):
            if key in parts or price.amount is None:
                doubtful.add(key)
            parts[key] = price.amount or Decimal(0)
    told = {" ".join(filter(None, (name, part, "in", region))) for region, name, part in doubtful}
    return {key: amount for key, amount in parts.items() if key not in doubtful}, told


def _keys(price: SkuPrice) -> Iterator[tuple[str, str, str]]:
    for region in dict.fromkeys(price.regions):
        yield region, price.name, price.part
