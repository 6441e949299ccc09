"""How fast the local cloud's storage serves: small inserts, reads and a listing; medians of 5 runs.

    python benchmarks/local_storage.py

A raw keep-alive client, so that the figures are the server's, not a client library's.
"""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

RUNS, OBJECTS, SIZE, THREADS = 5, 2000, 20_000, 8


def insert_many(host: str, run: int, numbers: range) -> None:
    connection = http.client.HTTPConnection(host)
    for number in numbers:
        connection.request("POST", f"/upload/storage/v1/b/bench/o?uploadType=media&name=r{run}-{number}", b"x" * SIZE)
        connection.getresponse().read()
    connection.close()


def read_many(host: str, run: int, numbers: range) -> None:
    connection = http.client.HTTPConnection(host)
    for number in numbers:
        connection.request("GET", f"/storage/v1/b/bench/o/r{run}-{number}?alt=media")
        assert len(connection.getresponse().read()) == SIZE
    connection.close()


def rate(work: Callable[[str, int, range], None], host: str, run: int) -> float:
    shares = [range(start, OBJECTS, THREADS) for start in range(THREADS)]
    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda share: work(host, run, share), shares))
    return OBJECTS / (time.perf_counter() - start)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        command = [sys.executable, "-m", "gcpod", "local", "up", "--root", f"{folder}/cloud"]
        server = subprocess.Popen([*command, "--ready-file", str(ready)], stdout=subprocess.DEVNULL)
        while not ready.exists():
            time.sleep(0.05)
        host = urlsplit(ready.read_text().strip()).netloc
        connection = http.client.HTTPConnection(host)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/storage/v1/b?project=p", b'{"name": "bench"}', headers)
        connection.getresponse().read()
        for name, work in (("insert", insert_many), ("read", read_many)):
            median = statistics.median(rate(work, host, run) for run in range(RUNS))
            print(f"{name:7} {OBJECTS} x {SIZE // 1000} KB, {THREADS} threads: {median:6.0f} objects/s")
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
