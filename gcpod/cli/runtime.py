"""runtime: what jobs can run in, and the images and environments that are made of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from gcpod.cli.common import json_option, print_json

kind_option = click.option(
    "--kind", type=click.Choice(["cpu", "gpu", "tpu"]), default="cpu", show_default=True, help="The image's machine.",
)


@click.group()
def runtime() -> None:
    """List and show what jobs can run in; make its images and its local environment."""


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
@click.option("--out", type=click.Path(path_type=Path), help="Write the folder that Docker or Cloud Build makes it of.")
@click.option("--local", is_flag=True, help="Make the environment that stands for it on this machine.")
def build(name: str, kind: str, out: Path | None, local: bool) -> None:
    """Make a runtime: its environment on this machine, or the folder that its image is built of."""
    from gcpod.runtimes import find_runtime
    from gcpod.runtimes.recipe import write_context

    found = find_runtime(name)
    if local == (out is not None):
        raise click.UsageError("give either --out DIR or --local")
    if out is not None:
        files = write_context(found, kind, out)
        click.echo(f"{out}: {len(files)} files; Cloud Build makes the image of it:")
        click.echo(f"gcloud builds submit {out} --tag REGION-docker.pkg.dev/PROJECT/gcpod/{found.images[kind]}:latest")
        return
    from gcpod.cache import cache_dir
    from gcpod.localcloud.runtime import ensure_environment

    image = found.images[kind]
    click.echo(ensure_environment(found, image, cache_dir(), lambda line: click.echo(line, err=True)))
