"""The job service: what it refuses and how that is coded, and that a create is never repeated by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import httplib2
import pytest
from google.auth.credentials import AnonymousCredentials
from googleapiclient import discovery
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import AuthError, GcpodError, NotFoundError, OutageError, ServiceError, SpecError
from gcpod.jobs.filters import JobFilter
from gcpod.jobs.service import Jobs, execute, to_info
from gcpod.localcloud.cloud import JobCloud
from gcpod.session import Request, Session, StatusError, resource_of
from gcpod.settings import Setting, Settings
from gcpod.status import JobInfo, JobState
from tests.jobs import Faults, session_of, shell_job
from tests.waiting import until

FAULTS = Faults()
BASE = "http://127.0.0.1:1"
PARENT = "projects/p/locations/local"


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Google's own client of custom jobs."""
    made = discovery.build("aiplatform", "v1", http=httplib2.Http(), client_options={"api_endpoint": BASE})
    return made.projects().locations().customJobs()


@pytest.fixture(scope="module")
def ours() -> Any:
    return session_of(BASE).vertex


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[JobCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with FAULTS.cloud(folder, quick_python) as running:
        yield running


@pytest.fixture
def jobs(cloud: JobCloud) -> Iterator[Jobs]:
    yield Jobs(session_of(cloud.url))
    FAULTS.choose = lambda *_: None


@pytest.mark.parametrize(("status", "kind"), [
    (401, AuthError), (403, AuthError), (404, NotFoundError), (400, ServiceError), (409, ServiceError),
    (408, OutageError), (429, OutageError), (500, OutageError), (502, OutageError), (503, OutageError),
])
def test_each_status_has_its_kind_of_error(jobs: Jobs, status: int, kind: type[GcpodError]) -> None:
    FAULTS.choose = lambda *_: status
    calls: list[Callable[[], object]] = [
        lambda: jobs.get("1"), jobs.list, lambda: jobs.cancel("1"), lambda: jobs.create(shell_job()),
    ]
    for call in calls:
        with pytest.raises(GcpodError, match="told to fail" if status != 401 else "AuthError|E105") as caught:
            call()
        assert type(caught.value) is kind


def test_a_create_whose_connection_breaks_is_sent_once(jobs: Jobs) -> None:
    before = FAULTS.times("POST", "/customJobs")
    FAULTS.choose = lambda verb, path: "dropped after" if verb == "POST" and path.endswith("/customJobs") else None
    with pytest.raises(OutageError, match="no answer"):
        jobs.create(shell_job())
    assert FAULTS.times("POST", "/customJobs") == before + 1


def test_what_the_service_says_of_a_wrong_request_reaches_the_user(jobs: Jobs) -> None:
    body = shell_job()
    body["jobSpec"]["workerPoolSpecs"][0]["machineSpec"] = {"machineType": "cloud-tpu"}
    with pytest.raises(ServiceError, match=r"CPU machines only.*correct gcpod\.yaml") as caught:
        jobs.create(body)
    assert "\n" not in str(caught.value)


def test_names_and_ids_and_pages(jobs: Jobs) -> None:
    names = {jobs.create(shell_job(labels={"page": "yes"})).name for _ in range(3)}
    assert {info.name for info in jobs.list({"page": "yes"})} == names
    one = jobs.get(next(iter(names)))
    assert jobs.get(one.id).name == one.name


def test_a_state_of_the_future_is_not_terminal() -> None:
    info = to_info({"name": "n", "state": "JOB_STATE_TELEPORTING"})
    assert info.state is JobState.UNSPECIFIED
    assert not info.state.terminal
    terminal = {state.short for state in JobState if state.terminal}
    assert terminal == {"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"}


def ended(jobs: Jobs, script: str = "true", **more: Any) -> JobInfo:
    """A job that has come to its end."""
    name = jobs.create(shell_job(script, **more)).name
    until(lambda: jobs.get(name).state.terminal)
    return jobs.get(name)


def test_what_is_worth_showing(jobs: Jobs) -> None:
    body = shell_job(name="shown")
    body["jobSpec"]["scheduling"] = {"strategy": "SPOT"}
    info = jobs.create(body)
    assert (info.machine, info.replicas, info.strategy) == ("n1-standard-4", 1, "SPOT")
    assert info.update_time >= info.create_time
    pools = [
        {"machineSpec": {"machineType": "n1-standard-4", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1},
         "replicaCount": "1"},
        {"machineSpec": {"machineType": "n1-highmem-2"}, "replicaCount": "3"},
    ]
    info = to_info({"name": "n", "jobSpec": {"workerPoolSpecs": pools}})
    assert (info.machine, info.replicas) == ("n1-standard-4 with 1 x NVIDIA_TESLA_T4", 4)
    topology = {"machineSpec": {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "2x2"}}
    assert to_info({"name": "n", "jobSpec": {"workerPoolSpecs": [topology]}}).machine == "ct5lp-hightpu-4t with 2x2"


def test_jobs_are_chosen_by_each_word_of_a_filter(jobs: Jobs) -> None:
    labels = {"choice": "yes", "gcpod_run": "birds", "gcpod_kind": "train"}
    first = ended(jobs, "exit 3", name="first", labels=labels)
    second = ended(jobs, name='the "second"', labels={**labels, "gcpod_kind": "eval"})

    def names(**wanted: Any) -> list[str]:
        return [info.display_name for info in jobs.list(JobFilter(labels={"choice": "yes"}, **wanted))]

    assert names() == ['the "second"', "first"]
    assert names(run="Birds") == names()
    assert names(run="bird") == []
    assert names(kind="train") == ["first"]
    assert names(states=(JobState.FAILED,)) == ["first"]
    assert names(states=(JobState.FAILED, JobState.SUCCEEDED)) == names()
    assert names(name='the "second"') == ['the "second"']
    assert names(since=second.create_time) == ['the "second"']
    assert names(until=second.create_time) == ["first"]
    assert names(since=first.create_time, until=first.create_time) == []


def test_a_limit_ends_the_paging(jobs: Jobs) -> None:
    names = [jobs.create(shell_job(labels={"limit": "yes"})).name for _ in range(3)][::-1]
    before = FAULTS.times("GET", "/customJobs")
    assert [info.name for info in jobs.list({"limit": "yes"}, limit=2)] == names[:2]
    assert FAULTS.times("GET", "/customJobs") == before + 1
    assert jobs.list({"limit": "yes"}, limit=0) == []
    assert FAULTS.times("GET", "/customJobs") == before + 1
    assert [info.name for info in jobs.list({"limit": "yes"}, limit=100)] == names


def test_cancelling_again_changes_nothing(jobs: Jobs) -> None:
    name = jobs.create(shell_job("sleep 60")).name
    until(lambda: jobs.get(name).state is JobState.RUNNING)
    FAULTS.choose = lambda _, path: 400 if path.endswith(":cancel") else None
    with pytest.raises(ServiceError, match="cancelling the job"):
        jobs.cancel(name)
    FAULTS.choose = lambda *_: None
    jobs.cancel(name)
    jobs.cancel(name)
    until(lambda: jobs.get(name).state is JobState.CANCELLED)
    jobs.cancel(name)
    # A service that refuses what it need not do.
    FAULTS.choose = lambda _, path: 400 if path.endswith(":cancel") else None
    jobs.cancel(name)
    assert jobs.get(name).state is JobState.CANCELLED
    FAULTS.choose = lambda *_: None
    with pytest.raises(NotFoundError):
        jobs.cancel("404")


def test_a_job_is_deleted_once_it_ended(jobs: Jobs) -> None:
    name = jobs.create(shell_job("sleep 60")).name
    with pytest.raises(ServiceError, match=r"it is (PENDING|RUNNING).*gcpod jobs cancel") as caught:
        jobs.delete(name)
    assert type(caught.value) is ServiceError
    jobs.cancel(name)
    until(lambda: jobs.get(name).state.terminal)
    assert jobs.delete(name) is True
    for call in (jobs.get, jobs.delete):
        with pytest.raises(NotFoundError):
            call(name)



@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.text("abc/:?#%&{}+ ", max_size=9),
       st.integers(1, 1000))
