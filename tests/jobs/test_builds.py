"""Trainer images from request to end: one build for one context, whatever is lost on the way."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gcpod.errors import AuthError, GcpodError, JobFailedError, OutageError, ServiceError, SpecError
from gcpod.jobs import builds
from gcpod.jobs.builds import (
    BuildInfo,
    Builds,
    BuildStatus,
    Image,
    ImageBuilder,
    build_request,
    find_build,
    to_build,
)
from gcpod.jobs.registry import ensure_repository
from gcpod.jobs.request import image_uri
from gcpod.jobs.submit import ATTEMPTS
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.discovery import load
from gcpod.localcloud.schema import check_body
from gcpod.runtimes import Runtime, all_runtimes, find_runtime
from gcpod.runtimes.recipe import context_digest, context_of, image_address, pack_context
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import MachineSpec, Spec
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.jobs import Fault, Faults, session_of

RUNTIME = find_runtime("tf2.15")
DIGEST = context_digest(context_of(RUNTIME, "cpu"))[:16]
MACHINES = {"cpu": MachineSpec("n1-standard-4"), "gpu": MachineSpec("n1-standard-4", "NVIDIA_TESLA_T4", 1),
            "tpu": MachineSpec("cloud-tpu", "TPU_V2", 8)}
SOURCE = GcsUri("bucket", "builds/d.tar.gz")


class Place:
    """A project of a test's own on a shared cloud, with faults on the way to it and a sleep that is cut short."""

    def __init__(self, cloud: JobCloud, faults: Faults, behave: dict[str, Callable[[], None]]) -> None:
        self.cloud, self.faults, self.behave = cloud, faults, behave
        self.session = session_of(cloud.url, f"p-{uuid.uuid4().hex[:12]}")
        self.image = image_address(RUNTIME, "cpu", self.session.project, "local")
        self.said, self.time, self.naps = list[str](), 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.naps.append(seconds)
        time.sleep(0.002)

    def builder(self, patience_s: float = 1e9) -> ImageBuilder:
        return ImageBuilder(
            self.session, Objects(self.session, 5), self.said.append, lambda: self.time, self.sleep, patience_s,
        )

    def listed(self) -> list[BuildInfo]:
        return Builds(self.session).list("gcpod")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[Callable[[], Place]]:
    folder, faults = tmp_path_factory.mktemp("builds"), Faults()
    behave: dict[str, Callable[[], None]] = {}

    def environment(runtime: Runtime, _: str, __: Path, say: Callable[[str], None]) -> Path:
        behave.get("environment", lambda: None)()
        say(f"made {runtime.name}")
        return quick_python

    made = JobCloud(folder / "c", cache=folder, environment_of=environment, middleware=faults.wrap)
    with made as cloud:
        yield lambda: Place(cloud, faults, behave)


@pytest.fixture
def place(shared: Callable[[], Place]) -> Iterator[Place]:
    place = shared()
    yield place
    place.faults.choose = lambda *_: None
    place.faults.seen.clear()
    place.behave.clear()
    place.session.storage.close()


@pytest.mark.parametrize("runtime", all_runtimes().values(), ids=lambda runtime: runtime.name)
@pytest.mark.parametrize("kind", ["cpu", "gpu", "tpu"])
def test_an_image_lies_where_jobs_look_for_it(runtime: Runtime, kind: str) -> None:
    wanted = image_uri(Spec(), runtime, MACHINES[kind], "p", "us-central1")
    assert f"{image_address(runtime, kind, 'p', 'us-central1')}:latest" == wanted


def test_the_request_is_one_that_google_documents() -> None:
    body = build_request("r-docker.pkg.dev/p/gcpod/i", "d", SOURCE, 7)
    assert check_body(load("cloudbuild.v1"), "Build", body) == body
    assert body == {
        "source": {"storageSource": {"bucket": "bucket", "object": "builds/d.tar.gz", "generation": "7"}},
        "steps": [{"name": "gcr.io/cloud-builders/docker", "args": [
            "build", "--tag", "r-docker.pkg.dev/p/gcpod/i:latest", "--tag", "r-docker.pkg.dev/p/gcpod/i:d", "."]}],
        "images": ["r-docker.pkg.dev/p/gcpod/i:latest", "r-docker.pkg.dev/p/gcpod/i:d"], "timeout": "3600s",
        "options": {"logging": "CLOUD_LOGGING_ONLY"}, "tags": ["gcpod", "gcpod-d"],
    }


