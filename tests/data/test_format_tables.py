from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.data.formats.openimages import descriptions_beside, parse_descriptions, read_descriptions
from gcpod.data.formats.table_header import Kind, table_kind
from gcpod.data.formats.tables import read_tables, sniff_table
from gcpod.data.formats.voc import read_voc
from gcpod.data.model import Annotation, Box, Labels, Split
from gcpod.errors import DataError

from .making import drawn, outcome

VOTT = "image,xmin,ymin,xmax,ymax,label"
TUTORIAL = "filename,width,height,class,xmin,ymin,xmax,ymax"
OPEN_IMAGES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
ROW = "a.jpg,1,2,3,4,cat"
CAT = Box("cat", 1, 2, 3, 4)


def read(folder: Path, text: str | bytes, name: str = "labels.csv", descriptions: Path | None = None) -> Labels:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_tables([path], descriptions)


def only(labels: Labels) -> Annotation:
    assert labels.faults == ()
    [annotation] = labels.annotations
    return annotation


def places(labels: Labels) -> list[str]:
    return [f"{fault.code} {fault.severity} {Path(fault.where).name}" for fault in labels.faults]


def test_the_raccoons_table_equals_their_xml(raccoon: Path) -> None:
    labels = read_tables([raccoon / "raccoon_labels.csv"])
    assert labels.format == "CSV"
    assert (labels.faults, len(labels.annotations)) == ((), 200)
    assert sum(len(annotation.boxes) for annotation in labels.annotations) == 217
    for annotation in labels.annotations:
        told = read_voc(raccoon / "annotations" / f"{Path(annotation.filename).stem}.xml")
        assert (annotation.width, annotation.height) == (told.width, told.height)
        edges = [(box.label, box.xmin, box.ymin, box.xmax, box.ymax) for box in annotation.boxes]
        assert edges == [(box.label, box.xmin, box.ymin, box.xmax, box.ymax) for box in told.boxes]


def test_the_raccoons_split_comes_from_the_file_names(raccoon: Path) -> None:
    files = [raccoon / f"{name}.csv" for name in ("raccoon_labels", "train_labels", "test_labels")]
    labels = read_tables(files)
    boxes: dict[Split | None, int] = {"train": 0, "eval": 0, None: 0}
    for annotation in labels.annotations:
        boxes[annotation.given] += len(annotation.boxes)
    assert boxes == {"train": 173, "eval": 44, None: 0}
    [note] = [fault for fault in labels.faults if fault.code == "D104"]
    assert (note.severity, note.where) == ("note", str(files[0]))
    assert "train_labels.csv, test_labels.csv have all its images" in note.found
    straddling = [fault for fault in labels.faults if fault.code == "D107"]
    assert len(labels.faults) == 1 + len(straddling)
    lines = [path.read_text().splitlines()[1:] for path in files[1:]]
    train, test = ({line.split(",")[0] for line in table} for table in lines)
    assert len(straddling) == len(train & test)


@pytest.mark.parametrize(("header", "kind"), [
    (VOTT, "vott2"), (TUTORIAL, "tutorial"), (OPEN_IMAGES, "openimages"),
    ("Class, YMAX ,xmax,ymin,xmin,id,FileName", "tutorial"),
    ("image,xmin,ymin,xmax,ymax", None), ("xmin," + VOTT, None), ("width," + TUTORIAL, None),
    ("width,width," + VOTT, "vott2"),
    ("ImageID,Source,LabelName,Confidence", None), ("", None),
])
def test_kinds_are_told_by_column_names(tmp_path: Path, header: str, kind: Kind | None) -> None:
    assert table_kind(header.split(",")) == kind
    path = tmp_path / "a.csv"
    for start, separator, encoding in ("", ",", "utf-8"), ("\r\n\n", ";", "utf-8-sig"), ("", "\t", "utf-16"):
        path.write_text(start + header.replace(",", separator) + "\r1", encoding=encoding, newline="")
        assert sniff_table(path) == kind


