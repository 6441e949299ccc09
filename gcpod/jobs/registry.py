"""The Docker repository that trainer images are pushed to and jobs take them from.

https://cloud.google.com/artifact-registry/docs/reference/rest/v1/projects.locations.repositories
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from gcpod.errors import NotFoundError, OutageError, ServiceError
from gcpod.jobs.service import execute
from gcpod.jobs.submit import ATTEMPTS, LOOK_S
from gcpod.runtimes.recipe import REPOSITORY
from gcpod.session import Session

_ROLES = "grant roles/artifactregistry.admin, or make the Docker repository `gcpod` in the region by hand"


def ensure_repository(session: Session, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Makes the region's Docker repository where it is missing; returns whether it was made.

    Raises:
        OutageError, AuthError, ServiceError: it can be neither found nor made, or is no Docker repository.
    """
    name, repositories = f"{session.location}/repositories/{REPOSITORY}", session.registry.repositories()

    def there() -> bool:
        try:
            found = execute(repositories.get(name=name), "looking for the repository", name, _ROLES)
        except NotFoundError:
            return False
        if found.get("format") != "DOCKER":
            raise ServiceError("using the repository", name, f"its format is {found.get('format')}, not DOCKER",
                               "remove it, or use another region")
        return True

    if there():
        return False
    body = {"format": "DOCKER", "description": "Trainer images made by gcpod."}
    request = repositories.create(parent=session.location, repositoryId=REPOSITORY, body=body)
    try:
        operation = execute(request, "making the repository", name, _ROLES)
    except (OutageError, ServiceError):
        # Somebody else made it at the same moment, or only the reply got lost.
        if there():
            return False
        raise
    for attempt in range(ATTEMPTS * ATTEMPTS):
        if operation.get("done"):
            break
        if attempt:
            sleep(LOOK_S)
        with suppress(OutageError):
            request = session.registry.operations().get(name=operation["name"])
            operation = execute(request, "making the repository", name, _ROLES)
    if "error" in operation or not operation.get("done"):
        found = operation.get("error", {}).get("message", "it is still being made")
        raise ServiceError("making the repository", name, found, "run the command again")
    return True
