"""The header of a CSV with a box a row: what separates its cells, and which tool's columns it names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal

Kind = Literal["vott2", "tutorial", "openimages"]

_EDGES = ("xmin", "ymin", "xmax", "ymax")
NEEDED: Final[dict[Kind, tuple[str, ...]]] = {
    "tutorial": ("filename", "class", *_EDGES),
    "vott2": ("image", "label", *_EDGES),
    "openimages": ("imageid", "labelname", *_EDGES),
}
OPTIONAL: Final[dict[Kind, tuple[str, ...]]] = {
    "tutorial": ("width", "height"), "vott2": (), "openimages": ("istruncated", "isgroupof"),
}
FORMATS: Final[dict[Kind, str]] = {"tutorial": "CSV", "vott2": "VoTT 2 CSV", "openimages": "Open Images CSV"}
EXPECTED = "name the columns filename,width,height,class,xmin,ymin,xmax,ymax"


def table_kind(header: Sequence[str]) -> Kind | None:
    """Which of the three kinds has these column names, whatever their order and case; None for another CSV.

    None also where one of the columns that would be read stands twice.
    """
    columns = [cell.strip().lower() for cell in header]
    for kind, needed in NEEDED.items():
        if all(columns.count(name) == 1 for name in needed):
            return kind if all(columns.count(name) < 2 for name in OPTIONAL[kind]) else None
    return None


def parse_header(line: str) -> tuple[list[str], str]:
    """The column names of a header, and the separator that tells them apart best."""
    parted: list[tuple[list[str], str]] = []
    for separator in ",;\t":
        with suppress(csv.Error):
            parted.append((next(csv.reader([line], delimiter=separator, skipinitialspace=True), []), separator))
    return max(parted, key=lambda item: (table_kind(item[0]) is not None, len(item[0])), default=([], ","))


def lacking(header: Sequence[str]) -> str:
    """Why column names are of no kind, for a message."""
    columns = {cell.strip().lower() for cell in header}
    needed = max(NEEDED.values(), key=lambda names: len(columns.intersection(names)))
    lacking = [name for name in needed if name not in columns]
    if len(lacking) == len(needed):
        return "it does not begin with the header of a CSV of boxes"
    return f"its header lacks {', '.join(lacking)}" if lacking else "a column stands twice in its header"
