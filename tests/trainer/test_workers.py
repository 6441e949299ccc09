"""A run whose training is two machines: the Object Detection API's own MultiWorkerMirroredStrategy, over gs://."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from gcpod.cache import cache_dir
from gcpod.data.demo import draw_demo
from gcpod.jobs.logs import LogReader
from gcpod.jobs.service import Jobs
from gcpod.layout import RunLayout
from gcpod.localcloud.cloud import JobCloud
from gcpod.results.report import RunResult
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import DataSpec, EvalSpec, ExportSpec, MachineSpec, ModelSpec, Spec, TrainSpec
from gcpod.status import JobInfo, JobState, Progress
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.runs import Told

pytestmark = pytest.mark.trainer
CPU = MachineSpec("n1-standard-4")
CHIEF, WORKER = "workerpool0-0", "workerpool1-0"


def small_spec(folder: Path) -> Spec:
    """One block of steps on two machines, each of which is dealt one of the two shards of eight pictures."""
    draw_demo(folder / "drawn", train=8, eval=2)
    return Spec(
        name="together", folder=folder,
        data=DataSpec(images=str(folder / "drawn" / "images"), annotations=str(folder / "drawn" / "annotations")),
        # The trainer fills its buffer of 2048 pictures before the first step, each time around opening the shards anew.
        model=ModelSpec(image_size=96, depth_multiplier=0.35, set={"train_input_reader.shuffle_buffer_size": "8"}),
        train=TrainSpec(steps=100, batch_size=2, machine=CPU, workers=1),
        eval=EvalSpec(poll_s=2.0, machine=CPU), export=ExportSpec(machine=CPU),
    )


@dataclass(frozen=True)
class Trained:
    """What a run on two machines left: its training's job and lines by machine, and the objects below its model."""

    result: RunResult
    job: JobInfo
    logs: dict[str, list[str]]
    progress: list[Progress]
    model: set[str]
    marker: str
    exported: bool

    def lines(self, task: str, part: str) -> list[str]:
        return [line for line in self.logs[task] if part in line]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    spec, told = small_spec(tmp_path_factory.mktemp("workers")), Told()
    with JobCloud(spec.folder / "cloud", cache=cache_dir()) as cloud:
        session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
        objects = Objects(session)
        result = Run(spec, session, told).start()
        layout = RunLayout(GcsUri.parse(result.root))
        job = Jobs(session).get(result.jobs["train"])
        logs: dict[str, list[str]] = {}
        for line in LogReader(session, job.id).poll():
            logs.setdefault(line.task, []).append(line.text)
        model = {info.uri.name.removeprefix(f"{layout.model.name}/") for info in objects.list(layout.model)}
        marker = objects.read(layout.marker(1))
        exported = objects.exists(layout.saved_model / "saved_model.pb")
        session.storage.close()
    assert marker is not None
    return Trained(result, job, logs, told.progressed, model, marker.content.decode(), exported)


def test_the_training_was_two_machines_and_succeeded(trained: Trained) -> None:
    assert (trained.job.state, trained.job.replicas) == (JobState.SUCCEEDED, 2)
    assert set(trained.logs) == {CHIEF, WORKER, "service"}
    assert json.loads(trained.marker) == {"exit_code": 0}


@pytest.mark.parametrize(("task", "kind"), [(CHIEF, "chief"), (WORKER, "worker")])
def test_each_machine_knew_of_both(trained: Trained, task: str, kind: str) -> None:
    [line] = trained.lines(task, "INFO:tensorflow:MultiWorkerMirroredStrategy with cluster_spec")
    assert f"task_type = '{kind}', task_id = 0, num_workers = 2" in line


def test_both_took_every_step_on_the_same_sum_of_losses(trained: Trained) -> None:
    steps = [len(trained.lines(task, "INFO:tensorflow:Step 100 per-step time")) for task in (CHIEF, WORKER)]
    losses = [trained.lines(task, "'Loss/total_loss'") for task in (CHIEF, WORKER)]
    # Their pictures differ: only what was reduced over both machines is the same to the last digit.
    assert (steps, losses[0]) == ([1, 1], losses[1])
    assert losses[0] != []
    assert trained.lines(CHIEF, "group_size = 2") != []


def test_the_progress_of_two_machines_is_that_of_one_training(trained: Trained) -> None:
    # The evaluation's has no total.
    last = [progress for progress in trained.progress if progress.total_steps is not None][-1]
    assert (last.step, last.total_steps) == (100, 100)
    logged = trained.lines(CHIEF, "'Loss/total_loss'")[0]
    assert last.loss == float(logged.rpartition(": ")[2].rstrip(","))


def test_the_chief_alone_leaves_checkpoints_and_summaries(trained: Trained) -> None:
    parts = {f"ckpt-{number}.{part}" for number in (1, 2) for part in ("index", "data-00000-of-00001")}
    assert {name for name in trained.model if name and "/" not in name} == {"checkpoint", *parts}
    assert len([name for name in trained.model if name.startswith("train/events.")]) == 1


def test_the_last_checkpoint_is_evaluated_and_exported(trained: Trained) -> None:
    assert trained.result.final is not None
    assert trained.result.final.step == 100
    assert trained.exported
