"""Datasets built into a bucket, or uploaded while they are built: whole, resumable, and honest under faults."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.data.manifest import LABEL_MAP_NAME, MANIFEST_NAME, DatasetManifest
from gcpod.data.model import Box
from gcpod.data.plan import Compression
from gcpod.errors import AuthError, DataError, GcpodError, OutageError, StorageError
from gcpod.localcloud.server import LocalCloud
from gcpod.storage import objects as objects_module
from gcpod.storage.datasets import build_and_upload, build_to_bucket
from gcpod.storage.objects import CHUNK_BYTES, Objects
from gcpod.uris import GcsUri
from tests.data.making import Dataset, picture
from tests.jobs import Fault, Faults, session_of
from tests.waiting import until

QUANTUM = 256 << 10
Progress = Callable[[str, int, int], None]
Build = Callable[..., DatasetManifest]


class Quick(Objects):
    """Tries again at once, where the service would be given a second."""

    @cached_property
    def retry(self) -> Any:
        return super().retry.with_delay(initial=0.01, maximum=0.02)


@dataclass
class Line:
    """Middleware around resumable uploads: notes which ranges came, cuts bodies short, belittles what was stored."""

    ranges: list[str] = field(default_factory=list)
    cut: int | None = None
    belittle: bool = False

    @property
    def received(self) -> int:
        """Bytes of the upload that came last."""
        return int(self.ranges[-1].removeprefix("bytes ").partition("/")[0].partition("-")[2]) + 1 if self.ranges else 0

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] != "PUT":
                await app(scope, receive, send)
                return
            self.ranges.append(dict(scope["headers"])[b"content-range"].decode())
            left, self.cut = self.cut, None

            async def cut_short() -> Message:
                nonlocal left
                if left == 0:
                    return {"type": "http.disconnect"}
                message = await receive()
                if left is not None:
                    message = {**message, "body": message.get("body", b"")[:left], "more_body": True}
                    left -= len(message["body"])
                return message

            async def belittled(message: Message) -> None:
                if self.belittle and message["type"] == "http.response.start":
                    headers = [(name, value) for name, value in message["headers"] if bytes(name).lower() != b"range"]
                    message = {**message, "headers": [*headers, (b"range", b"bytes=0-99999")]}
                await send(message)

            cut = left is not None
            await app(scope, cut_short if cut else receive, _nowhere if cut else belittled)
            if cut:
                await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})

        return served


async def _nowhere(_: Message) -> None:
    return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCloud, Faults, Line]]:
    faults, line = Faults(), Line()
    with LocalCloud(tmp_path_factory.mktemp("cloud"), middleware=lambda app: faults.wrap(line.wrap(app))) as cloud:
        yield cloud, faults, line


@pytest.fixture
def cloud(place: tuple[LocalCloud, Faults, Line]) -> LocalCloud:
    return place[0]


@pytest.fixture
def faults(place: tuple[LocalCloud, Faults, Line]) -> Iterator[Faults]:
    faults = place[1]
    faults.seen.clear()
    yield faults
    faults.choose = lambda *_: None


@pytest.fixture
def line(place: tuple[LocalCloud, Faults, Line]) -> Iterator[Line]:
    line = place[2]
    line.ranges.clear()
    yield line
    line.cut, line.belittle = None, False


@pytest.fixture
def objects(cloud: LocalCloud) -> Iterator[Objects]:
    made = Quick(session_of(cloud.url), patience_s=10.0)
    made.ensure_bucket("bench")
    yield made
    made.session.storage.close()


@pytest.fixture
def to() -> GcsUri:
    return GcsUri("bench", f"data/{uuid.uuid4().hex}")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a resumable upload as small as the service allows."""
    monkeypatch.setattr(objects_module, "CHUNK_BYTES", QUANTUM)


def small(dataset: Dataset, count: int = 12) -> DatasetRequest:
    """Three or so shards of four small pictures."""
    for index in range(count):
        dataset.add(f"{index:02}.jpg", Box("cat", index, 10, 50, 40), data=picture((20 * index, 0, 0)))
    return DatasetRequest(dataset.images, None, dataset.out, shard_examples=4, near_duplicates=False)


def noise(seed: int, size: int) -> bytes:
    return hashlib.shake_256(bytes([seed])).digest(size)


