"""Does what stands for building an image where there is no Docker: holds the context of a build against gcpod's own
recipe of the image it names, and makes the environment that stands for that image."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from gcpod.errors import GcpodError
from gcpod.localcloud.jobdb import TERMINAL, JobDatabase
from gcpod.localcloud.records import StoreError
from gcpod.localcloud.runtime import ensure_environment
from gcpod.localcloud.scheduler import EnvironmentOf
from gcpod.localcloud.store import Store
from gcpod.runtimes import Runtime, all_runtimes
from gcpod.runtimes.recipe import context_digest, context_of

DOCKER = "gcr.io/cloud-builders/docker"
STEP = "MAIN"
DEFAULT_TIMEOUT_S = 600.0
"""https://cloud.google.com/build/docs/build-config-file-schema#timeout"""
MAX_CONTEXT_BYTES = 16 << 20
_MAX_RUNNING = 2
_IMAGE = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev/([^/:@]+)/([^/:@]+)/([^/:@]+)(?::[\w.-]+)?")
_FLAGS = {"-t": True, "--tag": True, "--network": True, "--no-cache": False}
"""Options of ``docker build`` that change nothing of what is done here; whether a value follows."""
_UNREADABLE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)
FindRepository = Callable[[str, str, str], "dict[str, Any] | None"]


class BuildFailure(Exception):
    """Why a build fails: a type of Cloud Build's FailureInfo and the text that it tells."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


def timeout_of(body: Mapping[str, Any]) -> float:
    """How long a build may run, in seconds."""
    return float(str(body.get("timeout") or f"{DEFAULT_TIMEOUT_S}s").removesuffix("s"))


def tags_of(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The images that a build's steps make.

    Raises:
        BuildFailure: a step is anything else than `docker build` of the whole source.
    """
    tags: list[str] = []
    for number, step in enumerate(steps):
        name, args = step["name"].partition(":")[0], list(step.get("args", []))
        if name != DOCKER or args[:1] != ["build"] or step.get("entrypoint") or step.get("script") or step.get("dir"):
            raise BuildFailure("USER_BUILD_STEP", f"Build step {number} {step['name']!r}: the local cloud has no "
                               f"Docker and makes sense of `{DOCKER}` with `build` only.")
        tags += _tags(number, args[1:])
    return tags


def _tags(number: int, args: list[str]) -> list[str]:
    tags = []
    while len(args) > 1 or args[:1] not in (["."], ["./"]):
        option, joined, value = args.pop(0).partition("=") if args else ("", "", "")
        if option not in _FLAGS or (_FLAGS[option] and not joined and not args):
            raise BuildFailure("USER_BUILD_STEP", f"Build step {number}: the local cloud does not know `docker build` "
                               f"with {option or 'no folder'!r}.")
        if _FLAGS[option] and not joined:
            value = args.pop(0)
        if option in ("-t", "--tag"):
            tags.append(value)
    return tags


def unpack(archive: BinaryIO) -> dict[str, bytes]:
    """The files of a gzip-compressed tar: path to content; nothing is written, and no path leads outside.

    Raises:
        BuildFailure: it is no such archive, is larger than `MAX_CONTEXT_BYTES`, or holds more than files and folders.
    """
    found: dict[str, bytes] = {}
    try:
        with gzip.GzipFile(fileobj=archive) as packed:
            data = packed.read(MAX_CONTEXT_BYTES + 1)
        if len(data) > MAX_CONTEXT_BYTES:
            raise ValueError(f"it holds more than {MAX_CONTEXT_BYTES} bytes")
        left = MAX_CONTEXT_BYTES
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or not 0 <= member.size <= left:
                    raise ValueError(f"{member.name[:200]!r} leads outside or is too large")
                left -= member.size
                if member.isfile():
                    stream = tar.extractfile(member)
                    found[str(path)] = stream.read() if stream else b""
                elif not member.isdir():
                    raise ValueError(f"{member.name[:200]!r} is neither file nor folder")
    except _UNREADABLE as e:
        raise BuildFailure("FETCH_SOURCE_FAILED", f"The source cannot be unpacked: {e}") from None
    return found


def recipe_of(image: str) -> tuple[Runtime, str]:
    """The runtime and the kind of machine that a trainer image is for.

    Raises:
        BuildFailure: it is no trainer image of gcpod.
    """
    match = _IMAGE.fullmatch(image)
    for runtime in all_runtimes().values():
        for kind in runtime.recipes:
            if match and runtime.images[kind] == match[4]:
                return runtime, kind
    raise BuildFailure("USER_BUILD_STEP", f"The local cloud has no recipe for the image {image}.")


