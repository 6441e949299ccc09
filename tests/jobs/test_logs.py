"""Reading a log: each line once, over pages that fail, restarts, late entries, and to the end of the job."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import AuthError, OutageError, SpecError
from gcpod.jobs import logs
from gcpod.jobs.cursor import NS, Cursor, Mark, moment_of, time_of
from gcpod.jobs.logs import LATE_S, NEAR_S, SETTLE_S, WIDE_S, LogLine, LogReader, follow, to_line
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import Pace, Reach
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.jobdb import JobDatabase
from gcpod.status import JobInfo, JobState
from tests.jobs import Faults, session_of, shell_job
from tests.waiting import until

FAULTS = Faults()
BEGIN = datetime(2026, 5, 1, 10, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with FAULTS.cloud(folder, quick_python) as running:
        yield running


@pytest.fixture
def jobs(cloud: JobCloud) -> Iterator[Jobs]:
    yield Jobs(session_of(cloud.url))
    FAULTS.choose = lambda *_: None


def ended(jobs: Jobs, script: str) -> JobInfo:
    name = jobs.create(shell_job(script)).name
    return until(lambda: info if (info := jobs.get(name)).state.terminal else None) or jobs.get(name)


def own(lines: list[LogLine]) -> list[str]:
    """What the job's code wrote."""
    return [line.text for line in lines if line.task != "service"]


@dataclass
class Written:
    """A log of our own in the cloud's database, and a clock that tells a reader as late as we like.

    Its job is one that ended; ``at`` is in seconds after BEGIN, which is long after the job wrote its own lines.
    """

    jobs: Jobs
    database: JobDatabase
    info: JobInfo
    now_s: float = 0.0
    number: int = 0
    texts: list[str] = field(default_factory=list)

    def log(self, at_s: float, text: str = "", task: str = "workerpool0-0", severity: str = "INFO") -> str:
        self.number += 1
        text = text or f"line {self.number}"
        before, moment = self.database.clock, BEGIN + timedelta(days=3650, seconds=at_s)
        self.database.clock = lambda: moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.database.log(self.info.id, severity, task, [text])
        self.database.clock = before
        self.texts.append(text)
        return text

    def reader(self, **more: Any) -> LogReader:
        since = BEGIN + timedelta(days=3650 - 1)
        return LogReader(self.jobs.session, self.info.id, clock=lambda: self.now_s, **{"since": since, **more})


@pytest.fixture(scope="module")
def an_end(cloud: JobCloud) -> JobInfo:
    return ended(Jobs(session_of(cloud.url)), "true")


@pytest.fixture
def written(cloud: JobCloud, jobs: Jobs, an_end: JobInfo) -> Written:
    assert cloud.database is not None
    forget(cloud.database, an_end.id)
    return Written(jobs, cloud.database, an_end)


def forget(database: JobDatabase, job_id: str) -> None:
    """Empties a job's log."""
    with database._lock, database._db:
        database._db.execute("DELETE FROM entries WHERE job = ?", (job_id,))


def fail_request(number: int, status: int = 503) -> None:
    """Only the request of that number for log entries is refused."""
    asked: list[str] = []

    def choose(_: str, path: str) -> int | None:
        asked.extend([path] if path.endswith("entries:list") else [])
        return status if path.endswith("entries:list") and len(asked) == number else None

    FAULTS.choose = choose


@pytest.mark.parametrize("status", [503, 403])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_page_that_fails_loses_nothing_and_repeats_nothing(
    jobs: Jobs, written: Written, monkeypatch: pytest.MonkeyPatch, number: int, status: int,
) -> None:
    monkeypatch.setattr(logs, "PAGE_SIZE", 3)
    expected = [written.log(second) for second in range(7)]
    reader, polls = written.reader(), list[list[str]]()
    fail_request(number, status)
    for _ in range(3):
        try:
            polls.append(own(reader.poll()))
        except (OutageError, AuthError):
            polls.append([])
    assert list(chain.from_iterable(polls)) == expected
    # What came before the page that failed is not waited for.
    assert len(polls[0]) == 3 * (number - 1)
    assert polls[2] == []


