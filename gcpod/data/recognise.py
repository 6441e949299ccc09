"""Which labelling tool's format lies in a folder or file: what is in the files decides, not their names alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gcpod.data.files import walk, with_suffix
from gcpod.data.formats.coco import sniff_coco
from gcpod.data.formats.tables import sniff_table
from gcpod.data.formats.tfrecord import record_files, sniff_tfrecord
from gcpod.data.formats.voc import sniff_voc
from gcpod.data.formats.vott1 import sniff_vott1
from gcpod.data.formats.yolo import sniff_yolo
from gcpod.errors import DataError

Format = Literal["voc", "vott1", "csv", "openimages", "coco", "yolo", "tfrecord"]

NAMES: Final[dict[Format, str]] = {
    "vott1": "VoTT 1 Pascal VOC export", "voc": "Pascal VOC XML", "yolo": "YOLO text files", "coco": "COCO JSON",
    "openimages": "Open Images CSV", "csv": "CSV table", "tfrecord": "TFRecords",
}
"""In the order in which they win when a folder holds several: what tools write before what scripts derive from it."""

_TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class Source:
    """Where a dataset's labels lie.

    Attributes:
        format: of the labels.
        folder: the folder that they were found below.
        names: the files to read, relative to the folder, for formats that have no folder structure of their own.
        also: other formats that lie there and were not chosen.
    """

    format: Format
    folder: Path
    names: tuple[str, ...] = ()
    also: tuple[Format, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of the files to read."""
        return tuple(self.folder / name for name in self.names)


def recognise(where: Path, wanted: str = "auto") -> Source:
    """Finds the labels in a folder, a file, or a pattern such as ``labels/*.csv``.

    Args:
        where: the place.
        wanted: a `Format` to insist on, or "auto".

    Raises:
        DataError: D104; there is nothing, or nothing of the format wanted.
    """
    found: dict[Format, tuple[str, ...]] = {}
    if where.is_dir():
        folder = where
        found = dict(_in_folder(where))
    else:
        folder = where.parent
        found = dict(_in_files(_matching(where)))
    chosen = [kind for kind in NAMES if kind in found and wanted in ("auto", kind)]
    if not chosen:
        what = "no labels in a format known here" if wanted == "auto" else f"nothing of the format {wanted}"
        fix = "name the folder or file with the labels as annotations (data.annotations, --annotations); known are "
        fix += ", ".join(NAMES.values())
        raise DataError("looking for annotations in", where, what, fix, code="D104")
    first = chosen[0]
    return Source(first, folder, found[first], tuple(kind for kind in NAMES if kind in found and kind != first))


def _matching(where: Path) -> list[Path]:
    if where.exists():
        return [where]
    found = sorted(where.parent.glob(where.name)) if "*" in where.name and where.parent.is_dir() else []
    # Open Images' names of its classes lie beside its boxes, and are found there by themselves.
    found = [path for path in found if "class-descriptions" not in path.name]
    if not found:
        raise DataError("looking for annotations in", where, "there is no such file or folder", "give an existing one")
    return found


def _in_files(files: Sequence[Path]) -> Iterator[tuple[Format, tuple[str, ...]]]:
    names = tuple(path.name for path in files)

    def all_are(sniff: Callable[[Path], object]) -> bool:
        return all(sniff(path) for path in files)

    if all_are(sniff_tfrecord):
        yield "tfrecord", names
    elif all_are(sniff_voc):
        yield "voc", names
    elif all_are(lambda path: path.suffix.lower() in (".yaml", ".yml")):
        yield "yolo", names
    elif all_are(sniff_coco):
        yield "coco", names
    elif all_are(lambda path: sniff_table(path) == "openimages"):
        yield "openimages", names
    elif all_are(sniff_table):
        yield "csv", names


def _in_folder(folder: Path) -> Iterator[tuple[Format, tuple[str, ...]]]:
    names = walk(folder)
    records = record_files(folder, names)
    if records:
        yield "tfrecord", tuple(path.relative_to(folder).as_posix() for path in records)
    if sniff_vott1(folder):
        yield "vott1", ()
    xml = with_suffix(names, (".xml",))
    if any(sniff_voc(folder / name) for name in xml):
        yield "voc", tuple(xml)
    if sniff_yolo(folder):
        yield "yolo", ()
    coco = [name for name in with_suffix(names, (".json",)) if sniff_coco(folder / name)]
    if coco:
        yield "coco", tuple(coco)
    tables = {name: sniff_table(folder / name) for name in with_suffix(names, _TABLES)}
    open_images = tuple(name for name, kind in tables.items() if kind == "openimages")
    if open_images:
        yield "openimages", open_images
    others = tuple(name for name, kind in tables.items() if kind in ("vott2", "tutorial"))
    if others:
        yield "csv", others
