from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from gcpod.data.formats.splitlists import split_sides
from gcpod.data.formats.text import decode_text
from gcpod.data.formats.voc import to_voc
from gcpod.data.formats.vott1 import parse_image_set, read_vott1, sniff_vott1
from gcpod.data.model import Box, Labels, Split
from gcpod.errors import DataError
from gcpod.status import Finding

from .making import drawn, outcome

MAP = "item {\r\n id: 1\r\n name: 'cat'\r\n}\r\nitem {\r\n id: 5\r\n name: 'traffic light'\r\n}\r\n"
CAT = Box("cat", 1, 2, 30, 40)
MAIN = "ImageSets/Main"
NAMES = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\."), min_size=1, max_size=8)


def xml(name: str, *boxes: Box) -> str:
    return to_voc(name, 100, 50, boxes, folder="Annotation")


def export(folder: Path, files: dict[str, str | bytes]) -> Path:
    """VoTT's folders around the files given; "a.xml" alone stands for one with a cat."""
    for name in ("Annotations", MAIN, "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / ("Annotations" if name.endswith(".xml") else ".") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = xml(path.stem, CAT) if name.endswith(".xml") and not content else content
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def sides(labels: Labels) -> dict[str, str | None]:
    return {item.stem: item.given for item in labels.annotations}


def told(labels: Labels, folder: Path) -> list[tuple[str, str, str]]:
    return [(fault.code, fault.severity, fault.where.removeprefix(f"{folder}/")) for fault in labels.faults]


def test_an_export_of_vott(tmp_path: Path) -> None:
    export(tmp_path, {
        "pascal_label_map.pbtxt": MAP, "my photo 1.xml": xml("my photo 1", CAT, Box("traffic light", 5, 6, 7, 8)),
        "b.xml": xml("b"), "c.d.xml": "", "JPEGImages/b.jpg": "",
        f"{MAIN}/cat_train.txt": "my photo 1 1\r\nb -1\r\n", f"{MAIN}/cat_val.txt": "c.d 1\r\n",
        f"{MAIN}/traffic light_train.txt": "my photo 1 1\r\nb -1\r\n", f"{MAIN}/traffic light_val.txt": "c.d -1\r\n",
    })
    labels = read_vott1(tmp_path)
    assert (labels.faults, labels.broken) == ((), {})
    assert labels.label_map is not None
    assert labels.label_map.ids() == {"cat": 1, "traffic light": 5}
    assert sides(labels) == {"b": "train", "c.d": "eval", "my photo 1": "train"}
    found = {item.stem: item for item in labels.annotations}
    assert found["my photo 1"].boxes == [CAT, Box("traffic light", 5, 6, 7, 8)]
    assert len(found["b"].boxes) == 0
    assert {(item.filename, item.width, item.height, item.fraction) for item in labels.annotations} == {
        ("", 100, 50, False),
    }
    assert found["b"].path == tmp_path / "Annotations" / "b.xml"


def test_the_voc_devkit(tmp_path: Path) -> None:
    names = ["train", "val", "test", "neither", "listless"]
    export(tmp_path, {
        **{f"2007_{name}.xml": xml(f"2007_{name}.jpg", CAT) for name in names},
        **{f"{MAIN}/{name}.txt": f"2007_{name}\n" for name in ("train", "val", "test")},
        f"{MAIN}/trainval.txt": "2007_train\n2007_val\n2007_neither\n",
        f"{MAIN}/train_trainval.txt": "2007_neither  1\n", f"{MAIN}/aeroplane.txt": "what is this?\n",
        f"{MAIN}/train_train.txt": "2007_train -1\n", f"{MAIN}/dog_val.txt": "2007_val  0\n",
        f"{MAIN}/train_test.txt": "2007_test  1\n",
    })
    labels = read_vott1(tmp_path)
    assert labels.faults == ()
    assert labels.label_map is None
    assert sides(labels) == {
        "2007_train": "train", "2007_val": "eval", "2007_test": "eval", "2007_neither": None, "2007_listless": None,
    }
    assert {item.filename for item in labels.annotations} == {f"2007_{name}.jpg" for name in names}


def test_names_in_the_lists_may_have_folders_and_suffixes(tmp_path: Path) -> None:
    export(tmp_path, {
        **dict.fromkeys(("a.xml", "x.y.xml", "sub/c.xml", "sub/d.xml", "other/d.xml", "e.XML.xml"), ""),
        f"{MAIN}/cat_train.txt": "a.jpg 1\nx.y 1\nsub\\c 1\n", f"{MAIN}/train.txt": "x.y.png\nJPEGImages/sub/d.jpg\n",
    })
    labels = read_vott1(tmp_path)
    assert labels.faults == ()
    assert sides(labels) == {
        "a": "train", "x.y": "train", "sub/c": "train", "sub/d": "train", "other/d": None, "e.XML": None,
    }


def test_suffixes_of_four_letters_that_vott_cuts_in_two(tmp_path: Path) -> None:
    export(tmp_path, {
        "a..xml": "", "b.xml": "", "b..xml": "", f"{MAIN}/cat_train.txt": "a. 1\r\nb. 1\r\n",
        f"{MAIN}/cat_val.txt": "b -1\r\n",
    })
    labels = read_vott1(tmp_path)
    assert labels.faults == ()
    assert sides(labels) == {"a": "train", "b": "eval", "b.": "train"}
    assert {item.filename for item in labels.annotations} == {""}


def test_an_image_on_both_sides_evaluates(tmp_path: Path) -> None:
    export(tmp_path, {
        "a.xml": "", "b.xml": "", f"{MAIN}/cat_train.txt": "b 1\na 1\n", f"{MAIN}/dog_train.txt": "a 1\n",
        f"{MAIN}/cat_val.txt": "\na 1\n",
    })
    labels = read_vott1(tmp_path)
    assert sides(labels) == {"a": "eval", "b": "train"}
    assert told(labels, tmp_path) == [("D107", "warning", f"{MAIN}/cat_train.txt:2")]
    assert f"{tmp_path / MAIN}/cat_val.txt:2" in labels.faults[0].found


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    export(tmp_path, {
        "a.xml": "", "b.xml": "<annotation>\n<object/></annotation>", "c.xml": xml("c.jpg").encode("utf-16"),
        f"{MAIN}/cat_train.txt": "a 1\nb\nc 2\nlost 1\n1\n", f"{MAIN}/dog_train.txt": "lost -1\nb -1\n",
        f"{MAIN}/caf\u00e9_val.txt": "caf\u00e9 1\n".encode("latin-1"), f"{MAIN}/cow_val.txt": b"\x81 1\n",
    })
    (tmp_path / "Annotations" / "c.XML").write_text(xml("c"), encoding="utf-8")
    labels = read_vott1(tmp_path)
    assert told(labels, tmp_path) == [
        ("D104", "error", "Annotations/c.xml"),
        ("D104", "warning", f"{MAIN}/caf\u00e9_val.txt"),
        ("D104", "error", f"{MAIN}/cat_train.txt:2"),
        ("D104", "error", f"{MAIN}/cat_train.txt:3"),
        ("D104", "error", f"{MAIN}/cat_train.txt:5"),
        ("D104", "error", f"{MAIN}/cow_val.txt"),
        ("D106", "warning", f"{MAIN}/caf\u00e9_val.txt:1"),
        ("D106", "warning", f"{MAIN}/cat_train.txt:4"),
    ]
    assert sides(labels) == {"a": "train", "c": None}
    place = f"{tmp_path / 'Annotations' / 'b.xml'}:2"
    assert labels.broken == {
        "b": Finding("D104", "error", place, "<object> has no <bndbox>", "draw the box again in LabelImg"),
    }


@pytest.mark.parametrize(("files", "code", "found"), [
    ({}, "D104", "there is no XML in it"),
    ({"a.xml": "", "pascal_label_map.pbtxt": "item { id: 0 name: 'it's' }"}, "D101", "pascal_label_map.pbtxt:1"),
])
def test_exports_that_cannot_be_read(tmp_path: Path, files: dict[str, str | bytes], code: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        read_vott1(export(tmp_path, files))
    assert caught.value.code == code


def test_folders_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder") as caught:
        read_vott1(tmp_path)
    assert caught.value.code == "D104"
    export(tmp_path, {"a.xml": ""})
    (tmp_path / MAIN).rmdir()
    assert sides(read_vott1(tmp_path)) == {"a": None}


def test_sniffing(tmp_path: Path) -> None:
    assert not sniff_vott1(tmp_path)
    export(tmp_path, {})
    assert not sniff_vott1(tmp_path)
    export(tmp_path, {"a.xml": ""})
    assert sniff_vott1(tmp_path)
    assert not sniff_vott1(tmp_path / "Annotations")
    assert not sniff_vott1(tmp_path / "Annotations" / "a.xml")
    assert not sniff_vott1(Path("a\0b"))
    (tmp_path / MAIN).rmdir()
    assert not sniff_vott1(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_windows_tools_write(encoding: str, end: str) -> None:
    text, faults = decode_text(f"café{end}über".encode(encoding), Path("a.txt"))
    assert text == "café\nüber"
    assert [fault.severity for fault in faults] == ["warning"] * (encoding == "cp1252")


@given(st.dictionaries(NAMES, st.sampled_from(["train", "eval", "both", None]), min_size=1, max_size=6), st.booleans(),
       st.sampled_from(["", ".jpg"]))
def test_lists_come_back(plan: dict[str, str | None], flagged: bool, suffix: str) -> None:
    listed, faults = [], []
    marks: tuple[tuple[Split, str], ...] = (("train", " -1"), ("eval", "  1"))
    for side, mark in marks:
        names = [name for name, planned in plan.items() if planned in (side, "both")]
        text = "\r\n".join(f"{name}{suffix}{mark * flagged}" for name in names)
        items, wrong = parse_image_set(decode_text(text.encode(), Path(side))[0], Path(side), side, flagged)
        listed += items
        faults += wrong
    found = split_sides(plan.keys(), listed)
    assert faults == []
    assert found.unknown == ()
    assert found.given == {name: "eval" if side == "both" else side for name, side in plan.items() if side}
    assert len(found.faults) == [*plan.values()].count("both")


PIECES = st.sampled_from([
    "a", "b", " ", "\t", "1", "-1", "0", "\n", "\r\n", "\0", "/", "\\", "..", ".", ".jpg", "é", "\x85",
])


@given(st.lists(PIECES, max_size=20).map("".join), st.booleans())
def test_any_list_parses(text: str, flagged: bool) -> None:
    listed, faults = parse_image_set(text, Path("a"), "train", flagged)
    found = split_sides({"a", "b", "a/b", ""}, listed)
    assert {fault.code for fault in faults} <= {"D104"}
    assert len(found.unknown) <= len(listed)
    assert len(listed) + len(faults) == sum(bool(line.strip()) for line in text.split("\n"))


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
@drawn(60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_folder_reads_or_fails_with_a_code(tmp_path: Path, text: bytes, plain: bytes, label_map: bytes) -> None:
    export(tmp_path, {
        "a.xml": "", "b.xml": plain or b"-", f"{MAIN}/cat_train.txt": text, f"{MAIN}/val.txt": plain,
        "pascal_label_map.pbtxt": label_map,
    })
    assert outcome(lambda: read_vott1(tmp_path)) in ("", "D101", "D104")
    (tmp_path / "pascal_label_map.pbtxt").unlink()
    labels = read_vott1(tmp_path)
    assert "b" in labels.broken
    assert {fault.code for fault in labels.faults} <= {"D104", "D106", "D107"}
