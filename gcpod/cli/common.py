"""What commands share: the spec and session options, findings and JSON on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gcpod.spec import Spec
    from gcpod.status import Finding

_F = TypeVar("_F", bound=Callable[..., Any])

file_option = click.option(
    "--file", "-f", type=click.Path(path_type=Path), default=Path("gcpod.yaml"), show_default=True, help="The spec.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def cloud_options(command: _F) -> _F:
    """``--file``, ``--local`` and ``--endpoint``: which spec, and which cloud."""
    command = click.option("--endpoint", metavar="URL", help="A local cloud that serves already.")(command)
    command = click.option("--local", is_flag=True, help="Use the local cloud of this project.")(command)
    return file_option(command)


def load(file: Path) -> Spec:
    """The spec in a file."""
    from gcpod.specfile import load_spec

    return load_spec(file)


def load_if_there(file: Path) -> Spec:
    """The spec in a file; the default one where there is no such file, for commands that need little of it."""
    from gcpod.spec import Spec

    return load(file) if file.exists() else Spec(folder=file.parent)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def print_findings(findings: Iterable[Finding], as_json: bool) -> None:
    """The findings as lines or JSON.

    Raises:
        ChecksFailedError: one of them is an error.
    """
    from gcpod.errors import ChecksFailedError

    listed = list(findings)
    if as_json:
        print_json([asdict(finding) for finding in listed])
    else:
        for finding in listed:
            click.echo(str(finding))
    errors = [finding for finding in listed if finding.severity == "error"]
    if errors:
        found = f"{len(errors)} errors were found"
        raise ChecksFailedError("checking", errors[0].where, found, "correct what is listed")
    if not as_json:
        click.echo(f"no errors, {len(listed)} remarks" if listed else "nothing found")
