"""What a run costs at worst, and the time limits that a sum of money pays for."""

from __future__ import annotations

import decimal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from gcpod.errors import SpecError
from gcpod.jobs.prices import (
    Money,
    Price,
    PriceTable,
    Unknown,
    find_prices,
    price_of,
    total,
    usual_prices,
    worst_cost,
)
from gcpod.jobs.request import Kind, kinds_of, machines_of, wanted_of
from gcpod.settings import Settings
from gcpod.spec import MONEY, MachineSpec, RecoverySpec, Spec

MIN_TIMEOUT_S = 360
"""The shortest time limit that gcpod.yaml takes too (timeout_hours: 0.1)."""
_EXACT = decimal.Context(prec=60)
_HOUR_S = 3600


@dataclass(frozen=True)
class JobCost:
    """What one job costs.

    Attributes:
        machine: of its first pool.
        per_hour: of all its machines.
        timeout_s: seconds after which Vertex AI ends it.
        further: how many machines of which kind beside the first one.
        strategy: how it gets them (spec.STRATEGIES).
    """

    kind: Kind
    machine: MachineSpec
    per_hour: Price
    timeout_s: int
    further: tuple[tuple[int, MachineSpec], ...] = ()
    strategy: str = "standard"

    @property
    def worst(self) -> Price:
        """Of a job that runs until its time limit."""
        return worst_cost(self.per_hour, self.timeout_s)

    @property
    def machines(self) -> str:
        """All of them in words, and as what they are had where that is not the standard."""
        words = " and ".join([str(self.machine), *(f"{count} x ({machine})" for count, machine in self.further)])
        return words if self.strategy == "standard" else f"{words} as {self.strategy}"


@dataclass(frozen=True)
class Budget:
    """What a run costs.

    Attributes:
        spec: with the time limits that the money pays for.
        costs: of each of its jobs, in their order.
        table: the prices.
    """

    spec: Spec
    costs: tuple[JobCost, ...]
    table: PriceTable

    @property
    def worst(self) -> Price:
        """Of all jobs together, one attempt each."""
        return worst_of(self.costs)

    @property
    def worst_of_attempts(self) -> Price:
        """Of all jobs with every attempt that ``recovery`` allows, each until its time limit."""
        return worst_of_attempts(self.costs, self.spec.recovery)


def worst_of_attempts(costs: Sequence[JobCost], policy: RecoverySpec) -> Price:
    """What jobs come to when each attempt that is allowed runs until its time limit.

    An evaluation beside the training belongs to one attempt of that, and has as many of its own.
    """
    parts: list[Price] = []
    for cost in costs:
        once, sets = cost.worst, policy.attempts if cost.kind == "eval" else 1
        every = _times(once, policy.attempts)
        if isinstance(once, Money) and isinstance(every, Money) and policy.max_cost is not None:
            # recovery.max_cost ends attempts of one job, but never forbids the first.
            every = replace(every, amount=min(every.amount, max(once.amount, Decimal(policy.max_cost))))
        parts.append(_times(every, sets))
    return total(parts)


def sweep_budget(
    spec: Spec, runs: Sequence[Spec], settings: Settings, *, prices: Path | None = None,
    max_cost: Decimal | str | None = None,
) -> Budget:
    """What the runs of a sweep cost together, and its spec with time limits by which all of them, one attempt of each
    job, cost no more than some money. A sweep varies neither machines nor time limits, so each run gets the same.

    Args:
        spec: of the sweep.
        runs: the specs that it comes to, at least one.
        settings, prices: as for budget_of.
        max_cost: of all jobs of all runs together.

    Raises:
        SpecError: as for budget_of.
    """
    budgets = [budget_of(run, settings, prices=prices) for run in runs]
    costs = [cost for one in budgets for cost in one.costs]
    if max_cost is not None:
        costs = limit(costs, _exact(max_cost))
        spec = capped(spec, costs[: len(budgets[0].costs)])
    return Budget(spec, tuple(costs), budgets[0].table)


def budget_of(
    spec: Spec, settings: Settings, *, prices: Path | None = None, max_cost: Decimal | str | None = None,
    kinds: Sequence[Kind] = (),
) -> Budget:
    """What a spec's jobs cost in a region, and the spec that costs no more than some money.

    Args:
        spec: what to run.
        settings: for the region, and for whose prices are the usual ones.
        prices: a file of prices; by default what GCPOD_PRICES names, else what was fetched last.
        max_cost: of all jobs together, one attempt each, in the currency of the prices, as text such as 7.50 or exact;
            None: no limit.
        kinds: the jobs that it is about; by default all of the run.

    Raises:
        SpecError: J408, the file is no table of prices, ``max_cost`` is no sum of money, a price that it needs is
            unknown, or it does not pay for six minutes of each job.
    """
    region = settings.region.value
    table = find_prices(prices, usual_prices(bool(settings.endpoint.value)))
    costs = job_costs(spec, machines_of(spec, region)[0], region, table, kinds)
    if max_cost is not None:
        costs = limit(costs, _exact(max_cost))
        spec = capped(spec, costs)
    return Budget(spec, tuple(costs), table)


