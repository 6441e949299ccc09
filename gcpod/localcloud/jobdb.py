"""Custom jobs, or builds, and their log entries, kept in one sqlite file so that they outlive the server."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

TERMINAL = frozenset({
    "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED",
    "SUCCESS", "FAILURE", "INTERNAL_ERROR", "TIMEOUT",
})
"""The states that end a job, and those that end a build."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, project TEXT, body TEXT, state TEXT, created TEXT, started TEXT, ended TEXT, updated TEXT,
    error_code INTEGER, error TEXT, starts INTEGER, location TEXT NOT NULL DEFAULT '',
    preemptions INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT, time TEXT, severity TEXT, task TEXT, text TEXT);
CREATE INDEX IF NOT EXISTS entries_of_job ON entries (job, number);
"""


_ADDED = {"location": "TEXT NOT NULL DEFAULT ''", "preemptions": "INTEGER NOT NULL DEFAULT 0"}
"""Columns that files of earlier versions lack."""


@dataclass(frozen=True)
class JobRecord:
    """One job or build.

    ``state`` has no JOB_STATE_ prefix, times are RFC 3339 or "", ``starts`` is how often it was started, of which
    ``preemptions`` were for machines taken away; ``location`` is its region, "" for the only one that there was.
    """

    id: str
    project: str
    body: dict[str, Any]
    state: str
    created: str
    started: str = ""
    ended: str = ""
    updated: str = ""
    error_code: int = 0
    error: str = ""
    starts: int = 0
    location: str = ""
    preemptions: int = 0


_COLUMNS = ", ".join(one.name for one in fields(JobRecord))
_BODY = [one.name for one in fields(JobRecord)].index("body")


@dataclass(frozen=True)
class EntryRecord:
    """One log entry; ``number`` rises in the order of writing."""

    number: int
    job: str
    time: str
    severity: str
    task: str
    text: str


def now() -> str:
    """The time in UTC as Google writes it, to the microsecond."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class JobDatabase:
    """Jobs and entries; every method may be called from any thread."""

    def __init__(self, path: Path, clock: Callable[[], str] = now) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        there = {row[1] for row in self._db.execute("PRAGMA table_info(jobs)")}
        for name, kind in _ADDED.items():
            if name not in there:
                self._db.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
        self._lock = threading.RLock()
        self.clock = clock

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, job: JobRecord) -> None:
        with self._lock, self._db:
            self._put(job)

    def get(self, job_id: str) -> JobRecord | None:
        with self._lock:
            row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return _job(row) if row else None

    def all(self) -> list[JobRecord]:
        """Every job, newest first."""
        with self._lock:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY created DESC, id DESC").fetchall()
        return [_job(row) for row in rows]

    def update(self, job_id: str, unless: Iterable[str] = TERMINAL, **changes: Any) -> JobRecord | None:
        """Changes fields of a job; None when its state is one of ``unless``, so that an end stays the end."""
        with self._lock:
            job = self.get(job_id)
            if job is None or job.state in unless:
                return None
            job = replace(job, updated=self.clock(), **changes)
            with self._db:
                self._put(job)
            return job

    def _put(self, job: JobRecord) -> None:
        marks = ",".join("?" for _ in fields(JobRecord))
        values = [getattr(job, one.name) for one in fields(JobRecord)]
        values[_BODY] = json.dumps(job.body)
        self._db.execute(f"INSERT OR REPLACE INTO jobs ({_COLUMNS}) VALUES ({marks})", values)

    def delete(self, job_id: str) -> None:
        with self._lock, self._db:
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            self._db.execute("DELETE FROM entries WHERE job = ?", (job_id,))

    def log(self, job_id: str, severity: str, task: str, lines: Iterable[str]) -> None:
        """Appends lines as entries of one time."""
        with self._lock, self._db:
            time = self.clock()
            self._db.executemany(
                "INSERT INTO entries (job, time, severity, task, text) VALUES (?,?,?,?,?)",
                [(job_id, time, severity, task, line) for line in lines],
            )

    def entries(self, job_ids: Iterable[str] | None = None) -> list[EntryRecord]:
        """The entries of some jobs, or of all, in the order of writing."""
        with self._lock:
            if job_ids is None:
                rows = self._db.execute("SELECT * FROM entries ORDER BY number").fetchall()
            else:
                query = "SELECT * FROM entries WHERE job = ? ORDER BY number"
                rows = [row for job_id in job_ids for row in self._db.execute(query, (job_id,)).fetchall()]
        return [EntryRecord(*row) for row in rows]


def _job(row: tuple[Any, ...]) -> JobRecord:
    return JobRecord(*(json.loads(value) if n == _BODY else value for n, value in enumerate(row)))
