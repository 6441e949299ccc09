"""Whether a job that died is submitted again: never for a user's bug, and within caps on attempts, time and money.

Pure. What the messages look like: https://cloud.google.com/vertex-ai/docs/training/use-spot-vms (STOCKOUT after six
restarts), https://cloud.google.com/apis/design/errors#handling_errors (codes 8, 13 and 14).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from gcpod.jobs.prices import Money, Price, Unknown, total, worst_cost
from gcpod.spec import RecoverySpec
from gcpod.status import JobInfo, JobState, seconds_between

Cause = Literal["preempted", "stockout", "machine", "code", "cancelled"]
FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 1800.0
_STOCKOUT = re.compile(r"[Ss]tockout|[Rr]esources? (?:are |is )?(?:currently )?(?:unavailable|insufficient|exhausted)"
                       r"|does not have enough resources", re.ASCII)
_PREEMPTED = re.compile(r"[Pp]reempt", re.ASCII)
_EXITED = re.compile(r"exited with a non-zero status of (-?\d+)", re.ASCII)
_INTERNAL = re.compile(r"^Internal error|[Ii]nternal error (?:occurred|encountered)"
                       r"|machine .{0,80}(?:failed|lost|unhealthy)|[Ww]orker .{0,80}(?:lost|unreachable)"
                       r"|was interrupted \d+ times", re.ASCII)
_SIGTERM = 143
_PASSING_CODES = frozenset({13, 14})


@dataclass(frozen=True)
class Again:
    """A new attempt is right, after so many seconds."""

    cause: Cause
    pause_s: float


@dataclass(frozen=True)
class GiveUp:
    """No new attempt, and why."""

    cause: Cause
    why: str


def cause_of(info: JobInfo, strategy: str = "standard") -> Cause:
    """Why a job ended that did not succeed; what nothing speaks for is taken for the user's code.

    Args:
        info: of a job that ended.
        strategy: how it was scheduled: the code of a spot job that is told to end exits by SIGTERM.
    """
    if info.state in (JobState.CANCELLED, JobState.CANCELLING):
        return "cancelled"
    if "STOCKOUT" in info.error or info.state is JobState.EXPIRED:
        return "stockout"
    exited = _EXITED.search(info.error)
    if exited:
        # What follows the status is the code's own last words, which may speak of anything.
        return "preempted" if strategy == "spot" and int(exited[1]) == _SIGTERM else "code"
    if _STOCKOUT.search(info.error):
        return "stockout"
    if _PREEMPTED.search(info.error):
        return "preempted"
    if info.error_code in _PASSING_CODES or _INTERNAL.search(info.error):
        return "machine"
    return "code"


def decide(
    attempts: Sequence[JobInfo], policy: RecoverySpec, *, strategy: str = "standard", per_hour: Price | None = None,
    timeout_s: float = 0.0,
) -> Again | GiveUp:
    """Whether to submit a job again whose newest attempt did not succeed.

    Args:
        attempts: every attempt, the oldest first.
        policy: the caps.
        strategy: of the schedule.
        per_hour: what an attempt costs; needed for a cap on money.
        timeout_s: how long the next attempt may run.
    """
    last = attempts[-1]
    cause = cause_of(last, strategy)
    if cause == "code":
        return GiveUp(cause, "it ended by its own fault, which another attempt would meet again")
    if cause == "cancelled":
        return GiveUp(cause, "it was cancelled")
    if len(attempts) >= policy.attempts:
        return GiveUp(cause, f"{len(attempts)} attempts were made, and recovery.attempts allows {policy.attempts}")
    if policy.hours is not None:
        first = next(one for one in attempts if one.create_time)
        spent = seconds_between(first.create_time, last.end_time or last.create_time) / 3600
        if spent >= policy.hours:
            return GiveUp(cause, f"the attempts took {spent:.1f} hours, and recovery.hours allows {policy.hours:g}")
    if policy.max_cost is not None:
        why = _too_dear(attempts, Decimal(policy.max_cost), per_hour or Unknown("no price is known"), timeout_s)
        if why:
            return GiveUp(cause, why)
    # No machine was to be had: asking again at once would find none.
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (len(attempts) - 1)) if cause == "stockout" else 0.0
    return Again(cause, pause)


def _too_dear(attempts: Sequence[JobInfo], most: Decimal, per_hour: Price, timeout_s: float) -> str:
    if isinstance(per_hour, Unknown):
        return f"recovery.max_cost is set, and what an attempt costs is unknown: {per_hour.why}"
    spent_s = sum(one.run_s for one in attempts)
    worst = total([worst_cost(per_hour, int(spent_s) + 1), worst_cost(per_hour, int(timeout_s))])
    if isinstance(worst, Money) and worst.amount <= most:
        return ""
    return f"all attempts could cost {worst}, and recovery.max_cost allows {most:f} {per_hour.currency}"


def in_words(cause: Cause) -> str:
    """For messages."""
    return {
        "preempted": "its machine was taken away", "stockout": "no machine was to be had",
        "machine": "its machine failed", "code": "its code failed", "cancelled": "it was cancelled",
    }[cause]
