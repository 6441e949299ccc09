"""The command line: what it prints, how it fails, what its exit code is; Ctrl-C in a real process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gcpod import errors
from gcpod.cli.common import INTERRUPTED
from gcpod.cli.main import main
from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.jobs import submit
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.config import CloudConfig, Limit, Region
from gcpod.session import Session
from gcpod.settings import LOCAL_REGION, resolve
from gcpod.specfile import load_spec, parse_spec, render_spec
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.data.making import Dataset

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a few labelled images and a gcpod.yaml."""
    data = Dataset(tmp_path)
    for number in range(8):
        data.add(f"picture{number}.jpg", Box("cat" if number % 2 else "dog", 10, 10, 60, 40))
    text = render_spec(demo_spec(steps=100)).replace("data/images", "images").replace("data/annotations", "")
    (tmp_path / "gcpod.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def test_init_writes_a_spec_that_loads_and_is_not_overwritten(gcpod: Any, tmp_path: Path) -> None:
    assert "gcpod check" in gcpod("init").out
    assert load_spec(tmp_path / "gcpod.yaml") == parse_spec("", tmp_path / "gcpod.yaml")
    again = gcpod("init")
    assert (again.code, again.err.count("\n")) == (errors.SpecError.exit_code, 1)
    assert gcpod("init", "--force").code == 0
    assert gcpod("init", "--json", "--file", "other.yaml").json == {"file": "other.yaml"}
    assert load_spec(tmp_path / "other.yaml") == load_spec(tmp_path / "gcpod.yaml")


def test_check_finds_nothing_wrong_and_then_something(gcpod: Any, project: Path) -> None:
    good = gcpod("check", "--local", "--json")
    assert good.code == 0
    assert all(finding["severity"] != "error" for finding in good.json)
    (project / "images" / "picture1.jpg").write_bytes(b"no picture")
    bad = gcpod("check", "--local", "--json")
    assert bad.code == errors.ChecksFailedError.exit_code
    assert {f["code"] for f in bad.json if f["severity"] == "error"} == {"D106"}
    assert bad.err.count("\n") == 1


def test_check_sees_machines_the_region_does_not_offer(gcpod: Any, project: Path) -> None:
    text = (project / "gcpod.yaml").read_text().replace("region:", "region: us-west1").replace("project:", "project: p")
    (project / "gcpod.yaml").write_text(text)
    found = gcpod("check")
    assert found.code == errors.ChecksFailedError.exit_code
    assert "J402 train.machine: TPU_V2 is not offered in us-west1" in found.out


def test_dry_run_prints_the_real_requests_and_sends_nothing(gcpod: Any, project: Path) -> None:
    text = (project / "gcpod.yaml").read_text()
    text = text.replace("region:", "region: us-central1").replace("project:", "project: p")
    (project / "gcpod.yaml").write_text(text)
    requests = gcpod("run", "--dry-run").json
    assert [r["path"] for r in requests] == ["/v1/projects/p/locations/us-central1/customJobs"] * 3
    train, evaluation, export = [r["body"]["jobSpec"]["workerPoolSpecs"][0] for r in requests]
    assert train["machineSpec"] == {"machineType": "cloud-tpu", "acceleratorType": "TPU_V2", "acceleratorCount": 8}
    assert evaluation["machineSpec"]["acceleratorType"] == "NVIDIA_TESLA_T4"
    assert export["machineSpec"] == {"machineType": "n1-standard-4"}
    assert "--use_tpu=true" in train["containerSpec"]["args"]
    local = gcpod("run", "--dry-run", "--local")
    assert local.json[0]["body"]["jobSpec"]["workerPoolSpecs"][0]["machineSpec"] == {"machineType": "n1-standard-4"}
    assert "the local region offers CPU machines only" in local.err


def test_config_show_says_where_each_value_came_from(gcpod: Any, project: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "from-env")
    monkeypatch.setenv("CLOUDSDK_COMPUTE_REGION", "us-east1")
    shown = gcpod("config", "show", "--json").json
    assert shown["project"] == {"value": "from-env", "source": "environment GOOGLE_CLOUD_PROJECT"}
    assert shown["region"]["source"] == "environment CLOUDSDK_COMPUTE_REGION"
    assert shown["bucket"] == {"value": "gs://from-env-gcpod", "source": "project"}
    assert "environment GOOGLE_CLOUD_PROJECT" in gcpod("config", "show").out


def test_config_render_and_lint(gcpod: Any, project: Path) -> None:
    assert gcpod("config", "render", "--local", "--out", "p.config").code == 0
    text = (project / "p.config").read_text(encoding="utf-8")
    told = gcpod("config", "render", "--local", "--json").json
    assert (told["text"], told["config"].endswith(f"/runs/{told['run']}/pipeline.config")) == (text, True)
    kept = gcpod("config", "render", "--local", "--json", "--out", "q.config").json
    assert kept == {"run": told["run"], "config": told["config"], "file": "q.config"}
    assert (project / "q.config").read_text(encoding="utf-8") == text
    clean = gcpod("config", "lint", "p.config", "--labels", "2", "--json")
    assert (clean.code, clean.json) == (0, [])
    wrong = gcpod("config", "lint", "p.config", "--labels", "3", "--json")
    assert (wrong.code, [f["code"] for f in wrong.json]) == (errors.ChecksFailedError.exit_code, ["C205"])
    assert gcpod("config", "lint", "absent.config").code == errors.ConfigError.exit_code


def test_dataset_build(gcpod: Any, project: Path) -> None:
    built = gcpod("dataset", "build", "--images", "images", "--annotations", "images", "--out", "records", "--json")
    assert sum(shard["examples"] for shard in built.json["shards"]) == 8
    assert "cat, dog" in gcpod("dataset", "build", "--images", "images", "--out", "records").out
    unknown = gcpod("dataset", "build", "--images", "images", "--out", "other", "--label", "cat")
    assert unknown.code == errors.DataError.exit_code
    assert "D101" in unknown.err


def test_package_builds_four_packages(gcpod: Any, tmp_path: Path) -> None:
    paths = [Path(p) for p in gcpod("package", "--out", "packages", "--json").json]
    assert [p.name.split("-")[0] for p in paths] == ["object_detection", "slim", "pycocotools", "gcpod_launcher"]
    assert all((tmp_path / p).stat().st_size > 1000 for p in paths)


@pytest.mark.long
def test_steps_one_by_one(gcpod: Any, project: Path, quick_cloud: JobCloud) -> None:
    cloud = ("--endpoint", quick_cloud.url)
    root = gcpod("upload", *cloud, "--json").json["run"]
    assert gcpod("upload", *cloud).out.strip() == root
    train = gcpod("submit", "train", *cloud, "--json").json["name"]
    again = gcpod("submit", "train", *cloud).out
    assert re.fullmatch(rf"{train} [A-Z]+ {quick_cloud.url}/v1/\S+/{train.rsplit('/', 1)[-1]}\n", again)
    job = train.rsplit("/", 1)[-1]
    assert "SUCCEEDED" in gcpod("jobs", "wait", job, *cloud).out
    shown = gcpod("jobs", "show", job, *cloud, "--json").json
    assert (shown["name"], shown["state"]) == (train, "JOB_STATE_SUCCEEDED")
    assert gcpod("submit", "train", *cloud, "--json").json == shown
    assert f"name:          {train}" in gcpod("jobs", "show", job, *cloud).out
    assert "Step 100 per-step time" in gcpod("jobs", "logs", job, "--follow", *cloud).out
    assert [row["id"] for row in gcpod("jobs", "list", *cloud, "--json").json] == [job]
    assert job in gcpod("jobs", "list", "--run", root.rsplit("/", 1)[-1], *cloud).out
    fetched = gcpod("tensorboard", "fetch", *cloud, "--json").json
    assert (fetched["files"], fetched["bytes"] > 0) == (1, True)
    result = gcpod("run", *cloud, "--json").json
    assert result["jobs"]["train"] == train
    assert result["final"]["ap50"] == 0.75
    text = gcpod("run", *cloud)
    assert "AP@0.50" in text.out
    assert result["saved_model"] in text.out


def test_proxies_of_the_environment_do_not_matter_on_loopback(
    gcpod: Any, quick_cloud: JobCloud, monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert gcpod("jobs", "list", "--endpoint", quick_cloud.url).out == "no jobs\n"


def test_a_job_is_cancelled_by_its_id(gcpod: Any, project: Path, quick_cloud: JobCloud) -> None:
    cloud = ("--endpoint", quick_cloud.url)
    root = GcsUri.parse(gcpod("upload", *cloud, "--json").json["run"])
    session = Session(resolve(load_spec(project / "gcpod.yaml"), endpoint=quick_cloud.url))
    Objects(session).write(root / "behave" / "hang-train", b"")
    session.storage.close()
    job = gcpod("submit", "train", *cloud, "--json").json["name"].rsplit("/", 1)[-1]
    assert "is being cancelled" in gcpod("jobs", "cancel", job, *cloud).out
    waited = gcpod("jobs", "wait", job, *cloud)
    assert (waited.code, waited.err.count("\n")) == (errors.JobFailedError.exit_code, 1)
    assert "CANCELLED" in waited.err
    assert "ended before: CANCELLED" in gcpod("jobs", "cancel", job, *cloud).out


def test_a_job_for_which_there_is_no_quota_is_told_with_metric_and_region(
    gcpod: Any, project: Path, tmp_path: Path, quick_python: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submit, "LOOK_S", 0.01)
    scarce = Region(LOCAL_REGION, quota=(Limit("custom_model_training_cpus", 1),), short="refuse")
    made = JobCloud(tmp_path / "cloud", cache=tmp_path, environment_of=lambda *_: quick_python,
                    config=CloudConfig((scarce,)))
    with made as cloud:
        refused = gcpod("submit", "train", "--endpoint", cloud.url)
    assert refused.code == errors.OutageError.exit_code
    last = refused.err.splitlines()[-1]
    assert last.startswith("gcpod: J403: submitting the job shapes-")
    assert "the project's quota custom_model_training_cpus is used up in the region local " in last
    assert "ask for more at https://console.cloud.google.com/iam-admin/quotas" in last


@pytest.mark.parametrize(("arguments", "kind", "said"), [
    (("check",), errors.SpecError, "gcpod init"),
    (("run", "--local", "--file", "absent.yaml"), errors.SpecError, "absent.yaml"),
    (("config", "show"), errors.AuthError, "--local"),
    (("jobs", "list", "--endpoint", "http://example.com"), errors.SpecError, "loopback"),
    (("jobs", "show", "1", "--endpoint", "http://127.0.0.1:1"), errors.OutageError, "no answer"),
    (("jobs", "show", "a/b", "--endpoint", "http://127.0.0.1:1"), errors.SpecError, "gcpod jobs list"),
    (("init", "--file", "absent/gcpod.yaml"), errors.GcpodError, "absent/gcpod.yaml"),
    (("package", "--out", "taken"), errors.GcpodError, "taken"),
    (("dataset", "build", "--images", "absent", "--out", "x"), errors.DataError, "absent"),
])
def test_what_users_get_wrong_ends_in_one_line_and_its_own_code(
    gcpod: Any, arguments: tuple[str, ...], kind: type[errors.GcpodError], said: str,
) -> None:
    Path("taken").write_text("a file where a folder should be")
    output = gcpod(*arguments)
    assert output.code == kind.exit_code
    assert output.err.startswith("gcpod: ")
    assert output.err.count("\n") == 1
    assert said in output.err


def test_usage_errors_and_debug(gcpod: Any, tmp_path: Path) -> None:
    assert gcpod("nonsense").code == 2
    assert gcpod("run", "--nonsense").code == 2
    assert gcpod("run", "--steps", "0").code == 2
    assert gcpod("local", "up", "--port", "99999").code == 2
    with pytest.raises(errors.SpecError):
        main(["--debug", "check"])


def test_the_readme_documents_every_exit_code() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| `?(\w*)`? ?\|", README.read_text(encoding="utf-8"), flags=re.MULTILINE))
    kinds = [getattr(errors, name) for name in dir(errors) if name.endswith("Error")]
    assert {str(k.exit_code): k.code for k in kinds if k is not errors.GcpodError}.items() <= rows.items()
    assert str(INTERRUPTED) in rows
    assert len({k.exit_code for k in kinds}) == len(kinds)


@pytest.mark.long
def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(project: Path, quick_cloud: JobCloud) -> None:
    session = Session(resolve(load_spec(project / "gcpod.yaml"), endpoint=quick_cloud.url))
    command = [sys.executable, "-m", "gcpod", "upload", "--json", "--file", str(project / "gcpod.yaml")]
    environment = {**os.environ, "GCPOD_ENDPOINT": quick_cloud.url}
    root = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)["run"]
    Objects(session).write(GcsUri.parse(root) / "behave" / "hang-train", b"")
    command = [sys.executable, "-u", "-m", "gcpod", "run", "--file", str(project / "gcpod.yaml")]
    # A suite started in the background ignores SIGINT, and so would this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("train: RUNNING"):
            break
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    (job,) = [job for job in Jobs(session).list() if not job.state.terminal and job.labels["gcpod_kind"] == "train"]
    assert run.returncode == INTERRUPTED
    assert "Traceback" not in err
    assert re.search(r"interrupted; (1 job keeps|2 jobs keep) running", err)
    assert f"go on with: gcpod run --file {project / 'gcpod.yaml'}" in err
    assert f"cancel with: gcpod jobs cancel {job.id} --file {project / 'gcpod.yaml'}" in err
    session.storage.close()


@pytest.mark.long
def test_local_up_down_and_status(tmp_path: Path) -> None:
    root, ready = tmp_path / "cloud", tmp_path / "ready"
    gcpod = [sys.executable, "-m", "gcpod", "local"]

    def ask(*arguments: str) -> str:
        return subprocess.run([*gcpod, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    server = subprocess.Popen([*gcpod, "up", "--root", str(root), "--ready-file", str(ready)], stdout=subprocess.PIPE,
                              text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    assert ready.read_text().strip() == url
    assert ask("status", "--root", str(root)) == url
    assert json.loads(ask("status", "--root", str(root), "--json")) == {"running": True, "url": url}
    refused = subprocess.run([*gcpod, "up", "--root", str(root)], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (errors.LocalCloudError.exit_code, 1)
    assert ask("down", "--root", str(root)) == "stopped"
    server.communicate(timeout=30)
    assert server.returncode == 0
    assert ask("down", "--root", str(root)) == "it was not running"
    assert json.loads(ask("status", "--root", str(root), "--json")) == {"running": False, "url": None}
    faults = tmp_path / "faults.yaml"
    faults.write_text("calls: [{call: storage.objects.get, after: 9, do: error, status: 503}]", encoding="utf-8")
    server = subprocess.Popen([*gcpod, "up", "--root", str(root), "--faults", str(faults), "--json"],
                              stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    told = [json.loads(server.stdout.readline()) for _ in range(2)]
    assert [list(one) for one in told] == [["url"], ["fault"]]
    assert json.loads(ask("down", "--root", str(root), "--json")) == {"stopped": True}
    server.communicate(timeout=30)
    assert json.loads(ask("down", "--root", str(root), "--json")) == {"stopped": False}
    shutil.rmtree(root)
