"""The local catalogue: pages, refusals, and replies in the shapes of Google's discovery document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gcpod.localcloud.billing_api import local_catalogue
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.discovery import load
from tests.localcloud.conftest import Raw

SERVICE = "/v1/services/C7E2-9256-1C43"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Raw]:
    folder = tmp_path_factory.mktemp("cloud")
    with JobCloud(folder, cache=folder, environment_of=lambda *_: folder, location="europe-west4") as cloud:
        yield Raw(f"127.0.0.1:{cloud.port}")


def test_services_and_pages(raw: Raw) -> None:
    [service] = raw("GET", "/v1/services").json["services"]
    assert "/v1/" + service["name"] == SERVICE
    everything = raw("GET", f"{SERVICE}/skus?currencyCode=USD").json
    assert "nextPageToken" not in everything
    assert {tuple(sku["serviceRegions"]) for sku in everything["skus"]} == {("europe-west4",)}
    pages, token = list[dict[str, Any]](), ""
    while not pages or token:
        page = raw("GET", f"{SERVICE}/skus?pageSize=2&pageToken={token}").json
        assert 1 <= len(page["skus"]) <= 2
        pages += page["skus"]
        token = page.get("nextPageToken", "")
    assert pages == everything["skus"]
    assert raw("GET", f"{SERVICE}/skus?fields=skus(skuId)").json["skus"][0] == {"skuId": pages[0]["skuId"]}


@pytest.mark.parametrize(("path", "status"), [
    ("/v1/services/6F81-5844-456A/skus", 404), (f"{SERVICE}/skus?currencyCode=EUR", 400),
    (f"{SERVICE}/skus?pageSize=-1", 400), (f"{SERVICE}/skus?pageSize=two", 400), (f"{SERVICE}/skus?pageToken=x", 400),
    (f"{SERVICE}/skus?filter=x", 400), (f"{SERVICE}/skus?startTime=2026-11-01T00:00:00Z", 501),
    ("/v1/billingAccounts", 501),
])
def test_what_is_refused(raw: Raw, path: str, status: int) -> None:
    answer = raw("GET", path)
    assert answer.status == status
    assert answer.json["error"]["code"] == status


def test_a_sku_is_what_the_discovery_document_says() -> None:
    schemas = load("cloudbilling.v1").schemas
    kinds: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float)}

    def hold(value: Any, schema: Any) -> None:
        if "$ref" in schema:
            assert set(value) <= set(schemas[schema["$ref"]]["properties"])
            for key, inner in value.items():
                hold(inner, schemas[schema["$ref"]]["properties"][key])
        elif schema["type"] == "array":
            for one in value:
                hold(one, schema["items"])
        else:
            assert isinstance(value, kinds[schema["type"]]), (value, schema)
            assert value in schema.get("enum", [value])

    service, skus = local_catalogue("local")
    hold(service, {"$ref": "Service"})
    for sku in skus:
        hold(sku, {"$ref": "Sku"})
    assert len({sku["name"] for sku in skus}) == len(skus)


def test_the_prices_say_that_they_are_made_up() -> None:
    _, skus = local_catalogue("local")
    assert {sku["pricingInfo"][0]["summary"] for sku in skus} == {"made up"}
    head = (Path(__file__).parents[2] / "gcpod" / "localcloud" / "skus.yaml").read_text(encoding="utf-8")
    assert "MADE UP" in head.splitlines()[0]
    assert json.loads(json.dumps(skus)) == skus
