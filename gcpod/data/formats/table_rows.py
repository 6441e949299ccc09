"""A CSV file's text, before its cells mean anything: its encoding, its lines, and the rows that they make up.

Quotes may carry a row over several lines, or be left open by mistake; what comes out of here is whole rows only, each
with the number of its first line.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from gcpod.data.formats.text import FALLBACK, marked

_MAX_ROW = 1 << 16
"""Characters of a row with its line breaks; the csv module by itself refuses only cells of twice that."""
_BATCH = 1 << 21
"""Characters that go to pandas at once: some 50,000 rows."""
_BLOCK_BYTES = 1 << 20


class RowError(Exception):
    """What is wrong with a row, and what to do about it."""


class Lines(Iterator[tuple[int, str]]):
    """Physical lines with their numbers from 1, cut where they are longer than a row may be; they can be put back."""

    def __init__(self, handle: TextIO) -> None:
        self._handle, self._number = handle, 0
        self._back: deque[tuple[int, str]] = deque()

    def __next__(self) -> tuple[int, str]:
        if self._back:
            return self._back.popleft()
        line = rest = self._handle.readline(_MAX_ROW + 1)
        if not line:
            raise StopIteration
        while len(rest) > _MAX_ROW and rest[-1] != "\n":
            rest = self._handle.readline(_MAX_ROW + 1)
        self._number += 1
        return self._number, line.replace("\ufeff", "")

    def put_back(self, lines: Sequence[tuple[int, str]]) -> None:
        self._back.extendleft(reversed(lines))


def rows(
    lines: Lines, separator: str, width: int, fault: Callable[[int, str, str], None],
) -> Iterator[tuple[int, str]]:
    """The rows of so many cells, with the number of their first line, as text that can be read in one way only.

    Rows without content are passed over. A bad one costs its first line alone: after a quote that is never closed, the
    next line is a row again.
    """
    cell = f'(?:"[^"\n]*"|[^"\n{separator}]*)'
    plainly_quoted = re.compile(f"{cell}(?:{separator}{cell}){{{width - 1}}}\n?")
    for number, line in lines:
        if not line.strip(f'{separator}" \t\n'):
            continue
        taken: list[tuple[int, str]] = []
        try:
            if len(line) > _MAX_ROW or "\0" in line:
                raise RowError("it is too long or holds a NUL byte", "this is no text with a box a row")
            count, row = width, line
            if '"' not in line:
                count = line.count(separator) + 1
            elif not plainly_quoted.fullmatch(line):
                cells = _cells(line, lines, separator, taken)
                count, row = len(cells), separator.join('"' + cell.replace('"', '""') + '"' for cell in cells)
            if count != width:
                raise RowError(f"it has {count} cells, the header {width}", "write a cell for each column")
        except RowError as err:
            lines.put_back(taken)
            fault(number, *err.args)
        else:
            yield number, row if row[-1] == "\n" else f"{row}\n"


def batches(whole: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """The same rows, as many at a time as pandas takes well."""
    batch, size = [], 0
    for row in whole:
        batch.append(row)
        size += len(row[1])
        if size > _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encoding_of(path: Path) -> str:
    """What a file is to be opened with: UTF-8, by its byte order mark UTF-16, else `FALLBACK`.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as handle:
        block = handle.read(_BLOCK_BYTES)
        if encoding := marked(block):
            return encoding
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while block:
                decoder.decode(block)
                block = handle.read(_BLOCK_BYTES)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return FALLBACK
    return "utf-8"


def _cells(line: str, lines: Lines, separator: str, taken: list[tuple[int, str]]) -> list[str]:
    """Parts a row that may go on in the next lines, which are added to ``taken``."""
    def physical() -> Iterator[str]:
        yield line
        size = len(line)
        for item in lines:
            taken.append(item)
            size += len(item[1])
            if size > _MAX_ROW or "\0" in item[1]:
                return
            yield item[1]

    try:
        return next(csv.reader(physical(), delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as err:
        found = f"its quotes do not match ({err})"
        raise RowError(found, "put quotes around whole cells and double them within") from err