def test_requests_go_where_googles_own_client_sends_them(
    ours: Any, theirs: Any, wanted: str, token: str, size: int,
) -> None:
    """Query and path hold what was given, whatever that is; the order of a query says nothing."""
    given = {"parent": PARENT, "filter": wanted, "pageToken": token, "pageSize": size}
    mine, other = urlsplit(ours.list(**given).uri), urlsplit(theirs.list(**given).uri)
    assert mine[:3] == other[:3]
    assert sorted(parse_qsl(mine.query, True)) == sorted(parse_qsl(other.query, True))


@pytest.mark.parametrize(("name", "body"), [
    ("create", {"displayName": "j"}), ("get", None), ("list", None), ("cancel", {}), ("delete", None),
])
def test_each_method_is_that_of_googles_own_client(ours: Any, theirs: Any, name: str, body: Any) -> None:
    place = {"parent": PARENT} if name in ("create", "list") else {"name": f"{PARENT}/customJobs/a-b_1"}
    given = place if body is None else {**place, "body": body}
    mine, other = getattr(ours, name)(**given), getattr(theirs, name)(**given)
    assert (mine.method, mine.uri) == (other.method, other.uri)
    assert json.loads(mine.body or b"0") == json.loads(other.body or "0")


def test_every_api_is_found_in_its_document() -> None:
    session = session_of(BASE)
    assert session.log_entries.list(body={}).uri == f"{BASE}/v2/entries:list?alt=json"
    assert session.billing.skus().list(parent="services/6F81-5844-456A").uri.startswith(
        f"{BASE}/v1/services/6F81-5844-456A/skus?")
    operation = session.registry.operations().get(name=f"{PARENT}/operations/1")
    assert operation.uri == f"{BASE}/v1/{PARENT}/operations/1?alt=json"
    assert session.builds.list(parent=PARENT).uri == f"{BASE}/v1/{PARENT}/builds?alt=json"


