"""Folders of the cache: used, kept, and taken away when nobody uses them."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gcpod.packaging.kept import UNUSED_S, ensure_folder

DAY = 24 * 3600.0
START = 1_700_000_000.0


def fill(name: str) -> None:
    """What a build makes."""
    Path(name).mkdir()
    (Path(name) / "b.txt").write_text("b")
    (Path(name) / "a.txt").write_text("a")


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def ensure(place: Path, name: str, now: float) -> list[str]:
    found = ensure_folder(place / name, lambda out: fill(str(out)), lambda: now)
    assert [path.parent for path in found] == [place / name] * 2
    return [path.name for path in found]


def test_each_use_counts_and_what_was_not_used_for_90_days_goes_at_the_next_build(tmp_path: Path) -> None:
    place = tmp_path / "packages"
    for name in ("used", "unused"):
        assert ensure(place, name, START) == ["a.txt", "b.txt"]
    ensure(place, "used", START + 80 * DAY)
    ensure(place, "used", START + 100 * DAY)
    assert names(place) == ["unused", "used"]
    ensure(place, "new", START + 100 * DAY)
    assert names(place) == ["new", "used"]
    ensure(place, "newer", START + 190 * DAY)
    assert names(place) == ["new", "newer", "used"]
    ensure(place, "newest", START + 190 * DAY + 1)
    assert names(place) == ["newer", "newest"]


def test_what_a_killed_build_left_goes_too_and_what_is_being_built_stays(tmp_path: Path) -> None:
    for name, age in (("tmpold", UNUSED_S + 1), ("tmpnew", 60.0)):
        (tmp_path / name / "built").mkdir(parents=True)
        os.utime(tmp_path / name, (START - age, START - age))
    ensure(tmp_path, "mine", START)
    assert names(tmp_path) == ["mine", "tmpnew"]


def test_nothing_goes_while_another_process_is_being_given_it(tmp_path: Path) -> None:
    """The clock is read where a folder's time is set or judged; whoever holds the lock then keeps others out."""
    ensure(tmp_path, "old", START)
    refused: list[int] = []

    def clock() -> float:
        held = os.open(tmp_path, os.O_RDONLY)
        try:
            for how in (fcntl.LOCK_SH, fcntl.LOCK_EX):
                try:
                    fcntl.flock(held, how | fcntl.LOCK_NB)
                except BlockingIOError:
                    refused.append(how)
        finally:
            os.close(held)
        return START + 91 * DAY

    ensure_folder(tmp_path / "old", lambda _: pytest.fail("it is there"), clock)
    assert set(refused) == {fcntl.LOCK_EX}
    refused.clear()
    ensure_folder(tmp_path / "new", lambda out: fill(str(out)), clock)
    assert {fcntl.LOCK_SH, fcntl.LOCK_EX} == set(refused)
    assert names(tmp_path) == ["new", "old"]


def test_those_who_ask_for_old_ones_while_they_are_taken_away_get_them(tmp_path: Path) -> None:
    for number in range(30):
        ensure(tmp_path, f"old-{number}", START - 91 * DAY)

    def ask(number: int) -> list[str]:
        found = ensure(tmp_path, f"old-{number // 2}" if number % 2 else f"new-{number}", START)
        return found if number % 2 and (tmp_path / f"old-{number // 2}" / "b.txt").read_text() == "b" else []

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(60))) == [[], ["a.txt", "b.txt"]] * 30


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def broken(out: Path) -> None:
        fill(str(out))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ensure_folder(tmp_path / "mine", broken, lambda: START)
    assert names(tmp_path) == []