def large(dataset: Dataset, count: int = 6, side: int = 256) -> DatasetRequest:
    """One shard for training, of pictures of ``3 * side * side`` bytes each."""
    for index in range(count):
        out = BytesIO()
        Image.frombytes("RGB", (side, side), noise(index, 3 * side * side)).save(out, "PNG", compress_level=0)
        dataset.add(f"{index:02}.png", Box("cat", index, 10, 50, 40), data=out.getvalue(), size=(side, side))
    return DatasetRequest(dataset.images, None, dataset.out, near_duplicates=False)


def in_folder(request: DatasetRequest, folder: Path) -> dict[str, bytes]:
    build_dataset(replace(request, out=folder))
    return read(folder)


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_bucket(objects: Objects, to: GcsUri) -> dict[str, bytes]:
    found = {}
    for info in objects.list(to):
        content = objects.read(info.uri)
        assert content is not None
        found[info.uri.name.removeprefix(to.prefix)] = content.content
    return found


def generations(objects: Objects, to: GcsUri) -> dict[str, int]:
    return {info.uri.name.removeprefix(to.prefix): info.generation for info in objects.list(to)}


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def at(image: int, act: Callable[[], object]) -> Progress:
    """A progress callback that acts once so many images are written."""
    def progress(phase: str, done: int, _: int) -> None:
        if (phase, done) == ("write", image):
            act()

    return progress


def interrupt() -> None:
    raise KeyboardInterrupt


def nth(verb: str, number: int, fault: Fault | int) -> Callable[[str, str], Fault | int | None]:
    """Spoils the upload request of that verb and number only."""
    count = 0

    def choose(method: str, path: str) -> Fault | int | None:
        nonlocal count
        count += method == verb and path.startswith("/upload/")
        return fault if count == number and method == verb else None

    return choose


def always(verb: str, fault: Fault | int) -> Callable[[str, str], Fault | int | None]:
    return lambda method, path: fault if method == verb and path.startswith("/upload/") else None


def writes(faults: Faults) -> list[str]:
    return [verb for verb, _ in faults.seen if verb not in ("GET", "HEAD")]


