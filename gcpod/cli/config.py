"""config: rendering and checking pipeline configs, and the settings in force."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.common import cloud_options, json_option, load, load_if_there, print_findings, print_json

if TYPE_CHECKING:
    from gcpod.spec import Spec
    from gcpod.status import Finding


@click.group()
def config() -> None:
    """Render and check pipeline configs; show the settings in force."""


@config.command()
@cloud_options
@json_option
@click.option("--out", type=click.Path(path_type=Path), help="Write there instead of the screen.")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Any other field, such as "
              "train_config.batch_size=16 or a[1].b=2; may be given several times.")
@click.option("--diff", is_flag=True, help="Show only what differs from the template.")
def render(
    file: Path, local: bool, endpoint: str | None, as_json: bool, out: Path | None, settings: tuple[str, ...],
    diff: bool,
) -> None:
    """Render the pipeline config of a run."""
    from gcpod.connection import settings_of
    from gcpod.layout import RunLayout
    from gcpod.naming import run_name
    from gcpod.pipeline.render import template_text
    from gcpod.prepare import build_spec_dataset, render_spec_config

    spec = _with(load(file), settings)
    found = settings_of(spec, local=local, endpoint=endpoint)
    manifest = build_spec_dataset(spec)
    run_id = run_name(spec, manifest.digest)
    layout = RunLayout.of(found.bucket_uri, run_id)
    text = render_spec_config(spec, manifest, layout)
    if diff:
        template, name = template_text(spec.model.template, spec.folder)
        lines = unified_diff(template.splitlines(), text.splitlines(), name, "rendered", lineterm="")
        text = "".join(f"{line}\n" for line in lines)
    if out is not None:
        out.write_bytes(text.encode())
    if as_json:
        kept = {"text": text} if out is None else {"file": str(out)}
        print_json({"run": run_id, "config": str(layout.config), **kept})
    elif out is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"wrote {out}")


def _with(spec: Spec, settings: tuple[str, ...]) -> Spec:
    pairs = [setting.partition("=") for setting in settings]
    wrong = next((path for path, equals, _ in pairs if not (path and equals)), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is no PATH=VALUE", param_hint="--set")
    given = {path.strip(): value.strip() for path, _, value in pairs}
    return replace(spec, model=replace(spec.model, set={**(spec.model.set or {}), **given}))


@config.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0, for code hosts and editors.")
@click.option("--fix", is_flag=True, help="Mend in the file what has one safe remedy.")
@click.option("--labels", type=int, help="Number of classes in the label map.")
@click.option("--label-map", type=click.Path(path_type=Path), help="Take that number from a label map.")
@click.option("--tpu-cores", type=int, default=0, help="Cores of the TPU that trains.")
@click.option("--gpus", type=int, default=0, help="GPUs that train.")
@click.option("--tensorflow", type=click.Choice(["1", "2"]), default=None, help="Whose entry point trains.")
@click.option("--source", type=click.Path(path_type=Path), help="The object_detection that will read it: an archive, "
              "or a folder, such as a checkout; default: the release that is packaged.")
@click.option("--anywhere", is_flag=True, help="Allow local paths: the config is not for a job.")
def lint(
    files: tuple[Path, ...], as_json: bool, sarif: bool, fix: bool, labels: int | None, label_map: Path | None,
    tpu_cores: int, gpus: int, tensorflow: str | None, source: Path | None, anywhere: bool,
) -> None:
    """Check any pipeline config, offline."""
    from gcpod.errors import ConfigError
    from gcpod.pipeline.lint import LintContext, fix_config, lint_config
    from gcpod.prepare import schema_of
    from gcpod.status import Finding

    known, findings = _classes(label_map) if label_map else (labels, [])
    context = LintContext(
        num_labels=known, tpu_cores=tpu_cores, gpus=gpus,
        cloud=not anywhere, tensorflow=tensorflow or "", schema=schema_of(source),
    )
    for file in files:
        try:
            text = _text(file)
        except ConfigError as err:
            if len(files) == 1:
                raise
            findings.append(Finding(err.code, "error", err.on, err.found, err.fix))
            continue
        if fix:
            text, mended = fix_config(text, str(file), context)
            if mended:
                _replace(file, text)
            for finding in mended:
                click.echo(f"mended: {finding.code} {finding.where}: {finding.found}", err=True)
        findings += lint_config(text, str(file), context)
    if sarif:
        from gcpod.cli.sarif import to_sarif

        print_json(to_sarif(findings))
    what = str(files[0]) if len(files) == 1 else f"{len(files)} configs"
    print_findings(findings, as_json, what, quiet=sarif)


def _text(file: Path) -> str:
    """As it is, its line ends too."""
    from gcpod.errors import ConfigError

    try:
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        found = getattr(e, "strerror", None) or "it is not UTF-8"
        raise ConfigError("reading", file, found, "name a pipeline config") from e


def _replace(file: Path, text: str) -> None:
    target = file.resolve()
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as aside:
        aside.write(text.encode())
    shutil.copymode(target, aside.name)
    Path(aside.name).replace(target)


def _classes(path: Path) -> tuple[int, list[Finding]]:
    """The number that num_classes has to be for a label map, and what is odd about its ids."""
    from gcpod.data.labelmap import read_pbtxt
    from gcpod.status import Finding

    label_map = read_pbtxt(path)
    count, highest = len(label_map.items), label_map.num_classes
    if count == highest:
        return highest, []
    found = f"its {count} ids go up to {highest}, so {highest - count} of the model's outputs train on nothing"
    return highest, [Finding("C205", "warning", str(path), found, "number them from 1 without gaps")]


@config.command()
@cloud_options
@json_option
def show(file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """Show project, region, bucket and credentials, and where each value came from."""
    from gcpod.connection import settings_of

    settings = settings_of(load_if_there(file), local=local, endpoint=endpoint)
    rows = {name: getattr(settings, name) for name in ("project", "region", "bucket", "credentials", "endpoint")}
    if as_json:
        print_json({name: {"value": row.value, "source": row.source} for name, row in rows.items()})
        return
    for name, row in rows.items():
        click.echo(f"{name:12} {row.value or '-':40} {row.source}")
