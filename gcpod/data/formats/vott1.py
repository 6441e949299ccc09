"""VoTT 1's Pascal VOC export, and any folder laid out like the VOC devkit's.

Annotations/ holds the XML, ImageSets/Main/ says in text files which image is on which side of the split
(http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html, "Image Sets"), pascal_label_map.pbtxt the ids.
VoTT 1 (https://github.com/microsoft/VoTT/tree/v1.7.2, src/lib/detection_algorithms/pascal_voc/exporter.js) writes no
list of its images but one for each label and side, and cuts four characters off an image's name, whatever its suffix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from gcpod.data.crew import Crew
from gcpod.data.files import with_suffix
from gcpod.data.formats.reading import fault_of, malformed, names_below
from gcpod.data.formats.splitlists import Listed, split_sides
from gcpod.data.formats.text import load_text, numbered
from gcpod.data.formats.voc import read_each
from gcpod.data.labelmap import read_pbtxt
from gcpod.data.model import Annotation, Labels, Split, side_of
from gcpod.errors import DataError
from gcpod.status import Finding

LABEL_MAP: Final = "pascal_label_map.pbtxt"
_FLAGGED = re.compile(r"(.*\S)[ \t]+(?:-1|0|\+?1)")
_malformed = partial(malformed, "reading the labels")


def sniff_vott1(folder: Path) -> bool:
    """Whether Annotations/ with XML and ImageSets/Main/ are there; False for whatever cannot be looked at."""
    try:
        if not (folder / "ImageSets" / "Main").is_dir():
            return False
        return any(path.suffix.lower() == ".xml" for path in (folder / "Annotations").iterdir())
    except (OSError, ValueError):
        return False


def read_vott1(folder: Path, crew: Crew | None = None) -> Labels:
    """Reads the XML below Annotations/ and gives each the side that the lists of ImageSets/Main/ name.

    A list ending in "train" trains; one ending in "val" or "test" evaluates, and so does an image that is in both;
    "trainval" decides nothing. The label map keeps its ids.

    Raises:
        DataError: D104, there is no XML or a folder cannot be read; D101, see `gcpod.data.labelmap.read_pbtxt`.
    """
    xmls = folder / "Annotations"
    names = with_suffix(names_below(xmls), (".xml",))
    if not names:
        raise _malformed(xmls, 0, "there is no XML in it", "export from VoTT as Pascal VOC, or name another format")
    read, broken, faults = _read_xmls(xmls, _stems(names), crew)
    listed, unread = _read_lists(folder / "ImageSets" / "Main")
    sides = split_sides(read.keys() | broken.keys(), listed)
    lost = {item.name: item for item in reversed(sides.unknown)}
    return Labels(
        format="Pascal VOC with image sets",
        annotations=tuple(replace(item, given=sides.given.get(stem)) for stem, item in read.items()),
        label_map=read_pbtxt(folder / LABEL_MAP) if (folder / LABEL_MAP).exists() else None,
        faults=(*faults, *unread, *sides.faults, *map(_lost, reversed(lost.values()))),
        broken=broken,
    )


def parse_image_set(text: str, path: Path, side: Split, flagged: bool) -> tuple[list[Listed], list[Finding]]:
    """The images in one list; ``flagged`` lists have a 1, 0 or -1 after the name, which is about a label only."""
    listed, faults = [], []
    for number, line in numbered(text):
        place, name = f"{path}:{number}", line
        if flagged and (match := _FLAGGED.fullmatch(line)):
            name = match[1]
        elif flagged:
            fix = "write the image's name, a space, and 1 or -1"
            faults.append(Finding("D104", "error", place, f"{line[:60]!r} is no name with a 1 or -1 behind it", fix))
            continue
        listed.append(Listed(name, side, place))
    return listed, faults


def _stems(names: list[str]) -> dict[str, str]:
    """The XML's path by the stem its image has: VoTT 1 makes "a..xml" of "a.jpeg"."""
    stems = {name: name[: -len(".xml")] for name in names}
    taken = set(stems.values())
    bare = {name: re.sub(r"(?<=[^/.])\.$", "", stem) for name, stem in stems.items()}
    return {name: stem if bare[name] in taken else bare[name] for name, stem in stems.items()}


def _read_xmls(
    folder: Path, stems: Mapping[str, str], crew: Crew | None,
) -> tuple[dict[str, Annotation], dict[str, Finding], list[Finding]]:
    names: dict[str, str] = {}
    for name, stem in stems.items():
        names.setdefault(stem, name)
    read: dict[str, Annotation] = {}
    broken: dict[str, Finding] = {}
    for stem, one in zip(names, read_each(folder, [*names.values()], [*names], crew), strict=True):
        if isinstance(one, Annotation):
            # VoTT 1 cuts the suffix off, and what is left is no claim about the image's name.
            read[stem] = replace(one, filename="") if one.claimed == one.path.stem else one
        else:
            broken[stem] = one
    found = "another XML differs from it by the case of its suffix only"
    return read, broken, [
        Finding("D104", "error", str(folder / name), found, "delete one of them")
        for name, stem in stems.items() if names[stem] != name
    ]


def _read_lists(folder: Path) -> tuple[list[Listed], list[Finding]]:
    listed: list[Listed] = []
    faults: list[Finding] = []
    for name in with_suffix(names_below(folder), (".txt",)) if folder.exists() else ():
        stem = PurePosixPath(name).stem
        word = stem.rpartition("_")[2]
        side = side_of(word)
        if side is None or word.lower().startswith("trainval"):
            continue
        try:
            text, odd = load_text(folder / name)
        except DataError as err:
            faults.append(fault_of(err))
            continue
        items, wrong = parse_image_set(text, folder / name, side, flagged="_" in stem)
        listed += items
        faults += [*odd, *wrong]
    return listed, faults


def _lost(item: Listed) -> Finding:
    found = f"{item.name[:60]!r} is listed, but has no XML of its own in Annotations/"
    return Finding("D106", "warning", item.place, found, "label the image, or take it off the list")