@pytest.mark.parametrize(("call", "error"), [
    (lambda vertex: vertex.get(name="customJobs/1"), ValueError),
    (lambda vertex: vertex.get(name=f"{PARENT}/customJobs/1/../2"), ValueError),
    (lambda vertex: vertex.get(), ValueError), (lambda vertex: vertex.get(id="1"), TypeError),
    (lambda vertex: vertex.create(parent=PARENT), TypeError), (lambda vertex: vertex.patch, AttributeError),
    (lambda vertex: vertex.get(name=f"{PARENT}/customJobs/1", body={}), TypeError),
])
def test_what_no_document_describes_is_not_sent(
    ours: Any, call: Callable[[Any], object], error: type[Exception],
) -> None:
    with pytest.raises(error):
        call(ours)


def test_a_resource_is_cut_out_of_any_text() -> None:
    found = {"methods": {"get": {"id": "x.a.b.get"}}}
    other = {"methods": {"get": {"id": "x.b.get"}}}
    document = {"text": '"b": {"methods"', "b": "b", "one": {"b": other}, "schemas": {"b": {"methods": 3}},
                "resources": {"a": {"resources": {"b": found}}}}
    for text in (json.dumps(document), json.dumps(document, indent=3), json.dumps(document, separators=(",", ":"))):
        assert resource_of(text, "x", "a", "b") == found
        with pytest.raises(LookupError):
            resource_of(text, "x", "a", "c")


class Says:
    """A server that answers what it is told, by verb."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.status = 200
        told = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = told.answers[self.command]
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(told.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_DELETE = do_POST = answer

            def log_message(self, *_: object) -> None:
                """Tests print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def says() -> Iterator[Says]:
    made = Says()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_deletion_that_goes_on_or_failed(says: Says) -> None:
    jobs = Jobs(session_of(f"http://127.0.0.1:{says.server.server_port}"))
    says.answers["GET"] = b'{"name": "n/1", "state": "JOB_STATE_FAILED"}'.replace(
        b"n/1", b"projects/p/locations/local/customJobs/1")
    says.answers["DELETE"] = b'{"name": "operations/1"}'
    assert jobs.delete("1") is False
    says.answers["DELETE"] = b'{"name": "operations/1", "done": true, "error": {"code": 13, "message": "disk on fire"}}'
    with pytest.raises(ServiceError, match="disk on fire"):
        jobs.delete("1")


