"""What the connections of a transfer share, with a clock of the test's own; and the journal of uploads under way."""

from __future__ import annotations

import stat
import threading
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import OutageError
from gcpod.headers import retry_after
from gcpod.storage.channel import BrokenError
from gcpod.storage.journal import LIFETIME_S, Journal
from gcpod.storage.patience import AgainError, Patience
from gcpod.storage.traffic import BLOCK_BYTES, LONGEST_PAUSE_S, StoppedError, Traffic, TransferOptions
from gcpod.storage.workers import MOST, WINDOW_S, WORTH, Pace


class Time:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.now += seconds
        return False


def traffic_of(time: Time, options: TransferOptions | None = None) -> Traffic:
    return Traffic(options, time.clock, time.wait, spread=lambda: 1.0)


def test_the_limit_holds_over_all_connections() -> None:
    time = Time()
    traffic = traffic_of(time, TransferOptions(rate_bytes=1000.0))
    for _ in range(11):
        traffic.pass_bytes(500)
    assert time.now - 1000 == pytest.approx(5.0)
    assert traffic.counts.sent_bytes == 5500


def test_an_idle_line_saves_nothing_up() -> None:
    time = Time()
    traffic = traffic_of(time, TransferOptions(rate_bytes=1000.0))
    traffic.pass_bytes(1000)
    time.now += 60
    traffic.pass_bytes(1000)
    traffic.pass_bytes(1000)
    assert time.pauses == [1.0]


def test_without_a_limit_nothing_waits() -> None:
    time = Time()
    traffic_of(time).pass_bytes(1 << 40)
    assert time.pauses == []


def test_a_stopped_transfer_moves_nothing_more() -> None:
    traffic = Traffic()

    def wait() -> None:
        with pytest.raises(StoppedError):
            traffic.pause(60.0)

    waiting = threading.Thread(target=wait)
    waiting.start()
    traffic.stop()
    waiting.join(5)
    assert not waiting.is_alive()
    with pytest.raises(StoppedError):
        traffic.pass_bytes(1)


def test_pauses_grow_to_a_limit_and_end_with_patience() -> None:
    time = Time()
    patience = Patience(traffic_of(time, TransferOptions(patience_s=200.0)), "uploading", "gs://b/x")

    def never() -> None:
        raise AgainError("the service answered 503")

    with pytest.raises(OutageError, match="uploading gs://b/x: the service answered 503, and so for"):
        patience.run(never)
    assert time.pauses[:8] == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert 200 - LONGEST_PAUSE_S <= time.now - 1000 <= 200


@pytest.mark.parametrize(("asked", "first"), [(0.0, 0.5), (0.1, 0.5), (7.0, 7.0)])
def test_a_service_that_says_at_once_is_asked_no_sooner_for_it(asked: float, first: float) -> None:
    time, left = Time(), [1, 2]
    patience = Patience(traffic_of(time), "uploading", "gs://b/x")

    def twice() -> None:
        if left:
            left.pop()
            raise AgainError("the service answered 429", asked)

    patience.run(twice)
    assert time.pauses == [first, max(asked, 1.0)]


def test_an_idle_connection_that_was_closed_is_neither_waited_for_nor_a_trouble() -> None:
    time, left = Time(), [1]
    traffic = traffic_of(time)

    def once() -> None:
        if left:
            left.pop()
            raise BrokenError("the connection broke", stale=True)

    Patience(traffic, "uploading", "gs://b/x").run(once)
    assert time.pauses == [0.0]
    assert traffic.counts.troubles == 0


def test_progress_renews_patience() -> None:
    time, left = Time(), list(range(100))
    patience = Patience(traffic_of(time, TransferOptions(patience_s=5.0)), "uploading", "gs://b/x")

    def slowly() -> str:
        if left:
            left.pop()
            patience.progressed()
            raise AgainError("the service answered 503")
        return "done"

    assert patience.run(slowly) == "done"
    assert time.now - 1000 == pytest.approx(50.0)


