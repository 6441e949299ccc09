"""One job's lines in a local file, each once, however often the process that writes it is killed and started again.

Beside the file lies its cursor, with the length that the file had when the cursor was written. What is beyond that when
the file is opened was written by a process that was killed before its cursor was: it is cut away, and comes again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from gcpod.errors import SpecError
from gcpod.jobs.cursor import Cursor
from gcpod.jobs.logs import LogLine

_VERSION = 1
_UNPRINTABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (which begin terminal sequences), all line ends, what turns the direction of text, and halves of
characters; not the tab (https://www.unicode.org/reports/tr9/, https://www.unicode.org/reports/tr14/)."""
_NAMES = {"\n": "\\n", "\r": "\\r"}


def printable(text: str) -> str:
    """A text as one line that does nothing to a terminal; what would is written as its escape, such as ``\\x1b``."""
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _NAMES.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


class LogFile:
    """A file of one job's lines: time, severity, task and text, with blanks between; for use in ``with``.

    To go on where a file ends, give its cursor to a reader: ``LogReader(session, job, cursor=file.cursor)``, then for
    each page ``file.append(page, reader.cursor)``. A reader of many jobs serves a file for each of them.

    Args:
        path: of the file; its cursor is ``path`` with ``.cursor`` after it. Its folder must be there.
        job: the job's id.

    Raises:
        SpecError: E101, the file is no log of that job, another process writes it, it was changed since, or it cannot
            be written.
    """

    def __init__(self, path: Path, job: str) -> None:
        self.path, self.job = path, job
        self._cursor_path = Path(f"{path}.cursor")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise self._error(e.strerror or str(e), "choose another file with --out") from e
        try:
            self._open()
        except OSError as e:
            self.close()
            raise self._error(e.strerror or str(e), "choose another file with --out") from e
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LogFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def append(self, lines: Iterable[LogLine], cursor: Cursor) -> None:
        """Adds those of the job's lines that a reader gave, and keeps its place after them.

        Raises:
            SpecError: E101, the disk is full or the like; the file is as it was before.
        """
        mine = [line for line in lines if line.job == self.job]
        place = cursor.of(self.job)
        if not mine and place == self.cursor:
            return
        content = "".join(map(_row, mine)).encode()
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(self._file, content[written:], self.size + written)
            # The order in which they reach the disk decides whether the cursor tells the truth after a power cut.
            os.fsync(self._file)
            self._keep(place, self.size + len(content))
        except OSError as e:
            os.ftruncate(self._file, self.size)
            raise self._error(e.strerror or str(e), "make room and run the command again: it goes on here") from e

    def _open(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._error("another process is writing it", "wait for that, or choose another file") from None
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            raise self._error("it is no file but a device or the like", "choose another file")
        size, known = status.st_size, self._known()
        if known is None:
            if size:
                raise self._error("it is there and no log that gcpod wrote", "choose another file")
            # Before the first line: so that lines without a cursor are never of our making.
            self._keep(Cursor(), 0)
            return
        self.cursor, self.size = known
        if size < self.size:
            raise self._error(f"it is {size} bytes long and was {self.size}",
                              f"delete it and {self._cursor_path.name}: the log is then read from its beginning")
        os.ftruncate(self._file, self.size)

    def _known(self) -> tuple[Cursor, int] | None:
        """What the cursor file holds: the place in the log and the file's length; None without one."""
        try:
            text = self._cursor_path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except ValueError:
            text = ""
        fix = f"delete it and {self.path.name}: the log is then read from its beginning"
        try:
            data = json.loads(text)
            if set(data) != {"version", "job", "bytes", "cursor"} or data["version"] != _VERSION:
                raise ValueError("another version")
            size = data["bytes"]
            if type(size) is not int or size < 0 or not isinstance(data["cursor"], str):
                raise ValueError("no length")
            job = data["job"]
        except (ValueError, TypeError, RecursionError) as e:
            raise SpecError("reading the cursor", self._cursor_path, "it is damaged", fix) from e
        if job != self.job:
            raise self._error(f"it is the log of job {job!r}", "choose another file")
        return Cursor.from_json(data["cursor"], self._cursor_path), size

    def _keep(self, cursor: Cursor, size: int) -> None:
        data = {"version": _VERSION, "job": self.job, "bytes": size, "cursor": cursor.to_json()}
        aside = self._cursor_path.with_name(f"{self._cursor_path.name}.new")
        with aside.open("w", encoding="utf-8") as f:
            json.dump(data, f)
            f.flush()
            os.fsync(f.fileno())
        aside.replace(self._cursor_path)
        self.cursor, self.size = cursor, size

    def _error(self, found: str, fix: str) -> SpecError:
        return SpecError("writing the log to", self.path, found, fix)


def _row(line: LogLine) -> str:
    # No field but the last may hold a blank, or it would forge the ones after it.
    fields = ("".join(printable(one).split()) or "-" for one in (line.time, line.severity, line.task))
    return f"{' '.join(fields)} {printable(line.text)}\n"
