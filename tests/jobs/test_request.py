"""Request bodies: what Vertex AI is asked for, by every kind of job in both modes."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
from google.cloud.aiplatform_v1.types import AcceleratorType, CustomJob
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.jobs.request import KINDS, Kind, image_uri, intent_of, kinds_of, label, plan_job, to_request
from gcpod.layout import RunLayout
from gcpod.localcloud.api_error import ApiError
from gcpod.localcloud.discovery import load
from gcpod.localcloud.jobs_api import ENUM_NUMBERS
from gcpod.localcloud.schema import check_body
from gcpod.runtimes import find_runtime, runtime_of_image
from gcpod.spec import (
    DISK_TYPES,
    STRATEGIES,
    EvalSpec,
    ExportSpec,
    JobsSpec,
    MachineSpec,
    RuntimeSpec,
    ScheduleSpec,
    Spec,
    TrainSpec,
)
from gcpod.uris import GcsUri

SCHEMA = "GoogleCloudAiplatformV1CustomJob"
LAYOUT = RunLayout.of(GcsUri("bucket", "folder"), "detector-1", "d1", "p1")
PACKAGES = ("gs://bucket/p/a-1.tar.gz", "gs://bucket/p/b-1.tar.gz")
SPEC = Spec()
RUNTIME = find_runtime(SPEC.runtime.name)
MACHINES = (
    MachineSpec("n1-standard-4"), MachineSpec("n1-standard-8", "NVIDIA_TESLA_T4", 2),
    MachineSpec("cloud-tpu", "TPU_V2", 8), MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2"),
)


def request(
    kind: Kind, machine: MachineSpec = MACHINES[0], spec: Spec = SPEC, attempt: int = 1, train_attempt: int = 1,
    checkpoint: str = "", run_id: str = "detector-1",
) -> dict[str, Any]:
    machines: dict[Kind, MachineSpec] = dict.fromkeys(KINDS, machine)
    plan = plan_job(kind, attempt, spec, LAYOUT, machines, PACKAGES, run_id, train_attempt, checkpoint)
    return to_request(plan, spec, LAYOUT, run_id, lambda one: image_uri(spec, RUNTIME, one, "p", "us-central1"))


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
        "--stop", "gs://bucket/folder/runs/detector-1/jobs/train-2.stop.json",
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
    assert launcher[4:] == [
        "--role", "eval", "--marker", "gs://bucket/folder/runs/detector-1/jobs/train-2.ended.json", "--poll_s", "2.5",
        "--timeout_s", "7200", "--best", "gs://bucket/folder/runs/detector-1/best",
        "--metric", "DetectionBoxes_Precision/mAP", "--min_delta", "0.0", "--module", "object_detection.model_main_tf2",
    ]
    assert "--checkpoint_dir=gs://bucket/folder/runs/detector-1/model" in module
    assert body["jobSpec"]["scheduling"] == {"timeout": "7200s"}
    assert body["labels"] == {"gcpod_run": "detector-1", "gcpod_intent": "detector-1-eval-2-3", "gcpod_kind": "eval"}
    body = request("export", spec=spec)
    launcher, module = given_arguments(body)
    assert launcher[4:] == ["--module", "object_detection.exporter_main_v2"]
    assert "--output_directory=gs://bucket/folder/runs/detector-1/export" in module
    assert body["jobSpec"]["scheduling"] == {"timeout": "1800s"}


def test_an_evaluation_that_may_end_the_training_knows_where_to_say_so() -> None:
    spec = Spec(eval=EvalSpec(stop_after=3, min_delta=1e-7, best_metric="Loss/total_loss"))
    launcher, _ = given_arguments(request("eval", spec=spec, train_attempt=2))
    assert launcher[launcher.index("--metric") : launcher.index("--module")] == [
        "--metric", "Loss/total_loss", "--min_delta", "1e-07", "--stop_after", "3",
        "--stop", "gs://bucket/folder/runs/detector-1/jobs/train-2.stop.json",
    ]


def test_one_pass_over_a_checkpoint() -> None:
    body = request("eval", checkpoint="ckpt-5")
    launcher, module = given_arguments(body)
    root = "gs://bucket/folder/runs/detector-1"
    assert launcher[4:-2] == ["--role", "eval", "--once", f"{root}/model/ckpt-5"]
    assert f"--checkpoint_dir={root}/model" in module
    assert body["labels"]["gcpod_intent"] == "detector-1-eval-ckpt-5-1"
    launcher, module = given_arguments(request("eval", checkpoint="gs://other/a/b/model.ckpt-70"))
    assert launcher[4:-2] == ["--role", "eval", "--once", "gs://other/a/b/model.ckpt-70"]
    assert module[0] == f"--model_dir={root}/model"
    assert "--checkpoint_dir=gs://other/a/b" in module
    beside = Spec(eval=EvalSpec(beside="pool"))
    assert given_arguments(request("eval", spec=beside, checkpoint="ckpt-5")) == given_arguments(
        request("eval", checkpoint="ckpt-5"))


@pytest.mark.parametrize("checkpoint", [
    "ckpt", "ckpt-", "ckpt-x", "5", "best", "../ckpt-5", "/model/ckpt-5", "ckpt-5.index", "ckpt-1234567890", "s3://a/b",
    "gs://bucket", "gs://bucket/ckpt-5", "gs://bucket/a/", "gs://bucket/a/ckpt-5.index", "gs://bucket/a/checkpoint",
    "gs://bucket/a/ckpt-5.data-00000-of-00001", "gs://B/a/ckpt-5", "gs://bucket/a/ckpt\n5", "gs://bucket/a/ckpt-\x1b",
])
@pytest.mark.parametrize("kind", ["eval", "export"])
def test_what_is_no_checkpoint(kind: Kind, checkpoint: str) -> None:
    with pytest.raises(SpecError) as caught:
        request(kind, checkpoint=checkpoint)
    assert "\n" not in str(caught.value)


def test_which_checkpoint_is_exported() -> None:
    root = "gs://bucket/folder/runs/detector-1"
    assert f"--trained_checkpoint_dir={root}/model" in given_arguments(request("export"))[1]
    best = Spec(export=ExportSpec(checkpoint="best"))
    assert f"--trained_checkpoint_dir={root}/best" in given_arguments(request("export", spec=best))[1]
    assert f"--trained_checkpoint_dir={root}/best" in given_arguments(
        request("export", checkpoint=f"{root}/best/ckpt-5"))[1]
    for spec in (SPEC, best):
        with pytest.raises(SpecError, match=r"does not lie alone; set export\.checkpoint: best"):
            request("export", spec=spec, checkpoint="ckpt-5")
    with pytest.raises(SpecError, match=r"model\.fine_tune_checkpoint"):
        request("train", checkpoint="ckpt-5")


SCHEDULES: list[tuple[ScheduleSpec, dict[str, Any]]] = [
    (ScheduleSpec(), {}), (ScheduleSpec("spot"), {"strategy": "SPOT"}),
    (ScheduleSpec("spot", max_wait_hours=1), {"strategy": "SPOT"}),
    (ScheduleSpec("flex_start"), {"strategy": "FLEX_START"}),
    (ScheduleSpec("flex_start", 2.5), {"strategy": "FLEX_START", "maxWaitDuration": "9000s"}),
    (ScheduleSpec(restart_workers=True), {"restartJobOnWorkerRestart": True}),
    (ScheduleSpec(retries=False), {"disableRetries": True}),
]


@pytest.mark.parametrize(("schedule", "told"), SCHEDULES)
def test_schedules(schedule: ScheduleSpec, told: dict[str, Any]) -> None:
    spec = Spec(train=TrainSpec(schedule=schedule))
    assert request("train", spec=spec)["jobSpec"]["scheduling"] == {"timeout": "86400s", **told}
    for kind in ("eval", "export"):
        assert set(request(kind, spec=spec)["jobSpec"]["scheduling"]) == {"timeout"}
    elsewhere = Spec(eval=EvalSpec(schedule=schedule), export=ExportSpec(schedule=schedule))
    assert request("eval", spec=elsewhere)["jobSpec"]["scheduling"] == {"timeout": "86400s", **told}
    assert request("export", spec=elsewhere)["jobSpec"]["scheduling"] == {"timeout": "7200s", **told}


KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
JOBS = JobsSpec(
    network="projects/1/global/networks/n", tensorboard="projects/p/locations/us-central1/tensorboards/7", kms_key=KEY,
    labels={"team": "birds", "gcpod_run": "mine"}, env={"A": "1", "NEXT_PLUGGABLE_DEVICE_USE_C_API": "false"},
    disk_type="pd-standard", disk_gb=200,
)


@pytest.mark.parametrize("mode", ["container", "package"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_every_job_gets(kind: Kind, mode: str) -> None:
    spec = Spec(jobs=JOBS, service_account="a@p.iam.gserviceaccount.com", runtime=RuntimeSpec(mode=mode))
    body = request(kind, MACHINES[3], spec)
    job, pool = body["jobSpec"], pool_of(body)
    assert (job["network"], job["tensorboard"]) == (JOBS.network, JOBS.tensorboard)
    assert body["encryptionSpec"] == {"kmsKeyName": KEY}
    assert (body["labels"]["team"], body["labels"]["gcpod_run"]) == ("birds", "detector-1")
    assert pool["diskSpec"] == {"bootDiskType": "pd-standard", "bootDiskSizeGb": 200}
    task = pool.get("containerSpec") or pool["pythonPackageSpec"]
    assert {one["name"]: one["value"] for one in task["env"]} == {
        "A": "1", "NEXT_PLUGGABLE_DEVICE_USE_C_API": "false", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so",
    }


def test_nothing_asked_for_is_nothing_sent() -> None:
    """What a default spec's jobs are, to the letter."""
    root, package = "gs://bucket/folder/runs/detector-1", "gs://bucket/p/a-1.tar.gz"
    machines: dict[Kind, MachineSpec] = {
        "train": SPEC.train.machine, "eval": SPEC.eval.machine, "export": SPEC.export.machine,
    }
    plan = plan_job("train", 1, SPEC, LAYOUT, machines, (package,), "detector-1", 1)
    body = to_request(plan, SPEC, LAYOUT, "detector-1", lambda one: image_uri(SPEC, RUNTIME, one, "p", "us-central1"))
    pool = {
        "machineSpec": {"machineType": "cloud-tpu", "acceleratorType": "TPU_V2", "acceleratorCount": 8},
        "replicaCount": "1",
        "containerSpec": {
            "imageUri": "us-central1-docker.pkg.dev/p/gcpod/gcpod-trainer-tf2.15-tpu:latest",
            "command": ["python", "-m", "gcpod_launcher"],
            "args": [
                "--package", package, "--role", "train", "--marker", f"{root}/jobs/train-1.ended.json",
                "--stop", f"{root}/jobs/train-1.stop.json", "--module", "object_detection.model_main_tf2", "--",
                f"--model_dir={root}/model", f"--pipeline_config_path={root}/pipeline.config",
                "--checkpoint_every_n=500", "--alsologtostderr", "--use_tpu=true", "--tpu_name=local",
            ],
        },
    }
    expected = {
        "displayName": "detector-1-train",
        "labels": {"gcpod_run": "detector-1", "gcpod_intent": "detector-1-train-1", "gcpod_kind": "train"},
        "jobSpec": {
            "workerPoolSpecs": [pool], "scheduling": {"timeout": "86400s"},
            "baseOutputDirectory": {"outputUriPrefix": root},
        },
    }
    assert json.dumps(body) == json.dumps(expected)


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
    labels = request("train", attempt=12, run_id="r" * 80)["labels"]
    assert labels["gcpod_intent"].endswith("-train-12")


