"""The runtime tf2.15, which is there for TPUs: the packages' check, and real steps, evaluation and export on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gcpod.cache import cache_dir
from gcpod.data.demo import draw_demo
from gcpod.jobs.reporter import Quiet
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.runtime import ensure_environment
from gcpod.packaging.build import ensure_packages
from gcpod.packaging.check import check_packages
from gcpod.runner import Run
from gcpod.runtimes import find_runtime, image_python
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


@pytest.mark.trainer
def test_the_check_of_its_packages_finds_nothing(gcpod: Any, tmp_path: Path) -> None:
    (tmp_path / "gcpod.yaml").write_text("runtime: {name: tf2.15}\n", encoding="utf-8")
    done = gcpod("package", "check")
    assert (done.code, done.out) == (0, "packages for tf2.15: no errors\n")


@pytest.mark.trainer
def test_pip_installs_its_packages_and_the_launcher_for_package_mode() -> None:
    runtime = find_runtime("tf2.15")
    image = f"local-docker.pkg.dev/p/gcpod/{runtime.images['cpu']}:latest"
    version = image_python(runtime, image)
    python = ensure_environment(runtime, image, cache_dir(), lambda _: None)
    packages = ensure_packages(runtime, version, cache_dir())
    assert check_packages(packages, runtime, python, version, "package") == []


@pytest.mark.trainer
def test_what_it_lacks_is_found_in_it(gcpod: Any, tmp_path: Path) -> None:
    (tmp_path / "gcpod.yaml").write_text("runtime: {name: tf2.15}\npackages: {training: own}\n", encoding="utf-8")
    (tmp_path / "own" / "mine").mkdir(parents=True)
    (tmp_path / "own" / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\ndependencies = ["tensorflow<2.15"]\n', encoding="utf-8",
    )
    (tmp_path / "own" / "mine" / "__init__.py").write_text("import tensorflow.contrib\n", encoding="utf-8")
    found = gcpod("package", "check", "--entry", "mine", "--json").json
    assert [(one["code"], one["severity"]) for one in found] == [("K304", "error"), ("K301", "error")]
    assert "tensorflow.contrib" in found[1]["found"]
