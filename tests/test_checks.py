"""`gcpod check`: what is said about data, machines, images and steps before anything is uploaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.checks import check
from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.errors import ConfigError
from gcpod.prepare import prepare
from gcpod.settings import Setting, Settings
from gcpod.spec import DataSpec, MachineSpec, RuntimeSpec, Spec
from tests.data.making import Dataset


def settings(region: str) -> Settings:
    def known(value: str) -> Setting:
        return Setting(value, "test")

    return Settings(known("p"), known(region), known("gs://p-gcpod"), known(""), known(""))


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    data = Dataset(tmp_path)
    for number in range(4):
        data.add(f"picture{number}.jpg", Box("cat", 10, 10, 60, 40))
    return replace(demo_spec(), folder=tmp_path, data=DataSpec(images="images"))


def codes(spec: Spec, region: str) -> list[tuple[str, str]]:
    return [(f.code, f.severity) for f in check(spec, settings(region)) if not f.code.startswith("D")]


def test_the_local_region_says_which_machines_it_runs_instead(spec: Spec) -> None:
    found = [f for f in check(spec, settings("local")) if f.code == "J402"]
    assert [(f.severity, f.where) for f in found] == [("note", "train.machine"), ("note", "eval.machine")]
    assert all("CPU machines only" in f.found for f in found)


def test_machines_are_held_against_the_region_and_the_runtime(spec: Spec) -> None:
    assert codes(spec, "us-central1") == []
    assert ("J402", "error") in codes(spec, "us-west2")
    v5e = replace(spec, train=replace(spec.train, machine=MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2")))
    assert codes(v5e, "us-central1") == []
    earlier = RuntimeSpec(name="tf2.12")
    assert codes(replace(spec, runtime=earlier), "us-central1") == [("K301", "warning")]
    assert ("J402", "error") in codes(replace(v5e, runtime=earlier), "us-central1")
    evaluated = replace(spec, eval=replace(spec.eval, machine=MachineSpec("cloud-tpu", "TPU_V2", 8)))
    assert ("J401", "error") in codes(evaluated, "us-central1")


def test_images_that_lack_something_are_said(spec: Spec) -> None:
    package = replace(spec, runtime=RuntimeSpec(mode="package"))
    assert ("K301", "warning") in codes(package, "us-central1")
    own = replace(spec, runtime=RuntimeSpec(image="us-docker.pkg.dev/p/r/mine:1"))
    assert codes(own, "us-central1") == []
    assert ("E101", "error") in codes(replace(spec, runtime=RuntimeSpec(name="tf9")), "us-central1")


def test_steps_and_checkpoints(spec: Spec) -> None:
    odd = replace(spec, train=replace(spec.train, steps=60))
    assert ("C210", "warning") in codes(odd, "local")
    absent = replace(spec, model=replace(spec.model, fine_tune_checkpoint="nowhere/ckpt-1"))
    assert ("C201", "error") in codes(absent, "local")
    batch = replace(spec, train=replace(spec.train, batch_size=12))
    assert ("C208", "error") in codes(batch, "us-central1")


def test_a_missing_folder_names_the_key_of_the_spec(spec: Spec) -> None:
    absent = replace(spec, data=DataSpec(images="absent"))
    [found] = [f for f in check(absent, settings("local")) if f.severity == "error"]
    assert found.code == "E102"
    assert "data.images" in found.fix


def test_a_config_that_would_end_the_job_is_told_before_anything_is_sent(spec: Spec) -> None:
    odd = replace(spec, model=replace(spec.model, template="ssd_inception_v2", image_size=None, depth_multiplier=None))
    with pytest.raises(ConfigError, match="is for TensorFlow 1") as caught:
        prepare(odd, settings("local"))
    assert caught.value.code == "C203"
    assert ("C203", "error") in codes(odd, "local")
