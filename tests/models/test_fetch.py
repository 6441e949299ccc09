"""Fetching a model: transfers that drop, stall, lie and change; hostile archives; processes killed on the way."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcpod.errors import ConfigError, GcpodError, PackageError
from gcpod.models.archive import Limits, find_checkpoint, unpack
from gcpod.models.download import Patience, check_address
from gcpod.models.fetch import FetchedModel, fetch_model, mirrored
from gcpod.models.zoo import find_model
from tests.models import (
    OBJECT_GRAPH,
    TF1_FILES,
    TF1_NAME,
    TF2_FILES,
    TF2_NAME,
    WEIGHTS,
    Fault,
    FileServer,
    archive,
    member,
    packed,
)
from tests.waiting import until

TF2 = archive(TF2_FILES, TF2_NAME)
QUICK = Patience(connect_s=30, stall_s=30, attempts=3, pause_s=1)
"""Gives up soon, but never on a machine that is merely busy."""
BLOCK = 16 << 10

PROGRAM = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
import requests
from gcpod.models.download import Patience
from gcpod.models.fetch import fetch_model
from gcpod.models.zoo import find_model

url, cache, phase = sys.argv[1:]
model = replace(find_model("ssd_mobilenet_v2_320x320_coco17_tpu-8"), url=url)

def progress(now, done, total):
    if now == phase:
        os.kill(os.getpid(), signal.SIGKILL)

fetch_model(model, Path(cache), requests.Session(), progress=progress, patience=Patience(pause_s=0))
"""


@dataclass
class Client:
    """Fetches from one server into one cache; ``pauses`` and ``said`` are what it slept and told."""

    server: FileServer
    cache: Path
    session: requests.Session
    pauses: list[float]
    said: list[str]

    def fetch(self, name: str = TF2_NAME, patience: Patience = QUICK, **more: Any) -> FetchedModel:
        return fetch_model(self.server.model(name), self.cache, self.session, patience=patience, say=self.said.append,
                           sleep=self.pauses.append, **more)

    def refused(self, code: str, **more: Any) -> GcpodError:
        with pytest.raises((PackageError, ConfigError)) as caught:
            self.fetch(**more)
        assert caught.value.code == code
        assert "\n" not in str(caught.value)
        return caught.value

    def folder(self, name: str = TF2_NAME) -> Path:
        return self.cache / "models" / name

    def left(self) -> set[str]:
        return {path.name for path in self.folder().iterdir()}

    @property
    def ranges(self) -> list[str | None]:
        return [asked.range for asked in self.server.asked]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with FileServer(TF2) as server, requests.Session() as session:
        yield Client(server, tmp_path / "cache", session, [], [])


def outcome(call: Callable[[], object]) -> str:
    """The code of the error that a call ends in."""
    try:
        call()
    except PackageError as e:
        return e.code
    return "whole"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_tf2_model_is_fetched_once_and_asked_for_never_again(client: Client) -> None:
    seen: list[tuple[str, int, int | None]] = []
    first = client.fetch(progress=lambda *now: seen.append(now))
    assert first.prefix == client.folder() / "files" / TF2_NAME / "checkpoint" / "ckpt-0"
    assert [path.name for path in first.files] == ["ckpt-0.index", "ckpt-0.data-00000-of-00001"]
    assert first.fine_tune_checkpoint_version == "V2"
    assert first.pipeline_config == client.folder() / "files" / TF2_NAME / "pipeline.config"
    assert first.sha256 == hashlib.sha256(TF2).hexdigest()
    assert contents(client.folder() / "files" / TF2_NAME) == TF2_FILES
    assert client.left() == {"files", "record.json"}
    assert ("fetch", len(TF2), len(TF2)) in seen
    assert seen[-1] == ("unpack", len(TF2), len(TF2))
    before = {path: path.stat().st_mtime_ns for path in client.cache.rglob("*")}
    assert client.fetch() == first
    assert len(client.server.asked) == 1
    assert {path: path.stat().st_mtime_ns for path in client.cache.rglob("*")} == before


