"""What is Open Images' own in its CSV files: labels that are MIDs, and flags that may be unknown.

Both are described at https://storage.googleapis.com/openimages/web/download_v7.html; the boxes themselves are read by
`gcpod.data.formats.tables`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from gcpod.data.formats.reading import malformed, unreadable

FLAGS: Final[Mapping[str, bool]] = {"1": True, "0": False, "-1": False, "": False}
"""The values of IsTruncated, IsGroupOf and their like; -1 is "unknown"."""

_HEADER = ["labelname", "displayname"]
"""The first line of the seventh version's file; those before have none."""
_TRIED = "reading the class descriptions"
_malformed = partial(malformed, _TRIED)


def descriptions_beside(files: Sequence[Path]) -> Path | None:
    """The class descriptions in the folders of the files, those of the boxable classes first; None without any.

    They are known by Open Images' own names for them: ``class-descriptions-boxable.csv`` and the like.
    """
    found = {path for folder in {path.parent for path in files} for path in folder.glob("*class-descriptions*.csv")}
    return min(found, key=lambda path: ("boxable" not in path.name, str(path)), default=None)


def read_descriptions(path: Path) -> dict[str, str]:
    """Reads display names by MID from a class-descriptions CSV (UTF-8, ``/m/01g317,Person``, with or without header).

    Raises:
        DataError: D104; it cannot be opened, or see `parse_descriptions`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return parse_descriptions(lines, path)
    except OSError as err:
        raise unreadable(_TRIED, path, err) from err
    except UnicodeDecodeError as err:
        raise _malformed(path, 0, f"it is not UTF-8 ({err.reason})", "store it as UTF-8") from err


def parse_descriptions(lines: Iterable[str], path: Path) -> dict[str, str]:
    """Parses class descriptions; ``path`` is only for messages.

    Raises:
        DataError: D104; a row that is not a MID and a name, a MID with two names, or no row at all.
    """
    names: dict[str, str] = {}
    rows = csv.reader(_plain(lines, path), skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in rows:
            cells = [" ".join(cell.split()) for cell in row]
            if any(cells) and [cell.lower() for cell in cells] != _HEADER:
                if len(cells) != 2 or not all(cells):
                    raise _malformed(path, line, "it is no MID and name", "write /m/01g317,Person")
                if names.setdefault(*cells) != cells[1]:
                    raise _malformed(path, line, f"{cells[0]!r} already has another name", "keep one of them")
            line = rows.line_num + 1
    except csv.Error as err:
        raise _malformed(path, line, f"it is no CSV ({err})", "write /m/01g317,Person") from err
    if not names:
        raise _malformed(path, 0, "it names no class", "write /m/01g317,Person")
    return names


def _plain(lines: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise _malformed(path, number, "it holds a NUL byte", "store it as UTF-8 text")
        yield line
