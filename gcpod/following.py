"""Waits between two looks at runs, however many there are, and survives every outage on the way."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from gcpod.errors import OutageError
from gcpod.jobs.board import Board
from gcpod.jobs.watch import Pace, Reach

PACE = Pace(first_s=2.0)


class Advancing(Protocol):
    """Something that goes on by itself whenever it is given a chance to."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""

    def advance(self) -> bool:
        """Does what can be done now; returns whether anything changed."""


def follow(
    runs: Callable[[], Sequence[Advancing]], board: Board, reach: Reach, *, clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep, chance: Callable[[], float] = random.random, pace: Pace = PACE,
) -> None:
    """Polls the board and lets each run go on, until all are over.

    Args:
        runs: the runs that are being watched now; called before each look, so that more may join.
        board: what the service says.
        reach: told of outages.
        clock, sleep: seconds.
        chance: numbers between 0 and 1.
        pace: between looks.

    Raises:
        OutageError: patience is over.
        GcpodError: whatever a run raises.
    """
    since = clock()
    while True:
        changed, trouble = False, None
        try:
            board.poll()
            for run in runs():
                # What one run cannot reach, such as a quota, holds up no other.
                try:
                    changed = run.advance() or changed
                except OutageError as e:
                    trouble = e
        except OutageError as e:
            trouble = e
        if trouble is None:
            reach.found()
        else:
            reach.lost(trouble)
        if all(run.over for run in runs()):
            return
        since = clock() if changed else since
        sleep(pace.pause(clock() - since, chance()))
