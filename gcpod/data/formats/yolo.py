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
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final

import yaml

from gcpod.data.formats.vott1 import HOLDERS, Listed, load_text, numbered, plain_parts, split_sides, walk
from gcpod.data.labelmap import LabelMap
from gcpod.data.model import Annotation, Box, Boxes, Labels, Split, side_of
from gcpod.errors import DataError
from gcpod.status import Finding

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 20
MAX_FRACTION: Final = 2
"""A box a little outside of its image is a slip; numbers beyond this are pixels."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_NAMES_KEY = re.compile(rb"""(?:^|[{,]\s*)["']?names["']?\s*:""", re.MULTILINE)
_NO_LABELS = re.compile(r"(predefined_)?classes\.txt|readme.*\.txt|requirements.*\.txt", re.IGNORECASE)
_IMAGE_PATH = re.compile(r".+\.[a-z]\w{2,4}", re.IGNORECASE)
_CLASS_LISTS: Final = ("classes.txt", "obj.names")
_SPLIT_KEYS: Final = ("train", "val", "valid", "test")
_YAML: Final = (".yaml", ".yml")
_SNIFFED, _SNIFFED_FOLDERS, _HEAD_BYTES = 8, 64, 1 << 16


@dataclass(frozen=True)
class Config:
    """What data.yaml, or a list of names, says.

    Attributes:
        names: by class id, from 0; with gaps only where the ids are written out.
        splits: side, what is written there (an image folder, or a .txt that lists images), and its place.
        poses: lines are a box and keypoints, no polygons.
    """

    path: Path
    names: Mapping[int, str]
    splits: tuple[tuple[Split, str, str], ...] = ()
    poses: bool = False
    faults: tuple[Finding, ...] = ()


def sniff_yolo(folder: Path) -> bool:
    """Whether a YAML with ``names``, or label files, are there; False for whatever cannot be looked at."""
    try:
        if _yamls(folder):
            return True
        named = any((folder / name).is_file() for name in _CLASS_LISTS)
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
    names = [name for name in walk(labels, ".txt") if not _NO_LABELS.fullmatch(PurePosixPath(name).name)]
    chosen = _read_config(config) if config else _find_config(labels)
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
            broken[stem] = Finding(err.code, "error", err.on, err.found, err.fix)
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
        raise _malformed(labels, "there are no label files (*.txt) in it", "give the folder that holds them")
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
        values = [float(cell) for cell in cells if _NUMBER.fullmatch(cell)]
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
        else:
            boxes.append(Box(label, *edges, line=number))
            if not pixels and any(value > MAX_FRACTION for value in values[1:5]):
                pixels = number
    if pixels:
        fix = "divide x and width by the image's width, y and height by its height"
        faults.append(Finding("D104", "error", f"{path}:{pixels}", "these are pixels; YOLO wants fractions", fix))
    return Boxes(boxes), tuple(faults)


def parse_config(text: str, path: Path) -> Config:
    """Parses data.yaml; class names are taken as written, also where YAML would read a number or a truth value.

    Raises:
        DataError: D104, no YAML, or YAML that uses aliases or tags, is over 1 MB or nested deeper than 20; D101, no
            names, or one that is empty, repeated or not printable.
    """
    keys = _mapping(text, path)
    at = {key: f"{path}:{node.start_mark.line + 1}" for key, node in keys.items()}
    if "names" not in keys:
        raise _misnamed(path, "it has no names", "write names: [first, second…] into it")
    names = _checked(_yaml_names(keys["names"], path), path)
    faults = []
    if "nc" in keys and _scalar(keys["nc"]) != str(len(names)):
        found = f"nc is {_scalar(keys['nc'])[:20]!r}, but there are {len(names)} names"
        faults.append(Finding("D101", "warning", at["nc"], found, "the names count; correct nc"))
    splits = []
    for key in keys.keys() & set(_SPLIT_KEYS):
        node, side = keys[key], side_of(key)
        entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
        splits += [(side, _scalar(entry), at[key]) for entry in entries if side and _scalar(entry)]
    return Config(path, names, tuple(sorted(splits)), "kpt_shape" in keys, tuple(faults))


def parse_names(text: str, path: Path) -> Config:
    """Parses a list of names, one a line from class 0; blank lines may stand at its end only.

    Raises:
        DataError: D101; as for `parse_config`.
    """
    lines = enumerate(text.rstrip().split("\n"))
    return Config(path, _checked(((index, name, f"{path}:{index + 1}") for index, name in lines), path))


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


def _read_config(path: Path) -> Config:
    text, odd = load_text(path)
    config = (parse_config if path.suffix.lower() in _YAML else parse_names)(text, path)
    return replace(config, faults=(*odd, *config.faults))


def _find_config(labels: Path) -> Config:
    folders = [labels]
    while (name := folders[-1].name) and (name.lower() in HOLDERS or side_of(name)):
        folders.append(folders[-1].parent)
    try:
        for folder in folders:
            yamls = _yamls(folder)
            yamls = [path for path in yamls if path.stem.lower() in ("data", "dataset")] or yamls
            if len(yamls) > 1:
                raise _misnamed(folder, f"{yamls[0].name} and {yamls[1].name} both have names", "say which one counts")
            if yamls:
                return _read_config(yamls[0])
        lists = [folder / name for folder in folders[1:] for name in _CLASS_LISTS if (folder / name).is_file()]
    except OSError as err:
        raise _malformed(err.filename or labels, err.strerror or str(err), "make it readable") from err
    lists += [labels / name for name in walk(labels, _CLASS_LISTS) if Path(name).name.lower() in _CLASS_LISTS]
    if not lists:
        fix = "write data.yaml with names: [first, second…] beside the labels"
        raise _misnamed(labels, "there are no class names, neither data.yaml nor classes.txt", fix)
    configs = [_read_config(path) for path in lists]
    other = next((config.path for config in configs if config.names != configs[0].names), None)
    if other:
        raise _misnamed(other, f"it differs from {lists[0]}", "number the classes alike everywhere, in one list")
    return configs[0]


def _yamls(folder: Path) -> list[Path]:
    """The folder's YAML files that have a key ``names``."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.name.lower().endswith(_YAML)):
        if not path.name.startswith(".") and path.is_file():
            with path.open("rb") as file:
                found += [path] if _NAMES_KEY.search(file.read(MAX_BYTES)) else []
    return found


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
    return named if not cells else len(cells) > 4 and cells[0].isdigit() and all(map(_NUMBER.fullmatch, cells))


def _mapping(text: str, path: Path) -> dict[str, yaml.Node]:
    if len(text) > MAX_BYTES:
        raise _malformed(path, f"it has {len(text)} characters", "data.yaml is a few dozen lines; check the path")
    try:
        _refuse_odd(text, path)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError) as err:
        mark = getattr(err, "problem_mark", None)
        found = getattr(err, "problem", None) or getattr(err, "reason", None) or str(err)
        raise _malformed(f"{path}:{mark.line + 1}" if mark else path, str(found), "correct the YAML there") from err
    if not isinstance(root, yaml.MappingNode):
        raise _malformed(path, "it is no mapping", "write it as `key: value` lines")
    keys: dict[str, yaml.Node] = {}
    for key, value in root.value:
        if _scalar(key) in keys:
            place = f"{path}:{key.start_mark.line + 1}"
            raise _malformed(place, f"{_scalar(key)[:60]!r} is given twice", "keep one of them")
        keys[_scalar(key)] = value
    return keys


def _refuse_odd(text: str, path: Path) -> None:
    """What no data.yaml needs: aliases can make a short text huge, depth ends in a RecursionError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
        if isinstance(event, yaml.AliasEvent):
            raise _malformed(where, "it uses a YAML alias (*name)", "write the value out")
        if getattr(event, "tag", None) is not None:
            raise _malformed(where, "it uses a YAML tag (!name)", "write the value without it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _malformed(where, f"it is nested deeper than {MAX_DEPTH}", "flatten it")


def _scalar(node: yaml.Node) -> str:
    """The text of a plain value, "" for null and for whatever is no plain value."""
    is_text = isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null"
    return str(node.value) if is_text else ""


def _yaml_names(node: yaml.Node, path: Path) -> Iterator[tuple[int, str, str]]:
    pairs: Iterable[tuple[str, yaml.Node]] = ()
    if isinstance(node, yaml.SequenceNode):
        pairs = ((str(index), value) for index, value in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        pairs = ((_scalar(key), value) for key, value in node.value)
    for index, value in pairs:
        place = f"{path}:{value.start_mark.line + 1}"
        if not re.fullmatch("[0-9]{1,9}", index) or not isinstance(value, yaml.ScalarNode):
            raise _misnamed(place, "this is no class id with its name", "write names: [first, second…]")
        yield int(index), str(value.value), place


def _checked(named: Iterable[tuple[int, str, str]], path: Path) -> dict[int, str]:
    """Names by class id, out of ids, names and places."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for index, written, place in named:
        name = " ".join(written.split())
        if not name or index in names or name in taken:
            found = f"class {index}, named {name[:60]!r}, is there twice or its name is empty"
            raise _misnamed(place, found, "give each class a name of its own")
        if re.search("[\x00-\x1f\x7f\ud800-\udfff]", name):
            raise _misnamed(place, f"{name[:60]!r} holds a control character", "remove it")
        names[index] = name
        taken.add(name)
    if not names:
        raise _misnamed(path, "it names no classes", "write names: [first, second…] into it")
    return names


def _malformed(on: object, found: str, fix: str) -> DataError:
    return DataError("reading the labels", on, found, fix, code="D104")


def _misnamed(on: object, found: str, fix: str) -> DataError:
    return DataError("reading the class names", on, found, fix, code="D101")
