"""YOLO's class names as a list with a name a line, and what all lists of class names have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gcpod.data.model import Split
from gcpod.errors import DataError
from gcpod.status import Finding


@dataclass(frozen=True)
class Config:
    """What data.yaml, or a list of names, says.

    Attributes:
        names: by class id, from 0; with gaps only where the ids are written out.
        splits: side, what is written there (an image folder, or a .txt that lists images), and its place.
        poses: lines are a box and keypoints, no polygons.
    """

    path: Path
    names: Mapping[int, str]
    splits: tuple[tuple[Split, str, str], ...] = ()
    poses: bool = False
    faults: tuple[Finding, ...] = ()


def parse_names(text: str, path: Path) -> Config:
    """Parses a list of names, one a line from class 0; blank lines may stand at its end only.

    Raises:
        DataError: D101; one that is empty, repeated or not printable, or none.
    """
    lines = enumerate(text.rstrip().split("\n"))
    return Config(path, checked(((index, name, f"{path}:{index + 1}") for index, name in lines), path))


def checked(named: Iterable[tuple[int, str, str]], path: Path) -> dict[int, str]:
    """Names by class id, out of ids, names and places."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for index, written, place in named:
        name = " ".join(written.split())
        if not name or index in names or name in taken:
            found = f"class {index}, named {name[:60]!r}, is there twice or its name is empty"
            raise misnamed(place, found, "give each class a name of its own")
        if re.search("[\x00-\x1f\x7f\ud800-\udfff]", name):
            raise misnamed(place, f"{name[:60]!r} holds a control character", "remove it")
        names[index] = name
        taken.add(name)
    if not names:
        raise misnamed(path, "it names no classes", "write names: [first, second…] into it")
    return names


def misnamed(on: object, found: str, fix: str) -> DataError:
    return DataError("reading the class names", on, found, fix, code="D101")
