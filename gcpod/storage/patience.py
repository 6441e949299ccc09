"""Trying again: which failures pass, how long is waited, and when it is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gcpod.errors import AuthError, GcpodError, OutageError, StorageError
from gcpod.headers import retry_after
from gcpod.storage.channel import Answer, BrokenError
from gcpod.storage.traffic import LONGEST_PAUSE_S, Traffic

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that pass by themselves (https://cloud.google.com/storage/docs/retry-strategy#retryable)."""
_Result = TypeVar("_Result")


class AgainError(Exception):
    """Raised by an attempt that another may mend; ``wait_s`` is what the service asks for."""

    def __init__(self, found: str, wait_s: float | None = None) -> None:
        super().__init__(found)
        self.wait_s = wait_s


class Patience:
    """Repeats attempts at one thing until it is done, or until it got no further for `TransferOptions.patience_s`.

    Args:
        traffic: clock, pauses and the limit.
        tried, on: for the error.
    """

    def __init__(self, traffic: Traffic, tried: str, on: object) -> None:
        self.traffic, self.tried, self.on = traffic, tried, on
        self._since: float | None = None
        self._failures = 0

    def progressed(self) -> None:
        """Something arrived for good: patience begins anew."""
        self._since, self._failures = None, 0

    def run(self, attempt: Callable[[], _Result]) -> _Result:
        """The result of the first attempt that gives one.

        Raises:
            OutageError: patience ended.
        """
        while True:
            try:
                return attempt()
            except AgainError as e:
                self._pause(str(e), e.wait_s)
            except BrokenError as e:
                # A connection that the service closed while it was idle says nothing about the service.
                self._pause(str(e), stale=e.stale and not self._failures)

    def _pause(self, found: str, wait_s: float | None = None, *, stale: bool = False) -> None:
        self.traffic.count(troubles=0 if stale else 1)
        now = self.traffic.clock()
        self._since = now if self._since is None else self._since
        self._failures += 1
        longest = min(LONGEST_PAUSE_S, self.traffic.options.pause_s * 2 ** min(self._failures - 1, 16))
        pause = 0.0 if stale else max(longest * (0.5 + self.traffic.spread() / 2), wait_s or 0.0)
        limit = self.traffic.options.patience_s
        if now + pause - self._since > limit:
            raise OutageError(self.tried, self.on, f"{found}, and so for {now - self._since:.0f} s",
                              "check the network and run the command again: it goes on where it stopped")
        self.traffic.pause(pause)


def checked(answer: Answer, tried: str, on: object, *fine: int) -> Answer:
    """An answer whose status is 200, 201 or one of ``fine``.

    Raises:
        AgainError: 408, 429, 500, 502, 503 or 504.
        AuthError: 401 or 403.
        StorageError: any other status.
    """
    if answer.status in (200, 201, *fine):
        return answer
    if answer.status in PASSING:
        raise AgainError(f"the service answered {answer.status}", retry_after(answer.headers.get("retry-after", "")))
    raise coded(tried, on, answer.status, answer.message)


def coded(tried: str, on: object, status: int, message: str) -> GcpodError:
    """The error for a status that Cloud Storage answered with."""
    text = (message.splitlines() or [""])[0][:300]
    found = f"the service answered {status}: {text}"
    if status == 401:
        return AuthError(tried, on, found, "run `gcloud auth application-default login`")
    if status == 403:
        return AuthError(tried, on, found, "grant roles/storage.objectAdmin on the bucket")
    if status in PASSING:
        return OutageError(tried, on, found, "wait and run the command again")
    if status == 400 and "requester pays" in text.lower():
        return StorageError(tried, on, found, "name the project that pays as storage.user_project in gcpod.yaml")
    fix = "check the bucket's name, or let `gcpod run` make it" if status == 404 else "run the command again"
    return StorageError(tried, on, found, fix)
