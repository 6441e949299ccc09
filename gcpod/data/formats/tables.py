"""CSV files with a box a row, read by column name: VoTT 2's, the tutorials' and Open Images'.

- VoTT 2: ``image,xmin,ymin,xmax,ymax,label``, pixels
  (https://github.com/microsoft/VoTT/blob/master/src/providers/export/csv.ts).
- The tutorials' (``xml_to_csv.py`` in https://github.com/datitran/raccoon_dataset):
  ``filename,width,height,class,xmin,ymin,xmax,ymax``, pixels; width and height may be absent.
- Open Images: ``ImageID,…,LabelName,…,XMin,XMax,YMin,YMax,…``, fractions of the image's sides
  (https://storage.googleapis.com/openimages/web/download_v7.html).

Rows are told apart and counted here and only whole ones go to pandas, a batch at a time: one bad row costs neither the
others nor their line numbers, and a million rows are never held as text at once.
"""

from __future__ import annotations

import codecs
import csv
import re
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import repeat
from pathlib import Path, PureWindowsPath
from typing import Final, Literal, TextIO
from urllib.parse import unquote

from gcpod.data.formats.openimages import FLAGS, read_descriptions
from gcpod.data.model import SPLITS, Annotation, Box, Boxes, Labels, Split, side_in
from gcpod.errors import DataError
from gcpod.status import Finding, Severity

Kind = Literal["vott2", "tutorial", "openimages"]

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_NEEDED: Final[dict[Kind, tuple[str, ...]]] = {
    "tutorial": ("filename", "class", *_EDGES),
    "vott2": ("image", "label", *_EDGES),
    "openimages": ("imageid", "labelname", *_EDGES),
}
_OPTIONAL: Final[dict[Kind, tuple[str, ...]]] = {
    "tutorial": ("width", "height"), "vott2": (), "openimages": ("istruncated", "isgroupof"),
}
_FORMATS: Final[dict[Kind, str]] = {"tutorial": "CSV", "vott2": "VoTT 2 CSV", "openimages": "Open Images CSV"}
_EXPECTED = "name the columns filename,width,height,class,xmin,ymin,xmax,ymax"

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_FALLBACK = "cp1252"
_MAX_PIXELS = 1 << 31
_MAX_ROW = 1 << 16
"""Characters of a row with its line breaks; the csv module by itself refuses only cells of twice that."""
_BATCH = 1 << 21
"""Characters that go to pandas at once: some 50,000 rows."""
_SNIFFED_BYTES, _BLOCK_BYTES = 8192, 1 << 20


def table_kind(header: Sequence[str]) -> Kind | None:
    """Which of the three kinds has these column names, whatever their order and case; None for another CSV.

    None also where one of the columns that would be read stands twice.
    """
    columns = [cell.strip().lower() for cell in header]
    for kind, needed in _NEEDED.items():
        if all(columns.count(name) == 1 for name in needed):
            return kind if all(columns.count(name) < 2 for name in _OPTIONAL[kind]) else None
    return None


