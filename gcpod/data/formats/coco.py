"""COCO's JSON of instances (https://cocodataset.org/#format-data): boxes, categories and, when asked for, outlines.

Boxes are stored as x, y, width and height in pixels. The arrays may come in any order, so annotations are kept in
columns until the images and categories they name are known; the file is never in memory as a tree of objects.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

from gcpod.data.formats.jsonitems import (
    CORRECT_IT,
    Id,
    Item,
    id_of,
    number_of,
    pixels_of,
    read_json,
    shown,
    text_of,
    walk,
    wrong_item,
    wrong_json,
)
from gcpod.data.labelmap import LabelItem, LabelMap
from gcpod.data.masks import Rle, parse_segmentation
from gcpod.data.model import Annotation, Box, Boxes, Labels, Mask, side_in
from gcpod.errors import DataError
from gcpod.status import Finding, Severity

FORMAT: Final = "COCO JSON"

_ARRAYS = ("images", "annotations", "categories")
_SNIFFED_BYTES = 1 << 13
_SIGN = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
_MAX_ID = (1 << 31) - 1


def sniff_coco(path: Path) -> bool:
    """Whether the beginning of a file looks like COCO's; False also for what cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_SNIFFED_BYTES)
    except (OSError, ValueError):
        return False
    text = head.decode(json.detect_encoding(head), errors="ignore").lstrip()
    return text.startswith("{") and _SIGN.search(text) is not None


def read_coco(files: Sequence[Path], masks: bool = False) -> Labels:
    """Reads files from disk, one at a time, and joins them; see `parse_coco`.

    Files next to each other that name the same image describe it together: it gets the boxes of both, identical ones
    once. When their names put it on both sides of the split, it evaluates, with a warning (D107). Categories may be
    missing in one file, but an id or a name must mean the same in all (D101).

    Raises:
        DataError: D104; a file cannot be opened, is not Unicode, or see `parse_coco`.
    """
    return _joined([_parse(read_json(path), path, masks) for path in files])


def parse_coco(text: str, path: Path, masks: bool = False) -> Labels:
    """Parses one file; ``path`` is only for messages, for the side of the split and for the result.

    Items that cannot be used are left out and become faults with their line and index: D104 for images and
    annotations, D101 for categories. The label map keeps the categories' ids; it is None when a category has id 0,
    which is the background's (a warning), or is at fault.

    Args:
        masks: whether boxes get their outline; without it, segmentations are passed over, whatever is in them.

    Raises:
        DataError: D104 with the line; not JSON, or without an array of images, annotations and categories each.
    """
    return _joined([_parse(text, path, masks)])


@dataclass(frozen=True)
class _Part:
    """What one file says.

    Attributes:
        categories: names by id; of an id that stands twice the first.
        numbered: whether the categories can be a label map.
    """

    path: Path
    annotations: tuple[Annotation, ...]
    categories: dict[Id, str]
    numbered: bool
    faults: tuple[Finding, ...]


def _parse(text: str, path: Path, masks: bool) -> _Part:
    file = _File(path, masks)
    for item in walk(text, path):
        file.take(item)
    return file.part()


