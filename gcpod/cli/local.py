"""local: the Google Cloud on this machine."""

from __future__ import annotations

from pathlib import Path

import click

root_option = click.option(
    "--root", type=click.Path(path_type=Path), default=Path(".gcpod/local"), show_default=True, help="Its folder.",
)


@click.group()
def local() -> None:
    """Start and stop the local cloud."""


@local.command()
@root_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 picks a free one.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Gets the base URL once it serves.")
@click.option("--idle-exit-s", type=float, help="End after so many seconds without a request or a running job.")
@click.option("--faults", type=click.Path(path_type=Path), help="YAML of what shall go wrong (docs/local_cloud.md).")
@click.option("--config", type=click.Path(path_type=Path), help="YAML of its regions, their machines and quota "
              "(docs/local_cloud.md).")
def up(
    root: Path, port: int, ready_file: Path | None, idle_exit_s: float | None, faults: Path | None,
    config: Path | None,
) -> None:
    """Serve storage, custom jobs and logs until interrupted; prints the base URL."""
    from gcpod.localcloud.cloud import serve
    from gcpod.localcloud.config import load_config
    from gcpod.localcloud.faults_plan import load_plan

    plan = None if faults is None else load_plan(faults)
    serve(root.absolute(), port, ready_file, idle_exit_s, click.echo, plan,
          None if config is None else load_config(config))


@local.command()
@root_option
def down(root: Path) -> None:
    """End the server; unfinished jobs go on when it starts again."""
    from gcpod.localcloud.cloud import stop_running

    click.echo("stopped" if stop_running(root.absolute()) else "it was not running")


@local.command()
@root_option
def status(root: Path) -> None:
    """Say whether it runs, and where."""
    from gcpod.localcloud.cloud import running_url

    click.echo(running_url(root.absolute()) or "it is not running")
