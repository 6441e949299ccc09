"""CSV files with a box a row, read by column name: VoTT 2's, the tutorials' and Open Images'.

- VoTT 2: ``image,xmin,ymin,xmax,ymax,label``, pixels
  (https://github.com/microsoft/VoTT/blob/master/src/providers/export/csv.ts).
- The tutorials' (``xml_to_csv.py`` in https://github.com/datitran/raccoon_dataset):
  ``filename,width,height,class,xmin,ymin,xmax,ymax``, pixels; width and height may be absent.
- Open Images: ``ImageID,…,LabelName,…,XMin,XMax,YMin,YMax,…``, fractions of the image's sides
  (https://storage.googleapis.com/openimages/web/download_v7.html).

Rows are told apart and counted first, and only whole ones go to pandas, a batch at a time: one bad row costs neither
the others nor their line numbers, and a million rows are never held as text at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from itertools import repeat
from pathlib import Path
from typing import TextIO

from gcpod.data.formats.openimages import read_descriptions
from gcpod.data.formats.reading import head_of, malformed, place, unreadable
from gcpod.data.formats.table_header import EXPECTED, FORMATS, NEEDED, OPTIONAL, Kind, lacking, parse_header, table_kind
from gcpod.data.formats.table_images import ImageRows, Table
from gcpod.data.formats.table_rows import Lines, batches, encoding_of, rows
from gcpod.data.formats.text import FALLBACK, marked, read_as_fallback
from gcpod.data.model import SPLITS, Annotation, Box, Boxes, Labels, Split
from gcpod.errors import DataError
from gcpod.status import Finding

_SNIFFED_BYTES = 8192
_TRIED = "reading the annotations"
_malformed = partial(malformed, _TRIED)


def sniff_table(path: Path) -> Kind | None:
    """The kind of a file by its first few KB; None for whatever is no such CSV or cannot be read, never an error."""
    data = head_of(path, _SNIFFED_BYTES)
    lines = data.decode(marked(data) or "utf-8", errors="replace").replace("\r", "\n").split("\n")
    return table_kind(parse_header(next(filter(str.strip, lines), ""))[0])


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
    formats = dict.fromkeys(FORMATS[table.kind] for table in used)
    annotations = tuple(_annotations(used, faults))
    return Labels(" and ".join(formats), annotations, faults=tuple(faults))


def _without_repeats(tables: Sequence[Table], faults: list[Finding]) -> Iterator[Table]:
    sided = [table for table in tables if table.side]
    both = {table.side for table in sided} == set(SPLITS)
    for table in tables:
        rivals = [other.images for other in sided if other.fraction == table.fraction]
        if both and not table.side and all(any(name in images for images in rivals) for name in table.images):
            found = f"it was left out: {', '.join(other.path.name for other in sided)} have all its images"
            faults.append(Finding("D104", "note", str(table.path), found, "give it alone to read it"))
        else:
            yield table


def _annotations(tables: Sequence[Table], faults: list[Finding]) -> Iterator[Annotation]:
    """Empties the tables image by image, so that columns and boxes are not held twice."""
    for index, first in enumerate(tables):
        for name in list(first.images):
            alike = [table for table in tables[index:] if table.fraction == first.fraction and name in table.images]
            parts = [(table, table.images.pop(name)) for table in alike]
            sides: dict[Split, str] = {}
            for table, image in parts:
                if table.side:
                    sides.setdefault(table.side, place(table.path, image.line))
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


def _joined(images: Sequence[ImageRows]) -> Iterator[Box]:
    yield from images[0].boxes()
    seen = set(images[0].boxes()) if len(images) > 1 else set()
    for image in images[1:]:
        yield from (replace(box, line=0) for box in image.boxes() if box not in seen)
        seen.update(image.boxes())


def _read(path: Path, names: Mapping[str, str]) -> Table:
    try:
        encoding = encoding_of(path)
        with path.open(encoding=encoding) as handle:
            table = _parse(handle, path, names)
    except OSError as err:
        raise unreadable(_TRIED, path, err) from err
    except UnicodeError as err:
        raise _malformed(path, 0, f"it cannot be decoded ({err})", "store it as UTF-8") from err
    if encoding == FALLBACK:
        table.faults.append((0, read_as_fallback(path)))
    return table


def _parse(handle: TextIO, path: Path, names: Mapping[str, str]) -> Table:
    """Reads text whose line breaks are line feeds."""
    lines = Lines(handle)
    number, first = next((item for item in lines if item[1].strip()), (0, ""))
    if not first:
        raise _malformed(path, 0, "it is empty", EXPECTED)
    header, separator = parse_header(first)
    kind = table_kind(header)
    if kind is None:
        raise _malformed(path, number, lacking(header), EXPECTED)
    columns = [cell.strip().lower() for cell in header]
    table = Table(path, kind, NEEDED[kind] + OPTIONAL[kind], separator != ",", names)
    for batch in batches(rows(lines, separator, len(columns), table.fault)):
        _add(table, batch, columns, separator)
    if not table.images and not table.faults:
        raise _malformed(path, number, "no row follows its header", "write a row for each box")
    return table


def _add(table: Table, batch: Sequence[tuple[int, str]], columns: list[str], separator: str) -> None:
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
