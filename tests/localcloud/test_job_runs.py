"""Jobs as they run: states, environment, log entries, ends, cancelling, servers that come and go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.scheduler import MAX_RUNNING, MAX_STARTS, TASK, project_number
from tests.jobs import shell_job
from tests.localcloud.conftest import Answer, Raw
from tests.waiting import until

ENDS = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
Opened = Callable[[], JobCloud]


def jobs_path(region: str = "local") -> str:
    return f"/v1/projects/p/locations/{region}/customJobs"


def post(cloud: JobCloud, body: dict[str, Any], region: str = "local") -> Answer:
    return Raw(f"127.0.0.1:{cloud.port}")("POST", jobs_path(region), json.dumps(body).encode())


def submit(cloud: JobCloud, body: dict[str, Any], region: str = "local") -> str:
    reply = post(cloud, body, region)
    assert reply.status == 200, reply.content
    return str(reply.json["name"].rpartition("/")[2])


def job(cloud: JobCloud, number: str, region: str = "local") -> dict[str, Any]:
    found: dict[str, Any] = Raw(f"127.0.0.1:{cloud.port}")("GET", f"{jobs_path(region)}/{number}").json
    return found


def cancel(cloud: JobCloud, number: str, region: str = "local") -> None:
    assert Raw(f"127.0.0.1:{cloud.port}")("POST", f"{jobs_path(region)}/{number}:cancel", b"{}").status == 200


def reached(cloud: JobCloud, number: str, *states: str, region: str = "local") -> dict[str, Any]:
    return until(lambda: found if (found := job(cloud, number, region))["state"] in states else None) or {}


def entries(cloud: JobCloud, number: str) -> list[dict[str, Any]]:
    body = {"resourceNames": ["projects/p"], "filter": f'resource.labels.job_id="{number}"', "pageSize": 1000}
    reply = Raw(f"127.0.0.1:{cloud.port}")("POST", "/v2/entries:list", json.dumps(body).encode()).json
    found: list[dict[str, Any]] = reply.get("entries", [])
    return found


def said(cloud: JobCloud, number: str, task: str = TASK) -> list[tuple[str, str]]:
    return [
        (one["severity"], one["jsonPayload"]["message"]) for one in entries(cloud, number)
        if one["resource"]["labels"]["task_name"] == task
    ]


def has_said(cloud: JobCloud, number: str, lines: int) -> bool:
    return len(said(cloud, number)) == lines


def alive(process: int) -> bool:
    """Whether it runs; one that ended and was not yet fetched by its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def opened(tmp_path: Path, quick_python: Path) -> Iterator[Opened]:
    """Starts servers, one after another, on one root."""
    clouds: list[JobCloud] = []

    def start() -> JobCloud:
        for one in clouds:
            one.stop()
        clouds.append(JobCloud(tmp_path / "c", cache=tmp_path, environment_of=lambda *_: quick_python).start())
        return clouds[-1]

    yield start
    for one in clouds:
        one.stop()


def test_a_job_that_succeeds(quick_cloud: JobCloud) -> None:
    number = submit(quick_cloud, shell_job("echo out; echo err >&2; echo; printf last"))
    found = reached(quick_cloud, number, *ENDS)
    assert found["state"] == "JOB_STATE_SUCCEEDED"
    assert found["createTime"] <= found["startTime"] <= found["endTime"] <= found["updateTime"]
    assert "error" not in found
    assert sorted(said(quick_cloud, number)) == [("ERROR", "err"), ("INFO", "last"), ("INFO", "out")]
    assert said(quick_cloud, number, "service") == [("INFO", "Job completed successfully.")]
    written = entries(quick_cloud, number)
    assert len({one["insertId"] for one in written}) == len(written) == 4
    assert {one["resource"]["type"] for one in written} == {"ml_job"}
    until(lambda: not (quick_cloud.root / "jobs" / number).exists())


