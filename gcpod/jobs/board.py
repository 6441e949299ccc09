"""What the service and the logs say of all jobs that are watched: one listing and one log query a poll."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

from gcpod.errors import AuthError, NotFoundError, OutageError, ServiceError
from gcpod.jobs.cursor import Cursor
from gcpod.jobs.filters import JobFilter
from gcpod.jobs.logs import LogLine, LogReader
from gcpod.jobs.request import RUN_LABEL, label
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import Reach
from gcpod.status import JobInfo, JobState


class Board:
    """The jobs of some runs, however many, as the last poll found them.

    Args:
        jobs: the job service.
        logs: reads the lines of the jobs that are followed.
        say: told once when logs may not be read.
        run: the one run that all jobs are of, so that no others are listed; None for jobs of several.
    """

    def __init__(self, jobs: Jobs, logs: LogReader, say: Callable[[str], None], run: str | None = None) -> None:
        self.jobs, self.logs, self.say, self.run = jobs, logs, say, run
        self.logs_refused = False
        self._log_reach = Reach(lambda text: say(f"logs: {text}"), logs.clock)
        self._followed: dict[str, JobInfo] = {}
        self._listed: dict[str, JobInfo] = {}
        self._lines: dict[str, list[LogLine]] = defaultdict(list)

    def follow(self, info: JobInfo, cursor: Cursor | None = None) -> None:
        """Makes a job one of those that the next polls are about; its log is read from after the cursor."""
        self._followed[info.name] = info
        self.logs.add(info.id, cursor)

    def forget(self, info: JobInfo) -> None:
        """Ends that: the job has ended and its log was read to the end."""
        self._followed.pop(info.name, None)
        self._lines.pop(info.id, None)
        if info.id in self.logs.job_ids:
            self.logs.job_ids.remove(info.id)

    def poll(self) -> None:
        """Asks once for everything.

        Raises:
            OutageError: a service is out of reach; what was known before stays.
        """
        if not self._followed:
            self._listed = {}
            return
        oldest = min(info.create_time for info in self._followed.values())
        wanted = JobFilter(run=self.run) if self.run is not None else JobFilter(since=oldest)
        listed = {info.name: info for info in self.jobs.list(wanted)}
        for name in self._followed.keys() - listed.keys():
            listed[name] = self._asked(name)
        self._listed = listed
        self._read()

    def _asked(self, name: str) -> JobInfo:
        """A job that the listing does not tell; one that was deleted has failed."""
        try:
            return self.jobs.get(name)
        except NotFoundError:
            return replace(self._followed[name], state=JobState.FAILED, error="it was deleted")

    def _read(self) -> None:
        """New lines; jobs go on without them while they cannot be read, and for good where they may not be."""
        if self.logs_refused or not self.logs.job_ids:
            return
        try:
            for line in self.logs.poll():
                self._lines[line.job].append(line)
            self._log_reach.found()
        except OutageError as e:
            self._log_reach.lost(e)
        except (AuthError, ServiceError) as e:
            self.logs_refused = True
            self.say(f"going on without logs: {e}")

    def info(self, info: JobInfo) -> JobInfo:
        """The newest word on a job."""
        return self._listed.get(info.name, info)

    def of_run(self, run_id: str) -> Iterable[JobInfo]:
        """Every job of a run that the last listing told, followed or not."""
        return [info for info in self._listed.values() if info.labels.get(RUN_LABEL) == label(run_id)]

    def take(self, info: JobInfo) -> tuple[list[LogLine], Cursor]:
        """What a job wrote since this was asked last, and the place in its log after that."""
        return self._lines.pop(info.id, []), self.logs.cursor.of(info.id)

    def read_out(self, info: JobInfo) -> bool:
        """Whether the log of a job that ended holds nothing more."""
        return self.logs_refused or self.logs.finished(info)
