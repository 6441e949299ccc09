"""Which checkpoints of a folder are whole, told from a listing alone.

A checkpoint is ``ckpt-N.index`` and every ``ckpt-N.data-KKKKK-of-MMMMM``
(tensorflow/core/util/tensor_bundle/naming.cc); it is whole only when all of them are there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_FILE = re.compile(r"(?:.*/)?(ckpt-(\d{1,18}))\.(?:(index)|data-(\d{5})-of-(\d{5}))", re.ASCII | re.DOTALL)


def whole_checkpoints(names: Iterable[str]) -> list[str]:
    """The names of whole checkpoints, such as ckpt-5, the oldest first.

    Args:
        names: of objects or files; others than a checkpoint's are passed over.
    """
    numbers: dict[str, int] = {}
    indexed: set[str] = set()
    shards: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for name in names:
        match = _FILE.fullmatch(name)
        if match is None:
            continue
        checkpoint = match[1]
        numbers[checkpoint] = int(match[2])
        if match[3]:
            indexed.add(checkpoint)
        else:
            shards[checkpoint].add((int(match[4]), int(match[5])))
    whole = [name for name in indexed if _all_there(shards[name])]
    return sorted(whole, key=numbers.__getitem__)


def _all_there(shards: set[tuple[int, int]]) -> bool:
    totals = {total for _, total in shards}
    return len(totals) == 1 and {number for number, _ in shards} == set(range(totals.pop()))
