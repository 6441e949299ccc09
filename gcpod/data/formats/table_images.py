"""One CSV file while it is read: what the cells of each row say, collected image by image."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Final
from urllib.parse import unquote

from gcpod.data.formats.openimages import FLAGS
from gcpod.data.formats.reading import place
from gcpod.data.formats.table_header import Kind
from gcpod.data.formats.table_rows import RowError
from gcpod.data.formats.text import NUMBER
from gcpod.data.model import Box, Split, side_in
from gcpod.status import Finding, Severity

_MAX_PIXELS = 1 << 31
MAX_FAULTS: Final = 9_999
"""Of one file that are told apart; a table of nothing but faults shall not fill the memory."""


@dataclass(slots=True)
class ImageRows:
    """The rows of one image, in columns."""

    line: int
    size: tuple[int, int] = (0, 0)
    labels: list[str] = field(default_factory=list)
    edges: array[float] = field(default_factory=lambda: array("d"))
    flags: bytearray = field(default_factory=bytearray)
    lines: array[int] = field(default_factory=lambda: array("L"))

    def boxes(self) -> Iterator[Box]:
        edge = iter(self.edges)
        columns = zip(self.labels, edge, edge, edge, edge, self.flags, self.lines, strict=False)
        for label, xmin, ymin, xmax, ymax, flags, line in columns:
            yield Box(label, xmin, ymin, xmax, ymax, truncated=bool(flags & 1), crowd=bool(flags & 2), line=line)


@dataclass
class Table:
    """One file: its images by name, and its faults by line."""

    path: Path
    kind: Kind
    columns: tuple[str, ...]
    decimal_comma: bool
    names: Mapping[str, str]
    images: dict[str, ImageRows] = field(default_factory=dict)
    faults: list[tuple[int, Finding]] = field(default_factory=list)
    told: int = 0
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def fraction(self) -> bool:
        return self.kind == "openimages"

    @property
    def side(self) -> Split | None:
        return side_in(self.path.stem)

    def fault(self, line: int, found: str, fix: str, severity: Severity = "error") -> None:
        self.told += 1
        if self.told <= MAX_FAULTS:
            self.faults.append((line, Finding("D104", severity, place(self.path, line), found, fix)))

    def sorted_faults(self) -> list[Finding]:
        kept = [finding for _, finding in sorted(self.faults, key=lambda fault: fault[0])]
        if self.told > MAX_FAULTS:
            found = f"there are {self.told - MAX_FAULTS} more of the kind"
            kept.append(Finding("D104", "error", str(self.path), found, "correct those above first"))
        return kept

    def add(self, line: int, name: str, label: str, edges: Sequence[str], asides: Sequence[str]) -> None:
        """Takes in a row's cells; the last two are width and height, or truncated and group of."""
        try:
            name = name if name in self.images else self._name(name)
            read = self._flag if self.fraction else self._pixels
            first, second = map(read, asides, (*self.columns[6:], "", ""))
            if empty := not label.strip() and not any(map(str.strip, edges)):
                numbers: Iterable[float] = ()
            else:
                label = self.labels.get(label) or self._label(label, line)
                plain = all(map(NUMBER.fullmatch, edges))
                numbers = map(float, edges) if plain else [*map(self._number, edges, self.columns[2:6])]
        except RowError as err:
            return self.fault(line, *err.args)
        image = self.images.get(name)
        if image is None:
            image = self.images[name] = ImageRows(line)
        if not self.fraction and (first, second) != image.size:
            self._claim(image, line, (first, second))
        if not empty:
            image.labels.append(label)
            image.edges.extend(numbers)
            image.flags.append(first | second << 1 if self.fraction else 0)
            image.lines.append(line)
        return None

    def _claim(self, image: ImageRows, line: int, size: tuple[int, int]) -> None:
        if image.size == (0, 0):
            image.size = size
        elif size != (0, 0):
            found = f"the image is {size[0]} x {size[1]} here, {image.size[0]} x {image.size[1]} in a line above"
            self.fault(line, found, "correct the wrong one and look at its boxes", "warning")

    def _name(self, cell: str) -> str:
        name = cell.strip()
        if name[:5].lower() == "file:":
            name = PureWindowsPath(unquote(name[5:])).name
        # Files may well be called -x.jpg or @x.jpg; nobody calls one =x.
        if name[:1] == "=":
            _refuse_formula(name, self.columns[0])
        if not name or "\0" in name:
            raise RowError(f"{self.columns[0]} is {cell[:40]!r}, no file name", "write the image's file name")
        return name

    def _label(self, cell: str, line: int) -> str:
        label = " ".join(cell.split())
        _refuse_formula(label, self.columns[1])
        if not label:
            raise RowError(f"{self.columns[1]} is empty", "give the object its label")
        if self.fraction and self.names and label not in self.names:
            found = f"the class descriptions do not name {label!r}, which stays as it is"
            self.fault(line, found, "give the descriptions of the same version", "warning")
        self.labels[cell] = self.names.get(label, label) if self.fraction else label
        return self.labels[cell]

    def _number(self, cell: str, column: str) -> float:
        text = cell.strip().replace(",", ".", 1) if self.decimal_comma else cell.strip()
        if not NUMBER.fullmatch(text):
            _refuse_formula(text, column)
            raise RowError(f"{column} is {cell[:40]!r}, no number", "write a number")
        return float(text)

    def _pixels(self, cell: str, column: str) -> int:
        number = self._number(cell, column) if cell.strip() else 0
        if not 0 <= number < _MAX_PIXELS:
            raise RowError(f"{column} is {cell[:40]!r}", "write the image's size in pixels")
        return int(number)

    def _flag(self, cell: str, column: str) -> int:
        flag = FLAGS.get(cell.strip())
        if flag is None:
            _refuse_formula(cell.strip(), column)
            raise RowError(f"{column} is {cell[:40]!r}", "write 1, 0, or -1 where it is unknown")
        return flag


def _refuse_formula(text: str, column: str) -> None:
    """Source of what a spreadsheet takes for one: https://owasp.org/www-community/attacks/CSV_Injection."""
    if text[:1] == "=" or (text[:1] in ("+", "-", "@") and not NUMBER.fullmatch(text[1:])):
        raise RowError(f"{column} is {text[:40]!r}, a formula", "paste the values, not the formula")
