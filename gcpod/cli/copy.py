"""copy: files between this machine and a bucket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gcpod.cli.bars import byte_bars
from gcpod.cli.common import cloud_options, json_option, load_if_there, print_json
from gcpod.errors import SpecError

if TYPE_CHECKING:
    from gcpod.storage.tree import Symlinks

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@click.command()
@click.argument("source")
@click.argument("target")
@cloud_options
@json_option
@click.option("--dry-run", is_flag=True, help="Only tell what would move.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--workers", type=click.IntRange(1, 256), help="Connections at once; otherwise found by measuring.")
@click.option("--limit", metavar="RATE", help="Bytes a second at the most, such as 500k or 2M.")
@click.option("--parts", type=click.IntRange(1, 32), default=1, show_default=True,
              help="Send files of 64 MiB and more in so many parts at once.")
@click.option("--stall", type=click.FloatRange(1, 3600), default=30.0, show_default=True,
              help="Seconds after which a connection that moves nothing is closed.")
@click.option("--symlinks", type=click.Choice(["refuse", "follow", "skip"]), default="refuse", show_default=True,
              help="What becomes of links in a local folder.")
def copy(
    source: str, target: str, file: Path, local: bool, endpoint: str | None, as_json: bool, dry_run: bool, quiet: bool,
    workers: int | None, limit: str | None, parts: int, stall: float, symlinks: Symlinks,
) -> None:
    """Make TARGET hold what SOURCE holds; one of them is gs://BUCKET/PATH, the other a local folder or file.

    What is there already, by size and checksum, does not move; what was begun goes on. Nothing is deleted.
    """
    from gcpod.copying import copy as copy_files
    from gcpod.storage.traffic import TransferOptions

    spec = load_if_there(file)
    rate = spec.storage.limit_bytes if limit is None else _rate(limit)
    options = TransferOptions(workers=workers or spec.storage.workers, rate_bytes=rate, parts=parts, stall_s=stall)
    with byte_bars(as_json or quiet) as update:
        done = copy_files(
            source, target, spec, local=local, endpoint=endpoint, options=options, symlinks=symlinks,
            dry_run=dry_run, tell=lambda now: update(f"{now.all_files} files", now.bytes, now.all_bytes),
        )
    if as_json:
        print_json({"moved": [{"source": one, "target": other} for one, other in done.moving], "bytes": done.bytes,
                    "unchanged": done.unchanged, "dry_run": dry_run})
        return
    if quiet:
        return
    if dry_run:
        for one, other in done.moving:
            click.echo(f"{one} -> {other}")
    verb = "would move" if dry_run else "moved"
    click.echo(f"{verb} {len(done.moving)} files ({done.bytes} bytes), {done.unchanged} were there", err=True)


def _rate(text: str) -> float:
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([kMG]?)", text)
    rate = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if rate <= 0:
        raise SpecError("reading --limit", text, "it is no rate", "give bytes a second, such as 500k, 2M or 1.5M")
    return rate
