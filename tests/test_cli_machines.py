"""`gcpod machines`, and what `gcpod run` says and does about money."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from gcpod import errors
from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.jobs.machines import listed
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.spec import RecoverySpec, SweepSpec
from gcpod.specfile import load_spec, render_spec
from tests.data.making import Dataset
from tests.jobs import session_of

OK, USAGE, REFUSED = 0, 2, errors.SpecError.exit_code
PRICES = """
date: 2026-11-21
currency: USD
regions:
  us-central1: {n1-standard-4: 0.2, NVIDIA_TESLA_T4: 0.4, cloud-tpu with 8 x TPU_V2: 5}
  local: {n1-standard-4: 0.2}
"""


@pytest.fixture(autouse=True)
def no_prices_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GCPOD_PRICES", raising=False)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own in place of the user's, where prices may lie."""
    monkeypatch.setenv("GCPOD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES, encoding="utf-8")
    return path


def test_the_whole_table_needs_no_account(gcpod: Any, own_cache: Path, tmp_path: Path) -> None:
    shown = gcpod("machines")
    assert shown.code == OK
    assert all(str(one) in shown.out for one in listed())
    assert "unknown" in shown.out
    assert "no prices: fetch them with `gcpod machines --refresh`" in shown.err
    told = gcpod("machines", "--json").json
    assert (told["region"], told["prices"]) == (None, None)
    assert len(told["machines"]) == len(listed())
    assert {row["per_hour"] for row in told["machines"]} == {None}
    assert list(tmp_path.iterdir()) == []


def test_a_region_with_prices(gcpod: Any, prices: Path) -> None:
    told = gcpod("machines", "--region", "us-central1", "--prices", prices, "--json").json
    assert told["prices"] == {"date": "2026-11-21", "currency": "USD", "source": "", "file": str(prices)}
    known = {
        (row["type"], row["accelerator"], row["count"]): row["per_hour"] for row in told["machines"] if row["per_hour"]
    }
    assert known == {
        ("n1-standard-4", None, 0): "0.2", ("cloud-tpu", "TPU_V2", 8): "5",
        ("n1-standard-4", "NVIDIA_TESLA_T4", 1): "0.6", ("n1-standard-4", "NVIDIA_TESLA_T4", 2): "1.0",
        ("n1-standard-4", "NVIDIA_TESLA_T4", 4): "1.8",
    }
    shown = gcpod("machines", "--region", "us-central1", "--accelerator", "TPU_V2", "--prices", prices)
    [row] = [line for line in shown.out.splitlines() if " 8 x TPU_V2" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "cloud-tpu with 8 x TPU_V2", "us-central1, europe-west4, asia-east1", "tf2.15", "5.00 USD", "unknown",
    ]
    assert "prices of 2026-11-21" in shown.err


def test_options_leave_fewer_machines_or_refuse(
    gcpod: Any, own_cache: Path, monkeypatch: pytest.MonkeyPatch, prices: Path,
) -> None:
    monkeypatch.setenv("GCPOD_PRICES", str(prices))
    tf212 = gcpod("machines", "--runtime", "tf2.12", "--json").json["machines"]
    assert tf212
    assert all("tf2.12" in row["runtimes"] and row["tpu_topology"] is None for row in tf212)
    local = gcpod("machines", "--local", "--json").json
    assert {row["accelerator"] for row in local["machines"]} == {None}
    assert local["machines"][0]["per_hour"] == "0.2"
    assert not any("TPU" in str(row["accelerator"]) for row in gcpod("machines", "--region", "us-west2", "--json").json[
        "machines"])
    refused = gcpod("machines", "--region", "us-west2", "--accelerator", "TPU_V3")
    assert (refused.code, refused.out) == (REFUSED, "")
    assert "J402: listing machines in us-west2" in refused.err
    assert "the nearest that runs: cloud-tpu with 8 x TPU_V3 in us-central1" in refused.err
    assert "J402: choosing the accelerator K80" in gcpod("machines", "--accelerator", "K80").err
    assert gcpod("machines", "--runtime", "tf9").code == REFUSED
    assert gcpod("machines", "--prices", "absent").code == REFUSED
    assert gcpod("machines", "--refresh", "--prices", prices).code == USAGE
    assert gcpod("machines", "--refresh").code == errors.AuthError.exit_code


def test_prices_are_fetched_and_kept(gcpod: Any, quick_cloud: JobCloud, own_cache: Path) -> None:
    fetched = gcpod("machines", "--refresh", "--endpoint", quick_cloud.url, "--json")
    assert fetched.code == OK
    assert fetched.json["prices"]["source"] == "local cloud (made up)"
    rows = {row["type"]: row["per_hour"] for row in fetched.json["machines"]}
    assert Decimal(rows["n1-standard-8"]) == Decimal("0.47")
    assert str(own_cache / "prices-local.yaml") in fetched.err
    again = gcpod("machines", "--endpoint", quick_cloud.url, "--json").json
    assert again == fetched.json
    refused = gcpod("machines", "--refresh", "--endpoint", quick_cloud.url, "--currency", "EUR")
    assert (refused.code, refused.err.count("\n")) == (errors.ServiceError.exit_code, 1)
    assert gcpod("machines", "--endpoint", quick_cloud.url, "--json").json == again
    # What a local cloud made up never counts elsewhere.
    assert gcpod("machines", "--region", "local", "--json").json["prices"] is None


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a few labelled images and a gcpod.yaml."""
    data = Dataset(tmp_path)
    for number in range(8):
        data.add(f"picture{number}.jpg", Box("cat" if number % 2 else "dog", 10, 10, 60, 40))
    text = render_spec(demo_spec(steps=100)).replace("data/images", "images").replace("data/annotations", "")
    (tmp_path / "gcpod.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def in_google(project: Path) -> None:
    path = project / "gcpod.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("region:", "region: us-central1").replace("project:", "project: p"), encoding="utf-8")


def test_a_dry_run_tells_the_cost(gcpod: Any, project: Path, prices: Path) -> None:
    in_google(project)
    dry = gcpod("run", "--dry-run", "--prices", prices)
    assert [one["cost"] for one in dry.json] == [
        {"per_hour": "5", "worst": "120", "currency": "USD"}, {"per_hour": "0.6", "worst": "14.4", "currency": "USD"},
        {"per_hour": "0.2", "worst": "0.4", "currency": "USD"},
    ]
    assert "cost of all: at worst 134.80 USD, one attempt each (prices of 2026-11-21" in dry.err
    # Three trainings of 120 and exports of 0.4, and for each training three evaluations of 14.4.
    assert "cost of all attempts that recovery allows, 3 a job: at worst 490.80 USD\n" in dry.err
    assert "first attempts" not in dry.err
    again = gcpod("run", "--dry-run", "--prices", prices, "--retry")
    assert (again.json, "these are the requests of a first run's first attempts" in again.err) == (dry.json, True)
    as_yaml = gcpod("run", "--dry-run", "--prices", prices, "--format", "yaml")
    assert yaml.safe_load(as_yaml.out) == dry.json
    empty = project / "few.yaml"
    empty.write_text("{date: 2026-11-21, currency: USD, regions: {}}")
    unknown = gcpod("run", "--dry-run", "--prices", empty)
    assert unknown.json[0]["cost"] == {"per_hour": None, "worst": None, "currency": None}
    assert unknown.json[0]["body"] == dry.json[0]["body"]
    assert "all attempts" not in unknown.err
    lacks = "the prices of 2026-11-21 lack cloud-tpu with 8 x TPU_V2"
    assert f"cost of all: at worst unknown, one attempt each ({lacks}" in unknown.err


def test_money_becomes_time_limits(gcpod: Any, project: Path, prices: Path) -> None:
    in_google(project)
    # 17.2 - 0.4 for the export are three hours of a TPU and a T4.
    dry = gcpod("run", "--dry-run", "--prices", prices, "--max-cost", "17.2").json
    assert [one["body"]["jobSpec"]["scheduling"]["timeout"] for one in dry] == ["10800s", "10800s", "7200s"]
    arguments = dry[1]["body"]["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"]
    assert arguments[arguments.index("--timeout_s") + 1] == "10800"
    assert sum(Decimal(one["cost"]["worst"]) for one in dry) == Decimal("17.2")
    free = gcpod("run", "--dry-run", "--prices", prices).json
    assert [one["body"]["labels"] for one in free] == [one["body"]["labels"] for one in dry]


def test_machines_beside_the_first_are_told_and_paid_for(gcpod: Any, project: Path, prices: Path) -> None:
    in_google(project)
    path = project / "gcpod.yaml"
    spec = load_spec(path)
    train = replace(spec.train, machine=spec.eval.machine, workers=2, batch_size=15)
    path.write_text(render_spec(replace(spec, train=train, eval=replace(spec.eval, beside="pool"))), encoding="utf-8")
    train_job, export = gcpod("run", "--dry-run", "--prices", prices).json
    pools = train_job["body"]["jobSpec"]["workerPoolSpecs"]
    assert [pool.get("replicaCount") for pool in pools] == ["1", "2", None, "1"]
    assert (train_job["cost"]["per_hour"], export["cost"]["per_hour"]) == ("2.4", "0.2")
    # 2.4 and 0.2 an hour: 4 hours of both, of which the export keeps two.
    limited = gcpod("run", "--dry-run", "--prices", prices, "--max-cost", "10").json
    assert [one["body"]["jobSpec"]["scheduling"]["timeout"] for one in limited] == ["14400s", "7200s"]


def test_one_job_is_shown_and_limited_as_a_run_is(gcpod: Any, project: Path, prices: Path) -> None:
    in_google(project)
    of_run = gcpod("run", "--dry-run", "--prices", prices).json
    for kind, request in zip(("train", "eval", "export"), of_run, strict=True):
        alone = gcpod("submit", kind, "--dry-run", "--prices", prices)
        assert alone.json == [request]
        assert alone.err.count("cost of ") == 3
    once = gcpod("submit", "eval", "--checkpoint", "ckpt-5", "--dry-run", "--format", "yaml", "--prices", prices)
    assert "ckpt-5" in yaml.safe_load(once.out)[0]["body"]["labels"]["gcpod_intent"]
    [limited] = gcpod("submit", "train", "--dry-run", "--max-cost", "10", "--prices", prices).json
    assert limited["body"]["jobSpec"]["scheduling"]["timeout"] == "7200s"
    assert limited["cost"]["worst"] == "10"
    refused = gcpod("submit", "train", "--max-cost", "0.01", "--prices", prices)
    assert (refused.code, refused.out, refused.err.count("\n")) == (REFUSED, "", 1)


def test_one_job_is_submitted_with_its_limit(
    gcpod: Any, project: Path, prices: Path, quick_cloud: JobCloud,
) -> None:
    cloud = ("--endpoint", quick_cloud.url)
    submitted = gcpod("submit", "train", *cloud, "--max-cost", "0.6", "--prices", prices, "--json")
    assert submitted.code == OK
    assert "at worst 0.60 USD until its time limit of 3 h 0 min" in submitted.err
    session = session_of(quick_cloud.url, "local-project")
    found = session.vertex.get(name=submitted.json["name"]).execute()
    assert found["jobSpec"]["scheduling"]["timeout"] == "10800s"


def test_a_sweep_is_limited_as_a_whole(gcpod: Any, project: Path, prices: Path) -> None:
    in_google(project)
    path = project / "gcpod.yaml"
    swept = replace(load_spec(path), sweep=SweepSpec(grid={"train.batch_size": ("8", "16")}))
    path.write_text(render_spec(swept), encoding="utf-8")
    # Twice the 17.2 that are three hours of a run.
    limited = gcpod("sweep", "--dry-run", "--prices", prices, "--max-cost", "34.4")
    assert limited.code == OK
    assert limited.out.splitlines() == [
        "[1] train.batch_size: 8: at worst 17.20 USD", "[2] train.batch_size: 16: at worst 17.20 USD",
        "2 runs, 2 at a time: at worst 34.40 USD",
    ]
    assert "cost of all: at worst 34.40 USD, one attempt each" in limited.err
    told = gcpod("sweep", "--dry-run", "--prices", prices, "--max-cost", "34.4", "--json").json
    assert [one["hours"] for one in told] == [{"train": 3.0, "eval": 3.0, "export": 2.0}] * 2
    refused = gcpod("sweep", "--prices", prices, "--max-cost", "0.01")
    assert (refused.code, refused.out, refused.err.count("\n")) == (REFUSED, "", 1)


@pytest.mark.parametrize("amount", ["0", "-1", "nan", "1e9", "ten", ""])
def test_what_is_no_money(gcpod: Any, project: Path, amount: str) -> None:
    refused = gcpod("run", "--local", "--max-cost", amount)
    assert (refused.code, refused.out) == (USAGE, "")


def test_an_unknown_price_is_refused_before_anything_is_sent(
    gcpod: Any, project: Path, prices: Path, quick_cloud: JobCloud,
) -> None:
    few = project / "few.yaml"
    few.write_text("{date: 2026-11-21, currency: USD, regions: {}}")
    cloud = ("--endpoint", quick_cloud.url)
    refused = gcpod("run", *cloud, "--max-cost", "20", "--prices", few)
    assert (refused.code, refused.out, refused.err.count("\n")) == (REFUSED, "", 1)
    assert "J408: limiting the cost of the train job on n1-standard-4" in refused.err
    too_little = gcpod("run", *cloud, "--max-cost", "0.01", "--prices", prices)
    assert too_little.code == REFUSED
    assert list(session_of(quick_cloud.url, "local-project").storage.list_buckets()) == []


def test_a_job_is_submitted_with_its_limit(gcpod: Any, project: Path, prices: Path, tmp_path: Path) -> None:
    def fails(*_: object) -> Path:
        raise errors.PackageError("making the runtime", "tf2.15", "there is none", "try again")

    path = project / "gcpod.yaml"
    spec = replace(load_spec(path), recovery=RecoverySpec(attempts=1))
    path.write_text(render_spec(spec), encoding="utf-8")
    with JobCloud(tmp_path / "cloud", cache=tmp_path / "empty", environment_of=fails) as cloud:
        ran = gcpod("run", "--endpoint", cloud.url, "--max-cost", "0.6", "--prices", prices)
        session = session_of(cloud.url, "local-project")
        [train] = Jobs(session).list()
        limit = session.vertex.get(name=train.name).execute()["jobSpec"]["scheduling"]["timeout"]
    assert (ran.code, limit) == (errors.JobFailedError.exit_code, "3600s")
    assert "cost of train: 0.20 USD per hour on n1-standard-4, at worst 0.20 USD until its time limit of 1 h" in ran.err
