"""Request bodies: what Vertex AI is asked for, by every kind of job in both modes."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from google.cloud.aiplatform_v1.types import AcceleratorType, CustomJob
from hypothesis import given
from hypothesis import strategies as st

from gcpod.jobs.request import KINDS, Kind, image_uri, label, plan_job, to_request
from gcpod.layout import RunLayout
from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.discovery import load
from gcpod.localcloud.jobs_api import ENUM_NUMBERS
from gcpod.localcloud.schema import check_body
from gcpod.runtimes import find_runtime, runtime_of_image
from gcpod.spec import EvalSpec, ExportSpec, MachineSpec, RuntimeSpec, Spec, TrainSpec
from gcpod.uris import GcsUri

SCHEMA = "GoogleCloudAiplatformV1CustomJob"
LAYOUT = RunLayout.of(GcsUri("bucket", "folder"), "detector-1")
PACKAGES = ("gs://bucket/p/a-1.tar.gz", "gs://bucket/p/b-1.tar.gz")
SPEC = Spec()
RUNTIME = find_runtime(SPEC.runtime.name)
MACHINES = (
    MachineSpec("n1-standard-4"), MachineSpec("n1-standard-8", "NVIDIA_TESLA_T4", 2),
    MachineSpec("cloud-tpu", "TPU_V2", 8), MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2"),
)


def request(
    kind: Kind, machine: MachineSpec = MACHINES[0], spec: Spec = SPEC, attempt: int = 1, train_attempt: int = 1,
) -> dict[str, Any]:
    plan = plan_job(kind, attempt, spec, LAYOUT, machine, PACKAGES, "detector-1", train_attempt)
    return to_request(plan, spec, LAYOUT, "detector-1", image_uri(spec, RUNTIME, machine, "p", "us-central1"))


def pool_of(body: dict[str, Any]) -> dict[str, Any]:
    [pool] = body["jobSpec"]["workerPoolSpecs"]
    assert isinstance(pool, dict)
    return pool


def given_arguments(body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The launcher's options and the module's own."""
    pool = pool_of(body)
    arguments = (pool.get("containerSpec") or pool["pythonPackageSpec"])["args"]
    divide = arguments.index("--")
    return arguments[:divide], arguments[divide + 1 :]


