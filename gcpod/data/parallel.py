"""One function over many items by several threads, the results in the items' order and only so many of them waiting."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered(function: Callable[[T], R], items: Sequence[T], at_once: int = 1, waiting: int = 4) -> Iterator[R]:
    """Yields ``function(item)`` for each item.

    Reading, hashing and decoding leave Python's lock to others, so threads help where the work is mostly these.

    Args:
        at_once: items a thread takes at a time.
        waiting: how many such batches for each core may be unfinished or untaken; bounds the memory.
    """
    workers = os.cpu_count() or 1
    batches = (items[start : start + at_once] for start in range(0, len(items), at_once))

    def work(batch: Sequence[T]) -> list[R]:
        return [function(item) for item in batch]

    with ThreadPoolExecutor(workers) as pool:
        first = islice(batches, workers * waiting)
        running: deque[Future[list[R]]] = deque(pool.submit(work, batch) for batch in first)
        try:
            while running:
                done = running.popleft().result()
                running.extend(pool.submit(work, batch) for batch in islice(batches, 1))
                yield from done
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
