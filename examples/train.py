"""Trains what a gcpod.yaml says and prints the AP: on the local cloud, or with --cloud on Google Cloud.

    python examples/train.py demo/gcpod.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gcpod


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path, help="path of a gcpod.yaml")
    parser.add_argument("--cloud", action="store_true", help="use Google Cloud, which costs money")
    options = parser.parse_args()
    findings = gcpod.check(options.spec, local=not options.cloud)
    for finding in findings:
        print(finding)
    if any(finding.severity == "error" for finding in findings):
        raise SystemExit(1)
    result = gcpod.run(options.spec, local=not options.cloud)
    for metrics in result.metrics:
        print(f"step {metrics.step}: AP@0.50 {metrics.ap50:.3f}")
    print(result.saved_model)


if __name__ == "__main__":
    main()