@pytest.mark.parametrize("top", [TF1_NAME, "."])
def test_a_tf1_model_has_a_name_based_checkpoint(client: Client, top: str) -> None:
    client.server.content = archive(TF1_FILES, top)
    found = client.fetch(TF1_NAME)
    assert found.prefix == client.folder(TF1_NAME) / "files" / top / "model.ckpt"
    assert {path.name for path in found.files} == {"model.ckpt.index", "model.ckpt.data-00000-of-00001"}
    assert found.fine_tune_checkpoint_version == "V1"


def test_a_model_without_a_config_says_so(client: Client) -> None:
    client.server.content = archive({k: v for k, v in TF2_FILES.items() if k != "pipeline.config"})
    assert client.fetch().pipeline_config is None


def test_a_dropped_connection_goes_on_where_it_stopped(client: Client) -> None:
    client.server.faults = [Fault(after=5 * BLOCK), Fault(after=3 * BLOCK)]
    assert contents(client.fetch().prefix.parents[1]) == TF2_FILES
    assert client.ranges == [None, f"bytes={5 * BLOCK}-", f"bytes={8 * BLOCK}-"]
    assert [asked.if_range for asked in client.server.asked] == [None, '"1"', '"1"']
    assert sum(asked.sent for asked in client.server.asked) == len(TF2)
    assert client.pauses == [1, 1]
    assert all("trying again" in text for text in client.said)


def test_a_stalled_connection_is_given_up_and_continued(client: Client) -> None:
    client.server.faults = [Fault(after=2 * BLOCK, hang=True)]
    assert client.fetch(patience=replace(QUICK, stall_s=0.5)).sha256 == hashlib.sha256(TF2).hexdigest()
    assert client.ranges == [None, f"bytes={2 * BLOCK}-"]
    assert "nothing came for 0.5 s" in client.said[0]


@pytest.mark.parametrize("faults", [
    [Fault(503), Fault(503, {"Retry-After": "7"})],
    [Fault(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), Fault(500, {"Retry-After": "soon"})],
])
def test_a_busy_server_is_waited_for(client: Client, faults: list[Fault]) -> None:
    client.server.faults = list(faults)
    client.fetch()
    assert client.pauses == ([1, 7] if faults[0].status == 503 else [0, 2])


def test_a_server_that_stays_away_is_given_up(client: Client) -> None:
    client.server.faults = [Fault(503, {"Retry-After": "9999"})] * 10
    assert "answered 503, after 3 attempts" in str(client.refused("M601"))
    assert client.pauses == [30, 30]


def test_nobody_listens(client: Client) -> None:
    model = replace(client.server.model(), url="http://127.0.0.1:1/x.tar.gz")
    with pytest.raises(PackageError, match="M601") as caught:
        fetch_model(model, client.cache, client.session, patience=QUICK, sleep=client.pauses.append)
    assert "no answer (ConnectionError), after 3 attempts" in caught.value.found
    assert client.pauses == [1, 2]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 204, 206, 304])
def test_a_refusal_is_final(client: Client, status: int) -> None:
    client.server.faults = [Fault(status)]
    assert f"answered {status}" in str(client.refused("M601"))
    assert len(client.server.asked) == 1


def test_a_server_without_ranges_starts_over_and_is_given_up_when_it_never_gets_further(client: Client) -> None:
    client.server.ranges = False
    client.server.faults = [Fault(after=5 * BLOCK), Fault(after=2 * BLOCK)]
    assert contents(client.fetch().prefix.parents[1]) == TF2_FILES
    assert [asked.sent for asked in client.server.asked] == [5 * BLOCK, 2 * BLOCK, len(TF2)]


def test_a_server_that_always_breaks_at_the_same_byte_is_given_up(client: Client) -> None:
    client.server.ranges = False
    client.server.faults = [Fault(after=5 * BLOCK)] * 50
    assert "the connection broke (ProtocolError), after 4 attempts" in str(client.refused("M601"))
    assert len(client.server.asked) == 4