def test_a_bucket_gets_what_a_folder_gets_and_the_disk_nothing(
    dataset: Dataset, objects: Objects, to: GcsUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    request, here = small(dataset), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-such-folder"))
    before = tree(tmp_path)
    manifest = build_to_bucket(request, objects, to)
    assert tree(tmp_path) == before
    wanted = in_folder(request, request.out)
    assert in_bucket(objects, to) == wanted
    assert set(wanted) == {*(shard.name for shard in manifest.shards), LABEL_MAP_NAME, MANIFEST_NAME}
    assert len(manifest.shards) == 4
    there = generations(objects, to)
    assert max(there, key=lambda name: there[name]) == MANIFEST_NAME


@pytest.mark.parametrize("root", [GcsUri("whole-bucket"), GcsUri("bench", "closing/slash/")])
def test_a_whole_bucket_and_a_closing_slash_are_places_too(
    dataset: Dataset, objects: Objects, root: GcsUri, tmp_path: Path,
) -> None:
    objects.ensure_bucket(root.bucket)
    request = small(dataset, 4)
    first = build_to_bucket(request, objects, root)
    assert in_bucket(objects, root) == in_folder(request, tmp_path / "folder")
    assert build_to_bucket(request, objects, root) == first


def test_a_second_build_writes_nothing(dataset: Dataset, objects: Objects, to: GcsUri, faults: Faults) -> None:
    request = small(dataset)
    first = build_to_bucket(request, objects, to)
    before = generations(objects, to)
    faults.seen.clear()
    assert build_to_bucket(request, objects, to) == first
    assert writes(faults) == []
    assert generations(objects, to) == before


@pytest.mark.parametrize(("name", "damage"), [
    ("train-00000-of-00003.tfrecord", "gone"), ("train-00000-of-00003.tfrecord", "other"), (LABEL_MAP_NAME, "gone"),
    (MANIFEST_NAME, "other"),
])
def test_what_was_damaged_is_mended(
    dataset: Dataset, objects: Objects, to: GcsUri, name: str, damage: str, tmp_path: Path,
) -> None:
    request = small(dataset)
    build_to_bucket(request, objects, to)
    before = generations(objects, to)
    if damage == "gone":
        assert objects.delete_if(to / name, before[name])
    else:
        objects.write(to / name, b"\xff other")
    build_to_bucket(request, objects, to)
    assert in_bucket(objects, to) == in_folder(request, tmp_path / "folder")
    after = generations(objects, to)
    shards = {one for one in before if one.endswith(".tfrecord")} - {name}
    assert {one: after[one] for one in shards} == {one: before[one] for one in shards}


@pytest.mark.parametrize("build", [build_to_bucket, build_and_upload])
def test_changed_data_replaces_what_was_there_and_nothing_else(
    dataset: Dataset, objects: Objects, to: GcsUri, build: Build, tmp_path: Path,
) -> None:
    request = small(dataset)
    build(request, objects, to)
    strangers = {"notes.txt": b"mine", "older/train-00000-of-00003.tfrecord": b"nested", "train-1.tfrecord": b"mine"}
    for name, content in strangers.items():
        objects.write(to / name, content)
    for path in sorted(dataset.images.iterdir())[:10]:
        path.unlink()
    build(request, objects, to)
    wanted = in_folder(request, tmp_path / "folder")
    assert "train-00001-of-00002.tfrecord" in wanted
    assert in_bucket(objects, to) == {**wanted, **strangers}


def test_shards_of_a_build_that_never_ended_are_removed_by_the_next(
    dataset: Dataset, objects: Objects, to: GcsUri, tmp_path: Path,
) -> None:
    request = small(dataset)
    with pytest.raises(KeyboardInterrupt):
        build_to_bucket(request, objects, to, at(6, interrupt))
    assert list(in_bucket(objects, to)) == ["train-00000-of-00003.tfrecord"]
    other = replace(request, shard_examples=2)
    build_to_bucket(other, objects, to)
    assert in_bucket(objects, to) == in_folder(other, tmp_path / "folder")


def test_the_same_dataset_in_a_folder_below_does_not_count(
    dataset: Dataset, objects: Objects, to: GcsUri, tmp_path: Path,
) -> None:
    request = small(dataset)
    build_to_bucket(request, objects, to / "old")
    build_to_bucket(request, objects, to)
    wanted = in_folder(request, tmp_path / "folder")
    assert in_bucket(objects, to) == {**wanted, **{f"old/{name}": content for name, content in wanted.items()}}


def test_an_interrupted_build_goes_on_where_it_stopped(
    dataset: Dataset, objects: Objects, to: GcsUri, tmp_path: Path,
) -> None:
    request = small(dataset)
    with pytest.raises(KeyboardInterrupt):
        build_to_bucket(request, objects, to, at(6, interrupt))
    gc.collect()
    before = generations(objects, to)
    assert list(before) == ["train-00000-of-00003.tfrecord"]
    ticks: list[int] = []
    build_to_bucket(request, objects, to, lambda phase, done, _: ticks.append(done) if phase == "write" else None)
    assert ticks == [4, *range(5, 13)]
    assert in_bucket(objects, to) == in_folder(request, tmp_path / "folder")
    assert generations(objects, to).items() >= before.items()


def test_a_killed_build_leaves_whole_shards_only(
    dataset: Dataset, cloud: LocalCloud, objects: Objects, to: GcsUri, tmp_path: Path,
) -> None:
    request = small(dataset)
    program = f"""
import os, signal
from pathlib import Path
from gcpod.data.build import DatasetRequest
from gcpod.storage import objects
from gcpod.storage.datasets import build_to_bucket
from gcpod.uris import GcsUri
from tests.jobs import session_of

def progress(phase, done, total):
    if (phase, done) == ("write", 10):
        os.kill(os.getpid(), signal.SIGKILL)

request = DatasetRequest(
    Path({str(request.images)!r}), None, Path({str(request.out)!r}), shard_examples=4, near_duplicates=False)
made = objects.Objects(session_of({cloud.url!r}))
build_to_bucket(request, made, GcsUri({to.bucket!r}, {to.name!r}), progress)
"""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = generations(objects, to)
    assert list(before) == ["train-00000-of-00003.tfrecord", "train-00001-of-00003.tfrecord"]
    assert not request.out.exists()
    build_to_bucket(request, objects, to)
    assert in_bucket(objects, to) == in_folder(request, tmp_path / "folder")
    assert generations(objects, to).items() >= before.items()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("service", ["there", "gone"])
def test_an_interrupt_within_an_upload_leaves_nothing_of_it(
    dataset: Dataset, objects: Objects, to: GcsUri, faults: Faults, line: Line, tmp_path: Path, service: str,
) -> None:
    """Also when the service cannot be told: what a dropped writer held must not arrive as the object's end."""
    request = large(dataset)
    if service == "gone":
        faults.choose = always("DELETE", "dropped")
    with pytest.raises(KeyboardInterrupt):
        build_to_bucket(request, objects, to, at(3, interrupt))
    assert line.ranges
    assert faults.times("DELETE", "/o") == 1
    gc.collect()
    assert in_bucket(objects, to) == {}
    build_to_bucket(request, objects, to)
    assert in_bucket(objects, to) == in_folder(request, tmp_path / "folder")


@pytest.mark.parametrize("parts", ["one", "several"])
def test_an_object_that_somebody_else_wrote_meanwhile_is_an_error_and_stays(
    dataset: Dataset, objects: Objects, to: GcsUri, parts: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    if parts == "several":
        monkeypatch.setattr(objects_module, "CHUNK_BYTES", QUANTUM)
    request = large(dataset)
    first = "train-00000-of-00001.tfrecord"
    with pytest.raises(StorageError, match="412") as caught:
        build_to_bucket(request, objects, to, at(4, lambda: objects.write(to / first, b"theirs")))
    assert caught.value.code == "E106"
    assert str(to / first) in str(caught.value)
    assert "\n" not in str(caught.value)
    gc.collect()
    assert in_bucket(objects, to) == {first: b"theirs"}


@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_shard_that_changes_before_the_end_is_never_named_by_a_manifest(
    dataset: Dataset, objects: Objects, to: GcsUri, change: str,
) -> None:
    request, first = small(dataset), "train-00000-of-00003.tfrecord"

    def meddle() -> None:
        if change == "gone":
            objects.delete_if(to / first, generations(objects, to)[first])
        else:
            objects.write(to / first, b"theirs")

    with pytest.raises(StorageError, match="no longer what was written"):
        build_to_bucket(request, objects, to, at(9, meddle))
    there = in_bucket(objects, to)
    assert MANIFEST_NAME not in there
    assert there.get(first) == (b"theirs" if change == "other" else None)


def test_a_shard_of_ours_with_other_bytes_does_not_count_as_finished_again(
    dataset: Dataset, objects: Objects, to: GcsUri, tmp_path: Path,
) -> None:
    request, first = small(dataset), "train-00000-of-00003.tfrecord"

    def spoil() -> None:
        blob = objects.session.storage.bucket(to.bucket).get_blob((to / first).name)
        other = objects.session.storage.bucket(to.bucket).blob(blob.name)
        other.metadata = blob.metadata
        other.upload_from_string(b"half of it")

    with pytest.raises(StorageError, match="no longer what was written"):
        build_to_bucket(request, objects, to, at(9, spoil))
    build_to_bucket(request, objects, to)
    assert in_bucket(objects, to) == in_folder(request, tmp_path / "folder")


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("fault", ["busy", "dropped", "busy after", "dropped after"])
@pytest.mark.parametrize(("verb", "number"), [("POST", 1), ("PUT", 2), ("PUT", 4)])
def test_an_upload_gets_through_a_fault(
    dataset: Dataset, objects: Objects, to: GcsUri, faults: Faults, fault: Fault, verb: str, number: int,
) -> None:
    request = large(dataset)
    faults.choose = nth(verb, number, fault)
    build_to_bucket(request, objects, to)
    assert faults.times("PUT", "/o") == 4 + 1 + (verb == "PUT")
    assert in_bucket(objects, to) == in_folder(request, request.out)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kept", [1, QUANTUM // 2, QUANTUM - 1])
def test_an_upload_gets_through_a_connection_that_breaks_within_a_part(
    dataset: Dataset, objects: Objects, to: GcsUri, line: Line, kept: int,
) -> None:
    request = large(dataset)
    line.cut = kept
    build_to_bucket(request, objects, to)
    assert line.ranges[0] == line.ranges[1] == f"bytes 0-{QUANTUM - 1}/*"
    assert in_bucket(objects, to) == in_folder(request, request.out)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("number", "fault", "kind", "compression"), [
    (0, "dropped", OutageError, "none"), (0, 403, AuthError, "none"), (3, "busy", OutageError, "none"),
    (3, 410, StorageError, "none"), (3, 401, AuthError, "none"), (4, "dropped", OutageError, "none"),
    (4, "busy", OutageError, "none"), (4, 400, StorageError, "none"), (3, "dropped", OutageError, "gzip"),
    (3, 403, AuthError, "gzip"),
])
def test_an_upload_that_cannot_go_on_is_a_coded_error_and_leaves_nothing(
    cloud: LocalCloud, dataset: Dataset, to: GcsUri, faults: Faults, number: int, fault: Fault | int,
    kind: type[GcpodError], compression: Compression,
) -> None:
    """Nor does anything come to be once the service is back; packing, which ends with a write, hides no error."""
    objects = Quick(session_of(cloud.url), patience_s=0.05)
    objects.ensure_bucket("bench")
    request, count = replace(large(dataset, 5), compression=compression), 0

    def choose(verb: str, path: str) -> Fault | int | None:
        nonlocal count
        count += verb == "PUT"
        spoilt = number <= count if number else verb == "POST"
        return fault if spoilt and path.startswith("/upload/") else None

    faults.choose = choose
    with pytest.raises(kind) as caught:
        build_to_bucket(request, objects, to)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert str(to) in str(caught.value)
    faults.choose = lambda *_: None
    del caught
    gc.collect()
    assert in_bucket(objects, to) == {}
    objects.session.storage.close()


@pytest.mark.usefixtures("small_chunks")
def test_a_service_that_keeps_less_than_it_was_sent_is_a_coded_error(
    dataset: Dataset, objects: Objects, to: GcsUri, line: Line,
) -> None:
    line.belittle = True
    with pytest.raises(StorageError, match=str(to)):
        build_to_bucket(large(dataset), objects, to)
    line.belittle = False
    gc.collect()
    assert in_bucket(objects, to) == {}


def test_the_build_s_own_errors_pass_and_nothing_is_left(
    dataset: Dataset, objects: Objects, to: GcsUri,
) -> None:
    request = small(dataset)
    paths = sorted(dataset.images.glob("*.jpg"))

    def change() -> None:
        for path in paths:
            path.write_bytes(picture((1, 2, 3)))

    with pytest.raises(DataError) as caught:
        build_to_bucket(replace(request, shard_examples=None), objects, to, lambda *_: change())
    assert caught.value.code == "D106"
    assert in_bucket(objects, to) == {}


@pytest.mark.long
def test_a_large_shard_travels_in_parts_while_it_is_written(
    dataset: Dataset, objects: Objects, to: GcsUri, line: Line,
) -> None:
    """So no more of it is held than one part and the images that filled it."""
    request = large(dataset, count=4, side=1000)
    arrived: list[int] = []
    build_to_bucket(
        request, objects, to, lambda phase, *_: arrived.append(line.received) if phase == "write" else None,
    )
    assert in_bucket(objects, to) == in_folder(request, request.out)
    train = (request.out / "train-00000-of-00001.tfrecord").stat().st_size
    assert train > CHUNK_BYTES
    assert line.ranges[:2] == [f"bytes 0-{CHUNK_BYTES - 1}/*", f"bytes {CHUNK_BYTES}-{train - 1}/{train}"]
    assert arrived[:3] == [0, 0, CHUNK_BYTES]


@pytest.mark.parametrize("size", [0, 1, QUANTUM - 1, QUANTUM, QUANTUM + 1, 3 * QUANTUM])
@pytest.mark.usefixtures("small_chunks")
def test_an_object_of_any_size_is_written_whole(objects: Objects, to: GcsUri, size: int) -> None:
    content = noise(1, size)
    with objects.writer(to / "one", 0, {"who": "é"}) as file:
        for start in range(0, size, 100_000):
            file.write(content[start : start + 100_000])
        assert in_bucket(objects, to) == {}
    (info,) = objects.list(to)
    assert in_bucket(objects, to) == {"one": content}
    assert info.metadata == {"who": "é"}
    with objects.writer(to / "one", info.generation, {}) as file:
        file.write(b"next")
    assert in_bucket(objects, to) == {"one": b"next"}


def test_folder_and_bucket_are_equal_and_the_manifest_comes_last(
    dataset: Dataset, objects: Objects, to: GcsUri, faults: Faults, tmp_path: Path,
) -> None:
    request = small(dataset)
    manifest = build_and_upload(request, objects, to)
    assert manifest.folder == request.out
    assert in_bucket(objects, to) == read(request.out) == in_folder(request, tmp_path / "folder")
    before = generations(objects, to)
    assert max(before, key=lambda name: before[name]) == MANIFEST_NAME
    faults.seen.clear()
    assert build_and_upload(request, objects, to) == manifest
    assert writes(faults) == []
    assert build_to_bucket(request, objects, to).digest == manifest.digest
    assert writes(faults) == []


def test_a_shard_is_in_the_bucket_before_the_last_one_is_written(
    dataset: Dataset, objects: Objects, to: GcsUri,
) -> None:
    seen: list[str] = []

    def look() -> None:
        seen.extend(until(lambda: list(generations(objects, to)), seconds=5))

    build_and_upload(small(dataset), objects, to, at(9, look))
    assert seen
    assert MANIFEST_NAME not in seen


def test_an_interrupted_upload_goes_on_where_it_stopped(
    dataset: Dataset, objects: Objects, to: GcsUri, tmp_path: Path,
) -> None:
    request = small(dataset)

    def wait_and_stop() -> None:
        until(lambda: generations(objects, to), seconds=5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_and_upload(request, objects, to, at(6, wait_and_stop))
    before = generations(objects, to)
    assert list(before) == ["train-00000-of-00003.tfrecord"]
    assert not (request.out / MANIFEST_NAME).exists()
    build_and_upload(request, objects, to)
    assert in_bucket(objects, to) == read(request.out) == in_folder(request, tmp_path / "folder")
    assert generations(objects, to).items() >= before.items()


def test_an_interrupt_does_not_wait_for_uploads_that_have_not_begun(
    dataset: Dataset, objects: Objects, to: GcsUri, faults: Faults,
) -> None:
    request = replace(small(dataset), shard_examples=1)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        until(lambda: faults.times("POST", "/o") >= 4, seconds=5)
        stopped = True
        raise KeyboardInterrupt

    faults.choose = lambda verb, path: "busy" if verb == "POST" and not stopped else None
    with pytest.raises(KeyboardInterrupt):
        build_and_upload(request, objects, to, at(12, stop))
    assert 4 <= len(generations(objects, to)) < 11


def test_a_refused_upload_ends_the_build_before_all_is_written(
    dataset: Dataset, objects: Objects, to: GcsUri, faults: Faults,
) -> None:
    """Four uploads go at once, so when the fifth comes one has ended."""
    faults.choose = lambda verb, _: 403 if verb == "POST" else None
    written: list[int] = []

    def progress(phase: str, done: int, _: int) -> None:
        if phase == "write":
            written.append(done)
        if (phase, done) == ("write", 6):
            until(lambda: faults.times("POST", "/o") >= 5, seconds=5)

    with pytest.raises(AuthError):
        build_and_upload(replace(small(dataset), shard_examples=1), objects, to, progress)
    assert written[-1] <= 6


@pytest.mark.parametrize("fault", ["busy", "dropped", "busy after", "dropped after"])
def test_a_copy_gets_through_a_fault(
    dataset: Dataset, objects: Objects, to: GcsUri, faults: Faults, fault: Fault,
) -> None:
    request = small(dataset)
    faults.choose = nth("POST", 2, fault)
    build_and_upload(request, objects, to)
    assert in_bucket(objects, to) == read(request.out)


@pytest.mark.parametrize("build", [build_to_bucket, build_and_upload])
def test_a_bucket_that_is_not_there_is_a_coded_error(dataset: Dataset, objects: Objects, build: Build) -> None:
    with pytest.raises(StorageError, match=r"gs://nobody-has-this.*404"):
        build(small(dataset, 4), objects, GcsUri("nobody-has-this", "data"))


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("build", [build_to_bucket, build_and_upload])
def test_a_bucket_that_refuses_is_a_coded_error_and_what_was_built_is_used_later(
    dataset: Dataset, objects: Objects, to: GcsUri, faults: Faults, build: Build, verb: str,
) -> None:
    request = small(dataset)
    faults.choose = lambda method, _: 403 if method == verb else None
    with pytest.raises(AuthError, match="403") as caught:
        build(request, objects, to)
    assert "roles/storage.objectAdmin" in caught.value.fix
    faults.choose = lambda *_: None
    assert in_bucket(objects, to) == {}
    written: list[int] = []
    build_and_upload(request, objects, to, lambda phase, done, _: written.append(done) if phase == "write" else None)
    assert in_bucket(objects, to) == read(request.out)
    if build is build_and_upload:
        assert written[:1] != [1]
