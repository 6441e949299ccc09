"""runtime: what jobs can run in, and the images and environments that are made of it."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import cloud_options, json_option, load_if_there, print_json

if TYPE_CHECKING:
    from gcpod.runtimes import Runtime

kind_option = click.option(
    "--kind", type=click.Choice(["cpu", "gpu", "tpu"]), default="cpu", show_default=True, help="The image's machine.",
)


@click.group()
def runtime() -> None:
    """List and show what jobs can run in; make its images."""


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


@runtime.command()
@click.argument("name")
@click.option("--dockerfile", is_flag=True, help="Print the Dockerfile of an image instead.")
@kind_option
@json_option
def show(name: str, dockerfile: bool, kind: str, as_json: bool) -> None:
    """Everything about one runtime."""
    from gcpod.runtimes import find_runtime
    from gcpod.runtimes.recipe import render_dockerfile

    found = find_runtime(name)
    if dockerfile:
        click.echo(render_dockerfile(found, kind), nl=False)
        return
    data = asdict(found) | {"lock": str(found.lock)}
    if as_json:
        print_json(data)
        return
    click.echo(f"{found.name}: {found.good_for}")
    for key, text in (
        ("TensorFlow", found.tensorflow), ("Python", ", ".join(found.pythons)), ("lock", data["lock"]),
        ("sources", f"{found.object_detection.requirement}, {found.pycocotools}"),
        *((f"image {kind}", f"{image}{'' if kind in found.recipes else ' (no recipe)'}")
          for kind, image in found.images.items()),
        *((f"prebuilt {kind}", image) for kind, image in found.prebuilt.items()),
    ):
        click.echo(f"  {key:12} {text}")


@runtime.command()
@click.argument("name")
@kind_option
@cloud_options
@click.option("--again", is_flag=True, help="Build although the image is that of today's recipe.")
@click.option("--out", type=click.Path(path_type=Path), help="Only write the folder that an image is built of.")
@json_option
def build(
    name: str, kind: str, file: Path, local: bool, endpoint: str | None, again: bool, out: Path | None, as_json: bool,
) -> None:
    """Make the image that jobs start, by Cloud Build; on the local cloud the environment that stands for it."""
    from gcpod.runtimes import find_runtime

    found = find_runtime(name)
    if out is not None:
        if local or endpoint or again or as_json:
            raise click.UsageError("--out writes a folder and takes neither a cloud nor --again nor --json")
        _write(found, kind, out)
        return
    from gcpod.connection import LOCAL_PATIENCE_S, connect, objects_of
    from gcpod.jobs.builds import ImageBuilder

    session = connect(load_if_there(file), local=local, endpoint=endpoint)
    patience_s = LOCAL_PATIENCE_S if session.is_local else math.inf
    builder = ImageBuilder(session, objects_of(session), lambda line: click.echo(line, err=True), patience_s=patience_s)
    image = builder.build(found, kind, again)
    if as_json:
        print_json(asdict(image))
        return
    click.echo(f"{image.image} {image.digest}" + ("" if image.new else f" is there: build {image.build} made it"))


def _write(runtime: Runtime, kind: str, out: Path) -> None:
    from gcpod.runtimes.recipe import image_address, write_context

    files = write_context(runtime, kind, out)
    click.echo(f"{out}: {len(files)} files; Cloud Build makes the image of it:")
    click.echo(f"gcloud builds submit {out} --tag {image_address(runtime, kind, 'PROJECT', 'REGION')}:latest")