class _File:
    """A file while it is read: images and categories by id, annotations in columns."""

    def __init__(self, path: Path, masks: bool) -> None:
        self._path, self._with_masks = path, masks
        self._faults: list[Finding] = []
        self._members: set[str] = set()
        self._images: dict[Id, tuple[str, int, int]] = {}
        self._categories: dict[Id, str] = {}
        self._names: set[str] = set()
        self._numbered = True
        self._owner_numbers: dict[Id, int] = {}
        self._kind_numbers: dict[Id, int] = {}
        self._owners, self._kinds, self._indices, self._lines = array("L"), array("L"), array("L"), array("L")
        self._edges, self._crowds = array("d"), bytearray()
        self._masks: dict[int, Mask] = {}

    def take(self, item: Item) -> None:
        """Keeps what the next item says, or why it cannot be used."""
        if item.key not in _ARRAYS:
            return
        if item.number < 0:
            if not isinstance(item.value, list):
                raise wrong_json(f"{self._path}:{item.line}", f"{item.key!r} is no array", CORRECT_IT)
            self._members.add(item.key)
            return
        try:
            if not isinstance(item.value, dict):
                raise wrong_item("it is no object")
            if item.doubled:
                raise wrong_item(f"the key {shown(item.doubled)} stands twice in it")
            if item.key == "images":
                self._take_image(item.value)
            elif item.key == "annotations":
                self._take_annotation(item.value, item)
            else:
                self._take_category(item.value, item)
        except DataError as err:
            self._numbered &= item.key != "categories"
            self._fault(item.key, item.number, item.line, err.found, err.fix)

    def _take_image(self, value: dict[str, object]) -> None:
        image = id_of(value, "id")
        if image in self._images:
            raise wrong_item(f"its id {shown(image)} is taken by another image", "give each image its own id")
        self._images[image] = (text_of(value, "file_name"), pixels_of(value, "width"), pixels_of(value, "height"))

    def _take_category(self, value: dict[str, object], item: Item) -> None:
        category, name = id_of(value, "id"), " ".join(text_of(value, "name").split())
        if not name:
            raise wrong_item("its name is empty", "name the category")
        taken = shown(category) if category in self._categories else shown(name) if name in self._names else ""
        self._categories.setdefault(category, name)
        self._names.add(name)
        if taken:
            raise wrong_item(f"{taken} is taken by another category", "give each category its own id and name")
        if not isinstance(category, int) or not 0 <= category <= _MAX_ID:
            raise wrong_item(f"its id is {shown(category)}", "number the categories from 1 to 2**31 - 1")
        if category == 0:
            self._numbered = False
            found = f"{name!r} has id 0, which is the background's"
            fix = "gcpod numbers the labels anew, from 1 in the order of their names"
            self._fault(item.key, item.number, item.line, found, fix, "warning")

    def _take_annotation(self, value: dict[str, object], item: Item) -> None:
        owner, kind, (x, y, width, height) = id_of(value, "image_id"), id_of(value, "category_id"), _bbox(value)
        crowd = value.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise wrong_item(f"its iscrowd is {shown(crowd)}", "write 0 or 1")
        segmentation = value.get("segmentation") if self._with_masks else None
        if segmentation:
            self._masks[len(self._lines)] = parse_segmentation(segmentation)
        self._owners.append(self._owner_numbers.setdefault(owner, len(self._owner_numbers)))
        self._kinds.append(self._kind_numbers.setdefault(kind, len(self._kind_numbers)))
        self._edges.extend((x, y, x + width, y + height))
        self._crowds.append(crowd == 1)
        self._indices.append(item.number)
        self._lines.append(item.line)

    def part(self) -> _Part:
        """All of it, once the file has ended."""
        missing = [key for key in _ARRAYS if key not in self._members]
        if missing:
            fix = "export the dataset's instances (object detection), not captions, results or image lists"
            raise wrong_json(self._path, f"it has no array of {' and none of '.join(missing)}", fix)
        owners, labels = list(self._owner_numbers), [self._categories.get(kind, "") for kind in self._kind_numbers]
        boxes = {}
        rows = sorted(range(len(self._owners)), key=self._owners.__getitem__)
        for number, group in groupby(rows, key=self._owners.__getitem__):
            boxes[owners[number]] = Boxes(self._boxes(group, owners[number], labels))
        side = side_in(self._path.stem)
        annotations = tuple(
            Annotation(self._path, name, width, height, boxes.get(image, Boxes()), given=side)
            for image, (name, width, height) in self._images.items()
        )
        return _Part(self._path, annotations, self._categories, self._numbered, tuple(self._faults))

    def _boxes(self, rows: Iterable[int], owner: Id, labels: Sequence[str]) -> Iterator[Box]:
        for row in rows:
            label, mask = labels[self._kinds[row]], self._masks.get(row)
            found = self._unfit(owner, label, mask)
            if found:
                self._fault("annotations", self._indices[row], self._lines[row], found, CORRECT_IT)
                continue
            xmin, ymin, xmax, ymax = self._edges[4 * row : 4 * row + 4]
            crowd, line = bool(self._crowds[row]), self._lines[row]
            yield Box(label, xmin, ymin, xmax, ymax, crowd=crowd, mask=mask, line=line)

    def _unfit(self, owner: Id, label: str, mask: Mask | None) -> str:
        """Why an annotation does not go with the rest of its file; "" when it does."""
        if owner not in self._images:
            return f"its image_id {shown(owner)} is no image's"
        if not label:
            return "its category_id is no category's"
        size = self._images[owner][1:]
        if isinstance(mask, Rle) and all(size) and size != (mask.width, mask.height):
            return f"its segmentation is of {mask.width} x {mask.height} pixels, its image of {size[0]} x {size[1]}"
        return ""

    def _fault(self, key: str, index: int, line: int, found: str, fix: str, severity: Severity = "error") -> None:
        code = "D101" if key == "categories" else "D104"
        self._faults.append(Finding(code, severity, f"{self._path}:{line}", f"{key}[{index}]: {found}", fix))


