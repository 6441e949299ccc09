"""The query language of log entries and job lists."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.logfilter import SEVERITIES, demanded, parse_filter

ENTRY: dict[str, Any] = {
    "severity": "WARNING",
    "timestamp": "2026-05-01T10:00:00.250000Z",
    "resource": {"type": "ml_job", "labels": {"job_id": "17", "task_name": "workerpool0-0"}},
    "jsonPayload": {"message": 'Step 100 of "many" AND more'},
    "a": "1", "b": "2",
}


@pytest.mark.parametrize("text", [
    "", "  ", 'resource.type="ml_job"', "resource.type=ml_job", 'resource.type = "ml_job"  resource.labels.job_id:1',
    "a=1 AND b=2", "a=1 b=2", "a=1\nb=2", "a=9 OR b=2", "NOT a=2", "NOT NOT a=1", "NOT (a=2 OR b=1)", "(a=1)",
    "((a=9 OR (b=2)))", 'jsonPayload.message:"step 100"', r'jsonPayload.message="Step 100 of \"many\" AND more"',
    "a!=2", "a>0", "a>=1", "a<2", "a<=1", "resource.labels.job_id:*", "NOT resource.labels.colour:*",
    # NOT binds closest, then OR, then AND.
    "a=1 OR a=1 AND b=2", "b=2 AND a=9 OR a=1", "NOT a=2 OR a=2 AND b=2",
    # A field that is not there fails every comparison, so its negation holds.
    "NOT labels.x=y", "NOT labels.x!=y",
    "severity>=INFO", "severity>INFO", "severity=WARNING", "severity<ERROR", "severity!=ERROR", 'severity>="NOTICE"',
    # Points in time are compared as such, whatever their spelling.
    'timestamp>="2026-05-01T10:00:00Z"', 'timestamp="2026-05-01T10:00:00.25Z"', 'timestamp<"2026-05-01T10:00:00.3Z"',
    'timestamp>"2026-05-01T10:00:00.249999999Z"', 'timestamp="2026-05-01T12:00:00.25+02:00"',
    'timestamp="2026-05-01T04:30:00.250-05:30"',
])
def test_matches(text: str) -> None:
    assert parse_filter(text)(ENTRY)


@pytest.mark.parametrize("text", [
    "a=2", "a=1 AND b=1", "a=1 b=1", "a=9 OR b=9", "NOT a=1", "NOT (a=1 OR b=9)", "a=1 OR b=9 AND a=9",
    "a=9 AND b=2 OR a=1",
    "labels.x=y", "labels.x!=y", "labels.x:*", "resource.labels.job_id:2", "resource.labels.job_id=1",
    "severity>WARNING", "severity<INFO", "severity=ERROR", "resource.type.deeper=x",
    'timestamp<"2026-05-01T10:00:00Z"', 'timestamp>"2026-05-01T10:00:00.25Z"', 'timestamp>"2026-05-01T12:00:00-01:00"',
    'receiveTimestamp>"2026-05-01T10:00:00Z"',
])
def test_does_not_match(text: str) -> None:
    assert not parse_filter(text)(ENTRY)


@pytest.mark.parametrize("text", [
    "(", ")", "a", "a=", "=1", "a=1 AND", "a=1 OR", "OR a=1", "AND", "NOT", "(a=1", "a=1)", "a=(1)", '"a"=1', 'a="1',
    "a==1", "severity=LOUD", "severity>=info", "timestamp>yesterday", 'timestamp>"2026-13-01T00:00:00Z"',
    'timestamp:"2026-05-01T10:00:00Z"', 'timestamp>"0001-01-01T00:00:00+23:00"', "NOT " * 80 + "a=1",
    "(" * 80 + "a=1" + ")" * 80,
    "AND=1", "a !1", '(a=1")"',
])
def test_unreadable_is_400(text: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse_filter(text)
    assert raised.value.status == 400
    assert text[:20].strip() in raised.value.message


@pytest.mark.parametrize("text", ['a=~"x"', 'severity=~"ERR"', 'a!~"x"'])
def test_regular_expressions_are_refused_as_such(text: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse_filter(text)
    assert raised.value.status == 501


def test_severities_are_ordered() -> None:
    for low, high in pairwise(SEVERITIES):
        assert parse_filter(f"severity>{low}")({"severity": high})
        assert not parse_filter(f"severity>={high}")({"severity": low})
    assert parse_filter("severity=DEFAULT")({})


@pytest.mark.parametrize(("text", "value"), [
    ('resource.type="ml_job" AND resource.labels.job_id="17"', "17"), ("resource.labels.job_id=17 a=1", "17"),
    ("resource.labels.job_id=17 OR a=1", None), ("NOT resource.labels.job_id=17", None), ("", None),
    ("(resource.labels.job_id=17)", None), ("resource.labels.job_id!=17", None), ("resource.labels.job_id:17", None),
    ('a="resource.labels.job_id=17"', None), ('a="OR" resource.labels.job_id="17"', "17"),
])
def test_demanded(text: str, value: str | None) -> None:
    assert demanded(text, "resource.labels.job_id") == value


WORDS = st.sampled_from([
    "a", "=", "!=", ":", "*", ">=", "AND", "OR", "NOT", "(", ")", '"x y"', '"', "\\", "severity", "ERROR", "timestamp",
    '"2026-05-01T10:00:00Z"', "=~", "!", "labels.x", "\n", "٣",
])


PIECES = st.lists(WORDS, max_size=12)


@given(st.one_of(st.text(max_size=60), PIECES.map(" ".join), PIECES.map("".join)))
def test_any_text_is_refused_or_gives_a_predicate(text: str) -> None:
    try:
        predicate = parse_filter(text)
    except ApiError:
        return
    assert predicate(ENTRY) in (True, False)
    assert predicate({}) in (True, False)
    wanted = demanded(text, "a")
    assert wanted is None or not predicate({"a": wanted + "?"})
