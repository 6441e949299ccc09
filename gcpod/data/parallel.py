"""One function over many items by other threads, the results in the items' order and only so many of them waiting."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")

CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""How many this process may use."""


def ordered(function: Callable[[T], R], items: Iterable[T], workers: int = CORES, waiting: int = 4) -> Iterator[R]:
    """Yields ``function(item)`` for each item.

    Waiting and decoding leave Python's lock to others, so threads help where the work is mostly these; where it is not,
    see `gcpod.data.crew`.

    Args:
        waiting: how many items for each worker may be unfinished or untaken; bounds the memory.
    """
    from concurrent.futures import ThreadPoolExecutor

    left = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(left, workers * waiting))
        try:
            while running:
                done = running.popleft().result()
                running.extend(pool.submit(function, item) for item in islice(left, 1))
                yield done
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
