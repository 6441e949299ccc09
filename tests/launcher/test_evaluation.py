from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from gcpod_launcher.evaluation import UNREADABLE_LOOKS, Followed, checkpoints, each, ended, only
from hypothesis import given
from hypothesis import strategies as st

from .folder import Folder, save


class World:
    """A bucket over time: what the newest checkpoint is, and whether the marker is there, at each second."""

    def __init__(self, newest: Callable[[float], str | None], end_s: float) -> None:
        self.now, self.looks, self.newest, self.end_s = 0.0, 0, newest, end_s

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def latest(self) -> str | None:
        self.looks += 1
        return self.newest(self.now)

    def follow(self, poll_s: float = 1.0, timeout_s: float = 100.0, each_takes_s: float = 0.0) -> list[str]:
        found = []
        for one in checkpoints(self.latest, lambda: self.now >= self.end_s, poll_s, timeout_s, self.clock, self.sleep):
            found.append(one)
            self.now += each_takes_s
        return found


NEVER = float("inf")


def stepping(every_s: int, until_s: int) -> Callable[[float], str | None]:
    """A checkpoint each ``every_s`` seconds; none before the first, and none after ``until_s``."""
    def newest(now: float) -> str | None:
        number = int(min(now, until_s) // every_s)
        return f"ckpt-{number}" if number else None

    return newest


def test_every_checkpoint_comes_once_and_the_end_ends_it() -> None:
    world = World(stepping(5, 20), end_s=21)
    assert world.follow() == ["ckpt-1", "ckpt-2", "ckpt-3", "ckpt-4"]
    assert world.now == 21


def test_the_checkpoint_written_just_before_the_marker_is_not_missed() -> None:
    world = World(lambda now: "last" if now >= 10 else "first", end_s=10)
    assert world.follow() == ["first", "last"]


def test_a_checkpoint_written_between_the_two_looks_is_not_missed() -> None:
    class Racing(World):
        def latest(self) -> str | None:
            # The training writes its last checkpoint and the marker between the two questions of one look.
            if self.looks == 3:
                self.now = self.end_s
            return super().latest()

    world = Racing(lambda now: "last" if now >= 50 else "first", end_s=50)
    assert world.follow(timeout_s=1000) == ["first", "last"]


def test_what_an_evaluation_takes_does_not_count_as_waiting() -> None:
    world = World(stepping(5, 20), end_s=NEVER)
    assert world.follow(timeout_s=8, each_takes_s=30) == ["ckpt-1", "ckpt-4"]
    assert world.now == 5 + 30 + 30 + 8


def test_without_a_new_checkpoint_it_gives_up_in_time() -> None:
    for newest in (lambda _: None, lambda _: "only"):
        world = World(newest, end_s=NEVER)
        assert world.follow(poll_s=2, timeout_s=11) == ([] if newest(0) is None else ["only"])
        assert 11 <= world.now <= 13


def test_an_unreadable_index_after_the_end_is_looked_at_again() -> None:
    world = World(lambda now: "last" if now >= 13 else ("first" if now < 9 else None), end_s=10)
    assert world.follow() == ["first", "last"]


def test_an_index_that_stays_unreadable_is_given_up() -> None:
    world = World(lambda _: None, end_s=0)
    assert world.follow() == []
    assert world.looks == UNREADABLE_LOOKS + 1


def test_a_training_that_ended_long_ago_is_evaluated_once() -> None:
    world = World(lambda _: "last", end_s=0)
    assert world.follow() == ["last"]
    assert world.now == 0


@given(st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=30), st.integers(0, 40), st.floats(0.5, 5))
def test_whatever_the_bucket_shows_it_ends(shown: list[str | None], end_s: int, poll_s: float) -> None:
    world = World(lambda now: shown[min(int(now), len(shown) - 1)] if shown else None, end_s)
    found = world.follow(poll_s=poll_s, timeout_s=20)
    assert all(one != following for one, following in pairwise(found))
    assert world.now <= (len(found) + 1) * (20 + poll_s)
    assert set(found) <= {one for one in shown if one is not None}


def mark(path: Path, second: int, code: int = 0) -> None:
    """Writes a marker at some second of the clock."""
    path.write_text(f'{{"exit_code": {code}}}')
    os.utime(path, (second, second))


@pytest.mark.parametrize("beside", [False, True])
def test_a_marker_that_comes_is_the_end(tmp_path: Path, beside: bool) -> None:
    marker = tmp_path / "marker"
    over = ended(Folder(), str(marker), beside)
    assert not over()
    mark(marker, 1)
    assert over()


