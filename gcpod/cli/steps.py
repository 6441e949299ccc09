"""The steps of a run as commands of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import cloud_options, file_option, json_option, print_json

if TYPE_CHECKING:
    from gcpod.jobs.request import Kind
    from gcpod.runner import Run


@click.command()
@file_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the packages; default: the user's cache.")
@json_option
def package(file: Path, out: Path | None, as_json: bool) -> None:
    """Build the packages that a job imports: object_detection, slim, pycocotools and the launcher."""
    from gcpod.cache import cache_dir
    from gcpod.cli.common import load_if_there
    from gcpod.packaging.build import build_packages, ensure_packages
    from gcpod.runtimes import find_runtime

    runtime = find_runtime(load_if_there(file).runtime.name)
    if out is None:
        paths = ensure_packages(runtime, runtime.pythons[0], cache_dir()).paths
    else:
        paths = build_packages(runtime, runtime.pythons[0], out, cache_dir()).paths
    if as_json:
        print_json([str(path) for path in paths])
    else:
        for path in paths:
            click.echo(f"{path}: {path.stat().st_size} bytes")


@click.command()
@cloud_options
@json_option
def upload(file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """Put records, label map, config, packages and checkpoint into the bucket."""
    run = _run(file, local, endpoint)
    layout = run.upload().layout
    if as_json:
        print_json({"run": str(layout.root), "config": str(layout.config), "data": str(layout.data)})
    else:
        click.echo(str(layout.root))


@click.command()
@click.argument("kind", type=click.Choice(["train", "eval", "export"]))
@cloud_options
@json_option
@click.option("--retry", is_flag=True, help="A new attempt, where the last one failed or was cancelled.")
def submit(kind: Kind, file: Path, local: bool, endpoint: str | None, as_json: bool, retry: bool) -> None:
    """Upload what is missing and submit one job; a job that was submitted before is only named."""
    info = _run(file, local, endpoint, retry=retry).submit(kind)
    if as_json:
        print_json({"name": info.name, "state": info.state.value})
    else:
        click.echo(f"{info.name} {info.state.short}")


@click.group()
def tensorboard() -> None:
    """Fetch the TensorBoard files of a run."""


@tensorboard.command()
@cloud_options
@json_option
@click.option("--out", type=click.Path(path_type=Path), help="Local folder.")
def fetch(file: Path, local: bool, endpoint: str | None, as_json: bool, out: Path | None) -> None:
    """Bring the event files up to date: only new bytes travel."""
    folder, fetched = _run(file, local, endpoint).fetch(out)
    if as_json:
        print_json({"folder": str(folder), "files": fetched.files, "bytes": fetched.bytes})
    else:
        click.echo(f"{fetched.files} files changed, {fetched.bytes} bytes fetched: tensorboard --logdir {folder}")


@click.group()
def runtime() -> None:
    """List what jobs can run in."""


@runtime.command("list")
@json_option
def list_runtimes(as_json: bool) -> None:
    """The runtimes that gcpod.yaml may name."""
    from gcpod.runtimes import all_runtimes

    runtimes = list(all_runtimes().values())
    if as_json:
        print_json([{"name": r.name, "tensorflow": r.tensorflow, "pythons": r.pythons} for r in runtimes])
        return
    for found in runtimes:
        click.echo(f"{found.name}: TensorFlow {found.tensorflow}, Python {found.pythons[0]}; {found.good_for}")


def _run(file: Path, local: bool, endpoint: str | None, retry: bool = False) -> Run:
    from rich.console import Console

    from gcpod.api import open_run
    from gcpod.cli.show import Screen
    from gcpod.runner import RunOptions

    screen = Screen(Console(stderr=True))
    return open_run(file, local=local, endpoint=endpoint, options=RunOptions(retry=retry), reporter=screen)
