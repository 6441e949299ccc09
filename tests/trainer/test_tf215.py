"""A whole run on the runtime tf2.15, which is there for TPUs: real steps, an evaluation and an export on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcpod.cache import cache_dir
from gcpod.data.demo import draw_demo
from gcpod.jobs.reporter import Quiet
from gcpod.localcloud.cloud import JobCloud
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import DataSpec, EvalSpec, MachineSpec, ModelSpec, RuntimeSpec, Spec, TrainSpec
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri

CPU = MachineSpec("n1-standard-4")


@pytest.mark.trainer
def test_tensorflow_2_15_trains_evaluates_and_exports(tmp_path: Path) -> None:
    draw_demo(tmp_path / "drawn", train=20, eval=4)
    spec = Spec(
        name="drawn", folder=tmp_path,
        data=DataSpec(images=str(tmp_path / "drawn" / "images"), annotations=str(tmp_path / "drawn" / "annotations")),
        model=ModelSpec(image_size=96, depth_multiplier=0.35),
        train=TrainSpec(steps=100, batch_size=4, machine=CPU), eval=EvalSpec(poll_s=2.0, machine=CPU),
        runtime=RuntimeSpec(name="tf2.15"),
    )
    with JobCloud(tmp_path / "cloud", cache=cache_dir()) as cloud:
        session = Session(resolve(spec, endpoint=cloud.url))
        result = Run(spec, session, Quiet()).start()
        assert Objects(session).exists(GcsUri.parse(result.saved_model) / "saved_model.pb")
        session.storage.close()
    assert result.final is not None
    assert result.final.step == 100
