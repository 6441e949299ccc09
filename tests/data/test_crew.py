"""A list worked through by several processes: the same results whatever becomes of the helpers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from gcpod.data.crew import Crew
from gcpod.errors import DataError
from tests.waiting import until

from . import crew_work


def impatient(helpers: int = 1) -> Crew:
    return Crew(helpers, patience_s=0)


def test_helpers_share_the_work_and_the_order_stays() -> None:
    with impatient(2) as crew:
        found = list(crew.ordered(crew_work.process, range(40)))
        assert list(crew.ordered(partial(pow, 2), range(40))) == [2**item for item in range(40)]
    # The first ones were handed over before anything was done here.
    assert found[0] == found[1] != found[2] == found[3]
    assert os.getpid() in found
    assert os.getpid() not in found[:4]


def test_a_crew_of_one() -> None:
    with Crew(0) as crew:
        assert set(crew.ordered(crew_work.process, range(40))) == {os.getpid()}
        assert list(crew.ordered(crew_work.process, [])) == []


def test_nobody_is_hired_for_what_is_done_in_no_time() -> None:
    with Crew(1, patience_s=60) as crew:
        assert set(crew.ordered(crew_work.process, range(40))) == {os.getpid()}
        assert set(crew.ordered(crew_work.process, range(100))) > {os.getpid()}


def test_a_program_that_brings_python_along_has_no_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with impatient() as crew:
        assert set(crew.ordered(crew_work.process, range(9))) == {os.getpid()}


def test_each_helper_has_one_copy_of_an_object() -> None:
    with impatient() as crew:
        found = list(crew.ordered(crew_work.Counting(), range(30)))
    for process in {process for process, _ in found}:
        calls = [count for one, count in found if one == process]
        assert calls == list(range(1, len(calls) + 1))


def test_large_things_pass_both_ways_at_once() -> None:
    items = [bytes([item]) * 3_000_000 for item in range(12)]
    with impatient() as crew:
        assert all(len(one) == 6_000_000 for one in crew.ordered(crew_work.doubled, items, ahead=4))


def test_an_error_comes_where_its_item_stands() -> None:
    with impatient() as crew:
        results = crew.ordered(crew_work.refuse_odd, [0, 2, 4, 5, 6])
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(DataError, match="halving 5: it is odd"):
            next(results)
        assert list(crew.ordered(crew_work.refuse_odd, [8])) == [4]


@pytest.mark.parametrize("work", [crew_work.only_here, crew_work.die_elsewhere])
def test_what_a_helper_does_not_get_done_is_done_here(work: object) -> None:
    assert callable(work)
    items = [(os.getpid(), item) for item in range(60)]
    with impatient(2) as crew:
        for _ in range(2):
            assert list(crew.ordered(work, items)) == list(range(60))


def test_what_cannot_be_handed_over_is_done_here() -> None:
    with impatient() as crew:
        assert list(crew.ordered(lambda item: item + 1, range(9))) == list(range(1, 10))
        assert list(crew.ordered(len, [{(): iter(())}, "ab"])) == [1, 2]
        assert set(crew.ordered(crew_work.process, range(40))) > {os.getpid()}
        assert all(isinstance(one, crew_work.Unreadable) for one in crew.ordered(crew_work.unreadable, range(3)))


def test_a_list_that_is_left_early_does_not_disturb_the_next() -> None:
    with impatient() as crew:
        for _ in crew.ordered(crew_work.doubled, [b"a"] * 100):
            break
        assert list(crew.ordered(crew_work.doubled, [b"b"] * 20)) == [b"bb"] * 20


SCRIPT = """
import os, signal, sys
from gcpod.data.crew import Crew
from tests.data import crew_work

print("started", flush=True)
with Crew(1, patience_s=0) as crew:
    print(*crew.ordered(crew_work.process, range(3)), flush=True)
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_script_needs_no_main_guard_and_leaves_nobody_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for end, status in ((), 0), (("die",), -signal.SIGKILL):
        done = subprocess.run(
            [sys.executable, str(script), *end], env=environment, capture_output=True, text=True, check=False,
        )
        assert (done.returncode, done.stderr) == (status, "")
        started, processes = done.stdout.splitlines()
        assert started == "started"
        helper = int(processes.split()[0])
        until(partial(gone, helper))


def gone(process: int) -> bool:
    """Whether it has ended; init may still have to take note of that."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() == b""
    except OSError:
        return True