def sniff_table(path: Path) -> Kind | None:
    """The kind of a file by its first few KB; None for whatever is no such CSV or cannot be read, never an error."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as handle:
            data = handle.read(_SNIFFED_BYTES)
    except (OSError, ValueError):
        return None
    lines = data.decode(_marked(data) or "utf-8", errors="replace").replace("\r", "\n").split("\n")
    return table_kind(_header(next(filter(str.strip, lines), ""))[0])


def read_tables(files: Sequence[Path], descriptions: Path | None = None) -> Labels:
    """Reads the CSV files of one dataset; there is an annotation for each image that a sound row names.

    A file's name gives the side of its images ("train_labels.csv"); an image with rows on both sides evaluates. Where
    there are files of both sides, one of no side whose images they all have is left out. A box that several files
    have alike is taken once; ``Box.line`` is a line of ``Annotation.path``, and 0 for boxes of any further file.

    `Labels.faults` are rows that cannot be read, a file that is not UTF-8 and one that was left out (D104), and images
    on both sides (D107).

    Args:
        files: UTF-8, or UTF-16 with byte order mark, else Windows-1252; separated by commas, or by semicolons or
            tabs, with which decimal commas are understood.
        descriptions: Open Images' class descriptions; their display names become the labels.

    Raises:
        DataError: D104; no file is given, one cannot be read, has not the columns of any kind or no row below them,
            or `read_descriptions` refuses the descriptions.
    """
    if not files:
        raise DataError("reading", "the CSV files", "there are none", "give at least one", code="D104")
    names = read_descriptions(descriptions) if descriptions else {}
    tables = [_read(path, names) for path in dict.fromkeys(files)]
    faults = [fault for table in tables for fault in table.sorted_faults()]
    used = list(_without_repeats(tables, faults))
    formats = dict.fromkeys(_FORMATS[table.kind] for table in used)
    annotations = tuple(_annotations(used, faults))
    return Labels(" and ".join(formats), annotations, faults=tuple(faults))


@dataclass(slots=True)
class _Image:
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


class _RowError(Exception):
    """What is wrong with a row, and what to do about it."""


@dataclass
class _Table:
    """One file: its images by name, and its faults by line."""

    path: Path
    kind: Kind
    columns: tuple[str, ...]
    decimal_comma: bool
    names: Mapping[str, str]
    images: dict[str, _Image] = field(default_factory=dict)
    faults: list[tuple[int, Finding]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def fraction(self) -> bool:
        return self.kind == "openimages"

    @property
    def side(self) -> Split | None:
        return side_in(self.path.stem)

    def fault(self, line: int, found: str, fix: str, severity: Severity = "error") -> None:
        self.faults.append((line, Finding("D104", severity, _place(self.path, line), found, fix)))

    def sorted_faults(self) -> list[Finding]:
        return [finding for _, finding in sorted(self.faults, key=lambda fault: fault[0])]

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
                plain = all(map(_NUMBER.fullmatch, edges))
                numbers = map(float, edges) if plain else [*map(self._number, edges, self.columns[2:6])]
        except _RowError as err:
            return self.fault(line, *err.args)
        image = self.images.get(name)
        if image is None:
            image = self.images[name] = _Image(line)
        if not self.fraction and (first, second) != image.size:
            self._claim(image, line, (first, second))
        if not empty:
            image.labels.append(label)
            image.edges.extend(numbers)
            image.flags.append(first | second << 1 if self.fraction else 0)
            image.lines.append(line)
        return None

    def _claim(self, image: _Image, line: int, size: tuple[int, int]) -> None:
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
            raise _RowError(f"{self.columns[0]} is {cell[:40]!r}, no file name", "write the image's file name")
        return name

    def _label(self, cell: str, line: int) -> str:
        label = " ".join(cell.split())
        _refuse_formula(label, self.columns[1])
        if not label:
            raise _RowError(f"{self.columns[1]} is empty", "give the object its label")
        if self.fraction and self.names and label not in self.names:
            found = f"the class descriptions do not name {label!r}, which stays as it is"
            self.fault(line, found, "give the descriptions of the same version", "warning")
        self.labels[cell] = self.names.get(label, label) if self.fraction else label
        return self.labels[cell]

    def _number(self, cell: str, column: str) -> float:
        text = cell.strip().replace(",", ".", 1) if self.decimal_comma else cell.strip()
        if not _NUMBER.fullmatch(text):
            _refuse_formula(text, column)
            raise _RowError(f"{column} is {cell[:40]!r}, no number", "write a number")
        return float(text)

    def _pixels(self, cell: str, column: str) -> int:
        number = self._number(cell, column) if cell.strip() else 0
        if not 0 <= number < _MAX_PIXELS:
            raise _RowError(f"{column} is {cell[:40]!r}", "write the image's size in pixels")
        return int(number)

    def _flag(self, cell: str, column: str) -> int:
        flag = FLAGS.get(cell.strip())
        if flag is None:
            _refuse_formula(cell.strip(), column)
            raise _RowError(f"{column} is {cell[:40]!r}", "write 1, 0, or -1 where it is unknown")
        return flag


def _refuse_formula(text: str, column: str) -> None:
    """Source of what a spreadsheet takes for one: https://owasp.org/www-community/attacks/CSV_Injection."""
    if text[:1] == "=" or (text[:1] in ("+", "-", "@") and not _NUMBER.fullmatch(text[1:])):
        raise _RowError(f"{column} is {text[:40]!r}, a formula", "paste the values, not the formula")


def _without_repeats(tables: Sequence[_Table], faults: list[Finding]) -> Iterator[_Table]:
    sided = [table for table in tables if table.side]
    both = {table.side for table in sided} == set(SPLITS)
    for table in tables:
        rivals = [other.images for other in sided if other.fraction == table.fraction]
        if both and not table.side and all(any(name in images for images in rivals) for name in table.images):
            found = f"it was left out: {', '.join(other.path.name for other in sided)} have all its images"
            faults.append(Finding("D104", "note", str(table.path), found, "give it alone to read it"))
        else:
            yield table


def _annotations(tables: Sequence[_Table], faults: list[Finding]) -> Iterator[Annotation]:
    """Empties the tables image by image, so that columns and boxes are not held twice."""
    for index, first in enumerate(tables):
        for name in list(first.images):
            alike = [table for table in tables[index:] if table.fraction == first.fraction and name in table.images]
            parts = [(table, table.images.pop(name)) for table in alike]
            sides: dict[Split, str] = {}
            for table, image in parts:
                if table.side:
                    sides.setdefault(table.side, _place(table.path, image.line))
            if len(sides) > 1:
                there, here = sides.values()
                fix = "it evaluates; delete its rows in one of the files"
                faults.append(Finding("D107", "warning", here, f"{name!r} is also on the other side, in {there}", fix))
            width, height = next((image.size for _, image in parts if image.size != (0, 0)), (0, 0))
            yield Annotation(
                path=first.path,
                filename="" if first.fraction else name,
                width=width,
                height=height,
                boxes=Boxes(_joined([image for _, image in parts])),
                stem=name if first.fraction else "",
                given="eval" if "eval" in sides else next(iter(sides), None),
                fraction=first.fraction,
            )


