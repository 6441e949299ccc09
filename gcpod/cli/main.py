"""The root command, and the one map from errors to exit codes.

Command modules are imported when their command is called; the table below gives the help its one-line descriptions.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import click

from gcpod import __version__
from gcpod.cli.common import INTERRUPTED
from gcpod.errors import GcpodError

_COMMANDS = {
    "init": ("gcpod.cli.project", "Write a commented gcpod.yaml."),
    "check": ("gcpod.cli.project", "Find everything wrong before a cent is spent."),
    "run": ("gcpod.cli.runs", "Dataset, bucket, training, evaluation, export: everything not done yet."),
    "demo": ("gcpod.cli.runs", "Draw a small labelled dataset and run everything on the local cloud."),
    "dataset": ("gcpod.cli.dataset", "Inspect, check, preview and build a dataset: TFRecords and a label map."),
    "config": ("gcpod.cli.config", "Render and check pipeline configs; show the settings in force."),
    "model": ("gcpod.cli.model", "List, fetch and upload pretrained detectors."),
    "package": ("gcpod.cli.package", "Build the packages that a job imports, and try them in the runtime."),
    "copy": ("gcpod.cli.copy", "Copy folders and files to and from a bucket: only what differs, checked."),
    "bucket": ("gcpod.cli.bucket", "Make the bucket that the jobs need, and look at one that is there."),
    "upload": ("gcpod.cli.steps", "Put records, config and packages into the bucket."),
    "submit": ("gcpod.cli.steps", "Submit one job: train, eval or export."),
    "sweep": ("gcpod.cli.sweep", "Many runs with other values, and one table of their results."),
    "jobs": ("gcpod.cli.jobs", "List, show, wait for, cancel and delete jobs; read their logs."),
    "tensorboard": ("gcpod.cli.steps", "Fetch the TensorBoard files of a run."),
    "machines": ("gcpod.cli.machines", "List machines by region and runtime, with prices."),
    "runtime": ("gcpod.cli.runtime", "List, show and make what jobs run in."),
    "local": ("gcpod.cli.local", "Start and stop the local cloud."),
}


class _Lazy(click.Group):
    """Imports a command's module at its first use."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gcpod")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """From a folder of labelled images to a trained, evaluated, exported object detector on Google Cloud."""
    ctx.obj = debug


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    argv = sys.argv[1:] if arguments is None else arguments
    # Google's libraries say at each import that they will leave Python 3.10; nobody at a command line can act on it.
    warnings.filterwarnings("ignore", message="You are using a", category=FutureWarning)
    try:
        code: Any = cli.main(argv, prog_name="gcpod", standalone_mode=False)
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except GcpodError as e:
        if "--debug" in argv:
            raise
        click.echo(f"gcpod: {e}", err=True)
        code = e.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("gcpod: interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; a second failure at exit would print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as e:
        if "--debug" in argv:
            raise
        where = e.filename if e.filename is not None else "a file"
        error = GcpodError("using", where, e.strerror or str(e), "choose another path, or mend its permissions")
        click.echo(f"gcpod: {error}", err=True)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)
