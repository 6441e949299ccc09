"""What starting costs: bare Python, ``import gcpod``, ``gcpod --help``, side by side; medians of 21 runs each.

    python benchmarks/startup.py

The aim: at most 0.15 s over bare Python. The script fails when it is missed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 21
AIM_S = 0.15
COMMANDS = {
    "bare python": ["-c", "pass"],
    "import gcpod": ["-c", "import gcpod"],
    "gcpod --help": ["-m", "gcpod", "--help"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            samples[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    bare = medians["bare python"]
    for name, median in medians.items():
        print(f"{name:14} {median * 1000:7.1f} ms  {(median - bare) * 1000:+7.1f} ms  {median / bare:5.2f} x")
    if max(medians.values()) - bare > AIM_S:
        raise SystemExit(f"start-up takes more than {AIM_S} s over bare Python")


if __name__ == "__main__":
    main()
