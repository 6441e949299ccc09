"""Vertex AI's custom jobs as five calls that give JobInfo and raise coded errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from gcpod.errors import AuthError, GcpodError, NotFoundError, OutageError, ServiceError, SpecError
from gcpod.jobs.filters import JobFilter
from gcpod.session import Request, Session, StatusError
from gcpod.settings import Setting
from gcpod.spec import MachineSpec
from gcpod.status import JobInfo, JobState

PAGE_SIZE = 100
_ID = re.compile(r"[0-9A-Za-z_-]+")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?s", re.ASCII)
_NAME = re.compile(r"projects/(?P<project>[^/]+)/locations/(?P<region>[a-z][a-z0-9-]{0,62})/customJobs/[^/]+", re.ASCII)
"""The region becomes a part of a host's name, so nothing else than a region's letters gets there."""
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class Jobs:
    """The custom jobs of a session's project and region, and any job by its resource name.

    Every call raises OutageError for what passes by itself, AuthError for a lack of permission and ServiceError for
    any other refusal. No call is ever repeated here: who calls knows whether it may be.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._elsewhere: dict[tuple[str, str], Session] = {}

    def create(self, body: dict[str, Any]) -> JobInfo:
        """Submits a job. Not idempotent: after an OutageError the job may exist; submit.py finds it by its label."""
        request = self.session.vertex.create(parent=self.session.location, body=body)
        return to_info(execute(request, "submitting the job", body["displayName"]))

    def get(self, name: str) -> JobInfo:
        """One job by its resource name, or by its id alone."""
        full = self.full_name(name)
        return to_info(execute(self.session_of(full).vertex.get(name=full), "reading the job", full))

    def list(self, wanted: JobFilter | Mapping[str, str] | None = None, limit: int | None = None) -> list[JobInfo]:
        """Jobs, newest first.

        Args:
            wanted: which; labels alone may be given as a dictionary. None means all.
            limit: no more than so many. Pages are then read in the service's own order, which is newest first
                although its reference does not promise that.

        Raises:
            SpecError: the filter cannot be written.
        """
        chosen = wanted if isinstance(wanted, JobFilter) else JobFilter(labels=wanted or {})
        text, where = chosen.to_text() or None, self.session.location
        found: list[JobInfo] = []
        token: str | None = None
        while limit is None or len(found) < limit:
            size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - len(found))
            request = self.session.vertex.list(parent=where, filter=text, pageSize=size, pageToken=token)
            reply = execute(request, "listing the jobs of", where)
            found += _infos(reply, where)
            token = reply.get("nextPageToken")
            if not token:
                break
        return sorted(found, key=lambda info: info.create_time, reverse=True)[:limit]

    def cancel(self, name: str) -> None:
        """Asks a job to stop; it passes through CANCELLING. To one that has ended, or is ending, nothing happens."""
        full = self.full_name(name)
        try:
            execute(self.session_of(full).vertex.cancel(name=full, body={}), "cancelling the job", full)
        except NotFoundError:
            raise
        except ServiceError:
            # What has ended is refused by some versions of the service and accepted by others.
            state = self._state(full)
            if state is None or not (state.terminal or state is JobState.CANCELLING):
                raise

    def _state(self, full: str) -> JobState | None:
        """The state of a job, None where the service does not tell."""
        try:
            return self.get(full).state
        except GcpodError:
            return None

    def delete(self, name: str) -> bool:
        """Removes a job that ended from the service's list; its logs and files stay.

        Returns:
            Whether it is gone already; False where the service goes on deleting it.

        Raises:
            ServiceError: the job has not ended, or the service could not delete it.
            NotFoundError: there is none.
        """
        info, vertex = self.get(name), self.session_of(name).vertex
        if not info.state.terminal:
            raise ServiceError("deleting the job", info.name, f"it is {info.state.short}",
                               f"cancel it first: `gcpod jobs cancel {info.id}`")
        operation = execute(vertex.delete(name=info.name), "deleting the job", info.name)
        error = operation.get("error")
        if error:
            said = error.get("message", "no reason") if isinstance(error, dict) else "no reason"
            raise ServiceError("deleting the job", info.name, f"the service gave up: {said}", "try again")
        return operation.get("done") is True

    def full_name(self, name: str) -> str:
        """A resource name from itself or from a job's id.

        Raises:
            SpecError: it is neither.
        """
        if not _ID.fullmatch(name) and not _NAME.fullmatch(name):
            raise SpecError("naming the job", repr(name), "it is neither an id nor a resource name",
                            "copy one from `gcpod jobs list`")
        return name if "/" in name else f"{self.session.location}/customJobs/{name}"

    def session_of(self, name: str) -> Session:
        """The session that reaches a job, its log and its page: each region's service knows only its own jobs.

        The service names projects by their numbers; a number stands for the session's own project here.

        Raises:
            SpecError: as for full_name.
        """
        match, own = _NAME.fullmatch(self.full_name(name)), self.session.settings
        if match is None:
            return self.session
        project = own.project.value if match["project"].isdecimal() else match["project"]
        there = project, match["region"]
        if there == (own.project.value, own.region.value):
            return self.session
        if there not in self._elsewhere:
            source = "the job's name"
            settings = replace(own, project=Setting(project, source), region=Setting(match["region"], source))
            self._elsewhere[there] = Session(settings)
        return self._elsewhere[there]

    def page(self, info: JobInfo) -> str:
        """The address of a job's page in the console."""
        return self.session_of(info.name).console_url(info.id)


