"""Uploads and conditional writes under faults: a server that drops replies after it did what was asked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcpod.errors import OutageError, StorageError
from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.known import local_files
from gcpod.storage.objects import Objects
from gcpod.storage.plan import ObjectInfo, plan_upload
from gcpod.storage.transfer import Progress, upload_files
from gcpod.uris import GcsUri

ROOT = GcsUri("bench", "runs/r")


class Faults:
    """Spoils the replies of uploads: ``statuses`` are sent in place of the next ones, after the request was served."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.uploads = 0

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            upload = scope["method"] == "POST" and scope["path"].startswith("/upload/")
            self.uploads += upload
            if not (upload and self.statuses):
                await app(scope, receive, send)
                return
            status = self.statuses.pop(0)

            async def spoilt(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send({**message, "status": status, "headers": [(b"content-length", b"0")]})
                else:
                    await send({**message, "body": b""})

            await app(scope, receive, spoilt)

        return served


@pytest.fixture(scope="module")
def faults() -> Faults:
    return Faults()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, faults: Faults) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), middleware=faults) as running:
        yield running


@pytest.fixture(scope="module")
def objects(cloud: LocalCloud) -> Iterator[Objects]:
    session = Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=Path()))
    made = Objects(session)
    made.ensure_bucket("bench")
    yield made
    session.storage.close()


def test_a_bucket_is_made_once(objects: Objects) -> None:
    assert objects.ensure_bucket("a-new-bucket")
    assert objects.session.storage.get_bucket("a-new-bucket").location == "LOCAL"
    assert not objects.ensure_bucket("a-new-bucket")


def test_conditional_writes(objects: Objects) -> None:
    where = ROOT / "claim"
    first = objects.write_if(where, b"one", 0)
    assert first is not None
    assert objects.write_if(where, b"two", 0) is None
    second = objects.write_if(where, b"two", first)
    assert second is not None
    assert second > first
    assert objects.write_if(where, b"three", first) is None
    found = objects.read(where)
    assert found is not None
    assert (found.content, found.generation) == (b"two", second)
    assert objects.read(ROOT / "nothing") is None


def test_a_conditional_write_whose_reply_is_lost_has_happened_once(objects: Objects, faults: Faults) -> None:
    where, before = ROOT / "lost", faults.uploads
    faults.statuses = [503]
    generation = objects.write_if(where, b"mine", 0)
    found = objects.read(where)
    assert found is not None
    assert generation == found.generation
    assert faults.uploads == before + 2


def test_a_lost_reply_does_not_make_another_writers_object_ours(objects: Objects, faults: Faults) -> None:
    where = ROOT / "theirs"
    objects.write(where, b"theirs")
    faults.statuses = [503]
    assert objects.write_if(where, b"mine", 0) is None


def test_an_unchanged_tree_is_not_sent_again(objects: Objects, tmp_path: Path) -> None:
    files = []
    for number in range(20):
        path = tmp_path / f"file {number}#?.bin"
        path.write_bytes(bytes([number]) * 1000)
        files += local_files([(path, ROOT / "tree" / path.name)])
    told: list[Progress] = []
    first = upload_files(objects, files, ROOT / "tree", told.append)
    assert (len(first.uploads), first.bytes) == (20, 20_000)
    assert told[-1] == Progress(20, 20, 20_000, 20_000)
    files[3].path.write_bytes(b"other")
    files[3:4] = local_files([(files[3].path, files[3].uri)])
    second = upload_files(objects, files, ROOT / "tree")
    assert [upload.file for upload in second.uploads] == [files[3]]
    assert len(second.unchanged) == 19
    there = {info.uri: info.crc32c for info in objects.list(ROOT / "tree")}
    assert there == {file.uri: file.crc32c for file in files}


def test_an_upload_whose_reply_is_lost_is_there_once(objects: Objects, faults: Faults, tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(b"x" * 100_000)
    faults.statuses = [503, 500]
    upload_files(objects, local_files([(path, ROOT / "lossy" / "big.bin")]), ROOT / "lossy")
    (info,) = objects.list(ROOT / "lossy")
    assert info.crc32c == base64.b64encode(google_crc32c.Checksum(b"x" * 100_000).digest()).decode()


def test_bytes_that_do_not_match_their_checksum_are_refused_and_not_stored(objects: Objects, tmp_path: Path) -> None:
    path = tmp_path / "changing.bin"
    path.write_bytes(b"before")
    (file,) = local_files([(path, ROOT / "changed" / "changing.bin")])
    path.write_bytes(b"after!")
    with pytest.raises(StorageError, match=r"changing\.bin: it changed while it was sent"):
        upload_files(objects, [file], ROOT / "changed")
    assert objects.list(ROOT / "changed") == []


def test_the_plan_compares_size_and_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    (file,) = local_files([(path, ROOT / "a")])
    same = ObjectInfo(file.uri, 3, 5, file.crc32c)
    assert plan_upload([file], [same]).uploads == ()
    assert plan_upload([file], [replace(same, crc32c="AAAAAA==")]).uploads[0].generation == 5
    assert plan_upload([file], []).uploads[0].generation == 0


def test_empty_directory_objects_are_not_listed(objects: Objects) -> None:
    objects.write(ROOT / "folder" / "train/", b"")
    objects.write(ROOT / "folder" / "train/a", b"1")
    assert [info.uri.name for info in objects.list(ROOT / "folder")] == ["runs/r/folder/train/a"]


def test_a_missing_bucket_is_said_in_one_line(objects: Objects) -> None:
    with pytest.raises(StorageError, match="listing gs://nobody-has-this/x: the service answered 404") as caught:
        objects.list(GcsUri("nobody-has-this", "x"))
    assert "\n" not in str(caught.value)


def test_a_server_that_is_gone_is_said_in_one_line(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "gone") as cloud:
        session = Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=Path()))
    with pytest.raises(OutageError, match="no answer") as caught:
        Objects(session, patience_s=0.1).list(ROOT)
    assert "\n" not in str(caught.value)
    session.storage.close()
