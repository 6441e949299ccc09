"""How fast datasets are built: the usual two scripts, ``cat`` of the same bytes, and gcpod, side by side.

    python benchmarks/datasets.py

5,000 JPEGs of about 66 KB with Pascal VOC XML: 200 photographs, each 25 times under new names. Once byte for byte the
same, and once each made distinct by a comment in the JPEG, so that nothing is saved by recognising copies.

The rows take turns; each figure is the median of 3 rounds (2 for the scripts), every run in a process of its own and
into an empty folder. Before each run its input is read once, so that it lies in the page cache, and what the run before
wrote is synced. "Process" is what one waits for, "work" leaves out the start of the process and its imports; for
``cat`` they are one.

The scripts are run twice over: with compiled protobuf, and with pure-Python protobuf, which is what the Object
Detection API's usual pin, protobuf 3.20.3, is on Python 3.11. The aims are those of the second, of whole processes and
of the byte-identical copies: 8 times the scripts' speed and at most 1.7 times ``cat``, by default and with nothing but
header checks (``near_duplicates=False``; the default decodes each distinct picture), and 2.5 times the scripts' speed
with ``verify="decode"``. The script ends by saying which are missed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "shared" / "data" / "raccoon"
SCRIPTS = HERE / "usual_scripts.py"
SETS = ("identical", "distinct")
ROUNDS, SCRIPT_ROUNDS, COPIES = 3, 2, 25
AIM_SCRIPTS, AIM_CAT, AIM_DECODE = 8.0, 1.7, 2.5

PANDAS: Final = ("pandas==2.0.3", "pytz==2025.2", "tzdata==2025.2")
"""The last pandas that was made for the runtime's NumPy 1.23, and what it needs beside the runtime's packages."""

PURE: Final = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python"
GCPOD: Final = {"gcpod": (), "gcpod near_duplicates=False": ("--no-near",), 'gcpod verify="decode"': ("--decode",)}
DEFAULT, NO_NEAR, DECODE = GCPOD


@dataclass(frozen=True)
class Seconds:
    work: float
    process: float


@dataclass(frozen=True)
class Row:
    """One thing that is timed; ``{out}`` in its command stands for an empty folder."""

    name: str
    copies: str
    command: tuple[str, ...]
    rounds: int = ROUNDS


def make_set(source: Path, folder: Path, copies: int, distinct: bool) -> None:
    """Copies each image and its XML under new names; distinct ones differ by a comment segment after the SOI marker
    (ITU-T T.81, B.2.4.5)."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for image in sorted((source / "images").glob("*.jpg")):
        data = image.read_bytes()
        xml = (source / "annotations" / f"{image.stem}.xml").read_text(encoding="utf-8")
        for copy in range(copies):
            name = f"{image.stem}-{copy:03d}"
            comment = b"\xff\xfe\0\x05%03d" % copy if distinct else b""
            (folder / "images" / f"{name}.jpg").write_bytes(data[:2] + comment + data[2:])
            claimed = re.sub("<filename>.*?</filename>", f"<filename>{name}.jpg</filename>", xml)
            (folder / "annotations" / f"{name}.xml").write_text(claimed, encoding="utf-8")


def scripts_python() -> tuple[Path, Path | None]:
    """The trainer's runtime, which has TensorFlow, and a folder with pandas for it where it has none; made once and
    kept in the user's cache."""
    from gcpod.cache import cache_dir
    from gcpod.localcloud.runtime import ensure_environment
    from gcpod.runtimes import find_runtime

    runtime = find_runtime("tf2.12")
    image = f"local-docker.pkg.dev/p/gcpod/{runtime.images['cpu']}:latest"
    python = ensure_environment(runtime, image, cache_dir(), print)
    if subprocess.run([python, "-c", "import pandas"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        return python, None
    folder = cache_dir() / "benchmarks" / "-".join(PANDAS)
    if not folder.is_dir():
        print(f"the runtime has no pandas: installing {PANDAS[0]} beside it")
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(part), *PANDAS], check=True)
        part.rename(folder)
    return python, folder


def rows(scratch: Path, python: Path) -> list[Row]:
    identical, table = scratch / SETS[0], str(scratch / "labels.csv")
    script = (str(python), str(SCRIPTS))
    to_csv = (*script, "xml_to_csv", str(identical / "annotations"), table)
    to_record = (*script, "csv_to_record", table, str(identical / "images"), "{out}/all.record")
    found = [
        Row("script: XML to CSV", SETS[0], to_csv, SCRIPT_ROUNDS),
        Row("script: CSV to record", SETS[0], to_record, SCRIPT_ROUNDS),
        Row("script: the same, pure protobuf", SETS[0], ("env", PURE, *to_record), SCRIPT_ROUNDS),
    ]
    for copies in SETS:
        images = str(scratch / copies / "images")
        found.append(Row("cat", copies, ("sh", "-c", 'cat "$0"/*.jpg > "$1"', images, "{out}/all")))
        for name, options in GCPOD.items():
            command = (sys.executable, __file__, "build", str(scratch / copies), "{out}", *options)
            found.append(Row(name, copies, command))
    return found