_ROLES = "grant roles/aiplatform.user, and actAs on the job's service account"


def execute(request: Request, tried: str, on: str, roles: str = _ROLES) -> dict[str, Any]:
    """Sends one request and translates what it raises.

    ``roles`` says what to grant where permission is missing.

    Raises:
        OutageError: a connection failed or timed out, or the status is 408, 429 or 5xx; with code J403 where the
            project's quota is used up.
        AuthError: status 401 or 403, or credentials that cannot be refreshed; with code J404 where it is known what
            to grant.
        NotFoundError: status 404.
        ServiceError: any other status, or a reply that is no JSON.
    """
    try:
        reply = request.execute()
    except StatusError as e:
        raise _refusal(e, tried, on, roles, request.uri) from e
    except OSError as e:
        # What requests raises is of this kind.
        raise _outage(e, tried, on) from e
    except (ValueError, RecursionError) as e:
        raise ServiceError(tried, on, f"an unreadable answer ({type(e).__name__})", "check the endpoint") from e
    except Exception as e:
        # google-auth is loaded where it raised something, and costs a tenth of a second where it is not.
        from google.auth.exceptions import GoogleAuthError, TransportError

        if isinstance(e, TransportError):
            raise _outage(e, tried, on) from e
        if isinstance(e, GoogleAuthError):
            raise AuthError(tried, on, str(e).splitlines()[0], "run `gcloud auth application-default login`") from e
        raise
    if not isinstance(reply, dict):
        raise ServiceError(tried, on, "an answer that is no JSON object", "check the endpoint")
    return reply


def _outage(error: Exception, tried: str, on: str) -> OutageError:
    return OutageError(tried, on, f"no answer ({type(error).__name__})", "check the network and try again")


def _refusal(error: StatusError, tried: str, on: str, roles: str, uri: str) -> GcpodError:
    status, message = error.status, _message(error.content)
    found = f"the service answered {status}: {message}"
    if status == 429 and (metric := _short_of(error.content)):
        from gcpod.jobs.diagnose import in_words

        region = re.search(r"/locations/([a-z0-9-]+)", uri)
        why, fix = in_words("J403", metric=metric, **({"region": region[1]} if region else {}))
        return OutageError(tried, on, f"{why} ({found})", fix, code="J403")
    if status in _PASSING:
        return OutageError(tried, on, found, "wait and try again")
    if status in (401, 403):
        return _not_allowed(tried, on, found, message, roles)
    if status == 404:
        return NotFoundError(tried, on, found, "see `gcpod jobs list`")
    return ServiceError(tried, on, found, "correct gcpod.yaml and try again")


