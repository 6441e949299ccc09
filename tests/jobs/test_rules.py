"""Rules of a run's jobs: what Vertex AI refuses, and what contradicts itself, is said before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.jobs.rules import FLEX_START, LABEL_KEY, LABEL_VALUE, MAX_ENV, MAX_LABELS, check_jobs, refuse_jobs
from gcpod.settings import Setting, Settings
from gcpod.spec import (
    METRICS,
    EvalSpec,
    ExportSpec,
    JobsSpec,
    MachineSpec,
    PackagesSpec,
    RuntimeSpec,
    ScheduleSpec,
    Spec,
    TrainSpec,
)
from gcpod.specfile import parse_spec

SPOT, FLEX = ScheduleSpec("spot"), ScheduleSpec("flex_start")
POD, V5E_POD = MachineSpec("cloud-tpu", "TPU_V2", 32), MachineSpec("ct5lp-hightpu-4t", tpu_topology="4x4")
V5E = MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2")
L4, T4 = MachineSpec("g2-standard-8", "NVIDIA_L4", 1), MachineSpec("n1-standard-8", "NVIDIA_TESLA_T4", 1)
CPU = MachineSpec("n1-standard-4")
BOARD = "projects/p/locations/us-central1/tensorboards/7"
KEY = "projects/q/locations/{}/keyRings/r/cryptoKeys/k"
ACCOUNT = "a@p.iam.gserviceaccount.com"


def settings(region: str = "us-central1", project: str = "p") -> Settings:
    def known(value: str) -> Setting:
        return Setting(value, "test")

    return Settings(known(project), known(region), known("gs://p-gcpod"), known(""), known(""))


def found(spec: Spec, region: str = "us-central1") -> list[tuple[str, str, str]]:
    return [(one.code, one.severity, one.where) for one in check_jobs(spec, settings(region))]


def test_a_default_spec_breaks_no_rule() -> None:
    assert found(Spec()) == found(Spec(), "local") == []


GOOD = [
    Spec(train=TrainSpec(machine=T4, workers=3)), Spec(train=TrainSpec(machine=CPU, workers=3)),
    Spec(train=TrainSpec(schedule=SPOT)), Spec(train=TrainSpec(machine=V5E, schedule=SPOT)),
    Spec(train=TrainSpec(machine=L4, schedule=ScheduleSpec("flex_start", 2))),
    Spec(train=TrainSpec(machine=L4, workers=1, schedule=FLEX), eval=EvalSpec(machine=L4, beside="pool")),
    Spec(train=TrainSpec(machine=T4), eval=EvalSpec(beside="pool", stop_after=2), export=ExportSpec(checkpoint="best")),
    Spec(service_account=ACCOUNT, jobs=JobsSpec(tensorboard=BOARD)),
    Spec(service_account=ACCOUNT, jobs=JobsSpec(tensorboard=BOARD.replace("projects/p", "projects/12"))),
    Spec(jobs=JobsSpec(kms_key=KEY.format("us-central1"), network="projects/1/global/networks/n")),
    Spec(jobs=JobsSpec(labels={"team": "birds", "a-b_c": "", "x" * 63: "9" * 63}, env={"A": "", "_b1": "$(A)"})),
    Spec(jobs=JobsSpec(env={"TF_CONFIG_FILE": "1", "AIP": "1"})),
    Spec(eval=EvalSpec(best_metric="Loss/total_loss", metrics="pascal_voc_detection_metrics")),
    Spec(eval=EvalSpec(best_metric="PascalBoxes_Precision/mAP@0.5IOU", metrics="pascal_voc_detection_metrics")),
    Spec(train=TrainSpec(schedule=ScheduleSpec(retries=False)), eval=EvalSpec(schedule=ScheduleSpec("spot"))),
]


@pytest.mark.parametrize("spec", GOOD)
def test_what_runs(spec: Spec) -> None:
    assert found(spec) == []
    refuse_jobs(spec, settings())


def jobs(**given: Any) -> Spec:
    return Spec(jobs=JobsSpec(**given))


WRONG: list[tuple[Spec, str, str]] = [
    (Spec(train=TrainSpec(machine=V5E), runtime=RuntimeSpec("tf2.12")), "J402", "train.machine"),
    (Spec(export=ExportSpec(machine=V5E), runtime=RuntimeSpec("tf2.12")), "J402", "export.machine"),
    (Spec(train=TrainSpec(machine=MachineSpec("n1-standard-9"))), "J402", "train.machine"),
    (Spec(eval=EvalSpec(machine=MachineSpec("foo"))), "J402", "eval.machine"),
    (Spec(train=TrainSpec(workers=1)), "J402", "train.workers"),
    (Spec(train=TrainSpec(machine=V5E, workers=1)), "J402", "train.workers"),
    (Spec(train=TrainSpec(machine=CPU, workers=2)), "C208", "train.batch_size"),
    (Spec(train=TrainSpec(machine=POD, schedule=SPOT)), "J402", "train.schedule.strategy"),
    (Spec(train=TrainSpec(machine=V5E_POD, schedule=SPOT)), "J402", "train.schedule.strategy"),
    (Spec(train=TrainSpec(schedule=FLEX)), "J402", "train.schedule.strategy"),
    (Spec(eval=EvalSpec(schedule=FLEX)), "J402", "eval.schedule.strategy"),
    (Spec(export=ExportSpec(schedule=FLEX)), "J402", "export.schedule.strategy"),
    (Spec(train=TrainSpec(schedule=ScheduleSpec(max_wait_hours=1))), "E101", "train.schedule.max_wait_hours"),
    (Spec(eval=EvalSpec(schedule=ScheduleSpec("spot", 1))), "E101", "eval.schedule.max_wait_hours"),
    (Spec(train=TrainSpec(schedule=ScheduleSpec(restart_workers=True, retries=False))), "E101",
     "train.schedule.restart_workers"),
    (Spec(eval=EvalSpec(beside="pool")), "J402", "eval.beside"),
    (Spec(train=TrainSpec(machine=L4, schedule=FLEX), eval=EvalSpec(machine=T4, beside="pool")), "J402", "eval.beside"),
    (Spec(eval=EvalSpec(best_metric="")), "E101", "eval.best_metric"),
    (Spec(eval=EvalSpec(best_metric="--once")), "E101", "eval.best_metric"),
    (Spec(eval=EvalSpec(metrics="pascal_voc_detection_metrics")), "E101", "eval.best_metric"),
    (Spec(train=TrainSpec(arguments=("--a",))), "E101", "train.arguments"),
    (Spec(train=TrainSpec(module="own.training")), "E101", "train.module"),
    (jobs(tensorboard=BOARD), "E101", "jobs.tensorboard"),
    (replace(jobs(tensorboard=BOARD.replace("us-central1", "us-east1")), service_account=ACCOUNT), "E101",
     "jobs.tensorboard"),
    (replace(jobs(tensorboard=BOARD.replace("projects/p", "projects/q")), service_account=ACCOUNT), "E101",
     "jobs.tensorboard"),
    (jobs(kms_key=KEY.format("us-east1")), "E101", "jobs.kms_key"),
    (jobs(kms_key=KEY.format("global")), "E101", "jobs.kms_key"),
    *((jobs(labels=labels), "E101", "jobs.labels") for labels in (
        {"Team": "a"}, {"1a": "a"}, {"_a": "a"}, {"-": "a"}, {"a.b": "a"}, {"a" * 64: "a"}, {"": "a"}, {"ä": "a"},
        {"a": "B"}, {"a": "b c"}, {"a": "b" * 64}, {"a": "ß"}, {"a\n": "b"}, {"a": "b\n"}, {"gcpod_run": "a"},
        {"gcpod_mine": "a"}, {f"a{number}": "a" for number in range(MAX_LABELS + 1)},
    )),
    *((jobs(env=env), "E101", "jobs.env") for env in (
        {"1A": ""}, {"": ""}, {"A-B": ""}, {"A B": ""}, {"Ä": ""}, {"A\n": ""}, {"A=": ""}, {"AIP_MODEL_DIR": ""},
        {"CLOUD_ML_JOB_ID": ""}, {"TF_CONFIG": ""}, {"CLUSTER_SPEC": ""},
        {f"A{number}": "" for number in range(MAX_ENV + 1)},
    )),
    # A v5e brings two of its own.
    (Spec(train=TrainSpec(machine=V5E), jobs=JobsSpec(env={f"A{number}": "" for number in range(MAX_ENV - 1)})), "E101",
     "jobs.env"),
]


@pytest.mark.parametrize(("spec", "code", "where"), WRONG)
def test_what_does_not_run_is_one_error(spec: Spec, code: str, where: str) -> None:
    assert found(spec) == [(code, "error", where)]
    with pytest.raises(SpecError) as caught:
        refuse_jobs(spec, settings())
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{code}: planning the jobs by {where}: ")
    assert "\n" not in str(caught.value)


def test_several_errors_are_counted() -> None:
    spec = Spec(train=TrainSpec(workers=1), jobs=JobsSpec(labels={"A": "B"}))
    with pytest.raises(SpecError, match=r"\(and 2 more errors\)"):
        refuse_jobs(spec, settings())


def test_machines_are_among_it() -> None:
    assert found(Spec(), "us-west2") == [("J402", "error", "train.machine")]
    with pytest.raises(SpecError, match="choosing the runtime tf9"):
        refuse_jobs(Spec(runtime=RuntimeSpec("tf9")), settings())
    evaluated = Spec(eval=EvalSpec(machine=MachineSpec("cloud-tpu", "TPU_V2", 8)))
    assert ("J401", "error", "eval.machine") in found(evaluated)


def test_what_only_surprises_is_a_warning() -> None:
    spec = Spec(train=TrainSpec(machine=T4), eval=EvalSpec(beside="pool", schedule=SPOT))
    assert found(spec) == [("E101", "warning", "eval.schedule")]
    refuse_jobs(spec, settings())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A training package with a module, a package that can be run, and one that cannot."""
    for name in ("training", "tool"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "__init__.py").touch()
    (tmp_path / "own" / "training" / "loop.py").touch()
    (tmp_path / "own" / "tool" / "__main__.py").touch()
    (tmp_path / "own" / "pyproject.toml").write_text('[project]\nname = "own"\nversion = "1"\n', encoding="utf-8")
    return tmp_path