@pytest.mark.parametrize("answer", [b"[]", b"3", b"{", b"\xff", b'{"customJobs": 3}', b'{"customJobs": [3]}',
                                    b'{"customJobs": [{"state": "JOB_STATE_FAILED"}]}', b'"text"', b"null"])
def test_an_answer_that_makes_no_sense_is_one_line(says: Says, answer: bytes) -> None:
    jobs = Jobs(session_of(f"http://127.0.0.1:{says.server.server_port}"))
    says.answers["GET"] = answer
    with pytest.raises(ServiceError) as caught:
        jobs.list()
    assert "\n" not in str(caught.value)


FIELDS = st.sampled_from([
    "state", "displayName", "createTime", "error", "labels", "jobSpec", "workerPoolSpecs", "machineSpec", "message",
    "code", "replicaCount", "acceleratorCount", "scheduling", "strategy", "machineType",
])
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["", "x", "7"]),
    lambda inner: st.dictionaries(FIELDS, inner, max_size=4) | st.lists(inner, max_size=2), max_leaves=12,
)


@given(st.dictionaries(FIELDS, NESTED))
def test_any_resource_with_a_name_is_told_of(resource: dict[str, Any]) -> None:
    info = to_info({**resource, "name": "n"})
    assert info.id == "n"
    json.dumps(asdict(info))
    with pytest.raises(ServiceError):
        to_info(resource)


ELSEWHERE = "projects/7/locations/europe-west4/customJobs/5"


@pytest.fixture
def of_google(tmp_path: Path) -> Jobs:
    """Of a project in us-central1, with credentials that nothing is sent by."""
    key = tmp_path / "key.json"
    user = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    key.write_text(json.dumps(user))
    return Jobs(Session(settings_with(str(key))))


def settings_with(credentials: str) -> Settings:
    project, region, bucket, key, endpoint = (
        Setting(one, "test") for one in ("p", "us-central1", "gs://b", credentials, ""))
    return Settings(project, region, bucket, key, endpoint)


@pytest.mark.parametrize(("name", "host", "project"), [
    (ELSEWHERE, "europe-west4", "p"), (ELSEWHERE.replace("/7/", "/other/"), "europe-west4", "other"),
    (ELSEWHERE.replace("europe-west4", "us-central1"), "us-central1", "p"), ("5", "us-central1", "p"),
    ("projects/other/locations/us-central1/customJobs/5", "us-central1", "other"),
])
def test_a_job_is_looked_for_where_its_name_says(of_google: Jobs, name: str, host: str, project: str) -> None:
    session, full = of_google.session_of(name), of_google.full_name(name)
    asked = session.vertex.get(name=full)
    assert asked.uri == f"https://{host}-aiplatform.googleapis.com/v1/{full}?alt=json"
    page = of_google.page(JobInfo(full, "job", JobState.RUNNING))
    assert page == f"https://console.cloud.google.com/vertex-ai/locations/{host}/training/5?project={project}"
    assert of_google.session_of(full) is session
    # Made of the same file of credentials.
    assert session.credentials.refresh_token == "r"


REGIONS = st.text(st.sampled_from("a-1.:/?#@%\\ \n\x00E\u0661"), max_size=9) | st.sampled_from(
    ["evil.example#", "evil.example?", "a@evil.example", "evil.example:443", "\u0435u-west4", "-a"])


@given(REGIONS)
def test_only_a_regions_letters_get_into_a_hosts_name(region: str) -> None:
    """Credentials go where this leads."""
    jobs, name = Jobs(Session(settings_with(""))), f"projects/p/locations/{region}/customJobs/5"
    try:
        session = jobs.session_of(name)
    except SpecError:
        return
    assert set(session.region) <= set("a-1")


