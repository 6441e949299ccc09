"""Waiting for jobs: one listing a poll, outages waited out, deadlines kept, every state, polls counted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import DeadlineError, JobFailedError, NotFoundError, OutageError, ServiceError
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import JobWatch, Pace, Reach, Watcher, duration, result
from gcpod.localcloud.cloud import JobCloud
from gcpod.status import Finding, JobInfo, JobState
from tests.jobs import Fault, Faults, session_of, shell_job

FAULTS = Faults()
HOUR_S = 3600.0
ENDS = [state for state in JobState if state.terminal]


@dataclass
class Place:
    """A local cloud with faults on the way to it."""

    cloud: JobCloud
    jobs: Jobs

    def hold(self, count: int = 1) -> list[JobInfo]:
        """Jobs that run until they are cancelled."""
        return [self.jobs.create(shell_job("sleep 600", f"job-{number}")) for number in range(count)]

    def put(self, job: JobInfo, state: str) -> None:
        """Has the service say of a job that it is in a state."""
        assert self.cloud.scheduler is not None
        self.cloud.scheduler.jump(job.id, state)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("cloud")
    with FAULTS.cloud(folder, quick_python) as running:
        yield Place(running, Jobs(session_of(running.url)))


@pytest.fixture(autouse=True)
def no_faults() -> Iterator[None]:
    FAULTS.choose = lambda *_: None
    FAULTS.seen.clear()
    yield
    FAULTS.choose = lambda *_: None


@dataclass
class Time:
    """A clock that only sleeping moves; what is to happen at a time happens when it is passed."""

    now: float = 0.0
    asked: list[float] = field(default_factory=list)
    later: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.now += seconds
        while self.later and self.later[0][0] <= self.now:
            self.later.pop(0)[1]()


class Short:
    """A real sleep that is cut short and remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        time.sleep(0.01)


def watch(
    place: Place, jobs: list[JobInfo], at: Time, said: list[str] | None = None, patience_s: float = math.inf,
) -> JobWatch:
    heard = [] if said is None else said
    names = [job.name for job in jobs]
    return JobWatch(place.jobs, names, at.clock, at.sleep, lambda: 0.5, heard.append, patience_s=patience_s)


def test_states_are_followed_to_the_end(place: Place) -> None:
    submitted = place.jobs.create(shell_job("exit 0"))
    states = [info.state for info in Watcher(place.jobs, Short()).follow(submitted.name)]
    assert states[-1] is JobState.SUCCEEDED
    assert not any(state.terminal for state in states[:-1])


def test_a_failure_is_told_by_wait_and_raised_by_result(place: Place) -> None:
    info = Watcher(place.jobs, Short()).wait(place.jobs.create(shell_job("exit 3")).name)
    assert info.state is JobState.FAILED
    with pytest.raises(JobFailedError, match=f"non-zero status of 3.*gcpod jobs logs {info.id}"):
        result(info)
    with pytest.raises(JobFailedError, match=r"J406: .*out of memory; take a bigger machine") as caught:
        result(info, [Finding("J406", "error", info.id, "it was killed out of memory", "take a bigger machine")])
    assert caught.value.code == "J406"
    good = Watcher(place.jobs, Short()).wait(place.jobs.create(shell_job()).name)
    assert result(good) is good


@pytest.mark.parametrize("fault", ["busy", "dropped", "dropped after"])
def test_an_outage_is_waited_out(place: Place, fault: Fault) -> None:
    submitted = place.jobs.create(shell_job())
    left = [fault] * 10
    FAULTS.choose = lambda verb, path: left.pop() if left and path.endswith(submitted.id) else None
    pauses = Short()
    assert Watcher(place.jobs, pauses).wait(submitted.name).state is JobState.SUCCEEDED
    assert not left
    assert len(pauses.asked) >= 10


def test_a_job_that_does_not_exist_is_an_error_at_once(place: Place) -> None:
    with pytest.raises(ServiceError, match="404"):
        Watcher(place.jobs, Short()).wait("123")
    with pytest.raises(NotFoundError, match="404"):
        JobWatch(place.jobs, ["123"]).wait()


