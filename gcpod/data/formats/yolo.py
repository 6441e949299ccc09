"""YOLO's labels: a text file for each image, a line for each object, edges as fractions of the image's sides.

The line's format is Darknet's (https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects); for
polygons, keypoints and data.yaml see https://docs.ultralytics.com/datasets/detect/ and its neighbours segment/ and
pose/. Classes count from 0; their names stand in data.yaml, or a name a line in classes.txt or obj.names.
"""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

from gcpod.data.files import with_suffix
from gcpod.data.formats.reading import fault_of, malformed, names_below
from gcpod.data.formats.splitlists import Listed, plain_parts, split_sides
from gcpod.data.formats.text import NUMBER, load_text, numbered
from gcpod.data.formats.yolo_config import CLASS_LISTS, find_config, read_config, yamls_with_names
from gcpod.data.formats.yolo_names import Config
from gcpod.data.labelmap import LabelMap
from gcpod.data.model import Annotation, Box, Boxes, Labels, Split, side_of
from gcpod.errors import DataError
from gcpod.status import Finding

MAX_FRACTION: Final = 2
"""A box a little outside of its image is a slip; numbers beyond this are pixels."""

_NO_LABELS = re.compile(r"(predefined_)?classes\.txt|readme.*\.txt|requirements.*\.txt", re.IGNORECASE)
_IMAGE_PATH = re.compile(r".+\.[a-z]\w{2,4}", re.IGNORECASE)
_SNIFFED, _SNIFFED_FOLDERS, _HEAD_BYTES = 8, 64, 1 << 16
_malformed = partial(malformed, "reading the labels")


def sniff_yolo(folder: Path) -> bool:
    """Whether a YAML with ``names``, or label files, are there; False for whatever cannot be looked at."""
    try:
        if yamls_with_names(folder):
            return True
        named = any((folder / name).is_file() for name in CLASS_LISTS)
        return any(_like_labels(head, named) for head in islice(_heads(folder), _SNIFFED))
    except (OSError, ValueError):
        return False


def read_yolo(labels: Path, config: Path | None) -> Labels:
    """Reads every .txt below a folder that is not about something else; their stems leave out "images" and "labels".

    The side is what a folder in the stem names ("train", "valid"), or else what the config's ``train``, ``val`` and
    ``test`` say, or lists of images of these names that lie among the labels.

    Args:
        config: data.yaml or a list of names; None looks for one in the folder, in those above it as long as they are
            called "labels", "images" or after a split, and for lists of names also below it.

    Raises:
        DataError: D104, a folder or the config cannot be read, or there are no labels; D101, there are no class names,
            or they are wrong.
    """
    below = names_below(labels)
    names = [name for name in with_suffix(below, (".txt",)) if not _NO_LABELS.fullmatch(PurePosixPath(name).name)]
    chosen = read_config(config) if config else find_config(labels, below)
    files, listed, faults = _named_lists(chosen)
    read: dict[str, tuple[Path, Boxes]] = {}
    broken: dict[str, Finding] = {}
    for name in names:
        path, stem = labels / name, "/".join(plain_parts(name[: -len(".txt")].split("/")))
        if path.name in files and path.resolve() in files[path.name]:
            continue
        try:
            text, odd = load_text(path)
        except DataError as err:
            broken[stem] = fault_of(err)
            continue
        side = side_of(path.stem)
        if side and _lists_images(text):
            listed += _entries(text, path, side)
        elif stem in read:
            found = f"there are labels for {stem!r} in {read[stem][0]}, too"
            faults.append(Finding("D104", "error", str(path), found, "keep one file for each image"))
        else:
            boxes, wrong = parse_labels(text, path, chosen.names, chosen.poses)
            read[stem] = (path, boxes)
            faults += [*odd, *wrong]
    if not read and not broken:
        raise _malformed(labels, 0, "there are no label files (*.txt) in it", "give the folder that holds them")
    given, doubts = _given(read.keys() | broken.keys(), listed, chosen)
    return Labels(
        format="YOLO",
        annotations=tuple(
            Annotation(path, "", 0, 0, boxes, stem, given.get(stem), fraction=True)
            for stem, (path, boxes) in read.items()
        ),
        label_map=LabelMap.impose(name for _, name in sorted(chosen.names.items())),
        faults=(*chosen.faults, *faults, *doubts),
        broken=broken,
    )


