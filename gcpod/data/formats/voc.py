"""Pascal VOC XML, read by tag name and written as LabelImg writes it (https://github.com/HumanSignal/labelImg).

Reading by position is what once transposed boxes silently (finding D104), so nothing here depends on the order of
tags. Whatever cannot be read as an annotation is a `DataError` with code D104 that names file and line; whether the
numbers make sense for the image is asked later, by `gcpod.data.check`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ErrorString, ExpatError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from gcpod.data.crew import Crew, batches
from gcpod.data.files import suffix_of
from gcpod.data.formats.reading import bytes_of, fault_of, head_of, malformed
from gcpod.data.formats.text import NUMBER, marked
from gcpod.data.model import UNSPECIFIED, Annotation, Box, Boxes, Labels
from gcpod.errors import DataError
from gcpod.status import Finding

_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_NOT_XML = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_TRUE, _FALSE = frozenset({"1", "true", "yes"}), frozenset({"", "0", "false", "no", "unspecified"})
_SNIFFED_BYTES = 1 << 12
_AT_ONCE = 50
_TRIED = "reading the annotation"


def sniff_voc(path: Path) -> bool:
    """Whether a file looks like an annotation; whatever cannot be read does not."""
    return b"<annotation" in head_of(path, _SNIFFED_BYTES).replace(b"\0", b"")


def read_voc(path: Path, stem: str = "") -> Annotation:
    """Reads one file from disk.

    Raises:
        DataError: D104; it cannot be opened, or see `parse_voc`.
    """
    return parse_voc(bytes_of(path, _TRIED), path, stem)


def read_voc_files(folder: Path, names: Sequence[str], crew: Crew | None = None) -> Labels:
    """Reads the XML files of those names, relative to a folder; the ones that cannot be read are told as broken."""
    stems = [name[: len(name) - len(suffix_of(name))] for name in names]
    annotations: list[Annotation] = []
    broken: dict[str, Finding] = {}
    for stem, read in zip(stems, read_each(folder, names, stems, crew), strict=True):
        if isinstance(read, Annotation):
            annotations.append(read)
        else:
            broken[stem] = read
    return Labels("Pascal VOC XML", tuple(annotations), broken=broken)


def read_each(
    folder: Path, names: Sequence[str], stems: Sequence[str], crew: Crew | None = None,
) -> Iterator[Annotation | Finding]:
    """What is read of each of those files, or the fault that kept it from being read.

    Args:
        names: relative to the folder.
        stems: what becomes of the annotations' ``stem``.
        crew: who reads them; None is this process alone.
    """
    parts = [*batches([*zip(names, stems, strict=True)], _AT_ONCE)]
    return chain.from_iterable((crew or Crew(0)).ordered(partial(_read_batch, folder), parts))


def _read_batch(folder: Path, files: Sequence[tuple[str, str]]) -> list[Annotation | Finding]:
    return [_read_or_fault(folder / name, stem) for name, stem in files]


def _read_or_fault(path: Path, stem: str) -> Annotation | Finding:
    try:
        return read_voc(path, stem)
    except DataError as err:
        return fault_of(err)


def parse_voc(data: bytes, path: Path, stem: str = "") -> Annotation:
    """Parses one annotation; ``path`` is only for messages and for the result, as ``stem`` is.

    A byte order mark and any encoding that the XML declaration names are accepted; without either the file is UTF-8,
    as the XML standard has it. White space around and runs of it within labels are not significant.

    Raises:
        DataError: D104; not XML, an encoding that is not the declared one, entity tricks (refused by defusedxml),
            another root than ``annotation``, or an object without name, bndbox or readable numbers.
    """
    root, lines = _tree(_utf8(data, path), path)
    reader = _Reader(path, lines)
    if root.tag != "annotation":
        raise reader.malformed(root, f"the root is <{root.tag}>", "expected <annotation>, as LabelImg writes it")
    size = root.find("size")
    return Annotation(
        path=path,
        filename=_text_of(root.find("filename")),
        width=reader.pixels(size, "width"),
        height=reader.pixels(size, "height"),
        boxes=Boxes(map(reader.box, root.findall("object"))),
        stem=stem,
    )


def to_voc(
    filename: str,
    width: int,
    height: int,
    boxes: Sequence[Box],
    *,
    folder: str = "images",
    path: str | None = None,
    depth: int = 3,
) -> str:
    """Renders the XML that LabelImg saves: tab-indented, no XML declaration, whole pixels; to be stored as UTF-8.

    Args:
        path: what stands in ``<path>``; LabelImg has the absolute path there, the default is ``folder/filename``.

    Raises:
        DataError: D104; a text holds a character that XML cannot carry, or a coordinate is not finite.
    """
    lines = [
        "<annotation>",
        f"\t<folder>{_text(folder)}</folder>",
        f"\t<filename>{_text(filename)}</filename>",
        f"\t<path>{_text(path or f'{folder}/{filename}')}</path>",
        "\t<source>", "\t\t<database>Unknown</database>", "\t</source>",
        "\t<size>",
        f"\t\t<width>{width}</width>", f"\t\t<height>{height}</height>", f"\t\t<depth>{depth}</depth>",
        "\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for box in boxes:
        lines += _object_lines(box)
    return "\n".join([*lines, "</annotation>", ""])


def _object_lines(box: Box) -> Iterator[str]:
    yield "\t<object>"
    yield f"\t\t<name>{_text(box.label)}</name>"
    yield f"\t\t<pose>{_text(box.pose)}</pose>"
    yield f"\t\t<truncated>{int(box.truncated)}</truncated>"
    yield f"\t\t<difficult>{int(box.difficult)}</difficult>"
    yield "\t\t<bndbox>"
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        try:
            yield f"\t\t\t<{tag}>{round(getattr(box, tag))}</{tag}>"
        except (OverflowError, ValueError) as err:
            raise DataError("writing the box of", box.label, f"{tag} is not finite", "correct it", code="D104") from err
    yield "\t\t</bndbox>"
    yield "\t</object>"


def _text(text: str) -> str:
    if _NOT_XML.search(text):
        raise DataError("writing", repr(text), "XML cannot carry one of its characters", "rename it", code="D104")
    return escape(text, quote=False)


def _utf8(data: bytes, path: Path) -> bytes:
    """The same document in UTF-8 without its declaration's encoding; expat itself reads only a handful of encodings."""
    named = _DECLARED.match(data)
    encoding = marked(data) or (named.group(1).decode() if named else "utf-8")
    if encoding.lower() in ("utf-8", "utf8"):
        return data
    try:
        text = data.decode(encoding)
        found = _DECLARATION.match(text)
        return text[found.end() if found else 0 :].encode()
    except (LookupError, ValueError) as err:
        raise malformed(_TRIED, path, 1, f"it cannot be decoded as {encoding} ({err})", "store it as UTF-8") from err


