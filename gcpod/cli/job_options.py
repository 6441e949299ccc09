"""What the commands of jobs share: the service they ask, times and labels as people write them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcpod.cli.common import cloud_flags, hints, load_if_there
from gcpod.errors import GcpodError

if TYPE_CHECKING:
    from gcpod.jobs.service import Jobs
    from gcpod.jobs.watch import Reach
    from gcpod.status import JobInfo


@contextmanager
def opened(file: Path, local: bool, endpoint: str | None) -> Iterator[Jobs]:
    """The job service; what an error advises leads back to the same one."""
    from gcpod.connection import connect
    from gcpod.jobs.service import Jobs

    with hints(cloud_flags(file, local, endpoint)):
        yield Jobs(connect(load_if_there(file), local=local, endpoint=endpoint))


def plain(info: JobInfo, service: Jobs) -> dict[str, Any]:
    """A job as ``--json`` shows it."""
    return {**asdict(info), "id": info.id, "state": info.state.value, "page": service.page(info)}


def tell(text: str) -> None:
    """For whoever waits; what a command gives goes elsewhere."""
    click.echo(text, err=True)


def patience(service: Jobs) -> float:
    """Seconds that an outage is waited out; a server on this machine that is gone does not come back by itself."""
    from gcpod.connection import LOCAL_PATIENCE_S

    return LOCAL_PATIENCE_S if service.session.is_local else math.inf


def reach(service: Jobs) -> Reach:
    """Tells of outages on standard error."""
    from gcpod.jobs.watch import Reach

    return Reach(tell, time.monotonic, patience(service))


def moment(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    from gcpod.jobs.filters import parse_moment

    return None if text is None else parse_moment(text, datetime.now(timezone.utc))


def to_datetime(moment: str) -> datetime:
    """RFC 3339 to the second."""
    return datetime.strptime(f"{moment[:19]}{moment[19:].lstrip('.0123456789')}", "%Y-%m-%dT%H:%M:%S%z")


def duration(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    from gcpod.jobs.filters import parse_duration

    seconds = None if text is None else parse_duration(text)
    if text is not None and seconds is None:
        raise click.BadParameter(f"{text!r} is no time: write it as 90s, 30m, 2h or 7d")
    return seconds


def labels_of(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if wrong := [text for text, (_, mark, _) in zip(given, pairs, strict=True) if not mark]:
        raise click.BadParameter(f"{wrong[0]!r} is no label: write it as KEY=VALUE")
    return {key: value for key, _, value in pairs}


def each(names: Iterable[str], do: Callable[[str], None]) -> None:
    """Does it to every name, and fails afterwards with the first failure; the others are told before."""
    failures: list[GcpodError] = []
    for name in names:
        try:
            do(name)
        except GcpodError as e:
            failures.append(e)
    for error in failures[1:]:
        click.echo(f"gcpod: {error}", err=True)
    if failures:
        raise failures[0]