def parse_labels(
    text: str, path: Path, names: Mapping[int, str], poses: bool = False,
) -> tuple[Boxes, tuple[Finding, ...]]:
    """The boxes of one file, edges in fractions, and what is wrong with its other lines.

    A line is ``class x_center y_center width height``, with or without a confidence, or ``class x1 y1 x2 y2 x3 y3…``,
    which becomes the box around these points; with ``poses`` keypoints may follow the box.
    """
    boxes, faults, pixels = [], [], 0
    for number, line in numbered(text):
        cells = line.split()
        values = [float(cell) for cell in cells if NUMBER.fullmatch(cell)]
        place = f"{path}:{number}"
        if len(values) != len(cells) or not values[0].is_integer():
            found = f"{line[:60]!r} is no class id with numbers behind it"
            faults.append(Finding("D104", "error", place, found, "write class x_center y_center width height"))
        elif (edges := _edges(values[1:], poses)) is None:
            found = f"{len(cells)} numbers are neither a box (5) nor a polygon (7, 9, 11…)"
            faults.append(Finding("D104", "error", place, found, "write class x_center y_center width height"))
        elif (label := names.get(int(values[0]))) is None:
            found = f"class {cells[0][:20]} has no name; the highest that has one is {max(names, default='none')}"
            faults.append(Finding("D101", "error", place, found, "name it in the list of classes, or correct the id"))
        elif any(MAX_FRACTION < value < math.inf for value in values[1:5]):
            pixels = pixels or number
        else:
            boxes.append(Box(label, *edges, line=number))
    if pixels:
        fix = "divide x and width by the image's width, y and height by its height"
        faults.append(Finding("D104", "error", f"{path}:{pixels}", "these are pixels; YOLO wants fractions", fix))
    return Boxes(boxes), tuple(faults)


def _edges(values: Sequence[float], poses: bool) -> tuple[float, float, float, float] | None:
    """xmin, ymin, xmax, ymax; None when there is another count of numbers than any line has."""
    if len(values) in (4, 5) or (poses and len(values) > 5):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 6 or len(values) % 2:
        return None
    if any(map(math.isnan, values)):
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _given(
    stems: Collection[str], listed: Iterable[Listed], config: Config,
) -> tuple[dict[str, Split], tuple[Finding, ...]]:
    """A folder's own name comes first: two keys of data.yaml may well name one folder."""
    given: dict[str, Split] = {}
    by_name: dict[str, Split] = {}
    for stem in stems:
        folders = stem.split("/")[:-1]
        for side, entry, _ in config.splits:
            shown = plain_parts([*_slashed(entry).split("/"), ""])[:-1]
            if any(folders[:length] == shown[-length:] for length in range(1, len(folders) + 1)):
                given.setdefault(stem, side)
        for folder in folders:
            if named := side_of(folder):
                by_name.setdefault(stem, named)
    sides = split_sides(stems, listed)
    return {**given, **sides.given, **by_name}, sides.faults


def _named_lists(config: Config) -> tuple[dict[str, set[Path]], list[Listed], list[Finding]]:
    """The config and the lists it names, by bare name, none of which are labels; and what the lists say."""
    files: defaultdict[str, set[Path]] = defaultdict(set, {config.path.name: {config.path.resolve()}})
    listed: list[Listed] = []
    faults: list[Finding] = []
    for side, entry, place in config.splits:
        if not entry.lower().endswith(".txt"):
            continue
        path = _below(config.path.parent, entry)
        if path is None:
            found = f"there is no {entry[:60]!r} beside it or below"
            faults.append(Finding("D104", "warning", place, found, "its images are split by their own bytes"))
            continue
        files[path.name].add(path.resolve())
        text, odd = load_text(path)
        listed += _entries(text, path, side)
        faults += odd
    return files, listed, faults


def _below(folder: Path, entry: str) -> Path | None:
    """The file that a path from another machine means here; it never leads out of the folder."""
    parts = [part for part in _slashed(entry).split("/") if part not in ("", ".", "..") and ":" not in part]
    for start in range(len(parts)):
        path = folder.joinpath(*parts[start:])
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            return None
    return None


def _entries(text: str, path: Path, side: Split) -> list[Listed]:
    if path.stem.lower() == "trainval":
        return []
    return [Listed(line, side, f"{path}:{number}") for number, line in numbered(text)]


def _lists_images(text: str) -> bool:
    return any(_IMAGE_PATH.fullmatch(line) for _, line in islice(numbered(text), 1))


def _slashed(path: str) -> str:
    return path.replace("\\", "/")


def _heads(folder: Path) -> Iterator[bytes]:
    """The beginnings of text files, those in a folder called labels first."""
    for root, folders, files in islice(os.walk(folder), _SNIFFED_FOLDERS):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=lambda name: name != "labels")
        for name in sorted(files):
            if name.lower().endswith(".txt") and not (name.startswith(".") or _NO_LABELS.fullmatch(name)):
                with (Path(root) / name).open("rb") as file:
                    yield file.read(_HEAD_BYTES)


def _like_labels(head: bytes, named: bool) -> bool:
    """Whether a file starts like labels; an empty one is an image without objects where class names are given."""
    line = next((line for line in head.decode("utf-8-sig", "replace").splitlines() if line.strip()), "")
    cells = line.split()[: -1 if len(line) >= _HEAD_BYTES - 3 else None]
    return named if not cells else len(cells) > 4 and cells[0].isdigit() and all(map(NUMBER.fullmatch, cells))
