"""Sweeps without a network: which runs a spec's ``sweep`` comes to, and one table of what became of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from gcpod.errors import SpecError
from gcpod.jobs.prices import Money, Price, Unknown
from gcpod.naming import is_learned, learned
from gcpod.spec import EvalSpec, Spec, SweepSpec
from gcpod.specfile import parse_spec
from gcpod.status import Metrics

MAX_RUNS = 1000
"""More are taken for a slip of the pen."""
FAILED = frozenset({"FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"})
_TEXT, _MAPPING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"
_PLAIN = frozenset(f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp"))
_COCO = {"AP": "mAP", "AP50": "mAP@.50IOU", "AP75": "mAP@.75IOU"}
"""Columns that every table has, by their names among the summaries (object_detection/metrics/coco_evaluation.py)."""
_SHARED = {
    "data": "all runs of a sweep have the same records", "packages": "all runs of a sweep have the same packages",
}
_SECTIONS = frozenset(field.name for field in dataclasses.fields(Spec) if not field.metadata.get("hidden"))


@dataclass(frozen=True)
class Variant:
    """One run of a sweep.

    Attributes:
        values: what it has of its own, by dotted key of gcpod.yaml, as written there.
        spec: with these values, and without a sweep.
    """

    values: Mapping[str, str]
    spec: Spec


def expand(spec: Spec) -> tuple[Variant, ...]:
    """The runs of a spec's sweep: every combination of its grid, the last key changing fastest, or those it lists.

    Each has a run name of its own, whatever the data, so a run that was made before is found again.

    Raises:
        SpecError: there is no sweep, or a grid and a list, a key may not vary, a value is wrong, two runs would be one,
            or there are more than `MAX_RUNS`.
        PackageError: as for prepare.learned.
    """
    where, chosen = _chosen(spec)
    base = replace(spec, sweep=SweepSpec())
    parsed: dict[tuple[str, str], Spec] = {}
    variants, known = [], dict[str, Mapping[str, str]]()
    for values in chosen:
        made = base
        for key, text in values.items():
            if (key, text) not in parsed:
                parsed[key, text] = _parsed(key, text, where, spec.folder)
            made = _with(made, key, parsed[key, text])
        content = json.dumps(learned(made), sort_keys=True)
        if content in known:
            raise SpecError("expanding", where, f"{_told(known[content])} and {_told(values)} are the same run",
                            "keep one of them")
        known[content] = values
        variants.append(Variant(values, made))
    return tuple(variants)


def _chosen(spec: Spec) -> tuple[str, list[dict[str, str]]]:
    """The key that tells the runs, and their values."""
    grid, runs = spec.sweep.grid or {}, spec.sweep.runs or ()
    if bool(grid) == bool(runs):
        found = "it has both grid and runs" if grid else "it has neither grid nor runs"
        raise SpecError("reading", "sweep", found, "write one of them, such as grid: {train.batch_size: [8, 16]}")
    where, size = ("sweep.grid", math.prod(map(len, grid.values()))) if grid else ("sweep.runs", len(runs))
    if size > MAX_RUNS:
        raise SpecError("expanding", where, f"it comes to more than {MAX_RUNS} runs", "sweep over fewer values")
    if runs:
        return where, [dict(values) for values in runs]
    return where, [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _parsed(key: str, text: str, where: str, folder: Path) -> Spec:
    """A spec that has but one key, read as if it stood in gcpod.yaml."""
    on = f"{where}, {key}: {text}"
    section = key.partition(".")[0]
    if section in _SECTIONS and not is_learned(key):
        why = _SHARED.get(section, "it does not change what is learned")
        raise SpecError("reading", on, f"a sweep cannot vary it: {why}", "sweep over keys of train, model or runtime")
    node: yaml.Node = yaml.ScalarNode(_tag(text), text)
    # Below a section and its field, what has dots is a name of its own, as the fields of model.set.
    for part in reversed(key.split(".", 2)):
        node = yaml.MappingNode(_MAPPING, [(yaml.ScalarNode(_TEXT, part), node)])
    try:
        return parse_spec(str(yaml.serialize(node, Dumper=yaml.SafeDumper, allow_unicode=True)), folder / "gcpod.yaml")
    except SpecError as e:
        raise SpecError("reading", on, e.found, e.fix) from e


def _tag(text: str) -> str:
    """What a value is when nothing quotes it; none is empty."""
    resolver: Any = yaml.resolver.Resolver()
    tag = resolver.resolve(yaml.ScalarNode, text, (True, False))
    return tag if tag in _PLAIN else _TEXT


def _with(spec: Spec, key: str, given: Spec) -> Spec:
    """A spec with one key of another."""
    section, name, *inner = key.split(".", 2)
    part = getattr(spec, section)
    value = getattr(getattr(given, section), name)
    if inner:
        value = {**(getattr(part, name) or {}), **value}
    changes: dict[str, Any] = {section: replace(part, **{name: value})}
    return replace(spec, **changes)


def _told(values: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {text}" for key, text in values.items()) + "}"


@dataclass(frozen=True)
class Row:
    """What became of one run of a sweep.

    Attributes:
        values: its variant's.
        state: of its jobs in short, such as SUCCEEDED, or a word of the sweep's such as WAITING.
        metrics: of the checkpoint that speaks for it; None: none was evaluated.
        hours: from its start to its end, or to now; None: it did not start.
        cost: of its jobs so far; None: it has none.
        error: why it failed; "" otherwise.
    """

    run_id: str
    values: Mapping[str, str]
    state: str
    metrics: Metrics | None = None
    hours: float | None = None
    cost: Price | None = None
    error: str = ""


def best_of(metrics: Iterable[Metrics], metric: str = EvalSpec.best_metric) -> Metrics | None:
    """The best of a run's evaluations, the first of equal ones; None where none has the metric as a number."""
    ranked = [(rank, one) for one in metrics if math.isfinite(rank := _rank(one, metric))]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