def run(row: Row, scratch: Path, environment: dict[str, str]) -> Seconds:
    """Runs a row once; a command that prints nothing is all work."""
    out = scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for path in (scratch / row.copies).rglob("*.*"):
        path.read_bytes()
    os.sync()
    command = [part.replace("{out}", str(out)) for part in row.command]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    process = time.perf_counter() - start
    return Seconds(float(done.stdout.split()[-1]) if done.stdout else process, process)


def measure(scratch: Path, python: Path, pandas: Path | None) -> dict[tuple[str, str], Seconds]:
    """The median of each row, by name and set."""
    plain = dict(os.environ)
    of_scripts = plain | {"TF_CPP_MIN_LOG_LEVEL": "3"} | ({"PYTHONPATH": str(pandas)} if pandas else {})
    samples: dict[Row, list[Seconds]] = {row: [] for row in rows(scratch, python)}
    for turn in range(ROUNDS):
        for row, seconds in samples.items():
            if turn < row.rounds:
                seconds.append(run(row, scratch, of_scripts if str(python) in row.command else plain))
    return {
        (row.name, row.copies): Seconds(
            statistics.median(one.work for one in seconds), statistics.median(one.process for one in seconds),
        )
        for row, seconds in samples.items()
    }


def report(medians: dict[tuple[str, str], Seconds]) -> list[str]:
    """Prints the table; returns the aims that were missed."""
    table, compiled, pure = (one.process for (name, _), one in medians.items() if name.startswith("script"))
    print(f"{'':33}{'copies':10} {'work':>8}{'process':>9} {'x scripts,':>12}{'x scripts,':>12}{'of cat':>9}")
    print(f"{'':33}{'':10} {'s':>8}{'s':>9} {'compiled':>12}{'pure':>12}{'':>9}")
    for (name, copies), one in medians.items():
        line = f"{name:33}{copies:10} {one.work:8.2f}{one.process:9.2f}"
        if "script" not in name:
            ratios = ((table + whole) / one.process for whole in (compiled, pure))
            line += " {:12.2f}{:12.2f}".format(*ratios) + f"{one.process / medians['cat', copies].process:9.2f}"
        print(line)
    aims = {DEFAULT: AIM_SCRIPTS, NO_NEAR: AIM_SCRIPTS, DECODE: AIM_DECODE}
    reached = {name: (table + pure) / medians[name, SETS[0]].process for name in aims}
    of_cat = {name: medians[name, SETS[0]].process / medians["cat", SETS[0]].process for name in (DEFAULT, NO_NEAR)}
    slow = [
        f"{name}: {reached[name]:.2f} times the scripts' speed, the aim is {aim}"
        for name, aim in aims.items() if reached[name] < aim
    ]
    return slow + [
        f"{name}: {ratio:.2f} times cat, the aim is at most {AIM_CAT}"
        for name, ratio in of_cat.items() if ratio > AIM_CAT
    ]


def build(folder: Path, out: Path, near: bool, decode: bool) -> None:
    """What a run of gcpod does in its own process; prints the seconds of its work."""
    from gcpod.data.build import DatasetRequest, build_dataset

    request = DatasetRequest(
        folder / "images", folder / "annotations", out, near_duplicates=near, verify="decode" if decode else "header",
    )
    start = time.perf_counter()
    manifest = build_dataset(request)
    seconds = time.perf_counter() - start
    if sum(manifest.images.values()) != len(list((folder / "images").iterdir())):
        raise SystemExit("images were left out, so the times cannot be compared")
    print(seconds)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder with images/*.jpg and annotations/*.xml")
    parser.add_argument("--copies", type=int, default=COPIES, help="of each image; the aims are for %(default)s")
    parser.add_argument("--dir", type=Path, help="where to put some 1 GB for the time of the run")
    one = parser.add_subparsers(dest="command").add_parser("build", help="one run of gcpod, timed")
    one.add_argument("folder", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--no-near", action="store_true")
    one.add_argument("--decode", action="store_true")
    return parser.parse_args(given)


def main() -> None:
    given = arguments()
    if given.command == "build":
        build(given.folder, given.out, not given.no_near, given.decode)
        return
    if not (given.source / "images").is_dir():
        raise SystemExit(f"{given.source} is not on this machine: give a folder of images and annotations by --source")
    python, pandas = scripts_python()
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        scratch = Path(folder)
        for copies in SETS:
            make_set(given.source, scratch / copies, given.copies, copies == "distinct")
        images = list((scratch / SETS[0] / "images").iterdir())
        size_kb = sum(path.stat().st_size for path in images) / len(images) / 1000
        print(f"{len(images)} images of {size_kb:.0f} KB, {os.cpu_count()} cores; scripts run by {python}")
        missed = report(measure(scratch, python, pandas))
    if missed:
        raise SystemExit("; ".join(missed))


if __name__ == "__main__":
    main()
