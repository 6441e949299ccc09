"""Fault plans: what YAML says, what contradicts itself, and that no text does anything worse than a coded refusal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.localcloud.config import CloudConfig
from gcpod.localcloud.faults_plan import CREATE, CallFault, ClockFault, FaultPlan, JobFault, load_plan, parse_plan
from gcpod.localcloud.strict_yaml import parse_record

HERE = Path("plan.yaml")
WHOLE = """
# Every key that there is.
calls:
  - call: aiplatform.projects.locations.customJobs.create
    job: "birds-*-train"
    after: 2
    times: 3
    do: error
    status: 429
    message: slow down
    retry_after_s: 7
  - {call: GET /storage/v1/b/*, do: delay, seconds: 1.5, times: always}
  - {call: "*", do: lost_reply}
  - {call: storage.objects.*, do: reset}
  - {call: "* /upload/*", do: truncate}
  - {call: logging.entries.list, do: stall, seconds: 2}
jobs:
  - {job: "*-train", do: preempt, after_s: 5}
  - {job: "*", do: lose_machine, times: always}
  - {job: "*", do: stockout, when: PENDING}
  - {job: "*", do: state, state: EXPIRED, code: 4, message: too late, when: QUEUED}
  - {job: "1234", do: exit, signal: SEGV, times: 2}
clock: {skew_s: -3600}
"""
PLAN = FaultPlan(
    (
        CallFault(CREATE, "error", "birds-*-train", 2, 3, 429, "slow down", 7),
        CallFault("GET /storage/v1/b/*", "delay", times="always", seconds=1.5),
        CallFault("*", "lost_reply"), CallFault("storage.objects.*", "reset"), CallFault("* /upload/*", "truncate"),
        CallFault("logging.entries.list", "stall", seconds=2.0),
    ),
    (
        JobFault("*-train", "preempt", after_s=5.0), JobFault("*", "lose_machine", times="always"),
        JobFault("*", "stockout", "PENDING"),
        JobFault("*", "state", "QUEUED", state="EXPIRED", code=4, message="too late"),
        JobFault("1234", "exit", times=2, signal="SEGV"),
    ),
    ClockFault(-3600.0),
)


def test_every_word_of_a_plan() -> None:
    assert parse_plan(WHOLE, HERE) == PLAN
    assert PLAN.lines() == [
        f"{CREATE} of job birds-*-train: after 2, 3 times: error 429 retry after 7 s",
        "GET /storage/v1/b/*: always: delay 1.5 s",
        "*: once: lost_reply",
        "storage.objects.*: once: reset",
        "* /upload/*: once: truncate",
        "logging.entries.list: once: stall 2 s",
        "job *-train: when RUNNING for 5 s, once: preempt",
        "job *: when RUNNING, always: lose_machine",
        "job *: when PENDING, once: stockout",
        "job *: when QUEUED, once: state EXPIRED",
        "job 1234: when RUNNING, 2 times: exit SEGV",
        "clock: -3600 s",
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "calls: []\njobs: []\n", "clock: {}\n", "clock: {skew_s: 0}\n"])
def test_a_plan_of_nothing(text: str) -> None:
    assert parse_plan(text, HERE) == FaultPlan()
    assert FaultPlan().lines() == []


@pytest.mark.parametrize(("text", "line", "found"), [
    ("- 1\n", 1, "the file is no mapping"),
    ("call: []\n", 1, "unknown key 'call'; did you mean 'calls'?"),
    ("calls: {}\n", 1, "calls is no list"),
    ("calls:\n  - reset\n", 2, r"calls\[0\] is no mapping"),
    ("calls:\n  - do: reset\n", 2, r"calls\[0\].call is missing"),
    ("calls:\n  - call: '*'\n", 2, r"calls\[0\].do is missing"),
    ("calls:\n  - call: '*'\n    do: rest\n", 3, r"do is 'rest'; did you mean 'reset'\?"),
    ("calls:\n  - call: '*'\n    do: reset\n    do: stall\n", 4, "do is given twice"),
    ("calls:\n  - call: '*'\n    do: reset\n    tmies: 2\n", 4, "unknown key .*did you mean 'times'"),
    ("calls:\n  - call: '*'\n    do: reset\n    times: 0\n", 4, "times is 0; give 1 to"),
    ("calls:\n  - call: '*'\n    do: reset\n    times: yes\n", 4, "times is 'yes'; give a whole number or `always`"),
    ("calls:\n  - call: '*'\n    do: reset\n    times: never\n", 4, "times is 'never'"),
    ("calls:\n  - call: '*'\n    do: reset\n    after: -1\n", 4, "after is -1"),
    ("calls:\n  - call: '*'\n    do: reset\n    job:\n", 4, "job is ''; give text"),
    ("calls:\n  - call: '*'\n    do: error\n    status: 200\n", 4, "status is 200; give 400 to 599"),
    ("calls:\n  - call: '*'\n    do: error\n    seconds: 2\n", 4, "seconds says nothing here; it goes with .*delay"),
    ("calls:\n  - call: '*'\n    do: stall\n", 3, "stall needs seconds"),
    ("calls:\n  - call: '*'\n    do: delay\n    seconds: .inf\n", 4, "seconds is '.inf'; give a number"),
    ("calls:\n  - call: '*'\n    status: 500\n    do: reset\n", 3, "status says nothing here"),
    ("calls:\n  - call: storage.objects.gte\n    do: reset\n", 2, "no method's id; did you mean 'storage.objects.get'"),
    ("calls:\n  - call: frobnicate\n    do: reset\n", 2, "no method's id; write a method's id, `VERB /path`"),
    ("calls:\n  - call: FETCH /b/*\n    do: reset\n", 2, "the verb 'FETCH'"),
    ("calls:\n  - call: storage.*\n    do: reset\n    job: x\n", 4, "is not about one job"),
    ("calls:\n  - call: *\n    do: reset\n", 2, "alias"),
    ("jobs:\n  - job: ''\n    do: preempt\n", 2, "job is empty"),
    ("jobs:\n  - job: x\n    do: preempt\n    when: PENDING\n", 4, "preempt when PENDING; a job has machines when"),
    ("jobs:\n  - job: x\n    do: stockout\n    when: FAILED\n", 4, "when is 'FAILED'"),
    ("jobs:\n  - job: x\n    do: state\n", 3, "state needs the state to go to"),
    ("jobs:\n  - job: x\n    do: state\n    state: JOB_STATE_EXPIRED\n", 4, "without JOB_STATE_"),
    ("jobs:\n  - job: x\n    do: state\n    state: RUNNING\n", 4, "is RUNNING already"),
    ("jobs:\n  - job: x\n    do: state\n    state: PAUSED\n    times: always\n", 5, "can come back from PAUSED"),
    ("jobs:\n  - job: x\n    do: exit\n    state: FAILED\n", 4, "state says nothing here"),
    ("jobs:\n  - job: x\n    do: exit\n    signal: STOP\n", 4, "signal is 'STOP'"),
    ("jobs:\n  - job: x\n    do: state\n    state: FAILED\n    code: 17\n", 5, "code is 17; give 0 to 16"),
    ("jobs:\n  - job: \"a\\u0007\"\n    do: preempt\n", 2, "job is"),
    ("clock: {skew_s: 1e12}\n", 1, "skew_s is"),
    ("clock: {skew_s: !!float 1}\n", 1, "tag"),
    ("clock: [\n", 2, ""),
    (f"clock: {'[' * 30}{']' * 30}\n", 1, "nested deeper than"),
])
def test_what_does_not_fit_is_told_with_its_line(text: str, line: int, found: str) -> None:
    with pytest.raises(SpecError, match=rf"^E101: reading plan\.yaml:{line}\b.*{found}") as caught:
        parse_plan(text, HERE)
    assert "\n" not in str(caught.value)


def test_a_rule_made_in_python_is_held_to_the_same() -> None:
    with pytest.raises(SpecError, match="making a call fault: seconds says nothing here"):
        CallFault("*", "reset", seconds=1)
    with pytest.raises(SpecError, match="making a job fault: preempt when QUEUED"):
        JobFault("*", "preempt", "QUEUED")


def test_the_documented_plans_can_be_read() -> None:
    text = (Path(__file__).parents[2] / "docs" / "local_cloud.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    plans = [parse_plan(block, HERE) for block in blocks if not block.startswith("regions")]
    assert [(len(plan.calls), len(plan.jobs), plan.clock.skew_s) for plan in plans] == [(2, 1, 0), (0, 0, -3600)]
    assert [parse_record(block, HERE, CloudConfig).home.name for block in blocks if block.startswith("regions")] == [
        "us-central1"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    with pytest.raises(SpecError, match="No such file"):
        load_plan(path)
    path.write_bytes(b"calls: \xff")
    with pytest.raises(SpecError, match="byte 7 is not UTF-8"):
        load_plan(path)
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(SpecError, match="more than 1000000 bytes"):
        load_plan(path)
    path.write_text("\ufeff" + WHOLE, encoding="utf-8")
    assert load_plan(path) == PLAN


@pytest.mark.parametrize(("call", "verb", "path", "method", "expected"), [
    ("*", "GET", "/x", "", True),
    ("storage.objects.*", "GET", "/x", "storage.objects.get", True),
    ("storage.objects.*", "GET", "/x", "", False),
    ("GET /b/*/o", "GET", "/b/c/d/o", "", True),
    ("GET /b/*/o", "PUT", "/b/c/o", "", False),
    ("* /b/*/o", "PUT", "/b/c/o", "", True),
    ("GET /b/c", "GET", "/B/c", "", False),
])
def test_which_request_fits(call: str, verb: str, path: str, method: str, expected: bool) -> None:
    assert CallFault(call, "reset").fits(verb, path, method, ()) is expected


