"""What tests of jobs share: requests for small jobs, sessions on a local cloud, faults on the way to it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from starlette.types import ASGIApp, Receive, Scope, Send

from gcpod.localcloud.cloud import JobCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec

IMAGE = "us-docker.pkg.dev/p/gcpod/gcpod-trainer-tf2.12-cpu:latest"
Fault = Literal["busy", "dropped", "busy after", "dropped after"]


def shell_job(script: str = "true", name: str = "job", **more: Any) -> dict[str, Any]:
    """The body of customJobs.create for a shell script; further keys go beside displayName and jobSpec."""
    pool = {
        "machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1",
        "containerSpec": {"imageUri": IMAGE, "command": ["sh", "-c", script]},
    }
    return {"displayName": name, "jobSpec": {"workerPoolSpecs": [pool]}, **more}


def session_of(url: str, project: str = "p") -> Session:
    """A session on a local cloud that looks at nothing of this machine."""
    return Session(resolve(Spec(project=project), endpoint=url, environ={}, home=Path("/nonexistent")))


@dataclass
class Faults:
    """Middleware that answers chosen requests with a fault, before or after they did their work.

    ``busy`` answers 503 and ``dropped`` breaks the connection, both in place of the work; with ``after`` the work is
    done and only its reply is lost.
    """

    choose: Callable[[str, str], Fault | int | None] = lambda *_: None
    seen: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def times(self, verb: str, end: str) -> int:
        """How many requests of that verb came for paths with that end."""
        with self.lock:
            return sum(one == verb and path.endswith(end) for one, path in self.seen)

    def cloud(self, folder: Path, python: Path) -> JobCloud:
        """A local cloud behind these faults whose jobs run one interpreter, not started."""
        return JobCloud(folder, cache=folder, environment_of=lambda *_: python, middleware=self.wrap)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            with self.lock:
                fault = self.choose(scope["method"], scope["path"])
                self.seen.append((scope["method"], scope["path"]))
            if fault is None:
                await app(scope, receive, send)
                return
            if isinstance(fault, str) and fault.endswith("after"):
                await app(scope, receive, _swallow)
            if isinstance(fault, int) or fault.startswith("busy"):
                await _refuse(send, fault if isinstance(fault, int) else 503)
            else:
                await _drop(send)

        return faulty


def without_keep_alive(app: ASGIApp) -> ASGIApp:
    """Middleware that ends each connection with its reply, for clients that never close theirs."""
    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        async def last(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, last)

    return closing


async def _swallow(_: Any) -> None:
    return None


async def _refuse(send: Send, status: int) -> None:
    content = json.dumps({"error": {"code": status, "message": "told to fail", "status": "UNKNOWN"}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _drop(send: Send) -> None:
    # The server's own end of the connection; ASGI has no word for breaking it.
    cast(Any, send).__self__.transport.abort()
    # uvicorn hears of the broken connection in the loop's next round.
    await asyncio.sleep(0.01)
