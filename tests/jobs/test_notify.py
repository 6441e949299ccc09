"""Telling that a run ended: real commands, and a real receiver on loopback that does all a receiver can do wrong."""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from gcpod.jobs.notify import EndedJob, Outcome, notify, run_command
from gcpod.jobs.prices import Money, Unknown
from gcpod.jobs.webhook import TRIES, Webhook, to_payload
from gcpod.spec import NotifySpec
from gcpod.status import JobState, Metrics
from tests.data.making import drawn
from tests.waiting import until

OUTCOME = Outcome(
    "birds-1234", "SUCCEEDED",
    jobs=(EndedJob("train", "projects/p/locations/r/customJobs/1", JobState.SUCCEEDED, "https://console/1"),),
    metrics=Metrics(500, 0.5, float("nan"), 0.25, {"Loss/total_loss": float("inf")}),
    started="2026-11-21T10:00:00Z", ended="2026-11-21T12:00:00Z", cost=Money(Decimal("1.5"), "USD"),
)
FAILED = replace(
    OUTCOME, state="FAILED", error="it ended with 1\nby\tits own doing", metrics=None, cost=Unknown("no price"),
)
SHORT_S = 0.2


def test_the_outcome_as_plain_values() -> None:
    plain = json.loads(json.dumps(OUTCOME.to_dict(), allow_nan=False))
    assert plain == {
        "run": "birds-1234", "state": "SUCCEEDED", "error": None,
        "jobs": [{"kind": "train", "name": "projects/p/locations/r/customJobs/1", "state": "SUCCEEDED",
                  "console": "https://console/1"}],
        "metrics": {"step": 500, "ap": 0.5, "ap50": None, "ap75": 0.25, "values": {"Loss/total_loss": None}},
        "started": "2026-11-21T10:00:00Z", "ended": "2026-11-21T12:00:00Z", "cost": "1.5", "currency": "USD",
        "cost_unknown": None, "text": "gcpod: run birds-1234 SUCCEEDED, AP 0.500 at step 500, cost 1.50 USD",
    }
    bad = FAILED.to_dict()
    assert bad["text"] == "gcpod: run birds-1234 FAILED, it ended with 1 by its own doing, cost unknown"
    assert (bad["cost"], bad["cost_unknown"], bad["metrics"]) == (None, "no price", None)
    assert Outcome("r", "CANCELLED").to_dict()["started"] is None


def test_nobody_to_tell() -> None:
    assert notify(OUTCOME, NotifySpec()) == []


def command(*words: str) -> NotifySpec:
    return NotifySpec(command=shlex.join(words))


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_gets_the_outcome(tmp_path: Path) -> None:
    script = f'cat > "{tmp_path}/told"; printf "%s %s" "$GCPOD_RUN" "$GCPOD_STATE" > "{tmp_path}/env"; echo words'
    assert notify(FAILED, command("sh", "-c", script)) == []
    assert json.loads((tmp_path / "told").read_text()) == FAILED.to_dict()
    assert (tmp_path / "env").read_text() == "birds-1234 FAILED"


def test_a_command_is_no_shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert notify(OUTCOME, NotifySpec(command="touch 'a b' $HOME;c *")) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["$HOME;c", "*", "a b"]


def test_what_a_failing_command_said_last_is_shown_and_its_arguments_are_not() -> None:
    script = ': secret1; i=0; while [ $i -lt 500 ]; do echo line$i; i=$((i+1)); done; printf "\\033[1mlast"; exit 3'
    [problem] = notify(OUTCOME, command("sh", "-c", script))
    assert problem.startswith("the command sh of notify.command ended with 3: ")
    assert problem.endswith("line499 [1mlast")
    assert "secret1" not in problem
    assert problem.isprintable()
    assert 500 < len(problem) < 1200
    [quiet] = notify(OUTCOME, command("sh", "-c", "kill -9 $$"))
    assert quiet == "the command sh of notify.command ended with -9"


@pytest.mark.parametrize(("text", "told"), [
    ("/nowhere/at/all --token secret", "the command /nowhere/at/all of notify.command cannot be run: No such file"),
    ("TOKEN=secret curl x", "the command TOKEN of notify.command cannot be run: No such file"),
    ("/ secret", "the command / of notify.command cannot be run: Permission denied"),
    ("say 'secret", "notify.command cannot be read (no closing quotation)"),
    ("  # secret", "the command # of notify.command cannot be run"),
    ("   ", "notify.command is empty"),
    ("say\0it secret", "cannot be run: embedded null byte"),
])
def test_a_command_that_cannot_be_run_is_told(text: str, told: str) -> None:
    [problem] = notify(OUTCOME, NotifySpec(command=text))
    assert told in problem
    assert "secret" not in problem


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = f'trap "" TERM; sleep 100 & echo $! $$ > "{tmp_path}/pids"; echo waiting; wait'
    [problem] = notify(OUTCOME, command("sh", "-c", script), run=partial(run_command, limit_s=SHORT_S))
    assert problem == "the command sh of notify.command did not end in time and was stopped: waiting"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    until(lambda: not any(map(alive, pids)))


