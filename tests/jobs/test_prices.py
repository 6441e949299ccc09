"""Prices: tables read and written, sums that a missing part makes unknown, Google's SKUs, money as time limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from gcpod.errors import AuthError, GcpodError, OutageError, ServiceError, SpecError
from gcpod.jobs.budget import MIN_TIMEOUT_S, JobCost, budget_of, capped, job_costs, limit, worst_of
from gcpod.jobs.catalogue import fetch_skus, read_sku, refresh, to_table
from gcpod.jobs.machines import accelerators, shapes
from gcpod.jobs.prices import (
    MachinePrice,
    Money,
    PriceTable,
    Rate,
    Unknown,
    find_prices,
    load_prices,
    parse_prices,
    price_of,
    render_prices,
    total,
    worst_cost,
    write_prices,
)
from gcpod.jobs.request import KINDS, Kind
from gcpod.localcloud.billing_api import local_catalogue
from gcpod.localcloud.cloud import JobCloud
from gcpod.settings import Setting, Settings
from gcpod.spec import EvalSpec, MachineSpec, ScheduleSpec, Spec, TrainSpec
from tests.jobs import Faults, session_of

REGION, PATH = "us-central1", Path("prices.yaml")
T4 = MachineSpec("n1-standard-4", "NVIDIA_TESLA_T4", 2)
V2 = MachineSpec("cloud-tpu", "TPU_V2", 8)
TEXT = """
date: 2026-11-21
currency: EUR
source: mine
regions:
  us-central1:
    n1-standard-4: 0.21849885
    NVIDIA_TESLA_T4: {standard: "0.4", spot: 0.1}
    cloud-tpu with 8 x TPU_V2: 5
    ct5lp-hightpu-4t with 2x2: {spot: 1.5}
