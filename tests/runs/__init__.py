"""What tests of whole runs share: who is told, a pause cut short, the quick trainer's behaviour."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.inputs import RunOptions
from gcpod.jobs.logs import LogLine
from gcpod.jobs.request import Kind
from gcpod.jobs.service import Jobs
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.spec import DataSpec, Spec
from gcpod.status import JobInfo, Progress
from gcpod.storage.objects import Objects
from gcpod.storage.transfer import Progress as Moved
from gcpod.uris import GcsUri
from tests.data.making import Dataset


def small_spec(folder: Path) -> Spec:
    """A spec over a few images of two classes, which it draws."""
    data = Dataset(folder)
    for number in range(8):
        data.add(f"picture{number}.jpg", Box("cat" if number % 2 else "dog", 10, 10, 60, 40))
    return replace(demo_spec(steps=100), folder=folder, data=DataSpec(images="images"))


@dataclass
class Told:
    """Collects what a run says."""

    texts: list[str] = field(default_factory=list)
    states: list[tuple[str, str]] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    progressed: list[Progress] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.texts.append(text)

    def moving(self, now: Moved) -> None:
        self.moved.append(now)

    def state(self, kind: Kind, info: JobInfo) -> None:
        self.states.append((kind, info.state.short))

    def lines(self, kind: Kind, lines: list[LogLine]) -> None:
        self.logged += [f"{kind} {line.text}" for line in lines]

    def progress(self, kind: Kind, progress: Progress) -> None:
        self.progressed.append(progress)


def blink(seconds: float) -> None:
    """The pause between polls, cut short: the jobs behind them are real processes, so some time has to pass."""
    time.sleep(min(seconds, 0.02))


def make_run(spec: Spec, session: Session, told: Told | None = None, options: RunOptions | None = None) -> Run:
    return Run(spec, session, told or Told(), options, sleep=blink)


def behave(run: Run, session: Session, how: str) -> GcsUri:
    """Sets the quick trainer's behaviour for a run; returns the object that does."""
    layout = run.upload().layout
    where = layout.root / "behave" / how
    Objects(session).write(where, b"")
    return where


def kinds(session: Session) -> list[str]:
    """The kind of every job, sorted."""
    return sorted(job.labels["gcpod_kind"] for job in Jobs(session).list())


def remove(session: Session, uri: GcsUri) -> None:
    session.storage.bucket(uri.bucket).blob(uri.name).delete()
