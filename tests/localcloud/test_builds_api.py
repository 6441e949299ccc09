"""Builds and image repositories over the wire: what is refused, the states, what a build without Docker looks at."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from googleapiclient import discovery
from googleapiclient.errors import HttpError
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import PackageError
from gcpod.jobs.builds import build_request
from gcpod.jobs.registry import ensure_repository
from gcpod.localcloud.builder import MAX_CONTEXT_BYTES, BuildFailure, tags_of, unpack
from gcpod.localcloud.cloud import JobCloud
from gcpod.localcloud.jobdb import JobDatabase
from gcpod.localcloud.scheduler import project_number
from gcpod.runtimes import Runtime, find_runtime
from gcpod.runtimes.recipe import context_digest, context_of, image_address, pack_context
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.jobs import session_of, without_keep_alive
from tests.localcloud.conftest import Answer, Raw
from tests.waiting import until

RUNTIME = find_runtime("tf2.15")
CONTEXT = context_of(RUNTIME, "cpu")
DIGEST = context_digest(CONTEXT)
IMAGE = image_address(RUNTIME, "cpu", "p", "local")
OBJECT = GcsUri("sources", "context.tar.gz")
DOCKER = "gcr.io/cloud-builders/docker"


class Environments:
    """Stands for making environments: remembers what for, and waits while it is held."""

    def __init__(self, python: Path) -> None:
        self.python, self.made, self.free = python, list[tuple[str, str]](), threading.Event()
        self.failure: Exception | None = None
        self.free.set()

    def __call__(self, runtime: Runtime, image: str, _: Path, say: Callable[[str], None]) -> Path:
        assert self.free.wait(20)
        if self.failure is not None:
            raise self.failure
        self.made.append((runtime.name, image))
        say(f"making {runtime.name}")
        return self.python


class Place:
    """A local cloud with a repository and the packed context of a recipe in a bucket."""

    def __init__(self, cloud: JobCloud, environments: Environments) -> None:
        self.cloud, self.environments = cloud, environments
        self.raw = Raw(f"127.0.0.1:{cloud.port}")
        self.builds = discovery.build(
            "cloudbuild", "v1", credentials=AnonymousCredentials(), static_discovery=True,
            client_options={"api_endpoint": cloud.url},
        ).projects()
        self.objects = Objects(session_of(cloud.url))

    def put(self, content: bytes) -> int:
        there = self.objects.read(OBJECT)
        if there is not None and there.content == content:
            return there.generation
        generation = self.objects.write_if(OBJECT, content, there.generation if there else 0)
        assert generation is not None
        return generation

    def body(self) -> dict[str, Any]:
        return build_request(IMAGE, DIGEST[:16], OBJECT, self.put(pack_context(CONTEXT)))

    def create(self, body: dict[str, Any]) -> str:
        reply = self.builds.locations().builds().create(parent="projects/p/locations/global", body=body).execute()
        return str(reply["metadata"]["build"]["id"])

    def get(self, build: str) -> dict[str, Any]:
        found: dict[str, Any] = self.builds.builds().get(projectId="p", id=build).execute()
        return found

    def ended(self, build: str) -> dict[str, Any]:
        until(lambda: "finishTime" in self.get(build))
        return self.get(build)

    def post(self, body: Any) -> Answer:
        return self.raw("POST", "/v1/projects/p/locations/global/builds", json.dumps(body).encode())

    def lines(self, build: str) -> list[str]:
        body = {"resourceNames": ["projects/p"],
                "filter": f'resource.type="build" AND resource.labels.build_id="{build}"'}
        reply = self.raw("POST", "/v2/entries:list", json.dumps(body).encode()).json
        assert all(one["labels"] == {"build_step": "MAIN"} for one in reply.get("entries", []))
        return [one["textPayload"] for one in reply.get("entries", [])]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, quick_python: Path) -> Iterator[Place]:
    folder, environments = tmp_path_factory.mktemp("builds"), Environments(quick_python)
    with JobCloud(folder / "c", cache=folder, environment_of=environments, middleware=without_keep_alive) as cloud:
        place = Place(cloud, environments)
        place.objects.ensure_bucket(OBJECT.bucket)
        assert ensure_repository(session_of(cloud.url), lambda _: None)
        yield place


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    shared.environments.made.clear()
    yield shared
    shared.environments.free.set()
    shared.environments.failure = None


def packed(*members: tarfile.TarInfo, content: bytes = b"x") -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for member in members:
            member.size = len(content) if member.isfile() else 0
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(raw.getvalue())


def test_life_of_a_build(place: Place) -> None:
    place.environments.free.clear()
    build = place.create(place.body())
    until(lambda: place.get(build)["status"] == "WORKING")
    name = f"projects/{project_number('p')}/locations/global/builds/{build}"
    found = place.builds.locations().builds().get(name=name.replace(project_number("p"), "p")).execute()
    assert (found["name"], found["projectId"], found["tags"]) == (name, "p", ["gcpod", f"gcpod-{DIGEST[:16]}"])
    assert found["createTime"] <= found["startTime"]
    assert "finishTime" not in found
    operation = place.raw("POST", "/v1/projects/p/builds", json.dumps(place.body()).encode()).json
    assert operation["metadata"]["build"]["status"] == "QUEUED"
    place.environments.free.set()
    ended = place.ended(build)
    assert (ended["status"], ended["startTime"] <= ended["finishTime"]) == ("SUCCESS", True)
    images = [f"{IMAGE}:latest", f"{IMAGE}:{DIGEST[:16]}"]
    assert ended["results"] == {"images": [{"name": one, "digest": f"sha256:{DIGEST}"} for one in images]}
    assert place.lines(build) == [
        f'starting build "{build}"', f"the source holds {len(CONTEXT)} files",
        f"{IMAGE}: the context is that of tf2.15 for cpu", "making tf2.15",
        *(f"pushed {one}" for one in images), "DONE",
    ]
    other = operation["metadata"]["build"]["id"]
    place.ended(other)
    done = place.raw("GET", f"/v1/{operation['name']}").json
    assert (done["done"], done["response"]["id"], done["response"]["status"]) == (True, other, "SUCCESS")
    assert place.environments.made == [("tf2.15", IMAGE)] * 2


@pytest.mark.parametrize(("path", "value", "said"), [
    ("colour", "red", 'Unknown name "colour"'), ("steps", [], "build step"), ("steps", [{"args": []}], "build step"),
    ("steps", [{"name": DOCKER, "arguments": []}], "build.steps[0]"), ("timeout", "soon", "build.timeout"),
    ("timeout", "0s", "timeout"), ("timeout", "86401s", "timeout"), ("tags", ["a b"], "tag"),
    ("tags", [1], "build.tags"), ("images", [""], "image"), ("options", {"logging": "LOUD"}, "build.options.logging"),
    ("source", {"storageSource": {"bucket": "b"}}, "storage_source"),
    ("source", {"storageSource": {"bucket": "b", "object": "o", "generation": "new"}}, "generation"),
])
def test_bad_requests(place: Place, path: str, value: Any, said: str) -> None:
    before = len(place.builds.builds().list(projectId="p", pageSize=1000).execute().get("builds", []))
    reply = place.post({**build_request(IMAGE, "d", OBJECT, 1), path: value})
    assert (reply.status, reply.json["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert said in reply.json["error"]["message"]
    assert len(place.builds.builds().list(projectId="p", pageSize=1000).execute().get("builds", [])) == before


def test_what_only_the_service_says_is_not_taken_from_the_client(place: Place) -> None:
    body = {**place.body(), "status": "SUCCESS", "id": "mine", "results": {"images": []}, "finishTime":
            "2020-01-01T00:00:00Z"}
    build = place.create(body)
    assert build != "mine"
    assert place.ended(build)["createTime"] > "2020-01-02"


def other_bytes(body: dict[str, Any], place: Place) -> None:
    altered = {**CONTEXT, "Dockerfile": b"FROM scratch\n", "more.py": b""}
    body["source"]["storageSource"]["generation"] = str(place.put(pack_context(altered)))


def old_generation(body: dict[str, Any], place: Place) -> None:
    place.put(b"newer")


def no_archive(body: dict[str, Any], place: Place) -> None:
    body["source"]["storageSource"]["generation"] = str(place.put(b"text"))


def set_to(key: str, value: Any) -> Callable[[dict[str, Any], Place], None]:
    return lambda body, place: body.update({key: value})


def step(**changes: Any) -> Callable[[dict[str, Any], Place], None]:
    return lambda body, place: body["steps"][0].update(changes)


ELSEWHERE = "europe-west4-docker.pkg.dev/p/gcpod/gcpod-trainer-tf2.15-cpu:latest"
OTHER_KIND = f"{image_address(RUNTIME, 'tpu', 'p', 'local')}:latest"


@pytest.mark.parametrize(("change", "kind", "said"), [
    (other_bytes, "USER_BUILD_STEP", "it differs in Dockerfile, more.py;"),
    (old_generation, "FETCH_SOURCE_FAILED", "No such object"),
    (no_archive, "FETCH_SOURCE_FAILED", "cannot be unpacked"),
    (set_to("source", {}), "FETCH_SOURCE_FAILED", "a source in Cloud Storage only"),
    (step(name="gcr.io/cloud-builders/gcloud"), "USER_BUILD_STEP", "'gcr.io/cloud-builders/gcloud': the local cloud"),
    (step(args=["push", "."]), "USER_BUILD_STEP", "with `build` only"), (step(script="ls"), "USER_BUILD_STEP", "only"),
    (step(entrypoint="sh"), "USER_BUILD_STEP", "only"),
    (step(args=["build", "--file", "other", "."]), "USER_BUILD_STEP", "with '--file'"),
    (step(args=["build", "-t"]), "USER_BUILD_STEP", "with '-t'"),
    (step(args=["build"]), "USER_BUILD_STEP", "no folder"),
    (step(args=["build", "--tag", "docker.io/me/x:1", "."]), "USER_BUILD_STEP", "no recipe for the image docker.io/me"),
    (step(args=["build", "--tag", OTHER_KIND, "."]), "USER_BUILD_STEP", "it differs in Dockerfile;"),
    (step(args=["build", "--network", "cloudbuild", "--no-cache", f"--tag={IMAGE}:other", "."]),
     "PUSH_IMAGE_NOT_FOUND", f"No step made the image {IMAGE}:latest."),
    (set_to("images", [ELSEWHERE]), "PUSH_IMAGE_NOT_FOUND", "No step made"),
])
def test_builds_that_fail(place: Place, change: Callable[[Any, Place], None], kind: str, said: str) -> None:
    body = place.body()
    change(body, place)
    build = place.create(body)
    ended = place.ended(build)
    assert (ended["status"], ended["failureInfo"]["type"]) == ("FAILURE", kind)
    assert said in ended["statusDetail"] == ended["failureInfo"]["detail"]
    assert "results" not in ended
    assert place.lines(build)[-1] == f"ERROR: {ended['statusDetail']}"


@pytest.mark.parametrize(("failure", "status", "said"), [
    (PackageError("making", "it", "pip fell over", "mend it"), "FAILURE", "E104: making it: pip fell over; mend it"),
    (RuntimeError("what"), "INTERNAL_ERROR", "Internal error: RuntimeError: what"),
])
def test_an_environment_that_cannot_be_made(place: Place, failure: Exception, status: str, said: str) -> None:
    place.environments.failure = failure
    ended = place.ended(place.create(place.body()))
    assert (ended["status"], ended["statusDetail"]) == (status, said)


def test_a_push_needs_its_repository(place: Place) -> None:
    body = place.body()
    image = ELSEWHERE.replace("europe-west4", "local").replace("/gcpod/gcpod-", "/other/gcpod-")
    for one, why in ((ELSEWHERE, "not found"), (image, "of format PYTHON, not DOCKER")):
        place.raw("POST", "/v1/projects/p/locations/local/repositories?repositoryId=other", b'{"format": "PYTHON"}')
        body["images"], body["steps"][0]["args"] = [one], ["build", "--tag", one, "."]
        ended = place.ended(place.create(body))
        assert (ended["status"], ended["failureInfo"]["type"]) == ("FAILURE", "PUSH_FAILED")
        assert why in ended["statusDetail"]


def test_cancel_and_timeout(place: Place) -> None:
    place.environments.free.clear()
    cancelled, late = place.create(place.body()), place.create({**place.body(), "timeout": "0.2s"})
    name = f"projects/p/locations/global/builds/{cancelled}"
    assert place.builds.locations().builds().cancel(name=name, body={}).execute()["status"] == "CANCELLED"
    with pytest.raises(HttpError, match="has ended: CANCELLED"):
        place.builds.builds().cancel(projectId="p", id=cancelled, body={}).execute()
    assert place.ended(late)["status"] == "TIMEOUT"
    place.environments.free.set()
    assert place.ended(place.create(place.body()))["status"] == "SUCCESS"
    assert [place.get(one)["status"] for one in (cancelled, late)] == ["CANCELLED", "TIMEOUT"]


def test_what_is_not_there_is_404(place: Place) -> None:
    build = place.create(place.body())
    for project, name in (("p", str(uuid.uuid4())), ("other", build)):
        with pytest.raises(HttpError, match="404"):
            place.builds.builds().get(projectId=project, id=name).execute()
    for operation in ("operations/build/p/%21", "operations/build/p/_w==", "operations/x"):
        assert place.raw("GET", f"/v1/{operation}").status == 404
    assert place.raw("GET", "/v1/projects/p/locations/mars/builds").status == 400


@pytest.mark.parametrize(("query", "status", "count"), [
    ('tags="TAG"', 200, 2), ('tags="TAG" AND status="SUCCESS"', 200, 2), ('tags="TAG" AND status="FAILURE"', 200, 0),
    ('tags="TAG" AND create_time>"2020-01-01T00:00:00Z"', 200, 2), ('tags="nobody"', 200, 0),
    ('tags="TAG" AND tags="gcpod"', 501, 0), ('NOT tags="TAG"', 501, 0), ('tags!="TAG"', 501, 0), ('(', 400, 0),
])
def test_lists_are_filtered(place: Place, listed_tag: str, query: str, status: int, count: int) -> None:
    builds, wanted = place.builds.locations().builds(), query.replace("TAG", listed_tag)
    asked = builds.list(parent="projects/p/locations/global", filter=wanted, pageSize=1)
    if status != 200:
        with pytest.raises(HttpError, match=str(status)):
            asked.execute()
        return
    found = []
    while asked is not None:
        reply = asked.execute()
        assert len(reply.get("builds", [])) <= 1
        found += reply.get("builds", [])
        asked = builds.list_next(asked, reply)
    assert len(found) == count
    assert [one["createTime"] for one in found] == sorted((one["createTime"] for one in found), reverse=True)


@pytest.fixture(scope="module")
def listed_tag(shared: Place) -> str:
    """The tag of two builds that succeeded."""
    shared.environments.free.set()
    tag = f"t-{uuid.uuid4().hex}"
    for _ in range(2):
        shared.ended(shared.create({**shared.body(), "tags": ["gcpod", tag]}))
    return tag


def test_builds_and_repositories_outlive_the_server(tmp_path: Path, quick_python: Path) -> None:
    environments = Environments(quick_python)

    def serve() -> JobCloud:
        return JobCloud(
            tmp_path / "c", cache=tmp_path, environment_of=environments, middleware=without_keep_alive,
        )

    with serve() as cloud:
        place = Place(cloud, environments)
        place.objects.ensure_bucket(OBJECT.bucket)
        ensure_repository(session_of(cloud.url), lambda _: None)
        done = place.create(place.body())
        whole = place.ended(done)
        environments.free.clear()
        left = [place.create(place.body()) for _ in range(3)]
        until(lambda: [place.get(one)["status"] for one in left] == ["WORKING", "WORKING", "QUEUED"])
        assert cloud.idle_s == 0.0
        # The server waits for what is being made, and leaves what waits.
        threading.Timer(0.1, environments.free.set).start()
    # What a server that was killed leaves.
    database = JobDatabase(tmp_path / "c" / "builds.sqlite")
    record = database.get(done)
    assert record is not None
    database.add(replace(record, id="killed", state="WORKING", ended=""))
    database.close()
    left.append("killed")
    with serve() as cloud:
        place = Place(cloud, environments)
        kept = place.get(done)
        assert {**kept, "logUrl": ""} == {**whole, "logUrl": ""}
        assert [place.ended(one)["status"] for one in left] == ["SUCCESS"] * 4
        assert ensure_repository(session_of(cloud.url), lambda _: None) is False
        until(lambda: cloud.idle_s > 0)


@pytest.mark.parametrize("archive", [
    b"", b"text", gzip.compress(b"no tar" * 200), packed(tarfile.TarInfo("/etc/passwd")),
    packed(tarfile.TarInfo("a/../../b")), gzip.compress(bytes(MAX_CONTEXT_BYTES + 1)), pack_context(CONTEXT)[:-9],
], ids=["empty", "text", "no tar", "absolute", "climbs", "bomb", "cut off"])
def test_archives_that_are_refused(archive: bytes) -> None:
    with pytest.raises(BuildFailure, match="The source cannot be unpacked"):
        unpack(io.BytesIO(archive))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes) -> None:
    member = tarfile.TarInfo("Dockerfile")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(BuildFailure, match="neither file nor folder"):
        unpack(io.BytesIO(packed(member)))


def test_a_file_that_claims_to_be_huge_is_refused() -> None:
    member = tarfile.TarInfo("hole")
    member.size = 1 << 40
    with pytest.raises(BuildFailure, match="too large"):
        unpack(io.BytesIO(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))))


def test_what_is_packed_is_unpacked() -> None:
    assert unpack(io.BytesIO(pack_context(CONTEXT))) == CONTEXT


SMALL = pack_context({"Dockerfile": b"FROM x\n", "launcher/é.py": b"pass\n" * 50, "n" * 200: b"1"})


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 255)), max_size=8), st.booleans())
def test_a_damaged_archive_is_read_or_refused(damage: list[tuple[int, int]], inside: bool) -> None:
    raw = bytearray(gzip.decompress(SMALL) if inside else SMALL)
    for where, value in damage:
        raw[where % len(raw)] = value
    try:
        found = unpack(io.BytesIO(gzip.compress(bytes(raw), 1) if inside else bytes(raw)))
    except BuildFailure:
        return
    assert not any(path.startswith(("/", "../")) or "/../" in path for path in found)


@given(st.lists(st.sampled_from(["build", "-t", "--tag=x", "--tag", ".", "--no-cache", "", "a=b", "--network"])))
def test_arguments_of_docker_are_read_or_refused(args: list[str]) -> None:
    try:
        tags = tags_of([{"name": DOCKER, "args": args}])
    except BuildFailure:
        return
    assert args[0] == "build"
    assert args[-1] == "."
    assert len(tags) <= len(args)


def registry(place: Place, verb: str, rest: str, body: Any = None, location: str = "local") -> Answer:
    content = None if body is None else json.dumps(body).encode()
    return place.raw(verb, f"/v1/projects/p/locations/{location}/repositories{rest}", content)


def test_repositories(place: Place) -> None:
    made = registry(place, "POST", "?repositoryId=mine", {"format": "DOCKER", "labels": {"a": "b"}, "sizeBytes": "7"})
    operation = made.json["name"]
    assert "done" not in made.json
    found = registry(place, "GET", "/mine").json
    assert (found["format"], found["labels"], "sizeBytes" in found) == ("DOCKER", {"a": "b"}, False)
    assert found["name"] == "projects/p/locations/local/repositories/mine"
    answer = place.raw("GET", f"/v1/{operation}").json
    assert (answer["done"], answer["response"]["name"]) == (True, found["name"])
    listed = registry(place, "GET", "?pageSize=1000").json["repositories"]
    assert found["name"] in [one["name"] for one in listed]
    assert time.strptime(found["createTime"][:19], "%Y-%m-%dT%H:%M:%S")
    assert registry(place, "POST", "?repositoryId=mine", {"format": "DOCKER"}).status == 409


@pytest.mark.parametrize(("verb", "rest", "body", "location", "status"), [
    ("POST", "", {"format": "DOCKER"}, "local", 400),
    ("POST", "?repositoryId=Upper", {"format": "DOCKER"}, "local", 400),
    ("POST", "?repositoryId=a", {}, "local", 400), ("POST", "?repositoryId=a", {"format": "TAR"}, "local", 400),
    ("POST", "?repositoryId=a", {"format": "DOCKER", "colour": 1}, "local", 400),
    ("POST", "?repositoryId=a", {"format": "DOCKER"}, "mars", 400), ("GET", "/none", None, "local", 404),
    ("GET", "?filter=x", None, "local", 501), ("GET", "?pageToken=x", None, "local", 400),
])
def test_repositories_are_strict(
    place: Place, verb: str, rest: str, body: Any, location: str, status: int,
) -> None:
    assert registry(place, verb, rest, body, location).status == status
