"""Trainer images made by Cloud Build: the request, one build for one context, its log and its end.

https://cloud.google.com/build/docs/api/reference/rest/v1/projects.locations.builds
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gcpod.errors import AuthError, JobFailedError, OutageError, ServiceError, StorageError
from gcpod.jobs.logs import LogReader
from gcpod.jobs.registry import ensure_repository
from gcpod.jobs.service import execute
from gcpod.jobs.submit import ATTEMPTS, LOOK_S
from gcpod.jobs.watch import Watcher
from gcpod.layout import image_source
from gcpod.runtimes import Runtime
from gcpod.runtimes.recipe import REPOSITORY, context_digest, context_of, image_address, pack_context
from gcpod.session import Session
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri

TAG = "gcpod"
DOCKER = "gcr.io/cloud-builders/docker"
TIMEOUT_S = 3600
"""Cloud Build's own limit of ten minutes is short for images of several GB
(https://cloud.google.com/build/docs/build-config-file-schema#timeout)."""
PAGE_SIZE = 100
_DIGITS = 16
_ROLES = "grant roles/cloudbuild.builds.editor"


class BuildStatus(str, enum.Enum):
    """Cloud Build's Status (https://cloud.google.com/build/docs/api/reference/rest/v1/projects.builds#status)."""

    UNKNOWN = "STATUS_UNKNOWN"
    PENDING = "PENDING"
    QUEUED = "QUEUED"
    WORKING = "WORKING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    TIMEOUT = "TIMEOUT"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @classmethod
    def from_wire(cls, text: str | None) -> BuildStatus:
        """A status this version does not know is UNKNOWN: not terminal, so a watcher keeps watching."""
        try:
            return cls(text)
        except ValueError:
            return cls.UNKNOWN

    @property
    def terminal(self) -> bool:
        return self not in (self.UNKNOWN, self.PENDING, self.QUEUED, self.WORKING)


@dataclass(frozen=True)
class BuildInfo:
    """One answer of Cloud Build about one build.

    Attributes:
        images: what it pushes, each with its tag.
        digests: of what it pushed, by image.
        detail: why it ended so.
        finish_time: RFC 3339 in UTC, "" when unset.
    """

    id: str
    state: BuildStatus
    images: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    detail: str = ""
    log_url: str = ""
    finish_time: str = ""


@dataclass(frozen=True)
class Image:
    """An image that is there: its address, the digest of its manifest, the id of its build, whether that is new."""

    image: str
    digest: str
    build: str
    new: bool


def build_request(image: str, digest: str, source: GcsUri, generation: int) -> dict[str, Any]:
    """The body of builds.create.

    Args:
        image: address without a tag.
        digest: names the context; a tag of the image and of the build.
        source: the packed context.
        generation: of that object.
    """
    images = [f"{image}:latest", f"{image}:{digest}"]
    return {
        "source": {
            "storageSource": {"bucket": source.bucket, "object": source.name, "generation": str(generation)},
        },
        "steps": [{"name": DOCKER, "args": ["build", *(part for one in images for part in ("--tag", one)), "."]}],
        "images": images,
        "timeout": f"{TIMEOUT_S}s",
        "options": {"logging": "CLOUD_LOGGING_ONLY"},
        "tags": [TAG, f"{TAG}-{digest}"],
    }


def find_build(builds: Iterable[BuildInfo], image: str, digest: str) -> BuildInfo | None:
    """The build that makes an image of a context, or made it: one that runs, else the one whose image is ``:latest``.

    An older success is none where another context's image became ``:latest`` since: jobs would start that.
    """
    listed = list(builds)
    running = [one for one in listed if f"{image}:{digest}" in one.images and not one.state.terminal]
    made = [one for one in listed if f"{image}:latest" in one.images and one.state is BuildStatus.SUCCESS]
    latest = max(made, key=lambda one: one.finish_time, default=None)
    if running or latest is None:
        return running[0] if running else None
    return latest if f"{image}:{digest}" in latest.images else None


def to_build(build: Mapping[str, Any]) -> BuildInfo:
    """A Build resource as BuildInfo."""
    pushed = build.get("results", {}).get("images", [])
    return BuildInfo(
        id=build["id"],
        state=BuildStatus.from_wire(build.get("status")),
        images=tuple(build.get("images", ())),
        digests={one.get("name", ""): one.get("digest", "") for one in pushed},
        detail=str(build.get("statusDetail") or build.get("failureInfo", {}).get("detail", "")),
        log_url=build.get("logUrl", ""),
        finish_time=build.get("finishTime", ""),
    )


class Builds:
    """The builds of a session's project. Errors are those of `jobs.service.execute`; no call is repeated here."""

    def __init__(self, session: Session) -> None:
        self.session, self.parent = session, f"projects/{session.project}/locations/global"

    def create(self, body: dict[str, Any]) -> BuildInfo:
        """Starts a build. Not idempotent: after an OutageError it may exist."""
        request = self.session.builds.create(parent=self.parent, body=body)
        return to_build(execute(request, "starting the build of", body["images"][0], _ROLES)["metadata"]["build"])

    def get(self, name: str) -> BuildInfo:
        """One build by its id."""
        request = self.session.builds.get(name=f"{self.parent}/builds/{name}")
        return to_build(execute(request, "reading the build", name, _ROLES))

    def list(self, tag: str) -> list[BuildInfo]:
        """All builds that carry a tag, newest first."""
        found: list[BuildInfo] = []
        token: str | None = None
        while True:
            request = self.session.builds.list(
                parent=self.parent, filter=f'tags="{tag}"', pageSize=PAGE_SIZE, pageToken=token,
            )
            reply = execute(request, "listing the builds of", self.parent, _ROLES)
            found += [to_build(build) for build in reply.get("builds", [])]
            token = reply.get("nextPageToken")
            if not token:
                return found


class ImageBuilder:
    """Makes trainer images in a session's project.

    Args:
        session: who and where.
        objects: the bucket's objects.
        say: told each step and each line of a build's log.
        clock, sleep: seconds; the process's own unless given.
        patience_s: how long the service may be out of reach while a build is followed.
    """

    def __init__(
        self, session: Session, objects: Objects, say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
        patience_s: float = math.inf,
    ) -> None:
        self.session, self.objects, self.builds = session, objects, Builds(session)
        self.say, self.clock, self.sleep, self.patience_s = say, clock, sleep, patience_s

    def build(self, runtime: Runtime, kind: str, again: bool = False) -> Image:
        """Makes sure that the image is made of today's recipe, and waits for it.

        A build of the same context that runs is followed; one that succeeded is told, unless ``again``. Two clients
        that begin in the same moment may both build: builds.create takes no request id.

        Raises:
            SpecError: there is no recipe for that kind of machine.
            JobFailedError: the build ended in any other state than success.
            OutageError, AuthError, ServiceError, StorageError: the cloud refuses, or stays out of reach.
        """
        context = context_of(runtime, kind)
        digest = context_digest(context)[:_DIGITS]
        image = image_address(runtime, kind, self.session.project, self.session.region)
        before = self.builds.list(TAG)
        found = find_build(before, image, digest)
        if found is not None and found.state.terminal and not again:
            return self._told(found, image, new=False)
        new = found is None or found.state.terminal
        if found is None or new:
            if ensure_repository(self.session, self.sleep):
                self.say(f"made the repository {REPOSITORY} in {self.session.region}")
            source, generation = self._upload(context, digest)
            known = {one.id for one in before}
            found = self._create_or_find(build_request(image, digest, source, generation), known)
        self.say(f"build {found.id} of {image}:{digest}: {found.log_url}")
        return self._told(self._follow(found), image, new)

    def _upload(self, context: Mapping[str, bytes], digest: str) -> tuple[GcsUri, int]:
        bucket = self.session.settings.bucket_uri
        uri, content = image_source(bucket, digest), pack_context(context)
        self.objects.ensure_bucket(bucket.bucket)
        there = self.objects.read(uri)
        if there is not None and there.content == content:
            return uri, there.generation
        generation = self.objects.write_if(uri, content, there.generation if there else 0)
        if generation is None:
            raise StorageError("uploading", uri, "somebody else wrote it at the same moment", "run the command again")
        return uri, generation

    def _create_or_find(self, body: dict[str, Any], known: set[str]) -> BuildInfo:
        """A new build. Every create is preceded by a look: the reply to the one before may have been lost."""
        def once() -> BuildInfo:
            wanted = tuple(body["images"])
            there = (one for one in self.builds.list(body["tags"][-1]) if one.id not in known and one.images == wanted)
            return next(there, None) or self.builds.create(body)

        for attempt in range(1, ATTEMPTS):
            try:
                return once()
            except OutageError:
                self.sleep(LOOK_S * attempt)
        return once()

    def _follow(self, build: BuildInfo) -> BuildInfo:
        """The last answer about a build; its log is told meanwhile."""
        reached, last, told = self.clock(), build, False
        tell = self._teller(build.id)

        def pause(seconds: float) -> None:
            if self.clock() - reached >= self.patience_s:
                raise OutageError("following the build", build.id, f"no answer for {self.patience_s:g} s",
                                  "run the command again: it follows the same build")
            self.sleep(seconds)

        for info in Watcher(self.builds, pause).follow(build.id):
            reached, last = self.clock(), info
            told = tell()
        for _ in range(ATTEMPTS):
            if told:
                break
            self.sleep(LOOK_S)
            told = tell()
        return last

    def _teller(self, build_id: str) -> Callable[[], bool]:
        """Tells the log's new lines at each call; returns whether they could be read, or never will be."""
        reader, refused = LogReader(self.session, build_id, resource="build"), False

        def tell() -> bool:
            nonlocal refused
            try:
                for line in () if refused else reader.poll():
                    self.say(line.text)
            except OutageError:
                return False
            except (AuthError, ServiceError) as e:
                # Who may not read the log may still have the image.
                refused = True
                self.say(str(e))
            return True

        return tell

    def _told(self, info: BuildInfo, image: str, new: bool) -> Image:
        if info.state is not BuildStatus.SUCCESS:
            found = f"the build {info.id} ended {info.state.value}" + (f": {info.detail}" if info.detail else "")
            raise JobFailedError("building the image", image, found, f"read its log at {info.log_url}")
        address = f"{image}:latest"
        return Image(address, info.digests.get(address, ""), info.id, new)
