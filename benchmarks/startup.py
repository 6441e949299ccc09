"""What starting costs: bare Python, ``import gcpod``, ``gcpod --help``, and checking a pipeline config, side by side;
medians of 21 runs each.

    python benchmarks/startup.py

The aims: at most 0.15 s over bare Python, and 0.5 s in all for a config. The script fails when one is missed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 21
AIM_S, LINT_AIM_S = 0.15, 0.5
LINT = "gcpod config lint"
TEMPLATE = Path(__file__).parents[1] / "gcpod" / "pipeline" / "templates" / "ssd_mobilenet_v2.config"
COMMANDS = {
    "bare python": ["-c", "pass"],
    "import gcpod": ["-c", "import gcpod"],
    "gcpod --help": ["-m", "gcpod", "--help"],
    LINT: ["-m", "gcpod", "config", "lint", "--anywhere", str(TEMPLATE)],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    # The template's own gaps are found: an exit code of its own.
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def main() -> None:
    samples: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            samples[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    bare = medians["bare python"]
    for name, median in medians.items():
        print(f"{name:18} {median * 1000:7.1f} ms  {(median - bare) * 1000:+7.1f} ms  {median / bare:5.2f} x")
    if max(median for name, median in medians.items() if name != LINT) - bare > AIM_S:
        raise SystemExit(f"start-up takes more than {AIM_S} s over bare Python")
    if medians[LINT] > LINT_AIM_S:
        raise SystemExit(f"checking a config takes more than {LINT_AIM_S} s")


if __name__ == "__main__":
    main()
