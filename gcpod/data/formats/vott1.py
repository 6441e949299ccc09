"""VoTT 1's Pascal VOC export, and any folder laid out like the VOC devkit's.

Annotations/ holds the XML, ImageSets/Main/ says in text files which image is on which side of the split
(http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html, "Image Sets"), pascal_label_map.pbtxt the ids.
VoTT 1 (https://github.com/microsoft/VoTT/tree/v1.7.2, src/lib/detection_algorithms/pascal_voc/exporter.js) writes no
list of its images but one for each label and side, and cuts four characters off an image's name, whatever its suffix.
"""

from __future__ import annotations

import codecs
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from gcpod.data.formats.voc import read_voc
from gcpod.data.labelmap import read_pbtxt
from gcpod.data.model import Annotation, Labels, Split, side_of
from gcpod.errors import DataError
from gcpod.status import Finding

LABEL_MAP: Final = "pascal_label_map.pbtxt"
_FLAGGED = re.compile(r"(.*\S)[ \t]+(?:-1|0|\+?1)")
HOLDERS: Final = frozenset({"images", "labels", "jpegimages", "annotations"})
"""Folders that only say what kind of files lie in them; in lower case."""



@dataclass(frozen=True)
class Listed:
    """One image in a split's list; the name as written, with or without folders and suffix."""

    name: str
    side: Split
    place: str


@dataclass(frozen=True)
class Sides:
    """What split lists say of the stems asked for, and which entries mean none of these."""

    given: Mapping[str, Split]
    faults: tuple[Finding, ...]
    unknown: tuple[Listed, ...]


def sniff_vott1(folder: Path) -> bool:
    """Whether Annotations/ with XML and ImageSets/Main/ are there; False for whatever cannot be looked at."""
    try:
        if not (folder / "ImageSets" / "Main").is_dir():
            return False
        return any(path.suffix.lower() == ".xml" for path in (folder / "Annotations").iterdir())
    except (OSError, ValueError):
        return False


def read_vott1(folder: Path) -> Labels:
    """Reads the XML below Annotations/ and gives each the side that the lists of ImageSets/Main/ name.

    A list ending in "train" trains; one ending in "val" or "test" evaluates, and so does an image that is in both;
    "trainval" decides nothing. The label map keeps its ids.

    Raises:
        DataError: D104, there is no XML or a folder cannot be read; D101, see `gcpod.data.labelmap.read_pbtxt`.
    """
    xmls = folder / "Annotations"
    names = walk(xmls, ".xml")
    if not names:
        raise _malformed(xmls, "there is no XML in it", "export from VoTT as Pascal VOC, or name another format")
    read, broken, faults = _read_xmls(xmls, _stems(names))
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


def split_sides(stems: Collection[str], listed: Iterable[Listed]) -> Sides:
    """Finds the stem that each entry means, and what the entries together say of it.

    An entry means, with or without its suffix, the stem that is the longest tail of its path, or else the only stem of
    its bare name. A stem on both sides evaluates, so that nothing evaluated was trained on.
    """
    by_name = defaultdict(list)
    for stem in stems:
        by_name[PurePosixPath(stem).name].append(stem)
    found: defaultdict[str, dict[Split, Listed]] = defaultdict(dict)
    unknown: list[Listed] = []
    for item in listed:
        meant = _meant(item.name, stems, by_name)
        if meant is None:
            unknown.append(item)
        else:
            found[meant].setdefault(item.side, item)
    given: dict[str, Split] = {stem: "eval" if "eval" in items else "train" for stem, items in found.items()}
    faults = tuple(
        Finding("D107", "warning", items["train"].place, f"{stem!r} trains here and evaluates in "
                f"{items['eval'].place}", "list it once; it evaluates")
        for stem, items in found.items() if len(items) == 2
    )
    return Sides(given, faults, tuple(unknown))


def plain_parts(parts: Sequence[str]) -> list[str]:
    """A path's parts without the folders that only say whether images or labels lie in them; the last part stays."""
    kept = [part for part in parts[:-1] if part not in ("", ".", "..") and part.lower() not in HOLDERS]
    return [*kept, *parts[-1:]]