@pytest.mark.parametrize("obeys", [True, False])
def test_a_file_that_changed_meanwhile_is_never_mixed_with_the_old(client: Client, obeys: bool) -> None:
    client.server.faults = [Fault(after=5 * BLOCK), Fault(404)]
    client.refused("M601")
    client.server.etag, client.server.obeys_if_range = '"2"', obeys
    client.server.content = archive(TF2_FILES | {"new": b"new"}, TF2_NAME)
    assert contents(client.fetch().prefix.parents[1]) == TF2_FILES | {"new": b"new"}
    assert client.server.asked[-1].range == (f"bytes={5 * BLOCK}-" if obeys else None)


def test_without_a_strong_etag_nothing_is_continued(client: Client) -> None:
    client.server.etag = 'W/"1"'
    client.server.faults = [Fault(after=5 * BLOCK)]
    client.fetch()
    assert client.ranges == [None, None]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(client: Client) -> None:
    client.server.faults = [Fault(after=5 * BLOCK), Fault(404)]
    client.refused("M601")
    (client.folder() / "archive.part").write_bytes(b"x" * (len(TF2) + 1))
    client.fetch()
    assert client.ranges == [None, f"bytes={5 * BLOCK}-", None]


def test_a_server_with_less_than_was_fetched_starts_over(client: Client) -> None:
    client.server.faults = [Fault(after=5 * BLOCK), Fault(416)]
    client.fetch()
    assert client.ranges == [None, f"bytes={5 * BLOCK}-", None]


def test_a_truncated_file_of_unknown_length_is_found_by_its_own_checksum(client: Client) -> None:
    client.server.faults = [Fault(after=len(TF2) - 20, bare=True)]
    client.refused("M603")
    assert client.left() == set()
    client.server.faults = [Fault(bare=True)]
    assert client.fetch().sha256 == hashlib.sha256(TF2).hexdigest()


def test_another_digest_later_is_refused(client: Client) -> None:
    first = client.fetch()
    first.files[0].unlink()
    client.server.content = archive(TF2_FILES | {"checkpoint/extra": b"!"}, TF2_NAME)
    other = hashlib.sha256(client.server.content).hexdigest()
    error = client.refused("M602")
    assert other in error.found
    assert first.sha256 in error.found
    assert client.left() == {"files", "record.json"}
    client.server.content = TF2
    assert client.fetch() == first


def test_a_damaged_record_is_an_error_and_never_a_first_use(client: Client) -> None:
    client.fetch()
    record = client.folder() / "record.json"
    for text in ("", "{}", "[]", '{"files": 1}', "[" * 100_000, "\udcff"):
        record.write_bytes(text.encode("utf-8", "surrogateescape"))
        client.refused("M602")
    assert len(client.server.asked) == 1


def test_files_that_were_changed_in_the_cache_are_fetched_again(client: Client) -> None:
    first = client.fetch()
    first.files[1].write_bytes(WEIGHTS[:-1])
    assert client.fetch().files[1].read_bytes() == WEIGHTS
    assert len(client.server.asked) == 2


@pytest.mark.parametrize("missing", ["checkpoint/ckpt-0.data-00000-of-00001", "checkpoint/ckpt-0.index"])
def test_a_checkpoint_without_all_its_data_is_c201(client: Client, missing: str) -> None:
    client.server.content = archive({k: v for k, v in TF2_FILES.items() if k != missing})
    client.refused("C201")
    assert client.left() == set()


@pytest.mark.parametrize(("shards", "said"), [
    (["00000-of-00002"], "lacks ckpt-0.data-00001-of-00002"),
    (["00000-of-00001", "00001-of-00002"], "lacks ckpt-0.data-00000-of-00002"),
    (["00000-of-00000"], "one set"),
    (["00002-of-00001", "00000-of-00001"], ""),
])
def test_which_shard_is_missing_is_said(tmp_path: Path, shards: list[str], said: str) -> None:
    (tmp_path / "ckpt-0.index").write_bytes(OBJECT_GRAPH)
    for shard in shards:
        (tmp_path / f"ckpt-0.data-{shard}").write_bytes(b"")
    if said:
        with pytest.raises(ConfigError, match=said):
            find_checkpoint(tmp_path, "it")
    else:
        assert find_checkpoint(tmp_path, "it").prefix == tmp_path / "ckpt-0"


