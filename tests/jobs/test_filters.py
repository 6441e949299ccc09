"""Filters of job listings: no value says more than itself, to a parser of that language; times as people write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.jobs.filters import JobFilter, parse_duration, parse_moment
from gcpod.jobs.request import label
from gcpod.localcloud.logfilter import parse_filter
from gcpod.status import JobState

NOW = datetime(2026, 11, 20, 12, 0, 0, 123, tzinfo=timezone.utc)
KEYS = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text('"\\ ()=:*ANDORNOT\n', max_size=12)


def or_refused(call: Callable[[], str]) -> str | None:
    """What a call gives; None where it refuses, which it does in one line that any terminal can show."""
    try:
        return call()
    except SpecError as e:
        said = str(e)
    assert said.isascii()
    assert "\n" not in said
    return None


def test_nothing_asked_is_no_filter() -> None:
    assert JobFilter().to_text() == ""


def test_everything_asked() -> None:
    wanted = JobFilter(
        run="Birds-1a2b", kind="eval", states=(JobState.RUNNING, JobState.PENDING), labels={"team": "a b"},
        since="2026-11-20T00:00:00Z", until="2026-11-21T00:00:00.5+01:00", name='my "job"',
    )
    assert wanted.to_text() == (
        'labels.team="a b" AND labels.gcpod_run="birds-1a2b" AND labels.gcpod_kind="eval" AND '
        '(state="JOB_STATE_RUNNING" OR state="JOB_STATE_PENDING") AND create_time>="2026-11-20T00:00:00Z" AND '
        'create_time<"2026-11-21T00:00:00.5+01:00" AND display_name="my \\"job\\""'
    )


@given(st.dictionaries(KEYS, TEXTS, max_size=3), TEXTS, st.sets(st.sampled_from(JobState), max_size=3), TEXTS)
def test_a_filter_means_what_was_asked_whatever_the_values_hold(
    labels: dict[str, str], name: str, states: set[JobState], run: str,
) -> None:
    wanted = parse_filter(JobFilter(run=run, states=tuple(states), labels=labels, name=name).to_text())
    carried = {**labels, "gcpod_run": label(run)}
    job = {
        "labels": carried, "display_name": name, "state": (min(states) if states else JobState.FAILED).value,
    }
    assert wanted(job)
    assert not wanted({**job, "display_name": name + "x"})
    for key, value in carried.items():
        assert not wanted({**job, "labels": {**carried, key: value + "x"}})
    assert wanted({**job, "state": "JOB_STATE_OF_THE_FUTURE"}) is not bool(states)


@given(TEXTS)
def test_a_label_key_is_one_or_refused(key: str) -> None:
    wanted = or_refused(lambda: JobFilter(labels={key: "v"}).to_text())
    if wanted is not None:
        assert wanted == f'labels.{key}="v"'
        assert parse_filter(wanted)({"labels": {key: "v"}})


@pytest.mark.parametrize("wanted", [
    JobFilter(since='2026-11-20T00:00:00Z" OR state="JOB_STATE_FAILED'), JobFilter(until="2026-02-30T00:00:00Z"),
    JobFilter(since="yesterday"), JobFilter(since="2026-11-20T00:00:00"), JobFilter(until="2026-11-20T00:00:00+99:00"),
    JobFilter(labels={"UPPER": "v"}), JobFilter(labels={"a b": "v"}), JobFilter(name="\udcff"),
    JobFilter(labels={"k": "\ud800"}), JobFilter(since="٢٠٢٦-11-20T00:00:00Z"),
])
def test_what_cannot_be_asked_is_refused_in_one_line(wanted: JobFilter) -> None:
    with pytest.raises(SpecError) as caught:
        wanted.to_text()
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "moment"), [
    ("90s", "2026-11-20T11:58:30Z"), ("30m", "2026-11-20T11:30:00Z"), ("2h", "2026-11-20T10:00:00Z"),
    ("7d", "2026-11-13T12:00:00Z"), ("2w", "2026-11-06T12:00:00Z"), ("2026-11-19", "2026-11-19T00:00:00Z"),
    ("2026-11-19T08:00:00.25+02:00", "2026-11-19T08:00:00.25+02:00"), ("1900w", "1990-06-22T12:00:00Z"),
    ("102000w", "0072-01-08T12:00:00Z"),
])
def test_moments_as_people_write_them(text: str, moment: str) -> None:
    assert parse_moment(text, NOW) == moment
    assert JobFilter(since=moment).to_text() == f'create_time>="{moment}"'


@given(st.integers(0, 999_999), st.sampled_from("smhdw"), st.integers(-12, 14))
def test_a_time_ago_is_counted_in_utc_wherever_one_is(number: int, unit: str, hours: int) -> None:
    duration = parse_duration(f"{number}{unit}")
    assert duration is not None
    here = NOW.astimezone(timezone(timedelta(hours=hours)))
    moment = or_refused(lambda: parse_moment(f"{number}{unit}", here))
    if moment is None:
        assert duration > (NOW - datetime(1, 1, 3, tzinfo=timezone.utc)).total_seconds()
        return
    assert datetime.fromisoformat(moment.replace("Z", "+00:00")) == NOW.replace(microsecond=0) - timedelta(
        seconds=duration)


@given(st.text(max_size=30) | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T?[0-9:]*Z?", fullmatch=True))
def test_any_other_text_is_refused_in_one_line(text: str) -> None:
    moment = or_refused(lambda: parse_moment(text, NOW))
    if moment is not None:
        assert parse_filter(JobFilter(since=moment).to_text())({"create_time": "9999-12-31T23:59:59Z"})


@pytest.mark.parametrize("text", ["", "h", "2", "2 h", "-2h", "1.5h", "2H", "1234567s", "2h\n", "٢h"])
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None
