"""Names, versions and requirements as the Python packaging rules have them (PEP 440, PEP 503, PEP 508)."""

from __future__ import annotations

import re

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""https://packaging.python.org/en/latest/specifications/name-normalization/"""


def normal_version(text: str) -> str | None:
    """A version in its normal form; None for what is none."""
    try:
        return str(Version(text))
    except ValueError:  # of which InvalidVersion is one; numbers of thousands of digits raise another
        return None


def file_name(name: str) -> str | None:
    """A project's name as it stands in the name of its sdist, such as my_trainer for My-Trainer; None for what is none
    (https://packaging.python.org/en/latest/specifications/source-distribution-format/)."""
    return canonicalize_name(name).replace("-", "_") if _NAME.fullmatch(name) and name.isascii() else None


def normal_requirement(text: str) -> str | None:
    """A requirement in its normal form, on one line; None for what is none."""
    try:
        return str(Requirement(text))
    except (InvalidRequirement, ValueError, RecursionError):
        return None
