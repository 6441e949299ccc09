"""Vertex AI's custom jobs as four calls that give JobInfo and raise coded errors."""

from __future__ import annotations

import json
import re
from typing import Any

from gcpod.errors import AuthError, GcpodError, NotFoundError, OutageError, ServiceError, SpecError
from gcpod.session import Session
from gcpod.status import JobInfo, JobState

PAGE_SIZE = 100
_NAME = re.compile(r"[0-9A-Za-z_-]+|projects/[^/]+/locations/[^/]+/customJobs/[^/]+")
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class Jobs:
    """The custom jobs of a session's project and region.

    Every call raises OutageError for what passes by itself, AuthError for a lack of permission and ServiceError for
    any other refusal. No call is ever repeated here: who calls knows whether it may be.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def create(self, body: dict[str, Any]) -> JobInfo:
        """Submits a job. Not idempotent: after an OutageError the job may exist; submit.py finds it by its label."""
        request = self.session.vertex.create(parent=self.session.location, body=body)
        return to_info(execute(request, "submitting the job", body["displayName"]))

    def get(self, name: str) -> JobInfo:
        """One job by its resource name, or by its id alone."""
        full = self.full_name(name)
        return to_info(execute(self.session.vertex.get(name=full), "reading the job", full))

    def list(self, labels: dict[str, str] | None = None) -> list[JobInfo]:
        """All jobs that carry the labels, newest first."""
        wanted = " AND ".join(f'labels.{key}="{value}"' for key, value in (labels or {}).items())
        found: list[JobInfo] = []
        token: str | None = None
        while True:
            request = self.session.vertex.list(
                parent=self.session.location, filter=wanted or None, pageSize=PAGE_SIZE, pageToken=token,
            )
            reply = execute(request, "listing the jobs of", self.session.location)
            found += [to_info(job) for job in reply.get("customJobs", [])]
            token = reply.get("nextPageToken")
            if not token:
                return sorted(found, key=lambda info: info.create_time, reverse=True)

    def cancel(self, name: str) -> None:
        """Asks a job to stop; it passes through CANCELLING."""
        full = self.full_name(name)
        execute(self.session.vertex.cancel(name=full, body={}), "cancelling the job", full)

    def full_name(self, name: str) -> str:
        """A resource name from itself or from a job's id.

        Raises:
            SpecError: it is neither.
        """
        if not _NAME.fullmatch(name):
            raise SpecError("naming the job", repr(name), "it is neither an id nor a resource name",
                            "copy one from `gcpod jobs list`")
        return name if "/" in name else f"{self.session.location}/customJobs/{name}"

_ROLES = "grant roles/aiplatform.user, and actAs on the job's service account"


def execute(request: Any, tried: str, on: str, roles: str = _ROLES) -> dict[str, Any]:
    """Runs one request of a discovery client and translates what it raises.

    ``roles`` says what to grant where permission is missing.

    Raises:
        OutageError: a connection failed or timed out, or the status is 408, 429 or 5xx.
        AuthError: status 401 or 403, or credentials that cannot be refreshed.
        NotFoundError: status 404.
        ServiceError: any other status, or a reply that is no JSON.
    """
    from google.auth.exceptions import GoogleAuthError, TransportError
    from googleapiclient.errors import Error, HttpError
    from requests.exceptions import RequestException

    try:
        reply: dict[str, Any] = request.execute(num_retries=0)
        return reply
    except HttpError as e:
        raise _refusal(e, tried, on, roles) from e
    except (RequestException, TransportError) as e:
        raise OutageError(tried, on, f"no answer ({type(e).__name__})", "check the network and try again") from e
    except GoogleAuthError as e:
        raise AuthError(tried, on, str(e).splitlines()[0], "run `gcloud auth application-default login`") from e
    except (Error, ValueError) as e:
        raise ServiceError(tried, on, f"an unreadable answer ({type(e).__name__})", "check the endpoint") from e


def _refusal(error: Any, tried: str, on: str, roles: str) -> GcpodError:
    status, message = int(error.resp.status), _message(error.content)
    found = f"the service answered {status}: {message}"
    if status in _PASSING:
        return OutageError(tried, on, found, "wait and try again")
    if status in (401, 403):
        return AuthError(tried, on, found, roles)
    if status == 404:
        return NotFoundError(tried, on, found, "see `gcpod jobs list`")
    return ServiceError(tried, on, found, "correct gcpod.yaml and try again")


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace")


def to_info(job: dict[str, Any]) -> JobInfo:
    """A CustomJob resource as JobInfo."""
    return JobInfo(
        name=job["name"],
        display_name=job.get("displayName", ""),
        state=JobState.from_wire(job.get("state")),
        create_time=job.get("createTime", ""),
        start_time=job.get("startTime", ""),
        end_time=job.get("endTime", ""),
        error=str(job.get("error", {}).get("message", "")),
        labels=dict(job.get("labels", {})),
    )
