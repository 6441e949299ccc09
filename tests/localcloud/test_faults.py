"""Faults of calls as real clients meet them: every act, every way to choose, counts, the clock, the command line."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core.exceptions import ServiceUnavailable, TooManyRequests
from google.cloud.storage.retry import DEFAULT_RETRY

from gcpod.errors import OutageError
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.faults_plan import CREATE, CallFault, ClockFault, FaultPlan
from tests.jobs import session_of, shell_job
from tests.localcloud.conftest import Raw, local_client
from tests.waiting import until

Opened = Callable[..., JobCloud]
PARENT = "/v1/projects/p/locations/local/customJobs"
GET, LIST = CREATE.replace("create", "get"), CREATE.replace("create", "list")
BUCKETS = "GET /storage/v1/b"
LONG_S = 300.0


@pytest.fixture
def opened(tmp_path: Path, quick_python: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Opened]:
    """Starts a server with faults, which are no errors of the server's own."""
    clouds: list[JobCloud] = []

    def start(*calls: CallFault, skew_s: float = 0) -> JobCloud:
        plan = FaultPlan(calls, clock=ClockFault(skew_s))
        clouds.append(JobCloud(tmp_path / f"c{len(clouds)}", cache=tmp_path, environment_of=lambda *_: quick_python,
                               faults=plan))
        return clouds[-1].start()

    yield start
    for one in clouds:
        one.stop()
    assert [one.getMessage() for one in caplog.get_records("call") if one.levelname in ("WARNING", "ERROR")] == []


def injected(cloud: JobCloud) -> list[tuple[str, str, str, int]]:
    return [(one.do, one.call, one.job, one.count) for one in cloud.faulty.log]


def raw(cloud: JobCloud) -> Raw:
    return Raw(f"127.0.0.1:{cloud.port}")


def test_an_error_has_the_shape_of_the_service(opened: Opened) -> None:
    cloud = opened(CallFault("*", "error", status=429, message="slow down", retry_after_s=7, times=2))
    answer = raw(cloud)("GET", PARENT)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert answer.json == {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}
    answer = raw(cloud)("GET", "/storage/v1/b?project=p")
    assert answer.json["error"]["errors"] == [
        {"domain": "global", "reason": "rateLimitExceeded", "message": "slow down"}]
    assert raw(cloud)("GET", PARENT).status == 200
    assert injected(cloud) == [("error", LIST, "", 1), ("error", "storage.buckets.list", "", 2)]


def test_clients_understand_an_error(opened: Opened) -> None:
    cloud = opened(CallFault(LIST, "error"), CallFault("storage.buckets.get", "error", status=429),
                   CallFault("storage.objects.insert", "error"))
    client = local_client(cloud.url)
    bucket = client.create_bucket("bucket")
    with pytest.raises(OutageError, match="answered 503: The fault plan of the local cloud refused this call"):
        Jobs(session_of(cloud.url)).list()
    with pytest.raises(TooManyRequests):
        client.get_bucket("bucket", retry=None)
    with pytest.raises(ServiceUnavailable):
        bucket.blob("x").upload_from_string(b"x" * 3_000_000, retry=None)
    bucket.blob("x").upload_from_string(b"x" * 3_000_000, retry=None)
    assert [blob.size for blob in client.list_blobs("bucket")] == [3_000_000]
    client.close()


@pytest.mark.parametrize(("do", "jobs_made"), [("lost_reply", 1), ("reset", 0), ("truncate", 1)])
def test_a_create_that_breaks(opened: Opened, do: Any, jobs_made: int) -> None:
    cloud = opened(CallFault(CREATE, do))
    jobs = Jobs(session_of(cloud.url))
    with pytest.raises(OutageError, match="no answer"):
        jobs.create(shell_job(name="one"))
    assert [job.display_name for job in jobs.list()] == ["one"] * jobs_made
    assert jobs.create(shell_job(name="two")).display_name == "two"
    assert injected(cloud) == [(do, CREATE, "", 1)]


@pytest.mark.parametrize("do", ["lost_reply", "reset"])
def test_a_broken_connection_is_a_reset(opened: Opened, do: Any) -> None:
    cloud = opened(CallFault("*", do))
    with raw(cloud).line() as line:
        line.sendall(b"POST /storage/v1/b?project=p HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b'Content-Length: 17\r\n\r\n{"name":"bucket"}')
        with pytest.raises(ConnectionResetError):
            line.recv(1)
    assert raw(cloud)("GET", "/storage/v1/b/bucket").status == (200 if do == "lost_reply" else 404)


def test_half_of_a_reply(opened: Opened) -> None:
    cloud = opened(CallFault("GET */b/bucket/o/thing", "truncate", times=2))
    client = local_client(cloud.url)
    content = bytes(range(256)) * 20_001
    client.create_bucket("bucket").blob("thing").upload_from_string(content)
    with requests.get(f"{cloud.url}/storage/v1/b/bucket/o/thing?alt=media", stream=True, timeout=30) as reply:
        assert int(reply.headers["Content-Length"]) == len(content)
        got: list[bytes] = []
        with pytest.raises(requests.exceptions.ChunkedEncodingError, match=f"{len(content) // 2} bytes read"):
            list(map(got.append, reply.iter_content(1 << 16)))
    assert got
    assert content.startswith(b"".join(got))
    # Google's own client repeats a read that came to less than was said.
    at_once = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.01)
    assert client.bucket("bucket").blob("thing").download_as_bytes(retry=at_once) == content
    assert [one.count for one in cloud.faulty.log] == [1, 2]
    client.close()


