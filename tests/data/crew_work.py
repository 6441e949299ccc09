"""What helpers do in the tests of crews: functions that other processes can import."""

from __future__ import annotations

import os
import signal

from gcpod.errors import DataError


def process(_item: int) -> int:
    return os.getpid()


def doubled(item: bytes) -> bytes:
    return item + item


def refuse_odd(item: int) -> int:
    if item % 2:
        raise DataError("halving", item, "it is odd", "double it")
    return item // 2


def only_here(parent_and_item: tuple[int, int]) -> int:
    parent, item = parent_and_item
    if os.getpid() != parent:
        raise ValueError("not in this process")
    return item


def die_elsewhere(parent_and_item: tuple[int, int]) -> int:
    parent, item = parent_and_item
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


class Counting:
    """Says how often this copy of it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, _item: int) -> tuple[int, int]:
        self.calls += 1
        return os.getpid(), self.calls


class Unreadable:
    """Comes out of no pickle."""

    def __reduce__(self) -> tuple[object, ...]:
        return (int, ("no number",))


def unreadable(_item: int) -> Unreadable:
    return Unreadable()