def test_which_job_fits() -> None:
    rule = CallFault("*", "reset", job="a-*")
    assert [rule.fits("GET", "/", "", names) for names in ((), ("a-b", "1"), ("b", "a-1"), ("b",))] == [
        False, True, True, False]
    assert [JobFault("a-*", "exit").fits(*names) for names in (("a-b", "1"), ("b", "a-1"), ("b", "1"))] == [
        True, True, False]


def plain(value: Any) -> Any:
    """A dataclass as the YAML a person would write: without what is not said."""
    if dataclasses.is_dataclass(value):
        pairs = ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value))
        return {name: plain(one) for name, one in pairs if one is not None}
    return [plain(one) for one in value] if isinstance(value, tuple) else value


GLOBS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp", "Zs")), min_size=1, max_size=9)
TIMES = st.integers(1, 9) | st.just("always")


@settings(max_examples=30)
@given(st.builds(
    FaultPlan,
    st.lists(st.builds(CallFault, st.sampled_from(["*", CREATE, "GET /b/*"]), st.sampled_from(["reset", "truncate"]),
                       GLOBS, st.integers(0, 9), TIMES)
             | st.builds(CallFault, st.just("*"), st.just("stall"), seconds=st.floats(0, 99)), max_size=3).map(tuple),
    st.lists(st.builds(JobFault, GLOBS, st.just("exit"), st.just("RUNNING"), st.floats(0, 99), TIMES),
             max_size=3).map(tuple),
    st.builds(ClockFault, st.floats(-1e6, 1e6)),
))
def test_a_plan_written_out_is_read_back(plan: FaultPlan) -> None:
    assert parse_plan(yaml.safe_dump(plain(plan), allow_unicode=True), HERE) == plan