def test_what_a_command_leaves_behind_is_ended_and_not_waited_for(tmp_path: Path) -> None:
    assert notify(OUTCOME, command("sh", "-c", f'sleep 100 & echo $! > "{tmp_path}/pid"')) == []
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_command_may_read_nothing_and_write_without_end() -> None:
    long = replace(OUTCOME, error="x" * 3_000_000)
    assert notify(long, command("true")) == []
    [problem] = notify(long, command("yes"), run=partial(run_command, limit_s=SHORT_S))
    assert problem.startswith("the command yes of notify.command did not end in time and was stopped: y y ")
    assert len(problem) < 1200


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Receiver:
    """A server whose answers are told one by one; after them it is content."""

    answers: list[Answer] = field(default_factory=list)
    got: list[tuple[str, str, Mapping[str, str], bytes]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def address(self, path: str = "/hook") -> str:
        return f"http://user:hidden1@127.0.0.1:{self.port}{path}?key=hidden2"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            made.got.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            (made.answers.pop(0) if made.answers else answer(200))(self)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False

    with Server(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.closing.set()
        server.shutdown()
        thread.join()


def answer(status: int, **headers: str) -> Answer:
    def give(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": "2", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(b"ok")

    return give


def drop(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    os.close(handler.connection.detach())


def say(content: bytes) -> Answer:
    def give(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return give


def stall(closing: threading.Event) -> Answer:
    def give(handler: BaseHTTPRequestHandler) -> None:
        closing.wait(20)
        handler.close_connection = True

    return give


@dataclass
class Told:
    """What came of telling a receiver."""

    problems: list[str]
    pauses: list[float]


def tell(receiver: Receiver, *answers: Answer, outcome: Outcome = OUTCOME, timeout_s: float = 10.0) -> Told:
    receiver.answers[:] = answers
    told = Told([], [])
    spec = NotifySpec(webhook=receiver.address())
    told.problems = notify(outcome, spec, sleep=told.pauses.append, timeout_s=timeout_s)
    return told


def test_a_webhook_gets_the_outcome(receiver: Receiver) -> None:
    assert tell(receiver, outcome=FAILED) == Told([], [])
    [(verb, path, headers, body)] = receiver.got
    assert (verb, path, headers["Content-Type"]) == ("POST", "/hook?key=hidden2", "application/json")
    assert json.loads(body) == FAILED.to_dict()


def test_both_are_told_and_one_does_not_stop_the_other(receiver: Receiver) -> None:
    receiver.answers[:] = [answer(404)]
    both = NotifySpec(command="false", webhook=receiver.address())
    with requests.Session() as http:
        problems = notify(OUTCOME, both, http=http)
    assert problems == [
        "the command false of notify.command ended with 1", "the webhook at 127.0.0.1 was not told: it answered 404",
    ]


def test_chats_get_their_text_alone() -> None:
    told = OUTCOME.to_dict()
    assert to_payload(told, "chat.googleapis.com") == to_payload(told, "hooks.slack.com") == {"text": OUTCOME.text}
    assert to_payload(told, "example.com") == told


@pytest.mark.parametrize(("answers", "pauses"), [
    ([answer(500)], [1.0]),
    ([answer(503), answer(502)], [1.0, 2.0]),
    ([answer(429)], [1.0]),
    ([answer(429, Retry_After="7"), answer(503, Retry_After="0")], [7.0, 0.0]),
    ([answer(429, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT")], [0.0]),
    ([answer(429, Retry_After="soon")], [1.0]),
    ([drop], [1.0]),
    ([drop, answer(500)], [1.0, 2.0]),
    ([say(b"HTTP/1.1 200 OK\r\nContent-")], [1.0]),
    ([say(b"no HTTP at all\r\n\r\n")], [1.0]),
    ([say(b"")], [1.0]),
])
def test_what_passes_is_tried_again(receiver: Receiver, answers: list[Answer], pauses: list[float]) -> None:
    told = tell(receiver, *answers)
    # The headers that came count: a reply that is cut short in them is a reply.
    assert told.problems == []
    assert told.pauses == pauses[:len(receiver.got) - 1]
    assert {json.loads(body)["run"] for _, _, _, body in receiver.got} == {"birds-1234"}


@pytest.mark.parametrize(("answers", "requests_made", "told"), [
    ([answer(500)] * 9, TRIES, "in 3 tries: it answered 500"),
    ([answer(429, Retry_After="1")] * 9, TRIES, "in 3 tries: it answered 429"),
    ([answer(429, Retry_After="3600")] * 9, 1, ": it answered 429 and asks to come back in 3600 s"),
    ([answer(404)], 1, ": it answered 404"),
    ([answer(400)], 1, ": it answered 400"),
    ([answer(304)], 1, ": it answered 304"),
    ([answer(302)], 1, ": it answered 302"),
    ([drop] * 9, TRIES, "in 3 tries: the connection failed (ConnectionError)"),
    ([answer(500), answer(403)], 2, "in 2 tries: it answered 403"),
])
def test_a_receiver_that_stays_bad_is_given_up(
    receiver: Receiver, answers: list[Answer], requests_made: int, told: str,
) -> None:
    [problem] = tell(receiver, *answers).problems
    assert problem.startswith("the webhook at 127.0.0.1 was not told")
    assert problem.endswith(told)
    assert len(receiver.got) == requests_made


def test_a_receiver_that_stalls_is_not_waited_for(receiver: Receiver) -> None:
    told = tell(receiver, *[stall(receiver.closing)] * 9, timeout_s=0.1)
    assert told == Told(["the webhook at 127.0.0.1 was not told in 3 tries: no answer in 0.1 s"], [1.0, 2.0])


def test_where_nobody_listens(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        receiver.port = held.getsockname()[1]
    [problem] = tell(receiver).problems
    assert problem.endswith("in 3 tries: the connection failed (ConnectionError)")


@pytest.mark.parametrize(("status", "verb"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
def test_a_redirect_is_followed_as_browsers_do(receiver: Receiver, status: int, verb: str) -> None:
    assert tell(receiver, answer(status, Location="/other?x=1")) == Told([], [])
    first, second = receiver.got
    assert (second[0], second[1]) == (verb, "/other?x=1")
    assert second[3] == (first[3] if verb == "POST" else b"")


@pytest.mark.parametrize(("location", "told"), [
    ("https://127.0.0.1:1/hidden3", "it redirects from http to another scheme"),
    ("http://example.com/hidden3", "an address at example.com must begin with https://"),
    ("ftp://example.com/hidden3", "an address at example.com must begin with https://"),
    ("file:///etc/hidden3", "its address is no https://HOST/PATH"),
    ("http://[hidden3", "it redirects to what is no address"),
    ("http://localhost:hidden3/", "its address is no https://HOST/PATH"),
])
def test_a_redirect_that_leads_astray_is_not_followed(receiver: Receiver, location: str, told: str) -> None:
    [problem] = tell(receiver, answer(307, Location=location)).problems
    assert problem == f"the webhook at 127.0.0.1 was not told: {told}"
    assert len(receiver.got) == 1


def test_redirects_without_end_are_given_up(receiver: Receiver) -> None:
    [problem] = tell(receiver, *[answer(307, Location="/again")] * 9).problems
    assert problem.endswith("it redirects more than 3 times")
    assert len(receiver.got) == 4


def test_no_body_is_read_however_long_it_is(receiver: Receiver) -> None:
    for status in (200, 307):
        promised = answer(status, Location="/other", Content_Length="100000000000")
        assert tell(receiver, promised, answer(200)) == Told([], [])
    assert [path for _, path, _, _ in receiver.got][-1] == "/other"


def test_nothing_says_the_address(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    again = answer(302, Location="/hidden3")
    for bad in (drop, answer(500), answer(404), again, stall(receiver.closing), say(b"x\r\n\r\n")):
        said += tell(receiver, *[bad] * 9, timeout_s=0.1).problems
    said += tell(receiver).problems
    assert len(said) == 6
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert not any(secret in text for text in (*said, logged) for secret in ("hidden", "/hook", "key=", "user"))
    # What others post meanwhile and after is logged as ever.
    requests.get(f"http://127.0.0.1:{receiver.port}/mine", timeout=10).close()
    assert any("/mine" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("address", [
    "http://example.com/hidden", "ftp://example.com/hidden", "https:///hidden", "https://[hidden", "hidden",
    "https://example.com:hidden/", "//example.com/hidden", "file:///hidden", "https://user:hidden@", "\0hidden",
    "https:",
])
def test_an_address_that_may_not_be_called_is_not_called(address: str) -> None:
    [problem] = notify(OUTCOME, NotifySpec(webhook=address))
    assert problem.startswith("notify.webhook was not called: ")
    assert "https://" in problem
    assert "hidden" not in problem


class Unreachable(HTTPAdapter):
    """A network in which nobody answers, so that no test calls anybody by chance."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        raise requests.ConnectionError(request.url)


@drawn(40, deadline=None)
@given(st.text() | st.text().map("https://{}".format) | st.text().map("https://example.com/{}".format))
def test_whatever_the_address_is_there_is_one_sentence(address: str) -> None:
    with requests.Session() as http:
        http.mount("https://", Unreachable())
        [problem] = Webhook(http, lambda _: None, 1.0).tell({"text": "x"}, address)
    assert problem.startswith(("notify.webhook was not called: ", "the webhook at "))


def test_the_library_and_its_heavy_parts_are_imported_where_they_are_used() -> None:
    code = "import sys, gcpod.jobs.notify; sys.exit('requests' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert run_command([sys.executable, "-c", code], b"", env).code == 0
