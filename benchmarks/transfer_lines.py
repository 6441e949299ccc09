"""What connections and parts bring on lines that are slow in one way or another: the reason for gcpod's defaults.

    python benchmarks/transfer_lines.py

One local cloud in a process of its own, behind a relay that adds 20 ms to every request, or lets each connection have
20 MB a second at the most, or does nothing. Medians of 3 rounds, in which
the rows take turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.known import local_files
from gcpod.storage.objects import Objects
from gcpod.storage.traffic import TransferOptions
from gcpod.storage.transfer import upload_files
from gcpod.uris import GcsUri
from tests.storage.faulty import Delay, Fault, Faulty, Throttle

ROUNDS, BUCKET = 3, "bench"
FILES, FILE_BYTES, BIG_BYTES = 1000, 100_000, 128 << 20


@dataclass(frozen=True)
class Row:
    """A way to upload a tree over a line."""

    text: str
    tree: str
    options: TransferOptions
    line: Delay | Throttle | None = None


ROWS = (
    *(Row(f"1,000 x 100 KB, 20 ms a request, {workers or 'as many as pay'} connections", "small",
          TransferOptions(workers=workers), Delay(0.02)) for workers in (8, 32, None)),
    *(Row(f"128 MiB, 20 MB/s a connection, {parts} parts", "big", TransferOptions(parts=parts), Throttle(20e6))
      for parts in (1, 4, 8)),
    *(Row(f"128 MiB, no limit, {parts} parts", "big", TransferOptions(parts=parts)) for parts in (1, 4, 8)),
)


def seconds(row: Row, url: str, folder: Path, run: int) -> float:
    with Faulty(url) if row.line else nullcontext() as proxy:
        if proxy is not None and row.line is not None:
            proxy.spoil(Fault("any", row.line, times=None))
        objects = Objects(Session(resolve(Spec(), endpoint=proxy.url if proxy else url, environ={}, home=Path())))
        root = GcsUri(BUCKET, f"{ROWS.index(row)}-{run}")
        files = local_files([(path, root / path.name) for path in (folder / row.tree).iterdir()])
        start = time.perf_counter()
        upload_files(objects, files, root, options=row.options)
        taken = time.perf_counter() - start
        objects.session.storage.close()
    return taken


def measure(url: str, folder: Path) -> Sequence[float]:
    rounds = [[seconds(row, url, folder, run) for row in ROWS] for run in range(ROUNDS)]
    return [statistics.median(one[number] for one in rounds) for number in range(len(ROWS))]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GCPOD_CACHE"] = f"{folder}/cache"
        (folder / "small").mkdir()
        (folder / "big").mkdir()
        for number in range(FILES):
            (folder / "small" / str(number)).write_bytes(os.urandom(FILE_BYTES))
        (folder / "big" / "one").write_bytes(os.urandom(BIG_BYTES))
        command = [sys.executable, "-m", "gcpod", "local", "up", "--root", f"{folder}/cloud"]
        server = subprocess.Popen([*command, "--ready-file", f"{folder}/ready"], stdout=subprocess.DEVNULL)
        while not (folder / "ready").exists():
            time.sleep(0.05)
        url = (folder / "ready").read_text().strip()
        Objects(Session(resolve(Spec(), endpoint=url, environ={}, home=Path()))).ensure_bucket(BUCKET)
        for row, median in zip(ROWS, measure(url, folder), strict=True):
            print(f"{row.text:60} {median:6.2f} s")
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