def test_a_context_has_the_same_bytes_everywhere(tmp_path: Path) -> None:
    code = ("import hashlib, os; os.umask(0o77)\nfrom gcpod.runtimes import find_runtime\n"
            "from gcpod.runtimes.recipe import context_of, pack_context\n"
            "print(hashlib.sha256(pack_context(context_of(find_runtime('tf2.15'), 'tpu'))).hexdigest())")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code]
    one = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    two = subprocess.run(command, env={**environment, "TZ": "UTC", "PYTHONHASHSEED": "8"}, capture_output=True,
                         text=True, check=True).stdout
    assert one == two
    packed = pack_context({"b": b"2", "a": b"1"})
    assert packed == pack_context({"a": b"1", "b": b"2"})
    assert gzip.decompress(packed).index(b"a\0") < gzip.decompress(packed).index(b"b\0")
    digests = {context_digest(one) for one in ({"a": b"1"}, {"a": b"2"}, {"b": b"1"}, {"a": b"", "1": b""})}
    assert len(digests) == 4


def test_where_google_is_asked() -> None:
    session = Session(resolve(Spec(project="p", region="us-central1"), environ={}, home=Path("/nonexistent")))
    # Making a request asks nobody; the credentials are anonymous here.
    vars(session)["credentials"] = session_of("http://127.0.0.1:1").credentials
    listing = session.builds.list(parent="projects/p/locations/global").uri
    assert listing.startswith("https://cloudbuild.googleapis.com/v1/projects/p/locations/global/builds?")
    repository = session.registry.repositories().get(name=f"{session.location}/repositories/gcpod").uri
    assert repository.startswith("https://artifactregistry.googleapis.com/v1/projects/p/locations/us-central1/repo")


def test_from_nothing_to_an_image(place: Place) -> None:
    made = place.builder().build(RUNTIME, "cpu")
    [build] = place.listed()
    assert (made.image, made.build, made.new) == (f"{place.image}:latest", build.id, True)
    assert made.digest == build.digests[f"{place.image}:{DIGEST}"]
    assert made.digest.startswith("sha256:")
    assert place.said == [
        "made the repository gcpod in local",
        f"build {build.id} of {place.image}:{DIGEST}: {build.log_url}",
        f'starting build "{build.id}"', f"the source holds {len(context_of(RUNTIME, 'cpu'))} files",
        f"{place.image}: the context is that of tf2.15 for cpu", "made tf2.15",
        f"pushed {place.image}:latest", f"pushed {place.image}:{DIGEST}", "DONE",
    ]
    source = Objects(place.session).read(place.session.settings.bucket_uri / f"builds/{DIGEST}.tar.gz")
    assert source is not None
    assert source.content == pack_context(context_of(RUNTIME, "cpu"))


def test_again_builds_nothing_unless_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first = place.builder().build(RUNTIME, "cpu")
    place.said.clear()
    place.faults.seen.clear()
    second = place.builder().build(RUNTIME, "cpu")
    assert (second.build, second.digest, second.new) == (first.build, first.digest, False)
    assert place.said == []
    assert [verb for verb, _ in place.faults.seen] == ["GET"]
    third = place.builder().build(RUNTIME, "cpu", again=True)
    assert third.new
    monkeypatch.setattr(builds, "PAGE_SIZE", 1)
    assert [one.id for one in place.listed()] == [third.build, first.build]
    assert place.faults.times("POST", "/repositories") == 0
    # The source lies there already.
    assert not [path for verb, path in place.faults.seen if verb == "POST" and path.startswith("/upload")]
    assert place.builder().build(RUNTIME, "gpu").new
    assert place.builder().build(RUNTIME, "cpu").build == third.build


def waited(gate: threading.Event) -> None:
    assert gate.wait(20)


def test_a_running_build_is_followed(place: Place) -> None:
    gate = threading.Event()
    place.behave["environment"] = lambda: waited(gate)
    made, lines = list[Image](), list[str]()

    def build(say: Callable[[str], None]) -> None:
        session = session_of(place.cloud.url, place.session.project)
        builder = ImageBuilder(session, Objects(session, 5), say, sleep=lambda _: time.sleep(0.01))
        made.append(builder.build(RUNTIME, "cpu"))
        session.storage.close()

    # The second one begins while the first one's build works, and lets that go on once it follows it.
    second = threading.Thread(target=build, args=(lambda _: gate.set(),))

    def say(line: str) -> None:
        lines.append(line)
        if "the context is" in line:
            second.start()

    build(say)
    second.join()
    assert [one.build for one in made] == [made[0].build] * 2
    assert {one.new for one in made} == {True, False}
    assert [one.id for one in place.listed()] == [made[0].build]
    assert len(lines) == len(set(lines))