def test_passes_over_other_checkpoints_are_other_intents() -> None:
    names = ("", "ckpt-5", "ckpt-50", "gs://aaa/m/ckpt-5", "gs://bbb/m/ckpt-5", "gs://bbb/m/" + "x" * 90 + "ckpt-5",
             "gs://bbb/m/Ckpt-5")
    intents = [intent_of("eval", 1, 1, name) for name in names]
    assert intents[:2] == ["eval-1-1", "eval-ckpt-5-1"]
    assert len(set(intents)) == len(names)
    assert all(label(intent) == intent for intent in intents)
    # The digest that tells a run from others of its name stays in the label beside any of them.
    run = "a" * 40 + "-0123abcd-12"
    assert all("0123abcd" in request("eval", checkpoint=name, run_id=run)["labels"]["gcpod_intent"] for name in names)


CHECKPOINTS = st.sampled_from(["", "ckpt-7", "gs://bucket/a/model.ckpt-70"])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
HOURS = st.floats(0.1, 168)
SCHEDULED = st.builds(
    ScheduleSpec, st.sampled_from(STRATEGIES), st.none() | HOURS, st.booleans(), st.booleans(),
)
SPECS = st.builds(
    Spec,
    service_account=st.none() | st.just("a@p.iam.gserviceaccount.com"),
    train=st.builds(
        TrainSpec, timeout_hours=HOURS, workers=st.integers(0, 100), schedule=SCHEDULED,
        module=st.none() | st.just("own.training"), arguments=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    ),
    eval=st.builds(
        EvalSpec, poll_s=st.floats(1, 3600), timeout_hours=HOURS, schedule=SCHEDULED,
        beside=st.sampled_from(["job", "pool"]), stop_after=st.none() | st.integers(1, 10_000),
        min_delta=st.floats(0, 1e6),
    ),
    export=st.builds(ExportSpec, timeout_hours=HOURS, checkpoint=st.sampled_from(["last", "best"]), schedule=SCHEDULED),
    runtime=st.builds(RuntimeSpec, mode=st.sampled_from(["container", "package"])),
    jobs=st.builds(
        JobsSpec, network=st.sampled_from([None, JOBS.network]), tensorboard=st.sampled_from([None, JOBS.tensorboard]),
        kms_key=st.sampled_from([None, KEY]), labels=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
        env=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3), disk_type=st.sampled_from([None, *DISK_TYPES]),
        disk_gb=st.none() | st.integers(100, 64_000),
    ),
)


