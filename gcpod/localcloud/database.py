"""The store's one sqlite database: rows to frozen records and back, and what is one transaction."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gcpod.localcloud.records import Bucket, ObjectMeta, Upload

_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (
    name TEXT PRIMARY KEY, project TEXT NOT NULL, generation INTEGER NOT NULL, metageneration INTEGER NOT NULL,
    created_us INTEGER NOT NULL, updated_us INTEGER NOT NULL, settings TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL, metageneration INTEGER NOT NULL,
    size INTEGER NOT NULL, crc32c TEXT NOT NULL, md5 TEXT, component_count INTEGER, created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL, blob TEXT NOT NULL, settings TEXT NOT NULL, PRIMARY KEY (bucket, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, bucket TEXT NOT NULL, name TEXT NOT NULL, blob TEXT NOT NULL,
    created_us INTEGER NOT NULL, state TEXT NOT NULL, generation INTEGER, request TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT NOT NULL, number INTEGER NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    PRIMARY KEY (upload, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counters VALUES ('generation', 0);
"""
Part = tuple[int, str, int, str]
"""Part number, blob, size in bytes, etag."""


def _bucket(row: Sequence[Any]) -> Bucket:
    name, project, generation, metageneration, created_us, updated_us, settings = row
    return Bucket(name, project, generation, metageneration, created_us, updated_us, json.loads(settings))


def _object(row: Sequence[Any]) -> ObjectMeta:
    *fields, settings = row
    bucket, name, generation, metageneration, size, crc32c, md5, components, created_us, updated_us, blob = fields
    return ObjectMeta(
        bucket,
        name,
        generation,
        metageneration,
        size,
        crc32c,
        md5,
        components,
        created_us,
        updated_us,
        blob,
        json.loads(settings),
    )


class View:
    """Reads, all seeing the same state."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute

    def bucket(self, name: str) -> Bucket | None:
        """One bucket."""
        row = self._run("SELECT * FROM buckets WHERE name = ?", (name,)).fetchone()
        return None if row is None else _bucket(row)

    def buckets(self) -> list[Bucket]:
        """All buckets by name."""
        return [_bucket(row) for row in self._run("SELECT * FROM buckets ORDER BY name")]

    def object(self, bucket: str, name: str) -> ObjectMeta | None:
        """One object."""
        row = self._run("SELECT * FROM objects WHERE bucket = ? AND name = ?", (bucket, name)).fetchone()
        return None if row is None else _object(row)

    def objects(self, bucket: str, start: str, inclusive: bool, end: str | None, limit: int) -> Sequence[ObjectMeta]:
        """Objects by name from ``start`` up to but not including ``end``; sqlite compares the UTF-8 bytes."""
        sql = f"SELECT * FROM objects WHERE bucket = ? AND name {'>=' if inclusive else '>'} ?"
        values: list[Any] = [bucket, start]
        if end is not None:
            sql += " AND name < ?"
            values.append(end)
        rows = self._run(sql + " ORDER BY name LIMIT ?", [*values, limit])
        return [_object(row) for row in rows]

    def upload(self, upload: str) -> Upload | None:
        """One upload session."""
        row = self._run("SELECT * FROM uploads WHERE id = ?", (upload,)).fetchone()
        if row is None:
            return None
        id_, kind, bucket, name, blob, created_us, state, generation, request = row
        return Upload(id_, kind, bucket, name, blob, created_us, state, generation, json.loads(request))

    def parts(self, upload: str) -> list[Part]:
        """The parts of a multipart upload by number."""
        return list(self._run("SELECT number, blob, size, etag FROM parts WHERE upload = ? ORDER BY number", (upload,)))


class Change(View):
    """Reads and writes of one transaction."""

    def next_generation(self, now_us: int) -> int:
        """A number greater than all before, the time in microseconds where the clock allows."""
        self._run("UPDATE counters SET value = max(value + 1, ?) WHERE name = 'generation'", (now_us,))
        return int(self._run("SELECT value FROM counters WHERE name = 'generation'").fetchone()[0])

    def put_bucket(self, one: Bucket) -> None:
        """Writes a bucket over whatever was there."""
        self._run(
            "REPLACE INTO buckets VALUES (?,?,?,?,?,?,?)",
            (
                one.name,
                one.project,
                one.generation,
                one.metageneration,
                one.created_us,
                one.updated_us,
                json.dumps(one.settings),
            ),
        )

    def drop_bucket(self, name: str) -> None:
        """Removes a bucket."""
        self._run("DELETE FROM buckets WHERE name = ?", (name,))

    def put_object(self, one: ObjectMeta) -> None:
        """Writes an object over whatever was there."""
        self._run(
            "REPLACE INTO objects VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                one.bucket,
                one.name,
                one.generation,
                one.metageneration,
                one.size,
                one.crc32c,
                one.md5,
                one.component_count,
                one.created_us,
                one.updated_us,
                one.blob,
                json.dumps(one.settings),
            ),
        )

    def drop_object(self, bucket: str, name: str) -> None:
        """Removes an object."""
        self._run("DELETE FROM objects WHERE bucket = ? AND name = ?", (bucket, name))

    def put_upload(self, one: Upload) -> None:
        """Writes an upload session over whatever was there."""
        self._run(
            "REPLACE INTO uploads VALUES (?,?,?,?,?,?,?,?,?)",
            (
                one.id,
                one.kind,
                one.bucket,
                one.name,
                one.blob,
                one.created_us,
                one.state,
                one.generation,
                json.dumps(one.request),
            ),
        )

    def finish_upload(self, upload: str, generation: int) -> None:
        """Notes what an upload became; its blob, if it had one of its own, is the object's now."""
        self._run("UPDATE uploads SET state = 'done', blob = '', generation = ? WHERE id = ?", (generation, upload))
        self._run("DELETE FROM parts WHERE upload = ?", (upload,))

    def end_upload(self, upload: str, state: str) -> None:
        """Notes that an upload came to nothing."""
        self._run("UPDATE uploads SET state = ?, blob = '' WHERE id = ?", (state, upload))
        self._run("DELETE FROM parts WHERE upload = ?", (upload,))

    def put_part(self, upload: str, part: Part) -> None:
        """Writes a part over one of the same number."""
        self._run("REPLACE INTO parts VALUES (?,?,?,?,?)", (upload, *part))


class Database:
    """Connections: one for changes behind a lock, and one per thread for reads, which never wait for a change."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock, self._local = path, threading.Lock(), threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._writer = self._connect()
        self._writer.executescript(_SCHEMA)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        # With WAL, NORMAL keeps the database whole after any crash of the process (https://sqlite.org/pragma.html#pragma_synchronous).
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
        self._opened.append(connection)
        return connection

    @contextlib.contextmanager
    def change(self) -> Iterator[Change]:
        """One transaction; an exception undoes it."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Change(self._writer)
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """One consistent read of the last committed state."""
        reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._connect()
        reader.execute("BEGIN")
        try:
            yield View(reader)
        finally:
            reader.execute("ROLLBACK")

    def used_blobs(self) -> set[str]:
        """The names of all blobs that a record holds."""
        sql = "SELECT blob FROM objects UNION SELECT blob FROM uploads UNION SELECT blob FROM parts"
        return {row[0] for row in self._writer.execute(sql)}

    def close(self) -> None:
        """Closes every connection; nobody may be using one."""
        for connection in self._opened:
            connection.close()
