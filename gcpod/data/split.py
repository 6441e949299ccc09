"""Which images train and which evaluate: decided by each image's own bytes, so that the answer never depends on the
others.

An image's score is its SHA-256 read as a fraction of 1; scores below the eval fraction evaluate. So adding, removing
or renaming images moves no other one, and byte-identical images stay on one side (finding D107). The one exception is
a set so small that a side would stay empty: then the image with the lowest score evaluates, or the one with the
highest trains, and a later image with a more extreme score may take its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from gcpod.errors import SpecError

Split = Literal["train", "eval"]

SPLITS: Final[tuple[Split, Split]] = ("train", "eval")

_FOLDERS: Final[dict[str, Split]] = {
    "train": "train", "training": "train",
    "eval": "eval", "test": "eval", "val": "eval", "valid": "eval", "validation": "eval",
}


def given_split(name: str) -> Split | None:
    """What the top folder of an image's relative path ("test/a.jpg") says, or None."""
    top, slash, _ = name.partition("/")
    return _FOLDERS.get(top.lower()) if slash else None


def plan_split(images: Sequence[tuple[str, Split | None]], eval_fraction: float = 0.1) -> tuple[Split, ...]:
    """Assigns each image, a pair of its SHA-256 in hexadecimal and `given_split`, to a split.

    A given split counts when both sides of it are there; images outside of its folders go by their score. A picture
    that lies in both sides evaluates, so that nothing evaluated was trained on. Of two or more distinct pictures at
    least one is on each side; a single one trains.

    Raises:
        SpecError: the eval fraction is not between 0 and 1, both excluded.
    """
    if not 0 < eval_fraction < 1:
        raise SpecError("splitting by", eval_fraction, "the eval fraction is not between 0 and 1", "use 0.1, for one")
    keep_given = {given for _, given in images} >= set(SPLITS)
    sides: dict[str, Split] = {}
    for sha256, given in images:
        side = given if keep_given and given else _by_score(sha256, eval_fraction)
        sides[sha256] = "eval" if "eval" in (side, sides.get(sha256)) else "train"
    settled = _both_sides(sides)
    return tuple(settled[sha256] for sha256, _ in images)


def _by_score(sha256: str, eval_fraction: float) -> Split:
    return "eval" if int(sha256[:16], 16) < int(eval_fraction * (1 << 64)) else "train"


def _both_sides(sides: dict[str, Split]) -> dict[str, Split]:
    if len(sides) < 2 or len(set(sides.values())) == 2:
        return sides if len(sides) != 1 else dict.fromkeys(sides, "train")
    if "eval" in sides.values():
        return {**sides, max(sides): "train"}
    return {**sides, min(sides): "eval"}
