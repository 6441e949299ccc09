"""init, check and config: what needs no cloud."""

from __future__ import annotations

from pathlib import Path

import click

from gcpod.cli.common import (
    cloud_options,
    file_option,
    json_option,
    load,
    load_if_there,
    print_findings,
    print_json,
)


@click.command()
@file_option
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(file: Path, force: bool) -> None:
    """Write a commented gcpod.yaml."""
    from gcpod.errors import SpecError
    from gcpod.spec import Spec
    from gcpod.specfile import render_spec

    if file.exists() and not force:
        raise SpecError("writing", file, "it exists", "edit it, or replace it with --force")
    file.write_text(render_spec(Spec()), encoding="utf-8")
    click.echo(f"wrote {file}: set data.images, then `gcpod check --local`, then `gcpod run --local`")


@click.command()
@cloud_options
@json_option
def check(file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """Find everything wrong with data, config and machines before a cent is spent."""
    from gcpod import api

    print_findings(api.check(file, local=local, endpoint=endpoint), as_json, file)


@click.group()
def config() -> None:
    """Render and check pipeline configs; show the settings in force."""


@config.command()
@cloud_options
@click.option("--out", type=click.Path(path_type=Path), help="Write there instead of the screen.")
def render(file: Path, local: bool, endpoint: str | None, out: Path | None) -> None:
    """Render the pipeline config of a run."""
    from gcpod.api import settings_of
    from gcpod.layout import RunLayout
    from gcpod.prepare import build_spec_dataset, render_spec_config, run_name

    spec = load(file)
    settings = settings_of(spec, local=local, endpoint=endpoint)
    manifest = build_spec_dataset(spec)
    layout = RunLayout.of(settings.bucket_uri, run_name(spec, manifest.digest))
    text = render_spec_config(spec, manifest, layout)
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        click.echo(f"wrote {out}")


@config.command()
@click.argument("config_file", metavar="FILE", type=click.Path(path_type=Path))
@json_option
@click.option("--labels", type=int, help="Number of classes in the label map.")
@click.option("--tpu-cores", type=int, default=0, help="Cores of the TPU that trains.")
@click.option("--anywhere", is_flag=True, help="Allow local paths: the config is not for a job.")
def lint(config_file: Path, as_json: bool, labels: int | None, tpu_cores: int, anywhere: bool) -> None:
    """Check any pipeline config, offline."""
    from gcpod.errors import ConfigError
    from gcpod.pipeline.lint import LintContext, lint_config

    try:
        text = config_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        found = getattr(e, "strerror", None) or "it is not UTF-8"
        raise ConfigError("reading", config_file, found, "name a pipeline config") from e
    context = LintContext(num_labels=labels, tpu_cores=tpu_cores, cloud=not anywhere)
    print_findings(lint_config(text, str(config_file), context), as_json, config_file)


@config.command()
@cloud_options
@json_option
def show(file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """Show project, region, bucket and credentials, and where each value came from."""
    from gcpod.api import settings_of

    settings = settings_of(load_if_there(file), local=local, endpoint=endpoint)
    rows = {name: getattr(settings, name) for name in ("project", "region", "bucket", "credentials", "endpoint")}
    if as_json:
        print_json({name: {"value": row.value, "source": row.source} for name, row in rows.items()})
        return
    for name, row in rows.items():
        click.echo(f"{name:12} {row.value or '-':40} {row.source}")
