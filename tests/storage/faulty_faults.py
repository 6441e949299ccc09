"""What `faulty.Faulty` is told to do and what it tells: operations, actions, faults, and the log of requests."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote

from .faulty_wire import Head, Pieces

Operation = Literal[
    "insert", "start", "chunk", "status", "cancel", "get", "metadata", "list", "delete", "compose", "other",
]
_OBJECTS = re.compile(r"(?:/download)?/storage/v1/b/[^/]+/o(?:/(?P<name>[^/]+)(?P<compose>/compose)?)?")
_QUERY_RANGE = re.compile(r"bytes \*/(\d+|\*)")


@dataclass(frozen=True)
class Status:
    """An error in place of the request: nothing is forwarded. ``retry_after`` is the header's text."""

    code: int
    retry_after: str | None = None
    message: str = "spoilt"


@dataclass(frozen=True)
class StatusAfter:
    """An error in place of the reply: the request was served."""

    code: int
    retry_after: str | None = None
    message: str = "spoilt"


@dataclass(frozen=True)
class ResetBefore:
    """RST as soon as it is clear what is asked: nothing is forwarded."""


@dataclass(frozen=True)
class ResetAfter:
    """RST in place of the reply: the request was served."""


@dataclass(frozen=True)
class CutRequest:
    """RST to both sides once ``size`` bytes of the request's body are with the server's kernel.

    How many of them the server makes use of, and when, is its own affair: a status query may come before it has.
    """

    size: int


@dataclass(frozen=True)
class CutReply:
    """RST after the reply's head and ``size`` bytes of its body, which do arrive."""

    size: int


@dataclass(frozen=True)
class ShortReply:
    """FIN after the reply's head and ``size`` bytes of its body."""

    size: int


@dataclass(frozen=True)
class StallBefore:
    """Reads the whole request, and does not forward it before `Faulty.release`."""


@dataclass(frozen=True)
class StallRequest:
    """Reads no more than ``size`` bytes of the request's body, and what is on its way, before `Faulty.release`.

    The kernels of both sides take in some MB more before the client's send waits.
    """

    size: int


@dataclass(frozen=True)
class StallReply:
    """The reply's head and ``size`` bytes of its body, and nothing more before `Faulty.release`."""

    size: int


@dataclass(frozen=True)
class Alter:
    """Another body in the reply, with its Content-Length; the body is held in memory."""

    function: Callable[[bytes], bytes]


@dataclass(frozen=True)
class AlterRequest:
    """Another body of the same length in the request; the body is held in memory."""

    function: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Delay:
    """So many seconds before the request is forwarded; goes together with any other action."""

    seconds: float


@dataclass(frozen=True)
class Throttle:
    """Bodies pass at so many bytes a second, on each connection; goes together with any other action."""

    bytes_per_s: float


Action = (
    Status | StatusAfter | ResetBefore | ResetAfter | CutRequest | CutReply | ShortReply | StallBefore | StallRequest
    | StallReply | Alter | AlterRequest | Delay | Throttle
)


@dataclass(frozen=True)
class Fault:
    """What to do to which requests.

    Attributes:
        operation: of the request; "any" for all.
        action: of several faults that are due, the one told first; `Delay` and `Throttle` beside it.
        times: how many requests it spoils; None for all.
        skip: how many that match are let through first, counting those that other faults spoil.
        name: part of the object's name.
    """

    operation: Operation | Literal["any"]
    action: Action
    times: int | None = 1
    skip: int = 0
    name: str = ""


@dataclass(frozen=True)
class Request:
    """One request as it came.

    Attributes:
        name: of the object, also where it stands in the body or was said when the upload began; "" for none.
        path: as sent, still quoted; ``query`` is not; ``headers`` by lower-case name.
        body_bytes: of the request's body that were read from the client.
        sent_bytes, received_bytes: of bodies that were sent on to the server, and back to the client.
        status: what the client was told; 0 for nothing (yet).
        action: what spoilt it.
    """

    operation: Operation
    name: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body_bytes: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    status: int = 0
    action: Action | None = None


