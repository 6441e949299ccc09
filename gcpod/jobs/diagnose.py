"""What is known about why jobs fail, held against a job's error and its log (diagnoses.yaml; docs/findings.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml

from gcpod.jobs.logfile import printable
from gcpod.status import Finding

_HEAD, _TAIL = 16_000, 16_000
"""Characters of a line that are looked at, from both its ends: the error comes at the end of a trace on one line."""
_BATCH = 500
_SHOWN = 200
_DETAILS = {"severity", "also", "else", "unless", "pattern"}
_KEYS = {"code", "source", "marks", "found", "fix"}


@dataclass(frozen=True)
class Diagnosis:
    """One known failure; its fields are told at the top of diagnoses.yaml."""

    code: str
    source: str
    marks: tuple[str, ...]
    found: str
    fix: str
    pattern: re.Pattern[str] | None = None
    also: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    unless: frozenset[str] = frozenset()
    severity: Literal["error", "warning"] = "error"

    def match(self, line: str) -> dict[str, str] | None:
        """The names for ``found`` and ``fix`` that a line gives; None where it does not show this failure."""
        if not any(mark in line for mark in self.marks):
            return None
        groups: dict[str, str | None] = {}
        if self.pattern is not None:
            match = self.pattern.search(line)
            if match is None:
                return None
            groups = match.groupdict()
        for name, pattern in self.also.items():
            if match := pattern.search(line):
                groups[name] = match[name]
        return {**self.names, **{name: printable(value) for name, value in groups.items() if value}}


def diagnose(error: str, lines: Iterable[str], where: str) -> list[Finding]:
    """The known failures that a job shows, the most specific first, each code once; empty where none is known.

    Args:
        error: what the service said about the job's end; "" where it said nothing.
        lines: the texts of its log, in their order; any number of them.
        where: the job's name, for the findings.
    """
    shown: dict[int, tuple[Diagnosis, dict[str, str], str]] = {}
    open_ = dict(enumerate(known()))
    for batch in _batches(error, lines):
        whole = "\n".join(batch)
        for number in [number for number, one in open_.items() if any(mark in whole for mark in one.marks)]:
            one = open_[number]
            for line in batch:
                if (names := one.match(line)) is not None:
                    shown[number] = one, names, line
                    del open_[number]
                    break
    codes = {one.code for one, _, _ in shown.values()}
    findings: dict[str, Finding] = {}
    for _, (one, names, line) in sorted(shown.items(), key=lambda item: item[0]):
        if one.code not in findings and not one.unless & codes:
            findings[one.code] = Finding(
                one.code, one.severity, where, f"{one.found.format_map(names)} ({_evidence(one, line)})",
                one.fix.format_map(names),
            )
    return list(findings.values())


def in_words(code: str, **names: str) -> tuple[str, str]:
    """What the first known failure of a code says, found and fix, of something that was seen elsewhere than in a log.

    Raises:
        KeyError: no failure has the code, or its text needs another name.
    """
    for one in known():
        if one.code == code:
            told = {**one.names, **{name: printable(value) for name, value in names.items()}}
            return one.found.format_map(told), one.fix.format_map(told)
    raise KeyError(code)


def _batches(error: str, lines: Iterable[str]) -> Iterator[list[str]]:
    """Some lines at a time, so that most of a log is passed over by one search for each mark."""
    if error:
        yield [_cut(" ".join(error.split()))]
    rest = iter(lines)
    while batch := [_cut(line) for line in islice(rest, _BATCH)]:
        yield batch


def _cut(line: str) -> str:
    return line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} … {line[-_TAIL:]}"


def _evidence(one: Diagnosis, line: str) -> str:
    """The part of the line around what it was known by."""
    match = one.pattern.search(line) if one.pattern is not None else None
    start = match.start() if match else min(line.find(mark) for mark in one.marks if mark in line)
    # What begins shortly before is shown from its beginning: the kind of error, or who said it.
    begin = 0 if start <= _SHOWN // 2 else start - _SHOWN // 4
    part = " ".join(printable(line[begin : begin + _SHOWN]).split())
    return f"{'…' if begin else ''}{part}{'…' if begin + _SHOWN < len(line) else ''}"


@lru_cache
def known() -> tuple[Diagnosis, ...]:
    """Every known failure, the most specific first."""
    text = (Path(__file__).parent / "diagnoses.yaml").read_text(encoding="utf-8")
    return tuple(_diagnosis(row) for row in yaml.safe_load(text)["diagnoses"])


def _diagnosis(row: Mapping[str, Any]) -> Diagnosis:
    if not row.keys() >= _KEYS or row.keys() - _KEYS - _DETAILS:
        raise ValueError(f"diagnoses.yaml: {row.get('code')} has other keys than it should")
    pattern = row.get("pattern")
    return Diagnosis(
        row["code"], row["source"], tuple(row["marks"]), row["found"], row["fix"],
        None if pattern is None else re.compile(pattern),
        {name: re.compile(one) for name, one in row.get("also", {}).items()}, dict(row.get("else", {})),
        frozenset(row.get("unless", ())), row.get("severity", "error"),
    )
