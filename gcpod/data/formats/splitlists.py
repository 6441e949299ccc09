"""Lists that say which image is on which side of the split, as VOC devkits and YOLO's data.yaml have them.

Their entries name images as another machine had them: with or without folders and suffix, with either slash.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from gcpod.data.model import Split
from gcpod.status import Finding

HOLDERS: Final = frozenset({"images", "labels", "jpegimages", "annotations"})
"""Folders that only say what kind of files lie in them; in lower case."""


@dataclass(frozen=True)
class Listed:
    """One image in a split's list; the name as written, with or without folders and suffix."""

    name: str
    side: Split
    place: str


@dataclass(frozen=True)
class Sides:
    """What split lists say of the stems asked for, and which entries mean none of these."""

    given: Mapping[str, Split]
    faults: tuple[Finding, ...]
    unknown: tuple[Listed, ...]


def split_sides(stems: Collection[str], listed: Iterable[Listed]) -> Sides:
    """Finds the stem that each entry means, and what the entries together say of it.

    An entry means, with or without its suffix, the stem that is the longest tail of its path, or else the only stem of
    its bare name. A stem on both sides evaluates, so that nothing evaluated was trained on.
    """
    by_name = defaultdict(list)
    for stem in stems:
        by_name[PurePosixPath(stem).name].append(stem)
    found: defaultdict[str, dict[Split, Listed]] = defaultdict(dict)
    unknown: list[Listed] = []
    for item in listed:
        meant = _meant(item.name, stems, by_name)
        if meant is None:
            unknown.append(item)
        else:
            found[meant].setdefault(item.side, item)
    given: dict[str, Split] = {stem: "eval" if "eval" in items else "train" for stem, items in found.items()}
    faults = tuple(
        Finding("D107", "warning", items["train"].place, f"{stem!r} trains here and evaluates in "
                f"{items['eval'].place}", "list it once; it evaluates")
        for stem, items in found.items() if len(items) == 2
    )
    return Sides(given, faults, tuple(unknown))


def plain_parts(parts: Sequence[str]) -> list[str]:
    """A path's parts without the folders that only say whether images or labels lie in them; the last part stays."""
    kept = [part for part in parts[:-1] if part not in ("", ".", "..") and part.lower() not in HOLDERS]
    return [*kept, *parts[-1:]]


def _meant(name: str, stems: Collection[str], by_name: Mapping[str, list[str]]) -> str | None:
    *folders, last = plain_parts(name.replace("\\", "/").split("/"))
    for bare in (last, PurePosixPath(last).stem, last.removesuffix(".")):
        tails = ("/".join((*folders[start:], bare)) for start in range(len(folders) + 1))
        meant = next((tail for tail in tails if tail in stems), None)
        if meant is None and len(by_name.get(bare, ())) == 1:
            meant = by_name[bare][0]
        if meant is not None:
            return meant
    return None
