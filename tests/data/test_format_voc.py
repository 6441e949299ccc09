from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.data.formats.voc import parse_voc, read_voc, to_voc
from gcpod.data.model import Box
from gcpod.errors import DataError

from .making import outcome

PATH = Path("a.xml")
LABELS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
EDGES = st.integers(-500, 5000).map(float)
BOXES = st.builds(
    Box, LABELS, EDGES, EDGES, EDGES, EDGES, difficult=st.booleans(), truncated=st.booleans(), pose=LABELS,
)
OBJECT = "<object><name>cat</name><bndbox><ymax>4</ymax><xmax>3</xmax><ymin>2</ymin><xmin>1.5</xmin></bndbox></object>"


def annotation(inner: str) -> bytes:
    return f"<annotation>\n{inner}\n</annotation>".encode()


@given(st.lists(BOXES, max_size=4), LABELS, st.integers(0, 70000), st.integers(0, 70000))
def test_what_labelimg_would_write_comes_back(boxes: list[Box], filename: str, width: int, height: int) -> None:
    parsed = parse_voc(to_voc(filename, width, height, boxes).encode(), PATH)
    assert (parsed.filename, parsed.width, parsed.height) == (filename, width, height)
    assert parsed.boxes == tuple(boxes)


def test_rendering_equals_a_file_of_labelimg(raccoon: Path) -> None:
    path = raccoon / "annotations" / "raccoon-1.xml"
    boxes = read_voc(path).boxes
    labelimg = path.read_text(encoding="utf-8").replace(' verified="yes"', "")
    text = to_voc("raccoon-1.jpg", 650, 417, boxes, path="/Users/datitran/Desktop/raccoon/images/raccoon-1.jpg")
    assert text == labelimg


def test_tags_are_read_by_name_and_lines_are_kept() -> None:
    [box] = parse_voc(annotation("\n" + OBJECT), PATH).boxes
    assert box == Box("cat", 1.5, 2, 3, 4)
    assert box.line == 3


def test_parts_within_an_object_are_no_objects() -> None:
    part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"
    [box] = parse_voc(annotation(OBJECT.replace("<name>", part + "<name>")), PATH).boxes
    assert (box.label, box.xmin) == ("cat", 1.5)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "iso-8859-1", "windows-1252", "gbk"])
def test_encodings(encoding: str) -> None:
    label = "浣熊" if encoding == "gbk" else "café"
    text = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\r\n'
    text += annotation(OBJECT.replace("cat", label)).decode().replace("\n", "\r\n")
    bom = b"\xff\xfe" if encoding == "utf-16-le" else b""
    [box] = parse_voc(bom + text.encode(encoding), PATH).boxes
    assert box.label == label


def test_missing_claims_are_empty_and_white_space_is_not_significant() -> None:
    parsed = parse_voc(annotation(OBJECT.replace("cat", "\n  red \t panda\n")), PATH)
    assert (parsed.filename, parsed.width, parsed.height) == ("", 0, 0)
    assert parsed.boxes[0].label == "red panda"


@pytest.mark.parametrize(("inner", "found"), [
    (OBJECT.replace("<name>cat</name>", ""), r"a\.xml:2: <object> has no <name>"),
    (OBJECT.replace("cat", " "), r"a\.xml:2: <name> is empty"),
    (OBJECT.replace("<xmax>3</xmax>", ""), r"a\.xml:2: <bndbox> has no <xmax>"),
    (OBJECT.replace(">3<", ">=1+1<"), "'=1.1', no number"),
    (OBJECT.replace(">3<", ">1_0<"), "'1_0', no number"),
    (OBJECT.replace("<name>", "<difficult>maybe</difficult><name>"), "<difficult> is 'maybe'"),
    ("<size><width>-3</width></size>", "<width> is '-3'"),
    ("<size><width>1e400</width></size>", "<width> is '1e400'"),
    ("<object>", r"a\.xml:3: it is no well-formed"),
    ("<a>" * 100_000, r"a\.xml:3: it is no well-formed"),
    ("<a>" * 100_000 + "</a>" * 100_000 + "<object/>", r"a\.xml:2: <object> has no <bndbox>"),
])
def test_malformed_files_name_file_and_line(inner: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_voc(annotation(inner), PATH)
    assert caught.value.code == "D104"


@pytest.mark.parametrize(("data", "found"), [
    (b"", "no well-formed"),
    (b"<html/>", "the root is <html>"),
    (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "cannot be decoded as klingon"),
    (b'<?xml version="1.0" encoding="ascii"?><annotation>\xff</annotation>', "cannot be decoded as ascii"),
    (b'<!DOCTYPE a [<!ENTITY x "xxxx"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>', "defines entities"),
    (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "defines entities"),
])
def test_other_files_are_refused(data: bytes, found: str) -> None:
    with pytest.raises(DataError, match=found):
        parse_voc(data, PATH)


@pytest.mark.parametrize("declaration", ["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="UTF-8"?>'])
@pytest.mark.parametrize("inner", [
    OBJECT.replace("cat", "café"), "<é/>", "<size é='1'/>", "<size depth='é'/>", "<!-- é -->", "<filename>é",
])
def test_latin_1_that_does_not_say_so(tmp_path: Path, declaration: str, inner: str) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(declaration.encode() + annotation("\n" + inner).decode().encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_voc(path)
    assert (caught.value.code, caught.value.on) == ("D104", f"{path}:3")
    assert caught.value.found == "it is not UTF-8 and names no other encoding"
    assert caught.value.fix == "save it as UTF-8"


@pytest.mark.parametrize("data", [
    b"<annotation><size></annotation>\n\xe9", annotation(OBJECT.replace("cat", "café")).partition(b"\xa9")[0],
])
def test_another_fault_before_the_encoding_is_told_first(data: bytes) -> None:
    with pytest.raises(DataError, match="no well-formed"):
        parse_voc(data, PATH)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_voc(tmp_path / "none.xml")


@pytest.mark.parametrize("box", [
    Box("a\0", 1, 2, 3, 4), Box("a", float("nan"), 2, 3, 4), Box("a", 1, 2, float("inf"), 4),
])
def test_what_xml_cannot_carry_is_not_written(box: Box) -> None:
    with pytest.raises(DataError):
        to_voc("a.jpg", 1, 1, [box])


TAGS = st.sampled_from(["annotation", "object", "name", "bndbox", "xmin", "size", "width", "difficult"])
XML = st.recursive(
    st.sampled_from(["", "1", "nan", "-inf", "1e999", "cat", "&amp;", "&#0;", "]]>", "<!--x-->"]),
    lambda inner: st.builds(lambda tag, parts: f"<{tag}>{''.join(parts)}</{tag}>", TAGS, st.lists(inner, max_size=4)),
    max_leaves=12,
)


@given(st.one_of(st.binary(max_size=80), XML.map(str.encode), XML.map(annotation)))
def test_any_bytes_parse_or_fail_with_a_code(data: bytes) -> None:
    assert outcome(lambda: parse_voc(data, PATH)) in ("", "D104")


@given(st.data())
def test_damaged_annotations_parse_or_fail_with_a_code(data: st.DataObject) -> None:
    raw = bytearray(to_voc("a.jpg", 10, 10, [Box("cat", 1, 2, 3, 4)]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(lambda: parse_voc(bytes(raw), PATH)) in ("", "D104")
