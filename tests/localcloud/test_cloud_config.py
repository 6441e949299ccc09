"""The local cloud's configuration: what a file says, what it may not say, and several regions on one server."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.config import CloudConfig, Limit, Region, load_config
from gcpod.localcloud.jobdb import JobDatabase
from gcpod.localcloud.strict_yaml import parse_record
from tests.jobs import shell_job
from tests.localcloud.conftest import Raw
from tests.localcloud.test_job_runs import ENDS, job, jobs_path, post, reached, submit
from tests.waiting import until

WHOLE = """
regions:
  - name: us-central1
    accelerators: [NVIDIA_TESLA_T4, TPU_V2]
    machines: [ct5lp-hightpu-4t]
    max_replicas: 8
    quota:
      - {metric: custom_model_training_nvidia_t4_gpus, limit: 2}
    short: refuse
    queued_s: 0.5
    pending_s: 1
  - name: europe-west4
"""


def parse(text: str) -> CloudConfig:
    return parse_record(text, Path("cloud.yaml"), CloudConfig)


def test_everything_that_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "cloud.yaml"
    path.write_text(WHOLE)
    assert load_config(path) == CloudConfig((
        Region("us-central1", ("NVIDIA_TESLA_T4", "TPU_V2"), ("ct5lp-hightpu-4t",), 8,
               (Limit("custom_model_training_nvidia_t4_gpus", 2),), "refuse", 0.5, 1.0),
        Region("europe-west4"),
    ))
    assert load_config(path).home.name == "us-central1"


def test_an_empty_file_is_the_local_region() -> None:
    assert parse("") == CloudConfig() == CloudConfig((Region("local"),))


@pytest.mark.parametrize(("line", "found", "at"), [
    ("colour: red", "unknown key 'colour'", 1), ("regions: []", "regions is empty", 1),
    ("regions: {a: {}}", "regions is no list", 1), ("regions:\n  - name: A_B", "name has 'A_B'", 2),
    ("regions:\n  - name: a\n  - name: a", "names something twice", 2),
    ("regions:\n  - name: a\n    accelerators: [T4]", "accelerators has 'T4'", 3),
    ("regions:\n  - name: a\n    machines: [n1-standard-4]", "machines has 'n1-standard-4'", 3),
    ("regions:\n  - name: a\n    max_replicas: 0", "max_replicas is 0", 3),
    ("regions:\n  - name: a\n    max_replicas: many", "max_replicas is 'many'", 3),
    ("regions:\n  - name: a\n    short: wait", "short is 'wait'", 3),
    ("regions:\n  - name: a\n    queued_s: -1", "queued_s is -1", 3),
    ("regions:\n  - name: a\n    pending_s: .inf", "pending_s is '.inf'", 3),
    ("regions:\n  - name: a\n    quota:\n      - {metric: gpus, limit: 1}", "metric has 'gpus'", 4),
    ("regions:\n  - name: a\n    quota:\n      - {metric: custom_model_training_cpus, limit: -1}", "limit is -1", 4),
    ("regions:\n  - name: a\n    quota:\n      - {metric: custom_model_training_cpus}", "limit is missing", 4),
])
def test_what_a_file_may_not_say(line: str, found: str, at: int) -> None:
    with pytest.raises(SpecError) as refused:
        parse(line)
    assert found in str(refused.value)
    assert refused.value.on.split(":")[:2] == ["cloud.yaml", str(at)]
    assert "\n" not in str(refused.value)


@given(st.text(alphabet="regions:-na \n[]{}0.1,*&!\"'|\\Utqoulimc#", max_size=60))
@example('"\\UFFFFFFFF"')
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    refused = ""
    try:
        assert isinstance(parse(text), CloudConfig)
    except SpecError as e:
        refused = str(e)
    assert "\n" not in refused


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        load_config(tmp_path / "none.yaml")


def test_one_server_serves_several_regions(tmp_path: Path, quick_python: Path) -> None:
    config = CloudConfig((Region("us-central1"), Region("europe-west4", max_replicas=1)))
    with JobCloud(tmp_path / "c", cache=tmp_path, environment_of=lambda *_: quick_python, config=config) as cloud:
        raw = Raw(f"127.0.0.1:{cloud.port}")
        one = submit(cloud, shell_job('echo "$CLOUD_ML_REGION"', "one"), "us-central1")
        two = submit(cloud, shell_job(name="two"), "europe-west4")
        assert "/locations/europe-west4/" in job(cloud, two, "europe-west4")["name"]
        assert raw("GET", f"{jobs_path('us-central1')}/{two}").status == 404
        assert raw("POST", f"{jobs_path('us-central1')}/{two}:cancel", b"{}").status == 404
        listed = raw("GET", jobs_path("us-central1")).json["customJobs"]
        assert [found["displayName"] for found in listed] == ["one"]
        reached(cloud, one, *ENDS, region="us-central1")
        assert cloud.database is not None
        lines = [entry.text for entry in cloud.database.entries([one])]
        assert lines == ["us-central1", "Job completed successfully."]
        refused = post(cloud, shell_job(), "asia-east1")
        assert refused.status == 400
        assert "those served are us-central1, europe-west4" in refused.json["error"]["message"]


def test_jobs_wait_as_long_as_configured(tmp_path: Path, quick_python: Path) -> None:
    config = CloudConfig((Region("local", queued_s=0.2, pending_s=0.2),))
    seen: list[tuple[str, str]] = []
    with JobCloud(tmp_path / "c", cache=tmp_path, environment_of=lambda *_: quick_python, config=config) as cloud:
        assert cloud.scheduler is not None
        cloud.scheduler.observers.append(lambda record: seen.append((record.state, record.updated)))
        number = submit(cloud, shell_job())
        assert job(cloud, number)["state"] == "JOB_STATE_QUEUED"
        assert "startTime" not in reached(cloud, number, "JOB_STATE_PENDING")
        found = reached(cloud, number, *ENDS)
        until(lambda: len(seen) == 4)
    assert [state for state, _ in seen] == ["QUEUED", "PENDING", "RUNNING", "SUCCEEDED"]
    times = [float(text.rpartition(":")[2].removesuffix("Z")) for _, text in seen]
    waited = [(later - earlier) % 60 for earlier, later in itertools.pairwise(times)]
    assert min(waited[:2]) >= 0.19
    assert found["createTime"] == seen[0][1] < found["startTime"] <= found["endTime"] <= found["updateTime"]


def test_a_database_of_before_there_were_regions_opens(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    old = sqlite3.connect(path)
    old.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY, project TEXT, body TEXT, state TEXT, created TEXT, started "
                "TEXT, ended TEXT, updated TEXT, error_code INTEGER, error TEXT, starts INTEGER)")
    row = ("7", "p", '{"displayName": "old"}', "SUCCEEDED", "2026-01-01T00:00:00.000000Z", "", "", "", 0, "", 1)
    old.execute("INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)
    old.commit()
    old.close()
    for _ in range(2):
        database = JobDatabase(path)
        [found] = database.all()
        assert (found.body, found.starts, found.location, found.preemptions) == ({"displayName": "old"}, 1, "", 0)
        database.close()
    config = CloudConfig((Region("europe-west4"), Region("us-central1")))
    with JobCloud(tmp_path, cache=tmp_path, config=config) as cloud:
        assert "/locations/europe-west4/" in job(cloud, "7", "europe-west4")["name"]


def test_the_command_line_takes_a_configuration(gcpod: Any, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(WHOLE)
    bad.write_text("regions:\n  - name: a\n    short: wait\n")
    refused = gcpod("local", "up", "--root", tmp_path / "c", "--config", bad)
    assert refused.code == 3
    assert f"{bad}:3" in refused.err
    command = [sys.executable, "-m", "gcpod", "local", "up", "--root", str(tmp_path / "c"), "--config", str(good)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip().removeprefix("http://")
        reply = Raw(address)("GET", jobs_path("europe-west4"))
        server.terminate()
    assert (reply.status, reply.json) == (200, {})