def walk(folder: Path, suffix: str | tuple[str, ...]) -> list[str]:
    """Relative paths, sorted, of the files that end so in either case; hidden ones are passed over.

    Raises:
        DataError: D104; the folder, or one below it, is missing or cannot be read.
    """
    def fail(err: OSError) -> None:
        raise _malformed(err.filename, err.strerror or str(err), "give a readable folder") from err

    found = []
    for root, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = Path(root).relative_to(folder)
        names = (name for name in files if not name.startswith(".") and name.lower().endswith(suffix))
        found += [(base / name).as_posix() for name in names]
    return sorted(found)


def load_text(path: Path) -> tuple[str, tuple[Finding, ...]]:
    """Reads a text file from disk.

    Raises:
        DataError: D104; it cannot be opened, or see `decode_text`.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise _malformed(path, err.strerror or str(err), "make the file readable") from err
    return decode_text(data, path)


def decode_text(data: bytes, path: Path) -> tuple[str, tuple[Finding, ...]]:
    """UTF-8, UTF-16 with its mark, or else Windows-1252 with a warning; every line ends in a line feed.

    Raises:
        DataError: D104; none of these.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text, faults = data.decode("utf-16" if utf16 else "utf-8-sig"), ()
    except UnicodeDecodeError:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError as err:
            found = f"byte {err.start} is neither UTF-8 nor Windows-1252"
            raise _malformed(path, found, "store the file as UTF-8") from err
        found = "it is not UTF-8 and was read as Windows-1252"
        return _lines(text), (Finding("D104", "warning", str(path), found, "store the file as UTF-8"),)
    return _lines(text), faults


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), 1):
        if stripped := line.strip():
            yield number, stripped


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _stems(names: list[str]) -> dict[str, str]:
    """The XML's path by the stem its image has: VoTT 1 makes "a..xml" of "a.jpeg"."""
    stems = {name: name[: -len(".xml")] for name in names}
    taken = set(stems.values())
    bare = {name: re.sub(r"(?<=[^/.])\.$", "", stem) for name, stem in stems.items()}
    return {name: stem if bare[name] in taken else bare[name] for name, stem in stems.items()}


def _read_xmls(
    folder: Path, stems: Mapping[str, str],
) -> tuple[dict[str, Annotation], dict[str, Finding], list[Finding]]:
    read: dict[str, Annotation] = {}
    broken: dict[str, Finding] = {}
    faults = []
    for name, stem in stems.items():
        path = folder / name
        if stem in read or stem in broken:
            found = "another XML differs from it by the case of its suffix only"
            faults.append(Finding("D104", "error", str(path), found, "delete one of them"))
            continue
        try:
            annotation = read_voc(path)
        except DataError as err:
            broken[stem] = Finding(err.code, "error", err.on, err.found, err.fix)
            continue
        # VoTT 1 cuts the suffix off, and what is left is no claim about the image's name.
        filename = "" if annotation.claimed == path.stem else annotation.filename
        read[stem] = replace(annotation, stem=stem, filename=filename)
    return read, broken, faults


def _read_lists(folder: Path) -> tuple[list[Listed], list[Finding]]:
    listed: list[Listed] = []
    faults: list[Finding] = []
    for name in walk(folder, ".txt") if folder.exists() else ():
        stem = PurePosixPath(name).stem
        word = stem.rpartition("_")[2]
        side = side_of(word)
        if side is None or word.lower().startswith("trainval"):
            continue
        try:
            text, odd = load_text(folder / name)
        except DataError as err:
            faults.append(Finding(err.code, "error", err.on, err.found, err.fix))
            continue
        items, wrong = parse_image_set(text, folder / name, side, flagged="_" in stem)
        listed += items
        faults += [*odd, *wrong]
    return listed, faults


def _meant(name: str, stems: Collection[str], by_name: Mapping[str, list[str]]) -> str | None:
    *folders, last = plain_parts(name.replace("\\", "/").split("/"))
    for bare in (last, PurePosixPath(last).stem, last.removesuffix(".")):
        tails = ("/".join((*folders[start:], bare)) for start in range(len(folders) + 1))
        meant = next((tail for tail in tails if tail in stems), None)
        if meant is None and len(by_name.get(bare, ())) == 1:
            meant = by_name[bare][0]
        if meant is not None:
            return meant
    return None


def _lost(item: Listed) -> Finding:
    found = f"{item.name[:60]!r} is listed, but has no XML of its own in Annotations/"
    return Finding("D106", "warning", item.place, found, "label the image, or take it off the list")


def _malformed(on: object, found: str, fix: str) -> DataError:
    return DataError("reading the labels", on, found, fix, code="D104")