class Builder:
    """Runs builds, each in a thread of its own.

    Args:
        database: builds and their log entries.
        store: the objects, which sources are read from.
        cache: the user's cache directory, for runtimes.
        url: base URL of the local cloud.
        find_repository: what lies in the registry, by project, location and name.
        environment_of: makes a runtime's interpreter; given by tests that need no TensorFlow.
    """

    def __init__(
        self, database: JobDatabase, store: Store, cache: Path, url: str, find_repository: FindRepository,
        environment_of: EnvironmentOf = ensure_environment,
    ) -> None:
        self.database, self.store, self.cache, self.url = database, store, cache, url
        self.find_repository, self.environment_of = find_repository, environment_of
        self._slots, self._ending = threading.BoundedSemaphore(_MAX_RUNNING), threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = False

    def resume(self) -> None:
        """Takes up the builds that a server which is gone left unfinished."""
        for build in reversed(self.database.all()):
            if build.state not in TERMINAL and build.id not in self._threads:
                self.start(build.id)

    def start(self, build_id: str) -> None:
        thread = threading.Thread(target=self._run, args=(build_id,), name=f"build-{build_id}")
        self._threads[build_id] = thread
        thread.start()

    def cancel(self, build_id: str) -> None:
        """Ends a build that has not ended yet; the environment it is making becomes whole all the same."""
        self._end(build_id, "CANCELLED", "The build was cancelled.")

    def stop(self) -> None:
        """Starts nothing more and waits for what is being made; builds that wait are left to the next server."""
        self._stopping = True
        for thread in list(self._threads.values()):
            thread.join()

    @property
    def active(self) -> int:
        """Builds that have not ended."""
        return sum(build.state not in TERMINAL for build in self.database.all())

    def _run(self, build_id: str) -> None:
        with self._slots:
            if self._stopping:
                return
            build = self.database.update(build_id, state="WORKING", started=self.database.clock())
            if build is None:
                return
            limit_s = timeout_of(build.body)
            timer = threading.Timer(limit_s, self._end, (build_id, "TIMEOUT", f"It took longer than {limit_s:g} s."))
            timer.daemon = True
            timer.start()
            try:
                results = self._build(build_id, build.body)
                self._end(build_id, "SUCCESS", "", body={**build.body, "results": results})
            except BuildFailure as e:
                self._fail(build_id, build.body, e.kind, e.detail)
            except GcpodError as e:
                self._fail(build_id, build.body, "USER_BUILD_STEP", str(e))
            except Exception as e:
                self._end(build_id, "INTERNAL_ERROR", f"Internal error: {type(e).__name__}: {e}")
            finally:
                timer.cancel()

    def _fail(self, build_id: str, body: dict[str, Any], kind: str, detail: str) -> None:
        self._end(build_id, "FAILURE", detail, body={**body, "failureInfo": {"type": kind, "detail": detail}})

    def _end(self, build_id: str, state: str, detail: str, **changes: Any) -> None:
        with self._ending:
            build = self.database.get(build_id)
            if build is None or build.state in TERMINAL:
                return
            # The last line comes before the end, so that who sees the end can read every line.
            failed = state not in ("SUCCESS", "CANCELLED")
            self.database.log(build_id, "ERROR" if failed else "INFO", STEP, [f"ERROR: {detail}" if failed else "DONE"])
            self.database.update(build_id, state=state, ended=self.database.clock(), error=detail, **changes)

    def _build(self, build_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Makes what stands for the images; returns the build's results."""
        def say(line: str) -> None:
            self.database.log(build_id, "INFO", STEP, [line])

        say(f'starting build "{build_id}"')
        context = self._source(body)
        say(f"the source holds {len(context)} files")
        tags, images = tags_of(body["steps"]), body.get("images", [])
        for image in dict.fromkeys(re.sub(r":[\w.-]+$", "", tag) for tag in tags):
            runtime, kind = recipe_of(image)
            _compare(context, context_of(runtime, kind), image)
            say(f"{image}: the context is that of {runtime.name} for {kind}")
            self.environment_of(runtime, image, self.cache, say)
        for image in images:
            if image not in tags:
                raise BuildFailure("PUSH_IMAGE_NOT_FOUND", f"No step made the image {image}.")
            self._push(image)
            say(f"pushed {image}")
        # No layers are made here: what decides an image's content stands for its digest.
        digest = f"sha256:{context_digest(context)}"
        return {"images": [{"name": image, "digest": digest} for image in images]}

    def _source(self, body: dict[str, Any]) -> dict[str, bytes]:
        source = body.get("source", {}).get("storageSource")
        if source is None:
            raise BuildFailure("FETCH_SOURCE_FAILED", "The local cloud builds from a source in Cloud Storage only.")
        # Out of the store itself: a build goes on while the server ends.
        generation = int(source.get("generation", 0)) or None
        try:
            _, file = self.store.open(source["bucket"], source["object"], generation)
        except StoreError as e:
            raise BuildFailure("FETCH_SOURCE_FAILED", f"{e} (generation {generation or 'newest'})") from e
        with file:
            return unpack(file)

    def _push(self, image: str) -> None:
        match = _IMAGE.fullmatch(image)
        region, project, repository = match.groups()[:3] if match else ("", "", "")
        found = self.find_repository(project, region, repository)
        if found is None or found["format"] != "DOCKER":
            place = f"projects/{project}/locations/{region}/repositories/{repository}"
            why = "not found" if found is None else f"of format {found['format']}, not DOCKER"
            raise BuildFailure("PUSH_FAILED", f"Pushing {image} failed: the repository {place} is {why}.")


def _compare(context: Mapping[str, bytes], recipe: Mapping[str, bytes], image: str) -> None:
    if context == recipe:
        return
    other = sorted(path for path in {*context, *recipe} if context.get(path) != recipe.get(path))
    raise BuildFailure("USER_BUILD_STEP", f"The source is not gcpod's recipe of {image}: it differs in "
                       f"{', '.join(other[:5])}{' …' if len(other) > 5 else ''}; the local cloud has no Docker to "
                       "build anything else.")
