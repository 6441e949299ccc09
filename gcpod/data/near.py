"""Which pictures are the same one encoded again (finding D107): equal to the eye, but for their bytes.

Two pictures are near-identical when no cell of their fingerprints (`gcpod.data.pixels.fingerprint`) differs by more
than `TOLERANCE`. Measured on 100 photographs, most that a cell differed: encoded again at JPEG quality 50: 3, at
quality 30: 4; as PNG: 3; at half the size: 4; at 0.7 of it: 4. Between different photographs: 57 or more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Final

from gcpod.data.pixels import GRID

TOLERANCE: Final = 6
"""Steps of 256; above what copies show, far below what different pictures show."""

_BUCKET: Final = 4 * TOLERANCE
_HALF = GRID // 2


def near_groups(fingerprints: Mapping[str, bytes]) -> dict[str, str]:
    """Groups pictures, given by their SHA-256, that are near-identical, also by way of third ones.

    Returns:
        the group of each picture: the lowest SHA-256 in it.
    """
    leader = {sha256: sha256 for sha256 in fingerprints}
    buckets: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for sha256 in sorted(fingerprints):
        cells = fingerprints[sha256]
        quarters = _quarters(cells)
        for other in _candidates(buckets, quarters):
            if _alike(cells, fingerprints[other]):
                low, high = sorted((_lead(leader, sha256), _lead(leader, other)))
                leader[high] = low
        buckets[tuple(int(mean // _BUCKET) for mean in quarters)].append(sha256)
    return {sha256: _lead(leader, sha256) for sha256 in leader}


def _alike(one: bytes, other: bytes) -> bool:
    return all(-TOLERANCE <= a - b <= TOLERANCE for a, b in zip(one, other, strict=True))


def _quarters(cells: bytes) -> tuple[float, ...]:
    """The mean green of each quarter: no further apart than single cells are, so that it leads to all candidates."""
    rows = [cells[1::3][start : start + GRID] for start in range(0, GRID * GRID, GRID)]
    return tuple(
        sum(sum(row[left : left + _HALF]) for row in rows[top : top + _HALF]) / _HALF**2
        for top in (0, _HALF) for left in (0, _HALF)
    )


def _candidates(buckets: Mapping[tuple[int, ...], list[str]], quarters: tuple[float, ...]) -> Iterator[str]:
    reach = ({int((mean - TOLERANCE) // _BUCKET), int((mean + TOLERANCE) // _BUCKET)} for mean in quarters)
    for key in product(*reach):
        yield from buckets.get(key, ())


def _lead(leader: dict[str, str], sha256: str) -> str:
    while leader[sha256] != sha256:
        leader[sha256] = leader[leader[sha256]]
        sha256 = leader[sha256]
    return sha256
