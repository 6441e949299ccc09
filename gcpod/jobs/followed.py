"""One job of a run while it is watched: its state, its log, how far it is, and what is wrong with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gcpod.errors import GcpodError
from gcpod.jobs.board import Board
from gcpod.jobs.cursor import Cursor
from gcpod.jobs.diagnose import diagnose
from gcpod.jobs.logfile import LogFile
from gcpod.jobs.logs import LogLine, LogReader
from gcpod.jobs.progress import Stall, read_progress
from gcpod.jobs.reporter import Reporter
from gcpod.jobs.request import Kind
from gcpod.jobs.watch import duration
from gcpod.session import Session
from gcpod.status import Finding, JobInfo, JobState, Progress

TAIL, TAIL_BYTES = 2000, 500_000
"""The end of a log that a diagnosis looks at, in lines, and in bytes where it was read before."""


class Followed:
    """A job while it is watched.

    Args:
        kind: which of the run's.
        info: what was said of it when it was submitted or found.
        reporter: told what happens.
        log: where its lines are kept, each once whoever watches it on this machine.
        total_steps: of a training.
        stall_s: seconds without a step that are worth a word; None where no steps are made.
        steps_expected: whether the log tells steps, so that none at all is worth a word too.
    """

    def __init__(
        self, kind: Kind, info: JobInfo, reporter: Reporter, log: Path, total_steps: int | None = None,
        stall_s: float | None = None, steps_expected: bool = True,
    ) -> None:
        self.kind, self.info, self.reporter, self.log = kind, info, reporter, log
        self.progress = Progress(total_steps=total_steps)
        self.findings: list[Finding] = []
        self.asked_anew = False
        self._steps_expected = steps_expected
        self._stall = Stall(stall_s) if stall_s is not None else None
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._file: LogFile | None = None

    def begin(self) -> Cursor | None:
        """Opens the log's file, which tells what was read before; returns the place to go on from."""
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._file = LogFile(self.log, self.info.id)
            with self.log.open("rb") as f:
                f.seek(max(0, self._file.size - TAIL_BYTES))
                self._tail.extend(f.read(TAIL_BYTES).decode("utf-8", "replace").splitlines())
        except (GcpodError, OSError) as e:
            self.reporter.say(f"going on without a file of the {self.kind} job's log: {e}")
            return None
        self.progress = read_progress(self.progress, self._tail)
        return self._file.cursor

    def catch_up(self, session: Session) -> None:
        """Brings the rest of the log of a job that ended while nobody watched; what cannot be had is left."""
        cursor = self.begin()
        mark = cursor.marks.get(self.info.id) if cursor is not None else None
        if cursor is not None and not (mark and mark.closed) and self._file is not None:
            try:
                reader = LogReader(session, self.info.id, cursor=cursor)
                for page in reader.pages(wide=True):
                    self._file.append(page, reader.cursor.of(self.info.id))
            except GcpodError as e:
                self.reporter.say(f"going on without the end of the {self.kind} job's log: {e}")
        self.close()

    def close(self) -> None:
        """Lets others write the log's file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, board: Board, now: float) -> bool:
        """Takes over what the last poll told; returns whether the job's state changed.

        A job's end counts once its log was read to the end, so that who is told of it has seen why.
        """
        if self.info.state.terminal:
            return False
        told = board.info(self.info)
        self._take(*board.take(self.info))
        self._look_for_stall(now, told, board)
        if told.state is self.info.state or (told.state.terminal and not board.read_out(told)):
            return False
        self.info = told
        if told.state.terminal:
            board.forget(told)
            self.close()
            if told.state is not JobState.SUCCEEDED:
                self.findings += diagnose(told.error, self._tail, told.id)
        self.reporter.state(self.kind, told)
        for finding in self.findings if told.state.terminal else ():
            self.reporter.say(f"{self.kind}: {finding}")
        return True

    def got(self, progress: Progress) -> None:
        """Takes over progress that was told elsewhere than in the log."""
        if progress != self.progress:
            self.progress = progress
            self.reporter.progress(self.kind, progress)

    def saved(self, checkpoints: Sequence[str]) -> None:
        """Takes over the names of the whole checkpoints, the newest last."""
        if checkpoints and checkpoints[-1] != self.progress.checkpoint:
            self.got(replace(self.progress, checkpoint=checkpoints[-1]))

    def _take(self, lines: list[LogLine], cursor: Cursor) -> None:
        if not lines:
            return
        if self._file is not None:
            try:
                self._file.append(lines, cursor)
            except GcpodError as e:
                self.close()
                self.reporter.say(f"going on without a file of the {self.kind} job's log: {e}")
        self._tail.extend(line.text for line in lines)
        self.reporter.lines(self.kind, lines)
        self.got(read_progress(self.progress, (line.text for line in lines)))

    def _look_for_stall(self, now: float, told: JobInfo, board: Board) -> None:
        if self._stall is None:
            return
        if self.progress.step is None and (board.logs_refused or not self._steps_expected):
            return
        quiet_s = self._stall.look(now, told.state is JobState.RUNNING, self.progress.step)
        if quiet_s is not None:
            after = "" if self.progress.step is None else f" after step {self.progress.step}"
            self.reporter.say(f"warning: {self.kind} has made no step for {duration(quiet_s)}{after}; see its log with "
                              f"`gcpod jobs logs {told.id}`")
