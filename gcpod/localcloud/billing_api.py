"""The Cloud Billing catalogue: services.list and services.skus.list over SKUs that are made up for the local region.

https://cloud.google.com/billing/docs/reference/rest/v1/services.skus
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api, ApiError, Call, Reply
from gcpod.localcloud.paging import page_of

CURRENCY = "USD"
PAGE_SIZE, MAX_PAGE_SIZE = 5000, 5000
_FILE = Path(__file__).parent / "skus.yaml"


def local_catalogue(location: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The one service of the local cloud's catalogue and its SKUs, which are for one region."""
    told = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    service: dict[str, Any] = told["service"]
    return service, [_sku(service, row, location) for row in told["skus"]]


def _sku(service: dict[str, Any], row: dict[str, Any], location: str) -> dict[str, Any]:
    """A SKU in the catalogue's shape, from what is different about it."""
    whole, _, fraction = row["price"].partition(".")
    money = {"currencyCode": CURRENCY, "units": whole, "nanos": int(fraction.ljust(9, "0"))}
    expression = {
        "usageUnit": row["unit"], "displayQuantity": 1,
        "tieredRates": [{"startUsageAmount": 0, "unitPrice": money}],
    }
    return {
        "name": f"{service['name']}/skus/{row['id']}",
        "skuId": row["id"],
        "description": f"{row['description']} {location}",
        "category": {
            "serviceDisplayName": service["displayName"], "resourceFamily": row["family"],
            "resourceGroup": row["group"], "usageType": "OnDemand",
        },
        "serviceRegions": [location],
        "pricingInfo": [{"summary": "made up", "pricingExpression": expression, "currencyConversionRate": 1}],
        "serviceProviderName": "Google",
        "geoTaxonomy": {"type": "REGIONAL", "regions": [location]},
    }


def billing_api(service: dict[str, Any], skus: Sequence[dict[str, Any]]) -> Api:
    """The catalogue of one service."""
    api = Api(load("cloudbilling.v1"))

    def services(call: Call) -> Reply:
        size, token = call.query.get("pageSize"), call.query.get("pageToken")
        return Reply(value=page_of("services", [service], size, token, PAGE_SIZE, MAX_PAGE_SIZE))

    def listing(call: Call) -> Reply:
        if call.path["parent"] != service["name"]:
            raise ApiError(404, f'Requested entity was not found: "{call.path["parent"]}"')
        if call.query.get("startTime") or call.query.get("endTime"):
            raise ApiError(501, "The local cloud knows the prices of today only.")
        if call.query.get("currencyCode", CURRENCY) != CURRENCY:
            raise ApiError(400, f"The local cloud has prices in {CURRENCY} only.")
        size, token = call.query.get("pageSize"), call.query.get("pageToken")
        return Reply(value=page_of("skus", skus, size, token, PAGE_SIZE, MAX_PAGE_SIZE))

    api.handler("cloudbilling.services.list")(services)
    api.handler("cloudbilling.services.skus.list")(listing)
    return api
