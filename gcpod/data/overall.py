"""Findings about a dataset as a whole: images without labels, copies, and classes that are spelt or used oddly."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import nlargest
from typing import Final

from gcpod.data.boxes import judged
from gcpod.data.checked import CheckedSample
from gcpod.data.model import SPLITS, Sample
from gcpod.data.near import MAX_BOXES, near_groups
from gcpod.spec import Policies
from gcpod.status import Finding

_NAMES_SHOWN: Final = 3


def check_unlabelled(alone: Sequence[Sample], policies: Policies) -> Iterator[Finding]:
    if alone:
        count = "1 image has" if len(alone) == 1 else f"{len(alone)} images have"
        found = f"{count} no annotation: {listed(sample.name for sample in alone)}"
        done, fix = "they were taken as images without objects", "label them, or save an annotation without objects"
        finding = judged("D106", policies.unlabelled, str(alone[0].image), found, done, fix)
        yield replace(finding, fix="they were left out") if policies.unlabelled == "warn" else finding


def group_copies(samples: Sequence[CheckedSample], prints: Mapping[str, bytes]) -> list[CheckedSample]:
    first: dict[str, CheckedSample] = {}
    for sample in samples:
        if sample.probe.sha256 in prints:
            first.setdefault(sample.probe.sha256, sample)
    groups = near_groups(
        {sha256: prints[sha256] for sha256 in first}, {sha256: _largest(sample) for sha256, sample in first.items()},
    )
    # Few have copies; the others are not made anew.
    return [
        one if groups.get(one.probe.sha256, one.group) == one.group else replace(one, group=groups[one.probe.sha256])
        for one in samples
    ]


def _largest(sample: CheckedSample) -> tuple[tuple[float, ...], ...]:
    """The edges of the largest boxes, as fractions of the sides."""
    boxes = nlargest(MAX_BOXES, sample.boxes, key=lambda box: (box.xmax - box.xmin) * (box.ymax - box.ymin))
    x, y = sample.width, sample.height
    return tuple((box.xmin / x, box.ymin / y, box.xmax / x, box.ymax / y) for box in boxes)


def check_copies(
    samples: Sequence[CheckedSample], policies: Policies,
) -> tuple[list[CheckedSample], list[Finding]]:
    """Copies of one picture: what is odd about them, and what is kept of those on both sides of a given split."""
    findings: list[Finding] = []
    same: defaultdict[str, list[CheckedSample]] = defaultdict(list)
    for sample in samples:
        same[sample.group].append(sample)
    out: set[str] = set()
    for group in same.values():
        names, where = listed(sample.name for sample in group), str(group[0].image)
        if _disagree(group):
            found = f"the same picture has different boxes: {names}"
            findings.append(Finding("D107", "warning", where, found, "keep one of them"))
        if {sample.given for sample in group} >= set(SPLITS):
            found, fix = f"the same picture is in train and eval: {names}", "delete one of them"
            done = "all of them evaluate"
            findings.append(judged("D107", policies.straddling, where, found, done, fix))
            if policies.straddling == "warn":
                findings[-1] = replace(findings[-1], fix="the copies that train were left out")
                out |= {sample.name for sample in group if sample.given != "eval"}
    left = [sample for sample in samples if sample.name not in out]
    if out and not any(sample.given == "train" for sample in left):
        found, fix = "each picture that would train is a copy of one that evaluates", "give the split other pictures"
        findings.append(Finding("D107", "error", str(samples[0].image), found, fix))
    return left, findings


def _disagree(group: Sequence[CheckedSample]) -> bool:
    """Whether byte-identical pictures have different boxes."""
    first: dict[str, CheckedSample] = {}
    return any(
        frozenset(other.boxes) != frozenset(sample.boxes)
        for sample in group
        if (other := first.setdefault(sample.probe.sha256, sample)) is not sample
    )


def check_lookalikes(samples: Iterable[CheckedSample]) -> Iterator[Finding]:
    spelt: dict[str, dict[str, CheckedSample]] = {}
    for sample in samples:
        for label in sorted(set(sample.boxes.labels)):
            spelt.setdefault(label.casefold(), {}).setdefault(label, sample)
    for forms in spelt.values():
        if len(forms) > 1:
            found = f"labels differ only in case and become {len(forms)} classes: {listed(sorted(forms))}"
            yield Finding("D101", "warning", str(forms[max(forms)].image), found, "name one of them in data.aliases")


def check_aliases(aliases: Mapping[str, str], labels: set[str]) -> Iterator[Finding]:
    for alias in aliases:
        if alias not in labels:
            near = difflib.get_close_matches(alias, labels, n=1)
            fix = f"did you mean {near[0]!r}?" if near else "correct it, or remove it"
            yield Finding("D101", "warning", "data.aliases", f"no box has the label {alias!r}", fix)


def listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return ", ".join(found[:_NAMES_SHOWN]) + more
