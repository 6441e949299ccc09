"""Several transfers of the same things at once, in one folder or bucket: each ends right, and nothing is left."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.checksums import file_crc32c
from gcpod.errors import GcpodError, OutageError, StorageError
from gcpod.storage.journal import LIFETIME_S
from gcpod.storage.known import local_files
from gcpod.storage.mirror import Mirrored, mirror
from gcpod.storage.names import PARTS_FOLDER, TRANSFER_FOLDER
from gcpod.storage.plan import ObjectInfo
from gcpod.storage.receive import Download
from gcpod.storage.transfer import fetch_all, upload_files
from gcpod.uris import GcsUri
from tests.waiting import until

from .faulty import Fault, StallBefore, StallReply, Status
from .place import CHUNK, IMPATIENT, LARGE, OPTIONS, SMALL, Place

ONE_BY_ONE = replace(OPTIONS, workers=1)


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Something done in a thread meanwhile, whose failure is the test's."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as e:
            failures.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
    assert not thread.is_alive()
    assert failures == []


def together(*works: Callable[[], object]) -> None:
    if works:
        with beside(works[0]):
            together(*works[1:])


def there(place: Place, name: str) -> ObjectInfo:
    (found,) = place.objects.list_exactly(place.root / name)
    return found


def aside_of(place: Place) -> list[Path]:
    return [path for path in (place.folder / "out").glob(f"{TRANSFER_FOLDER}*/*") if path.name != "lock"]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_two_downloads_of_one_object_into_one_folder_do_not_touch_each_others_bytes(place: Place, size: int) -> None:
    path = place.source(size)
    place.upload(path)
    place.proxy.clear()
    place.proxy.spoil(Fault("get", StallReply(SMALL // 2)), Fault("get", Status(503), times=None, skip=1))
    with beside(lambda: place.download(ONE_BY_ONE)):
        until(lambda: place.proxy.stalled == 1)
        # The other one makes its files, and is refused; those of the first are as they were.
        with pytest.raises(OutageError):
            place.download(IMPATIENT)
        assert not list((place.folder / "out").glob(f"{TRANSFER_FOLDER}-*"))
        place.proxy.clear()
    place.check_folder(path)


def test_a_download_whose_bytes_were_taken_away_meanwhile_fetches_them_again(place: Place) -> None:
    path = place.source(SMALL)
    place.upload(path)
    place.proxy.clear()
    place.proxy.spoil(Fault("get", StallReply(SMALL // 2)))
    with beside(place.download):
        until(lambda: place.proxy.stalled == 1)
        (aside,) = aside_of(place)
        aside.unlink()
        aside.write_bytes(b"somebody tidied up")
        place.proxy.release()
    assert place.proxy.count("get") == 2
    place.check_folder(path)


def test_one_object_to_two_paths_in_one_call(place: Place) -> None:
    path = place.source(SMALL)
    place.upload(path)
    out, info = place.folder / "out", there(place, path.name)
    place.proxy.clear()
    place.proxy.spoil(Fault("get", StallReply(1000), times=2))
    both = [Download(info, out / "a"), Download(info, out / "b")]
    with beside(lambda: fetch_all(place.objects, both, out, options=OPTIONS)):
        until(lambda: place.proxy.stalled == 2)
        place.proxy.release()
    assert {p.name: file_crc32c(p) for p in out.iterdir()} == dict.fromkeys("ab", info.crc32c)


def test_downloads_of_different_things_into_one_folder_leave_each_other_their_place(place: Place) -> None:
    paths = [place.source(SMALL, f"{number}.bin") for number in range(3)]
    place.upload(*paths)
    out, infos = place.folder / "out", [there(place, path.name) for path in paths]
    downloads = [Download(info, out / path.name) for info, path in zip(infos, paths, strict=True)]
    place.proxy.clear()
    place.proxy.spoil(Fault("get", StallBefore(), name="0.bin"), Fault("get", StallBefore(), name="1.bin"))
    with beside(lambda: fetch_all(place.objects, downloads[:2], out, options=ONE_BY_ONE)):
        until(lambda: place.proxy.stalled == 1)
        fetch_all(place.objects, downloads[2:], out, options=ONE_BY_ONE)
        assert [path.name for path in out.glob(f"{TRANSFER_FOLDER}*")] == [TRANSFER_FOLDER]
        place.proxy.release()
        until(lambda: place.proxy.stalled == 1)
        fetch_all(place.objects, downloads[2:], out, options=ONE_BY_ONE)
        place.proxy.release()
    place.check_folder(*paths)


def test_downloads_that_come_and_go_take_nobodys_folder_away(place: Place) -> None:
    paths = [place.source(10, f"{number}.bin") for number in range(30)]
    place.upload(*paths)
    out = place.folder / "out"
    infos = place.objects.list(place.root)
    downloads = [Download(info, out / info.uri.name.rsplit("/", 1)[-1]) for info in infos]

    def one_after_the_other(some: list[Download]) -> None:
        for one in some:
            fetch_all(place.objects, [one], out, options=ONE_BY_ONE)

    together(
        lambda: one_after_the_other(downloads[:10]), lambda: one_after_the_other(downloads[10:20]),
        lambda: fetch_all(place.objects, downloads[20:], out, options=ONE_BY_ONE),
    )
    place.check_folder(*paths)


@pytest.mark.parametrize("link", ["out", f"out/{TRANSFER_FOLDER}", ""])
def test_something_else_in_the_place_of_what_is_not_whole_yet_is_told(place: Place, link: str) -> None:
    place.upload(place.source(SMALL))
    other = place.folder / (link or f"out/{TRANSFER_FOLDER}")
    other.parent.mkdir(exist_ok=True)
    if link:
        other.symlink_to(place.folder / "nowhere")
    else:
        other.write_bytes(b"a file")
    with pytest.raises(StorageError, match="File exists") as caught:
        place.download()
    assert "\n" not in str(caught.value)


def test_two_mirrors_of_one_growing_file_bring_its_new_bytes_once(place: Place) -> None:
    out, old, new = place.folder / "out", os.urandom(24 << 20), os.urandom(SMALL)
    place.objects.write(place.root / "events", old)
    info = there(place, "events")
    mirror(place.objects, [Download(info, out / "events")], out, OPTIONS)
    place.objects.write(place.root / "events", old + new)
    info, done = there(place, "events"), list[Mirrored]()
    place.proxy.clear()
    place.proxy.spoil(Fault("get", StallReply(100), times=2))

    def follow() -> None:
        done.append(mirror(place.objects, [Download(info, out / "events")], out, OPTIONS))

    with beside(follow), beside(follow):
        until(lambda: place.proxy.stalled == 2)
        place.proxy.release()
    assert (out / "events").read_bytes() == old + new
    assert done == [Mirrored(1, SMALL)] * 2
    assert [path.name for path in out.iterdir()] == ["events"]


def test_a_file_that_another_mirror_has_brought_meanwhile_is_brought_anew(place: Place) -> None:
    path = place.source(SMALL)
    place.upload(path)
    whole, info, out = path.read_bytes(), there(place, path.name), place.folder / "out"
    other = place.folder / "out" / "a"
    out.mkdir()
    other.write_bytes(whole[:1000])
    (out / path.name).write_bytes(whole[:1000])
    place.proxy.clear()
    place.proxy.spoil(Fault("get", StallBefore()))
    downloads = [Download(info, other), Download(info, out / path.name)]
    with beside(lambda: mirror(place.objects, downloads, out, ONE_BY_ONE)):
        until(lambda: place.proxy.stalled == 1)
        (out / path.name).write_bytes(whole)
        place.proxy.release()
    assert other.read_bytes() == whole
    other.unlink()
    place.check_folder(path)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_mirror_leaves_a_file_that_was_replaced_for_the_next_time(place: Place, size: int) -> None:
    path, out = place.source(size), place.folder / "out"
    place.upload(path)
    info = there(place, path.name)
    place.upload(place.source(size))
    assert mirror(place.objects, [Download(info, out / path.name)], out, OPTIONS).files == 0
    place.check_folder()
    (out / path.name).write_bytes(b"its beginning")
    assert mirror(place.objects, [Download(info, out / path.name)], out, OPTIONS) == Mirrored(0, 0)
    assert [(one.name, one.read_bytes()) for one in out.iterdir()] == [(path.name, b"its beginning")]
    mirror(place.objects, [Download(there(place, path.name), out / path.name)], out, OPTIONS)
    place.check_folder(path)


def test_what_was_listed_is_brought_or_nothing(place: Place) -> None:
    path, out = place.source(SMALL), place.folder / "out"
    place.upload(path)
    info = there(place, path.name)
    place.objects.write(info.uri, os.urandom(SMALL))
    with pytest.raises(StorageError, match="replaced or removed"):
        fetch_all(place.objects, [Download(info, out / path.name)], out, options=OPTIONS)
    place.check_folder()
    assert {one.query["generation"] for one in place.proxy.log if one.operation == "get"} == {str(info.generation)}


def test_what_nobody_went_on_with_for_a_week_is_removed_and_the_rest_is_kept(place: Place) -> None:
    path, aside = place.source(SMALL), place.folder / "out" / TRANSFER_FOLDER
    place.upload(path)
    aside.mkdir(parents=True)
    for name, age in (("old", LIFETIME_S + 60), ("young", LIFETIME_S - 3600)):
        (aside / name).touch()
        # And what a process was killed in that was not alone there.
        other = aside.with_name(f"{TRANSFER_FOLDER}-{name}")
        other.mkdir()
        (other / "x").touch()
        for one in (aside / name, other):
            os.utime(one, (time.time() - age,) * 2)
    place.download()
    assert {one.name for one in aside.iterdir()} - {"lock"} == {"young"}
    assert not aside.with_name(f"{TRANSFER_FOLDER}-old").exists()
    shutil.rmtree(aside.with_name(f"{TRANSFER_FOLDER}-young"))
    (aside / "young").unlink()
    place.download()
    place.check_folder(path)


def test_two_uploads_of_one_large_file_at_once(place: Place) -> None:
    path = place.source(LARGE)
    place.proxy.spoil(Fault("start", StallBefore(), times=2))
    with beside(lambda: place.upload(path)), beside(lambda: place.upload(path)):
        until(lambda: place.proxy.stalled == 2)
        place.proxy.release()
    assert place.proxy.count("start") == 2
    place.check_bucket(path)


def test_equal_files_of_one_tree_in_parts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gcpod.storage.transfer.PARTS_FROM_BYTES", LARGE)
    one, other = place.source(LARGE, "one.bin"), place.folder / "in" / "other.bin"
    other.write_bytes(one.read_bytes())
    place.proxy.spoil(Fault("compose", StallBefore()))
    with beside(lambda: place.upload(one, other, options=replace(OPTIONS, parts=3, workers=6))):
        # The first waits to be put together while the second is done with all its parts.
        until(lambda: place.proxy.stalled == 1 and place.proxy.count("delete") == 3)
        place.proxy.release()
    place.check_bucket(one, other)


def test_a_part_that_somebody_replaced_is_not_put_together_with_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gcpod.storage.transfer.PARTS_FROM_BYTES", LARGE)
    path, said = place.source(LARGE), list[GcpodError]()
    place.proxy.spoil(Fault("compose", StallBefore()))

    def upload() -> None:
        with pytest.raises(StorageError) as caught:
            place.upload(path, options=replace(OPTIONS, parts=2))
        said.append(caught.value)

    with beside(upload):
        until(lambda: place.proxy.stalled == 1)
        part = place.objects.list(GcsUri(place.root.bucket, PARTS_FOLDER))[0]
        place.objects.write(part.uri, b"other")
        place.proxy.release()
    (compose,) = [one for one in place.proxy.log if one.operation == "compose"]
    assert compose.status == 412
    assert place.objects.list(place.root) == []
    assert "\n" not in str(said[0])
    place.upload(path, options=replace(OPTIONS, parts=2))
    place.check_bucket(path)


def test_a_file_that_changes_while_it_is_sent_is_told_and_nothing_is_made_of_it(place: Place) -> None:
    path = place.source(LARGE)
    (file,) = local_files([(path, place.root / path.name)])
    place.proxy.spoil(Fault("chunk", StallBefore(), skip=2))

    def upload() -> None:
        with pytest.raises(StorageError, match="changed while it was sent"):
            upload_files(place.objects, [file], place.root, options=OPTIONS)

    with beside(upload):
        until(lambda: place.proxy.stalled == 1)
        path.write_bytes(os.urandom(CHUNK))
        place.proxy.release()
    assert place.objects.list(place.root) == []