def test_a_reader_goes_on_where_another_was_killed(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PAGE_SIZE", 4)
    expected, found, cursor = [written.log(number // 3) for number in range(30)], list[str](), ""
    for _ in range(8):
        reader = written.reader(cursor=Cursor.from_json(cursor) if cursor else None)
        for page in reader.pages():
            found += own(page)
            cursor = reader.cursor.to_json()
            break
    assert found == expected
    assert written.reader(cursor=Cursor.from_json(cursor)).poll() == []


def test_a_late_entry_is_found_by_the_next_wide_look_and_one_just_late_at_once(written: Written) -> None:
    reader = written.reader()
    written.log(100)
    assert len(reader.poll()) == 1
    soon, late = written.log(100 - NEAR_S + 1), written.log(100 - LATE_S + 1)
    written.log(100 - LATE_S - 5, "too late")
    written.now_s += 2
    assert own(reader.poll()) == [soon]
    assert own(reader.poll(wide=True)) == [late]
    written.now_s += WIDE_S
    later = written.log(100 - LATE_S + 2)
    assert own(reader.poll()) == [later]
    assert reader.poll() == []


STEPS = st.tuples(st.integers(0, 40), st.integers(0, LATE_S - 1), st.integers(0, 40), st.booleans())


@given(st.lists(STEPS, max_size=12))
def test_whatever_comes_less_than_a_minute_late_comes_once(
    an_end: JobInfo, cloud: JobCloud, steps: list[tuple[int, int, int, bool]],
) -> None:
    assert cloud.database is not None
    written = Written(Jobs(session_of(cloud.url)), cloud.database, an_end)
    forget(cloud.database, an_end.id)
    reader, newest, found = written.reader(), 0, list[str]()
    for forward, late, wait_s, restart in steps:
        newest += forward
        written.log(newest)
        written.log(newest - late)
        written.now_s += wait_s
        found += own(reader.poll())
        if restart:
            reader = written.reader(cursor=Cursor.from_json(reader.cursor.to_json()))
    found += own(reader.poll(wide=True))
    assert sorted(found) == sorted(written.texts)
    [mark] = reader.cursor.marks.values()
    assert all(ns >= mark.newest - LATE_S * NS for ns, _, _ in mark.seen)


def test_a_job_that_writes_much_is_not_read_over_and_over(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PAGE_SIZE", 10)
    reader, before = written.reader(), FAULTS.times("POST", "entries:list")
    for second in range(0, 120, 4):
        for part in range(10):
            written.log(second + part * 0.4)
        written.now_s += 4
        assert len(reader.poll()) == 10
    asked = FAULTS.times("POST", "entries:list") - before
    # The last minute at each of the thirty polls would be 16 pages; of new lines there are 30.
    assert asked < 180


def test_a_filter_holds_only_so_many_jobs_and_all_are_read(jobs: Jobs) -> None:
    job = ended(jobs, "echo found")
    others = [str(5_884_910_762_922_969_554 + number) for number in range(450)]
    moment = moment_of("2026-11-21T22:24:46.886351Z") or 0
    cursor = Cursor({other: Mark(moment, moment) for other in others})
    reader = LogReader(jobs.session, *others, job.id, cursor=cursor)
    assert own(reader.poll(wide=True)) == ["found"]


def test_jobs_are_read_at_once_and_one_that_is_added_from_its_beginning(jobs: Jobs) -> None:
    one, two, three = (ended(jobs, f"echo {word}") for word in ("first", "second", "third"))
    before = FAULTS.times("POST", "entries:list")
    reader = LogReader(jobs.session, two.id, three.id)
    found = {(line.job, line.text) for line in reader.poll() if line.task != "service"}
    assert found == {(two.id, "second"), (three.id, "third")}
    assert FAULTS.times("POST", "entries:list") == before + 1
    reader.add(one.id)
    assert own(reader.poll()) == ["first"]
    other = LogReader(jobs.session, two.id)
    other.add(one.id, reader.cursor)
    assert own(other.poll()) == ["second"]
    assert LogReader(jobs.session).poll() == []


def test_severity_task_and_since_are_asked_for(written: Written) -> None:
    written.log(1, "old", severity="ERROR")
    written.log(5, "fine")
    error = written.log(6, "bad", severity="ERROR")
    second = written.log(7, "elsewhere", task='worker"pool1-0', severity="WARNING")
    since = (BEGIN + timedelta(days=3650, seconds=5)).astimezone(timezone(timedelta(hours=-7)))
    assert own(written.reader(since=since, severity="WARNING").poll()) == [error, second]
    assert own(written.reader(since=since, task='worker"pool1-0').poll()) == [second]
    assert own(written.reader(since=since, severity="WARNING", task="workerpool0-0").poll()) == [error]
    with pytest.raises(SpecError, match="take one of DEFAULT"):
        written.reader(severity="LOUD")


def test_entries_of_one_insert_id_differ_by_time_and_log(written: Written) -> None:
    reader = written.reader()
    entry: dict[str, Any] = {
        "logName": "a", "insertId": "1", "timestamp": "2036-05-01T10:00:00Z", "textPayload": "x",
        "resource": {"type": "ml_job", "labels": {"job_id": written.info.id}},
    }
    others: list[dict[str, Any]] = [
        {**entry, "logName": "b"}, {**entry, "timestamp": "2036-05-01T10:00:00.000000001Z"}, {**entry, "insertId": "2"},
    ]
    assert all(reader._new(one) is not None for one in (entry, *others))
    # The same time in another spelling is the same entry.
    same = [{**entry, "timestamp": spelt} for spelt in ("2036-05-01T10:00:00.000Z", "2036-05-01T12:00:00+02:00")]
    assert [reader._new(one) for one in (entry, *others, *same)] == [None] * 6


RUNNING = JobInfo("projects/p/locations/l/customJobs/7", "job", JobState.RUNNING)


@pytest.mark.parametrize("closing", ["Job completed successfully.", "Job failed.", "Job cancelled."])
def test_reading_stops_after_the_closing_line_and_one_look_for_late_ones(written: Written, closing: str) -> None:
    reader, info = written.reader(), written.info
    assert not reader.finished(replace(info, state=JobState.RUNNING))
    written.log(1)
    reader.poll()
    assert not reader.finished(info)
    written.log(2, "Job failed.", task="workerpool0-0")
    written.log(3, closing, task="service")
    reader.poll()
    assert not reader.finished(info)
    late = written.log(3 - LATE_S + 1)
    assert own(reader.poll()) == [late]
    assert reader.finished(info)
    assert not reader.finished(replace(info, state=JobState.RUNNING))
    # Who comes back later need not wait for a line that came before.
    again = written.reader(cursor=Cursor.from_json(reader.cursor.to_json()))
    assert not again.finished(info)
    assert again.poll() == []
    assert again.finished(info)


def test_reading_stops_when_nothing_new_comes(written: Written) -> None:
    reader, info = written.reader(), written.info
    assert not reader.finished(info)
    written.now_s += SETTLE_S - 1
    written.log(1)
    assert len(reader.poll()) == 1
    written.now_s += SETTLE_S - 1
    assert not reader.finished(info)
    written.now_s += 1
    assert reader.finished(info)


def test_following_waits_out_outages_and_ends_with_the_log(written: Written) -> None:
    told: Iterator[Callable[[], JobInfo]] = iter([
        lambda: RUNNING, outage, lambda: written.info, lambda: written.info, lambda: written.info,
    ])
    meanwhile: Iterator[Callable[[], object]] = iter([
        lambda: written.log(2), lambda: fail_request(1), lambda: written.log(3, "Job failed.", task="service"),
        lambda: None,
    ])
    written.log(1)
    said = list[str]()
    reach = Reach(said.append, lambda: written.now_s)
    pages = list(follow(written.reader(), lambda: next(told)(), reach, sleep=lambda _: [next(meanwhile)()].clear()))
    assert [line.text for page in pages for line in page] == ["line 1", "line 2", "Job failed."]
    # One outage of the jobs and one of the log, one after the other.
    assert [text.partition(":")[0] for text in said] == ["waiting", "in reach again after 0 s"]
    assert list(chain(told, meanwhile)) == []


def outage() -> JobInfo:
    raise OutageError("reading the job", "7", "no answer", "wait")


def test_to_the_end_of_a_real_job(jobs: Jobs) -> None:
    name = jobs.create(shell_job("for i in 1 2 3; do echo $i; sleep 0.05; done; exit 3")).name
    reader = LogReader(jobs.session, name.rsplit("/", 1)[-1])
    reach = Reach(print, time.monotonic)
    pages = list(follow(reader, lambda: jobs.get(name), reach, pace=Pace(0.02, 0.02)))
    lines = [line for page in pages for line in page]
    assert own(lines) == ["1", "2", "3"]
    assert lines[-1].closing


def test_following_for_half_a_day_costs_few_calls_and_tells_of_an_outage_now_and_then(written: Written) -> None:
    half_a_day_s, outage_s, looks, said = 43_200, (10_000, 30_000), list[float](), list[str]()

    def look() -> JobInfo:
        looks.append(written.now_s)
        if outage_s[0] <= written.now_s < outage_s[1]:
            return outage()
        return written.info if written.now_s >= half_a_day_s else replace(written.info, state=JobState.RUNNING)

    def sleep(seconds: float) -> None:
        written.now_s += seconds

    def clock() -> float:
        return written.now_s

    before = FAULTS.times("POST", "entries:list")
    reach = Reach(said.append, clock)
    assert list(follow(written.reader(), look, reach, clock=clock, sleep=sleep, chance=lambda: 0.5)) == []
    assert half_a_day_s < written.now_s < half_a_day_s + 300
    assert 300 < len(looks) < 600
    assert FAULTS.times("POST", "entries:list") - before < len(looks) - 100
    assert said[0] == "waiting: J405: reading the job 7: no answer; wait"
    assert re.fullmatch(r"in reach again after 5 h 3\d min", said[-1])
    assert 5 < len(said) < 20


def test_patience_with_an_outage_ends(written: Written) -> None:
    def sleep(seconds: float) -> None:
        written.now_s += seconds

    def clock() -> float:
        return written.now_s

    with pytest.raises(OutageError):
        list(follow(written.reader(), outage, Reach(lambda _: None, clock, 60.0), clock=clock, sleep=sleep))
    assert 60 <= written.now_s < 70


@pytest.mark.parametrize(("text", "ns"), [
    ("1970-01-01T00:00:00Z", 0), ("1970-01-01T00:00:01.000000001Z", NS + 1), ("1970-01-01T00:00:01.5Z", NS + NS // 2),
    ("1970-01-01T02:00:01+02:00", NS), ("1969-12-31T19:00:00-05:00", 0), ("1970-01-01t00:00:00z", 0),
    ("1969-12-31T23:59:59Z", None), ("2026-13-01T00:00:00Z", None), ("2026-05-01", None), ("", None), ("9" * 99, None),
    ("2026-05-01T10:00:00", None), ("0001-01-01T00:00:00+23:00", None), ("٢٠٢٦-05-01T10:00:00Z", None),
])
def test_moments(text: str, ns: int | None) -> None:
    assert moment_of(text) == ns


@given(st.integers(0, 4_000_000_000 * NS - 1))
def test_a_moment_is_the_same_after_being_written(ns: int) -> None:
    assert moment_of(time_of(ns)) == ns


TIMES = st.integers(0, 4_000_000_000 * NS - 1)
SEEN = st.tuples(TIMES, st.text(max_size=5), st.text(max_size=5))
MARKS = st.builds(Mark, TIMES, TIMES, st.lists(SEEN, max_size=3).map(tuple), st.booleans())


@given(st.dictionaries(st.text(max_size=5), MARKS, max_size=3))
def test_a_cursor_is_the_same_after_being_written(marks: dict[str, Mark]) -> None:
    cursor = Cursor(marks)
    assert Cursor.from_json(cursor.to_json()) == cursor
    assert "\n" not in cursor.to_json()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
        st.sampled_from(["newest", "looked", "seen", "closed"]), inner, min_size=3,
    )), max_leaves=8,
)


JOB = JSON.map(lambda one: json.dumps({"version": 1, "jobs": {"1": one}}))


@given(st.one_of(st.text(max_size=40), JSON.map(json.dumps), JOB))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        cursor = Cursor.from_json(text)
    except SpecError:
        return
    assert Cursor.from_json(cursor.to_json()) == cursor


def of_job(newest: str, seen: str = "[]") -> str:
    return f'{{"version":1,"jobs":{{"1":{{"newest":{newest},"looked":0,"seen":{seen},"closed":false}}}}}}'


@pytest.mark.parametrize("text", [
    "", "{}", "[]", "null", "[" * 100_000, '{"version":2,"jobs":{}}', '{"version":1,"jobs":{},"more":1}',
    '{"version":1,"jobs":[]}', of_job("1.0"), of_job("true"), of_job("-1"), of_job("1", '[[1,"a"]]'),
    of_job("1", '[[1,"a",2]]'), of_job("1" * 30), of_job("NaN"),
])
def test_what_is_no_cursor_is_told(text: str) -> None:
    with pytest.raises(SpecError, match=r"^E101: reading how far a log was read in state\.json: it is no cursor"):
        Cursor.from_json(text, "state.json")


def test_a_payload_without_text_is_an_empty_line() -> None:
    assert to_line({}) == LogLine("", "DEFAULT", "", "")
    assert to_line({"jsonPayload": {"message": 7}}).text == "7"