def _tree(data: bytes, path: Path) -> tuple[Element, dict[Element, int]]:
    """The root, and the line of each element, which ElementTree does not keep.

    Expat calls the tree's builder without ElementTree's own calls in between, which take most of the time of a
    dataset's scan; defusedxml's handlers for entities stay.
    """
    parser: Any = DefusedXMLParser(encoding="utf-8")
    expat, target, lines = parser.parser, TreeBuilder(), list[int]()
    start = target.start

    def opened(name: str, _attributes: object) -> None:
        lines.append(expat.CurrentLineNumber)
        start(name.rpartition("}")[2], {})

    expat.buffer_text = True
    expat.StartElementHandler, expat.EndElementHandler = opened, target.end
    expat.CharacterDataHandler = target.data
    expat.DefaultHandlerExpand = None
    try:
        expat.Parse(data, True)
    except ExpatError as err:
        if _ends_utf8(data, expat.ErrorByteIndex):
            found, fix = "it is not UTF-8 and names no other encoding", "save it as UTF-8"
        else:
            found, fix = f"it is no well-formed UTF-8 XML ({ErrorString(err.code)})", "save it again in LabelImg"
        raise malformed(_TRIED, path, err.lineno, found, fix) from err
    except DefusedXmlException as err:
        found = f"it defines entities ({type(err).__name__})"
        raise malformed(_TRIED, path, expat.CurrentLineNumber, found, "remove them") from err
    finally:
        # The parser and its handlers hold each other: thousands of such circles would wait for the garbage collector.
        expat.StartElementHandler = None
        del parser.parser, parser._parser
    root: Element = target.close()
    return root, dict(zip(root.iter(), lines, strict=True))


def _ends_utf8(data: bytes, at: int) -> bool:
    """Whether the first byte that cannot be UTF-8 stands there; being cut off within a character is another fault."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError as err:
        return err.start == at
    return False


class _Reader:
    """Reads the elements of one file."""

    def __init__(self, path: Path, lines: Mapping[Element, int]) -> None:
        self._path, self._lines = path, lines

    def malformed(self, item: Element, found: str, fix: str) -> DataError:
        return malformed(_TRIED, self._path, self._lines[item], found, fix)

    def box(self, item: Element) -> Box:
        bndbox = self.required(item, "bndbox")
        xmin, ymin, xmax, ymax = (self.number(self.required(bndbox, tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
        name = self.required(item, "name")
        label = _text_of(name)
        if not label:
            raise self.malformed(name, "<name> is empty", "give the object its label")
        return Box(
            label, xmin, ymin, xmax, ymax,
            difficult=self.flag(item.find("difficult")),
            truncated=self.flag(item.find("truncated")),
            pose=_text_of(item.find("pose")) or UNSPECIFIED,
            line=self._lines[item],
        )

    def required(self, item: Element, tag: str) -> Element:
        found = item.find(tag)
        if found is None:
            raise self.malformed(item, f"<{item.tag}> has no <{tag}>", "draw the box again in LabelImg")
        return found

    def number(self, item: Element) -> float:
        text = _text_of(item)
        if not NUMBER.fullmatch(text):
            raise self.malformed(item, f"<{item.tag}> is {text[:40]!r}, no number", "write pixels")
        return float(text)

    def pixels(self, size: Element | None, tag: str) -> int:
        item = size.find(tag) if size is not None else None
        if item is None or not _text_of(item):
            return 0
        number = self.number(item)
        if not 0 <= number < 1 << 31:
            found = f"<{tag}> is {_text_of(item)[:40]!r}"
            raise self.malformed(item, found, "write the image's size in pixels")
        return int(number)

    def flag(self, item: Element | None) -> bool:
        text = _text_of(item).lower()
        if item is not None and text not in _TRUE | _FALSE:
            raise self.malformed(item, f"<{item.tag}> is {text[:40]!r}", "write 0 or 1")
        return text in _TRUE


def _text_of(item: Element | None) -> str:
    """Its text, with white space around and runs of it as in HTML; "" of nothing."""
    return " ".join((item.text or "").split()) if item is not None else ""
