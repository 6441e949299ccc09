"""Which pictures are the same one encoded again (finding D107): equal to the eye, but for their bytes.

Two pictures are near-identical when no cell of their fingerprints (`gcpod.data.pixels.fingerprint`) differs by more
than `TOLERANCE`. Measured on 100 photographs, most that a cell differed: encoded again at JPEG quality 50: 3, at
quality 30: 4; as PNG: 3; at half the size: 4; at 0.7 of it: 4. Between different photographs: 57 or more.

A fixed camera's pictures are as like each other as copies are, where only something small moves; there the boxes tell
them apart: pictures that both have boxes, of which none lies where one of the other's lies, are different ones. One
without boxes goes along with one that it is like, but makes no others go together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Final

from gcpod.data.pixels import GRID

TOLERANCE: Final = 6
"""Steps of 256; above what copies show, far below what different pictures show."""

BOX_TOLERANCE: Final = 0.05
"""Of the image's sides, by which the edges of a box may differ that was drawn twice."""

MAX_BOXES: Final = 8
"""The largest boxes of a picture that are compared; one of them that agrees is enough."""

_BUCKET: Final = 4 * TOLERANCE
_BOX_BUCKET: Final = 4 * BOX_TOLERANCE
_HALF = GRID // 2
_Edges = tuple[float, ...]
_Key = tuple[int, ...]


def near_groups(
    fingerprints: Mapping[str, bytes], boxes: Mapping[str, tuple[_Edges, ...]] | None = None,
) -> dict[str, str]:
    """Groups pictures, given by their SHA-256, that are near-identical, also by way of third ones.

    Args:
        boxes: the four edges of each picture's largest boxes, as fractions of its sides.

    Returns:
        the group of each picture: the lowest SHA-256 in it.
    """
    groups = _Groups(fingerprints, boxes or {})
    for sha256 in sorted(fingerprints):
        groups.add(sha256)
    groups.take_along()
    return {sha256: groups.lead(sha256) for sha256 in fingerprints}


class _Groups:
    """Groups under way; ``shelves`` hold their members where a near-identical picture would look for them."""

    def __init__(self, fingerprints: Mapping[str, bytes], boxes: Mapping[str, tuple[_Edges, ...]]) -> None:
        self.fingerprints, self.boxes = fingerprints, boxes
        self.leader: dict[str, str] = {}
        self.shelves: defaultdict[_Key, dict[str, list[str]]] = defaultdict(dict)
        self.boxed: defaultdict[_Key, list[str]] = defaultdict(list)

    def add(self, sha256: str) -> None:
        self.leader[sha256] = sha256
        means = _quarters(self.fingerprints[sha256])
        places = self.boxes.get(sha256) or ((),)
        for edges in places:
            for shelf in (self.shelves[key] for key in _reached(means, edges) if key in self.shelves):
                for head, members in shelf.items():
                    # Members of a group that is joined already need no look: a thousand copies cost a thousand.
                    if self.lead(head) != self.lead(sha256) and any(self.alike(sha256, one, edges) for one in members):
                        self.join(sha256, head)
        for edges in places:
            self.shelves[_key(means, edges)].setdefault(self.lead(sha256), []).append(sha256)
        if self.boxes.get(sha256):
            self.boxed[_key(means, ())].append(sha256)

    def alike(self, sha256: str, other: str, edges: _Edges) -> bool:
        others = self.boxes.get(other) or ((),)
        return any(_together(edges, place) for place in others) and _alike(
            self.fingerprints[sha256], self.fingerprints[other],
        )

    def take_along(self) -> None:
        """Pictures without boxes go along with the first that has some and is like them."""
        done: set[str] = set()
        for sha256 in sorted(self.leader):
            if self.boxes.get(sha256) or self.lead(sha256) in done:
                continue
            cells = self.fingerprints[sha256]
            near = (self.boxed[key] for key in _reached(_quarters(cells), ()) if key in self.boxed)
            like = next((one for shelf in near for one in shelf if _alike(cells, self.fingerprints[one])), None)
            if like is not None:
                self.join(sha256, like)
                done.add(self.lead(sha256))

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.lead(one), self.lead(other)))
        self.leader[high] = low

    def lead(self, sha256: str) -> str:
        leader = self.leader
        while leader[sha256] != sha256:
            leader[sha256] = leader[leader[sha256]]
            sha256 = leader[sha256]
        return sha256


def _alike(one: bytes, other: bytes) -> bool:
    return all(-TOLERANCE <= a - b <= TOLERANCE for a, b in zip(one, other, strict=True))


def _quarters(cells: bytes) -> tuple[float, ...]:
    """The mean green of each quarter: no further apart than single cells are, so that it leads to all candidates."""
    rows = [cells[1::3][start : start + GRID] for start in range(0, GRID * GRID, GRID)]
    return tuple(
        sum(sum(row[left : left + _HALF]) for row in rows[top : top + _HALF]) / _HALF**2
        for top in (0, _HALF) for left in (0, _HALF)
    )


def _together(one: _Edges, other: _Edges) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(one, other, strict=True))


def _key(means: _Edges, edges: _Edges) -> _Key:
    return (*(int(mean // _BUCKET) for mean in means), *(int(edge // _BOX_BUCKET) for edge in edges))


def _reached(means: _Edges, edges: _Edges) -> Iterator[_Key]:
    """The keys under which a near-identical picture may be."""
    reach = [{int((mean - TOLERANCE) // _BUCKET), int((mean + TOLERANCE) // _BUCKET)} for mean in means]
    reach += [
        {int((edge - BOX_TOLERANCE) // _BOX_BUCKET), int((edge + BOX_TOLERANCE) // _BOX_BUCKET)} for edge in edges
    ]
    return product(*reach)
