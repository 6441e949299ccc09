"""Worker pools: what the machines of distributed trainings, of evaluators and of the user's own modules run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.jobs.budget import job_costs
from gcpod.jobs.pools import PLACEHOLDER
from gcpod.jobs.prices import PriceTable
from gcpod.jobs.request import KINDS, Kind, kinds_of, plan_job, to_request
from gcpod.layout import RunLayout
from gcpod.runtimes import LAUNCHER
from gcpod.spec import EvalSpec, JobsSpec, MachineSpec, RuntimeSpec, ScheduleSpec, Spec, TrainSpec
from gcpod.uris import GcsUri

LAYOUT = RunLayout.of(GcsUri("bucket"), "detector-1", "d1", "p1")
ROOT = "gs://bucket/runs/detector-1"
T4, CPU = MachineSpec("n1-standard-8", "NVIDIA_TESLA_T4", 1), MachineSpec("n1-standard-4")
MACHINES: dict[Kind, MachineSpec] = {"train": T4, "eval": CPU, "export": CPU}


def job(spec: Spec, kind: Kind = "train") -> dict[str, Any]:
    plan = plan_job(kind, 1, spec, LAYOUT, MACHINES, ("gs://bucket/p/a.tar.gz",), "detector-1", 1)
    body: dict[str, Any] = to_request(plan, spec, LAYOUT, "detector-1", lambda one: f"image of {one.type}")["jobSpec"]
    return body


def pools_of(spec: Spec) -> list[dict[str, Any]]:
    pools: list[dict[str, Any]] = job(spec)["workerPoolSpecs"]
    return pools


def arguments_of(pool: dict[str, Any]) -> list[str]:
    given: list[str] = (pool.get("containerSpec") or pool["pythonPackageSpec"])["args"]
    return given


@pytest.mark.parametrize("mode", ["container", "package"])
def test_workers_run_what_the_chief_runs(mode: str) -> None:
    jobs = JobsSpec(env={"A": "1"}, disk_gb=200)
    chief, workers = pools_of(Spec(train=TrainSpec(workers=3), runtime=RuntimeSpec(mode=mode), jobs=jobs))
    assert (chief["replicaCount"], workers["replicaCount"]) == ("1", "3")
    assert {**workers, "replicaCount": "1"} == chief
    assert chief["machineSpec"]["acceleratorType"] == "NVIDIA_TESLA_T4"
    assert "--num_workers=4" in arguments_of(chief)
    assert chief["diskSpec"] == {"bootDiskSizeGb": 200}
    [alone] = pools_of(Spec())
    assert not [one for one in arguments_of(alone) if one.startswith("--num_workers")]


@pytest.mark.parametrize("mode", ["container", "package"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluator_is_the_fourth_pool(workers: int, mode: str) -> None:
    beside, runtime = EvalSpec(beside="pool", stop_after=2), RuntimeSpec(mode=mode)
    spec = Spec(train=TrainSpec(workers=workers, timeout_hours=3), eval=beside, runtime=runtime)
    pools = pools_of(spec)
    assert len(pools) == 4
    assert [bool(pool) for pool in pools] == [True, bool(workers), False, True]
    evaluator, task = pools[3], "containerSpec" if mode == "container" else "pythonPackageSpec"
    assert (evaluator["replicaCount"], evaluator["machineSpec"]) == ("1", {"machineType": "n1-standard-4"})
    image = "imageUri" if mode == "container" else "executorImageUri"
    assert (pools[0][task][image], evaluator[task][image]) == ("image of n1-standard-8", "image of n1-standard-4")
    own = Spec(train=spec.train, eval=EvalSpec(stop_after=2), runtime=runtime)
    [alone] = job(own, "eval")["workerPoolSpecs"]
    assert evaluator == alone
    assert pools[: 1 + bool(workers)] == pools_of(own)
    assert (kinds_of(spec), kinds_of(own)) == (("train", "export"), KINDS)
    assert job(spec)["scheduling"] == {"timeout": "10800s"}
    with pytest.raises(SpecError, match="a pool of the training's job"):
        job(spec, "eval")


def test_the_schedule_of_a_training_is_that_of_its_evaluator() -> None:
    spot = Spec(train=TrainSpec(schedule=ScheduleSpec("spot")), eval=EvalSpec(beside="pool"))
    assert job(spot)["scheduling"] == {"timeout": "86400s", "strategy": "SPOT"}


def test_a_module_of_ones_own_gets_what_the_trainer_gets() -> None:
    args = arguments_of(pools_of(Spec(train=TrainSpec(module="own.training", workers=1)))[0])
    divide = args.index("--")
    assert args[:divide] == [
        "--package", "gs://bucket/p/a.tar.gz", "--role", "train", "--marker", f"{ROOT}/jobs/train-1.ended.json",
        "--stop", f"{ROOT}/jobs/train-1.stop.json", "--module", "own.training",
    ]
    assert args[divide + 1 :] == [
        f"--model_dir={ROOT}/model", f"--pipeline_config_path={ROOT}/pipeline.config", "--checkpoint_every_n=500",
    ]
    assert "object_detection.model_main_tf2" in arguments_of(job(Spec(train=TrainSpec(module="own.a")), "eval")[
        "workerPoolSpecs"][0])


def test_places_in_arguments() -> None:
    given = ("--records", "{data}/train-*", "{config}:{model}", "{label_map}", '--json={"a": {}, "root": "{root}"}',
             "{step}", "--", "")
    args = arguments_of(pools_of(Spec(train=TrainSpec(module="own.training", arguments=given)))[0])
    assert args[args.index("--") + 1 :] == [
        "--records", "gs://bucket/datasets/d1/train-*", f"{ROOT}/pipeline.config:{ROOT}/model",
        "gs://bucket/datasets/d1/label_map.pbtxt", f'--json={{"a": {{}}, "root": "{ROOT}"}}', "{step}", "--", "",
    ]


SPECS = [
    Spec(), Spec(train=TrainSpec(workers=2)), Spec(eval=EvalSpec(beside="pool", stop_after=3, min_delta=1e-7)),
    Spec(train=TrainSpec(workers=1, module="own.training", arguments=("--x", "--", "{data}")),
         eval=EvalSpec(beside="pool")),
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_launcher_takes_its_options(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LAUNCHER))
    from gcpod_launcher.__main__ import arguments

    jobs: list[tuple[Kind, str]] = [*((kind, "") for kind in kinds_of(spec)), ("eval", "ckpt-5")]
    for kind, checkpoint in jobs:
        plan = plan_job(kind, 1, spec, LAYOUT, MACHINES, (), "detector-1", 1, checkpoint)
        for pool in filter(None, plan.pools):
            told = arguments([*pool.launcher, "--module", pool.module, "--", *pool.arguments])
            assert (told.module, tuple(told.rest)) == (pool.module, pool.arguments)
            options = [one.removeprefix("--") for one in pool.launcher if one.startswith("--")]
            assert all(getattr(told, option) is not None for option in options)


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_paid_for_is_what_is_asked_for(spec: Spec) -> None:
    for cost in job_costs(spec, MACHINES, "us-central1", PriceTable()):
        plan = plan_job(cost.kind, 1, spec, LAYOUT, MACHINES, (), "detector-1", 1)
        asked = [(pool.replicas, pool.machine) for pool in plan.pools if pool is not None]
        assert [(1, cost.machine), *cost.further] == asked
        assert cost.timeout_s == plan.timeout_s


@given(st.lists(st.text(st.sampled_from("{}datconfigmelbrp_ $\\")), max_size=4))
def test_nothing_else_in_arguments_is_touched(given_: list[str]) -> None:
    args = arguments_of(pools_of(Spec(train=TrainSpec(module="own.training", arguments=tuple(given_))))[0])
    for told, one in zip(args[args.index("--") + 1 :], given_, strict=True):
        assert (told == one) is (PLACEHOLDER.search(one) is None)
