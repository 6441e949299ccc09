"""local: the Google Cloud on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gcpod.cli.common import json_option, print_json

root_option = click.option(
    "--root", type=click.Path(path_type=Path), default=Path(".gcpod/local"), show_default=True, help="Its folder.",
)


@click.group()
def local() -> None:
    """Start and stop the local cloud."""


@local.command()
@root_option
@json_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 picks a free one.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Gets the base URL once it serves.")
@click.option("--idle-exit-s", type=float, help="End after so many seconds without a request or a running job.")
@click.option("--faults", type=click.Path(path_type=Path), help="YAML of what shall go wrong (docs/local_cloud.md).")
@click.option("--config", type=click.Path(path_type=Path), help="YAML of its regions, their machines and quota "
              "(docs/local_cloud.md).")
def up(
    root: Path, as_json: bool, port: int, ready_file: Path | None, idle_exit_s: float | None, faults: Path | None,
    config: Path | None,
) -> None:
    """Serve storage, custom jobs and logs until interrupted; prints the base URL, with --json in an object on one line.
    """
    from gcpod.localcloud.cloud import serve
    from gcpod.localcloud.config import load_config
    from gcpod.localcloud.faults_plan import load_plan

    def announce(line: str) -> None:
        # Whoever reads the line waits for it while the server goes on.
        fault = line.removeprefix("fault: ")
        told = {"url": line} if fault == line else {"fault": fault}
        click.echo(json.dumps(told) if as_json else line)

    plan = None if faults is None else load_plan(faults)
    serve(root.absolute(), port, ready_file, idle_exit_s, announce, plan,
          None if config is None else load_config(config))


@local.command()
@root_option
@json_option
def down(root: Path, as_json: bool) -> None:
    """End the server; unfinished jobs go on when it starts again."""
    from gcpod.localcloud.cloud import stop_running

    stopped = stop_running(root.absolute())
    if as_json:
        print_json({"stopped": stopped})
    else:
        click.echo("stopped" if stopped else "it was not running")


@local.command()
@root_option
@json_option
def status(root: Path, as_json: bool) -> None:
    """Say whether it runs, and where."""
    from gcpod.localcloud.cloud import running_url

    url = running_url(root.absolute())
    if as_json:
        print_json({"running": url is not None, "url": url})
    else:
        click.echo(url or "it is not running")
