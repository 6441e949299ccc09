"""What travels through the HTTP core: a request as it came, the checked call made of it, and the reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, QueryParams

from gcpod.localcloud.bodies import RawBody
from gcpod.localcloud.discovery import Method
from gcpod.localcloud.routing import RouteKind


@dataclass(frozen=True)
class Incoming:
    """A request before routing, from a socket or out of a batch."""

    verb: str
    raw_path: str
    query_string: str
    headers: Headers
    chunks: Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True)
class Call:
    """One request, checked: ``json`` is canonical (see `schema.check_body`), ``path`` and ``query`` are decoded.

    ``method`` is None for a path that no document knows (see ``Api.fallback``). ``body`` is there instead of ``json``
    on upload paths and fallbacks. ``base_url`` is scheme and host as the client sees them, without a closing slash.
    """

    method: Method | None
    kind: RouteKind
    verb: str
    raw_path: str
    path: Mapping[str, str]
    query: QueryParams
    headers: Headers
    base_url: str
    json: Any = None
    body: RawBody | None = None


@dataclass(frozen=True)
class Reply:
    """What a handler answers: a JSON ``value``, or ``content``, or a ``stream`` of bytes (with its Content-Length)."""

    status: int = 200
    value: Any = None
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None