"""
TABLE = parse_prices(TEXT, PATH)


def euros(amount: str) -> Money:
    return Money(Decimal(amount), "EUR")


def test_a_machine_costs_its_type_and_its_accelerators() -> None:
    assert price_of(MachineSpec("n1-standard-4"), REGION, TABLE) == euros("0.21849885")
    assert price_of(T4, REGION, TABLE) == euros("1.01849885")
    assert price_of(V2, REGION, TABLE) == euros("5")
    v5e = MachinePrice.of(MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2"), REGION, TABLE)
    assert v5e.spot == euros("1.5")
    assert v5e.standard == Unknown("the prices of 2026-11-21 lack ct5lp-hightpu-4t with 2x2 in us-central1")


def test_a_missing_part_makes_the_price_unknown() -> None:
    assert price_of(T4, "europe-west4", TABLE) == Unknown(
        "the prices of 2026-11-21 lack n1-standard-4 and NVIDIA_TESLA_T4 in europe-west4")
    assert price_of(T4, REGION, TABLE, spot=True) == Unknown(
        "the prices of 2026-11-21 lack n1-standard-4 in us-central1 as spot")
    # One TPU core has no price of its own, whatever a table says.
    odd = replace(TABLE, rates={(REGION, "cloud-tpu"): Rate(Decimal(1)), (REGION, "TPU_V2"): Rate(Decimal(1))})
    assert str(price_of(V2, REGION, odd)) == "unknown"
    assert price_of(V2, REGION, PriceTable()) == Unknown(
        "there are no prices, so none of cloud-tpu with 8 x TPU_V2 in us-central1")
    assert total([euros("1"), Unknown("why")]) == Unknown("why")
    assert worst_cost(Unknown("why"), 60) == Unknown("why")


def test_worst_costs_are_exact_or_rounded_up() -> None:
    assert worst_cost(euros("1.5"), 7200) == euros("3")
    third = worst_cost(euros("1"), 1200)
    assert isinstance(third, Money)
    assert Fraction(1, 3) < Fraction(third.amount) < Fraction(1, 3) + Fraction(1, 10**30)
    assert [str(euros(one)) for one in ("3.1", "0.21849885", "5", "0.235", "0.000000001", "100")] == [
        "3.10 EUR", "0.2185 EUR", "5.00 EUR", "0.235 EUR", "0.0001 EUR", "100.00 EUR",
    ]


AMOUNTS = st.decimals("0.000000000001", "999999999", places=12).filter(bool)
NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=12)


@given(st.dictionaries(st.tuples(NAMES, NAMES), st.builds(Rate, AMOUNTS, st.none() | AMOUNTS), max_size=5), NAMES)
def test_a_written_table_is_read_as_it_was(rates: dict[tuple[str, str], Rate], source: str) -> None:
    table = PriceTable("2026-02-28", "JPY", source, str(PATH), MappingProxyType(rates))
    assert parse_prices(render_prices(table), PATH) == table


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda b: TEXT + b.decode("latin-1")))
def test_any_text_is_a_table_or_a_coded_refusal(text: str) -> None:
    refused = None
    try:
        table = parse_prices(text, PATH)
    except SpecError as e:
        refused = e
    if refused is None:
        assert all(one is None or one > 0 for rate in table.rates.values() for one in (rate.standard, rate.spot))
    else:
        assert (refused.code, "\n" in str(refused), "prices.yaml" in str(refused)) == ("J408", False, True)


@pytest.mark.parametrize(("old", "new", "found"), [
    (": 5\n", ": 0\n", "prices.yaml:9: '0' is no price"), (": 5\n", ": -1\n", "'-1' is no price"),
    (": 5\n", ": 1e3\n", "'1e3' is no price"), (": 5\n", ": nan\n", "'nan' is no price"),
    (": 5\n", ":\n", "'' is no price"),
    (": 5\n", ": unknown\n", "'unknown' is no price"), (": 5\n", ": [5]\n", ":9: it is not a price"),
    ("{spot: 1.5}", "{}", "it has the keys none"), ("{spot: 1.5}", "{day: 1}", "it has the keys day"),
    ("cloud-tpu with 8 x TPU_V2", "n1-standard-4", "prices.yaml:9: n1-standard-4 is given twice"),
    ("2026-11-21", "2026-13-01", "prices.yaml:2: date is no day"), ("2026-11-21", "today", "date is no day"),
    ("EUR", "euro", "currency is 'euro'"), ("source", "sources", "its keys are date, currency, sources"),
    ("date: 2026-11-21", "", "its keys are currency"), ("regions:", "regions: 5\nx:", "its keys are"),
    ("n1-standard-4: 0.21849885", "n1-standard-4: &a 1\n    x: *a", "it has a YAML alias"),
    ("n1-standard-4:", "[a]:", "it is no text"), ("date:", "date: {", "it is no YAML"),
])
def test_a_wrong_file_is_told_with_its_line(old: str, new: str, found: str) -> None:
    assert old in TEXT
    with pytest.raises(SpecError) as caught:
        parse_prices(TEXT.replace(old, new), PATH)
    assert caught.value.code == "J408"
    assert found in str(caught.value)


def test_which_file_counts(tmp_path: Path) -> None:
    named, variable, usual = (tmp_path / name for name in ("named", "variable", "usual"))
    for path in (named, variable, usual):
        path.write_text(TEXT.replace("mine", path.name))
    env = {"GCPOD_PRICES": str(variable)}
    assert find_prices(named, usual, env).source == "named"
    assert find_prices(None, usual, env).source == "variable"
    assert find_prices(None, usual, {}).source == "usual"
    assert find_prices(None, tmp_path / "absent", {}) == PriceTable()
    for wrong in (tmp_path / "absent", tmp_path):
        with pytest.raises(SpecError, match="J408: reading the prices in"):
            find_prices(wrong, usual, env)
    for content in (b"\xff", b"#" * 5_000_001, b"[" * 5000):
        usual.write_bytes(content)
        with pytest.raises(SpecError, match=r"not UTF-8|more than|too many levels"):
            load_prices(usual)


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "prices.yaml"
    write_prices(TABLE, path)
    assert load_prices(path) == replace(TABLE, path=str(path))
    assert list(path.parent.iterdir()) == [path]


def sku(description: str, amount: tuple[str, int] = ("0", 40_000_000), unit: str = "h", **more: Any) -> dict[str, Any]:
    price = {"currencyCode": "USD", "units": amount[0], "nanos": amount[1]}
    expression = {"usageUnit": unit, "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}]}
    return {
        "description": f"Vertex AI: Training/Pipelines {description}", "category": {"usageType": "OnDemand"},
        "serviceRegions": [REGION], "pricingInfo": [{"pricingExpression": expression}], **more,
    }


CORE = sku("on N1 Predefined Instance Core running in Iowa")
RAM = sku("on N1 Predefined Instance Ram running in Iowa", ("0", 5_000_000), "GiBy.h")
GPU = sku("on NVIDIA H100 80GB in Iowa", ("11", 266_033_200))
CORE_A3 = sku("on A3 Instance Core in Iowa", ("0", 29_322_700))
RAM_A3 = sku("on A3 Instance RAM in Iowa", ("0", 2_553_400), "GBy.h")


def rates_of(*skus: dict[str, Any]) -> tuple[dict[str, Decimal | None], tuple[str, ...]]:
    found = to_table(skus, "USD", "2026-11-21", shapes(), accelerators())
    assert all(region == REGION for region, _ in found.table.rates)
    return {name: rate.standard for (_, name), rate in found.table.rates.items()}, found.doubtful


def test_skus_add_up_to_machines() -> None:
    rates, doubtful = rates_of(CORE, RAM, GPU, CORE_A3, RAM_A3)
    assert doubtful == ()
    assert rates["n1-standard-4"] == Decimal("0.235")
    assert rates["NVIDIA_H100_80GB"] == Decimal("11.2660332")
    assert rates["a3-highgpu-8g"] == 208 * Decimal("0.0293227") + 1872 * Decimal("0.0025534")
    assert {name.split("-")[0] for name in rates} == {"n1", "a3", "NVIDIA_H100_80GB"}


@pytest.mark.parametrize("other", [
    sku("Management fee on N1 Instance Core in Iowa"), sku("on SSD backed PD Capacity", unit="GiBy.mo"),
    sku("on NVIDIA Tesla K9000 in Iowa"),
    sku("on N1 Predefined Instance Core in Iowa", category={"usageType": "Commit1Yr"}),
    {**CORE, "description": "Vertex AI: Online/Batch Prediction N1 Predefined Instance Core running in Iowa"},
    {**CORE, "serviceRegions": REGION}, {**CORE, "category": None}, {**CORE, "description": 5}, {},
])
def test_other_skus_change_nothing(other: dict[str, Any]) -> None:
    assert rates_of(CORE, RAM, other) == rates_of(CORE, RAM)


def tiers(*starts: int) -> dict[str, Any]:
    price = {"currencyCode": "USD", "units": "1"}
    rates = [{"startUsageAmount": start, "unitPrice": price} for start in starts]
    return {"pricingInfo": [{"pricingExpression": {"usageUnit": "h", "tieredRates": rates}}]}


@pytest.mark.parametrize("other", [
    CORE, sku("on N1 Instance Core in Iowa", ("1", 0)), {**CORE, **tiers(0, 100)}, {**CORE, **tiers(5)},
    {**CORE, "pricingInfo": []}, sku("on N1 Predefined Instance Core in Iowa", ("0", 0)),
    sku("on N1 Predefined Instance Core in Iowa", unit="mo"), sku("on N1 Predefined Instance Core in Iowa", ("-1", 0)),
    sku("on N1 Predefined Instance Core in Iowa", ("1" * 30, 0)), sku("on N1 Instance Core in Iowa", ("0", -5)),
])
def test_what_leaves_doubt_is_unknown_and_told(other: dict[str, Any]) -> None:
    assert rates_of(CORE, RAM, other) == ({}, (f"N1 core in {REGION}",))
    assert rates_of(other, RAM, CORE) == ({}, (f"N1 core in {REGION}",))


def test_a_price_in_another_currency_is_none() -> None:
    read = read_sku(CORE, "EUR")
    assert read is not None
    assert read.amount is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(("pricingExpression", "tieredRates", "unitPrice", "usageUnit", "units", "nanos", "currencyCode",
                         "usageType")), inner, max_size=4), max_leaves=10,
)


@given(st.sampled_from(sorted(GPU)), JSON)
def test_any_sku_is_read_or_passed_over(key: str, value: Any) -> None:
    read = read_sku({**GPU, key: value}, "USD")
    assert read is None or read.amount is None or read.amount > 0


FAULTS = Faults()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with JobCloud(folder, cache=folder, environment_of=lambda *_: folder, middleware=FAULTS.wrap) as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    yield
    FAULTS.choose = lambda *_: None


def test_a_refresh_reads_every_page(cloud: JobCloud, tmp_path: Path) -> None:
    before = FAULTS.times("GET", "/skus")
    path = tmp_path / "prices.yaml"
    found = refresh(session_of(cloud.url), "USD", "2026-11-21", path, page_size=2)
    assert FAULTS.times("GET", "/skus") == before + 3
    table = load_prices(path)
    assert (table.date, table.currency, table.source) == ("2026-11-21", "USD", "local cloud (made up)")
    assert table.rates == found.table.rates
    assert price_of(MachineSpec("n1-standard-8"), "local", table) == Money(Decimal("0.47"), "USD")
    assert price_of(T4, "local", table) == Money(Decimal("1.235"), "USD")
    assert isinstance(price_of(V2, "local", table), Unknown)
    assert fetch_skus(session_of(cloud.url)) == local_catalogue("local")[1]


@pytest.mark.parametrize(("fault", "kind"), [
    ("busy", OutageError), ("dropped", OutageError), (403, AuthError), (404, ServiceError), (400, ServiceError),
])
def test_a_refresh_that_fails_leaves_the_file(
    cloud: JobCloud, tmp_path: Path, fault: Any, kind: type[GcpodError],
) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(TEXT)
    answers = iter([None, fault])
    FAULTS.choose = lambda *_: next(answers)
    with pytest.raises(GcpodError) as caught:
        refresh(session_of(cloud.url), "USD", "2026-11-21", path, page_size=2)
    assert type(caught.value) is kind
    assert "reading the prices of services/C7E2-9256-1C43" in str(caught.value)
    assert [one.read_text() for one in tmp_path.iterdir()] == [TEXT]


class Answer:
    """Middleware that gives one answer to everything; its last bytes may never come."""

    content, missing = b"", 0

    def wrap(self, _: ASGIApp) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            length = str(len(self.content) + self.missing).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", length)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": self.content, "more_body": bool(self.missing)})
            if self.missing:
                cast(Any, send).__self__.transport.abort()

        return answer


ANSWER = Answer()


@pytest.fixture(scope="module")
def odd_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("odd")
    with JobCloud(folder, cache=folder, environment_of=lambda *_: folder, middleware=ANSWER.wrap) as running:
        yield running


@pytest.mark.parametrize(("content", "missing", "kind", "found"), [
    (b'{"skus": [{}]}', 9, OutageError, "no answer"), (b'{"skus": [', 0, ServiceError, "unreadable answer"),
    (b"[]", 0, ServiceError, "no JSON object"), (b'{"skus": {}}', 0, ServiceError, "no list of SKUs"),
    (b'{"skus": [], "nextPageToken": "a"}', 0, ServiceError, "do not come to an end"),
    (b'{"skus": [], "nextPageToken": 7}', 0, ServiceError, "do not come to an end"),
    (b'{"skus": [{}, 5]}', 0, ServiceError, "none of its 1 SKUs"), (b"{}", 0, ServiceError, "none of its 0 SKUs"),
])
def test_an_odd_catalogue_is_one_line(
    odd_cloud: JobCloud, tmp_path: Path, content: bytes, missing: int, kind: type[GcpodError], found: str,
) -> None:
    ANSWER.content, ANSWER.missing, path = content, missing, tmp_path / "prices.yaml"
    with pytest.raises(GcpodError, match=found) as caught:
        refresh(session_of(odd_cloud.url), "USD", "2026-11-21", path)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert not path.exists()


def costs_of(*rows: tuple[str, int]) -> list[JobCost]:
    machine = MachineSpec("n1-standard-4")
    return [JobCost(kind, machine, euros(price), s) for kind, (price, s) in zip(KINDS, rows, strict=True)]


def test_money_is_shared_as_one_time_limit() -> None:
    costs = costs_of(("5", 86400), ("1", 86400), ("0.5", 7200))
    # 19 - 1 for the export leaves 18: three hours of training and evaluation.
    assert [one.timeout_s for one in limit(costs, Decimal(19))] == [3 * 3600, 3 * 3600, 7200]
    assert [one.timeout_s for one in limit(costs, Decimal("6.5"))] == [3600] * 3
    assert limit(costs, Decimal(1000)) == costs
    assert worst_of(costs) == euros("145")
    with pytest.raises(SpecError, match=r"J408: .*0\.64 pays for 354 seconds of each job; .* at least 0\.65"):
        limit(costs, Decimal("0.64"))


JOBS = st.lists(st.tuples(st.decimals("0.000001", "1000", places=9), st.integers(360, 604800)), min_size=3, max_size=3)


@given(JOBS, st.decimals("0.01", "100000", places=2))
def test_no_limit_costs_more_than_the_money_and_none_is_shorter_than_it_need_be(
    rows: list[tuple[Decimal, int]], money: Decimal,
) -> None:
    costs = costs_of(*((str(price), timeout) for price, timeout in rows))
    try:
        limited = limit(costs, money)
    except SpecError:
        assert sum(price * min(MIN_TIMEOUT_S, s) for price, s in rows) > money * 3600
        return
    assert all(one.timeout_s <= before.timeout_s for one, before in zip(limited, costs, strict=True))
    spent = sum(price * one.timeout_s for (price, _), one in zip(rows, limited, strict=True))
    assert spent <= money * 3600
    longest = max(one.timeout_s for one in limited)
    more = sum(price * min(s, longest + 1) for price, s in rows)
    assert limited == costs or more > money * 3600
    spec = capped(Spec(), limited)
    for kind, one in zip(KINDS, limited, strict=True):
        assert one.timeout_s - 1 <= int(getattr(spec, kind).timeout_hours * 3600) <= one.timeout_s


def test_an_unknown_price_is_not_limited() -> None:
    spec = Spec()
    machines = dict(zip(KINDS, (V2, T4, MachineSpec("n1-standard-8")), strict=True))
    costs = job_costs(spec, machines, REGION, TABLE)
    assert [one.timeout_s for one in costs] == [86400, 86400, 7200]
    assert isinstance(worst_of(costs), Unknown)
    with pytest.raises(SpecError, match=r"J408: limiting the cost of the export job on n1-standard-8: .* lack"):
        limit(costs, Decimal(1000))


MACHINES: dict[Kind, MachineSpec] = {"train": T4, "eval": MachineSpec("n1-standard-4"), "export": T4}


def test_every_machine_of_a_job_is_paid_for() -> None:
    spec = Spec(train=TrainSpec(workers=2), eval=EvalSpec(beside="pool"))
    train, export = job_costs(spec, MACHINES, REGION, TABLE)
    # Three of T4's 1.01849885 and one n1-standard-4 of 0.21849885.
    assert (train.kind, train.per_hour, export.kind) == ("train", euros("3.27399540"), "export")
    assert train.worst == euros("78.57588960")
    assert train.machines == f"{T4} and 2 x ({T4}) and 1 x (n1-standard-4)"
    alone, evaluation, _ = job_costs(replace(spec, eval=EvalSpec()), MACHINES, REGION, TABLE)
    assert (alone.per_hour, evaluation.per_hour) == (euros("3.05549655"), euros("0.21849885"))
    assert evaluation.machines == "n1-standard-4"
    # The evaluator shares the time of the job it belongs to.
    limited = capped(spec, limit([train, export], Decimal(10)))
    assert limited.eval.timeout_hours == limited.train.timeout_hours < 3
    waiting = replace(spec, eval=EvalSpec(beside="pool", timeout_hours=0.5))
    assert capped(waiting, [train, export]).eval.timeout_hours == 0.5


def test_strategies_have_prices_of_their_own() -> None:
    def train(strategy: str, machine: MachineSpec) -> JobCost:
        spec = Spec(train=TrainSpec(schedule=ScheduleSpec(strategy)))
        return job_costs(spec, {**MACHINES, "train": machine}, REGION, TABLE)[0]

    v5e = train("spot", MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2"))
    assert (v5e.per_hour, v5e.machines) == (euros("1.5"), "ct5lp-hightpu-4t with 2x2 as spot")
    assert train("spot", T4).per_hour == Unknown(
        "the prices of 2026-11-21 lack n1-standard-4 in us-central1 as spot")
    assert isinstance(train("flex_start", T4).per_hour, Unknown)
    assert train("standard", T4).per_hour == euros("1.01849885")
    with pytest.raises(SpecError, match=r"limiting the cost of the train job on .* as flex_start: machines had by"):
        limit([train("flex_start", T4)], Decimal(100))


def settings_of(region: str) -> Settings:
    def known(value: str) -> Setting:
        return Setting(value, "test")

    return Settings(known("p"), known(region), known("gs://p-gcpod"), known(""), known(""))


def test_a_budget_is_the_spec_that_keeps_to_it(tmp_path: Path) -> None:
    prices, spec = tmp_path / "prices.yaml", Spec(train=TrainSpec(machine=T4), eval=EvalSpec(machine=T4))
    prices.write_text(TEXT, encoding="utf-8")
    whole = budget_of(spec, settings_of(REGION), prices=prices)
    assert whole.spec is spec
    assert whole.worst == worst_of(whole.costs) == euros("49.32494250")
    kept = budget_of(spec, settings_of(REGION), prices=prices, max_cost=Decimal("10"))
    assert isinstance(kept.worst, Money)
    assert Decimal("9.99") < kept.worst.amount <= 10
    assert kept == budget_of(spec, settings_of(REGION), prices=prices, max_cost="10")
    assert kept.costs == budget_of(kept.spec, settings_of(REGION), prices=prices).costs
    assert kept.table == load_prices(prices)
    # The local region runs other machines, for which this table has no prices.
    assert isinstance(budget_of(spec, settings_of("local"), prices=prices).worst, Unknown)


@pytest.mark.parametrize("money", ["0", "-1", "NaN", "Infinity", "-Infinity"])
def test_what_is_no_sum_of_money(money: str) -> None:
    with pytest.raises(SpecError, match="that is no sum of money") as caught:
        limit(costs_of(("1", 3600), ("1", 3600), ("1", 3600)), Decimal(money))
    assert caught.value.code == "J408"
    with pytest.raises(SpecError, match="that is no sum of money"):
        budget_of(Spec(), settings_of(REGION), max_cost=money)