T4S = "custom_model_training_nvidia_t4_gpus"
QUOTA = f"The following quota metrics exceed quota limits: aiplatform.googleapis.com/{T4S}"
FAILURE = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
    {"subject": "project:p", "description": "custom_model_training_tpu_v2 in the region"}]}
RATE = "Quota exceeded for quota metric 'Job requests' and limit 'Job requests per minute' of aiplatform.googleapis.com"
AS = "You do not have permission to act as service_account: a@p.iam.gserviceaccount.com"
DENIED = ("Permission 'aiplatform.customJobs.create' denied on resource "
          "'//aiplatform.googleapis.com/projects/p/locations/us-central1' (or it may not exist).")


@pytest.mark.parametrize(("status", "message", "more", "kind", "code", "told"), [
    (429, QUOTA, [], OutageError, "J403", f"{T4S} is used up in the region local"),
    (429, "Quota exceeded.", [FAILURE], OutageError, "J403", "custom_model_training_tpu_v2 is used up in the region l"),
    (429, QUOTA, [], OutageError, "J403", "; ask for more at https://console.cloud.google.com/iam-admin/quotas"),
    (429, RATE, [], OutageError, "J405", "; wait and try again"),
    (403, AS, [], AuthError, "J404", "; run `gcloud iam service-accounts add-iam-policy-binding a@p.iam"),
    (403, DENIED, [], AuthError, "J404", "; run `gcloud projects add-iam-policy-binding p --member="),
    (403, "The API has not been used in project p before or it is disabled.", [], AuthError, "J404",
     "; run `gcloud services enable aiplatform.googleapis.com --project=p`"),
    (403, "No.", [], AuthError, "E105", "; grant roles/aiplatform.user"),
])
def test_a_refusal_says_what_to_ask_for(
    says: Says, status: int, message: str, more: list[Any], kind: type[GcpodError], code: str, told: str,
) -> None:
    error = {"code": status, "message": message, "details": more}
    says.status, says.answers["POST"] = status, json.dumps({"error": error}).encode()
    with pytest.raises(GcpodError) as caught:
        Jobs(session_of(f"http://127.0.0.1:{says.server.server_port}")).create(shell_job())
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert told in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60) | NESTED.map(lambda one: json.dumps({"error": one}).encode()),
       st.sampled_from([400, 401, 403, 404, 408, 429, 500]))
def test_any_refusal_is_one_line(content: bytes, status: int) -> None:
    class Refused:
        """A request whose answer is known."""

        uri = f"{BASE}/v1/{PARENT}/customJobs"

        def execute(self) -> Any:
            raise StatusError(status, content)

    with pytest.raises(GcpodError) as caught:
        execute(cast(Request, Refused()), "submitting the job", "j")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 403, 429])
def test_an_answer_too_deep_to_be_read_is_one_line(says: Says, status: int) -> None:
    says.status, says.answers["GET"] = status, b"[" * 200_000
    with pytest.raises(GcpodError) as caught:
        Jobs(session_of(f"http://127.0.0.1:{says.server.server_port}")).get("1")
    assert len(str(caught.value)) < 400


def test_a_job_is_handed_over_to_the_official_sdk(tmp_path: Path, quick_python: Path) -> None:
    # The SDK knows Google's regions only, so this local cloud stands for one of them.
    made = JobCloud(tmp_path / "c", cache=tmp_path, environment_of=lambda *_: quick_python, location="us-central1")
    with made as running:
        here = Setting("us-central1", "test")
        settings = Settings(Setting("p", "test"), here, Setting("gs://b", "test"), here, Setting(running.url, "test"))
        session = Session(settings)
        session.__dict__["credentials"] = AnonymousCredentials()
        info = Jobs(session).create(shell_job())
        handed = session.sdk_job(info.name)
        assert handed.resource_name == info.name
        assert handed.display_name == info.display_name
