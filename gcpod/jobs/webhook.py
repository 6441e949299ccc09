"""Messages posted to a webhook whose address is a secret: its path, query and credentials are told to nobody."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

from gcpod.headers import retry_after

if TYPE_CHECKING:
    import requests

TIMEOUT_S: Final = 10.0
TRIES: Final = 3
LONGEST_PAUSE_S: Final = 60.0
"""A receiver that asks for more is not waited for."""
_PAUSE_S: Final = 1.0
_REDIRECTS: Final = 3
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_TEXT_ONLY: Final = ("chat.googleapis.com", "hooks.slack.com")
"""Their messages have fields of their own; Google's services refuse a body with any that they do not know
(https://developers.google.com/workspace/chat/quickstart/webhooks, https://api.slack.com/messaging/webhooks)."""


class _Refused(Exception):
    """A receiver did not take the message; ``pause_s`` is how long to wait for another try, None for none."""

    def __init__(self, found: str, pause_s: float | None = None) -> None:
        super().__init__(found)
        self.pause_s = pause_s


def to_payload(told: Mapping[str, Any], host: str) -> dict[str, Any]:
    """What is posted to a webhook at a host: all that is to be told, or its text alone where more is refused."""
    return {"text": told["text"]} if host in _TEXT_ONLY else dict(told)


@dataclass(frozen=True)
class Webhook:
    """Posts JSON to addresses that nobody is told of.

    Attributes:
        http: sends.
        sleep: seconds between two tries.
        timeout_s: for a connection, and for each sign of life on it.
    """

    http: requests.Session
    sleep: Callable[[float], None]
    timeout_s: float

    def tell(self, told: Mapping[str, Any], address: str) -> list[str]:
        """Tries until the receiver has it, or no further try may help; returns what went wrong as sentences.

        Args:
            told: plain values; ``text`` says it in one line.
            address: https, or http to this machine.
        """
        try:
            host = _host(address)
        except _Refused as e:
            return [f"notify.webhook was not called: {e}"]
        body = json.dumps(to_payload(told, host)).encode()
        tried = 0
        while True:
            tried += 1
            try:
                with _unlogged():
                    self._post(address, body, _PAUSE_S * 2 ** (tried - 1))
                return []
            except _Refused as e:
                if e.pause_s is None or tried == TRIES:
                    times = "" if tried == 1 else f" in {tried} tries"
                    return [f"the webhook at {host} was not told{times}: {e}"]
                self.sleep(e.pause_s)

    def _post(self, address: str, body: bytes, pause_s: float) -> None:
        """One try, and the redirects that it leads to; raises _Refused where it was in vain."""
        scheme, content = urlsplit(address).scheme, body or None
        for _ in range(_REDIRECTS + 1):
            status, headers = self._ask(address, content, pause_s)
            if status not in (301, 302, 303, 307, 308) or "Location" not in headers:
                _judge(status, headers, pause_s)
                return
            try:
                address = urljoin(address, headers["Location"])
            except ValueError:
                raise _Refused("it redirects to what is no address") from None
            _host(address)
            if urlsplit(address).scheme != scheme:
                raise _Refused(f"it redirects from {scheme} to another scheme")
            # As browsers do: the first receiver has the message, and tells where its answer lies (RFC 9110, 15.4).
            content = content if status in (307, 308) else None
        raise _Refused(f"it redirects more than {_REDIRECTS} times")

    def _ask(self, address: str, content: bytes | None, pause_s: float) -> tuple[int, Mapping[str, str]]:
        from requests import Request
        from requests.exceptions import ConnectionError, RequestException, Timeout

        verb, headers = ("POST", {"Content-Type": "application/json"}) if content else ("GET", {})
        try:
            prepared = self.http.prepare_request(Request(verb, address, headers, data=content))
            told = self.http.merge_environment_settings(address, {}, True, None, None)
            # Below the session, which reads all of a redirect's body, however long that is.
            with self.http.get_adapter(address).send(prepared, timeout=self.timeout_s, **told) as answer:
                return answer.status_code, answer.headers
        except Timeout as e:
            raise _Refused(f"no answer in {self.timeout_s:g} s", pause_s) from e
        except ConnectionError as e:
            raise _Refused(f"the connection failed ({type(e).__name__})", pause_s) from e
        except (RequestException, ValueError) as e:
            # What these say has the whole address in it.
            raise _Refused(f"the request failed ({type(e).__name__})") from e


def _host(address: str) -> str:
    """The host of an address that may be posted to: https, or http to this machine.

    Raises:
        _Refused: it is another; says nothing of its path or query.
    """
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _Refused("its address is no https://HOST/PATH") from None
    if not host:
        raise _Refused("its address is no https://HOST/PATH")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise _Refused(f"an address at {host} must begin with https://")
    return host


def _judge(status: int, headers: Mapping[str, str], pause_s: float) -> None:
    if 200 <= status < 300:
        return
    if status != 429 and status < 500:
        raise _Refused(f"it answered {status}")
    asked = retry_after(headers.get("Retry-After", ""))
    if asked is not None and asked > LONGEST_PAUSE_S:
        raise _Refused(f"it answered {status} and asks to come back in {asked:.0f} s")
    raise _Refused(f"it answered {status}", pause_s if asked is None else asked)


@contextmanager
def _unlogged() -> Iterator[None]:
    """While this thread posts, urllib3 logs nothing of it: its lines have paths in them."""
    own = threading.get_ident()

    def of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != own

    loggers = [logging.getLogger(f"urllib3.{name}") for name in ("connectionpool", "util.retry", "connection")]
    for logger in loggers:
        logger.addFilter(of_another_thread)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(of_another_thread)
