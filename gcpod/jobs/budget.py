"""What a run costs at worst, and the time limits that a sum of money pays for."""

from __future__ import annotations

import decimal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from gcpod.errors import SpecError
from gcpod.jobs.prices import Money, Price, PriceTable, Unknown, price_of, total, worst_cost
from gcpod.jobs.request import KINDS, Kind
from gcpod.spec import MachineSpec, Spec

MIN_TIMEOUT_S = 360
"""The shortest time limit that gcpod.yaml takes too (timeout_hours: 0.1)."""
_EXACT = decimal.Context(prec=60)
_HOUR_S = 3600


@dataclass(frozen=True)
class JobCost:
    """What one job costs.

    Attributes:
        per_hour: of its machine.
        timeout_s: seconds after which Vertex AI ends it.
    """

    kind: Kind
    machine: MachineSpec
    per_hour: Price
    timeout_s: int

    @property
    def worst(self) -> Price:
        """Of a job that runs until its time limit."""
        return worst_cost(self.per_hour, self.timeout_s)


def job_costs(spec: Spec, machines: Mapping[Kind, MachineSpec], region: str, table: PriceTable) -> list[JobCost]:
    """The cost of each of a run's jobs, one attempt each, on the machines that the region will run."""
    hours = {"train": spec.train.timeout_hours, "eval": spec.eval.timeout_hours, "export": spec.export.timeout_hours}
    return [
        JobCost(kind, machines[kind], price_of(machines[kind], region, table), int(hours[kind] * _HOUR_S))
        for kind in KINDS
    ]


def worst_of(costs: Sequence[JobCost]) -> Price:
    """Of all jobs together."""
    return total([cost.worst for cost in costs])


def limit(costs: Sequence[JobCost], money: Decimal) -> list[JobCost]:
    """The same jobs with time limits that together cost no more than some money, in the currency of the prices.

    One limit for all, the longest that the money pays for; a job whose own is shorter keeps that. So the export keeps
    its two hours, and the training and the evaluation beside it get the same share of time.

    Raises:
        SpecError: J408, a price is unknown, or the money does not pay for six minutes of each job.
    """
    for cost in costs:
        if isinstance(cost.per_hour, Unknown):
            raise SpecError("limiting the cost of", f"the {cost.kind} job on {cost.machine}", cost.per_hour.why,
                            "name a file of prices with --prices, or fetch them with `gcpod machines --refresh`",
                            code="J408")
    longest = max(cost.timeout_s for cost in costs)
    low, high = 0, longest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _affordable(costs, middle, money) else (low, middle - 1)
    if low < min(MIN_TIMEOUT_S, longest):
        least = total([worst_cost(cost.per_hour, min(MIN_TIMEOUT_S, cost.timeout_s)) for cost in costs])
        raise SpecError("limiting the cost of", "the run", f"{money:f} pays for {low} seconds of each job",
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
    """The spec with the time limits of the costs; it names the same run, whose inputs these are none of."""
    hours = {cost.kind: cost.timeout_s / _HOUR_S for cost in costs}
    return replace(
        spec, train=replace(spec.train, timeout_hours=hours["train"]),
        eval=replace(spec.eval, timeout_hours=hours["eval"]),
        export=replace(spec.export, timeout_hours=hours["export"]),
    )
