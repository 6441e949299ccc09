"""``python -m gcpod_launcher [--package URI]... [--role ROLE] [OPTIONS] --module NAME -- ARGUMENTS``

Role ``train`` goes on from the newest whole checkpoint, ends early when the stop object appears, and writes the marker
when it ends. Role ``eval`` evaluates until it sees that marker, keeps the best checkpoint, and writes the stop object
when there is nothing to gain; or it evaluates one checkpoint once.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from gcpod_launcher import compat, evaluation, packages, replicas, training
from gcpod_launcher.best import Judge
from gcpod_launcher.objects import Files, GFiles, say


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gcpod_launcher", description=__doc__, allow_abbrev=False)
    parser.add_argument("--package", action="append", default=[], help="sdist or wheel to put on the import path")
    parser.add_argument("--module", required=True, help="module to run as __main__")
    parser.add_argument("--role", choices=("train", "eval", "other"), default="other")
    parser.add_argument("--marker", help="object that says the training ended")
    parser.add_argument("--stop", help="object that ends the training early")
    parser.add_argument("--poll_s", type=float, default=10.0, help="seconds between looks for a new checkpoint")
    parser.add_argument("--timeout_s", type=float, default=3600.0, help="seconds to wait for a new checkpoint")
    parser.add_argument("--best", help="folder for the best checkpoint so far")
    parser.add_argument("--metric", help="what tells the best; larger is better, of tags that begin with Loss/ smaller")
    parser.add_argument("--min_delta", type=float, default=0.0, help="what counts as better: by more than this")
    parser.add_argument("--stop_after", type=int, help="evaluations without a better one that end the training")
    parser.add_argument("--once", metavar="PREFIX", help="evaluate this checkpoint and end")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="after --, the module's own arguments")
    options = parser.parse_args(argv)
    options.rest = options.rest[1:] if options.rest[:1] == ["--"] else options.rest
    if options.best and not options.metric:
        parser.error("--best needs --metric")
    if options.stop_after is not None and not (options.best and options.stop and options.stop_after > 0):
        parser.error("--stop_after is a number above 0 and needs --best and --stop")
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


def model_dir(rest: list[str]) -> str | None:
    """The folder that a module trains into: its --model_dir, or else the one that Vertex AI names."""
    for position, argument in enumerate(rest):
        name, equals, value = argument.partition("=")
        if name in ("--model_dir", "-model_dir"):
            return value if equals else next(iter(rest[position + 1:]), None)
    return os.environ.get("AIP_MODEL_DIR") or None


def launch(options: argparse.Namespace, before: Callable[[], None] = lambda: None) -> int:
    """Runs the module with its packages and the compatibility it needs; returns its exit code."""
    with tempfile.TemporaryDirectory(prefix="gcpod-packages-") as folder:
        packages.put_on_path(options.package, Path(folder))
        compat.apply(options.module)
        before()
        return run(options)


def train(options: argparse.Namespace, replica: replicas.Replica, files: Files) -> int:
    part = training.Training(files, options.marker, options.stop, replica, say)
    code = 1
    try:
        try:
            part.begin(model_dir(options.rest))
        except OSError as e:
            sys.exit(f"gcpod_launcher: beginning the training: {e}")
        training.guard_saves(part.saving)
        part.watch()
        code = launch(options)
    finally:
        # However the training ended, an evaluation must not wait for more of it.
        code = part.end(code)
    return code


def evaluate(options: argparse.Namespace, replica: replicas.Replica, files: Files, place: Path) -> int:
    ended, followed = evaluation.ended(files, options.marker, replica.evaluator), evaluation.Followed()
    once = evaluation.only(files, options.once, place, followed) if options.once else None

    def found(latest: Callable[[], str | None]) -> Iterator[str]:
        every = evaluation.checkpoints(latest, ended, options.poll_s, options.timeout_s)
        return once or evaluation.each(files, every, place, followed, say)

    def judge_with_the_module() -> None:
        evaluation.follow(found)
        if options.best:
            try:
                judge = Judge(files, options.best, options.metric, options.min_delta, options.stop_after, options.stop,
                              say)
            except OSError as e:
                sys.exit(f"gcpod_launcher: reading the best checkpoint so far: {e}")
            evaluation.judge_each(judge, followed)

    code = 1
    try:
        code = launch(options, judge_with_the_module)
    finally:
        if replica.evaluator and options.marker:
            done = training.evaluated(options.marker)
            try:
                files.write(done, json.dumps({"exit_code": code}))
            except OSError as e:
                say(f"writing {done}: {e}; the training's chief waits for it, an hour at the most")
    return code


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    replica = replicas.replica_of(os.environ)
    replicas.settle(os.environ, options.role)
    if options.role == "train":
        return train(options, replica, GFiles())
    if options.role == "eval":
        evaluation.ready()
        with tempfile.TemporaryDirectory(prefix="gcpod-checkpoint-") as place:
            return evaluate(options, replica, GFiles(), Path(place))
    return launch(options)


if __name__ == "__main__":
    sys.exit(main())