def _joined(images: Sequence[_Image]) -> Iterator[Box]:
    yield from images[0].boxes()
    seen = set(images[0].boxes()) if len(images) > 1 else set()
    for image in images[1:]:
        yield from (replace(box, line=0) for box in image.boxes() if box not in seen)
        seen.update(image.boxes())


def _read(path: Path, names: Mapping[str, str]) -> _Table:
    try:
        encoding = _encoding(path)
        with path.open(encoding=encoding) as handle:
            table = _parse(handle, path, names)
    except OSError as err:
        raise _malformed(path, 0, err.strerror or str(err), "make the file readable") from err
    except UnicodeError as err:
        raise _malformed(path, 0, f"it cannot be decoded ({err})", "store it as UTF-8") from err
    if encoding == _FALLBACK:
        table.fault(0, "it is not UTF-8 and was read as Windows-1252", "store it as UTF-8", "warning")
    return table


def _parse(handle: TextIO, path: Path, names: Mapping[str, str]) -> _Table:
    """Reads text whose line breaks are line feeds."""
    lines = _Lines(handle)
    number, first = next((item for item in lines if item[1].strip()), (0, ""))
    if not first:
        raise _malformed(path, 0, "it is empty", _EXPECTED)
    header, separator = _header(first)
    kind = table_kind(header)
    if kind is None:
        raise _malformed(path, number, _lacking(header), _EXPECTED)
    columns = [cell.strip().lower() for cell in header]
    table = _Table(path, kind, _NEEDED[kind] + _OPTIONAL[kind], separator != ",", names)
    for batch in _batches(_rows(lines, separator, len(columns), table.fault)):
        _add(table, batch, columns, separator)
    if not table.images and not table.faults:
        raise _malformed(path, number, "no row follows its header", "write a row for each box")
    return table


def _add(table: _Table, batch: Sequence[tuple[int, str]], columns: list[str], separator: str) -> None:
    import pandas

    frame = pandas.read_csv(
        StringIO("".join(row for _, row in batch)), sep=separator, header=None, names=range(len(columns)), dtype=str,
        usecols=[columns.index(name) for name in table.columns if name in columns], index_col=False,
        keep_default_na=False, na_filter=False, skip_blank_lines=False,
    )
    cells = [frame[columns.index(name)].tolist() if name in columns else repeat("") for name in table.columns]
    cells += [repeat("")] * (8 - len(cells))
    for (line, _), name, label, *edges, first, second in zip(batch, *cells, strict=False):
        table.add(line, name, label, edges, (first, second))


class _Lines(Iterator[tuple[int, str]]):
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


def _rows(
    lines: _Lines, separator: str, width: int, fault: Callable[[int, str, str], None],
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
                raise _RowError("it is too long or holds a NUL byte", "this is no text with a box a row")
            count, row = width, line
            if '"' not in line:
                count = line.count(separator) + 1
            elif not plainly_quoted.fullmatch(line):
                cells = _cells(line, lines, separator, taken)
                count, row = len(cells), separator.join('"' + cell.replace('"', '""') + '"' for cell in cells)
            if count != width:
                raise _RowError(f"it has {count} cells, the header {width}", "write a cell for each column")
        except _RowError as err:
            lines.put_back(taken)
            fault(number, *err.args)
        else:
            yield number, row if row[-1] == "\n" else f"{row}\n"


def _cells(line: str, lines: _Lines, separator: str, taken: list[tuple[int, str]]) -> list[str]:
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
        raise _RowError(found, "put quotes around whole cells and double them within") from err


def _batches(rows: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        size += len(row[1])
        if size > _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _header(line: str) -> tuple[list[str], str]:
    """The column names of a header, and the separator that tells them apart best."""
    parted: list[tuple[list[str], str]] = []
    for separator in ",;\t":
        with suppress(csv.Error):
            parted.append((next(csv.reader([line], delimiter=separator, skipinitialspace=True), []), separator))
    return max(parted, key=lambda item: (table_kind(item[0]) is not None, len(item[0])), default=([], ","))


def _lacking(header: Sequence[str]) -> str:
    columns = {cell.strip().lower() for cell in header}
    needed = max(_NEEDED.values(), key=lambda names: len(columns.intersection(names)))
    lacking = [name for name in needed if name not in columns]
    if len(lacking) == len(needed):
        return "it does not begin with the header of a CSV of boxes"
    return f"its header lacks {', '.join(lacking)}" if lacking else "a column stands twice in its header"


def _encoding(path: Path) -> str:
    with path.open("rb") as handle:
        block = handle.read(_BLOCK_BYTES)
        if marked := _marked(block):
            return marked
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while block:
                decoder.decode(block)
                block = handle.read(_BLOCK_BYTES)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return _FALLBACK
    return "utf-8"


def _marked(data: bytes) -> str | None:
    return next((encoding for bom, encoding in _BOMS if data.startswith(bom)), None)


def _place(path: Path, line: int) -> str:
    return f"{path}:{line}" if line else str(path)


def _malformed(path: Path, line: int, found: str, fix: str) -> DataError:
    return DataError("reading the annotations", _place(path, line), found, fix, code="D104")
