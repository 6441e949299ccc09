"""A fault plan at work: between the server and the services for calls, on the job engine for jobs.

ASGI has no word for breaking a connection, so the acts reach for uvicorn's transport behind ``send``: this middleware
has to be the outermost that touches ``send``.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, cast
from urllib.parse import unquote

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcpod.localcloud.api_error import ApiError, ErrorStyle
from gcpod.localcloud.bodies import parse_json
from gcpod.localcloud.discovery import load
from gcpod.localcloud.faults_jobs import Engine, JobFaults
from gcpod.localcloud.faults_plan import CREATE, DOCUMENTS, ERROR_MESSAGE, ERROR_STATUS, CallFault, FaultPlan, JobFault
from gcpod.localcloud.http import Api
from gcpod.localcloud.jobdb import JobRecord
from gcpod.localcloud.routing import Router

_AHEAD_BYTES = 1 << 20
_JOB_IN_PATH = re.compile(r"/customJobs/([^/:]+)")


@dataclass(frozen=True)
class Injected:
    """One fault that was done.

    ``call`` is the request's method id, else its verb and path, and "" for a fault of a job; ``job`` is the display
    name of the job it was about, "" for none; ``count`` says the how manieth of its rule it was (for jobs: and job).
    """

    rule: CallFault | JobFault
    call: str
    job: str
    count: int

    @property
    def do(self) -> str:
        """What was done, in the plan's word."""
        return self.rule.do


@dataclass(frozen=True)
class _Request:
    """What rules ask of a request; ``method`` is "" where no document knows it."""

    verb: str
    path: str
    method: str
    style: ErrorStyle
    jobs: tuple[str, ...] = ()


class Faulty:
    """The faults of one run of a server.

    Args:
        plan: what shall go wrong.
        find: a job by its id.
    """

    def __init__(self, plan: FaultPlan, find: Callable[[str], JobRecord | None]) -> None:
        self.plan, self._find = plan, find
        self._lock, self._log = threading.Lock(), list[Injected]()
        self._seen, self._done = Counter[int](), Counter[int]()
        self._router: Router[ErrorStyle] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing, self._closed = asyncio.Event(), False
        self._jobs = JobFaults(plan.jobs, find, self._note_job)

    @property
    def log(self) -> tuple[Injected, ...]:
        """What was injected, in order."""
        with self._lock:
            return tuple(self._log)

    def close(self) -> None:
        """Ends every wait and timer; nothing is injected into a job after this. Before the server stops."""
        self._jobs.close()
        with self._lock:
            closed, self._closed = self._closed, True
        if self._loop is not None and not closed:
            self._loop.call_soon_threadsafe(self._closing.set)

    def watch(self, engine: Engine) -> None:
        """Lets the jobs of an engine have their faults; before it starts any."""
        self._jobs.watch(engine)

    def wrap(self, app: ASGIApp, apis: Sequence[Api]) -> ASGIApp:
        """The application with faults; of methods that share a path, the one that ``apis`` handle is meant."""
        if not self.plan.calls:
            return app
        handled = {api.document.name: frozenset(api.handlers) for api in apis}
        self._router = Router([
            (document, handled.get(document.name, frozenset()),
             ErrorStyle.RPC if document.proto_json else ErrorStyle.STORAGE)
            for document in map(load, DOCUMENTS)
        ])

        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            self._loop = asyncio.get_running_loop()
            body = _Ahead(receive)
            request = await self._request(scope, body)
            rule = self._due(request)
            if rule is None:
                await app(scope, body.receive, send)
            else:
                await self._act(rule, request, app, (scope, body, send))

        return faulty

    async def _request(self, scope: Scope, body: _Ahead) -> _Request:
        assert self._router is not None
        verb, raw = scope["method"], scope["raw_path"].decode("latin-1")
        route = self._router.find(verb, raw)
        path = unquote(raw, errors="replace")
        if route is None:
            return _Request(verb, path, "", ErrorStyle.STORAGE)
        jobs: tuple[str, ...] = ()
        if any(rule.job for rule in self.plan.calls):
            found = _JOB_IN_PATH.search(path)
            if found is not None:
                jobs = self._names(found[1])
            elif route.method.id == CREATE:
                jobs = _display_name(await body.read())
        return _Request(verb, path, route.method.id, route.owner, jobs)

    def _names(self, job_id: str) -> tuple[str, ...]:
        job = self._find(job_id)
        return (job_id,) if job is None else (str(job.body.get("displayName", "")), job_id)

    def _due(self, request: _Request) -> CallFault | None:
        """The first rule that acts on a request; those behind it do not count the request."""
        with self._lock:
            for number, rule in enumerate(self.plan.calls):
                if not rule.fits(request.verb, request.path, request.method, request.jobs):
                    continue
                self._seen[number] += 1
                if self._seen[number] > rule.after and (rule.times == "always" or self._done[number] < rule.times):
                    self._done[number] += 1
                    call = request.method or f"{request.verb} {request.path}"
                    job = request.jobs[0] if request.jobs else ""
                    self._log.append(Injected(rule, call, job, self._done[number]))
                    return rule
        return None

    def _note_job(self, rule: JobFault, job: str, count: int) -> None:
        with self._lock:
            self._log.append(Injected(rule, "", job, count))

    async def _act(self, rule: CallFault, request: _Request, app: ASGIApp, asgi: tuple[Scope, _Ahead, Send]) -> None:
        scope, body, send = asgi
        if rule.do == "error":
            await _error(rule, request.style)(scope, body.receive, send)
        elif rule.do == "reset":
            await _break(body, send)
        elif rule.do == "lost_reply":
            await app(scope, body.receive, _swallow)
            await _break(body, send)
        elif rule.do == "truncate":
            await app(scope, body.receive, _Half(send).send)
            await _close(body, send)
        elif rule.do == "delay":
            # Read before the wait: the work is done even for a client that went away meanwhile.
            await body.read()
            await self._wait(rule.seconds or 0.0)
            await app(scope, body.receive, send)
        else:
            await self._wait(rule.seconds or 0.0, until=body.gone)
            await _break(body, send)

    async def _wait(self, seconds: float, until: Callable[[], Any] | None = None) -> None:
        """Waits; shorter when the server stops, or when a coroutine ends before."""
        waits = [asyncio.ensure_future(one()) for one in (self._closing.wait, until) if one is not None]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


