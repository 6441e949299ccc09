"""Cloud Build's builds: create, get, list and cancel, by their old names and those with a location.

https://cloud.google.com/build/docs/api/reference/rest/v1/projects.locations.builds
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from gcpod.localcloud.builder import DEFAULT_TIMEOUT_S, Builder, timeout_of
from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api, ApiError, Call, Reply
from gcpod.localcloud.jobdb import TERMINAL, JobDatabase, JobRecord
from gcpod.localcloud.logfilter import demanded, parse_filter
from gcpod.localcloud.paging import page_of
from gcpod.localcloud.scheduler import project_number

LOCATION = "global"
PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000
MAX_TIMEOUT_S = 24 * 3600.0
"""https://cloud.google.com/build/docs/build-config-file-schema#timeout"""
_FAMILIES = ("cloudbuild.projects.builds", "cloudbuild.projects.locations.builds")
_NAME = re.compile(r"projects/([^/]+)/locations/([^/]+)(?:/builds/([^/]+))?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_OPERATION = re.compile(r"operations/build/([^/]+)/([A-Za-z0-9+/=_-]+)")
_METADATA = "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata"
_SNAKE = (("build_id", "id"), ("create_time", "createTime"), ("start_time", "startTime"), ("finish_time", "finishTime"))


def builds_api(database: JobDatabase, builder: Builder) -> Api:
    """The service over a database and a builder."""
    document = load("cloudbuild.v1")
    service = _Builds(database, builder, frozenset(
        key for key, told in document.schemas["Build"]["properties"].items() if not told.get("readOnly")
    ))
    api = Api(document)
    handlers: Mapping[str, Callable[[Call], Reply]] = {
        "create": service.create, "get": service.get, "list": service.list, "cancel": service.cancel,
    }
    for family in _FAMILIES:
        for name, handler in handlers.items():
            api.handler(f"{family}.{name}")(handler)
    api.handler("cloudbuild.operations.get")(service.operation)
    return api


class _Builds:
    def __init__(self, database: JobDatabase, builder: Builder, kept: frozenset[str]) -> None:
        self.database, self.builder, self.kept = database, builder, kept

    def create(self, call: Call) -> Reply:
        project, _ = _place(call)
        body = {key: value for key, value in (call.json or {}).items() if key in self.kept}
        _check(body)
        time = self.database.clock()
        build = JobRecord(str(uuid.uuid4()), project, body, "QUEUED", created=time, updated=time)
        self.database.add(build)
        self.builder.start(build.id)
        return Reply(value=self._to_operation(build))

    def get(self, call: Call) -> Reply:
        return Reply(value=self.to_resource(self._find(*_place(call))))

    def list(self, call: Call) -> Reply:
        number = project_number(_place(call)[0])
        wanted = _matcher(call.query.get("filter", ""))
        builds = [build for build in self.database.all() if project_number(build.project) == number]
        found = [resource for resource in map(self.to_resource, builds) if wanted(resource)]
        size, token = call.query.get("pageSize"), call.query.get("pageToken")
        return Reply(value=page_of("builds", found, size, token, PAGE_SIZE, MAX_PAGE_SIZE))

    def cancel(self, call: Call) -> Reply:
        build = self._find(*_place(call))
        if build.state in TERMINAL:
            raise ApiError(400, f"The build {build.id} has ended: {build.state}.", reason="FAILED_PRECONDITION")
        self.builder.cancel(build.id)
        return Reply(value=self.to_resource(self.database.get(build.id) or build))

    def operation(self, call: Call) -> Reply:
        match = _OPERATION.fullmatch(call.path["name"])
        try:
            build_id = base64.urlsafe_b64decode(match[2]).decode("ascii") if match else ""
        except (binascii.Error, ValueError):
            build_id = ""
        return Reply(value=self._to_operation(self._find(match[1] if match else "", build_id)))

    def _find(self, project: str, build_id: str) -> JobRecord:
        build = self.database.get(build_id)
        if build is None or project_number(build.project) != project_number(project):
            raise ApiError(404, "Requested entity was not found.")
        return build

    def to_resource(self, build: JobRecord) -> dict[str, Any]:
        """A build as the service writes it; its name carries the project's number."""
        resource = {
            "timeout": f"{DEFAULT_TIMEOUT_S:g}s", **build.body, "id": build.id, "projectId": build.project,
            "name": f"projects/{project_number(build.project)}/locations/{LOCATION}/builds/{build.id}",
            "status": build.state, "createTime": build.created,
            "logUrl": f"{self.builder.url}/v2/entries:list?resource=build%2Fbuild_id%2F{build.id}",
        }
        optional = {"startTime": build.started, "finishTime": build.ended, "statusDetail": build.error}
        return resource | {key: value for key, value in optional.items() if value}

    def _to_operation(self, build: JobRecord) -> dict[str, Any]:
        token = base64.urlsafe_b64encode(build.id.encode()).decode()
        resource = self.to_resource(build)
        operation = {
            "name": f"operations/build/{build.project}/{token}",
            "metadata": {"@type": _METADATA, "build": resource},
        }
        if build.state == "SUCCESS":
            return operation | {"done": True, "response": resource}
        if build.state in TERMINAL:
            return operation | {"done": True, "error": {"code": 2, "message": build.error or build.state}}
        return operation


def _place(call: Call) -> tuple[str, str]:
    """Project and build id of a call; the id is "" where it names none."""
    if "projectId" in call.path:
        return call.path["projectId"], call.path.get("id", "")
    name = call.path.get("name") or call.path["parent"]
    match = _NAME.fullmatch(name)
    if match is None:
        raise ApiError(400, f"Invalid resource name: {name}")
    if match[2] != LOCATION:
        raise ApiError(400, f"The location {match[2]} is not served here; the only one is {LOCATION!r}.")
    return match[1], match[3] or ""


def _matcher(text: str) -> Callable[[dict[str, Any]], bool]:
    """A build's filter: one tag may be demanded, beside comparisons of single fields
    (https://cloud.google.com/build/docs/view-build-results#filtering_build_results_using_queries)."""
    wanted, tag = parse_filter(text), demanded(text, "tags")
    if len(re.findall(r"\b(?:tags|images)\b", text)) > (tag is not None):
        raise ApiError(501, "The local cloud matches one tag in a filter, joined by AND.")

    def matches(resource: dict[str, Any]) -> bool:
        if tag is not None and tag not in resource.get("tags", ()):
            return False
        return wanted({**resource, "tags": tag, **{snake: resource.get(camel) for snake, camel in _SNAKE}})

    return matches


def _check(body: dict[str, Any]) -> None:
    """What the schema cannot say."""
    steps = body.get("steps", [])
    if not steps or not all(step.get("name") for step in steps):
        raise ApiError(400, "invalid build: there has to be a build step, and each needs a name")
    for tag in body.get("tags", []):
        if not _TAG.fullmatch(tag):
            raise ApiError(400, f"invalid build: invalid tag {tag!r}")
    if not all(body.get("images", [])):
        raise ApiError(400, "invalid build: an image has no name")
    if not 0 < timeout_of(body) <= MAX_TIMEOUT_S:
        raise ApiError(400, "invalid build: the timeout must be positive and at most 24 hours")
    source = body.get("source", {}).get("storageSource")
    if source is not None and not (source.get("bucket") and source.get("object")):
        raise ApiError(400, "invalid build: storage_source needs bucket and object")