def of_module(project: Path, module: str, arguments: tuple[str, ...] | None = None) -> Spec:
    train, packages = TrainSpec(module=module, arguments=arguments), PackagesSpec(training="own")
    return Spec(train=train, packages=packages, folder=project)


@pytest.mark.parametrize("module", ["training.loop", "tool", "tool.__main__"])
def test_modules_that_the_package_has(project: Path, module: str) -> None:
    assert found(of_module(project, module)) == []


@pytest.mark.parametrize("module", ["training", "training.lop", "loop", "training.loop.x", "own.training.loop"])
def test_modules_that_it_has_not(project: Path, module: str) -> None:
    [one] = check_jobs(of_module(project, module), settings())
    assert (one.code, one.severity, one.where) == ("E101", "error", "train.module")
    assert "training.loop" in one.fix


def test_a_package_that_cannot_be_read_is_told_elsewhere(tmp_path: Path) -> None:
    assert found(of_module(tmp_path, "training")) == []


def test_words_in_braces_that_stand_for_nothing(project: Path) -> None:
    assert found(of_module(project, "tool", ("{data}{model}", '{"a": {}}', "{}", "{A}"))) == []
    [one] = check_jobs(of_module(project, "tool", ("--to={modle}",)), settings())
    assert (one.severity, one.where, one.found) == (
        "warning", "train.arguments", "{modle} stands for nothing and stays as it is")