def test_retry_after_is_a_number_or_a_date_and_anything_else_is_nothing() -> None:
    assert retry_after("7") == 7.0
    assert retry_after(formatdate(2_000_000_000, usegmt=True), lambda: 1_999_999_990.0) == pytest.approx(10.0)
    assert retry_after(formatdate(1_000_000_000, usegmt=True), lambda: 2e9) == 0.0
    assert retry_after("") is None
    assert retry_after("soon") is None


@given(st.text())
def test_no_retry_after_breaks_anything(text: str) -> None:
    found = retry_after(text)
    assert found is None or found >= 0


def test_connections_double_while_that_pays() -> None:
    time = Time()
    traffic, running, grown = traffic_of(time), 8, []
    pace = Pace(traffic)
    # A line with some latency: twice the connections bring twice the requests, up to 32.
    for _ in range(20):
        time.now += 1.01 * WINDOW_S
        traffic.count(answered=10 * min(running, 32))
        if pace.pays(running):
            running *= 2
        grown.append(running)
    assert grown[:5] == [16, 32, 64, 64, 64]
    assert max(grown) <= MOST


def test_connections_that_bring_nothing_are_not_followed_by_more() -> None:
    time = Time()
    traffic = traffic_of(time)
    pace = Pace(traffic)
    time.now += 1.01 * WINDOW_S
    traffic.count(answered=100)
    assert pace.pays(8)
    time.now += 1.01 * WINDOW_S
    traffic.count(answered=int(100 * (WORTH - 0.01)))
    assert not pace.pays(16)
    time.now += 1.01 * WINDOW_S
    traffic.count(answered=1000)
    assert not pace.pays(16)


def test_connections_do_not_grow_any_more_after_trouble() -> None:
    time = Time()
    traffic, left = traffic_of(time), [1]
    pace = Pace(traffic)

    def once() -> None:
        if left:
            left.pop()
            raise AgainError("the service answered 503")

    Patience(traffic, "uploading", "gs://b/x").run(once)
    for answered in (10, 100, 1000):
        time.now += 1.01 * WINDOW_S
        traffic.count(answered=answered, through=answered)
        assert not pace.pays(8)


def test_bytes_that_nobody_answered_for_are_no_reason_to_grow() -> None:
    time = Time()
    traffic = traffic_of(time)
    pace = Pace(traffic)
    for _ in range(5):
        # They may all wait in this machine.
        time.now += 1.01 * WINDOW_S
        traffic.pass_bytes(100 << 20)
        assert not pace.pays(8)
    time.now += 1.01 * WINDOW_S
    traffic.count(answered=1, through=1 << 20)
    assert pace.pays(8)


@pytest.mark.parametrize(("rate", "block"), [
    (None, BLOCK_BYTES), (1e9, BLOCK_BYTES), (1.6e6, 100_000), (160_000.0, 10_000), (1.0, 4096),
])
def test_a_low_limit_has_small_blocks_so_that_every_connection_moves(rate: float | None, block: int) -> None:
    assert Traffic(TransferOptions(rate_bytes=rate)).block_bytes == block


def test_the_journal_keeps_a_session_for_its_owner_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "transfers")
    with journal.entry("file", 1) as entry:
        assert entry is not None
        assert entry.session == ""
        entry.keep("http://127.0.0.1/upload?upload_id=secret")
    (path,) = (tmp_path / "transfers").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with journal.entry("file", 1) as entry, journal.entry("file", 1) as other:
        assert entry is not None
        assert entry.session.endswith("secret")
        assert other is None
        entry.drop()
    assert list((tmp_path / "transfers").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"http://half-a-li", b"\xff\xfe\n", b"\0" * 100])
def test_a_damaged_entry_is_no_session_or_leads_nowhere(tmp_path: Path, content: bytes) -> None:
    journal = Journal(tmp_path)
    with journal.entry("file") as entry:
        assert entry is not None
        entry.keep("x")
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    with journal.entry("file") as entry:
        assert entry is not None
        assert entry.session == "" or "�" in entry.session


def test_what_no_service_remembers_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path, clock=lambda: 4e9)
    with journal.entry("old") as entry:
        assert entry is not None
        entry.keep("x")
    (path,) = tmp_path.iterdir()
    assert 4e9 - path.stat().st_mtime > LIFETIME_S
    journal.prune()
    assert list(tmp_path.iterdir()) == []