@dataclass(frozen=True)
class Table:
    """The results of a sweep, in order: the best first, then those without the metric, last those that failed."""

    rows: tuple[Row, ...]
    metric: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The dotted keys that vary, as they first occur."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.values))

    @property
    def columns(self) -> tuple[str, ...]:
        """Heads of `cells`; the metric has one of its own where it is none of the three that are always there."""
        return ("run", *self.keys, "state", "step", *self._numbers(None), "hours", "cost")

    def cells(self) -> Iterator[tuple[str, ...]]:
        """The rows as text, a cell for each column; "" for what is not known yet."""
        for row in self.rows:
            values = (row.values.get(key, "") for key in self.keys)
            numbers = (_cell(value, ".3f") for value in self._numbers(row.metrics).values())
            step = row.metrics.step if row.metrics else None
            yield (row.run_id, *values, row.state, _cell(step), *numbers, _cell(row.hours, ".1f"), _cell(row.cost))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain values for JSON: None for what is not known, the cost an exact number as text beside its currency."""
        return [{
            "run": row.run_id, "values": dict(row.values), "state": row.state, "error": row.error or None,
            "step": row.metrics.step if row.metrics else None, **self._numbers(row.metrics),
            "hours": row.hours, "cost": f"{row.cost.amount:f}" if isinstance(row.cost, Money) else None,
            "currency": row.cost.currency if isinstance(row.cost, Money) else None,
            "cost_unknown": row.cost.why if isinstance(row.cost, Unknown) else None,
        } for row in self.rows]

    def _numbers(self, metrics: Metrics | None) -> dict[str, float | None]:
        """AP, AP50 and AP75, and the metric that the rows are sorted by."""
        names = {name: f"DetectionBoxes_Precision/{short}" for name, short in _COCO.items()}
        if self.metric not in names.values():
            names[self.metric] = self.metric
        return {name: _value(metrics, summary) for name, summary in names.items()}


def table(rows: Sequence[Row], metric: str = EvalSpec.best_metric) -> Table:
    """The table of a sweep, sorted; rows of equal worth stay in their order.

    Args:
        rows: one for each run.
        metric: ``eval.best_metric`` of the sweep's spec.
    """
    return Table(tuple(sorted(rows, key=lambda row: (row.state in FAILED, _rank(row.metrics, metric)))), metric)


def _rank(metrics: Metrics | None, metric: str) -> float:
    """Smaller is better; infinite where there is no number."""
    value = _value(metrics, metric)
    if value is None:
        return math.inf
    return value if metric.startswith("Loss/") else -value


def _value(metrics: Metrics | None, metric: str) -> float | None:
    """A number of an evaluation; None for what it lacks, or has no number for."""
    if metrics is None:
        return None
    box = {"mAP": metrics.ap, "mAP@.50IOU": metrics.ap50, "mAP@.75IOU": metrics.ap75}
    value = metrics.values.get(metric, box.get(metric.removeprefix("DetectionBoxes_Precision/"), math.nan))
    return value if math.isfinite(value) else None


def _cell(value: object, form: str = "") -> str:
    return "" if value is None else format(value, form)