def test_sniffing_never_fails(tmp_path: Path) -> None:
    assert sniff_table(tmp_path) is None
    assert sniff_table(tmp_path / "none.csv") is None
    assert sniff_table(Path("a\0b")) is None


def test_columns_are_read_by_name(tmp_path: Path) -> None:
    labels = read(tmp_path, "Label, id,YMAX,xmax,ymin, xmin ,Image\ncat,9,4,3,2,1,a.jpg\n")
    assert labels.format == "VoTT 2 CSV"
    annotation = only(labels)
    assert (annotation.filename, annotation.stem, annotation.fraction) == ("a.jpg", "", False)
    assert (annotation.width, annotation.height, annotation.given) == (0, 0, None)
    assert annotation.boxes == [CAT]


def test_open_images(tmp_path: Path) -> None:
    rows = [
        "0a1,xclick,/m/01g317,1,0.1,0.3,0.2,0.4,0,1,-1,0,0",
        "0a1,xclick,/m/0cmf2,1,0.5,1,0.5,1,0,-1,1,0,0",
        "0a1,xclick,/m/0cmf2,1,0.5,1,0.5,1,0,0,0,0,0",
    ]
    (tmp_path / "class-descriptions.csv").write_text("/m/09,All\n")
    names = tmp_path / "class-descriptions-boxable.csv"
    names.write_text('/m/01g317,Person\n/m/0xyz,"Cat, big"\n')
    assert descriptions_beside([tmp_path / "train.csv"]) == names
    labels = read(tmp_path, "\n".join([OPEN_IMAGES, *rows]), "train-annotations-bbox.csv", names)
    assert labels.format == "Open Images CSV"
    [annotation] = labels.annotations
    assert (annotation.filename, annotation.stem, annotation.given) == ("", "0a1", "train")
    assert annotation.fraction
    person = Box("Person", 0.1, 0.2, 0.3, 0.4, truncated=True)
    assert annotation.boxes == [person, Box("/m/0cmf2", 0.5, 0.5, 1, 1, crowd=True), Box("/m/0cmf2", 0.5, 0.5, 1, 1)]
    assert places(labels) == ["D104 warning train-annotations-bbox.csv:3"]
    assert only(read(tmp_path, f"{OPEN_IMAGES}\n{rows[0]}")).boxes[0].label == "/m/01g317"
    assert places(read(tmp_path, f"{OPEN_IMAGES}\n{rows[0]}".replace(",-1,", ",2,"))) == ["D104 error labels.csv:2"]