def test_every_metrics_set_has_names_that_are_known() -> None:
    for metrics in METRICS:
        spec = Spec(eval=EvalSpec(metrics=metrics))
        own = metrics == "coco_detection_metrics"
        assert found(spec) == ([] if own else [("E101", "error", "eval.best_metric")])


def test_flex_start_runs_on_accelerators_that_google_names() -> None:
    for accelerator in FLEX_START & {"NVIDIA_L4", "NVIDIA_TESLA_A100", "NVIDIA_A100_80GB", "NVIDIA_H100_80GB"}:
        kind = {"NVIDIA_L4": "g2-standard-8", "NVIDIA_TESLA_A100": "a2-highgpu-1g",
                "NVIDIA_A100_80GB": "a2-ultragpu-1g", "NVIDIA_H100_80GB": "a3-highgpu-1g"}[accelerator]
        assert found(Spec(train=TrainSpec(machine=MachineSpec(kind, accelerator, 1), schedule=FLEX))) == []


PARTS = st.text(st.sampled_from("az09_-Aé .\n"), max_size=70) | st.sampled_from(["a", "a-9_", "gcpod_mine", "a" * 63])
LABELS = st.dictionaries(PARTS, PARTS, max_size=3)


@given(LABELS)
def test_labels_pass_or_are_refused(labels: Mapping[str, str]) -> None:
    fit = all(LABEL_KEY.fullmatch(key) and LABEL_VALUE.fullmatch(value) and not key.startswith("gcpod_")
              for key, value in labels.items())
    assert (found(jobs(labels=labels)) == []) is fit


def test_every_word_of_the_jobs_is_read_from_a_file() -> None:
    text = """
service_account: a@p.iam.gserviceaccount.com
jobs:
  network: projects/1/global/networks/n
  tensorboard: projects/p/locations/us-central1/tensorboards/7
  kms_key: projects/q/locations/us-central1/keyRings/r/cryptoKeys/k
  labels: {team: birds, cost: 7}
  env: {TF_CPP_MIN_LOG_LEVEL: 1}
  disk_type: pd-standard
  disk_gb: 200
"""
    spec = parse_spec(text, Path("gcpod.yaml"))
    assert all(getattr(spec.jobs, one.name) is not None for one in fields(JobsSpec))
    assert found(spec) == []


def test_what_the_documents_show_breaks_no_rule() -> None:
    text = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition("## The request\n")[2], flags=re.MULTILINE)[0]
    shown = re.findall(r"^```yaml\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    assert len(shown) == 2
    assert [found(parse_spec(one, Path("gcpod.yaml"))) for one in shown] == [[], []]
