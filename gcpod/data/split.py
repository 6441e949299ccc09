"""Which images train and which evaluate: decided by each picture's own bytes, so that the answer hardly ever depends on
the others.

A picture's score is a hash of its SHA-256, read as a fraction of 1; scores below the eval fraction evaluate. So adding,
removing or renaming images moves no other one, and copies of a picture stay on one side (finding D107): near-identical
ones share a group, and the group has the score of its lowest SHA-256.

No rule that moves nothing can also hold shares exactly: independent draws are all that is left. What is held are
bounds. The share of evaluated pictures of each class stays within half and twice the eval fraction, and a class of
two or more pictures has one on each side, as far as one class's bounds let another's be kept; pictures are counted
without their copies. Where the draw leaves the bounds, the pictures with the most extreme scores change sides, and a
later picture with a more extreme one may take their place.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from gcpod.data.model import SPLITS, Split
from gcpod.errors import SpecError

_WHOLE: Final = ""
"""Stands for a class that every picture has: neither side of the whole set stays empty."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What the split needs to know of an image.

    Attributes:
        group: the lowest SHA-256, in hexadecimal, of its near-identical pictures, itself included.
        given: the side that the dataset names for it.
        labels: of its boxes.
    """

    group: str
    given: Split | None = None
    labels: frozenset[str] = frozenset()


def plan_split(pictures: Sequence[Picture], eval_fraction: float = 0.1) -> tuple[Split, ...]:
    """Assigns each picture to a split.

    A given split counts when both sides of it are there; pictures that it does not name go with a copy that it names,
    else by their score. A group with pictures on either side evaluates, so that nothing evaluated was trained on.

    Raises:
        SpecError: the eval fraction is not between 0 and 1, both excluded.
    """
    if not 0 < eval_fraction < 1:
        raise SpecError("splitting by", eval_fraction, "the eval fraction is not between 0 and 1", "use 0.1, for one")
    keep_given = {picture.given for picture in pictures} >= set(SPLITS)
    given: defaultdict[str, set[Split]] = defaultdict(set)
    labels: defaultdict[str, set[str]] = defaultdict(lambda: {_WHOLE})
    for picture in pictures:
        labels[picture.group] |= picture.labels
        if keep_given and picture.given:
            given[picture.group].add(picture.given)
    sides: dict[str, Split] = {}
    for group in labels:
        known: Split = "eval" if "eval" in given[group] else "train"
        sides[group] = known if given[group] else _by_score(group, eval_fraction)
    fixed = {group for group, named in given.items() if named}
    if len(sides) == 1:
        sides = dict.fromkeys(sides, "train")
    _Balance(sides, labels, eval_fraction).mend(fixed)
    return tuple(sides[picture.group] for picture in pictures)


@cache
def _score(group: str) -> int:
    """Of 64 bits. Hashed anew: the lowest of many SHA-256 is low, and pictures with copies would all evaluate."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")


def _by_score(group: str, eval_fraction: float) -> Split:
    return "eval" if _score(group) < int(eval_fraction * (1 << 64)) else "train"


class _Balance:
    """Moves as few groups as it takes to bring each class within its bounds, the rarest class first."""

    def __init__(self, sides: dict[str, Split], labels: dict[str, set[str]], eval_fraction: float) -> None:
        self.sides, self.labels, self.fraction = sides, labels, eval_fraction
        self.members: defaultdict[str, list[str]] = defaultdict(list)
        for group in sorted(sides, key=_score):
            for label in labels[group]:
                self.members[label].append(group)
        self.evaluated = Counter(label for group, side in sides.items() if side == "eval" for label in labels[group])

    def mend(self, fixed: Iterable[str]) -> None:
        held = frozenset(fixed)
        # Rarest first; the whole set, which no class may upset, is bounded last.
        for label in sorted(self.members, key=lambda label: (label == _WHOLE, len(self.members[label]), label)):
            low, high = self.bounds(label)
            for group in self.members[label]:
                if self.evaluated[label] >= low:
                    break
                self.move(group, "eval", held)
            for group in reversed(self.members[label]):
                if self.evaluated[label] <= high:
                    break
                self.move(group, "train", held)

    def bounds(self, label: str) -> tuple[int, int]:
        """Fewest and most groups of a class that may evaluate."""
        count = len(self.members[label])
        if count < 2:
            return 0, count
        if label == _WHOLE:
            return 1, count - 1
        low = min(max(1, math.floor(self.fraction / 2 * count)), count - 1)
        return low, max(low, min(count - 1, math.ceil(min(2 * self.fraction, (1 + self.fraction) / 2) * count)))

    def move(self, group: str, side: Split, held: frozenset[str]) -> None:
        """Moves a group unless it is there, was given, or another class would leave its bounds by it."""
        if self.sides[group] == side or group in held:
            return
        step = 1 if side == "eval" else -1
        for label in self.labels[group]:
            low, high = self.bounds(label)
            before, after = self.evaluated[label], self.evaluated[label] + step
            if (low <= before <= high) and not low <= after <= high:
                return
        self.sides[group] = side
        for label in self.labels[group]:
            self.evaluated[label] += step
