"""What commands share: the spec and session options, findings and JSON on the screen."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gcpod.spec import Spec
    from gcpod.status import Finding

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells give it."""
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


def cloud_flags(file: Path, local: bool, endpoint: str | None) -> str:
    """The options that lead another command to the same spec and cloud."""
    chosen = f" --endpoint {endpoint}" if endpoint else " --local" if local else ""
    return f"--file {file}{chosen}"


@contextmanager
def hints(flags: str) -> Iterator[None]:
    """Gives the commands that an error advises the options of the command that failed."""
    from gcpod.errors import GcpodError

    try:
        yield
    except GcpodError as e:
        e.fix = re.sub(r"`gcpod ((?:run|upload|submit|sweep|jobs)\b[^`]*)`", rf"`gcpod \1 {flags}`", e.fix)
        raise


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


def print_findings(findings: Iterable[Finding], as_json: bool, what: object, quiet: bool = False) -> None:
    """The findings as lines or JSON; quiet prints neither.

    Raises:
        ChecksFailedError: one of them is an error.
    """
    from gcpod.errors import ChecksFailedError

    listed = list(findings)
    if as_json and not quiet:
        print_json([asdict(finding) for finding in listed])
    elif not quiet:
        for finding in listed:
            click.echo(str(finding))
    errors = [finding for finding in listed if finding.severity == "error"]
    if errors:
        count = "1 error was found" if len(errors) == 1 else f"{len(errors)} errors were found"
        raise ChecksFailedError("checking", what, count, "correct what is listed")
    if not as_json and not quiet:
        click.echo(f"{what}: no errors" + (f", {len(listed)} remarks" if listed else ""))