@given(st.floats(0, 1e7), st.floats(0, 1), st.floats(0, 1e7))
def test_pauses_grow_with_the_quiet_within_their_bounds(quiet_s: float, chance: float, more_s: float) -> None:
    pace = Pace()
    pause = pace.pause(quiet_s, chance)
    assert 0.9 * pace.first_s <= pause <= 1.1 * pace.most_s
    assert pace.pause(quiet_s, 0.5) <= pace.pause(quiet_s + more_s, 0.5)
    assert pace.pause(quiet_s, 0.0) < pace.pause(quiet_s, 1.0)


@pytest.mark.parametrize("end", [state.short for state in ENDS])
def test_every_end_ends_the_wait_and_only_success_is_one(place: Place, end: str) -> None:
    [job], at = place.hold(), Time()
    at.later = [(100.0, lambda: place.put(job, end))]
    seen = [info.state.short for info in watch(place, [job], at).follow()]
    assert seen[-1] == end
    info = place.jobs.get(job.name)
    if end == "SUCCEEDED":
        assert result(info) is info
    else:
        with pytest.raises(JobFailedError, match=end):
            result(info)


@pytest.mark.parametrize("state", [*(state.short for state in JobState if not state.terminal), "BEING_THOUGHT_ABOUT"])
def test_no_other_state_ends_it_not_even_one_of_the_future(place: Place, state: str) -> None:
    [job], at = place.hold(), Time()
    at.later = [(10.0, lambda: place.put(job, state)), (9 * HOUR_S, lambda: place.put(job, "SUCCEEDED"))]
    seen = [info.state for info in watch(place, [job], at).follow()]
    assert seen[-1] is JobState.SUCCEEDED
    assert at.now >= 9 * HOUR_S
    expected = JobState.from_wire(f"JOB_STATE_{state}")
    assert expected in seen


GOING_ON = ["QUEUED", "PENDING", "RUNNING", "PAUSED", "UPDATING", "CANCELLING", "BEING_THOUGHT_ABOUT"]


def every_transition() -> list[str]:
    """A walk over the states that are no ends, which takes every ordered pair of different ones."""
    left = {one: [other for other in GOING_ON if other != one] for one in GOING_ON}
    walk, done = ["RUNNING"], list[str]()
    while walk:
        if left[walk[-1]]:
            walk.append(left[walk[-1]].pop())
        else:
            done.append(walk.pop())
    return done[::-1]


@pytest.mark.long
def test_every_transition_between_states_is_seen_and_none_ends_the_wait(place: Place) -> None:
    walk = every_transition()
    assert len(set(pairwise(walk))) == len(GOING_ON) * (len(GOING_ON) - 1)
    [job], at = place.hold(), Time()
    at.later = [(100.0 * (number + 1), partial(place.put, job, state)) for number, state in enumerate(walk)]
    at.later.append((100.0 * (len(walk) + 2), partial(place.put, job, "SUCCEEDED")))
    seen = [info.state for info in watch(place, [job], at).follow()]
    expected = [JobState.from_wire(f"JOB_STATE_{state}") for state in walk]
    assert seen[-1] is JobState.SUCCEEDED
    assert [state for state in seen if state is not JobState.SUCCEEDED][-len(walk) + 1:] == expected[1:]


@pytest.mark.parametrize("end", [state.short for state in ENDS])
def test_every_state_may_be_the_last_before_an_end(place: Place, end: str) -> None:
    jobs, at = place.hold(len(GOING_ON)), Time()
    at.later = [(10.0, partial(place.put, job, state)) for job, state in zip(jobs, GOING_ON, strict=True)]
    at.later += [(500.0, partial(place.put, job, end)) for job in jobs]
    infos = watch(place, jobs, at).wait()
    assert {info.state.short for info in infos.values()} == {end}


def test_ten_hours_out_of_reach_are_survived_and_told(place: Place) -> None:
    jobs, at, said = place.hold(3), Time(), list[str]()

    def fail() -> None:
        kinds: list[Fault] = ["busy", "dropped", "dropped after"]
        FAULTS.choose = lambda verb, path: kinds[len(FAULTS.seen) % 3]

    def recover() -> None:
        FAULTS.choose = lambda *_: None
        for job in jobs:
            place.put(job, "SUCCEEDED")

    at.later = [(60.0, fail), (60.0 + 10 * HOUR_S, recover)]
    infos = watch(place, jobs, at, said).wait()
    assert {info.state for info in infos.values()} == {JobState.SUCCEEDED}
    assert said[0].startswith("waiting: J405")
    assert said[-1] in ("in reach again after 10 h 0 min", "in reach again after 10 h 1 min")
    assert 5 <= len(said) <= 15
    assert len(FAULTS.seen) < 800