def test_all_shards_belong_to_the_checkpoint(tmp_path: Path) -> None:
    for name in ("index", "data-00000-of-00002", "data-00001-of-00002"):
        (tmp_path / f"model.ckpt.{name}").write_bytes(b"")
        (tmp_path / f"model.ckpt-7.{name}").write_bytes(b"")
    assert len(find_checkpoint(tmp_path, "it").files) == 3
    (tmp_path / "model.ckpt.index").unlink()
    assert find_checkpoint(tmp_path, "it").prefix.name == "model.ckpt-7"
    (tmp_path / "other.index").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"it holds model\.ckpt-7\.index, other\.index"):
        find_checkpoint(tmp_path, "it")


GOOD = member("checkpoint/ckpt-0.index", OBJECT_GRAPH)


@pytest.mark.parametrize("bad", [
    member("../out", b"x"),
    member("a/../../out", b"x"),
    member("/tmp/out", b"x"),
    member("a/..", type=tarfile.DIRTYPE),
    member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    member("link", type=tarfile.LNKTYPE, linkname="checkpoint/ckpt-0.index"),
    member("pipe", type=tarfile.FIFOTYPE),
    member("device", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    member("disk", type=tarfile.BLKTYPE),
    member("checkpoint/ckpt-0.index", b"again"),
    member("checkpoint/ckpt-0.index/below", b"x"),
    member("checkpoint", b"a file where a folder is"),
    member("new\nline", b"x"),
    member("x" * 256, b"x"),
    member("/".join(["x" * 200] * 25), b"x"),
    member("\udcff", b"x"),
    member(".", b"x"),
    member("", b"x"),
], ids=lambda bad: ascii(bad[0].name[:30]) + str(bad[0].type))
def test_a_hostile_member_is_refused(client: Client, tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes]) -> None:
    client.server.content = packed([GOOD, bad])
    client.refused("M603")
    assert client.left() == set()
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}


def test_archives_that_are_too_large_are_refused(client: Client) -> None:
    bomb = [member(f"zeros/{number}", bytes(3 << 20)) for number in range(2)]
    client.server.content = packed(bomb)
    assert len(client.server.content) < 100_000
    for limits in (Limits(unpacked_bytes=1 << 20), Limits(unpacked_bytes=4 << 20), Limits(members=1)):
        assert "more than" in client.refused("M603", limits=limits).found
    for fault in (Fault(), Fault(bare=True)):
        client.server.faults = [fault]
        client.refused("M601", limits=Limits(archive_bytes=len(client.server.content) - 1))
        assert client.left() == set()


def test_a_header_is_not_read_into_memory_because_it_says_so(tmp_path: Path) -> None:
    long = tarfile.TarInfo("././@PaxHeader")
    long.type, long.size = tarfile.XHDTYPE, 64 << 20
    path = tmp_path / "x.tar.gz"
    path.write_bytes(packed([(long, bytes(64 << 20))]))
    with pytest.raises(PackageError, match="a header claims 67108864 bytes"):
        unpack(path, tmp_path / "out", Limits(), lambda *_: None, "it")


def test_headers_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(packed([member("././@LongLink", b"x", type=tarfile.GNUTYPE_LONGNAME)] * 2000))
    with pytest.raises(PackageError, match="M603"):
        unpack(path, tmp_path / "out", Limits(), lambda *_: None, "it")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 4000), st.binary(min_size=1, max_size=40), st.booleans())
