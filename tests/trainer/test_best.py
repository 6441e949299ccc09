"""The best checkpoint, an early stop, one pass, and a checkpoint that lost a part: real training over gs://.

The evaluation is a machine of the training's job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gcpod.cache import cache_dir
from gcpod.data.demo import draw_demo
from gcpod.jobs.logs import LogReader
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import Watcher
from gcpod.localcloud.cloud import JobCloud
from gcpod.prepare import Prepared, prepare
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import DataSpec, EvalSpec, ExportSpec, MachineSpec, ModelSpec, Spec, TrainSpec
from gcpod.status import JobState
from gcpod.storage.objects import Objects
from gcpod.uploads import upload_run

pytestmark = pytest.mark.trainer
CPU = MachineSpec("n1-standard-4")
STEPS = 100_000
"""Hours of training: it ends because it is stopped."""
CHIEF, EVALUATOR = "workerpool0-0", "workerpool3-0"
DELTA = 1e6
"""Nothing is better by that much, so the second evaluated checkpoint is the one that ends the training."""


@dataclass
class Place:
    """A prepared run in a bucket, and the jobs that were run on it."""

    session: Session
    prepared: Prepared

    def __post_init__(self) -> None:
        self.objects, self.jobs = Objects(self.session), Jobs(self.session)

    def run(self, kind: Any, *more: str, checkpoint: str = "") -> tuple[JobState, list[str]]:
        """How one of the run's jobs ends, and its log; with further arguments for its module it is a second attempt,
        without an evaluator."""
        body = self.prepared.request(kind, self.session.settings, 2 if more else 1, checkpoint=checkpoint)
        if more:
            del body["jobSpec"]["workerPoolSpecs"][1:]
            body["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"] += more
        ended = Watcher(self.jobs).wait(self.jobs.create(body).name)
        return ended.state, [f"{line.task}: {line.text}" for line in LogReader(self.session, ended.id).poll()]

    def text(self, uri: Any) -> str:
        content = self.objects.read(uri)
        assert content is not None, uri
        return content.content.decode()

    def names(self, folder: Any) -> set[str]:
        return {info.uri.name.removeprefix(folder.prefix) for info in self.objects.list(folder)}

    @property
    def newest(self) -> int:
        """The number of the checkpoint that the model folder's index names."""
        found = re.match(r'model_checkpoint_path: "ckpt-(\d+)"', self.text(self.prepared.layout.model / "checkpoint"))
        assert found is not None
        return int(found[1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("best")
    draw_demo(folder / "drawn", train=8, eval=2)
    spec = Spec(
        name="best", folder=folder,
        data=DataSpec(images=str(folder / "drawn" / "images"), annotations=str(folder / "drawn" / "annotations")),
        model=ModelSpec(image_size=96, depth_multiplier=0.35, set={"train_input_reader.shuffle_buffer_size": "8"}),
        train=TrainSpec(steps=STEPS, batch_size=2, checkpoint_every=100, machine=CPU),
        eval=EvalSpec(poll_s=1.0, machine=CPU, beside="pool", stop_after=1, min_delta=DELTA),
        export=ExportSpec(checkpoint="best", machine=CPU),
    )
    with JobCloud(folder / "cloud", cache=cache_dir()) as cloud:
        session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=folder))
        prepared = prepare(spec, session.settings)
        place = Place(session, prepared)
        place.objects.ensure_bucket(prepared.layout.root.bucket)
        upload_run(place.objects, prepared, lambda _: None)
        yield place
        session.storage.close()


@dataclass(frozen=True)
class Stopped:
    """The training that was stopped by the evaluation in its job."""

    state: JobState
    log: list[str]


@pytest.fixture(scope="module")
def stopped(place: Place) -> Stopped:
    return Stopped(*place.run("train"))


def evaluated(log: list[str], task: str = EVALUATOR) -> list[int]:
    """The steps of the evaluated checkpoints."""
    return [int(line.rpartition(" ")[2]) for line in log if line.startswith(f"{task}: INFO:tensorflow:Eval metrics")]