def _joined(parts: Sequence[_Part]) -> Labels:
    faults = [fault for part in parts for fault in part.faults]
    images: dict[tuple[Path, str], Annotation] = {}
    for part in parts:
        for annotation in part.annotations:
            key = annotation.path.parent, annotation.filename.replace("\\", "/")
            first = images.get(key)
            images[key] = annotation if first is None else _one_image(first, annotation)
            if first is not None:
                faults += _told_twice(first, annotation)
    label_map, disagreements = _label_map(parts)
    return Labels(FORMAT, tuple(images.values()), label_map, (*faults, *disagreements))


def _one_image(first: Annotation, second: Annotation) -> Annotation:
    """Both together, as the file for evaluation names it where one is; boxes out of the other file have no line."""
    kept, other = (second, first) if second.given == "eval" and first.given != "eval" else (first, second)
    known = frozenset(kept.boxes)
    more = [box for box in other.boxes if box not in known]
    if other.path != kept.path:
        more = [replace(box, line=0) for box in more]
    return replace(
        kept, boxes=Boxes((*kept.boxes, *more)), given=kept.given or other.given,
        width=kept.width or other.width, height=kept.height or other.height,
    )


def _told_twice(first: Annotation, second: Annotation) -> Iterator[Finding]:
    where, name = str(second.path), repr(second.filename[:200])
    if {first.given, second.given} == {"train", "eval"}:
        found = f"{name} is on the other side in {first.path}"
        yield Finding("D107", "warning", where, found, "it evaluates with the boxes of both; delete it in one of them")
    elif first.path == second.path:
        found = f"{name} is named by two images"
        yield Finding("D107", "warning", where, found, "it gets the boxes of both; delete one of them")


def _label_map(parts: Sequence[_Part]) -> tuple[LabelMap | None, list[Finding]]:
    """The categories of all files together, where each id and each name means the same in all of them."""
    names: dict[Id, tuple[str, Path]] = {}
    ids: dict[str, tuple[Id, Path]] = {}
    disagreements = []
    for part in parts:
        for category, name in part.categories.items():
            other_name, named = names.setdefault(category, (name, part.path))
            other_id, numbered = ids.setdefault(name, (category, part.path))
            found = ""
            if other_name != name and named != part.path:
                found = f"category {shown(category)} is {name!r}, in {named} it is {other_name!r}"
            elif other_id != category and numbered != part.path:
                found = f"category {name!r} has id {shown(category)}, in {numbered} it has {shown(other_id)}"
            if found:
                fix = "export the files with the same categories"
                disagreements.append(Finding("D101", "error", str(part.path), found, fix))
    if not names or disagreements or not all(part.numbered for part in parts):
        return None, disagreements
    return LabelMap(tuple(LabelItem(int(category), name) for category, (name, _) in names.items())), disagreements


def _bbox(value: dict[str, object]) -> tuple[float, float, float, float]:
    found = value.get("bbox")
    if not isinstance(found, list) or len(found) != 4:
        raise wrong_item("its bbox is not [x, y, width, height]" if "bbox" in value else "it has no bbox")
    x, y, width, height = map(number_of, found)
    return x, y, width, height
