"""What is submitted again and what is not: causes told from messages, caps on attempts, time and money."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.jobs.prices import Money, Unknown
from gcpod.jobs.recovery import FIRST_PAUSE_S, LONGEST_PAUSE_S, Again, Cause, GiveUp, cause_of, decide
from gcpod.spec import RecoverySpec
from gcpod.status import JobInfo, JobState

STOCKOUT = "The job failed with STOCKOUT: the zone has no spot capacity after 6 restarts."
EXIT = "The replica workerpool0-0 exited with a non-zero status of {}."


def ended(error: str, state: JobState = JobState.FAILED, code: int = 3, hours: tuple[int, int] = (0, 1)) -> JobInfo:
    at = [f"2026-11-20T{hour:02}:00:00.123456Z" for hour in hours]
    return JobInfo("projects/1/locations/r/customJobs/2", "n", state, at[0], at[0], at[1], error, code)


@pytest.mark.parametrize(("error", "state", "code", "strategy", "cause"), [
    (STOCKOUT, JobState.FAILED, 8, "spot", "stockout"),
    ("The zone does not have enough resources available to fulfil it.", JobState.FAILED, 8, "standard", "stockout"),
    ("", JobState.EXPIRED, 0, "flex_start", "stockout"),
    ("The worker was preempted.", JobState.FAILED, 3, "spot", "preempted"),
    (EXIT.format(143), JobState.FAILED, 3, "spot", "preempted"),
    (EXIT.format(143), JobState.FAILED, 3, "standard", "code"),
    ("Internal error encountered.", JobState.FAILED, 13, "standard", "machine"),
    ("something new", JobState.FAILED, 14, "standard", "machine"),
    ("The job was interrupted 3 times.", JobState.FAILED, 3, "standard", "machine"),
    (EXIT.format(1), JobState.FAILED, 3, "spot", "code"),
    (EXIT.format(137), JobState.FAILED, 3, "spot", "code"),
    (EXIT.format(1) + " ValueError: resources exhausted, preempted, internal error encountered", JobState.FAILED, 13,
     "spot", "code"),
    ("The job ran longer than its timeout of 60 s.", JobState.FAILED, 4, "standard", "code"),
    ("Permission denied", JobState.FAILED, 7, "standard", "code"),
    ("Canceled by user", JobState.CANCELLED, 1, "spot", "cancelled"),
    ("", JobState.PARTIALLY_SUCCEEDED, 0, "standard", "code"),
    ("", JobState.FAILED, 0, "standard", "code"),
])
def test_causes(error: str, state: JobState, code: int, strategy: str, cause: Cause) -> None:
    assert cause_of(ended(error, state, code), strategy) == cause


@given(st.text(), st.sampled_from([0, 3, 13, 14]), st.integers(1, 20), st.sampled_from(["standard", "spot"]))
def test_whatever_a_users_code_says_it_is_not_run_again(text: str, code: int, attempts: int, strategy: str) -> None:
    said = EXIT.format(1) + text.replace("STOCKOUT", "")
    decision = decide([ended(said, code=code)] * attempts, RecoverySpec(attempts=100), strategy=strategy)
    assert isinstance(decision, GiveUp)


def test_attempts_are_capped() -> None:
    policy = RecoverySpec(attempts=3)
    lost = ended("Internal error encountered.", code=13)
    assert decide([lost], policy) == Again("machine", 0.0)
    assert decide([lost, lost], policy) == Again("machine", 0.0)
    last = decide([lost] * 3, policy)
    assert isinstance(last, GiveUp)
    assert last.why == "3 attempts were made, and recovery.attempts allows 3"


def test_time_is_capped() -> None:
    attempts = [ended(STOCKOUT, hours=(0, 4)), ended(STOCKOUT, hours=(5, 10))]
    assert isinstance(decide(attempts, RecoverySpec(hours=10.5)), Again)
    stop = decide(attempts, RecoverySpec(hours=10.0))
    assert isinstance(stop, GiveUp)
    assert stop.why == "the attempts took 10.0 hours, and recovery.hours allows 10"


def test_money_is_capped_by_what_was_spent_and_the_worst_to_come() -> None:
    lost, hour = ended("Internal error encountered.", code=13, hours=(0, 2)), Money(Decimal("2.00"), "USD")
    # Two hours of 2.00 (to the second above) are spent, and the next attempt may run for three.
    assert isinstance(decide([lost], RecoverySpec(max_cost="10.01"), per_hour=hour, timeout_s=3 * 3600), Again)
    stop = decide([lost], RecoverySpec(max_cost="10"), per_hour=hour, timeout_s=3 * 3600)
    assert isinstance(stop, GiveUp)
    assert "recovery.max_cost allows 10 USD" in stop.why
    blind = decide([lost], RecoverySpec(max_cost="1000"), per_hour=Unknown("nobody told"), timeout_s=60)
    assert isinstance(blind, GiveUp)
    assert "nobody told" in blind.why


def test_where_no_machine_was_to_be_had_the_next_is_asked_for_later_and_later() -> None:
    policy = RecoverySpec(attempts=100)
    pauses = [decide([ended(STOCKOUT)] * count, policy) for count in (1, 2, 3, 20)]
    expected = (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, LONGEST_PAUSE_S)
    assert pauses == [Again("stockout", seconds) for seconds in expected]


def test_a_deleted_first_attempt_does_not_hide_the_time() -> None:
    gone = JobInfo("n", "", JobState.FAILED, error="it was deleted")
    assert isinstance(decide([gone, ended(STOCKOUT)], RecoverySpec(hours=2.0)), Again)
