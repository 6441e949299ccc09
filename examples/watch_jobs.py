"""Waits for every job of a run from another place than where it was started, and prints the last lines of each log.

    python examples/watch_jobs.py demo/gcpod.yaml RUN_ID --local
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gcpod
from gcpod.jobs.logs import LogReader
from gcpod.jobs.request import RUN_LABEL, label
from gcpod.jobs.watch import Watcher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path, help="path of a gcpod.yaml")
    parser.add_argument("run_id", help="as `gcpod run` prints it")
    parser.add_argument("--local", action="store_true", help="use the local cloud of the spec's folder")
    options = parser.parse_args()
    session = gcpod.connect(gcpod.load_spec(options.spec), local=options.local)
    jobs = gcpod.Jobs(session)
    for found in jobs.list({RUN_LABEL: label(options.run_id)}):
        info = Watcher(jobs).wait(found.name)
        print(f"{info.display_name}: {info.state.short}")
        for line in LogReader(session, info.id).poll()[-3:]:
            print(f"  {line.text}")


if __name__ == "__main__":
    main()
