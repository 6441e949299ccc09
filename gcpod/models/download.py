"""One large file over HTTP, and its state beside it: whatever ends the transfer, the next call goes on from there."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from gcpod.errors import PackageError
from gcpod.headers import retry_after

GIVEN_UP = "M601"
ADDRESS = "M604"
Say = Callable[[str], None]
_BLOCK_BYTES = 16 << 10
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = 5
_MOST_TRIES = 100
_LONGEST_PAUSE_S = 30.0
_ELSEWHERE = "name another place with --url or model.zoo_mirror"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        connect_s: for a connection.
        stall_s: for the next byte.
        attempts: so many in a row that bring nothing new are the last.
        pause_s: before the second attempt; twice as long before each further one, 30 s at most.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    attempts: int = 5
    pause_s: float = 1.0


PATIENCE = Patience()


class _Passing(Exception):
    """What another attempt may mend; ``wait_s`` is what the server asks for."""

    def __init__(self, found: str, wait_s: float | None = None) -> None:
        super().__init__(found)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _State:
    """Whose bytes the part holds; ``etag`` "" and ``size`` None where the server gave none."""

    url: str
    etag: str
    size: int | None
    whole: bool = False

    @property
    def resumable(self) -> bool:
        # A weak ETag does not promise equal bytes (RFC 9110, 8.8.1), and If-Range must not carry one (13.1.5).
        return self.etag.startswith('"')


class Download:
    """A transfer into ``part``, with its state in ``part`` + ".json".

    Args:
        url: https, or http to this machine.
        part: the file; its folder exists.
        session: a requests.Session.
        limit_bytes: the largest file that is taken.
        patience: how long the server is waited for.
        progress: called with bytes there, and bytes in all or None.
        say: told why it is tried again.
        sleep: waits so many seconds.
    """

    def __init__(
        self, url: str, part: Path, session: Any, *, limit_bytes: int, patience: Patience = PATIENCE,
        progress: Callable[[int, int | None], None] = lambda *_: None, say: Say = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.part, self.session = url, part, session
        self._limit, self._patience = limit_bytes, patience
        self._progress, self._say, self._sleep = progress, say, sleep
        self._told = part.with_name(part.name + ".json")

    def forget(self) -> None:
        """Removes what was fetched."""
        self.part.unlink(missing_ok=True)
        self._told.unlink(missing_ok=True)

    def run(self) -> None:
        """Makes ``part`` hold the whole file; asks no server when it does already.

        Raises:
            PackageError: M601, the server refuses, or does not send all of it; M604, an address that is not allowed.
        """
        check_address(self.url)
        furthest, fruitless = self._have(self._state()), 0
        for attempt in range(1, _MOST_TRIES + 1):
            try:
                self._attempt()
                return
            except _Passing as e:
                have = self._have(self._state())
                fruitless = 0 if have > furthest else fruitless + 1
                furthest = max(furthest, have)
                if fruitless >= self._patience.attempts or attempt == _MOST_TRIES:
                    fix = "check the network and run the command again: it goes on where it stopped"
                    raise self._error(f"{e}, after {attempt} attempts", fix) from e
                self._say(f"{self.url}: {e}; trying again")
                pause = self._patience.pause_s * 2 ** max(0, fruitless - 1) if e.wait_s is None else e.wait_s
                self._sleep(min(pause, _LONGEST_PAUSE_S))

    def _attempt(self) -> None:
        state = self._state()
        have = self._have(state)
        if state is not None and (state.whole or (state.size is not None and state.size == have > 0)):
            return
        headers = {"Accept-Encoding": "identity"}
        if state is not None and have:
            headers |= {"Range": f"bytes={have}-", "If-Range": state.etag}
        with self._translated(), self._open(headers) as response:
            if response.status_code == 206 and state is not None and have:
                self._check_range(response, state, have)
            elif response.status_code == 200:
                state, have = self._begin(response), 0
            else:
                raise self._refusal(response)
            self._receive(response, state, have)

    def _begin(self, response: Any) -> _State:
        """A file from its start. The part is emptied first: killed here, no state must speak of other bytes."""
        self.part.write_bytes(b"")
        length = response.headers.get("Content-Length", "")
        size = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        state = _State(self.url, response.headers.get("ETag", ""), size)
        if size is not None and size > self._limit:
            self.forget()
            raise self._error(f"it has {size} bytes, and {self._limit} are the most", "check the address")
        self._write_state(state)
        return state

    def _check_range(self, response: Any, state: _State, have: int) -> None:
        """That the bytes to come follow the ones that are there.

        Raises:
            _Passing: they do not; the next attempt starts over.
        """
        given = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        same = response.headers.get("ETag", state.etag) == state.etag
        if not given or int(given[1]) != have or not same or (state.size is not None and int(given[2]) != state.size):
            self.forget()
            raise _Passing("the server continues with bytes of another file")

    def _receive(self, response: Any, state: _State, have: int) -> None:
        # Unbuffered: what a killed process received counts.
        with self.part.open("ab", buffering=0) as out:
            for block in self._blocks(response):
                have += len(block)
                if have > self._limit:
                    break
                _write(out, block)
                self._progress(have, state.size)
        if have > self._limit:
            self.forget()
            raise self._error(f"it sends more than {self._limit} bytes", "check the address")
        if state.size is not None and have != state.size:
            raise _Passing(f"the connection ended after {have} of {state.size} bytes")
        self._write_state(_State(state.url, state.etag, have, whole=True))
        self._progress(have, have)

    def _blocks(self, response: Any) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        try:
            while block := response.raw.read(_BLOCK_BYTES, decode_content=False):
                yield block
        except ReadTimeoutError as e:
            raise _Passing(f"nothing came for {self._patience.stall_s:g} s") from e
        except (HTTPError, OSError) as e:
            raise _Passing(f"the connection broke ({type(e).__name__})") from e

    @contextmanager
    def _open(self, headers: dict[str, str]) -> Iterator[Any]:
        """The reply to a GET. Redirects are followed here, for requests would follow them to any address."""
        url = self.url
        for _ in range(_REDIRECTS + 1):
            reply = self.session.get(
                url, headers=headers, stream=True, allow_redirects=False,
                timeout=(self._patience.connect_s, self._patience.stall_s),
                # requests' own word for "not through the proxies that the environment names".
                proxies={"no_proxy": urlsplit(url).hostname} if _is_loopback(url) else None,
            )
            with reply:
                if not reply.is_redirect:
                    yield reply
                    return
                target = urljoin(url, reply.headers["Location"])
            check_address(target, within=url)
            url = target
        raise self._error(f"it redirects more than {_REDIRECTS} times", _ELSEWHERE)

    def _refusal(self, response: Any) -> Exception:
        status = response.status_code
        if status == 416:
            self.forget()
            return _Passing("the server has fewer bytes than were fetched")
        if status in _PASSING:
            return _Passing(f"the server answered {status}", retry_after(response.headers.get("Retry-After", "")))
        return self._error(f"the server answered {status} {response.reason or ''}", _ELSEWHERE)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from requests import exceptions
        from urllib3.exceptions import HTTPError

        final = (exceptions.InvalidURL, exceptions.InvalidHeader, exceptions.SSLError, exceptions.InvalidSchema)
        try:
            yield
        except final as e:
            raise self._error(f"{type(e).__name__}: {e}", "check the address and the network") from e
        except (exceptions.RequestException, HTTPError, ConnectionError, TimeoutError) as e:
            raise _Passing(f"no answer ({type(e).__name__})") from e

    def _have(self, state: _State | None) -> int:
        """Bytes that can be kept; 0 where it starts over."""
        if state is None or not self.part.is_file():
            return 0
        size = self.part.stat().st_size
        return size if state.whole or (state.resumable and (state.size is None or size <= state.size)) else 0

    def _state(self) -> _State | None:
        try:
            raw = json.loads(self._told.read_text(encoding="utf-8"))
            state = _State(str(raw["url"]), str(raw["etag"]), raw["size"], raw["whole"] is True)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        usable = state.url == self.url and (state.size is None or type(state.size) is int)
        if state.whole and not (self.part.is_file() and self.part.stat().st_size == state.size):
            usable = False
        return state if usable else None

    def _write_state(self, state: _State) -> None:
        aside = self._told.with_name(self._told.name + ".new")
        aside.write_text(json.dumps(asdict(state)), encoding="utf-8")
        aside.replace(self._told)

    def _error(self, found: str, fix: str) -> PackageError:
        return PackageError("fetching", self.url, found, fix, code=GIVEN_UP)


def check_address(url: str, within: str | None = None) -> None:
    """That a URL may be fetched from; ``within`` is the one that redirects to it.

    Raises:
        PackageError: M604, it is neither https nor http to this machine, or holds a password, or leaves https.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    shown = url if "@" not in url else "the address"
    if not host or parts.scheme not in ("https", "http"):
        raise _address(shown, "it is no web address")
    if parts.username is not None or parts.password is not None:
        raise _address(shown, "it holds a user's name or password")
    if parts.scheme == "http" and not (_is_loopback(url) and (within is None or _is_loopback(within))):
        raise _address(shown, "it is not encrypted, and not on this machine")


def _address(url: str, found: str) -> PackageError:
    return PackageError("fetching from", url, found, "name a place whose address starts with https://", code=ADDRESS)


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def _write(out: IO[bytes], block: bytes) -> None:
    """All of a block: a raw file may take less than it was given."""
    view = memoryview(block)
    while view:
        view = view[os.write(out.fileno(), view):]