def test_a_damaged_archive_is_an_error_of_one_line_and_stays_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory, at: int, patch: bytes, outside: bool,
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = archive({**TF2_FILES, "checkpoint/ckpt-0.data-00000-of-00001": WEIGHTS[:2000]})
    plain = gzip.decompress(whole)
    inner = gzip.compress(plain[:at] + patch + plain[at:], 1)
    damaged = whole[:at] + patch + whole[at + len(patch):] if outside else inner
    path = folder / "x.tar.gz"
    path.write_bytes(damaged)
    assert outcome(lambda: unpack(path, folder / "out", Limits(), lambda *_: None, "it")) in ("whole", "M603")
    assert {one.name for one in folder.iterdir()} <= {"x.tar.gz", "out"}
    assert all(one.is_dir() or one.is_file() for one in (folder / "out").rglob("*"))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.one_of(
    st.builds(Fault, after=st.integers(0, len(TF2))), st.builds(Fault, status=st.sampled_from([503, 416])),
), max_size=4), st.booleans(), st.booleans())
def test_whatever_breaks_the_file_is_whole(
    tmp_path_factory: pytest.TempPathFactory, faults: list[Fault], ranges: bool, strong: bool,
) -> None:
    with FileServer(TF2, '"1"' if strong else "") as server, requests.Session() as session:
        server.faults, server.ranges = list(faults), ranges
        cache = tmp_path_factory.mktemp("cache")
        found = fetch_model(server.model(), cache, session, patience=replace(QUICK, attempts=9), sleep=lambda _: None)
        assert found.sha256 == hashlib.sha256(TF2).hexdigest()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(
    st.binary(max_size=60),
    st.fixed_dictionaries({"url": st.just("URL"), "etag": st.sampled_from(['"1"', "", 'W/"1"', '"2"']),
                           "size": st.sampled_from([None, len(TF2), 100, 0, -1, 1.5, "1", [], 10**30]),
                           "whole": st.sampled_from([True, False, 1, None])}),
), st.integers(0, 300))
def test_whatever_the_state_says_the_file_is_whole(
    tmp_path_factory: pytest.TempPathFactory, state: Any, there: int,
) -> None:
    with FileServer(TF2) as server, requests.Session() as session:
        cache, model = tmp_path_factory.mktemp("cache"), server.model()
        folder = cache / "models" / model.name
        folder.mkdir(parents=True)
        (folder / "archive.part").write_bytes(TF2[:there])
        text = state if isinstance(state, bytes) else json.dumps({**state, "url": model.url}).encode()
        (folder / "archive.part.json").write_bytes(text)
        if outcome(lambda: fetch_model(model, cache, session, patience=QUICK)) == "M603":
            # Only where it says that this is all of it: then that is no archive.
            assert state["whole"] is True or state["size"] == there
        found = fetch_model(model, cache, session, patience=QUICK)
        assert found.sha256 == hashlib.sha256(TF2).hexdigest()


@pytest.mark.parametrize("url", [
    "http://example.com/x.tar.gz", "http://127.0.0.1.example.com/x", "ftp://127.0.0.1/x", "file:///etc/passwd",
    "https://user:secret@example.com/x", "https:///x", "", "x", "https://[", "https://a:b/", "http://127.0.0.2/x",
])
def test_addresses_that_are_not_allowed(url: str) -> None:
    with pytest.raises(PackageError, match="M604") as caught:
        check_address(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", [
    "https://example.com/x", "http://127.0.0.1:8/x", "http://localhost/x", "http://[::1]:8/x",
])
def test_addresses_that_are_allowed(url: str) -> None:
    check_address(url)


def test_a_redirect_must_not_leave_https() -> None:
    check_address("https://b/x", within="https://a/x")
    for target in ("http://127.0.0.1/x", "http://b/x", "file:///x"):
        with pytest.raises(PackageError, match="M604"):
            check_address(target, within="https://a/x")


def test_redirects_are_followed_so_far_and_no_further(client: Client) -> None:
    client.server.faults = [Fault(302, {"Location": "/elsewhere.tar.gz"}), Fault(after=5 * BLOCK)]
    client.fetch()
    assert [asked.path for asked in client.server.asked][:2] == [f"/{TF2_NAME}.tar.gz", "/elsewhere.tar.gz"]
    assert client.server.asked[-1].range == f"bytes={5 * BLOCK}-"
    client.server.faults = [Fault(302, {"Location": "http://example.com/x.tar.gz"})]
    client.refused("M604", name=TF1_NAME)
    client.server.faults = [Fault(307, {"Location": "/again"})] * 20
    assert "redirects more than 5 times" in str(client.refused("M601", name=TF1_NAME))


