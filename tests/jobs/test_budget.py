"""What money pays for beyond one attempt of one run: every attempt that recovery allows, one job, a whole sweep."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.jobs.budget import Budget, JobCost, budget_of, sweep_budget, worst_of_attempts
from gcpod.jobs.prices import Money, Price, Unknown
from gcpod.jobs.request import Kind
from gcpod.settings import Setting, Settings
from gcpod.spec import EvalSpec, MachineSpec, RecoverySpec, Spec, TrainSpec

CPU = MachineSpec("n1-standard-4")
SPEC = Spec(train=TrainSpec(machine=CPU), eval=EvalSpec(machine=CPU))
PRICES = "{date: 2026-11-21, currency: USD, regions: {us-central1: {n1-standard-4: 1}}}"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES, encoding="utf-8")
    return path


def settings() -> Settings:
    project, region, bucket, none = (Setting(one, "test") for one in ("p", "us-central1", "gs://b", ""))
    return Settings(project, region, bucket, none, none)


def dollars(amount: str) -> Money:
    return Money(Decimal(amount), "USD")


def costs(**hourly: Price) -> list[JobCost]:
    kinds: dict[str, Kind] = {"train": "train", "evaluation": "eval", "export": "export"}
    return [JobCost(kinds[name], CPU, price, 3600) for name, price in hourly.items()]


ALL = {"train": dollars("5"), "evaluation": dollars("2"), "export": dollars("1")}


@pytest.mark.parametrize(("policy", "expected"), [
    (RecoverySpec(attempts=1), "8"),
    # Each training has an evaluation of its own, which may be tried as often again.
    (RecoverySpec(attempts=3), "36"), (RecoverySpec(attempts=3, hours=1), "36"),
    (RecoverySpec(attempts=3, max_cost="6"), "27"), (RecoverySpec(attempts=3, max_cost="5.5"), "25"),
    (RecoverySpec(attempts=3, max_cost="1"), "12"), (RecoverySpec(attempts=3, max_cost="1000"), "36"),
])
def test_what_all_attempts_come_to(policy: RecoverySpec, expected: str) -> None:
    assert worst_of_attempts(costs(**ALL), policy) == dollars(expected)


def test_what_is_unknown_of_one_attempt_is_unknown_of_all() -> None:
    assert worst_of_attempts(costs(train=dollars("5"), export=Unknown("x")), RecoverySpec(max_cost="3")) == Unknown("x")


AMOUNTS = st.decimals(Decimal("0.01"), 1000, places=2)


@given(AMOUNTS, AMOUNTS, st.integers(1, 9), AMOUNTS)
def test_more_attempts_never_cost_less_and_a_cap_never_more(
    train: Decimal, export: Decimal, attempts: int, cap: Decimal,
) -> None:
    def worst(policy: RecoverySpec) -> Decimal:
        found = worst_of_attempts(costs(train=Money(train, "USD"), export=Money(export, "USD")), policy)
        assert isinstance(found, Money)
        return found.amount

    once, free = worst(RecoverySpec(attempts=1)), worst(RecoverySpec(attempts=attempts))
    assert once <= worst(RecoverySpec(attempts=attempts, max_cost=str(cap))) <= free == once * attempts


def test_a_budget_of_one_job_is_for_that_one(prices: Path) -> None:
    of_export = budget_of(SPEC, settings(), prices=prices, max_cost="1", kinds=["export"])
    assert [(cost.kind, cost.timeout_s) for cost in of_export.costs] == [("export", 3600)]
    once = replace(SPEC.recovery, attempts=1)
    assert of_export.spec == replace(SPEC, recovery=once, export=replace(SPEC.export, timeout_hours=1.0))
    of_eval = budget_of(SPEC, settings(), prices=prices, max_cost="3", kinds=["eval"])
    assert (of_eval.spec.eval.timeout_hours, of_eval.spec.train) == (3.0, SPEC.train)
    beside = replace(SPEC, eval=replace(SPEC.eval, beside="pool"))
    assert [cost.kind for cost in budget_of(beside, settings(), prices=prices, kinds=["eval"]).costs] == ["eval"]


def hours(budget: Budget) -> list[float]:
    spec = budget.spec
    return [spec.train.timeout_hours, spec.eval.timeout_hours, spec.export.timeout_hours]


def test_a_sweep_costs_no_more_than_its_money_in_all(prices: Path) -> None:
    runs = [replace(SPEC, train=replace(SPEC.train, batch_size=size)) for size in (4, 8, 16, 32)]
    free = sweep_budget(SPEC, runs, settings(), prices=prices)
    assert (free.spec, free.worst, len(free.costs)) == (SPEC, dollars("200"), 12)
    # Two hours of each export are 8, so 32 are left for four trainings and four evaluations.
    kept = sweep_budget(SPEC, runs, settings(), prices=prices, max_cost="40")
    assert (hours(kept), kept.worst) == ([4.0, 4.0, 2.0], dollars("40"))
    for run in runs:
        capped = replace(kept.spec, train=replace(kept.spec.train, batch_size=run.train.batch_size))
        assert budget_of(capped, settings(), prices=prices).worst == dollars("10")
    odd = sweep_budget(SPEC, runs, settings(), prices=prices, max_cost="39.99").worst
    assert isinstance(odd, Money)
    assert Decimal("39.98") < odd.amount <= Decimal("39.99")


def test_runs_of_a_sweep_may_differ_in_what_they_cost(prices: Path) -> None:
    runs = [SPEC, replace(SPEC, train=replace(SPEC.train, workers=3))]
    kept = sweep_budget(SPEC, runs, settings(), prices=prices, max_cost="32")
    assert (hours(kept), kept.worst) == ([4.0, 4.0, 2.0], dollars("32"))


@pytest.mark.parametrize(("money", "found"), [
    ("0.5", "0.5 pays for 150 seconds of each job"), ("none", "that is no sum of money"),
])
def test_money_that_does_not_do(prices: Path, money: str, found: str) -> None:
    with pytest.raises(SpecError, match=found) as caught:
        sweep_budget(SPEC, [SPEC] * 4, settings(), prices=prices, max_cost=money)
    assert caught.value.code == "J408"
