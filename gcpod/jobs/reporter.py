"""Who is told what happens in a run: the command line shows it, tests collect it, scripts may not care."""

from __future__ import annotations

from typing import Protocol

from gcpod.jobs.logs import LogLine
from gcpod.jobs.request import Kind
from gcpod.status import JobInfo, Progress
from gcpod.storage.transfer import Progress as Moved


class Reporter(Protocol):
    """Told what happens in a run."""

    def say(self, text: str) -> None:
        """A step was done."""

    def moving(self, now: Moved) -> None:
        """Files are on their way into the bucket."""

    def state(self, kind: Kind, info: JobInfo) -> None:
        """A job was submitted or changed its state."""

    def lines(self, kind: Kind, lines: list[LogLine]) -> None:
        """A job logged something."""

    def progress(self, kind: Kind, progress: Progress) -> None:
        """A job came further."""


class Quiet:
    """A Reporter that tells nobody."""

    def say(self, text: str) -> None:
        """Passed over."""

    def moving(self, now: Moved) -> None:
        """Passed over."""

    def state(self, kind: Kind, info: JobInfo) -> None:
        """Passed over."""

    def lines(self, kind: Kind, lines: list[LogLine]) -> None:
        """Passed over."""

    def progress(self, kind: Kind, progress: Progress) -> None:
        """Passed over."""
