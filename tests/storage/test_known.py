"""Checksums that are kept: right whatever happens to the file or the cache, and no file read twice without need."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcpod.checksums import file_crc32c
from gcpod.errors import StorageError
from gcpod.storage import known
from gcpod.storage.known import RACY_S, UNUSED_DAYS, KnownChecksums
from gcpod.storage.tree import TreeFile, scan_tree

DAY_S = 86_400.0


def later(seconds: float = 60.0) -> float:
    return time.time() + seconds


def tree(folder: Path, count: int = 20) -> list[TreeFile]:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:04} é.bin").write_bytes(b"%d" % number * 100)
    return scan_tree(folder)


def checksums(files: list[TreeFile]) -> list[str]:
    return [file_crc32c(file.path) for file in files]


def paths_in(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {os.fsdecode(path) for (path,) in connection.execute("SELECT path FROM checksums")}


def test_known_files_are_not_read_again(tmp_path: Path) -> None:
    files = tree(tmp_path / "tree")
    expected = checksums(files)
    cache = tmp_path / "new" / "folder" / "known.sqlite"
    assert KnownChecksums(cache, later).crc32c_of(files) == expected
    for file in files:
        file.path.unlink()
    assert KnownChecksums(cache, later).crc32c_of(files) == expected
    assert KnownChecksums(cache, later).crc32c_of(list(reversed(files)) + files[:3]) == expected[::-1] + expected[:3]
    assert KnownChecksums(cache, later).crc32c_of([]) == []


def test_more_files_than_one_query_takes(tmp_path: Path) -> None:
    files = tree(tmp_path / "tree", 1100)
    expected = checksums(files)
    for _ in range(2):
        assert KnownChecksums(tmp_path / "known", later).crc32c_of(files) == expected
    assert paths_in(tmp_path / "known") == {str(file.path) for file in files}


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    files = tree(tmp_path / "tree", 4)
    cache = KnownChecksums(tmp_path / "known", later)
    cache.crc32c_of(files)
    longer, same_size, times_set_back, replaced = (file.path for file in files)
    longer.write_bytes(b"longer" * 100)
    same_size.write_bytes(same_size.read_bytes()[::-1].replace(b"1", b"7"))
    before = times_set_back.stat()
    times_set_back.write_bytes(times_set_back.read_bytes().replace(b"2", b"8"))
    os.utime(times_set_back, ns=(before.st_atime_ns, before.st_mtime_ns))
    aside = replaced.with_suffix(".new")
    aside.write_bytes(replaced.read_bytes().replace(b"3", b"9"))
    aside.replace(replaced)
    now = scan_tree(tmp_path / "tree")
    assert [file.size for file in now[1:]] == [file.size for file in files[1:]]
    assert now[2].mtime_ns == files[2].mtime_ns
    assert cache.crc32c_of(now) == checksums(now)


@pytest.mark.parametrize(("age_s", "kept"), [(RACY_S - 0.1, False), (RACY_S + 0.1, True), (-60.0, False)])
def test_what_changed_a_moment_ago_is_not_kept(tmp_path: Path, age_s: float, kept: bool) -> None:
    (file,) = tree(tmp_path / "tree", 1)
    clock = file.ctime_ns / 1e9 + age_s
    assert KnownChecksums(tmp_path / "known", lambda: clock).crc32c_of([file]) == checksums([file])
    assert paths_in(tmp_path / "known") == ({str(file.path)} if kept else set())


def test_what_changes_between_listing_and_reading_is_not_kept(tmp_path: Path) -> None:
    (file,) = tree(tmp_path / "tree", 1)
    file.path.write_bytes(b"written since")
    assert KnownChecksums(tmp_path / "known", later).crc32c_of([file]) == checksums([file])
    assert paths_in(tmp_path / "known") == set()


def test_entries_that_nobody_used_go(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files, (other,) = tree(tmp_path / "tree", 2), tree(tmp_path / "other", 1)
    start = later()
    now = [start]
    cache = KnownChecksums(tmp_path / "known", lambda: now[0])
    cache.crc32c_of(files)
    now[0] = start + 60 * DAY_S
    cache.crc32c_of(files[:1])
    now[0] = start + (UNUSED_DAYS + 1) * DAY_S
    cache.crc32c_of([other])
    assert paths_in(tmp_path / "known") == {str(files[0].path), str(other.path)}


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    files = tree(tmp_path / "tree", 2)
    before = os.umask(0)
    try:
        KnownChecksums(tmp_path / "cache" / "known", later).crc32c_of(files)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "cache" / "known").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    files = tree(tmp_path / "tree", 10)
    files[6].path.unlink()
    with pytest.raises(StorageError, match=r"0006 é.bin: No such file"):
        KnownChecksums(tmp_path / "known", later).crc32c_of(files)
    # Which of the others were read by then is up to the threads; none of it is read again.
    assert paths_in(tmp_path / "known") & {str(file.path) for file in files[:6]}


def test_a_tree_below_a_folder_that_is_not_utf8(tmp_path: Path) -> None:
    files = tree(tmp_path / os.fsdecode(b"caf\xe9"), 2)
    for _ in range(2):
        assert KnownChecksums(tmp_path / "known", later).crc32c_of(files) == checksums(files)
    assert len(paths_in(tmp_path / "known")) == 2


@pytest.mark.parametrize("place", ["file/known", "folder"])
def test_without_a_place_to_write_it_works(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    files = tree(tmp_path / "tree", 2)
    assert KnownChecksums(tmp_path / place, later).crc32c_of(files) == checksums(files)
    assert (tmp_path / "folder").is_dir()


def test_a_writer_that_takes_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tree(tmp_path / "tree", 2)
    cache = KnownChecksums(tmp_path / "known", later)
    cache.crc32c_of(files[:1])
    monkeypatch.setattr(known, "_WAIT_S", 0.01)
    with closing(sqlite3.connect(tmp_path / "known", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert cache.crc32c_of(files) == checksums(files)
    assert paths_in(tmp_path / "known") == {str(files[0].path)}


@pytest.mark.parametrize("content", [
    b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4096, "CREATE TABLE checksums (path)",
    "CREATE TABLE checksums (path TEXT, entry INT, used TEXT)", "CREATE VIEW checksums AS SELECT 1",
])
def test_a_file_that_is_no_such_cache_is_made_anew(tmp_path: Path, content: bytes | str) -> None:
    files, cache = tree(tmp_path / "tree", 3), tmp_path / "known"
    if isinstance(content, bytes):
        cache.write_bytes(content)
    else:
        with closing(sqlite3.connect(cache)) as database:
            database.execute(content)
    for _ in range(2):
        assert KnownChecksums(cache, later).crc32c_of(files) == checksums(files)
    assert paths_in(cache) == {str(file.path) for file in files}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[TreeFile], bytes]:
    folder = tmp_path_factory.mktemp("kept")
    files = tree(folder / "tree", 40)
    KnownChecksums(folder / "known", later).crc32c_of(files)
    return files, (folder / "known").read_bytes()


@settings(max_examples=60, deadline=None)
@given(damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=8),
       end=st.floats(0, 1))
def test_a_damaged_cache_never_gives_a_wrong_answer(
    kept: tuple[list[TreeFile], bytes], damage: list[tuple[float, bytes]], end: float,
) -> None:
    files, content = kept
    spoilt = bytearray(content)
    for where, junk in damage:
        start = int(where * (len(spoilt) - len(junk)))
        spoilt[start:start + len(junk)] = junk
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "known"
        cache.write_bytes(spoilt[:max(1, round(end * len(spoilt)))])
        for _ in range(2):
            assert KnownChecksums(cache, later).crc32c_of(files[::5]) == checksums(files[::5])


@pytest.mark.parametrize(("old", "new"), [
    (b"TABLE checksums (path", b"TABLE checks\x9f\x9f\x9f (path"), (b"entry BLOB", b"\x9fntry BLOB"),
    (b"CREATE INDEX by_use", b"CREATE \x9fNDEX by_use"), (b"path BLOB", b"path \"LOB"),
])
def test_a_cache_whose_tables_are_damaged_is_made_anew(
    kept: tuple[list[TreeFile], bytes], tmp_path: Path, old: bytes, new: bytes,
) -> None:
    files, content = kept
    assert old in content
    (tmp_path / "known").write_bytes(content.replace(old, new))
    assert KnownChecksums(tmp_path / "known", later).crc32c_of(files) == checksums(files)
    assert len(paths_in(tmp_path / "known")) == len(files)


def test_several_threads_and_processes_at_once(tmp_path: Path) -> None:
    files, cache = tree(tmp_path / "tree", 60), tmp_path / "known"
    expected = checksums(files)
    program = (
        "import sys, time; from pathlib import Path; from gcpod.storage.known import KnownChecksums\n"
        "from gcpod.storage.tree import scan_tree\n"
        "known = KnownChecksums(Path(sys.argv[2]), lambda: time.time() + 60)\n"
        "print(*known.crc32c_of(scan_tree(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "tree"), str(cache)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda start: KnownChecksums(cache, later).crc32c_of(files[start:]), range(12)))
    assert answers == [expected[start:] for start in range(12)]
    for process in others:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out.split()) == (0, expected)
    assert paths_in(cache) == {str(file.path) for file in files}
