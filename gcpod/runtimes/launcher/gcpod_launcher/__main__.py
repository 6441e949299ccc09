"""``python -m gcpod_launcher [--package URI]... [--role ROLE] [--marker URI] --module NAME -- ARGUMENTS``

Role ``train`` writes the marker object when the module ends, so that role ``eval`` knows that no checkpoint follows.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

from gcpod_launcher import compat, evaluation, packages


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gcpod_launcher", description=__doc__, allow_abbrev=False)
    parser.add_argument("--package", action="append", default=[], help="sdist or wheel to put on the import path")
    parser.add_argument("--module", required=True, help="module to run as __main__")
    parser.add_argument("--role", choices=("train", "eval", "other"), default="other")
    parser.add_argument("--marker", help="object that says the training ended")
    parser.add_argument("--poll_s", type=float, default=10.0, help="seconds between looks for a new checkpoint")
    parser.add_argument("--timeout_s", type=float, default=3600.0, help="seconds to wait for a new checkpoint")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="after --, the module's own arguments")
    options = parser.parse_args(argv)
    options.rest = options.rest[1:] if options.rest[:1] == ["--"] else options.rest
    return options


def run(options: argparse.Namespace) -> int:
    """Runs the module; returns its exit code."""
    sys.argv = [options.module, *options.rest]
    try:
        runpy.run_module(options.module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        sys.stderr.write(f"{stop.code}\n")
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    code = 1
    try:
        with tempfile.TemporaryDirectory(prefix="gcpod-packages-") as folder:
            if options.role == "eval":
                evaluation.follow(options.marker, options.poll_s, options.timeout_s)
            packages.put_on_path(options.package, Path(folder))
            compat.apply(options.module)
            code = run(options)
    finally:
        # However the training ended, an evaluation must not wait for more of it.
        if options.role == "train" and options.marker:
            evaluation.write(options.marker, json.dumps({"exit_code": code}))
    return code


if __name__ == "__main__":
    sys.exit(main())
