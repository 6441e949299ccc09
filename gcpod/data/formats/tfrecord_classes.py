"""What the boxes of records are called: by their text, else by their id and the label map beside the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gcpod.data.formats.reading import fault_of
from gcpod.data.labelmap import LabelMap, read_pbtxt
from gcpod.errors import DataError
from gcpod.status import Finding


class Classes:
    """Names boxes, and remembers what is wrong with ids: once each, as one cause is behind thousands of boxes."""

    def __init__(self, label_map: LabelMap | None) -> None:
        self._mapped = label_map is not None
        self._ids = label_map.ids() if label_map else {}
        self._names = {item.id: item.name for item in label_map.items} if label_map else {}
        self._contradictions: dict[tuple[str, int], str] = {}
        self._nameless: dict[int, str] = {}

    def label(self, text: str, number: int | None, place: str) -> str:
        """The label of a box by its text, without text ("") by its id; "" where it has neither."""
        if number is None:
            return text
        if not text:
            if number not in self._names:
                self._nameless.setdefault(number, place)
            return self._names.get(number, f"class_{number}")
        if self._ids.get(text, number) != number or (text not in self._ids and number in self._names):
            self._contradictions.setdefault((text, number), place)
        return text

    def faults(self) -> Iterator[Finding]:
        """What is wrong with the ids so far (D101)."""
        for (text, number), place in self._contradictions.items():
            known = f"is {self._names[number]!r}" if number in self._names else "does not exist"
            found = f"the text of a box is {text!r} and its id {number}, which {known} in the label map"
            yield Finding("D101", "error", place, found, "put the label map there that the records were written with")
        for number, place in self._nameless.items():
            if self._mapped:
                found = f"a box has id {number}, which does not exist in the label map, and no text"
                yield Finding("D101", "error", place, found, "add that id to the label map")
            else:
                found = f"a box has id {number} but no text, so it is called 'class_{number}'"
                yield Finding("D101", "warning", place, found, "put the label map (*.pbtxt) beside the records")


def label_map_beside(files: Sequence[Path], root: Path) -> tuple[LabelMap | None, list[Finding]]:
    """The label map in the folders of the files or in ``root``, where there is one or all are equal; and faults."""
    folders = {root, *(path.parent for path in files)}
    paths = sorted(path for folder in folders for path in folder.glob("*.pbtxt") if not path.name.startswith("."))
    maps: dict[LabelMap, Path] = {}
    faults = []
    for path in paths:
        try:
            maps.setdefault(read_pbtxt(path), path)
        except DataError as err:
            faults.append(fault_of(err))
    if len(maps) > 1:
        first, second, *_ = maps.values()
        found = f"it differs from {first.name} in {first.parent}, so that none of them is used"
        faults.append(Finding("D101", "warning", str(second), found, "leave one label map beside the records"))
    return (next(iter(maps)) if len(maps) == 1 else None), faults