def _not_allowed(tried: str, on: str, found: str, message: str, roles: str) -> AuthError:
    """With the exact grant, where the message is one of those that are known."""
    from gcpod.jobs.diagnose import diagnose

    for known in diagnose(message, (), on):
        if known.code == "J404":
            return AuthError(tried, on, f"{found}; {known.found.partition(' (')[0]}", known.fix, code="J404")
    return AuthError(tried, on, found, roles)


def _short_of(content: bytes) -> str:
    """The metric of custom jobs' quota that a 429 is about; "" where it is about how often was asked.

    Its message names the metric, or a violation in google.rpc.QuotaFailure does
    (https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto).
    """
    named = re.search(rb"\bcustom_model_training_[a-z0-9_]{1,100}", content)
    return named[0].decode("ascii") if named else ""


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return content[:200].decode("utf-8", "replace")


def to_info(job: Any) -> JobInfo:
    """A CustomJob resource as JobInfo; what has another type than its reference says counts as not told.

    Raises:
        ServiceError: it has no name.
    """
    name = _get(job, "name", str)
    if not name:
        raise ServiceError("reading", "the service's answer", "a job in it has no name", "check the endpoint")
    error, spec = _get(job, "error", dict), _get(job, "jobSpec", dict)
    pools = [pool for pool in _get(spec, "workerPoolSpecs", list) if isinstance(pool, dict)]
    labels = {key: value for key, value in _get(job, "labels", dict).items() if isinstance(value, str)}
    return JobInfo(
        name=name,
        display_name=_get(job, "displayName", str),
        state=JobState.from_wire(_get(job, "state", str)),
        create_time=_get(job, "createTime", str),
        start_time=_get(job, "startTime", str),
        end_time=_get(job, "endTime", str),
        error=_get(error, "message", str),
        error_code=_get(error, "code", int),
        labels=labels,
        update_time=_get(job, "updateTime", str),
        machine=_machine(_get(pools[0], "machineSpec", dict)) if pools else "",
        replicas=sum(_count(pool) for pool in pools),
        strategy=_get(_get(spec, "scheduling", dict), "strategy", str),
        timeout_s=timeout_of(job),
    )


_Value = TypeVar("_Value")


def timeout_of(job: Any) -> float:
    """The time limit in a job or in the body that asks for one, in seconds; 0 where it names none."""
    text = _get(_get(_get(job, "jobSpec", dict), "scheduling", dict), "timeout", str)
    return float(text[:-1]) if _SECONDS.fullmatch(text) else 0.0


def _get(resource: Any, key: str, kind: type[_Value]) -> _Value:
    """A field of a resource; the type's empty value where it is not there or something else."""
    value = resource.get(key) if isinstance(resource, dict) else None
    return value if isinstance(value, kind) else kind()


def _machine(machine: dict[str, Any]) -> str:
    accelerator = _get(machine, "acceleratorType", str).replace("ACCELERATOR_TYPE_UNSPECIFIED", "")
    count, topology = _get(machine, "acceleratorCount", int), _get(machine, "tpuTopology", str)
    return str(MachineSpec(_get(machine, "machineType", str), accelerator or None, count, topology or None))


def _count(pool: dict[str, Any]) -> int:
    """64-bit integers are strings in JSON (https://protobuf.dev/programming-guides/json/)."""
    count = _get(pool, "replicaCount", str)
    return int(count) if re.fullmatch(r"[0-9]{1,19}", count) else _get(pool, "replicaCount", int)


def _infos(reply: dict[str, Any], where: str) -> list[JobInfo]:
    """The jobs on one page of a listing."""
    jobs = reply.get("customJobs", [])
    if not isinstance(jobs, list):
        raise ServiceError("listing the jobs of", where, "the answer holds no list", "check the endpoint")
    return [to_info(job) for job in jobs]