def job_costs(
    spec: Spec, machines: Mapping[Kind, MachineSpec], region: str, table: PriceTable, kinds: Sequence[Kind] = (),
) -> list[JobCost]:
    """The cost of each of a run's jobs, or of some, one attempt each, on the machines that the region will run."""
    return [_job_cost(kind, spec, machines, region, table) for kind in kinds or kinds_of(spec)]


def _job_cost(
    kind: Kind, spec: Spec, machines: Mapping[Kind, MachineSpec], region: str, table: PriceTable,
) -> JobCost:
    wanted = wanted_of(spec, kind)
    strategy = wanted.schedule.strategy
    further: list[tuple[int, MachineSpec]] = []
    if kind == "train" and spec.train.workers:
        further.append((spec.train.workers, machines["train"]))
    if kind == "train" and spec.eval.beside == "pool":
        further.append((1, machines["eval"]))
    per_hour = total([_times(_hour(machine, region, table, strategy), count)
                      for count, machine in ((1, machines[kind]), *further)])
    return JobCost(kind, machines[kind], per_hour, int(wanted.timeout_hours * _HOUR_S), tuple(further), strategy)


def _hour(machine: MachineSpec, region: str, table: PriceTable, strategy: str) -> Price:
    if strategy == "flex_start":
        return Unknown("machines had by flex_start have prices of their own, which tables of prices do not hold")
    return price_of(machine, region, table, spot=strategy == "spot")


def _exact(money: Decimal | str) -> Decimal:
    if isinstance(money, Decimal):
        return money
    if not MONEY.fullmatch(money):
        raise _no_money(repr(money))
    return Decimal(money)


def _no_money(found: object) -> SpecError:
    return SpecError("limiting the cost to", found, "that is no sum of money", "give one such as 7.50", code="J408")


def _times(price: Price, count: int) -> Price:
    return price if isinstance(price, Unknown) else Money(price.amount * count, price.currency)


def worst_of(costs: Sequence[JobCost]) -> Price:
    """Of all jobs together."""
    return total([cost.worst for cost in costs])


def limit(costs: Sequence[JobCost], money: Decimal) -> list[JobCost]:
    """The same jobs with time limits that together cost no more than some money, in the currency of the prices.

    One limit for all, the longest that the money pays for; a job whose own is shorter keeps that. So the export keeps
    its two hours, and the training and the evaluation beside it get the same share of time.

    Raises:
        SpecError: J408, a price is unknown, the money is no sum, or does not pay for six minutes of each job.
    """
    if not money.is_finite() or money <= 0:
        raise _no_money(money)
    for cost in costs:
        if isinstance(cost.per_hour, Unknown):
            raise SpecError("limiting the cost of", f"the {cost.kind} job on {cost.machines}", cost.per_hour.why,
                            "name a file of prices with --prices, or fetch them with `gcpod machines --refresh`",
                            code="J408")
    longest = max(cost.timeout_s for cost in costs)
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _affordable(costs, middle, money) else (low, middle - 1)
    if low < min(MIN_TIMEOUT_S, longest):
        least = total([worst_cost(cost.per_hour, min(MIN_TIMEOUT_S, cost.timeout_s)) for cost in costs])
        raise SpecError("limiting the cost of", "all jobs", f"{money:f} pays for {low} seconds of each job",
                        f"give --max-cost at least {least}", code="J408")
    return [replace(cost, timeout_s=min(cost.timeout_s, low)) for cost in costs]


def _affordable(costs: Sequence[JobCost], limit_s: int, money: Decimal) -> bool:
    spent = Decimal(0)
    for cost in costs:
        assert isinstance(cost.per_hour, Money)
        seconds = Decimal(min(cost.timeout_s, limit_s))
        spent = _EXACT.add(spent, _EXACT.multiply(cost.per_hour.amount, seconds))
    return spent <= _EXACT.multiply(money, Decimal(_HOUR_S))


def capped(spec: Spec, costs: Sequence[JobCost]) -> Spec:
    """The spec with the time limits of the costs; it names the same run, whose inputs these are none of.

    Who sets a limit means all that is spent: no job that died is submitted again, unless recovery.max_cost allows it.
    """
    hours = {cost.kind: cost.timeout_s / _HOUR_S for cost in costs}
    train = hours.get("train", spec.train.timeout_hours)
    # An evaluation without a job of its own waits no longer than the training's job may run.
    evaluation = hours.get("eval", min(train, spec.eval.timeout_hours))
    policy = spec.recovery if spec.recovery.max_cost is not None else replace(spec.recovery, attempts=1)
    return replace(
        spec, recovery=policy,
        train=replace(spec.train, timeout_hours=train), eval=replace(spec.eval, timeout_hours=evaluation),
        export=replace(spec.export, timeout_hours=hours.get("export", spec.export.timeout_hours)),
    )