@pytest.mark.parametrize("code", [0, 1])
def test_a_marker_from_before_is_the_end_for_a_job_of_its_own(tmp_path: Path, code: int) -> None:
    mark(tmp_path / "marker", 1, code)
    assert ended(Folder(), str(tmp_path / "marker"), beside=False)()


@pytest.mark.parametrize("text", ['{"exit_code": 0}', '{"exit_code": 0, "stopped": true}', "{}", "[]", "{", ""])
def test_a_marker_from_before_is_the_end_unless_it_tells_of_a_failure(tmp_path: Path, text: str) -> None:
    (tmp_path / "marker").write_text(text)
    assert ended(Folder(), str(tmp_path / "marker"), beside=True)()


def test_a_failure_from_before_is_an_earlier_starts_for_a_machine_of_the_trainings_job(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    mark(marker, 1, code=1)
    over = ended(Folder(), str(marker), beside=True)
    assert not over()
    marker.unlink()
    assert not over()
    mark(marker, 2)
    assert over()


@pytest.mark.parametrize("beside", [False, True])
def test_storage_that_does_not_answer_is_not_the_end(tmp_path: Path, beside: bool) -> None:
    files = Folder()
    files.out = True
    over = ended(files, str(tmp_path / "marker"), beside)
    mark(tmp_path / "marker", 1)
    assert not over()
    files.out = False
    assert over()


def test_without_a_marker_the_training_never_ends(tmp_path: Path) -> None:
    assert not ended(Folder(), None, beside=False)()


def test_each_checkpoint_is_evaluated_from_a_copy_and_one_that_is_gone_is_left_out(tmp_path: Path) -> None:
    model, copies, said = tmp_path / "model", tmp_path / "copies", list[str]()
    copies.mkdir()
    prefixes = [save(model, "ckpt-1", shards=2), f"{model}/ckpt-2", save(model, "ckpt-3")]
    followed = Followed()
    seen: list[tuple[str, dict[str, str]]] = []
    for local in each(Folder(), prefixes, copies, followed, said.append):
        assert followed == Followed(prefixes[len(seen) * 2], local)
        seen.append((local, {p.name: p.read_text() for p in copies.iterdir()}))
    assert seen == [
        (f"{copies}/ckpt-1", {"ckpt-1.index": "ckpt-1", "ckpt-1.data-00000-of-00002": "ckpt-1 0",
                              "ckpt-1.data-00001-of-00002": "ckpt-1 1"}),
        (f"{copies}/ckpt-3", {"ckpt-3.index": "ckpt-3", "ckpt-3.data-00000-of-00001": "ckpt-3 0"}),
    ]
    assert said == [f"evaluating {model}/ckpt-2: there is no whole checkpoint of this name; "
                    "there are: ckpt-1, ckpt-3; going on with the next"]


def test_one_pass_takes_a_whole_checkpoint_alone(tmp_path: Path) -> None:
    copies, there, cut = tmp_path / "copies", save(tmp_path, "ckpt-2"), save(tmp_path, "ckpt-3")
    copies.mkdir()
    Path(f"{cut}.index").unlink()
    assert list(only(Folder(), there, copies, Followed())) == [f"{copies}/ckpt-2"]
    for prefix in (cut, f"{tmp_path}/ckpt-4", f"{tmp_path}/ckpt-2.index", f"{tmp_path}/ckpt"):
        with pytest.raises(SystemExit) as stop:
            only(Folder(), prefix, copies, Followed())
        assert stop.value.code == (f"gcpod_launcher: evaluating {prefix}: there is no whole checkpoint of this name; "
                                   "there are: ckpt-2")


def test_one_pass_over_a_folder_that_cannot_be_read_ends_with_one_line(tmp_path: Path) -> None:
    files = Folder()
    files.out = True
    with pytest.raises(SystemExit) as stop:
        only(files, f"{tmp_path}/ckpt-2", tmp_path, Followed(), lambda _: None)
    assert stop.value.code == f"gcpod_launcher: evaluating {tmp_path}/ckpt-2: the storage does not answer"


def test_a_storage_that_fails_for_a_moment_costs_no_evaluation(tmp_path: Path) -> None:
    copies, files, said, pauses = tmp_path / "copies", Folder(), list[str](), list[float]()
    copies.mkdir()
    files.out = True

    def recover(seconds: float) -> None:
        pauses.append(seconds)
        files.out = len(pauses) < 2

    prefix = save(tmp_path / "model", "ckpt-5")
    assert list(each(files, [prefix], copies, Followed(), said.append, recover)) == [f"{copies}/ckpt-5"]
    assert len(pauses) == 2
    assert said == []
    files.out = True
    assert list(each(files, [prefix], copies, Followed(), said.append, pauses.append)) == []
    assert "going on with the next" in said[0]
