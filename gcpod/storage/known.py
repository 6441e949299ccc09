"""Checksums of local files, kept so that a tree that did not change is not read again.

Only a cache: where it cannot be written or is damaged, files are read. What it answers is the checksum of a file of the
same path, size, times and inode. A file that changed less than two seconds before it was read is not kept: it may
change once more without its time telling (https://git-scm.com/docs/racy-git; the times of FAT have that step,
https://learn.microsoft.com/windows/win32/sysinfo/file-times).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, TypeVar

from gcpod.cache import cache_dir
from gcpod.checksums import file_crc32c
from gcpod.errors import StorageError
from gcpod.storage.plan import LocalFile
from gcpod.storage.tree import TreeFile
from gcpod.uris import GcsUri

RACY_S: Final = 2.0
UNUSED_DAYS: Final = 90
_DAY_S: Final = 86_400
_THREADS: Final = 4
_LOOK_S: Final = 0.1
_BATCH: Final = 500
"""Paths in one query; sqlite took 999 at most before 3.32 (https://sqlite.org/limits.html)."""
_WAIT_S: Final = 2.0
"""For another process that is writing; then this one does without."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS checksums (path BLOB PRIMARY KEY, entry BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON checksums (used);
"""
_PASSING: Final = ("locked", "busy", "unable to open", "readonly", "read-only", "disk")
"""What sqlite says where the file itself is sound; Python 3.10 does not give its error codes."""
_T = TypeVar("_T")
_Rows = dict[bytes, tuple[object, int]]
"""Entry and the day of its last use, by path."""
_opening = threading.Lock()


class KnownChecksums:
    """Checksums by path, size, times and inode, in one file that several processes and threads may use at once.

    Args:
        path: of the database; made where it is missing, for its owner only, made anew where it is damaged.
        clock: seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock

    def crc32c_of(self, files: Sequence[TreeFile]) -> list[str]:
        """The checksum of each file, base64 as Cloud Storage gives it; those not known are read, a few at a time.

        Raises:
            StorageError: a file cannot be read.
        """
        now = self._clock()
        today = int(now // _DAY_S)
        keys = [_key(file) for file in files]
        nothing: _Rows = {}
        rows = self._use(lambda database: _rows(database, keys), nothing)
        known = {
            key: checksum for key, file in zip(keys, files, strict=True)
            if key in rows and (checksum := _opened(key, _stamp(file), rows[key][0]))
        }
        unknown = {key: file for key, file in zip(keys, files, strict=True) if key not in known}
        fresh: dict[bytes, str] = {}
        try:
            _read_all(unknown, fresh)
        finally:
            # Also what was read before an error or Ctrl-C is not read again; some of it may be read still.
            sealed = [
                (key, _sealed(key, _stamp(unknown[key]), checksum), today)
                for key, checksum in dict(fresh).items() if _settled(unknown[key], now)
            ]
            used = [key for key in known if rows[key][1] < today]
            if sealed or used:
                self._use(lambda database: _keep(database, sealed, used, today), None)
        return [known.get(key) or fresh[key] for key in keys]

    def _use(self, work: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """What some work on the database gives; a damaged one is replaced by an empty one."""
        for _ in range(2):
            try:
                with closing(self._open()) as database:
                    return work(database)
            except OSError:
                break
            except (sqlite3.Error, UnicodeDecodeError) as e:
                # The second is Python's, for a message that quotes damaged bytes.
                if isinstance(e, sqlite3.OperationalError) and any(word in str(e) for word in _PASSING):
                    break
                self._remove()
        return otherwise

    def _open(self) -> sqlite3.Connection:
        # Closing a file takes away every lock this process holds on it (https://sqlite.org/howtocorrupt.html, 2.2), so
        # nobody may have opened the database while it is being made.
        with _opening:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            database = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)
            try:
                # A crash of the machine may damage the file then: it is made anew, and each entry is sealed.
                database.execute("PRAGMA synchronous=OFF")
                database.execute("PRAGMA journal_mode=WAL")
                database.executescript(_SCHEMA)
            except BaseException:
                database.close()
                raise
            return database

    def _remove(self) -> None:
        with suppress(OSError):
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _key(file: TreeFile) -> bytes:
    return os.fsencode(file.path.absolute())


def _stamp(file: TreeFile) -> bytes:
    return b"%d %d %d %d" % (file.size, file.mtime_ns, file.ctime_ns, file.inode)


def _sealed(key: bytes, stamp: bytes, checksum: str) -> bytes:
    """An entry, with a checksum of its own: sqlite does not see a byte that turned over on the disk."""
    text = b"%b %b" % (stamp, checksum.encode())
    return b"%b %08x" % (text, zlib.crc32(key + b"\0" + text))


def _opened(key: bytes, stamp: bytes, entry: object) -> str:
    """The checksum in an entry; "" where it is of the file as it was before, or damaged."""
    if not isinstance(entry, bytes) or not entry.startswith(stamp + b" "):
        return ""
    checksum = entry[len(stamp) + 1:].partition(b" ")[0].decode("ascii", "replace")
    return checksum if _sealed(key, stamp, checksum) == entry else ""


def _rows(database: sqlite3.Connection, keys: Sequence[bytes]) -> _Rows:
    found: _Rows = {}
    for start in range(0, len(keys), _BATCH):
        batch = keys[start:start + _BATCH]
        marks = ",".join("?" * len(batch))
        rows = database.execute(f"SELECT path, entry, used FROM checksums WHERE path IN ({marks})", batch)
        found |= {path: (entry, used) for path, entry, used in rows if isinstance(used, int)}
    return found


def _keep(
    database: sqlite3.Connection, sealed: Sequence[tuple[bytes, bytes, int]], used: Iterable[bytes], today: int,
) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.executemany("REPLACE INTO checksums VALUES (?, ?, ?)", sealed)
    database.executemany("UPDATE checksums SET used = ? WHERE path = ?", ((today, key) for key in used))
    database.execute("DELETE FROM checksums WHERE used < ?", (today - UNUSED_DAYS,))
    database.execute("COMMIT")


def _settled(file: TreeFile, read_at: float) -> bool:
    """Whether a file that is the same still has not changed since it was read: any change would show in its times."""
    if read_at - max(file.mtime_ns, file.ctime_ns) / 1e9 < RACY_S:
        return False
    try:
        now = file.path.stat()
    except OSError:
        return False
    times = now.st_mtime_ns, now.st_ctime_ns if file.ctime_ns else 0
    return (now.st_size, *times, now.st_ino) == (file.size, file.mtime_ns, file.ctime_ns, file.inode)


def _read_all(files: dict[bytes, TreeFile], into: dict[bytes, str]) -> None:
    """Reads files by a few threads; after an error, or Ctrl-C, none is begun any more, and none is waited for."""
    left = iter(list(files.items()))  # of a list, so that each thread gets others
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for key, file in left:
                into[key] = _read(file)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_THREADS, len(files)))]
    try:
        for thread in threads:
            thread.start()
        while not failures and (alive := [thread for thread in threads if thread.is_alive()]):
            alive[0].join(_LOOK_S)
    finally:
        for _ in left:
            pass
    if failures:
        raise failures[0]


def _read(file: TreeFile) -> str:
    try:
        return file_crc32c(file.path)
    except OSError as e:
        raise StorageError("reading", file.path, e.strerror or str(e), "check its permissions") from e


def known_checksums() -> KnownChecksums:
    """Those of this user's files."""
    return KnownChecksums(cache_dir() / "checksums.sqlite")


def local_files(pairs: Sequence[tuple[Path, GcsUri]]) -> list[LocalFile]:
    """Files and their addresses with sizes and checksums; what did not change is not read again.

    Raises:
        StorageError: one of them cannot be read.
    """
    return to_local([(tree_file(path), uri) for path, uri in pairs])


def to_local(pairs: Sequence[tuple[TreeFile, GcsUri]]) -> list[LocalFile]:
    """As `local_files`, of files that were looked at already."""
    checksums = known_checksums().crc32c_of([file for file, _ in pairs])
    return [
        LocalFile(file.path, uri, file.size, checksum) for (file, uri), checksum in zip(pairs, checksums, strict=True)
    ]


def tree_file(path: Path) -> TreeFile:
    """A file as it is now.

    Raises:
        StorageError: it cannot be looked at.
    """
    try:
        about = path.stat()
    except OSError as e:
        raise StorageError("reading", path, e.strerror or str(e), "mend that and run the command again") from e
    return TreeFile(
        path.absolute(), path.name, about.st_size, about.st_mtime_ns, about.st_ino, ctime_ns=about.st_ctime_ns,
    )
