"""The HTTP core: who may ask, which method is meant, and the reply in the shape of the service asked.

Services plug in as `Api` objects: a discovery document and a handler for each method that is there. A handler is a
plain function ``(Call) -> Reply`` that raises `ApiError` to refuse; it runs in a thread, so that a slow call does not
hold up others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gcpod.localcloud import batch, bodies
from gcpod.localcloud.api_error import ApiError, ErrorStyle, Violation
from gcpod.localcloud.discovery import Document
from gcpod.localcloud.fields import select
from gcpod.localcloud.messages import Call, Incoming, Reply
from gcpod.localcloud.routing import Route, RouteKind, Router
from gcpod.localcloud.schema import EnumNumbers, check_body, check_query

__all__ = ["Api", "ApiError", "App", "Call", "ErrorStyle", "Fallback", "Handler", "Incoming", "Reply", "Violation"]
_LOG = logging.getLogger(__name__)
_THREADS = 16
Answer = TypeVar("Answer")
_FRAMING = (b"content-length", b"transfer-encoding", b"connection")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


Handler = Callable[[Call], Reply]
Fallback = Callable[[Call], "Reply | None"]


class Api:
    """A service of the local cloud.

    Args:
        document: what clients may ask; anything in it without a handler is answered 501.
        style: the shape of errors; by default that of the document's family.
        enum_numbers: names for enumerators that clients send by number (see `schema.EnumNumbers`).
        fallback: asked for paths that no document of any service knows; None from it means 404.
        close: called once when the server stops.
    """

    def __init__(
        self,
        document: Document,
        *,
        style: ErrorStyle | None = None,
        enum_numbers: EnumNumbers | None = None,
        fallback: Fallback | None = None,
        close: Callable[[], None] | None = None,
    ) -> None:
        self.document = document
        self.style = style or (ErrorStyle.RPC if document.proto_json else ErrorStyle.STORAGE)
        self.enum_numbers = enum_numbers or {}
        self.fallback = fallback
        self.close = close or (lambda: None)
        self.handlers: dict[str, Handler] = {}

    def handler(self, method_id: str) -> Callable[[Handler], Handler]:
        """Registers a function as the answer to one method.

        Raises:
            KeyError: the document has no such method.
        """
        self.document.methods[method_id]

        def register(function: Handler) -> Handler:
            self.handlers[method_id] = function
            return function

        return register


class App:
    """The ASGI application over a set of services.

    Args:
        apis: the services; where two documents share a path, the one with a handler is meant.
        spool: an existing folder for bodies on their way.
    """

    def __init__(self, apis: Sequence[Api], spool: Path) -> None:
        self._apis, self._spool = tuple(apis), spool
        self._router = Router([(api.document, frozenset(api.handlers), api) for api in self._apis])
        self._pool = ThreadPoolExecutor(_THREADS, "gcpod-localcloud")

    def close(self) -> None:
        """Lets running handlers end, then frees the threads."""
        self._pool.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one ASGI request; anything but HTTP is turned away."""
        if scope["type"] != "http":
            raise RuntimeError(f"the local cloud speaks HTTP only, not {scope['type']}")
        request = Request(scope, receive)
        incoming = Incoming(
            request.method,
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            request.headers,
            request.stream,
        )
        reply = _refuse_strangers(incoming.headers)
        if reply is None:
            with contextlib.suppress(ClientDisconnect):
                reply = await self.answer(incoming)
        if reply is not None:
            await self._response(reply)(scope, receive, send)

    async def answer(self, incoming: Incoming) -> Reply:
        """Answers one request; every failure becomes a reply."""
        if incoming.verb == "POST" and incoming.raw_path.startswith("/batch"):
            return await self._guarded(ErrorStyle.STORAGE, batch.answer(self.answer, incoming))
        route = self._router.find(incoming.verb, incoming.raw_path)
        if route is None:
            return await self._guarded(ErrorStyle.STORAGE, self._fall_back(incoming))
        return await self._guarded(route.owner.style, self._serve(route, incoming))

    async def _guarded(self, style: ErrorStyle, work: Awaitable[Reply]) -> Reply:
        try:
            return await work
        except ApiError as refusal:
            return Reply(refusal.status, refusal.render(style), headers=refusal.headers)
        except (ClientDisconnect, asyncio.CancelledError):
            raise
        except Exception:
            _LOG.exception("a handler of the local cloud failed")
            return Reply(500, ApiError(500, "Internal error encountered.").render(style))

    async def _serve(self, route: Route[Api], incoming: Incoming) -> Reply:
        api, method = route.owner, route.method
        handler = api.handlers.get(method.id)
        if handler is None:
            raise ApiError(501, f"Method {method.id} is not implemented by the local cloud.")
        path = route.template.match(incoming.raw_path) or {}
        query = QueryParams(check_query(api.document, method, QueryParams(incoming.query_string).multi_items()))
        call = Call(
            method,
            route.kind,
            incoming.verb,
            incoming.raw_path,
            path,
            query,
            incoming.headers,
            base_url(incoming.headers),
        )
        if route.kind is RouteKind.UPLOAD:
            return await self._with_raw_body(handler, call, incoming, inflated=True)
        value = await bodies.read_json(_inflated(incoming))
        if value is not None and method.request is not None:
            value = check_body(api.document, method.request, value, api.enum_numbers)
        call = replace(call, json=value)
        reply = await self._run(handler, call)
        fields = query.get("fields")
        return reply if not fields or reply.value is None else replace(reply, value=select(reply.value, fields))

    async def _fall_back(self, incoming: Incoming) -> Reply:
        for api in self._apis:
            if api.fallback is not None:
                query = QueryParams(incoming.query_string)
                call = Call(
                    None,
                    RouteKind.FALLBACK,
                    incoming.verb,
                    incoming.raw_path,
                    {},
                    query,
                    incoming.headers,
                    base_url(incoming.headers),
                )
                reply = await self._with_raw_body(api.fallback, call, incoming, inflated=False)
                if reply is not None:
                    return reply
        raise ApiError(404, "Not Found")

    async def _with_raw_body(
        self,
        handler: Callable[[Call], Answer],
        call: Call,
        incoming: Incoming,
        *,
        inflated: bool,
    ) -> Answer:
        chunks = _inflated(incoming) if inflated else incoming.chunks()
        body = await bodies.spool(chunks, self._spool, self._run)
        try:
            return await self._run(handler, replace(call, body=body))
        finally:
            body.discard()

    async def _run(self, function: Callable[..., Answer], *args: Any) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args))

    def _response(self, reply: Reply) -> Response:
        headers = dict(reply.headers)
        response: Response
        if reply.stream is not None:
            response = StreamingResponse(self._streamed(reply.stream), reply.status, headers)
        else:
            content = reply.content
            if reply.value is not None:
                headers.setdefault("Content-Type", "application/json; charset=UTF-8")
                content = json.dumps(reply.value, separators=(",", ":")).encode()
            response = Response(content, reply.status, headers)
        response.raw_headers = [(_spelled(name), value) for name, value in response.raw_headers]
        return response

    async def _streamed(self, stream: Iterator[bytes]) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._run(next, stream, b""):
                yield chunk
        finally:
            if hasattr(stream, "close"):
                stream.close()