def on_create(*faults: Fault | int) -> Callable[[str, str], Fault | int | None]:
    left = list(faults)
    return lambda verb, path: left.pop(0) if left and verb == "POST" and path.endswith("/builds") else None


@pytest.mark.parametrize(("fault", "times"), [
    ("busy", 1), ("dropped", 2), (429, 1), ("busy after", 1), ("dropped after", 2),
])
def test_a_reply_that_got_lost(place: Place, fault: Fault | int, times: int) -> None:
    place.faults.choose = on_create(*[fault] * times)
    made = place.builder().build(RUNTIME, "cpu")
    assert [one.id for one in place.listed()] == [made.build]
    lost = isinstance(fault, str) and fault.endswith("after")
    assert place.faults.times("POST", "/builds") == (1 if lost else times + 1)


def test_a_lost_reply_is_not_answered_by_an_older_build(place: Place) -> None:
    first = place.builder().build(RUNTIME, "cpu")
    place.faults.choose = on_create("dropped after")
    second = place.builder().build(RUNTIME, "cpu", again=True)
    assert {one.id for one in place.listed()} == {first.build, second.build}
    assert first.build != second.build


def test_the_service_stays_away(place: Place) -> None:
    place.faults.choose = lambda verb, path: 503 if verb == "POST" and path.endswith("/builds") else None
    with pytest.raises(OutageError, match="starting the build of"):
        place.builder().build(RUNTIME, "cpu")
    assert place.faults.times("POST", "/builds") == ATTEMPTS
    assert place.listed() == []


def test_outages_while_it_runs(place: Place) -> None:
    left: list[Fault] = ["busy", "dropped", "busy after", "dropped after"] * 3

    def choose(verb: str, path: str) -> Fault | None:
        asked = "/global/builds/" in path or path.endswith("entries:list")
        return left.pop() if left and asked else None

    place.faults.choose = choose
    made = place.builder().build(RUNTIME, "cpu")
    assert not left
    assert made.digest
    assert place.said[2].startswith("starting build")
    assert place.said[-1] == "DONE"
    assert len(place.said) == len(set(place.said))


def test_a_local_cloud_that_is_gone_is_not_waited_for_forever(place: Place) -> None:
    place.faults.choose = lambda verb, path: 503 if "/global/builds/" in path else None
    with pytest.raises(OutageError, match="no answer for 60 s; run the command again: it follows the same build"):
        place.builder(60).build(RUNTIME, "cpu")
    assert 60 <= sum(place.naps) < 120
    place.faults.choose = lambda *_: None
    assert place.builder().build(RUNTIME, "cpu").build == place.listed()[0].id
    assert len(place.listed()) == 1


@pytest.mark.parametrize(("status", "said"), [(403, "grant roles/logging.viewer"), (400, "the service answered 400")])
def test_who_may_not_read_the_log_gets_the_image(place: Place, status: int, said: str) -> None:
    place.faults.choose = lambda verb, path: status if path.endswith("entries:list") else None
    assert place.builder().build(RUNTIME, "cpu").digest
    assert [line for line in place.said if said in line] == place.said[-1:]
    assert place.faults.times("POST", "entries:list") == 1


def test_a_build_that_fails(place: Place) -> None:
    def fail() -> None:
        raise GcpodError("making", "it", "the disk is full", "make room")

    place.behave["environment"] = fail
    with pytest.raises(JobFailedError) as failed:
        place.builder().build(RUNTIME, "cpu")
    [build] = place.listed()
    assert str(failed.value) == (
        f"E108: building the image {place.image}: the build {build.id} ended FAILURE: E000: making it: the disk is "
        f"full; make room; read its log at {build.log_url}"
    )
    assert place.said[-1] == f"ERROR: {build.detail}"
    place.behave.clear()
    assert place.builder().build(RUNTIME, "cpu").build != build.id


