"""Waiting for jobs: one listing a poll, outages survived, the end reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from gcpod.errors import JobFailedError, OutageError
from gcpod.status import JobInfo, JobState

POLL_S = 2.0
FIRST_S = 0.5
MAX_POLL_S = 30.0
_GROWTH = 1.15


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
    """Follows jobs, or builds, by their names.

    Args:
        jobs: the job service, or another.
        sleep: seconds; the process's own unless given.
        first_s, most_s: seconds between polls at the start, and at the most after decaying.
    """

    def __init__(
        self, jobs: Service[Info], sleep: Callable[[float], None] = time.sleep,
        first_s: float = FIRST_S, most_s: float = MAX_POLL_S,
    ) -> None:
        self.jobs, self.sleep, self.first_s, self.most_s = jobs, sleep, first_s, most_s

    def follow(self, name: str) -> Iterator[Info]:
        """What the service says of a job at each poll, the terminal answer last; outages are waited out."""
        pause = self.first_s
        while True:
            try:
                info = self.jobs.get(name)
            except OutageError:
                info = None
            if info is not None:
                yield info
                if info.state.terminal:
                    return
            self.sleep(pause)
            pause = min(self.most_s, pause * _GROWTH)

    def wait(self, name: str) -> Info:
        """The last answer about a job, also when it failed."""
        *_, last = self.follow(name)
        return last


def result(info: JobInfo) -> JobInfo:
    """The info of a job that succeeded.

    Raises:
        JobFailedError: it ended otherwise.
    """
    if info.state is JobState.SUCCEEDED:
        return info
    found = f"it ended {info.state.short}" + (f": {info.error}" if info.error else "")
    raise JobFailedError("running the job", info.name, found, f"read its log with `gcpod jobs logs {info.id}`")
