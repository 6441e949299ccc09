"""The refusals of Google's services, and the JSON each family of services writes them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

_RPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    416: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_STORAGE_REASON = {
    304: "notModified",
    400: "invalid",
    401: "required",
    403: "forbidden",
    404: "notFound",
    405: "methodNotAllowed",
    409: "conflict",
    410: "gone",
    411: "required",
    412: "conditionNotMet",
    413: "uploadTooLarge",
    416: "requestedRangeNotSatisfiable",
    429: "rateLimitExceeded",
    499: "clientClosedRequest",
    500: "backendError",
    501: "notImplemented",
    503: "backendError",
    504: "gatewayTimeout",
}
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class ErrorStyle(Enum):
    """Which family of services answers."""

    STORAGE = "storage"
    """https://cloud.google.com/storage/docs/json_api/v1/status-codes"""
    RPC = "rpc"
    """https://google.aip.dev/193 (aiplatform, logging and every other protobuf service)"""


@dataclass(frozen=True)
class Violation:
    """One field that is wrong; ``field`` is "" for the message itself."""

    field: str
    description: str


class ApiError(Exception):
    """A request refused.

    Args:
        status: the HTTP status code.
        message: what the service says.
        reason: the status word (``RESOURCE_EXHAUSTED`` in RPC style, ``conditionNotMet`` in storage style);
            by default the one that goes with the status code.
        details: further ``google.rpc`` detail messages, as JSON, RPC style only.
        headers: headers the reply carries besides.
    """

    def __init__(
        self,
        status: int,
        message: str,
        reason: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason
        self.details = tuple(details)
        self.headers = dict(headers or {})

    @classmethod
    def of_violations(cls, violations: Sequence[Violation]) -> ApiError:
        """One 400 for every field found wrong, as Google's JSON transcoder reports them."""
        listed = [{"field": one.field, "description": one.description} for one in violations]
        message = "\n".join(one.description for one in violations)
        return cls(400, message, details=[{"@type": BAD_REQUEST, "fieldViolations": listed}])

    def render(self, style: ErrorStyle) -> dict[str, Any]:
        """The JSON body of the reply."""
        if style is ErrorStyle.STORAGE:
            reason = self.reason or _STORAGE_REASON.get(self.status, "invalid")
            errors = [{"domain": "global", "reason": reason, "message": self.message}]
            return {"error": {"code": self.status, "message": self.message, "errors": errors}}
        body: dict[str, Any] = {
            "code": self.status,
            "message": self.message,
            "status": self.reason or _RPC_STATUS.get(self.status, "UNKNOWN"),
        }
        if self.details:
            body["details"] = list(self.details)
        return {"error": body}