def test_patience_may_have_an_end(place: Place) -> None:
    [job], at = place.hold(), Time()
    watched = watch(place, [job], at, patience_s=300.0)
    at.later = [(10.0, lambda: setattr(FAULTS, "choose", lambda *_: "busy"))]
    with pytest.raises(OutageError, match="503"):
        watched.wait()
    assert 300 <= at.now <= 500


@pytest.mark.long
def test_a_day_with_twenty_siblings_costs_few_calls(place: Place) -> None:
    jobs, at = place.hold(4), Time()
    # The machine runs four at a time; the others wait, which is watched as well.
    jobs += [place.jobs.create(shell_job("sleep 600", f"waits-{number}")) for number in range(17)]
    FAULTS.seen.clear()
    at.later = [(24 * HOUR_S, partial(place.put, job, "SUCCEEDED")) for job in jobs]
    infos = watch(place, jobs, at).wait()
    assert len(infos) == 21
    assert at.now >= 24 * HOUR_S
    assert len(FAULTS.seen) < 1500
    listings = sum(verb == "GET" and path.endswith("/customJobs") for verb, path in FAULTS.seen)
    assert len(FAULTS.seen) - listings == 21


def test_one_listing_a_poll_tells_of_all(place: Place) -> None:
    jobs, at = place.hold(3), Time()
    at.later = [(50.0, lambda: place.put(jobs[0], "SUCCEEDED")), (200.0, lambda: place.put(jobs[1], "FAILED")),
                (900.0, lambda: place.put(jobs[2], "CANCELLED"))]
    ends = [(info.name, info.state.short) for info in watch(place, jobs, at).follow() if info.state.terminal]
    assert ends == [(jobs[0].name, "SUCCEEDED"), (jobs[1].name, "FAILED"), (jobs[2].name, "CANCELLED")]


def test_a_deadline_is_kept_and_names_what_goes_on(place: Place) -> None:
    jobs, at = place.hold(2), Time()
    with pytest.raises(DeadlineError, match=rf"{jobs[0].id} and 1 more: it is \w+ after 90 s; .*jobs wait") as late:
        watch(place, jobs, at).wait(90.0)
    assert at.now == 90.0
    assert late.value.exit_code == 15
    for job in jobs:
        place.put(job, "SUCCEEDED")
    assert set(watch(place, jobs, Time()).wait(0.0)) == {place.jobs.full_name(job.name) for job in jobs}


def test_a_job_meant_by_its_id_and_its_name_ends_once(place: Place) -> None:
    [job], at = place.hold(), Time()
    at.later = [(50.0, partial(place.put, job, "SUCCEEDED"))]
    watched = JobWatch(place.jobs, [job.id, job.name], at.clock, at.sleep)
    ends = [info.name for info in watched.follow() if info.state.terminal]
    assert ends == [job.name]
    assert {info.state for info in watched.infos.values()} == {JobState.SUCCEEDED}


def test_ids_and_names_of_one_job_are_one(place: Place) -> None:
    [job] = place.hold()
    place.put(job, "SUCCEEDED")
    assert len(JobWatch(place.jobs, [job.id, job.id, place.jobs.full_name(job.id)]).wait()) == 1


def test_a_deadline_that_passes_during_an_outage_is_kept(place: Place) -> None:
    [job], at = place.hold(), Time()
    at.later = [(10.0, lambda: setattr(FAULTS, "choose", lambda *_: "busy"))]
    with pytest.raises(DeadlineError, match="after 300 s"):
        watch(place, [job], at).wait(300.0)
    assert at.now == 300.0


def test_an_outage_that_comes_again_is_told_again() -> None:
    at, said = Time(), list[str]()
    reach = Reach(said.append, at.clock)
    error = OutageError("asking", "it", "nothing", "wait")
    for _ in range(2):
        reach.lost(error)
        at.now += 30.0
        reach.found()
    assert said == [f"waiting: {error}", "in reach again after 30 s"] * 2


def test_durations_in_words() -> None:
    assert [duration(s) for s in (0, 59.6, 61, 3599, 3600, 36_059)] == [
        "0 s", "1 min 0 s", "1 min 1 s", "59 min 59 s", "1 h 0 min", "10 h 0 min"]
