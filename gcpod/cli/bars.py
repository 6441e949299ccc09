"""Bars of bytes: how far, how fast, how long still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Update = Callable[[str, int, "int | None"], None]
"""Called with a phase's name, bytes done, and bytes in all or None."""


@contextmanager
def byte_bars(silent: bool) -> Iterator[Update]:
    """A bar for each phase on a terminal, nothing elsewhere or when ``silent``."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console, tasks = Console(stderr=True), {}
    columns = (
        TextColumn("{task.description:6}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=silent or not console.is_terminal) as bars:
        def update(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield update