def test_what_cannot_be_built_asks_nobody(place: Place) -> None:
    with pytest.raises(SpecError, match="there is no recipe"):
        place.builder().build(find_runtime("tf2.12"), "tpu")
    assert place.faults.seen == []


def info(name: str, state: str, digest: str, finished: str = "", image: str = "i") -> BuildInfo:
    return BuildInfo(name, BuildStatus(state), (f"{image}:latest", f"{image}:{digest}"), finish_time=finished)


@pytest.mark.parametrize(("listed", "found"), [
    ([], None),
    ([info("a", "SUCCESS", "d", "1")], "a"),
    ([info("a", "FAILURE", "d", "1")], None), ([info("a", "CANCELLED", "d", "1")], None),
    ([info("b", "WORKING", "d"), info("a", "SUCCESS", "d", "1")], "b"),
    ([info("b", "WORKING", "e"), info("a", "SUCCESS", "d", "1")], "a"),
    ([info("b", "SUCCESS", "e", "2"), info("a", "SUCCESS", "d", "1")], None),
    ([info("b", "SUCCESS", "e", "1"), info("a", "SUCCESS", "d", "2")], "a"),
    ([info("b", "FAILURE", "e", "2"), info("a", "SUCCESS", "d", "1")], "a"),
    ([info("b", "SUCCESS", "d", "1", image="elsewhere")], None),
    ([info("b", "STATUS_UNKNOWN", "d")], "b"),
])
def test_which_build_counts(listed: list[BuildInfo], found: str | None) -> None:
    there = find_build(listed, "i", "d")
    assert (there.id if there else None) == found


def test_a_status_of_tomorrow_is_not_the_end() -> None:
    build = to_build({"id": "1", "status": "PAUSED", "failureInfo": {"detail": "what"}})
    assert (build.state, build.state.terminal, build.detail) == (BuildStatus.UNKNOWN, False, "what")
    documented = load("cloudbuild.v1").schemas["Build"]["properties"]["status"]["enum"]
    assert [one.value for one in BuildStatus] == documented


@pytest.mark.parametrize("fault", ["busy", "dropped"])
def test_a_repository_that_cannot_be_made(place: Place, fault: Fault) -> None:
    place.faults.choose = lambda verb, path: fault if verb == "POST" else None
    with pytest.raises(OutageError, match="making the repository"):
        ensure_repository(place.session, place.sleep)
    place.faults.choose = lambda verb, path: 403 if verb == "POST" else None
    with pytest.raises(AuthError, match=r"grant roles/artifactregistry\.admin"):
        ensure_repository(place.session, place.sleep)


@pytest.mark.parametrize("fault", ["busy after", "dropped after"])
def test_a_repository_whose_reply_got_lost(place: Place, fault: Fault) -> None:
    place.faults.choose = lambda verb, path: fault if verb == "POST" else None
    assert ensure_repository(place.session, place.sleep) is False
    place.faults.choose = lambda *_: None
    assert ensure_repository(place.session, place.sleep) is False
    assert place.faults.times("POST", "/repositories") == 1


def test_the_repository_is_waited_for(place: Place) -> None:
    left: list[Fault] = ["busy", "dropped"]
    place.faults.choose = lambda verb, path: left.pop() if left and "/operations/" in path else None
    assert ensure_repository(place.session, place.sleep) is True
    assert len(place.naps) == 2


def test_a_repository_that_stays_unfinished(place: Place) -> None:
    place.faults.choose = lambda verb, path: 503 if "/operations/" in path else None
    with pytest.raises(ServiceError, match="it is still being made; run the command again"):
        ensure_repository(place.session, place.sleep)


def test_a_repository_of_another_format(place: Place) -> None:
    request = place.session.registry.repositories().create(
        parent=place.session.location, repositoryId="gcpod", body={"format": "PYTHON"},
    )
    request.execute()
    with pytest.raises(ServiceError, match="its format is PYTHON, not DOCKER"):
        place.builder().build(RUNTIME, "cpu")
    assert place.listed() == []


def test_another_object_in_the_place_of_the_source_is_replaced(place: Place) -> None:
    objects, bucket = Objects(place.session), place.session.settings.bucket_uri
    objects.ensure_bucket(bucket.bucket)
    objects.write(bucket / f"builds/{DIGEST}.tar.gz", b"half a file")
    assert place.builder().build(RUNTIME, "cpu").digest
