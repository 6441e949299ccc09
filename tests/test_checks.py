"""`gcpod check`: what is said about data, machines, images and steps before anything is uploaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.checks import check
from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.errors import ConfigError, SpecError
from gcpod.layout import RunLayout
from gcpod.prepare import build_spec_dataset, check_config, prepare, render_spec_config
from gcpod.settings import Setting, Settings
from gcpod.spec import DataSpec, JobsSpec, MachineSpec, PackagesSpec, RuntimeSpec, Spec
from gcpod.uris import GcsUri
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


def test_the_batch_is_held_against_the_gpus_of_the_machine(spec: Spec) -> None:
    gpus = MachineSpec("n1-standard-8", "NVIDIA_TESLA_T4", 4)
    six = replace(spec, train=replace(spec.train, machine=gpus, batch_size=6))
    assert ("C208", "error") in codes(six, "us-central1")
    assert codes(replace(six, train=replace(six.train, batch_size=8)), "us-central1") == []
    together = replace(six, train=replace(six.train, batch_size=8, workers=2))
    assert codes(together, "us-central1") == [("C208", "error")]
    assert codes(replace(together, train=replace(together.train, batch_size=24)), "us-central1") == []


def test_a_run_is_held_against_the_source_that_it_packages(spec: Spec) -> None:
    protos = spec.folder / "source" / "object_detection" / "protos"
    protos.mkdir(parents=True)
    (protos / "pipeline_pb2.py").write_text(
        "D = p.AddSerializedFile(b'\\n\\x01p\\x12\\x17object_detection.protos'\n"
        "                        b'\\\"\\x19\\n\\x17TrainEvalPipelineConfig')", encoding="utf-8",
    )
    own = replace(spec, packages=PackagesSpec(source="source"))
    manifest, layout = build_spec_dataset(spec), RunLayout.of(GcsUri("p-gcpod"), "run")
    config = render_spec_config(spec, manifest, layout)
    assert check_config(config, spec, manifest, spec.train.machine) == []
    with pytest.raises(ConfigError, match="of object_detection source has no field model") as caught:
        check_config(config, own, manifest, spec.train.machine)
    assert caught.value.code == "C202"
    told = replace(own, model=replace(own.model, set={"train_config.max_number_of_boxes": "50"}))
    with pytest.raises(ConfigError, match="has no field"):
        render_spec_config(told, manifest, layout)


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


def test_rules_of_the_jobs_are_told_and_end_a_run_before_its_dataset_is_built(spec: Spec) -> None:
    labelled = replace(spec, jobs=JobsSpec(labels={"Team": "birds"}))
    assert codes(labelled, "us-central1") == [("E101", "error")]
    with pytest.raises(SpecError, match=r"E101: planning the jobs by jobs\.labels: 'Team' is no name of a label"):
        prepare(replace(labelled, data=DataSpec(images="absent")), settings("us-central1"))
    elsewhere = replace(spec, data=DataSpec(images="absent"))
    with pytest.raises(SpecError, match="the nearest that runs: cloud-tpu with 8 x TPU_V2") as caught:
        prepare(elsewhere, settings("us-west2"))
    assert caught.value.code == "J402"