class _Spelled(bytes):
    """A header name that keeps its capitals: uvicorn lowers names, but TensorFlow knows ``Location`` only so."""

    def lower(self) -> bytes:
        return self


def _spelled(name: bytes) -> bytes:
    # uvicorn itself has to recognise those that frame the message.
    return name if name in _FRAMING else _Spelled(b"ETag" if name == b"etag" else name.title())


def base_url(headers: Headers) -> str:
    """Scheme and host as the client sees them: names of Google come through the TLS proxy, others in the clear."""
    host = headers.get("host", "")
    return f"https://{host}" if _host_name(host).endswith("googleapis.com") else f"http://{host}"


def _inflated(incoming: Incoming) -> AsyncIterator[bytes]:
    chunks = incoming.chunks()
    return bodies.inflate(chunks) if incoming.headers.get("content-encoding", "").lower() == "gzip" else chunks


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _refuse_strangers(headers: Headers) -> Reply | None:
    # A page in a browser reaches loopback by rebinding its own name (then Host tells) or by a cross-site form (then
    # Origin does).
    host, origin = _host_name(headers.get("host", "")), headers.get("origin")
    if host not in _LOOPBACK and host != "googleapis.com" and not host.endswith(".googleapis.com"):
        refusal = ApiError(403, "This server answers only to loopback names and to googleapis.com.")
    elif origin is not None and _host_name(origin.partition("//")[2]) not in _LOOPBACK:
        refusal = ApiError(403, "This server does not answer to pages of other sites.")
    else:
        return None
    return Reply(403, refusal.render(ErrorStyle.STORAGE))
