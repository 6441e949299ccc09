"""A run on the screen: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from gcpod.jobs.logs import LogLine
    from gcpod.jobs.request import Kind
    from gcpod.results.report import RunResult
    from gcpod.status import JobInfo, Metrics
    from gcpod.status import Progress as JobProgress
    from gcpod.storage.transfer import Progress as Moved

TAIL = 15
"""Lines of a failed job's log that are shown."""


class Screen:
    """Shows a run; use it as a context manager.

    Args:
        console: where to print.
        log: also print every line of the jobs' logs.
    """

    def __init__(self, console: Console, log: bool = False) -> None:
        self.console, self.log = console, log
        self._tail: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=TAIL))
        self._bars = Progress(
            TextColumn("{task.description:7}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Screen:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def moving(self, now: Moved) -> None:
        if not self.console.is_terminal:
            return
        if "upload" not in self._tasks:
            self._tasks["upload"] = self._bars.add_task("upload", total=None, facts="")
        name = self._tasks["upload"]
        self._bars.update(name, completed=now.bytes / 1e6, total=now.all_bytes / 1e6, visible=now.bytes < now.all_bytes)
        task = next(task for task in self._bars.tasks if task.id == name)
        left = "" if task.time_remaining is None else f", {_duration(task.time_remaining)} left"
        self._bars.update(name, facts=f"MB, {now.files}/{now.all_files} files, {task.speed or 0:.1f} MB/s{left}")

    def state(self, kind: Kind, info: JobInfo) -> None:
        self.say(f"{kind}: {info.state.short} {info.name}")
        if info.state.terminal and kind in self._tasks:
            self._bars.update(self._tasks[kind], visible=False)
        if info.state.short == "FAILED":
            for line in self._tail[kind]:
                self.say(f"{kind} | {line}")

    def lines(self, kind: Kind, lines: Iterable[LogLine]) -> None:
        for line in lines:
            self._tail[kind].append(line.text)
            if self.log or line.task == "service":
                self.say(f"{kind} | {line.text}")

    def progress(self, kind: Kind, progress: JobProgress) -> None:
        facts = describe(progress)
        if not self.console.is_terminal:
            of = f" of {progress.total_steps}" if progress.total_steps else ""
            step = f"step {progress.step}{of} " if progress.step is not None else ""
            self.say(f"{kind}: {step}{facts}".rstrip())
            return
        if kind not in self._tasks:
            self._tasks[kind] = self._bars.add_task(kind, total=progress.total_steps, facts="")
        self._bars.update(self._tasks[kind], completed=progress.step or 0, facts=facts, refresh=True)


def describe(progress: JobProgress) -> str:
    """Loss, rate, time left and the newest checkpoint, as far as they are known."""
    facts = []
    if progress.loss is not None:
        facts.append(f"loss {progress.loss:.3f}")
    if progress.steps_per_s:
        facts.append(f"{progress.steps_per_s:.1f} steps/s")
    if progress.left_s is not None:
        facts.append(f"{_duration(progress.left_s)} left")
    if progress.checkpoint is not None:
        facts.append(f"saved {progress.checkpoint}")
    return ", ".join(facts)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}h {whole % 3600 // 60}min" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"


def show_result(console: Console, result: RunResult) -> None:
    """The end of a run: AP, job names, where things lie."""
    from rich.table import Table

    if result.metrics:
        table = Table("step", "AP@0.50", "AP@0.75", "AP@[.50:.95]", title="evaluation")
        for metrics in result.metrics:
            table.add_row(*_row(metrics))
        console.print(table)
    facts = {
        "run": result.run_id, **{f"{kind} job": name for kind, name in result.jobs.items()}, "bucket": result.root,
        "saved model": result.saved_model, "tensorboard": str(result.tensorboard),
    }
    for name, value in facts.items():
        console.print(f"{name + ':':13} {value}", markup=False, highlight=False, soft_wrap=True)


def _row(metrics: Metrics) -> tuple[str, ...]:
    numbers = (metrics.ap50, metrics.ap75, metrics.ap)
    return (str(metrics.step), *("-" if math.isnan(n) or n < 0 else f"{n:.3f}" for n in numbers))