def test_an_evaluation_without_a_better_one_ends_the_training(place: Place, stopped: Stopped) -> None:
    layout = place.prepared.layout
    assert stopped.state is JobState.SUCCEEDED, stopped.log
    assert json.loads(place.text(layout.marker(1))) == {"exit_code": 0, "stopped": True}
    stop = json.loads(place.text(layout.stop(1)))
    assert f"{CHIEF}: gcpod_launcher: the training stops early: {stop['reason']}" in stopped.log
    assert stop["step"] == [step for step in evaluated(stopped.log) if step][1]
    assert place.newest * 100 < STEPS


def test_the_chief_waits_for_the_last_evaluation(place: Place, stopped: Stopped) -> None:
    assert f"{CHIEF}: gcpod_launcher: waiting for the job's evaluator to end" in stopped.log
    assert evaluated(stopped.log)[-1] == (place.newest - 1) * 100


def test_the_checkpoint_that_an_early_end_leaves_is_whole(place: Place, stopped: Stopped) -> None:
    assert {f"ckpt-{place.newest}.index", f"ckpt-{place.newest}.data-00000-of-00001"} <= place.names(
        place.prepared.layout.model)


def test_the_summaries_of_the_last_steps_are_there(place: Place, stopped: Stopped) -> None:
    logged = [line for line in stopped.log if re.search(r"INFO:tensorflow:Step \d+ per-step time", line)]
    [events] = [info for info in place.objects.list(place.prepared.layout.model / "train") if info.size]
    content = place.objects.read(events.uri)
    assert content is not None
    assert content.content.count(b"steps_per_sec") >= len(logged) > 0


def test_the_best_lies_apart_with_its_metrics(place: Place, stopped: Stopped) -> None:
    best = place.prepared.layout.best
    found = json.loads(place.text(best / "metrics.json"))
    name = found["checkpoint"]
    assert place.names(best) - {""} == {"checkpoint", "metrics.json", f"{name}.index", f"{name}.data-00000-of-00001"}
    assert found["step"] == next(step for step in evaluated(stopped.log) if step)
    assert name == f"ckpt-{found['step'] // 100 + 1}"
    told = [line for line in stopped.log if "INFO:tensorflow:\t+ DetectionBoxes_Precision/mAP:" in line]
    at = evaluated(stopped.log).index(found["step"])
    assert float(told[at].rpartition(" ")[2]) == pytest.approx(found["value"], abs=1e-6)


def test_the_best_is_exported(place: Place, stopped: Stopped) -> None:
    state, log = place.run("export")
    assert state is JobState.SUCCEEDED, log
    assert place.objects.exists(place.prepared.layout.saved_model / "saved_model.pb")


def test_one_pass_evaluates_the_given_checkpoint_and_no_other(place: Place, stopped: Stopped) -> None:
    state, log = place.run("eval", checkpoint=f"ckpt-{place.newest - 1}")
    assert (state, evaluated(log, CHIEF)) == (JobState.SUCCEEDED, [(place.newest - 2) * 100]), log


def test_one_pass_over_a_missing_checkpoint_ends_with_one_line(place: Place, stopped: Stopped) -> None:
    state, log = place.run("eval", checkpoint="ckpt-9999")
    assert state is JobState.FAILED
    [line] = [line for line in log if "gcpod_launcher" in line]
    found = "there is no whole checkpoint of this name; there are: ckpt-"
    assert f"gcpod_launcher: evaluating {place.prepared.layout.model}/ckpt-9999: {found}" in line
    assert not [line for line in log if "Traceback" in line]


def test_a_training_goes_on_from_the_checkpoint_before_one_that_lost_a_part(place: Place, stopped: Stopped) -> None:
    newest, model = place.newest, place.prepared.layout.model
    [lost] = place.objects.list_exactly(model / f"ckpt-{newest}.data-00000-of-00001")
    assert lost.generation is not None
    place.objects.delete_if(lost.uri, lost.generation)
    # As many steps as the one before has done: restored from it, nothing is left to do; from anywhere else there is.
    state, log = place.run("train", f"--num_train_steps={(newest - 2) * 100}")
    assert state is JobState.SUCCEEDED, log
    assert (f"{CHIEF}: gcpod_launcher: reading {model}/checkpoint: ckpt-{newest} is not whole; the training goes on "
            f"from ckpt-{newest - 1}") in log
    assert not [line for line in log if "per-step time" in line]
    assert place.newest == newest - 1
    assert json.loads(place.text(place.prepared.layout.marker(2))) == {"exit_code": 0}
