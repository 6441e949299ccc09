"""jobs: list, show, logs, wait, cancel."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcpod.cli.common import cloud_options, json_option, load_if_there, print_json

if TYPE_CHECKING:
    from gcpod.session import Session
    from gcpod.status import JobInfo

LOG_POLL_S = 2.0


@click.group()
def jobs() -> None:
    """List, show, wait for and cancel jobs; read their logs."""


def _open(file: Path, local: bool, endpoint: str | None) -> Session:
    from gcpod.connection import connect

    return connect(load_if_there(file), local=local, endpoint=endpoint)


def _plain(info: JobInfo) -> dict[str, Any]:
    return {**asdict(info), "id": info.id, "state": info.state.value}


@jobs.command("list")
@cloud_options
@json_option
@click.option("--run", "run_id", help="Only the jobs of that run.")
def list_jobs(file: Path, local: bool, endpoint: str | None, as_json: bool, run_id: str | None) -> None:
    """The jobs of the project in its region, newest first."""
    from gcpod.jobs.request import RUN_LABEL, label
    from gcpod.jobs.service import Jobs

    found = Jobs(_open(file, local, endpoint)).list({RUN_LABEL: label(run_id)} if run_id else None)
    if as_json:
        print_json([_plain(info) for info in found])
        return
    if not found:
        click.echo("no jobs")
    for info in found:
        click.echo(f"{info.id}  {info.state.short:10} {info.create_time[:19]:19} {info.display_name}")


@jobs.command()
@click.argument("name")
@cloud_options
@json_option
def show(name: str, file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """One job, by its id or resource name."""
    from gcpod.jobs.service import Jobs

    session = _open(file, local, endpoint)
    info = Jobs(session).get(name)
    if as_json:
        print_json(_plain(info))
        return
    rows = {
        "name": info.name, "display name": info.display_name, "state": info.state.short, "created": info.create_time,
        "started": info.start_time, "ended": info.end_time, "error": info.error,
        "labels": ", ".join(f"{k}={v}" for k, v in info.labels.items()), "page": session.console_url(info.id),
    }
    for key, value in rows.items():
        if value:
            click.echo(f"{key + ':':14} {value}")


@jobs.command()
@click.argument("name")
@cloud_options
@json_option
@click.option("--follow", is_flag=True, help="Go on until the job ended.")
def logs(name: str, file: Path, local: bool, endpoint: str | None, as_json: bool, follow: bool) -> None:
    """The lines a job wrote."""
    import time

    from gcpod.jobs.logs import LogReader
    from gcpod.jobs.service import Jobs

    session = _open(file, local, endpoint)
    service = Jobs(session)
    info = service.get(name)
    reader = LogReader(session, info.id)
    while True:
        ended = info.state.terminal
        lines = reader.poll()
        if as_json:
            for line in lines:
                print_json(asdict(line))
        else:
            click.echo("".join(f"{line.time[11:19]} {line.task} {line.text}\n" for line in lines), nl=False)
        if ended or not follow:
            return
        time.sleep(LOG_POLL_S)
        info = service.get(name)


@jobs.command()
@click.argument("name")
@cloud_options
@json_option
def wait(name: str, file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """Wait until a job ended; fails when the job did."""
    from gcpod.jobs.service import Jobs
    from gcpod.jobs.watch import Watcher, result

    info = Watcher(Jobs(_open(file, local, endpoint))).wait(name)
    if as_json:
        print_json(_plain(info))
    else:
        click.echo(f"{info.name} {info.state.short}")
    result(info)


@jobs.command()
@click.argument("name")
@cloud_options
def cancel(name: str, file: Path, local: bool, endpoint: str | None) -> None:
    """Ask a job to stop."""
    from gcpod.jobs.service import Jobs

    service = Jobs(_open(file, local, endpoint))
    info = service.get(name)
    if info.state.terminal:
        click.echo(f"{info.name} ended before: {info.state.short}")
        return
    service.cancel(name)
    click.echo(f"{info.name} is being cancelled")
