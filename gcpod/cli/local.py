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
def up(root: Path, port: int, ready_file: Path | None, idle_exit_s: float | None) -> None:
    """Serve storage, custom jobs and logs until interrupted; prints the base URL."""
    from gcpod.localcloud.cloud import serve

    serve(root.absolute(), port, ready_file, idle_exit_s, click.echo)


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