def test_half_of_nothing(opened: Opened) -> None:
    cloud = opened(CallFault("*", "truncate", times="always"))
    raw(cloud)("HEAD", "/storage/v1/b")
    client = local_client(cloud.url)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.create_bucket("bucket", retry=None)
    assert raw(cloud)("DELETE", "/storage/v1/b/bucket").content == b""
    assert len(cloud.faulty.log) == 3
    client.close()


def test_a_delay_that_outlasts_its_client(opened: Opened) -> None:
    cloud = opened(CallFault(CREATE, "delay", seconds=LONG_S))
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(cloud.url + PARENT, json=shell_job(), timeout=0.05)
    assert Jobs(session_of(cloud.url)).list() == []
    # That the server stops ends the wait, too.
    cloud.stop()
    assert [job.display_name for job in Jobs(session_of(cloud.start().url)).list()] == ["job"]


def test_a_delay_that_is_waited_for(opened: Opened) -> None:
    cloud = opened(CallFault(CREATE, "delay", seconds=0.2))
    start = time.monotonic()
    Jobs(session_of(cloud.url)).create(shell_job())
    assert time.monotonic() - start >= 0.2


def test_a_stall_ends_in_a_broken_connection(opened: Opened) -> None:
    cloud = opened(CallFault(CREATE, "stall", seconds=0.2))
    start = time.monotonic()
    with pytest.raises(OutageError, match="no answer"):
        Jobs(session_of(cloud.url)).create(shell_job())
    assert time.monotonic() - start >= 0.2
    assert Jobs(session_of(cloud.url)).list() == []


