"""jobs: list, show, logs, wait, cancel, delete."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcpod.cli.common import cloud_options, json_option, print_json
from gcpod.cli.job_options import (
    duration,
    each,
    labels_of,
    moment,
    opened,
    patience,
    plain,
    reach,
    tell,
    to_datetime,
)
from gcpod.errors import SpecError
from gcpod.status import JobState

if TYPE_CHECKING:
    from gcpod.jobs.logs import LogLine
    from gcpod.jobs.request import Kind
    from gcpod.jobs.service import Jobs
    from gcpod.status import JobInfo

_STATES = {state.short.lower(): state for state in JobState}


@click.group()
def jobs() -> None:
    """List, show, wait for, cancel and delete jobs; read their logs."""


@jobs.command("list")
@cloud_options
@json_option
@click.option("--run", "run_id", metavar="RUN", help="Only the jobs of that run.")
@click.option("--kind", type=click.Choice(["train", "eval", "export"]), help="Only jobs of that kind.")
@click.option("--state", "states", multiple=True, type=click.Choice(list(_STATES), case_sensitive=False),
              metavar="STATE", help="Only jobs in it, such as running or failed; may be given several times.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", callback=labels_of,
              help="Only jobs that carry it; may be given several times.")
@click.option("--name", metavar="NAME", help="Only jobs of that display name.")
@click.option("--since", metavar="TIME", callback=moment, help="Only jobs created since: 2h or 7d ago, or a date or "
              "time in UTC, as 2026-11-20.")
@click.option("--until", metavar="TIME", callback=moment, help="Only jobs created before.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="No more than the N newest.")
def list_jobs(
    file: Path, local: bool, endpoint: str | None, as_json: bool, run_id: str | None, kind: Kind | None,
    states: tuple[str, ...], labels: dict[str, str], name: str | None, since: str | None, until: str | None,
    limit: int | None,
) -> None:
    """The jobs of the project in its region, newest first."""
    from gcpod.jobs.filters import JobFilter

    chosen = tuple(_STATES[state.lower()] for state in states)
    wanted = JobFilter(run=run_id, kind=kind, states=chosen, labels=labels, since=since, until=until, name=name)
    with opened(file, local, endpoint) as service:
        found = service.list(wanted, limit)
        if as_json:
            print_json([plain(info, service) for info in found])
            return
    if not found:
        click.echo("no jobs" if wanted == JobFilter() else "no such jobs")
    for info in found:
        click.echo(f"{info.id}  {info.state.short:10} {info.create_time[:19]:19} {info.display_name}")


@jobs.command()
@click.argument("name")
@cloud_options
@json_option
def show(name: str, file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """One job, by its id or resource name."""
    with opened(file, local, endpoint) as service:
        info = service.get(name)
        told = plain(info, service)
    if as_json:
        print_json(told)
        return
    machine = f"{info.replicas} x {info.machine}" if info.replicas > 1 else info.machine
    rows = {
        "name": info.name, "display name": info.display_name, "state": info.state.short, "created": info.create_time,
        "started": info.start_time, "ended": info.end_time, "updated": info.update_time, "error": info.error,
        "machine": machine, "strategy": info.strategy, "labels": ", ".join(f"{k}={v}" for k, v in info.labels.items()),
        "page": told["page"],
    }
    for key, value in rows.items():
        if value:
            click.echo(f"{key + ':':14} {value}")


@jobs.command()
@click.argument("name")
@cloud_options
@json_option
@click.option("--follow", is_flag=True, help="Go on until the job ended and its log is whole.")
@click.option("--severity", metavar="LEVEL", help="Only lines of that severity or a higher one, such as WARNING.")
@click.option("--task", metavar="TASK", help="Only lines of that machine, such as workerpool0-0.")
@click.option("--since", metavar="TIME", callback=moment, help="Only lines since: 2h ago, or a date or time in UTC.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Keep the whole log in a file; the same "
              "command goes on where it ends.")
def logs(
    name: str, file: Path, local: bool, endpoint: str | None, as_json: bool, follow: bool, severity: str | None,
    task: str | None, since: str | None, out: Path | None,
) -> None:
    """The lines a job wrote, with --json one object a line; below them, what they show about why it failed."""
    from gcpod.jobs.diagnose import diagnose
    from gcpod.jobs.ended import TAIL_LINES, failed
    from gcpod.jobs.logfile import LogFile
    from gcpod.jobs.logs import LogReader
    from gcpod.jobs.logs import follow as followed

    if out is not None and (severity or task or since):
        raise click.UsageError("--out keeps the whole log: give it without --severity, --task and --since.")
    with opened(file, local, endpoint) as service, ExitStack() as stack:
        info = service.get(name)
        kept = None if out is None else stack.enter_context(LogFile(out, info.id))
        reader = LogReader(
            service.session_of(name), info.id, severity=(severity or "").upper(), task=task or "",
            since=None if since is None else to_datetime(since), cursor=kept.cursor if kept else None,
        )
        count, tail = 0, deque[str](maxlen=TAIL_LINES)
        pages = followed(reader, lambda: service.get(name), reach(service)) if follow else reader.pages(wide=True)
        for lines in pages:
            if kept is not None:
                kept.append(lines, reader.cursor)
            else:
                _show_lines(lines, as_json)
            count += len(lines)
            tail.extend(line.text for line in lines)
        info = service.get(name) if follow else info
    if out is not None:
        _tell({"file": str(out), "lines": count}, f"{count} new lines: {out}", as_json)
    for finding in diagnose(info.error, tail, info.name) if failed(info) else ():
        click.echo(str(finding), err=True)


def _show_lines(lines: Iterable[LogLine], as_json: bool) -> None:
    from gcpod.jobs.logfile import printable

    for line in lines:
        told = f"{line.time[11:19]} {line.task} {line.text}"
        click.echo(json.dumps(asdict(line)) if as_json else printable(told))


def _tell(value: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(value)
    else:
        click.echo(text)


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@cloud_options
@json_option
@click.option("--timeout", "timeout_s", metavar="TIME", callback=duration, help="Give up after it, such as 30m; the "
              "jobs go on.")
def wait(
    names: tuple[str, ...], file: Path, local: bool, endpoint: str | None, as_json: bool, timeout_s: int | None,
) -> None:
    """Wait until jobs ended, from whatever machine; fails when one of them did."""
    from gcpod.jobs.watch import JobWatch

    with opened(file, local, endpoint) as service:
        watch = JobWatch(service, names, say=tell, patience_s=patience(service))
        for info in watch.follow(timeout_s):
            if not as_json:
                click.echo(f"{info.name} {info.state.short}")
        if as_json:
            print_json([plain(info, service) for info in watch.infos.values()])
        each(watch.infos, lambda name: _judge(service, name, watch.infos[name]))


def _judge(service: Jobs, name: str, info: JobInfo) -> None:
    """Raises JobFailedError, with what the log shows, where a job ended otherwise than well."""
    from gcpod.jobs.ended import findings_of
    from gcpod.jobs.watch import result

    findings = findings_of(service.session_of(name), info)
    for finding in findings[1:]:
        click.echo(str(finding), err=True)
    result(info, findings)


@jobs.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@cloud_options
@json_option
@click.option("--run", "run_id", metavar="RUN", help="All jobs of that run which have not ended.")
def cancel(
    names: tuple[str, ...], file: Path, local: bool, endpoint: str | None, as_json: bool, run_id: str | None,
) -> None:
    """Ask jobs to stop."""
    from gcpod.jobs.filters import JobFilter

    if bool(names) is (run_id is not None):
        raise click.UsageError("Name jobs, or give a run with --run.")
    told: list[dict[str, Any]] = []
    with opened(file, local, endpoint) as service:

        def stop(info: JobInfo) -> None:
            cancelled = not info.state.terminal
            if cancelled:
                service.cancel(info.name)
            told.append({**plain(info, service), "cancelled": cancelled})
            if not as_json:
                done = "is being cancelled" if cancelled else f"ended before: {info.state.short}"
                click.echo(f"{info.name} {done}")

        try:
            if run_id is None:
                each(names, lambda name: stop(service.get(name)))
            else:
                open_jobs = {i.name: i for i in service.list(JobFilter(run=run_id)) if not i.state.terminal}
                each(open_jobs, lambda name: stop(open_jobs[name]))
        finally:
            if as_json:
                print_json(told)
    if not told and not as_json:
        click.echo(f"run {run_id} has no job that could be cancelled")


@jobs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@cloud_options
@json_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(
    names: tuple[str, ...], file: Path, local: bool, endpoint: str | None, as_json: bool, yes: bool,
) -> None:
    """Take jobs that ended off the service's list; their logs and files stay."""
    count = "1 job" if len(names) == 1 else f"{len(names)} jobs"
    if not yes:
        if not sys.stdin.isatty():
            raise SpecError("deleting", count, "nobody is here to be asked", "give --yes")
        click.confirm(f"Delete {count}?", abort=True, err=True)
    told: list[dict[str, Any]] = []
    with opened(file, local, endpoint) as service:

        def remove(name: str) -> None:
            full = service.full_name(name)
            gone = service.delete(full)
            told.append({"name": full, "deleted": gone})
            if not as_json:
                click.echo(f"{full} {'is deleted' if gone else 'is being deleted'}")

        try:
            each(names, remove)
        finally:
            if as_json:
                print_json(told)
