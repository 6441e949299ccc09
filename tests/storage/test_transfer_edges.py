"""What services, bucket owners and this machine's own disk do rarely: right all the same, or a coded error at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gcpod.checksums import file_crc32c
from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.errors import AuthError, GcpodError, OutageError, StorageError
from gcpod.jobs.reporter import Quiet
from gcpod.localcloud.server import LocalCloud
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import DataSpec, Spec, StorageSpec
from gcpod.storage.calls import Piece
from gcpod.storage.channel import BrokenError, Channel, Line
from gcpod.storage.journal import Journal
from gcpod.storage.known import local_files
from gcpod.storage.mirror import Mirrored, mirror
from gcpod.storage.names import PARTS_FOLDER
from gcpod.storage.objects import Objects
from gcpod.storage.plan import ObjectInfo
from gcpod.storage.receive import Download
from gcpod.storage.send import send
from gcpod.storage.traffic import Traffic
from gcpod.storage.transfer import fetch_all, upload_files
from gcpod.storage.trees import plan_tree_download
from gcpod.uris import GcsUri
from tests.data.making import Dataset

from .faulty import Alter, AlterRequest, Fault, Faulty, Operation, Status
from .place import CHUNK, IMPATIENT, LARGE, OPTIONS, SMALL, Place, placed

KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"


def unsummed(content: bytes) -> bytes:
    """Objects as some are listed, or told of, that are encrypted by keys of others: without their checksums."""
    told = json.loads(content)
    for item in told.get("items", [told]):
        item.pop("crc32c", None)
    return json.dumps(told).encode()


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_listing_without_checksums_is_completed_by_asking(place: Place, size: int) -> None:
    path, out = place.source(size), place.folder / "out"
    place.upload(path)
    place.proxy.clear()
    place.proxy.spoil(Fault("list", Alter(unsummed), times=None))
    place.upload(path)
    assert [one.operation for one in place.proxy.log] == ["list", "metadata"]
    plan_tree_download(place.objects, place.root, out).go(OPTIONS, lambda _: None)
    place.check_folder(path)
    assert plan_tree_download(place.objects, place.root, out).unchanged == 1
    whole = path.read_bytes()
    (out / path.name).write_bytes(whole[:-1000])
    downloads = [Download(info, out / path.name) for info in place.objects.list(place.root)]
    assert mirror(place.objects, downloads, out, OPTIONS) == Mirrored(1, 1000)
    place.check_folder(path)
    place.proxy.clear()
    place.check_bucket(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_without_any_checksum_nothing_is_brought(place: Place, size: int) -> None:
    path, out = place.source(size), place.folder / "out"
    place.upload(path)
    place.proxy.spoil(*(Fault(kind, Alter(unsummed), times=None) for kind in ("list", "metadata")))
    with pytest.raises(StorageError, match="no checksum") as caught:
        plan_tree_download(place.objects, place.root, out).go(OPTIONS, lambda _: None)
    assert "\n" not in str(caught.value)
    with pytest.raises(StorageError, match="no checksum"):
        mirror(place.objects, [Download(one, out / path.name) for one in place.objects.list(place.root)], out, OPTIONS)
    place.check_folder()
    # What cannot be compared goes up again.
    place.upload(path)
    assert place.proxy.count("insert" if size == SMALL else "start") == 2


def begun(place: Place) -> Path:
    """A large file whose upload ended in the middle."""
    path = place.source(LARGE)
    place.proxy.spoil(Fault("chunk", Status(503), times=None, skip=2), Fault("status", Status(503), times=None))
    with pytest.raises(OutageError):
        place.upload(path, options=IMPATIENT)
    place.proxy.clear()
    return path


def note_of(place: Place) -> Path:
    (found,) = (place.folder / "cache" / "transfers").iterdir()
    return found


@pytest.mark.parametrize("code", [404, 410, 499, 400, 405])
def test_a_session_that_ended_between_two_processes_begins_anew(place: Place, code: int) -> None:
    path = begun(place)
    place.proxy.spoil(Fault("status", Status(code), times=None))
    try:
        place.upload(path)
    except StorageError:
        # A refusal that means nothing known is told once, and not met again.
        assert code in (400, 405)
        place.upload(path)
    assert (place.proxy.count("status"), place.proxy.count("start")) == (1, 1)
    place.check_bucket(path)


@pytest.mark.parametrize("code", [403, 503])
def test_a_session_lives_on_after_a_refusal_that_is_not_about_it(place: Place, code: int) -> None:
    path = begun(place)
    place.proxy.spoil(Fault("status", Status(code), times=None))
    with pytest.raises((AuthError, OutageError)):
        place.upload(path, options=IMPATIENT)
    place.proxy.clear()
    place.upload(path)
    assert place.proxy.count("start") == 0
    assert place.proxy.body_bytes("chunk").sent == LARGE - 2 * CHUNK
    place.check_bucket(path)


@pytest.mark.parametrize("note", [
    b"%s/half-a-li", b"\xff\xfe\n", b"\0" * 100 + b"\n", b"%s/a b\n", b"%s/a\xff\n", b"%s/a\r\nHost: x\n",
    b"http://127.0.0.1:1/x\n", b"http://[/x\n", b"%s@127.0.0.1:1/x\n",
])
def test_a_damaged_note_of_an_upload_begins_anew(place: Place, note: bytes) -> None:
    path = begun(place)
    note_of(place).write_bytes(note.replace(b"%s", place.objects.session.settings.endpoint.value.encode()))
    place.upload(path)
    assert place.proxy.count("start") == 1
    place.check_bucket(path)


def test_without_a_cache_folder_large_files_go_up_all_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCPOD_CACHE", os.devnull + "/no/folder")
    path = place.source(LARGE)
    place.proxy.spoil(Fault("chunk", Status(503), skip=1))
    place.upload(path)
    assert place.proxy.count("start") == 1
    place.check_bucket(path)


def test_an_existing_files_mode_is_kept(place: Place) -> None:
    paths = place.source(SMALL), place.source(LARGE, "large.bin")
    place.upload(*paths)
    (place.folder / "out").mkdir()
    for path in paths:
        (place.folder / "out" / path.name).write_bytes(b"private")
        (place.folder / "out" / path.name).chmod(0o600)
    place.download()
    place.check_folder(*paths)
    assert {one.stat().st_mode & 0o777 for one in (place.folder / "out").iterdir()} == {0o600}


def test_a_disk_that_takes_only_some_of_a_block_ends_in_a_line(place: Place) -> None:
    path = place.source(SMALL)
    place.upload(path)
    # The shell's blocks have 512 or 1024 bytes; the first write beyond is short, and the next one fails.
    command = f'ulimit -f 60; exec "{sys.executable}" -m gcpod copy "$@"'
    arguments = [str(place.root), str(place.folder / "out"), "--endpoint", place.proxy.url]
    done = subprocess.run(["/bin/sh", "-c", command, "sh", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == StorageError.exit_code
    assert done.stderr.startswith("gcpod: E106: writing ")
    assert os.strerror(27) in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((place.folder / "out").glob(path.name)) == []


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> Callable[[Place, Operation], list[dict[str, object]]]:
    """Collects the JSON that requests of one kind carry; files in parts from `LARGE` bytes on."""
    monkeypatch.setattr("gcpod.storage.transfer.PARTS_FROM_BYTES", LARGE)

    def collect(place: Place, operation: Operation) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []

        def look(content: bytes) -> bytes:
            found.append(json.loads(content))
            return content

        place.proxy.spoil(Fault(operation, AlterRequest(look), times=None))
        return found

    return collect


def test_parts_are_no_archive_and_are_put_together_as_they_were_sent(
    cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    bodies: Callable[[Place, Operation], list[dict[str, object]]],
) -> None:
    monkeypatch.setenv("GCPOD_CACHE", str(tmp_path / "cache"))
    spec = Spec(storage=StorageSpec(user_project="payer", kms_key=KEY, storage_class="ARCHIVE"))
    with placed(cloud, tmp_path, spec) as place:
        path = place.source(LARGE)
        began, composed = bodies(place, "start"), bodies(place, "compose")
        place.upload(path, options=replace(OPTIONS, parts=3))
        log = place.proxy.log
        place.check_bucket(path)
    assert [one["storageClass"] for one in began] == ["STANDARD"] * 3
    (asked,) = composed
    assert asked["destination"] == {
        "name": f"tree/{path.name}", "crc32c": file_crc32c(path), "contentType": "application/octet-stream",
        "storageClass": "ARCHIVE",
    }
    sources = asked["sourceObjects"]
    assert isinstance(sources, list)
    deleted = {one.name: one.query["ifGenerationMatch"] for one in log if one.operation == "delete"}
    assert {one["name"]: one["objectPreconditions"] for one in sources} == \
        {name: {"ifGenerationMatch": generation} for name, generation in deleted.items()}
    assert len(deleted) == 3
    made = [one.query for one in log if one.operation in ("start", "compose")]
    assert [(one["kmsKeyName"], one["ifGenerationMatch"]) for one in made] == [(KEY, "0")] * 4
    assert {one.query["userProject"] for one in log if one.operation not in ("chunk", "status")} == {"payer"}


def test_a_bucket_that_lets_nothing_be_deleted_gets_its_files_and_keeps_the_parts_to_itself(
    place: Place, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gcpod.storage.transfer.PARTS_FROM_BYTES", LARGE)
    path, bucket = place.source(LARGE), GcsUri(place.root.bucket)
    place.proxy.spoil(Fault("delete", Status(403), times=None))
    place.upload(path, options=replace(OPTIONS, parts=2))
    names = [one.uri.name for one in place.objects.list(bucket)]
    assert [name.partition("/")[0] for name in names] == [PARTS_FOLDER, PARTS_FOLDER, "tree"]
    assert [source for source, _ in plan_tree_download(place.objects, bucket, place.folder / "out").moving] == \
        [str(place.root / path.name)]


class Canned:
    """A server that answers each request by the next of some bytes, and closes.

    Args:
        replies: HERE in them stands for its base URL, HOST for host and port; the last one serves all further requests.
    """

    def __init__(self, *replies: bytes) -> None:
        left, self.asked = list(replies), list[str]()
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline()
                if self.raw_requestline and self.parse_request():
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    asked.append(f"{self.command} {self.path}")
                    told = left.pop(0) if len(left) > 1 else left[0]
                    self.wfile.write(told.replace(b"HERE", url.encode()).replace(b"HOST", url[7:].encode()))
                self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.objects = Objects(Session(resolve(Spec(), endpoint=url, environ={}, home=Path())), patience_s=0.1)
        self.channel = Channel(Line(self.objects.session, Traffic(IMPATIENT)))

    @contextmanager
    def serving(self) -> Iterator[Canned]:
        thread = Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.channel.close()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def reply(first: str, content: bytes = b"", **headers: object) -> bytes:
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {first}\r\n{fields}\r\n".encode() + content


def test_a_reply_may_end_with_the_connection() -> None:
    with Canned(reply("200 OK", b'{"items": []}'), b"HTTP/1.0 200 OK\r\n\r\n{}").serving() as server:
        assert server.objects.list(GcsUri("bucket")) == []
        assert server.channel.ask("GET", "/x").resource() == {}
        assert server.channel.ask("GET", "/x").resource() == {}


@pytest.mark.parametrize(("page", "kind"), [
    (b"HTTP/1.0 403 Forbidden\r\n\r\n<html>\nproxy", AuthError),
    (b"HTTP/1.0 503 Oops\r\n\r\n<html>\nproxy", OutageError),
    (reply("403 Forbidden", b"<html>\n", Connection="close"), AuthError),
    (reply("404 Not Found", b"<html>\n", Content_Length=7), StorageError),
])
def test_a_page_of_a_proxy_is_told_in_a_line(page: bytes, kind: type[GcpodError]) -> None:
    with Canned(page).serving() as server, pytest.raises(kind, match=r"answered \d\d\d") as caught:
        server.objects.list(GcsUri("bucket"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "404 Not Found", "412 Precondition Failed"])
@pytest.mark.parametrize("came", [0, 1])
def test_half_a_reply_is_none_whatever_its_status(status: str, came: int) -> None:
    with Canned(reply(status, b"{}"[:came], Content_Length=2)).serving() as server, \
            pytest.raises(BrokenError, match="ended early"):
        server.channel.ask("GET", "/x")


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_created_is_as_good_as_ok(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    crc32c = file_crc32c(path)
    made = json.dumps({"generation": "7", "size": str(size), "crc32c": crc32c}).encode()
    created = reply("201 Created", made, Content_Length=len(made))
    began = reply("201 Created", Content_Length=0, Location="HERE/s?upload_id=1")
    kept = reply("308 Resume Incomplete", Content_Length=0, Range=f"bytes=0-{size - 2}")
    with Canned(*([began, kept] if size == LARGE else []), created).serving() as server:
        assert send(Piece(path, 0, size, crc32c, GcsUri("bucket", "x")), server.channel, Journal(tmp_path / "j")) == 7
    assert list((tmp_path / "j").glob("*")) == []


@pytest.mark.parametrize("address", [
    "https://storage.googleapis.com/x", "http://127.0.0.1:1/x", "HERE.example/x", "http://user@HOST/x", "/x",
    "https://HOST/x", "http://[/x",
])
def test_an_upload_is_led_nowhere_else(tmp_path: Path, address: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(LARGE))
    piece = Piece(path, 0, LARGE, file_crc32c(path), GcsUri("bucket", "x"))
    with Canned(reply("200 OK", Content_Length=0, Location=address)).serving() as server, \
            pytest.raises(StorageError, match=r"it is not http://127\.0\.0\.1:"):
        send(piece, server.channel, Journal(tmp_path / "j"))
    assert len(server.asked) == 1


@pytest.mark.parametrize(("first", "told"), [
    ("206 Partial Content", "bytes 1-2/3"), ("206 Partial Content", ""), ("200 OK", "bytes 0-2/3"),
])
def test_another_range_than_was_asked_for_is_not_taken_for_it(tmp_path: Path, first: str, told: str) -> None:
    # The one byte is asked for from byte 0, or 1, on; the whole is what it would be with it.
    info = ObjectInfo(GcsUri("bucket", "x"), 2 * CHUNK, 7, "AAAAAA==")
    range_told = {"Content_Range": told} if told else {}
    server = Canned(reply(first, bytes(2 * CHUNK), Content_Length=2 * CHUNK, **range_told))
    with server.serving(), pytest.raises(OutageError, match="another range than was asked for"):
        fetch_all(server.objects, [Download(info, tmp_path / "x")], tmp_path, options=replace(IMPATIENT, workers=1))
    assert not (tmp_path / "x").exists()


@pytest.mark.long
@pytest.mark.parametrize("up", [True, False])
def test_a_limit_holds_and_every_block_is_seen_moving(place: Place, up: bool) -> None:
    path, seen = place.source(200_000), list[int]()
    slow = replace(OPTIONS, rate_bytes=200_000.0)
    if up:
        file = local_files([(path, place.root / path.name)])
        upload_files(place.objects, file, place.root, lambda now: seen.append(now.bytes), slow)
    else:
        place.upload(path)
        downloads = [Download(one, place.folder / "out" / path.name) for one in place.objects.list(place.root)]
        fetch_all(place.objects, downloads, place.folder / "out", lambda now: seen.append(now.bytes), slow)
        place.check_folder(path)
    # Ten looks a second; blocks of a sixteenth of a second each. All at once would be one look.
    assert len(set(seen)) >= 5
    assert seen == sorted(seen)
    assert seen[-1] == 200_000
    place.check_bucket(path)


@pytest.mark.long
def test_a_runs_manifest_is_written_last_and_replaces_what_was_there(cloud: LocalCloud, tmp_path: Path) -> None:
    data = Dataset(tmp_path)
    for number in range(4):
        data.add(f"picture{number}.jpg", Box("cat" if number % 2 else "dog", 10, 10, 60, 40))
    spec = replace(demo_spec(steps=100), folder=tmp_path, data=DataSpec(images="images"))
    with Faulty(cloud.url) as proxy:
        session = Session(resolve(spec, endpoint=proxy.url, environ={}, home=tmp_path))
        manifest = Run(spec, session, Quiet()).upload().layout.manifest
        writes = [one for one in proxy.log if one.operation in ("insert", "start", "chunk", "compose")]
        assert len(writes) > 5
        assert [one.name for one in writes].index(manifest.name) == len(writes) - 1
        assert all(one.status == 200 for one in writes)
        assert {one.query["ifGenerationMatch"] for one in writes} == {"0"}
        (first,) = Objects(session).list_exactly(manifest)
        proxy.clear()
        Run(spec, session, Quiet()).upload()
        (again,) = [one for one in proxy.log if one.operation == "insert"]
        assert (again.name, again.query["ifGenerationMatch"]) == (manifest.name, str(first.generation))
        session.storage.close()