def test_the_environment(quick_cloud: JobCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_USER", "hunter2")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/secret.json")
    body = shell_job("env")
    body["jobSpec"]["baseOutputDirectory"] = {"outputUriPrefix": "gs://bucket/run/"}
    container = body["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    container["env"] = [{"name": "MINE", "value": "a=b"}, {"name": "EMPTY"}]
    number = submit(quick_cloud, body)
    assert reached(quick_cloud, number, *ENDS)["state"] == "JOB_STATE_SUCCEEDED"
    variables = dict(text.split("=", 1) for _, text in said(quick_cloud, number))
    assert {name: variables[name] for name in variables if name.startswith(("AIP_", "CLOUD_ML_"))} == {
        "AIP_MODEL_DIR": "gs://bucket/run/model/", "AIP_CHECKPOINT_DIR": "gs://bucket/run/checkpoints/",
        "AIP_TENSORBOARD_LOG_DIR": "gs://bucket/run/logs/", "CLOUD_ML_PROJECT_ID": project_number("p"),
        "CLOUD_ML_JOB_ID": number, "CLOUD_ML_REGION": "local",
    }
    cluster = json.loads(variables["CLUSTER_SPEC"])
    assert (cluster["task"]["type"], list(cluster["cluster"])) == ("workerpool0", ["workerpool0"])
    assert cluster["job"] == body["jobSpec"]
    assert json.loads(variables["TF_CONFIG"])["task"] == {"type": "chief", "index": 0}
    assert (variables["MINE"], variables["EMPTY"]) == ("a=b", "")
    assert variables["HOME"] == str(quick_cloud.root / "jobs" / number / TASK)
    assert "hunter2" not in str(variables)
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in variables


def test_without_base_output_there_are_no_aip_variables(quick_cloud: JobCloud) -> None:
    number = submit(quick_cloud, shell_job("env"))
    reached(quick_cloud, number, *ENDS)
    assert not [text for _, text in said(quick_cloud, number) if text.startswith("AIP_")]


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -KILL $$", 137)])
def test_a_job_that_fails(quick_cloud: JobCloud, script: str, status: int) -> None:
    number = submit(quick_cloud, shell_job(script))
    found = reached(quick_cloud, number, *ENDS)
    assert (found["state"], found["error"]["code"]) == ("JOB_STATE_FAILED", 3)
    assert f"The replica workerpool0-0 exited with a non-zero status of {status}." in found["error"]["message"]
    [(severity, text)] = said(quick_cloud, number, "service")
    assert (severity, text) == ("ERROR", f"Job failed. {found['error']['message']}")


@pytest.mark.parametrize(("field", "value", "message"), [
    ("imageUri", "docker.io/somebody/else:1", "the local cloud has no runtime for it"),
    ("command", ["no-such-program"], "the image has no such program"),
    ("env", [{"name": "NAME", "value": "x\0y"}], "Internal error: ValueError"),
])
def test_a_job_that_cannot_start(quick_cloud: JobCloud, field: str, value: Any, message: str) -> None:
    body = shell_job()
    body["jobSpec"]["workerPoolSpecs"][0]["containerSpec"][field] = value
    number = submit(quick_cloud, body)
    found = reached(quick_cloud, number, *ENDS)
    assert (found["state"], found["error"]["code"]) == ("JOB_STATE_FAILED", 13)
    assert message in found["error"]["message"]
    until(lambda: not (quick_cloud.root / "jobs" / number).exists())


def test_cancelling_takes_the_children_along(quick_cloud: JobCloud) -> None:
    script = "trap 'echo told; exit 0' TERM; sleep 300 & echo $! $$; wait"
    number = submit(quick_cloud, shell_job(script))
    numbers = until(lambda: said(quick_cloud, number))[0][1].split()
    assert all(alive(int(one)) for one in numbers)
    cancel(quick_cloud, number)
    assert job(quick_cloud, number)["state"] in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")
    found = reached(quick_cloud, number, *ENDS)
    assert (found["state"], "error" in found) == ("JOB_STATE_CANCELLED", False)
    assert ("INFO", "told") in said(quick_cloud, number)
    until(lambda: not any(alive(int(one)) for one in numbers))


def test_cancelling_a_job_that_waits_for_its_turn(quick_cloud: JobCloud) -> None:
    running = [submit(quick_cloud, shell_job("sleep 300")) for _ in range(MAX_RUNNING)]
    for one in running:
        reached(quick_cloud, one, "JOB_STATE_RUNNING")
    waiting = submit(quick_cloud, shell_job("echo ran"))
    reached(quick_cloud, waiting, "JOB_STATE_PENDING")
    cancel(quick_cloud, waiting)
    found = reached(quick_cloud, waiting, *ENDS)
    assert (found["state"], "startTime" in found) == ("JOB_STATE_CANCELLED", False)
    for one in running:
        cancel(quick_cloud, one)
        assert reached(quick_cloud, one, *ENDS)["state"] == "JOB_STATE_CANCELLED"
    assert said(quick_cloud, waiting) == []
    assert said(quick_cloud, waiting, "service") == [("INFO", "Job cancelled.")]


def test_the_next_server_takes_unfinished_jobs_up(opened: Opened) -> None:
    cloud = opened()
    number = submit(cloud, shell_job("echo begun $$; sleep 300"))
    for count in range(1, MAX_STARTS + 1):
        until(partial(has_said, cloud, number, count))
        assert job(cloud, number)["state"] == "JOB_STATE_RUNNING"
        process = int(said(cloud, number)[-1][1].split()[1])
        cloud = opened()
        assert not alive(process)
    found = reached(cloud, number, *ENDS)
    assert found["state"] == "JOB_STATE_FAILED"
    assert found["error"]["message"] == f"INTERNAL: The job was interrupted {MAX_STARTS} times."
    assert len(said(cloud, number)) == MAX_STARTS


def test_the_folder_of_a_job_is_its_own(quick_cloud: JobCloud) -> None:
    number = submit(quick_cloud, shell_job('pwd; echo "$TMPDIR"; touch "$TMPDIR/x" "$HOME/y"'))
    assert reached(quick_cloud, number, *ENDS)["state"] == "JOB_STATE_SUCCEEDED"
    folder = str(quick_cloud.root / "jobs" / number / TASK)
    assert [text for _, text in said(quick_cloud, number)] == [folder, f"{folder}/tmp"]
    assert list((quick_cloud.root / "jobs").iterdir()) == []


def test_a_job_that_outruns_its_timeout_is_ended(quick_cloud: JobCloud) -> None:
    body = shell_job("echo started; sleep 100")
    body["jobSpec"]["scheduling"] = {"timeout": "0.3s"}
    found = reached(quick_cloud, submit(quick_cloud, body), *ENDS)
    assert found["state"] == "JOB_STATE_FAILED"
    assert found["error"] == {"code": 4, "message": "The job ran longer than its timeout of 0.3 s."}
