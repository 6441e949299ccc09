"""200 real photographs from their XML to an exported model, as Python packages, on the runtime tf2.12."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcpod.cache import cache_dir
from gcpod.jobs.reporter import Quiet
from gcpod.localcloud.cloud import JobCloud
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import DataSpec, EvalSpec, MachineSpec, ModelSpec, RuntimeSpec, Spec, TrainSpec
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri

pytestmark = pytest.mark.trainer


def test_real_photographs_train_from_annotations_to_saved_model(raccoon: Path, tmp_path: Path) -> None:
    spec = Spec(
        name="raccoon", folder=tmp_path,
        data=DataSpec(images=str(raccoon / "images"), annotations=str(raccoon / "annotations")),
        model=ModelSpec(image_size=96, depth_multiplier=0.35),
        train=TrainSpec(steps=100, batch_size=8, machine=MachineSpec("n1-standard-4")),
        eval=EvalSpec(poll_s=2.0, machine=MachineSpec("n1-standard-4")),
        runtime=RuntimeSpec("tf2.12", "package", "local-docker.pkg.dev/p/gcpod/gcpod-trainer-tf2.12-cpu:latest"),
    )
    with JobCloud(tmp_path / "cloud", cache=cache_dir()) as cloud:
        session = Session(resolve(spec, endpoint=cloud.url))
        result = Run(spec, session, Quiet()).start()
        objects = Objects(session)
        root, model = GcsUri.parse(result.root), GcsUri.parse(result.saved_model)
        there = {info.uri.name.removeprefix(root.prefix) for info in objects.list(root)}
        shared = {info.uri.name.partition("/")[0] + "/" + info.uri.name.rpartition("/")[2]
                  for info in objects.list(GcsUri(root.bucket))}
        assert objects.exists(model / "saved_model.pb")
        session.storage.close()
    assert {"pipeline.config", "manifest.json", "model/checkpoint"} <= there
    assert {"export/pipeline.config", "export/checkpoint/checkpoint"} <= there
    assert "datasets/label_map.pbtxt" in shared
    assert any(name.startswith("packages/object_detection-") for name in shared)
    assert result.final is not None
    assert result.final.step == 100
    # A box that fills the picture scores above 0.4 here: this proves that everything fits together, not the learning.
    assert result.final.ap50 > 0.1
    assert {p.parent.name for p in result.tensorboard.glob("*/events.out.tfevents.*")} == {"train", "eval"}
