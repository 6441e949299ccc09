"""Artifact Registry's repositories: create, get, list, and the operations that creating gives.

https://cloud.google.com/artifact-registry/docs/reference/rest/v1/projects.locations.repositories
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gcpod.localcloud.discovery import load
from gcpod.localcloud.http import Api, ApiError, Call, Reply
from gcpod.localcloud.jobdb import now
from gcpod.localcloud.paging import page_of
from gcpod.localcloud.scheduler import project_number

PREFIX = "artifactregistry.projects.locations"
PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000
_PARENT = re.compile(r"projects/([^/]+)/locations/([^/]+)")
_NAME = re.compile(r"projects/([^/]+)/locations/([^/]+)/(?:repositories|operations)/([^/]+)")
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_TYPE = "type.googleapis.com/google.devtools.artifactregistry.v1."


class Repositories:
    """Repositories in one sqlite file, so that they outlive the server; every method may be called from any thread."""

    def __init__(self, path: Path, location: str, clock: Callable[[], str] = now) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS repositories (project TEXT, id TEXT, body TEXT, PRIMARY KEY (project, id))"
        )
        self._lock = threading.Lock()
        self.location, self.clock = location, clock

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def find(self, project: str, location: str, name: str) -> dict[str, Any] | None:
        """One repository; the project by id or number."""
        if location != self.location:
            return None
        query = "SELECT body FROM repositories WHERE project = ? AND id = ?"
        with self._lock:
            row = self._db.execute(query, (project_number(project), name)).fetchone()
        return json.loads(row[0]) if row else None

    def all(self, project: str) -> list[dict[str, Any]]:
        query = "SELECT body FROM repositories WHERE project = ? ORDER BY id"
        with self._lock:
            return [json.loads(body) for body, in self._db.execute(query, (project_number(project),)).fetchall()]

    def add(self, project: str, name: str, body: Mapping[str, Any]) -> bool:
        """Adds a repository; False where there is one of that name."""
        time = self.clock()
        full = f"projects/{project}/locations/{self.location}/repositories/{name}"
        whole = {"mode": "STANDARD_REPOSITORY", **body, "name": full, "createTime": time, "updateTime": time}
        with self._lock, self._db:
            added = self._db.execute(
                "INSERT OR IGNORE INTO repositories VALUES (?,?,?)", (project_number(project), name, json.dumps(whole)),
            )
            return added.rowcount == 1


def registry_api(repositories: Repositories) -> Api:
    """The service over the repositories of one location."""
    document = load("artifactregistry.v1")
    kept = {key for key, told in document.schemas["Repository"]["properties"].items() if not told.get("readOnly")}
    api = Api(document)

    def create(call: Call) -> Reply:
        project, name = _project(repositories, _PARENT, call.path["parent"]), call.query.get("repositoryId", "")
        body = {key: value for key, value in (call.json or {}).items() if key in kept - {"name"}}
        if not _ID.fullmatch(name):
            raise ApiError(400, "repository_id must be 1 to 63 lowercase letters, digits and hyphens, and begin with a "
                           "letter.")
        if body.get("format", "FORMAT_UNSPECIFIED") == "FORMAT_UNSPECIFIED":
            raise ApiError(400, "The repository's format is required.")
        if not repositories.add(project, name, body):
            raise ApiError(409, "the repository already exists")
        return Reply(value={"name": f"{call.path['parent']}/operations/{name}", "metadata": _metadata()})

    def operation(call: Call) -> Reply:
        done = {"@type": f"{_TYPE}Repository", **_find(repositories, call)}
        return Reply(value={"name": call.path["name"], "metadata": _metadata(), "done": True, "response": done})

    def listing(call: Call) -> Reply:
        project = _project(repositories, _PARENT, call.path["parent"])
        if call.query.get("filter") or call.query.get("orderBy"):
            raise ApiError(501, "The local cloud lists repositories without filter and in one order only.")
        size, token = call.query.get("pageSize"), call.query.get("pageToken")
        return Reply(value=page_of("repositories", repositories.all(project), size, token, PAGE_SIZE, MAX_PAGE_SIZE))

    api.handler(f"{PREFIX}.repositories.create")(create)
    api.handler(f"{PREFIX}.repositories.get")(lambda call: Reply(value=_find(repositories, call)))
    api.handler(f"{PREFIX}.repositories.list")(listing)
    api.handler(f"{PREFIX}.operations.get")(operation)
    return api


def _metadata() -> dict[str, str]:
    return {"@type": f"{_TYPE}OperationMetadata"}


def _find(repositories: Repositories, call: Call) -> dict[str, Any]:
    name = call.path["name"]
    project = _project(repositories, _NAME, name)
    found = repositories.find(project, repositories.location, name.rsplit("/", 1)[-1])
    if found is None:
        raise ApiError(404, f'Requested entity was not found: "{name}"')
    return found


def _project(repositories: Repositories, pattern: re.Pattern[str], name: str) -> str:
    match = pattern.fullmatch(name)
    if match is None:
        raise ApiError(400, f"Invalid resource name: {name}")
    if match.group(2) != repositories.location:
        raise ApiError(400, f"The region {match.group(2)} is not served here; the only one is "
                       f"{repositories.location!r}.")
    return match.group(1)
