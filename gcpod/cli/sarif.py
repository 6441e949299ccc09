"""Findings as SARIF 2.1.0, which code hosts and editors show beside the lines they are about.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from gcpod import __version__
from gcpod.status import Finding

_PLACE = re.compile(r"(?P<file>.*?)(?::(?P<line>[0-9]+))?(?::(?P<column>[0-9]+))?", re.DOTALL)


def to_sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    """A log of one run. Paths stay as they were given, so that relative ones lead from where the command ran."""
    rules = [{"id": code} for code in sorted({finding.code for finding in findings})]
    driver = {"name": "gcpod", "version": __version__, "rules": rules}
    return {
        "version": "2.1.0",
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "runs": [{
            "tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": list(map(_result, findings)),
        }],
    }


def _result(finding: Finding) -> dict[str, Any]:
    place = _PLACE.fullmatch(finding.where)
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(place["file"] if place else finding.where)}}
    if place and place["line"]:
        column = {"startColumn": int(place["column"])} if place["column"] else {}
        location["region"] = {"startLine": int(place["line"]), **column}
    return {
        "ruleId": finding.code, "level": finding.severity, "message": {"text": f"{finding.found}; {finding.fix}"},
        "locations": [{"physicalLocation": location}],
    }