class _Ahead:
    """A request's body, of which the beginning may be read before the application does."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._messages = receive, list[Message]()

    async def receive(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()

    async def read(self) -> bytes:
        """The body, or as much of it as may be held in memory; the application gets it all the same."""
        size = sum(len(one.get("body", b"")) for one in self._messages)
        more = not self._messages or self._messages[-1].get("more_body", False)
        while more and size < _AHEAD_BYTES:
            message = await self._receive()
            self._messages.append(message)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(one.get("body", b"") for one in self._messages)

    async def gone(self) -> None:
        """Waits until the connection is no more."""
        self._messages.clear()
        while (await self._receive())["type"] != "http.disconnect":
            pass


class _Half:
    """Passes a reply on up to the middle of its body."""

    def __init__(self, send: Send) -> None:
        self._send, self._left = send, 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            length = next((value for name, value in message["headers"] if name.lower() == b"content-length"), b"0")
            self._left = int(length) // 2
            await self._send(message)
            return
        piece = message.get("body", b"")[:self._left]
        self._left -= len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})


def _error(rule: CallFault, style: ErrorStyle) -> JSONResponse:
    headers = {} if rule.retry_after_s is None else {"Retry-After": str(rule.retry_after_s)}
    status = rule.status or ERROR_STATUS
    refusal = ApiError(status, ERROR_MESSAGE if rule.message is None else rule.message)
    return JSONResponse(refusal.render(style), status, headers)


def _display_name(content: bytes) -> tuple[str, ...]:
    try:
        told = parse_json(content)
    except ApiError:
        return ()
    name = (told.get("displayName") or told.get("display_name")) if isinstance(told, dict) else None
    return (name,) if isinstance(name, str) else ()


async def _swallow(_: Message) -> None:
    return None


def _transport(send: Send) -> Any:
    return cast(Any, send).__self__.transport


async def _break(body: _Ahead, send: Send) -> None:
    """Ends the connection with a reset."""
    transport = _transport(send)
    if not transport.is_closing():
        # To linger for no time is what makes the system send RST in place of FIN.
        line = transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    await body.gone()


async def _close(body: _Ahead, send: Send) -> None:
    """Ends the connection after what was sent."""
    _transport(send).close()
    await body.gone()


def skewed_clock(skew_s: float) -> Callable[[], str]:
    """A clock for `jobdb.JobDatabase` that is so many seconds ahead of the real one."""
    skew = timedelta(seconds=skew_s)
    return lambda: (datetime.now(timezone.utc) + skew).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