@pytest.mark.parametrize("do", ["stall", "delay"])
def test_a_server_that_stops_waits_for_no_fault(opened: Opened, do: Any) -> None:
    cloud = opened(CallFault("*", do, seconds=LONG_S))
    with raw(cloud).line() as line:
        line.sendall(b"GET /storage/v1/b?project=p HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: cloud.faulty.log)
        cloud.stop()
        if do == "delay":
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 200")
        else:
            with pytest.raises(ConnectionResetError):
                line.recv(1)


def test_a_client_that_leaves_ends_its_stall(opened: Opened) -> None:
    cloud = opened(CallFault(BUCKETS, "stall", seconds=LONG_S))
    with raw(cloud).line() as line:
        line.sendall(b"GET /storage/v1/b?project=p HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: cloud.faulty.log)
        line.shutdown(socket.SHUT_RDWR)
    assert raw(cloud)("GET", "/storage/v1/b?project=p").status == 200


def test_jobs_are_chosen_by_name_and_id(opened: Opened) -> None:
    cloud = opened(CallFault("aiplatform.*", "error", job="birds-*-train", times="always"))
    jobs = Jobs(session_of(cloud.url))
    other = jobs.create(shell_job(name="birds-1-eval"))
    assert jobs.get(other.name).id == other.id
    with pytest.raises(OutageError):
        jobs.create(shell_job(name="birds-1-train"))
    assert [one.job for one in cloud.faulty.log] == ["birds-1-train"]
    assert [job.id for job in jobs.list()] == [other.id]
    cloud = opened(CallFault(GET, "error", job=other.id), CallFault(GET, "error", job="a-*"),
                   CallFault("aiplatform.*", "error", job="snake"))
    with pytest.raises(OutageError):
        Jobs(session_of(cloud.url)).get(other.id)
    named = Jobs(session_of(cloud.url)).create(shell_job(name="a-1"))
    for ask in (Jobs(session_of(cloud.url)).cancel, Jobs(session_of(cloud.url)).get):
        try:
            ask(named.id)
        except OutageError:
            assert ask.__name__ == "get"
    # Google's own SDK may write a body's names in snake_case; a body that cannot be read is no job's.
    assert raw(cloud)("POST", PARENT, b'{"display_name": "snake"}').status == 503
    assert [raw(cloud)("POST", PARENT, body).status for body in (b"{", b"[]", b'{"displayName": 7}')] == [400] * 3
    assert injected(cloud) == [("error", GET, other.id, 1), ("error", GET, "a-1", 1), ("error", CREATE, "snake", 1)]


def test_requests_are_chosen_by_verb_and_path(opened: Opened) -> None:
    cloud = opened(CallFault("GET /storage/v1/b/*/o/a/b*", "error", times="always"),
                   CallFault("* /nowhere*", "error", status=418, times="always"))
    client = local_client(cloud.url)
    bucket = client.create_bucket("bucket")
    for name in ("a/b", "a/c", "b"):
        bucket.blob(name).upload_from_string(b"x")
    statuses = [raw(cloud)("GET", f"/storage/v1/b/bucket/o/{name}").status for name in ("a%2Fb", "a%2Fc", "b")]
    assert statuses == [503, 200, 200]
    assert raw(cloud)("DELETE", "/storage/v1/b/bucket/o/a%2Fb").status == 204
    assert [raw(cloud)(verb, "/nowhere/%ff").status for verb in ("GET", "PUT")] == [418, 418]
    assert injected(cloud)[1:] == [("error", "GET /nowhere/\ufffd", "", 1), ("error", "PUT /nowhere/\ufffd", "", 2)]
    client.close()


def test_what_jobs_ask_meets_faults_too(opened: Opened) -> None:
    cloud = opened(CallFault("storage.buckets.list", "reset"), CallFault("storage.buckets.list", "error", status=429))
    given = cloud.job_environment()

    def ask() -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.get("https://storage.googleapis.com/storage/v1/b?project=p", timeout=30,
                               proxies={"https": given["https_proxy"]}, verify=given["CURL_CA_BUNDLE"])

    with pytest.raises(requests.exceptions.ConnectionError):
        ask()
    assert [ask().status_code for _ in range(2)] == [429, 200]


def test_rules_take_their_turns(opened: Opened) -> None:
    cloud = opened(CallFault(LIST, "error", after=1, times=2), CallFault(LIST, "error", status=500, after=1),
                   CallFault("*", "error", status=429, after=2, times="always"))
    statuses = [raw(cloud)("GET", PARENT).status for _ in range(6)]
    # The second rule first sees a call when the first one lets it pass: the first and the fourth.
    assert statuses == [200, 503, 503, 500, 200, 429]
    assert [one.count for one in cloud.faulty.log] == [1, 2, 1, 1]


def test_counts_hold_under_concurrency(opened: Opened) -> None:
    cloud = opened(CallFault(LIST, "error", after=10, times=25))
    statuses: list[int] = []

    def ask() -> None:
        statuses.extend(raw(cloud)("GET", PARENT).status for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(statuses), statuses.count(503)) == (80, 25)
    assert [one.count for one in cloud.faulty.log] == list(range(1, 26))


def test_a_start_counts_anew(opened: Opened) -> None:
    cloud = opened(CallFault(LIST, "error"))
    for _ in range(2):
        assert [raw(cloud.start())("GET", PARENT).status for _ in range(2)] == [503, 200]
        cloud.stop()
        cloud.stop()
        assert len(cloud.faulty.log) == 1


def test_a_clock_that_is_off(opened: Opened) -> None:
    cloud = opened(skew_s=-3600)
    session = session_of(cloud.url)
    made = Jobs(session).create(shell_job("echo hello"))
    ended = until(lambda: info if (info := Jobs(session).get(made.id)).state.terminal else None)
    assert ended is not None
    body = {"resourceNames": ["projects/p"], "filter": f'resource.labels.job_id="{made.id}"'}
    entries = requests.post(f"{cloud.url}/v2/entries:list", json=body, timeout=30).json()["entries"]
    wanted = datetime.now(timezone.utc) - timedelta(hours=1)
    times = [made.create_time, ended.start_time, ended.end_time, *(entry["timestamp"] for entry in entries)]
    assert len(times) >= 5
    for text in times:
        assert abs(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z") - wanted) < timedelta(seconds=60)
    assert cloud.faulty.log == ()


def test_the_command_line(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("calls:\n  - {call: storage.buckets.list, do: error, status: 418}\nclock: {skew_s: 60}\n")
    command = [sys.executable, "-m", "gcpod", "local", "up", "--root", str(tmp_path / "root"), "--faults", str(plan)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert [process.stdout.readline().strip() for _ in range(2)] == [
            "fault: storage.buckets.list: once: error 418", "fault: clock: +60 s"]
        statuses = [requests.get(f"{url}/storage/v1/b?project=p", timeout=30).status_code for _ in range(2)]
        assert statuses == [418, 200]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_plan_that_does_not_fit_ends_the_command(gcpod: Any, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("calls:\n  - {call: storage.buckets.lsit, do: error}\n")
    out = gcpod("local", "up", "--root", tmp_path / "root", "--faults", "plan.yaml")
    assert out.code == 3
    assert "plan.yaml:2: calls[0].call is 'storage.buckets.lsit', which is no method's id; did you mean" in out.err
    assert not (tmp_path / "root").exists()