@pytest.mark.parametrize("mode", ["container", "package"])
@pytest.mark.parametrize("machine", MACHINES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_and_googles_own_type_take_it(kind: Kind, machine: MachineSpec, mode: str) -> None:
    spec = Spec(runtime=RuntimeSpec(mode=mode), service_account="runner@p.iam.gserviceaccount.com")
    body = request(kind, machine, spec)
    assert check_body(load("aiplatform.v1"), SCHEMA, body, ENUM_NUMBERS) == body
    job = CustomJob.from_json(CustomJob.to_json(CustomJob.from_json(json.dumps(body))))
    told = job.job_spec.worker_pool_specs[0]
    assert (job.display_name, dict(job.labels)) == (f"detector-1-{kind}", body["labels"])
    assert (told.machine_spec.machine_type, told.replica_count) == (machine.type, 1)
    assert told.machine_spec.tpu_topology == (machine.tpu_topology or "")
    assert told.machine_spec.accelerator_type == AcceleratorType[machine.accelerator or "ACCELERATOR_TYPE_UNSPECIFIED"]
    assert told.machine_spec.accelerator_count == machine.count
    assert job.job_spec.base_output_directory.output_uri_prefix == "gs://bucket/folder/runs/detector-1"
    assert job.job_spec.service_account == "runner@p.iam.gserviceaccount.com"
    assert bool(told.container_spec.image_uri) is (mode == "container")
    assert list(told.python_package_spec.package_uris) == (list(PACKAGES) if mode == "package" else [])




def test_the_schema_check_is_no_rubber_stamp() -> None:
    body = request("train")
    pool_of(body)["machineSpec"]["colour"] = "red"
    with pytest.raises(ApiError, match=r"job_spec\.worker_pool_specs\[0\]\.machine_spec"):
        check_body(load("aiplatform.v1"), SCHEMA, body, ENUM_NUMBERS)


def test_container_mode() -> None:
    container = pool_of(request("train"))["containerSpec"]
    assert container["imageUri"] == "us-central1-docker.pkg.dev/p/gcpod/gcpod-trainer-tf2.15-cpu:latest"
    assert container["command"] == ["python", "-m", "gcpod_launcher"]
    assert container["args"][:4] == ["--package", PACKAGES[0], "--package", PACKAGES[1]]


def test_package_mode() -> None:
    package = pool_of(request("eval", MACHINES[1], Spec(runtime=RuntimeSpec(mode="package"))))["pythonPackageSpec"]
    assert package["executorImageUri"] == RUNTIME.prebuilt["gpu"]
    assert (package["packageUris"], package["pythonModule"]) == (list(PACKAGES), "gcpod_launcher.__main__")
    assert "--package" not in package["args"]


@pytest.mark.parametrize(("machine", "kind"), list(zip(MACHINES, ("cpu", "gpu", "tpu", "tpu"), strict=True)))
def test_images(machine: MachineSpec, kind: str) -> None:
    image = image_uri(Spec(), RUNTIME, machine, "p", "europe-west4")
    assert image == f"europe-west4-docker.pkg.dev/p/gcpod/{RUNTIME.images[kind]}:latest"
    assert runtime_of_image(image) == RUNTIME
    own = Spec(runtime=RuntimeSpec(image="eu.gcr.io/p/mine@sha256:1"))
    assert image_uri(own, RUNTIME, machine, "p", "europe-west4") == "eu.gcr.io/p/mine@sha256:1"


def test_train_arguments() -> None:
    spec = Spec(train=TrainSpec(steps=1000, checkpoint_every=300, timeout_hours=1.5))
    body = request("train", spec=spec, attempt=2, train_attempt=2)
    launcher, module = given_arguments(body)
    assert launcher[4:] == [
        "--role", "train", "--marker", "gs://bucket/folder/runs/detector-1/jobs/train-2.ended.json",
        "--module", "object_detection.model_main_tf2",
    ]
    assert module == [
        "--model_dir=gs://bucket/folder/runs/detector-1/model",
        "--pipeline_config_path=gs://bucket/folder/runs/detector-1/pipeline.config", "--checkpoint_every_n=200",
        "--alsologtostderr",
    ]
    assert body["jobSpec"]["scheduling"] == {"timeout": "5400s"}
    assert "serviceAccount" not in body["jobSpec"]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_tpu_flags_go_with_tpus_only(machine: MachineSpec) -> None:
    _, module = given_arguments(request("train", machine))
    flags = [one for one in module if one.startswith(("--use_tpu", "--tpu"))]
    assert flags == (["--use_tpu=true", "--tpu_name=local"] if machine.is_tpu else [])
    for kind in ("eval", "export"):
        module = given_arguments(request(kind, machine))[1]
        assert not [one for one in module if one.startswith(("--use_tpu", "--tpu"))]


def test_a_v5e_is_told_where_its_driver_is() -> None:
    container = pool_of(request("train", MACHINES[3]))["containerSpec"]
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so",
    }
    assert all("env" not in pool_of(request("train", machine))["containerSpec"] for machine in MACHINES[:3])


def test_evaluation_and_export_arguments() -> None:
    spec = Spec(eval=EvalSpec(poll_s=2.5, timeout_hours=2), export=ExportSpec(timeout_hours=0.5))
    body = request("eval", spec=spec, attempt=3, train_attempt=2)
    launcher, module = given_arguments(body)
    assert launcher[launcher.index("--marker") + 1].endswith("/jobs/train-2.ended.json")
    assert launcher[launcher.index("--poll_s") + 1] == "2.5"
    assert "--checkpoint_dir=gs://bucket/folder/runs/detector-1/model" in module
    assert body["jobSpec"]["scheduling"] == {"timeout": "7200s"}
    assert body["labels"] == {"gcpod_run": "detector-1", "gcpod_intent": "detector-1-eval-2-3", "gcpod_kind": "eval"}
    body = request("export", spec=spec)
    launcher, module = given_arguments(body)
    assert launcher[4:] == ["--module", "object_detection.exporter_main_v2"]
    assert "--output_directory=gs://bucket/folder/runs/detector-1/export" in module
    assert body["jobSpec"]["scheduling"] == {"timeout": "1800s"}


def test_every_attempt_is_an_intent_of_its_own() -> None:
    intents = {request(kind, attempt=number)["labels"]["gcpod_intent"] for kind in KINDS for number in (1, 2, 11)}
    assert len(intents) == 9
    assert get_args(Kind) == KINDS


@given(st.text(max_size=100))
def test_labels_are_valid(text: str) -> None:
    made = label(text)
    assert len(made) <= 63
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert label(made) == made


def test_a_long_label_keeps_its_end() -> None:
    assert label("x" * 100 + "-train-12").endswith("x-train-12")
    plan = plan_job("train", 12, Spec(), LAYOUT, MACHINES[0], (), "r" * 80, 1)
    assert plan.labels["gcpod_intent"].endswith("-train-12")
