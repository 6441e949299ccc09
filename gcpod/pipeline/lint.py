"""What can be known wrong about a pipeline config before a job reads it (findings C200 to C210), and its mending."""

from __future__ import annotations

from gcpod.errors import ConfigError
from gcpod.pipeline import rules
from gcpod.pipeline.edit import Edit, apply
from gcpod.pipeline.fields import check_fields
from gcpod.pipeline.problem import Config, LintContext, Problem
from gcpod.pipeline.reading import read
from gcpod.status import Finding
from gcpod.textproto import CURLY_SINGLE, offset_of, parse

__all__ = ["LintContext", "fix_config", "lint_config"]

_ROUNDS = 1000
"""Of mending: each removes a finding, and typographic quotes are found one at a time."""


def lint_config(text: str, where: str, context: LintContext | None = None) -> list[Finding]:
    """Every finding of a config, rule by rule.

    Args:
        text: the config.
        where: its path, for the findings.
        context: what it is for; by default a cloud job of unknown machine and labels, of the default release.
    """
    return [problem.finding for problem in find_problems(text, where, context or LintContext())]


def fix_config(text: str, where: str, context: LintContext | None = None) -> tuple[str, list[Finding]]:
    """The config with everything mended that has one safe remedy, and the findings that were mended.

    Mended are typographic quotes (C204), a gs:// address with backslashes and a checkpoint named by one of its files
    (C201), its version (C202) and type (C203), the number of classes where the label map is known (C205), shapes on a
    TPU (C208), and steps (C210). All other characters stay; all of them do where the text cannot be read in the end.
    """
    context, original = context or LintContext(), text
    mended: list[Finding] = []
    for _ in range(_ROUNDS):
        fixable = [problem for problem in find_problems(text, where, context) if problem.edits]
        if not fixable:
            break
        mended += [problem.finding for problem in fixable]
        text = apply(text, [edit for problem in fixable for edit in problem.edits])
    return (text, mended) if _readable(text) else (original, [])


def _readable(text: str) -> bool:
    try:
        parse(text)
    except ConfigError:
        return False
    return True


def find_problems(text: str, where: str, context: LintContext) -> list[Problem]:
    """Every finding with what mends it."""
    try:
        reading = read(text, where)
    except ConfigError as err:
        return [Problem(Finding(err.code, "error", err.on, err.found, err.fix), _straight(text, err))]
    config = Config(text, where, reading, context)
    return [problem for rule in (check_fields, *rules.RULES) for problem in rule(config)]


def _straight(text: str, err: ConfigError) -> tuple[Edit, ...]:
    """The plain quote for a typographic one."""
    if err.code != "C204":
        return ()
    line, column = map(int, err.on.rsplit(":", 2)[1:])
    at = offset_of(text, line, column)
    return (Edit(at, at + 1, "'" if text[at] in CURLY_SINGLE else '"'),)
