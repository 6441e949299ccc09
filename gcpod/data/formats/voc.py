"""Pascal VOC XML, read by tag name and written as LabelImg writes it (https://github.com/HumanSignal/labelImg).

Reading by position is what once transposed boxes silently (finding D104), so nothing here depends on the order of
tags. Whatever cannot be read as an annotation is a `DataError` with code D104 that names file and line; whether the
numbers make sense for the image is asked later, by `gcpod.data.check`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any
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
_MAX_DEPTH = 64
_SNIFFED_BYTES = 1 << 12
_AT_ONCE = 50
_TRIED = "reading the annotation"
_malformed = partial(malformed, _TRIED)


class _Element:
    __slots__ = ("children", "content", "line", "tag")

    def __init__(self, tag: str, line: int) -> None:
        self.tag, self.line, self.content = tag, line, ""
        self.children: list[_Element] = []

    @property
    def text(self) -> str:
        return " ".join(self.content.split())

    def child(self, tag: str) -> _Element | None:
        for item in self.children:
            if item.tag == tag:
                return item
        return None


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
    root = _tree(_utf8(data, path), path)
    if root.tag != "annotation":
        raise _malformed(path, root.line, f"the root is <{root.tag}>", "expected <annotation>, as LabelImg writes it")
    size = root.child("size")
    filename = root.child("filename")
    return Annotation(
        path=path,
        filename=filename.text if filename else "",
        width=_pixels(size, "width", path),
        height=_pixels(size, "height", path),
        boxes=Boxes(_box(item, path) for item in root.children if item.tag == "object"),
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
        raise _malformed(path, 1, f"it cannot be decoded as {encoding} ({err})", "store it as UTF-8") from err


def _tree(data: bytes, path: Path) -> _Element:
    builder = _Builder(path)
    parser: Any = DefusedXMLParser(encoding="utf-8")
    expat = parser.parser
    builder.listen(expat)
    try:
        expat.Parse(data, True)
    except ExpatError as err:
        if _ends_utf8(data, expat.ErrorByteIndex):
            found, fix = "it is not UTF-8 and names no other encoding", "save it as UTF-8"
        else:
            found, fix = f"it is no well-formed UTF-8 XML ({ErrorString(err.code)})", "save it again in LabelImg"
        raise _malformed(path, err.lineno, found, fix) from err
    except DefusedXmlException as err:
        found = f"it defines entities ({type(err).__name__})"
        raise _malformed(path, expat.CurrentLineNumber, found, "remove them") from err
    finally:
        # The parser and its handlers hold each other: thousands of such circles would wait for the garbage collector.
        del builder.expat, parser.parser, parser._parser
    return builder.document.children[0]


def _ends_utf8(data: bytes, at: int) -> bool:
    """Whether the first byte that cannot be UTF-8 stands there; being cut off within a character is another fault."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError as err:
        return err.start == at
    return False


class _Builder:
    """Collects elements with their line numbers, which ElementTree does not keep.

    Expat calls it without ElementTree's or SAX's own calls in between, which would double the time of a dataset's scan.
    """

    expat: Any

    def __init__(self, path: Path) -> None:
        self._path = path
        self.document = _Element("", 0)
        self._open = [self.document]

    def listen(self, expat: Any) -> None:
        """Takes what defusedxml leaves of the document: its handlers for entities stay."""
        self.expat = expat
        expat.buffer_text = True
        expat.StartElementHandler, expat.EndElementHandler = self._opened, self._closed
        expat.CharacterDataHandler = self._texted
        expat.DefaultHandlerExpand = None

    def _opened(self, name: str, _attributes: object) -> None:
        line = self.expat.CurrentLineNumber
        if len(self._open) > _MAX_DEPTH:
            raise _malformed(self._path, line, f"tags nest deeper than {_MAX_DEPTH}", "this is no annotation")
        element = _Element(name.rpartition("}")[2], line)
        self._open[-1].children.append(element)
        self._open.append(element)

    def _closed(self, _name: str) -> None:
        self._open.pop()

    def _texted(self, content: str) -> None:
        self._open[-1].content += content


def _box(item: _Element, path: Path) -> Box:
    bndbox = _required(item, "bndbox", path)
    xmin, ymin, xmax, ymax = (_number(_required(bndbox, tag, path), path) for tag in ("xmin", "ymin", "xmax", "ymax"))
    pose = item.child("pose")
    label = _required(item, "name", path)
    if not label.text:
        raise _malformed(path, label.line, "<name> is empty", "give the object its label")
    return Box(
        label.text, xmin, ymin, xmax, ymax,
        difficult=_flag(item.child("difficult"), path),
        truncated=_flag(item.child("truncated"), path),
        pose=(pose.text if pose else "") or UNSPECIFIED,
        line=item.line,
    )


def _required(item: _Element, tag: str, path: Path) -> _Element:
    found = item.child(tag)
    if found is None:
        raise _malformed(path, item.line, f"<{item.tag}> has no <{tag}>", "draw the box again in LabelImg")
    return found


def _number(item: _Element, path: Path) -> float:
    if not NUMBER.fullmatch(item.text):
        raise _malformed(path, item.line, f"<{item.tag}> is {item.text[:40]!r}, no number", "write pixels")
    return float(item.text)


def _pixels(size: _Element | None, tag: str, path: Path) -> int:
    item = size.child(tag) if size else None
    if item is None or not item.text:
        return 0
    number = _number(item, path)
    if not 0 <= number < 1 << 31:
        raise _malformed(path, item.line, f"<{tag}> is {item.text[:40]!r}", "write the image's size in pixels")
    return int(number)


def _flag(item: _Element | None, path: Path) -> bool:
    text = item.text.lower() if item else ""
    if item is not None and text not in _TRUE | _FALSE:
        raise _malformed(path, item.line, f"<{item.tag}> is {text[:40]!r}", "write 0 or 1")
    return text in _TRUE
