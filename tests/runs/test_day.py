"""What watching costs: the calls of a day, counted at the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gcpod.localcloud.cloud import JobCloud
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec, SweepSpec
from gcpod.storage.objects import Objects
from gcpod.sweeping import Sweep
from gcpod.uris import GcsUri
from tests.jobs import Faults
from tests.runs import Told, behave, blink, make_run, remove

DAY_S = 24 * 3600.0
MOST = 3000


class Day:
    """A clock that only sleeping moves; jobs are let go at its end."""

    def __init__(self, let_go: Callable[[], None]) -> None:
        self.now, self.let_go, self.over = 0.0, let_go, False

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        # Real processes start at both ends of the day; between them nothing happens that would need time.
        if self.now < 600 or self.over:
            blink(seconds)
        if self.now >= DAY_S and not self.over:
            self.over = True
            self.let_go()


@pytest.fixture
def counted(tmp_path: Path, quick_python: Path) -> Iterator[tuple[JobCloud, Faults]]:
    faults = Faults()
    with faults.cloud(tmp_path / "c", quick_python) as cloud:
        yield cloud, faults


def asked_by_clients(faults: Faults) -> int:
    """Requests of all but the jobs' own, which ask for their behaviour all the time."""
    return sum("behave" not in path for _, path in faults.seen)


def each(do: Callable[[GcsUri], None], uris: list[GcsUri]) -> None:
    for uri in uris:
        do(uri)


@pytest.mark.long
def test_a_run_of_a_day(spec: Spec, counted: tuple[JobCloud, Faults]) -> None:
    cloud, faults = counted
    session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
    hang = behave(make_run(spec, session), session, "hang-train")
    faults.seen.clear()
    day = Day(lambda: remove(session, hang))
    Run(spec, session, Told(), clock=day, sleep=day.sleep, chance=lambda: 0.5).start()
    assert day.now >= DAY_S
    assert asked_by_clients(faults) < MOST
    session.storage.close()


@pytest.mark.long
def test_a_day_with_twenty_siblings(spec: Spec, counted: tuple[JobCloud, Faults]) -> None:
    cloud, faults = counted
    session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
    sizes = tuple(str(number) for number in range(1, 22))
    swept = replace(spec, sweep=SweepSpec(grid={"train.batch_size": sizes}, at_once=21))
    day = Day(lambda: None)
    sweep = Sweep(swept, session, Told(), clock=day, sleep=day.sleep, chance=lambda: 0.5)
    hangs = list[GcsUri]()
    for member in sweep.members:
        layout = member.run.upload().layout
        hangs.append(layout.root / "behave" / "hang-train")
        Objects(session).write(hangs[-1], b"")
    day.let_go = partial(each, partial(remove, session), hangs)
    faults.seen.clear()
    rows = sweep.start().rows
    assert {row.state for row in rows} == {"SUCCEEDED"}
    assert day.now >= DAY_S
    assert asked_by_clients(faults) < MOST
    session.storage.close()
