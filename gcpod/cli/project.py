"""init and check: what needs no cloud."""

from __future__ import annotations

from pathlib import Path

import click

from gcpod.cli.common import cloud_options, file_option, json_option, print_findings, print_json


@click.command()
@file_option
@json_option
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(file: Path, as_json: bool, force: bool) -> None:
    """Write a commented gcpod.yaml."""
    from gcpod.errors import SpecError
    from gcpod.spec import Spec
    from gcpod.specfile import render_spec

    if file.exists() and not force:
        raise SpecError("writing", file, "it exists", "edit it, or replace it with --force")
    file.write_text(render_spec(Spec()), encoding="utf-8")
    if as_json:
        print_json({"file": str(file)})
    else:
        click.echo(f"wrote {file}: set data.images, then `gcpod check --local`, then `gcpod run --local`")


@click.command()
@cloud_options
@json_option
def check(file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """Find everything wrong with data, config and machines before a cent is spent."""
    from gcpod import api

    print_findings(api.check(file, local=local, endpoint=endpoint), as_json, file)