@pytest.mark.parametrize(("text", "found"), [
    ("", "it names no class"),
    ("\n/m/1,a\n/m/1", "names.csv:3: it is no MID and name"),
    ("/m/1,", "names.csv:1: it is no MID"),
    ("/m/1,a\n/m/1,a\n/m/1,b", "names.csv:3: '/m/1' already has another name"),
    ('/m/1,"a', "names.csv:1: it is no CSV"),
    ("/m/1,a\n\0", "names.csv:2: it holds a NUL"),
])
def test_descriptions_that_cannot_be_read(text: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_descriptions(StringIO(text), Path("names.csv"))
    assert caught.value.code == "D104"


def test_descriptions_with_header_and_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    assert descriptions_beside([path]) is None
    path.write_bytes(b'\xef\xbb\xbfLabelName,DisplayName\r\n/m/1, "Big  cat"\r\n\r\n')
    assert read_descriptions(path) == {"/m/1": "Big cat"}
    path.write_bytes(b"/m/1,caf\xe9")
    assert outcome(lambda: read_descriptions(path)) == "D104"
    assert outcome(lambda: read_descriptions(tmp_path)) == "D104"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_line_ends_and_separators(tmp_path: Path, encoding: str, line_end: str, separator: str) -> None:
    lines = ["", VOTT, "", " a.jpg, 1 ,2, 3,4, café", "", '"a.jpg",1,2,3,"4","é"']
    text = line_end.join(lines).replace(",", separator)
    labels = read(tmp_path, text.encode(encoding))
    [annotation] = labels.annotations
    assert annotation.boxes == [Box("café", 1, 2, 3, 4), Box("é", 1, 2, 3, 4)]
    assert [box.line for box in annotation.boxes] == [4, 6]
    assert places(labels) == (["D104 warning labels.csv"] if encoding == "cp1252" else [])


def test_quoted_cells_may_hold_anything_and_lines_stay_true(tmp_path: Path) -> None:
    rows = [
        '"a,b.jpg",1,2,3,4,"red\n  ""panda"""', 'a.jpg,1,2,3,4,5" tall', '"c\n\nd.jpg", "1","2","3","4", "cat"',
        'a.jpg,1,2,3,4,"x\r\ny"', ROW,
    ]
    labels = read(tmp_path, "\n".join([VOTT, *rows]))
    assert labels.faults == ()
    found = {item.filename: [(box.label, box.line) for box in item.boxes] for item in labels.annotations}
    assert found == {
        "a,b.jpg": [('red "panda"', 2)], "a.jpg": [('5" tall', 4), ("x y", 8), ("cat", 10)], "c\n\nd.jpg": [("cat", 5)],
    }


@pytest.mark.parametrize("row", [
    'a.jpg,1,2,3,4,"cat', '"a.jpg,1,2,3,4,cat', '"a"b.jpg,1,2,3,4,cat', "x" * 140_000, f"{'x' * 70_000},1,2,3,4,cat",
    "a\0.jpg,1,2,3,4,cat",
], ids=range(6))
def test_a_row_that_is_none_costs_only_itself(tmp_path: Path, row: str) -> None:
    labels = read(tmp_path, f'{VOTT}\n{ROW}\n{row}\n"a.jpg",5,6,7,8,"dog"\n{ROW}')
    [annotation] = labels.annotations
    assert annotation.boxes == [CAT, Box("dog", 5, 6, 7, 8), CAT]
    assert [box.line for box in annotation.boxes] == [2, 4, 5]
    assert places(labels) == ["D104 error labels.csv:3"]


@pytest.mark.parametrize(("row", "found"), [
    ("a.jpg,1,2,3,4", "it has 5 cells, the header 6"),
    ("a.jpg,1,2,3,4,cat,", "it has 7 cells, the header 6"),
    ("a.jpg,1,2,3,,cat", "ymax is '', no number"),
    ("a.jpg,1,2,3,0x4,cat", "ymax is '0x4', no number"),
    ("a.jpg,1,2,3,1_0,cat", "ymax is '1_0', no number"),
    ('a.jpg,1,2,3,"4,5",cat', "ymax is '4,5', no number"),
    ("a.jpg,1,2,3,٤,cat", "ymax is '٤', no number"),
    ("a.jpg,1,2,3,4, ", "label is empty"),
    (",1,2,3,4,cat", "image is '', no file name"),
    ("file:///,1,2,3,4,cat", "no file name"),
    ("file:///a%00,1,2,3,4,cat", "no file name"),
    ("a.jpg,1,2,3,=1+3,cat", "ymax is '=1+3', a formula"),
    ("a.jpg,1,2,3,+A1,cat", "ymax is '+A1', a formula"),
    ("a.jpg,1,2,3,4,=A1", "label is '=A1', a formula"),
    ("a.jpg,1,2,3,4,@SUM(A1)", "label is '@SUM(A1)', a formula"),
    ("a.jpg,1,2,3,4, -cat", "label is '-cat', a formula"),
    ("=A1,1,2,3,4,cat", "image is '=A1', a formula"),
])
def test_a_faulty_row_is_told_and_the_others_are_read(tmp_path: Path, row: str, found: str) -> None:
    labels = read(tmp_path, f"{VOTT}\n{ROW}\n{row}\n{ROW}\n")
    assert [list(annotation.boxes) for annotation in labels.annotations] == [[CAT, CAT]]
    assert places(labels) == ["D104 error labels.csv:3"]
    assert found in labels.faults[0].found


@pytest.mark.parametrize(("cell", "number"), [
    ("-1.5", -1.5), ("+.5", 0.5), ("1e3", 1000.0), ("1e999", math.inf), ("-Infinity", -math.inf), ("NaN", math.nan),
    ("9" * 5000, math.inf),
])
def test_numbers_are_only_checked_to_be_numbers(tmp_path: Path, cell: str, number: float) -> None:
    assert str(only(read(tmp_path, f"{VOTT}\na.jpg,{cell},2,3,4,-5")).boxes[0].xmin) == str(number)


def test_decimal_commas(tmp_path: Path) -> None:
    for separator in ";\t":
        text = "\n".join((VOTT.replace(",", separator), "a.jpg 12,5 -,5 3.5 4,0 cat".replace(" ", separator)))
        assert only(read(tmp_path, text)).boxes == [Box("cat", 12.5, -0.5, 3.5, 4)]


def test_images_without_objects_and_rows_without_content(tmp_path: Path) -> None:
    labels = read(tmp_path, f'{TUTORIAL}\nb.jpg,20,10,,,,,\n,,,,,,,\n"","","","","","","",""\nb.jpg,,,, ,,,\n')
    annotation = only(labels)
    assert (annotation.filename, annotation.width, annotation.height, len(annotation.boxes)) == ("b.jpg", 20, 10, 0)


def test_sizes_are_claims_of_the_image(tmp_path: Path) -> None:
    rows = ["a.jpg,,,cat,1,2,3,4", "a.jpg,20,10.0,cat,1,2,3,4", "a.jpg,10,20,cat,1,2,3,4"]
    rows += [f"a.jpg,{width},10,cat,1,2,3,4" for width in ("-3", "x", "nan", "1e10", "=A1")]
    labels = read(tmp_path, "\n".join([TUTORIAL, *rows]))
    [annotation] = labels.annotations
    assert (annotation.width, annotation.height, len(annotation.boxes)) == (20, 10, 3)
    assert places(labels) == ["D104 warning labels.csv:4", *(f"D104 error labels.csv:{line}" for line in range(5, 10))]


@pytest.mark.parametrize(("cell", "filename", "claimed"), [
    (r"C:\data\a.jpg", r"C:\data\a.jpg", "a.jpg"), ("../../etc/a.jpg", "../../etc/a.jpg", "a.jpg"),
    ("file:///C:/my%20data/b%20%C3%A9.jpg", "b é.jpg", "b é.jpg"), ("file:C:%5Cx%5Cb.jpg", "b.jpg", "b.jpg"),
    ("a%20b.jpg", "a%20b.jpg", "a%20b.jpg"), ("NA", "NA", "NA"), ("null", "null", "null"),
])
def test_file_names_stay_claims(tmp_path: Path, cell: str, filename: str, claimed: str) -> None:
    annotation = only(read(tmp_path, f"{VOTT}\n{cell},1,2,3,4,NaN\n"))
    assert (annotation.filename, annotation.claimed) == (filename, claimed)
    assert annotation.boxes[0].label == "NaN"


@pytest.mark.parametrize(("text", "found"), [
    ("", "it is empty"), ("\n\r\n", "it is empty"),
    (f"\n{VOTT}\n", r"labels\.csv:2: no row follows its header"),
    ("image,xmin,ymin,xmax,label\n", r"labels\.csv:1: its header lacks ymax"),
    ("a,b\n1,2\n", "it does not begin with the header"),
    (f"xmin,{VOTT}\n1,{ROW}", "a column stands twice"),
    ('"images\n', "it does not begin with the header"),
    (b"\xff\xfe\xff", "cannot be decoded"), (VOTT.encode() + b"\n\x81", "cannot be decoded"),
    ((VOTT + "\n" + ROW).encode("utf-16-le"), "it does not begin with the header"),
])
def test_files_that_cannot_be_read(tmp_path: Path, text: str | bytes, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        read(tmp_path, text)
    assert caught.value.code == "D104"


def test_no_files_and_files_that_cannot_be_opened(tmp_path: Path) -> None:
    assert outcome(lambda: read_tables([])) == "D104"
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(DataError, match="make the file readable"):
            read_tables([path])


def tables(folder: Path, **texts: str) -> list[Path]:
    for name, rows in texts.items():
        (folder / f"{name}.csv").write_text(f"{VOTT}\n{rows}\n")
    return [folder / f"{name}.csv" for name in texts]


def test_an_image_on_both_sides_evaluates(tmp_path: Path) -> None:
    train, val = f"b.jpg,1,2,3,4,dog\n{ROW}\n{ROW}", f"c.jpg,1,2,3,4,dog\n{ROW}\na.jpg,5,6,7,8,cat"
    files = tables(tmp_path, train=train, val=val)
    labels = read_tables(files)
    found = {item.filename: item for item in labels.annotations}
    assert {name: item.given for name, item in found.items()} == {"a.jpg": "eval", "b.jpg": "train", "c.jpg": "eval"}
    assert found["a.jpg"].path == files[0]
    assert found["a.jpg"].boxes == [CAT, CAT, Box("cat", 5, 6, 7, 8)]
    assert [box.line for box in found["a.jpg"].boxes] == [3, 4, 0]
    assert places(labels) == ["D107 warning val.csv:3"]
    assert f"{files[0]}:3" in labels.faults[0].found


def test_a_file_of_no_side_that_adds_images_is_read(tmp_path: Path) -> None:
    files = tables(tmp_path, all=f"{ROW}\nd.jpg,1,2,3,4,cat", train=ROW, test="b.jpg,1,2,3,4,cat")
    labels = read_tables([*files, files[0]])
    assert labels.faults == ()
    found = {annotation.filename: (annotation.given, len(annotation.boxes)) for annotation in labels.annotations}
    assert found == {"a.jpg": ("train", 1), "d.jpg": (None, 1), "b.jpg": ("eval", 1)}


def test_a_file_of_no_side_beside_one_side_is_read(tmp_path: Path) -> None:
    labels = read_tables(tables(tmp_path, all=ROW, train="a.jpg,5,6,7,8,dog"))
    assert labels.faults == ()
    assert [(item.given, list(item.boxes)) for item in labels.annotations] == [("train", [CAT, Box("dog", 5, 6, 7, 8)])]


def test_kinds_may_stand_side_by_side(tmp_path: Path) -> None:
    files = [*tables(tmp_path, vott=ROW), tmp_path / "open.csv"]
    files[1].write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\na.jpg,/m/1,0,1,0,1\n")
    labels = read_tables(files)
    assert labels.format == "VoTT 2 CSV and Open Images CSV"
    assert [(item.filename, item.stem, item.fraction) for item in labels.annotations] == [
        ("a.jpg", "", False), ("", "a.jpg", True),
    ]


def test_more_rows_than_are_held_at_once(tmp_path: Path) -> None:
    row = f"{'a' * 30_000}.jpg,%d,2,3,4,cat\n"
    labels = read(tmp_path, f"{VOTT}\n" + "".join(row % number for number in range(160)))
    assert [(box.xmin, box.line) for box in only(labels).boxes] == [(number, number + 2) for number in range(160)]


TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8).filter(
    lambda text: text[0] not in "=+-@" and not text.lower().startswith("file:"),
)
EDGES = [st.floats(allow_nan=False)] * 4
BOXES = st.builds(Box, TEXT, *EDGES)
FLAGGED = st.builds(Box, TEXT, *EDGES, truncated=st.booleans(), crowd=st.booleans())
STYLES = st.tuples(
    st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
Style = tuple[str, str, Literal[0, 1], str]


def back(columns: str, rows: Iterable[Iterable[object]], style: Style) -> Labels:
    """What is read of a file that the standard library wrote."""
    separator, line_end, quoting, encoding = style
    out = StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=line_end, quoting=quoting)
    writer.writerows([columns.split(","), *rows])
    with tempfile.TemporaryDirectory() as folder:
        return read(Path(folder), out.getvalue().encode(encoding))


def images(labels: Labels) -> dict[str, list[Box]]:
    assert labels.faults == ()
    return {annotation.filename or annotation.stem: list(annotation.boxes) for annotation in labels.annotations}


@drawn(40)
@given(st.dictionaries(TEXT, st.lists(BOXES, max_size=3), min_size=1, max_size=4), STYLES)
def test_what_vott_would_write_comes_back(data: dict[str, list[Box]], style: Style) -> None:
    rows: list[tuple[object, ...]] = [
        (name, box.xmin, box.ymin, box.xmax, box.ymax, box.label) for name, boxes in data.items() for box in boxes
    ]
    rows += [(name, "", "", "", "", "") for name, boxes in data.items() if not boxes]
    assert images(back(VOTT, rows, style)) == data


@drawn(40)
@given(
    st.dictionaries(TEXT, st.lists(BOXES, max_size=3), min_size=1, max_size=4), STYLES,
    st.tuples(st.integers(1, 70000), st.integers(1, 70000)),
)
def test_what_the_tutorials_would_write_comes_back(
    data: dict[str, list[Box]], style: Style, size: tuple[int, int],
) -> None:
    rows: list[tuple[object, ...]] = [
        (name, *size, box.label, box.xmin, box.ymin, box.xmax, box.ymax)
        for name, boxes in data.items() for box in boxes
    ]
    rows += [(name, *size, "", "", "", "", "") for name, boxes in data.items() if not boxes]
    labels = back(TUTORIAL, rows, style)
    assert images(labels) == data
    assert {(annotation.width, annotation.height) for annotation in labels.annotations} == {size}


@drawn(40)
@given(st.dictionaries(TEXT, st.lists(FLAGGED, min_size=1, max_size=3), min_size=1, max_size=4), STYLES)
def test_what_open_images_would_write_comes_back(data: dict[str, list[Box]], style: Style) -> None:
    rows = [
        (
            name, "xclick", box.label, 1, box.xmin, box.xmax, box.ymin, box.ymax, 0, int(box.truncated),
            int(box.crowd) or -1, 0, -1,
        )
        for name, boxes in data.items() for box in boxes
    ]
    assert images(back(OPEN_IMAGES, rows, style)) == data


CELLS = st.sampled_from([
    "a.jpg", "", "1", "-2.5", "nan", "1e999", "cat", "=A1", "1,5", '"1"', '"', '"a""b"', "a\nb", "\0", "\ufeff", "\t",
    " ", "é",
])
ROWS = st.lists(st.lists(CELLS, min_size=4, max_size=8), max_size=6)


@drawn(60)
@given(
    st.sampled_from([VOTT, TUTORIAL, OPEN_IMAGES, "image"]), st.sampled_from(",;\t"), ROWS,
    st.sampled_from(["utf-8", "utf-16", "utf-16-le", "cp1252"]),
)
def test_any_table_is_read_or_fails_with_a_code(columns: str, separator: str, rows: list[list[str]], code: str) -> None:
    text = "\n".join([columns.replace(",", separator), *(separator.join(row) for row in rows)])
    data = text.encode(code, errors="replace")
    with tempfile.TemporaryDirectory() as folder:
        assert outcome(lambda: read(Path(folder), data)) in ("", "D104")


@drawn(100)
@given(st.data())
def test_damaged_tables_are_read_or_fail_with_a_code(data: st.DataObject) -> None:
    raw = bytearray(f'{TUTORIAL}\na.jpg,9,9,cat,1,2,3,4\n"b.jpg","9","9","d ""o"" g","1","2","3","4"\n'.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(raw)
        sniffed = sniff_table(path)
        code = outcome(lambda: read_tables([path]))
        assert code in ("", "D104")
        assert sniffed or code == "D104"


@drawn(60)
@given(st.binary(max_size=80))
def test_any_bytes_fail_with_a_code(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert outcome(lambda: read(Path(folder), data)) == "D104"


def test_a_table_of_nothing_but_faults_is_told_up_to_a_number(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("filename,class,xmin,ymin,xmax,ymax\n" + "a.jpg,cat,1,1,x,9\n" * 10_020, encoding="utf-8")
    faults = read_tables([path]).faults
    assert len(faults) == 10_000
    assert faults[-1].found == "there are 21 more of the kind"
