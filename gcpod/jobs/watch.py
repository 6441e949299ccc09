"""Waiting for jobs: one listing a poll for any number of them, outages survived and told, the end reported."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gcpod.errors import DeadlineError, JobFailedError, OutageError
from gcpod.jobs.filters import JobFilter
from gcpod.jobs.service import Jobs
from gcpod.status import Finding, JobInfo, JobState

Clock = Callable[[], float]
Sleep = Callable[[float], None]
_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3600, 60


@dataclass(frozen=True)
class Pace:
    """How long to pause before the next poll: the longer nothing happened, the longer.

    A share of the quiet time between two bounds makes the number of polls grow with its logarithm, so what is over in
    a minute is seen within seconds, and a day costs about a thousand polls.

    Attributes:
        first_s, most_s: bounds of the pause in seconds, before jitter.
        share: of the quiet time, as the pause.
        jitter: by what share a pause varies at most, so that many watchers do not ask at the same moment.
    """

    first_s: float = 0.5
    most_s: float = 120.0
    share: float = 0.02
    jitter: float = 0.1

    def pause(self, quiet_s: float, chance: float) -> float:
        """Seconds after ``quiet_s`` seconds in which nothing changed; ``chance`` between 0 and 1 decides the jitter."""
        pause = min(self.most_s, max(self.first_s, self.share * quiet_s))
        return pause * (1 + self.jitter * (2 * chance - 1))


class Reach:
    """Whether a service answers: an outage is told when it begins, at growing intervals while it lasts, and at its end.

    Args:
        say: told.
        clock: seconds.
        patience_s: seconds after which an outage is an error.
    """

    def __init__(self, say: Callable[[str], None], clock: Clock, patience_s: float = math.inf) -> None:
        self.say, self.clock, self.patience_s = say, clock, patience_s
        self._since: float | None = None
        self._next_s = 0.0

    def lost(self, error: OutageError) -> None:
        """Notes a poll without an answer.

        Raises:
            OutageError: that one, once patience is over.
        """
        now = self.clock()
        if self._since is None:
            self._since, self._next_s = now, 0.0
        lasted_s = now - self._since
        if lasted_s >= self.patience_s:
            raise error
        if lasted_s >= self._next_s:
            self.say(f"waiting: {error}" if not lasted_s else f"still waiting after {duration(lasted_s)}: {error}")
            self._next_s = max(2 * lasted_s, _MINUTE_S)

    def found(self) -> None:
        """Notes an answer."""
        if self._since is not None:
            self.say(f"in reach again after {duration(self.clock() - self._since)}")
        self._since = None


def duration(seconds: float) -> str:
    """A time in words, to the second below an hour and to the minute above."""
    whole = round(seconds)
    if whole >= _HOUR_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s" if whole >= _MINUTE_S else f"{whole} s"


class _State(Protocol):
    @property
    def terminal(self) -> bool: ...


class _Info(Protocol):
    @property
    def state(self) -> _State: ...


Info = TypeVar("Info", bound=_Info, covariant=True)


class Service(Protocol[Info]):
    """Tells how something is that has been started."""

    def get(self, name: str) -> Info: ...


class Watcher(Generic[Info]):
    """Follows one job, or build, by its name.

    Args:
        jobs: the job service, or another.
        sleep, clock: seconds; the process's own unless given.
        pace: between polls.
        chance: numbers between 0 and 1.
    """

    def __init__(
        self, jobs: Service[Info], sleep: Sleep = time.sleep, pace: Pace = Pace(), clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.jobs, self.sleep, self.pace, self.clock, self.chance = jobs, sleep, pace, clock, chance

    def follow(self, name: str) -> Iterator[Info]:
        """What the service says at each poll, the terminal answer last; outages are waited out."""
        state, since = None, self.clock()
        while True:
            try:
                info = self.jobs.get(name)
            except OutageError:
                info = None
            if info is not None:
                yield info
                if info.state.terminal:
                    return
                if info.state is not state:
                    state, since = info.state, self.clock()
            self.sleep(self.pace.pause(self.clock() - since, self.chance()))

    def wait(self, name: str) -> Info:
        """The last answer, also when it failed."""
        *_, last = self.follow(name)
        return last


class JobWatch:
    """Follows any number of jobs of one region with one listing a poll; it may be stopped and begun again anywhere.

    Args:
        jobs: the job service.
        names: resource names or ids.
        sleep, clock, chance: as for Watcher.
        say: told of outages.
        patience_s: seconds that the service may be out of reach.
    """

    def __init__(
        self, jobs: Jobs, names: Sequence[str], clock: Clock = time.monotonic, sleep: Sleep = time.sleep,
        chance: Callable[[], float] = random.random, say: Callable[[str], None] = lambda _: None,
        pace: Pace = Pace(), patience_s: float = math.inf,
    ) -> None:
        self.jobs, self.clock, self.sleep, self.chance, self.pace = jobs, clock, sleep, chance, pace
        self.names = list(dict.fromkeys(jobs.full_name(name) for name in names))
        self.reach = Reach(say, clock, patience_s)
        self.infos: dict[str, JobInfo] = {}

    def follow(self, deadline_s: float | None = None) -> Iterator[JobInfo]:
        """Each job when it is first seen and whenever its state changed, until all have ended.

        Args:
            deadline_s: seconds from now after which waiting is given up; None never.

        Raises:
            DeadlineError: the time is over; the jobs go on.
            OutageError: the service was out of reach for longer than patience lasts.
            NotFoundError: there is no such job.
        """
        start = since = self.clock()
        while True:
            changed: list[JobInfo] = []
            try:
                changed = self._poll()
                self.reach.found()
            except OutageError as e:
                self.reach.lost(e)
            yield from changed
            open_jobs = [name for name in self.names if name not in self.infos or not self.infos[name].state.terminal]
            if not open_jobs:
                return
            since = self.clock() if changed else since
            left = math.inf if deadline_s is None else deadline_s - (self.clock() - start)
            if left <= 0:
                raise self._late(open_jobs, deadline_s or 0.0)
            self.sleep(min(left, self.pace.pause(self.clock() - since, self.chance())))

    def wait(self, deadline_s: float | None = None) -> dict[str, JobInfo]:
        """The last word on each job by its resource name, also of those that failed.

        Raises:
            DeadlineError, OutageError, NotFoundError: as follow.
        """
        for _ in self.follow(deadline_s):
            pass
        return {name: self.infos[name] for name in self.names}

    def _poll(self) -> list[JobInfo]:
        """The jobs that are new or changed."""
        unknown = [name for name in self.names if name not in self.infos]
        found = {name: self.jobs.get(name) for name in unknown}
        # Asked by a project's id, a service answers with its number: one job may be meant by two of the names.
        waiting = {name: info for name, info in self.infos.items() if not info.state.terminal}
        fresh = self._asked(list({info.name: info for info in waiting.values()}.values()))
        found |= {name: fresh[info.name] for name, info in waiting.items()}
        changed = {info.name: info for name, info in found.items()
                   if name not in self.infos or info.state is not self.infos[name].state}
        self.infos |= found
        return list(changed.values())

    def _asked(self, waiting: Sequence[JobInfo]) -> dict[str, JobInfo]:
        """The newest word on some jobs, by the service's own names for them."""
        listed: dict[str, JobInfo] = {}
        if len(waiting) > 1:
            oldest = min(info.create_time for info in waiting)
            listed = {info.name: info for info in self.jobs.list(JobFilter(since=oldest))}
        return {info.name: listed.get(info.name) or self.jobs.get(info.name) for info in waiting}

    def _late(self, open_jobs: Sequence[str], deadline_s: float) -> DeadlineError:
        first = open_jobs[0]
        state = self.infos[first].state.short if first in self.infos else "not seen yet"
        more = f" and {len(open_jobs) - 1} more" if len(open_jobs) > 1 else ""
        return DeadlineError("waiting for", first + more, f"it is {state} after {deadline_s:g} s",
                             f"it goes on; wait again with `gcpod jobs wait {first.rsplit('/', 1)[-1]}`")


def result(info: JobInfo, findings: Sequence[Finding] = ()) -> JobInfo:
    """The info of a job that succeeded.

    Args:
        info: of a job that ended.
        findings: what its log shows (jobs/diagnose.py), the most telling first.

    Raises:
        JobFailedError: it ended otherwise; with the code and the remedy of the first finding.
    """
    if info.state is JobState.SUCCEEDED:
        return info
    found = f"it ended {info.state.short}" + (f": {info.error}" if info.error else "")
    if findings:
        first = findings[0]
        raise JobFailedError("running the job", info.name, f"{found}; {first.found}", first.fix, code=first.code)
    raise JobFailedError("running the job", info.name, found, f"read its log with `gcpod jobs logs {info.id}`")