def refused_or_read(text: str) -> None:
    try:
        plan = parse_plan(text, HERE)
    except SpecError as e:
        told = [str(e)]
        where = e.on
    else:
        told, where = plan.lines(), str(HERE)
    assert all("\n" not in line for line in told)
    assert where.startswith(str(HERE))


@given(st.text() | st.text("cals jobdkew_:-[]{}\"'\n#!&*<|>?%@,=0123456789.~\\"))
def test_no_text_does_harm(text: str) -> None:
    refused_or_read(text)


VALUES = st.sampled_from([
    "1", "-1", "0.5", "1e400", ".nan", "always", "'*'", "''", "~", "[]", "{}", "2001-99-99", "0o17", "yes", "error",
    "state", "exit", "RUNNING", "EXPIRED", "reset", "stall", "[{}]", "'\\0'", "9" * 5000, "storage.*", "GET /", "? a",
])
KEYS = st.sampled_from([*(f.name for kind in (CallFault, JobFault) for f in dataclasses.fields(kind)), "skew_s", "<<"])


@given(st.sampled_from(["calls", "jobs"]), st.lists(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=6),
                                                    min_size=1, max_size=3))
def test_no_mixture_of_words_does_harm(part: str, rules: list[list[tuple[str, str]]]) -> None:
    items = ["  - " + "\n    ".join(f"{key}: {value}" for key, value in rule) for rule in rules]
    refused_or_read("\n".join([f"{part}:", *items]))