@given(SPECS, st.sampled_from(KINDS), st.sampled_from(MACHINES), CHECKPOINTS, st.text(max_size=200),
       st.integers(1, 10_000))
def test_every_request_passes_the_schema_and_the_rules_of_names(
    spec: Spec, kind: Kind, machine: MachineSpec, checkpoint: str, run_id: str, attempt: int,
) -> None:
    try:
        body = request(kind, machine, spec, attempt, attempt, checkpoint, run_id)
    except SpecError:
        assert (kind != "eval" and checkpoint) or (kind not in kinds_of(spec) and not checkpoint)
        return
    assert check_body(load("aiplatform.v1"), SCHEMA, body, ENUM_NUMBERS) == body
    assert 0 < len(body["displayName"]) <= 128
    own = {key: value for key, value in body["labels"].items() if key.startswith("gcpod_")}
    assert len(own) >= 3
    assert all(re.fullmatch(r"[a-z0-9_-]{0,63}", value) for value in own.values())
    pools = body["jobSpec"]["workerPoolSpecs"]
    assert pools[0]["replicaCount"] == "1"
    assert 1 <= len(pools) <= 4
    assert ("maxWaitDuration" in body["jobSpec"]["scheduling"]) <= (
        body["jobSpec"]["scheduling"].get("strategy") == "FLEX_START")