def test_a_mirror_serves_the_same_file_name(client: Client) -> None:
    model = find_model(TF2_NAME)
    assert mirrored(model, "https://m/z/") == mirrored(model, "https://m/z") == f"https://m/z/{TF2_NAME}.tar.gz"
    found = fetch_model(model, client.cache, client.session, base=f"{client.server.url}/zoo", patience=QUICK)
    assert found.sha256 == hashlib.sha256(TF2).hexdigest()
    assert [asked.path for asked in client.server.asked] == [f"/zoo/{TF2_NAME}.tar.gz"]


def test_proxies_are_not_asked_for_this_machine(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert client.fetch().sha256 == hashlib.sha256(TF2).hexdigest()


def _started(client: Client, phase: str) -> subprocess.Popen[bytes]:
    url = client.server.model().url
    return subprocess.Popen([sys.executable, "-c", PROGRAM, url, str(client.cache), phase])


def test_a_killed_download_goes_on_with_the_rest(client: Client) -> None:
    client.server.faults = [Fault(after=7 * BLOCK, hang=True)]
    part = client.folder() / "archive.part"
    with _started(client, "never") as process:
        until(lambda: part.exists() and part.stat().st_size == 7 * BLOCK)
        os.kill(process.pid, signal.SIGKILL)
    assert client.fetch().sha256 == hashlib.sha256(TF2).hexdigest()
    assert client.ranges == [None, f"bytes={7 * BLOCK}-"]
    assert client.server.asked[1].sent == len(TF2) - 7 * BLOCK


def test_a_killed_extraction_is_not_taken_for_whole_and_needs_no_network(client: Client) -> None:
    with _started(client, "unpack") as process:
        assert process.wait() == -signal.SIGKILL
    assert client.left() == {"archive.part", "archive.part.json", "files.part"}
    assert contents(client.fetch().prefix.parents[1]) == TF2_FILES
    assert len(client.server.asked) == 1
    assert client.left() == {"files", "record.json"}


def test_two_at_once_fetch_once(client: Client) -> None:
    client.server.faults = [Fault(after=2 * BLOCK, hang=True)]
    with _started(client, "never") as first:
        until(lambda: client.server.asked)
        with _started(client, "never") as second:
            client.server.released.set()
            assert (first.wait(), second.wait()) == (0, 0)
    assert client.ranges == [None, f"bytes={2 * BLOCK}-"]


WRITER = """
import sys
import tensorflow as tf
folder = sys.argv[1]
checkpoint = tf.train.Checkpoint(model=tf.Module(), Weights=tf.Variable([1.0]), _A=tf.Variable([2.0]))
checkpoint.write(folder + "/checkpoint/ckpt-0")
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    tf.compat.v1.get_variable("FeatureExtractor/Conv2d_0/weights", [3], use_resource=False)
    session.run(tf.compat.v1.global_variables_initializer())
    tf.compat.v1.train.Saver().save(session, folder + "/tf1/model.ckpt")
"""


@pytest.mark.trainer
def test_tensorflows_own_checkpoints_are_told_apart(client: Client, runtime_python: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    subprocess.run([runtime_python, "-c", WRITER, made], check=True, capture_output=True, timeout=120)
    written = contents(made)
    for name, version, prefix in ((TF1_NAME, "V1", "tf1/model.ckpt"), (TF2_NAME, "V2", "checkpoint/ckpt-0")):
        client.server.content = archive({k: v for k, v in written.items() if k.startswith(prefix)}, name)
        found = client.fetch(name)
        assert found.fine_tune_checkpoint_version == version
        assert found.prefix == client.folder(name) / "files" / name / prefix
