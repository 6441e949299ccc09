from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from gcpod_launcher.checkpoints import index_text, named_by
from gcpod_launcher.replicas import Replica
from gcpod_launcher.training import Training, evaluated, reason_in
from hypothesis import given
from hypothesis import strategies as st

from gcpod.runtimes import LAUNCHER

from .folder import Folder, save

CHIEF, WORKER = Replica(), Replica("worker", 1, chief=False)
WITH_EVALUATOR = Replica(evaluator_beside=True)


class Job:
    """A training in this process; ``left`` gets the exit code of an early end."""

    def __init__(self, root: Path, replica: Replica = CHIEF) -> None:
        self.marker, self.stop, self.model = root / "train-1.ended.json", root / "stop.json", root / "model"
        self.files, self.said, self.left, self._left = Folder(), list[str](), list[int](), threading.Event()
        self.training = Training(self.files, str(self.marker), str(self.stop), replica, self.said.append, self._leave,
                                 look_s=0.01)

    def _leave(self, code: int) -> None:
        self.left.append(code)
        self._left.set()

    def wait(self) -> None:
        assert self._left.wait(10)

    @property
    def marked(self) -> object:
        return json.loads(self.marker.read_text()) if self.marker.exists() else None


def test_the_marker_of_an_earlier_start_goes_and_the_index_is_mended(tmp_path: Path) -> None:
    job = Job(tmp_path)
    for name in (job.marker, Path(evaluated(str(job.marker)))):
        name.write_text("{}")
    save(job.model, "ckpt-1")
    (job.model / "checkpoint").write_text(index_text(["ckpt-2"]))
    job.training.begin(str(job.model))
    assert {p.name for p in tmp_path.iterdir()} == {"model"}
    assert named_by((job.model / "checkpoint").read_text()) == "ckpt-1"


def test_other_machines_than_the_chief_change_nothing(tmp_path: Path) -> None:
    job = Job(tmp_path, WORKER)
    job.marker.write_text("{}")
    save(job.model, "ckpt-1")
    (job.model / "checkpoint").write_text(index_text(["ckpt-2"]))
    job.training.begin(str(job.model))
    assert job.training.end(0) == 0
    assert (job.files.changes, job.marked) == (0, {})


@pytest.mark.parametrize("code", [0, 1, 7])
def test_the_end_is_marked_with_the_exit_code(tmp_path: Path, code: int) -> None:
    job = Job(tmp_path)
    job.training.watch()
    assert job.training.end(code) == code
    assert job.marked == {"exit_code": code}
    assert job.left == []


def test_the_marker_is_written_when_the_storage_is_back(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.files.fail_at = 0

    def back(line: str) -> None:
        job.said.append(line)
        job.files.fail_at = None if len(job.said) == 3 else 0

    job.training = Training(job.files, str(job.marker), None, CHIEF, back, look_s=0.01)
    assert job.training.end(0) == 0
    assert job.marked == {"exit_code": 0}
    assert job.said == [f"writing {job.marker}: the storage went away; trying again"] * 3


def test_the_stop_object_ends_the_training_as_a_success(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.training.watch()
    job.stop.write_text('{"reason": "nothing\\nto gain", "step": 5}')
    job.wait()
    assert (job.left, job.marked) == ([0], {"exit_code": 0, "stopped": True})
    assert job.said == ["the training stops early: nothing to gain"]


def test_an_outage_is_waited_out(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.files.out = True
    job.stop.write_text("{}")
    job.training.watch()
    assert not job._left.wait(0.05)
    job.files.out = False
    job.wait()
    assert job.left == [0]


def test_an_early_end_waits_for_a_checkpoint_that_is_being_written(tmp_path: Path) -> None:
    job = Job(tmp_path)
    with job.training.saving:
        job.stop.write_text("{}")
        job.training.watch()
        assert not job._left.wait(0.1)
        assert job.marked is None
    job.wait()
    assert job.marked == {"exit_code": 0, "stopped": True}


def test_a_worker_leaves_after_its_chief(tmp_path: Path) -> None:
    job = Job(tmp_path, WORKER)
    job.stop.write_text("{}")
    job.training.watch()
    assert not job._left.wait(0.1)
    job.marker.write_text("{}")
    job.wait()
    assert (job.left, job.files.changes) == ([0], 0)


@pytest.mark.parametrize(("replica", "marked"), [(CHIEF, {"exit_code": 0, "stopped": True}), (WORKER, None)])
def test_one_that_fails_because_the_others_stopped_has_stopped(
    tmp_path: Path, replica: Replica, marked: object,
) -> None:
    job = Job(tmp_path, replica)
    job.stop.write_text("{}")
    assert job.training.end(1) == 0
    assert job.marked == marked


def test_the_chief_waits_for_the_evaluator_of_its_job(tmp_path: Path) -> None:
    job = Job(tmp_path, WITH_EVALUATOR)
    ended = threading.Thread(target=job.training.end, args=(0,))
    ended.start()
    ended.join(0.1)
    assert (ended.is_alive(), job.marked) == (True, {"exit_code": 0})
    Path(evaluated(str(job.marker))).write_text("{}")
    ended.join(10)
    assert not ended.is_alive()


def test_a_failed_chief_waits_for_nobody(tmp_path: Path) -> None:
    assert Job(tmp_path, WITH_EVALUATOR).training.end(1) == 1


@given(st.one_of(st.text(), st.builds(json.dumps, st.dictionaries(st.just("reason"), st.one_of(st.text(), st.none())))))
def test_any_stop_object_gives_a_reason_of_one_line(text: str) -> None:
    reason = reason_in(text)
    assert 0 < len(reason) <= 500
    assert len(reason.splitlines()) == 1


BUSY = """
import sys, threading
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from gcpod_launcher.replicas import Replica
from gcpod_launcher.training import Training
from tests.launcher.folder import Folder
training = Training(Folder(), sys.argv[3] + "/marker", sys.argv[3] + "/stop", Replica(), print, look_s=0.01)
training.watch()
print("started", flush=True)
threading.Event().wait()  # as a step that never returns
"""


def test_the_process_ends_whatever_it_is_doing(tmp_path: Path) -> None:
    project = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", BUSY, str(LAUNCHER), str(project), str(tmp_path)], text=True,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        (tmp_path / "stop").write_text("{}")
        assert process.stdout.read() == "the training stops early: no reason is given\n"
        assert process.wait(10) == 0
    assert json.loads((tmp_path / "marker").read_text()) == {"exit_code": 0, "stopped": True}
