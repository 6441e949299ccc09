"""`gcpod package`: what a job imports, built, and tried in the runtime itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import file_option, json_option, print_json

if TYPE_CHECKING:
    from gcpod.spec import Spec


def _module(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    if name is not None and not all(part.isidentifier() for part in name.split(".")):
        raise click.BadParameter(f"{name!r} is no name of a module, such as object_detection.model_main")
    return name


entry_option = click.option(
    "--entry", metavar="MODULE", callback=_module,
    help="The module that jobs start with, which chooses the setup.py for TensorFlow 1 or 2; "
    "default: object_detection.model_main_tf2.",
)


@click.group(invoke_without_command=True)
@file_option
@entry_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the packages; default: the user's cache.")
@json_option
@click.pass_context
def package(context: click.Context, file: Path, entry: str | None, out: Path | None, as_json: bool) -> None:
    """Build the packages that a job imports: object_detection, slim, pycocotools, the launcher and your own."""
    if context.invoked_subcommand is not None:
        return
    from gcpod.cache import cache_dir
    from gcpod.cli.common import load_if_there
    from gcpod.packaging.build import build_packages, ensure_packages, own_sources
    from gcpod.packaging.origin import ENTRY
    from gcpod.runtimes import find_runtime, image_python

    spec = load_if_there(file)
    runtime = find_runtime(spec.runtime.name)
    python, sources = image_python(runtime, _image(spec)), own_sources(spec)
    if out is None:
        paths = ensure_packages(runtime, python, cache_dir(), **sources, entry=entry or ENTRY).paths
    else:
        paths = build_packages(runtime, python, out, cache_dir(), **sources, entry=entry or ENTRY).paths
    if as_json:
        print_json([str(path) for path in paths])
    else:
        for path in paths:
            click.echo(f"{path}: {path.stat().st_size} bytes")


@package.command()
@file_option
@entry_option
@json_option
def check(file: Path, entry: str | None, as_json: bool) -> None:
    """Install the packages into the runtime, offline, and import there what a job imports (K301 to K304)."""
    from gcpod.cache import cache_dir
    from gcpod.cli.common import load_if_there, print_findings
    from gcpod.localcloud.runtime import ensure_environment
    from gcpod.packaging.build import ensure_packages, own_sources
    from gcpod.packaging.check import ENTRIES, Mode, check_packages
    from gcpod.packaging.origin import ENTRY
    from gcpod.packaging.project import read_project
    from gcpod.runtimes import find_runtime, image_python

    spec = load_if_there(file)
    runtime, image = find_runtime(spec.runtime.name), _image(spec)
    version = image_python(runtime, image)
    sources = own_sources(spec)
    packages = ensure_packages(runtime, version, cache_dir(), **sources, entry=entry or ENTRY)
    python = ensure_environment(runtime, image, cache_dir(), lambda line: click.echo(line, err=True))
    mode: Mode = "package" if spec.runtime.mode == "package" else "container"
    training = sources["training"]
    computed = training is not None and read_project(training).computed_requires
    entries = (entry,) if entry else ENTRIES
    found = check_packages(packages, runtime, python, version, mode, entries=entries, computed_requires=computed)
    print_findings(found, as_json, f"packages for {runtime.name}")


def _image(spec: Spec) -> str:
    """The image that the training starts in; whose project and region play no part in what it holds."""
    from gcpod.jobs.request import image_uri
    from gcpod.runtimes import find_runtime

    return image_uri(spec, find_runtime(spec.runtime.name), spec.train.machine, "project", "region")