def operation_of(method: str, path: str, query: Mapping[str, str], content_range: str = "") -> Operation:
    """What a request asks of Cloud Storage (https://cloud.google.com/storage/docs/json_api/v1/objects)."""
    if "upload_id" in query:
        if method == "PUT":
            return "status" if _QUERY_RANGE.fullmatch(content_range) else "chunk"
        return "cancel" if method == "DELETE" else "other"
    if method == "POST" and "uploadType" in query:
        return "start" if query["uploadType"] == "resumable" else "insert"
    found = _OBJECTS.fullmatch(path)
    if found is None:
        return "other"
    if found["compose"]:
        return "compose" if method == "POST" else "other"
    if found["name"] is None:
        return "list" if method == "GET" else "other"
    if method == "GET":
        return "get" if query.get("alt") == "media" else "metadata"
    return "delete" if method == "DELETE" else "other"


class Exchange:
    """A request on its way, and what is known of it so far."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.method, target = head.request_line()
        self.path, _, query = target.partition("?")
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.headers = {name.lower(): value for name, value in head.fields}
        self.operation = operation_of(self.method, self.path, self.query, head.get("content-range"))
        found = _OBJECTS.fullmatch(self.path)
        self.name = self.query.get("name") or unquote(found["name"] or "" if found else "")
        self.body = self.sent = self.received = self.status = 0
        self.action: Action | None = None
        self.delay_s, self.rate = 0.0, 0.0

    def arriving(self, pieces: Pieces) -> Pieces:
        for piece in pieces:
            self.body += len(piece)
            yield piece

    def take(self, action: Action) -> bool:
        """Settles what is done; False when something else is already."""
        if isinstance(action, Delay):
            self.delay_s += action.seconds
        elif isinstance(action, Throttle):
            self.rate = min(self.rate or action.bytes_per_s, action.bytes_per_s)
        elif self.action is None:
            self.action = action
        else:
            return False
        return True

    def told(self) -> Request:
        return Request(
            self.operation, self.name, self.method, self.path, self.query, self.headers, self.body, self.sent,
            self.received, self.status, self.action,
        )


class Board:
    """The faults that were asked for, how often each was due, and what came; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults, self._exchanges = list[_Counted](), list[Exchange]()

    def clear(self) -> None:
        with self._lock:
            self._faults, self._exchanges = [], []

    def add(self, faults: Iterable[Fault]) -> None:
        with self._lock:
            self._faults += [_Counted(fault) for fault in faults]

    def unused(self) -> list[Fault]:
        with self._lock:
            return [one.fault for one in self._faults if one.left]

    def log(self) -> list[Request]:
        with self._lock:
            return [exchange.told() for exchange in self._exchanges]

    def admit(self, exchange: Exchange) -> None:
        """Logs a request, and settles what is done to it."""
        with self._lock:
            self._exchanges.append(exchange)
            for one in self._faults:
                if one.due(exchange) and exchange.take(one.fault.action):
                    one.used += 1


class _Counted:
    def __init__(self, fault: Fault) -> None:
        self.fault, self.matched, self.used = fault, 0, 0

    @property
    def left(self) -> int:
        return 0 if self.fault.times is None else self.fault.times - self.used

    def due(self, exchange: Exchange) -> bool:
        fault = self.fault
        if fault.operation not in ("any", exchange.operation) or fault.name not in exchange.name:
            return False
        self.matched += 1
        return self.matched > fault.skip and (fault.times is None or self.left > 0)


def refusal(status: Status | StatusAfter) -> tuple[Head, bytes]:
    """An error as Cloud Storage words it (https://cloud.google.com/storage/docs/json_api/v1/status-codes)."""
    error = {"code": status.code, "message": status.message, "errors": [{"message": status.message}]}
    content = json.dumps({"error": error}).encode()
    after = (("Retry-After", status.retry_after),) if status.retry_after is not None else ()
    first = f"HTTP/1.1 {status.code} {http.client.responses.get(status.code, 'Spoilt')}"
    return Head(first, (("Content-Type", "application/json"), *after)).sized(len(content)), content


def name_in(seen: bytes, multipart: bool) -> str:
    """The name in the metadata that an upload begins with, "" when it is not whole yet."""
    text = seen.decode("utf-8", "ignore")
    try:
        return str(json.JSONDecoder().raw_decode(text, text.index("{") if multipart else 0)[0].get("name", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def upload_id_of(location: str) -> str:
    return dict(parse_qsl(location.partition("?")[2])).get("upload_id", "")
