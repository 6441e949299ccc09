"""Text as labelling tools on any system write it: its encoding, its lines, and what in it is a number."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from gcpod.data.formats.reading import bytes_of, malformed
from gcpod.status import Finding

NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
"""What `float` takes and a labelling tool writes: no underscores, no digits of other scripts, no blanks around."""
FALLBACK: Final = "cp1252"
"""The encoding of text that is not Unicode: what Windows calls ANSI in Western countries."""

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_MARKS = tuple(bom for bom, _ in _BOMS)
_TRIED = "reading the labels"
_malformed = partial(malformed, _TRIED)


def marked(data: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning names."""
    if not data.startswith(_MARKS):
        return None
    return next(encoding for bom, encoding in _BOMS if data.startswith(bom))


def load_text(path: Path) -> tuple[str, tuple[Finding, ...]]:
    """Reads a text file from disk.

    Raises:
        DataError: D104; it cannot be opened, or see `decode_text`.
    """
    return decode_text(bytes_of(path, _TRIED), path)


def decode_text(data: bytes, path: Path) -> tuple[str, tuple[Finding, ...]]:
    """UTF-8, UTF-16 with its mark, or else Windows-1252 with a warning; every line ends in a line feed.

    Raises:
        DataError: D104; none of these.
    """
    try:
        return _lines(data.decode(marked(data) or "utf-8")), ()
    except UnicodeDecodeError:
        try:
            return _lines(data.decode(FALLBACK)), (read_as_fallback(path),)
        except UnicodeDecodeError as err:
            found = f"byte {err.start} is neither UTF-8 nor Windows-1252"
            raise _malformed(path, 0, found, "store the file as UTF-8") from err


def read_as_fallback(path: Path) -> Finding:
    """The warning about a file that was taken for `FALLBACK`."""
    found = "it is not UTF-8 and was read as Windows-1252"
    return Finding("D104", "warning", str(path), found, "store the file as UTF-8")


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), 1):
        if stripped := line.strip():
            yield number, stripped


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
