from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from gcpod.data.formats.yolo import parse_labels, read_yolo, sniff_yolo
from gcpod.data.formats.yolo_names import parse_names
from gcpod.data.formats.yolo_yaml import parse_config
from gcpod.data.model import Annotation, Box, Labels
from gcpod.errors import DataError
from gcpod.status import Finding

from .making import drawn, outcome

PATH = Path("a.txt")
NAMES = {0: "cat", 1: "red panda"}
LINE = "0 0.5 0.5 0.2 0.4\n"
CAT = Box("cat", 0.4, 0.3, 0.6, 0.7)
YAML = "names: [cat, red panda]\n"
TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)


def grow(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def by_stem(labels: Labels) -> dict[str, Annotation]:
    found = {item.stem: item for item in labels.annotations}
    assert len(found) == len(labels.annotations)
    return found


def sides(labels: Labels) -> dict[str, str | None]:
    return {item.stem: item.given for item in labels.annotations}


def near(box: Box, other: Box) -> bool:
    edges = ((getattr(box, edge), getattr(other, edge)) for edge in ("xmin", "ymin", "xmax", "ymax"))
    return box.label == other.label and all(math.isclose(a, b, abs_tol=1e-9) for a, b in edges)


def only(faults: tuple[Finding, ...]) -> Finding:
    [fault] = faults
    return fault


def test_labels_beside_images_in_folders_of_their_own(tmp_path: Path) -> None:
    grow(tmp_path, {
        "data.yaml": "path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: cat\n  1: red panda\n",
        "images/train/a.jpg": "", "labels/train/a.txt": "\n" + LINE, "labels/val/b.c.txt": "",
        "labels/train.cache": "x", "labels/val/.c.txt": "x",
    })
    for folder in (tmp_path, tmp_path / "labels"):
        labels = read_yolo(folder, None)
        assert labels.faults == ()
        assert labels.label_map is not None
        assert labels.label_map.ids() == {"cat": 1, "red panda": 2}
        assert sides(labels) == {"train/a": "train", "val/b.c": "eval"}
        found = by_stem(labels)["train/a"]
        assert (found.filename, found.width, found.height, found.fraction) == ("", 0, 0, True)
        assert near(found.boxes[0], CAT)
        assert found.place(found.boxes[0].line) == f"{tmp_path / 'labels' / 'train' / 'a.txt'}:2"
        assert len(by_stem(labels)["val/b.c"].boxes) == 0


def test_one_split_of_a_dataset_finds_its_names_above(tmp_path: Path) -> None:
    grow(tmp_path, {"data.yaml": YAML, "labels/train/a.txt": LINE})
    assert sides(read_yolo(tmp_path / "labels" / "train", None)) == {"a": None}


def test_roboflow(tmp_path: Path) -> None:
    grow(tmp_path, {
        "data.yaml": "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cat', 'red panda']\n",
        "README.roboflow.txt": "hello", "README.dataset.txt": "hello",
        "train/images/a.jpg": "", "train/labels/a.txt": LINE, "valid/labels/b.txt": LINE, "test/labels/c.txt": LINE,
    })
    labels = read_yolo(tmp_path, None)
    assert labels.faults == ()
    assert sides(labels) == {"train/a": "train", "valid/b": "eval", "test/c": "eval"}


def test_labels_beside_the_images_with_a_list_of_names(tmp_path: Path) -> None:
    grow(tmp_path, {
        "classes.txt": "\ufeffcat\r\nred panda\r\n\r\n", "a.jpg": "", "a.txt": "1 .5 5E-1 0.2 +0.4 0.97\r\n",
        "requirements.txt": "yolo", "images.txt": LINE,
    })
    labels = read_yolo(tmp_path, None)
    assert labels.faults == ()
    assert sides(labels) == {"a": None, "images": None}
    assert by_stem(labels)["a"].boxes[0].label == "red panda"


def test_darknet_lists_say_who_trains(tmp_path: Path) -> None:
    grow(tmp_path, {
        "obj.names": "cat\n", "train.txt": "data/obj/a.jpg\n", "test.txt": "data\\obj\\b.jpg\n",
        "trainval.txt": "data/obj/c.jpg\n",
        "obj/a.txt": LINE, "obj/b.txt": LINE, "obj/c.txt": LINE, "obj/test.txt": LINE,
    })
    assert sides(read_yolo(tmp_path, None)) == {"obj/a": "train", "obj/b": "eval", "obj/c": None, "obj/test": None}


def test_lists_that_the_config_names(tmp_path: Path) -> None:
    grow(tmp_path, {
        "my.yaml": "path: /home/x\ntrain: [/x/lists/1.txt, /x/lists/2.txt]\nval: val.txt\ntest: gone.txt\n" + YAML,
        "lists/1.txt": "./images/x/a.jpg\n\n./images/y/a.jpg\n", "lists/2.txt": "./images/b.jpg\n",
        "val.txt": "images/c.jpg\nimages/unlabelled.jpg\n./images/b.jpg\n",
        "labels/x/a.txt": LINE, "labels/y/a.txt": LINE, "labels/b.txt": LINE, "labels/c.txt": LINE, "labels/d.txt": "",
    })
    for folder in (tmp_path, tmp_path / "labels"):
        labels = read_yolo(folder, tmp_path / "my.yaml")
        assert sides(labels) == {"x/a": "train", "y/a": "train", "b": "eval", "c": "eval", "d": None}
        gone, both = labels.faults
        assert (gone.code, gone.severity, gone.where) == ("D104", "warning", f"{tmp_path / 'my.yaml'}:4")
        assert "gone.txt" in gone.found
        assert (both.code, both.severity, both.where) == ("D107", "warning", f"{tmp_path / 'lists/2.txt'}:1")
        assert f"{tmp_path / 'val.txt'}:3" in both.found


def test_a_list_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    grow(tmp_path, {"outside.txt": "a.jpg\n", "in/data.yaml": "train: ../outside.txt\n" + YAML, "in/a.txt": LINE})
    labels = read_yolo(tmp_path / "in", None)
    assert sides(labels) == {"a": None}
    assert "outside.txt" in only(labels.faults).found


def test_folders_that_the_config_names(tmp_path: Path) -> None:
    grow(tmp_path, {
        "data.yaml": "train: [../images/part1, 'C:\\x\\images\\part2']\nval: images/part3/sub\ntest: images\n" + YAML,
        "labels/part1/a.txt": LINE, "labels/part2/sub/b.txt": LINE, "labels/part3/sub/c.txt": LINE,
        "labels/part3/d.txt": LINE,
    })
    assert sides(read_yolo(tmp_path, None)) == {
        "part1/a": "train", "part2/sub/b": "train", "part3/sub/c": "eval", "part3/d": None,
    }


def test_a_folder_called_after_a_side_is_that_side(tmp_path: Path) -> None:
    grow(tmp_path, {
        "data.yaml": "train: images/train2017\nval: images/train2017\n" + YAML, "other.yaml": "names: [dog]",
        "labels/train2017/test/a.txt": LINE, "labels/.old/b.txt": LINE,
        "train.txt": LINE + "b.jpg\n",
    })
    labels = read_yolo(tmp_path, None)
    assert sides(labels) == {"train2017/test/a": "train", "train": None}
    assert only(labels.faults).where == f"{tmp_path / 'train.txt'}:2"


def test_a_list_of_names_of_any_name_among_the_labels(tmp_path: Path) -> None:
    grow(tmp_path, {"my names.txt": "cat", "a.txt": LINE})
    labels = read_yolo(tmp_path, tmp_path / "my names.txt")
    assert labels.faults == ()
    assert sides(labels) == {"a": None}


def test_names_that_are_not_utf8_are_read_with_a_warning(tmp_path: Path) -> None:
    grow(tmp_path, {"classes.txt": "café".encode("latin-1"), "a.txt": LINE})
    labels = read_yolo(tmp_path, None)
    assert by_stem(labels)["a"].boxes.labels == ("café",)
    fault = only(labels.faults)
    assert (fault.code, fault.severity, fault.where) == ("D104", "warning", str(tmp_path / "classes.txt"))


@pytest.mark.parametrize(("line", "poses", "box"), [
    ("0 0.1 0.2 0.5 0.1 0.3 0.9", False, Box("cat", 0.1, 0.1, 0.5, 0.9)),
    ("0 0.1 0.2 0.5 0.2 0.5 0.9 0.1 0.9", False, Box("cat", 0.1, 0.2, 0.5, 0.9)),
    ("0 0.5 0.5 0.2 0.4 0.1 0.1 2", True, CAT),
    ("0 0.5 0.5 0.2 0.4 0.1 0.1", True, CAT),
    ("0 0.5 0.5 0.2 0.4 0.93", False, CAT),
    ("0 0.5 0.5 -0.2 0.4", False, Box("cat", 0.6, 0.3, 0.4, 0.7)),
    ("1.000e+00 0 0 0 0", False, Box("red panda", 0, 0, 0, 0)),
    ("\t1  1.2 -0.5 0.4 0.2 ", False, Box("red panda", 1.0, -0.6, 1.4, -0.4)),
])
def test_lines(line: str, poses: bool, box: Box) -> None:
    boxes, faults = parse_labels("\n" + line, PATH, NAMES, poses)
    assert faults == ()
    assert len(boxes) == 1
    assert near(boxes[0], box)
    assert boxes[0].line == 2


@pytest.mark.parametrize(("line", "code", "found"), [
    ("0 0.5 0.5 0.2", "D104", "4 numbers are neither a box"),
    ("0", "D104", "1 numbers"),
    ("0 0.5 0.5 0.2 0.4 0.1 0.1 0.1", "D104", "8 numbers"),
    ("cat 0.5 0.5 0.2 0.4", "D104", "'cat 0.5 0.5 0.2 0.4' is no class id"),
    ("0 0,5 0,5 0,2 0,4", "D104", "is no class id"),
    ("0 0.5 0.5 0.2 0_4", "D104", "is no class id"),
    ("0 0.5 0.5 0.2 ٤", "D104", "is no class id"),
    ("0.5 0.5 0.5 0.2 0.4", "D104", "is no class id"),
    ("0 0.5 0.5 0.2 " + "1" * 1_000_000 + "x", "D104", "is no class id"),
    ("inf 0.5 0.5 0.2 0.4", "D104", "is no class id"),
    ("2 0.5 0.5 0.2 0.4", "D101", "class 2 has no name; the highest that has one is 1"),
    ("-1 0.5 0.5 0.2 0.4", "D101", "class -1 has no name"),
    ("1e300 0.5 0.5 0.2 0.4", "D101", "class 1e300 has no name"),
])
def test_lines_that_are_none(line: str, code: str, found: str) -> None:
    boxes, faults = parse_labels(f"{LINE}{line}\n{LINE}", PATH, NAMES)
    fault = only(faults)
    assert (fault.code, fault.severity, fault.where) == (code, "error", "a.txt:2")
    assert found in fault.found
    assert [box.line for box in boxes] == [1, 3]


def test_pixels_are_told_once_a_file_and_numbers_pass_through() -> None:
    boxes, faults = parse_labels(f"{LINE}0 320 200 50 40\n0 nan inf 1 1\n", PATH, NAMES)
    fault = only(faults)
    assert (fault.code, fault.severity, fault.where) == ("D104", "error", "a.txt:2")
    assert "YOLO wants fractions" in fault.found
    assert len(boxes) == 2
    assert math.isnan(boxes[1].xmin)
    assert boxes[1].ymax == math.inf


def test_a_damaged_polygon_does_not_hide_in_its_box() -> None:
    [box], _ = parse_labels("0 0.1 0.2 nan 0.1 0.3 0.9\n", PATH, NAMES)
    assert math.isnan(box.xmin)


def test_files_that_cannot_be_read_are_told_together(tmp_path: Path) -> None:
    grow(tmp_path, {
        "data.yaml": YAML, "labels/a.txt": b"\x81\xff", "labels/b.txt": LINE.encode("utf-16"),
        "labels/c.txt": b"0 0.5\xa00.5 0.2 0.4", "labels/d.txt": "x", "images/e.txt": LINE, "labels/e.txt": LINE,
    })
    labels = read_yolo(tmp_path, None)
    assert labels.broken == {"a": Finding(
        "D104", "error", str(tmp_path / "labels/a.txt"), "byte 0 is neither UTF-8 nor Windows-1252",
        "store the file as UTF-8",
    )}
    assert [(fault.severity, Path(fault.where).name) for fault in labels.faults] == [
        ("warning", "c.txt"), ("error", "d.txt:1"), ("error", "e.txt"),
    ]
    assert near(by_stem(labels)["b"].boxes[0], CAT)
    assert near(by_stem(labels)["c"].boxes[0], CAT)


@pytest.mark.parametrize(("files", "code", "found"), [
    ({"a.txt": LINE}, "D101", "there are no class names"),
    ({"data.yaml": YAML}, "D104", "there are no label files"),
    ({"data.yaml": YAML, "train.txt": "images/a.jpg\n"}, "D104", "there are no label files"),
    ({"x.yaml": YAML, "y.yml": YAML, "a.txt": LINE}, "D101", "x.yaml and y.yml both have names"),
    ({"p/classes.txt": "cat\ndog", "q/classes.txt": "dog\ncat", "a.txt": LINE}, "D101", "q/classes.txt: it differs"),
])
def test_folders_that_cannot_be_read(tmp_path: Path, files: dict[str, str | bytes], code: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        read_yolo(grow(tmp_path, files), None)
    assert caught.value.code == code


def test_a_missing_folder_or_config(tmp_path: Path) -> None:
    assert outcome(lambda: read_yolo(tmp_path / "none", None)) == "D104"
    grow(tmp_path, {"a.txt": LINE})
    assert outcome(lambda: read_yolo(tmp_path, tmp_path / "none.yaml")) == "D104"


@pytest.mark.parametrize(("text", "names"), [
    ("names: [yes, 0x10, 2024-01-01, null, ' a  b ']", ["yes", "0x10", "2024-01-01", "null", "a b"]),
    ("{names: {1: b, 0: a}, nc: 2}", ["b", "a"]),
    ("names:\n- a\n- 'it''s'\nnc: 2\ndownload: |\n  import x\n", ["a", "it's"]),
    ("names:\n  '0': a\n  '7': b\n", ["a", "b"]),
])
def test_class_names_are_taken_as_written(text: str, names: list[str]) -> None:
    config = parse_config(text, Path("data.yaml"))
    assert list(config.names.values()) == names
    assert config.faults == ()


def test_gaps_in_the_ids_close_in_the_label_map(tmp_path: Path) -> None:
    grow(tmp_path, {"data.yaml": "names: {7: dog, 3: cat}", "a.txt": LINE.replace("0 ", "3 ", 1) + LINE})
    labels = read_yolo(tmp_path, None)
    assert labels.label_map is not None
    assert labels.label_map.ids() == {"cat": 1, "dog": 2}
    assert only(labels.faults).found == "class 0 has no name; the highest that has one is 7"
    assert by_stem(labels)["a"].boxes.labels == ("cat",)


@pytest.mark.parametrize("count", ["3", "x", "[2]"])
def test_a_wrong_count_of_classes(count: str) -> None:
    fault = only(parse_config(f"{YAML}nc: {count}\n", Path("data.yaml")).faults)
    assert (fault.code, fault.severity, fault.where) == ("D101", "warning", "data.yaml:2")


@pytest.mark.parametrize(("text", "code", "found"), [
    ("", "D104", "it is no mapping"),
    ("- names", "D104", "it is no mapping"),
    ("nc: 2", "D101", "it has no names"),
    ("a: 1\nnames: [a, b", "D104", "data.yaml:2"),
    ("names: [a]\nnames: [b]", "D104", "data.yaml:2: 'names' is given twice"),
    ("names: data.names", "D101", "it names no classes"),
    ("names: []", "D101", "it names no classes"),
    ("names:\n- a\n- [b]", "D101", "data.yaml:3: this is no class id"),
    ("names: {a: 0}", "D101", "this is no class id"),
    ("names: {0: a, 0: b}", "D101", "class 0, named 'b', is there twice"),
    ("names:\n- a\n- a", "D101", "data.yaml:3: class 1, named 'a', is there twice"),
    ("names: [a, '']", "D101", "its name is empty"),
    (r'names: ["\ud800"]', "D101", "control character"),
    (r'names: ["\UFFFFFFFF"]', "D104", "data.yaml"),
    ("a: &x [1]\nnames: [*x]", "D104", "data.yaml:2: it uses a YAML alias"),
    ("names: !!python/tuple [a]", "D104", "it uses a YAML tag"),
    ("names: " + "[" * 5000, "D104", "nested deeper than 20"),
    ("x: " + "[" * 20 + "]" * 20, "D104", "nested deeper than 20"),
    ("x: " + "[" * 19 + "]" * 19, "D101", "it has no names"),
    ("names: [a]\0", "D104", "special characters are not allowed"),
    ("names: [a]\n---\nnames: [b]", "D104", "another document"),
    ("#" * 1_000_001, "D104", "1000001 characters"),
])
def test_configs_that_are_none(text: str, code: str, found: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_config(text, Path("data.yaml"))
    assert caught.value.code == code
    assert found in str(caught.value)


@pytest.mark.parametrize(("text", "found"), [
    ("", "c.txt:1"), ("cat\n\ndog", "c.txt:2"), ("cat\ndog\ncat", "c.txt:3"), ("c\x01t", "control character"),
])
def test_lists_of_names_that_are_none(text: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_names(text, Path("c.txt"))
    assert caught.value.code == "D101"


@pytest.mark.parametrize(("files", "expected"), [
    ({"data.yaml": YAML}, True),
    ({"coco8.yml": "# a\ntrain: x\n" + YAML}, True),
    ({"data.json.yaml": '{\n  "names": ["a"]}'}, True),
    ({"env.yaml": "name: x\nhostnames: [a]\nhosts:\n  names: [a]\n"}, False),
    ({"env.yaml": "\n" * 1_000_000}, False),
    ({"labels/train/a.txt": "\n\n0 0.5 0.5 0.2 0.4\n"}, True),
    ({"labels/a.txt": "0 " + "0.51234 " * 20000}, True),
    ({"images/a.jpg": "", "images/a.txt": LINE, "images/notes.txt": "hello"}, True),
    ({**{f"info/{number}.txt": "hello" for number in range(9)}, "labels/a.txt": LINE}, True),
    ({"classes.txt": "cat", "a.txt": ""}, True),
    ({"classes.txt": "cat", "a.xml": ""}, False),
    ({"a.txt": ""}, False),
    ({"a.txt": "cat 0.5 0.5 0.2 0.4"}, False),
    ({"a.txt": "0 0.5 0.5 0.2"}, False),
    ({"cat_train.txt": "a 1\nb -1\n"}, False),
    ({"a.txt": b"\xff\xfe\x00"}, False),
    ({}, False),
])
def test_sniffing(tmp_path: Path, files: dict[str, str | bytes], expected: bool) -> None:
    assert sniff_yolo(grow(tmp_path, files)) is expected


def test_sniffing_what_is_no_folder(tmp_path: Path) -> None:
    grow(tmp_path, {"a": ""})
    assert not any(map(sniff_yolo, (tmp_path / "a", tmp_path / "none", Path("a\0b"))))


@given(
    st.lists(TEXT, min_size=1, max_size=4, unique=True),
    st.lists(st.tuples(st.integers(0, 3), *[st.floats(0, 1)] * 4), max_size=4),
    st.booleans(),
)
@drawn(50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_was_written_comes_back(
    tmp_path: Path, names: list[str], rows: list[tuple[int, float, float, float, float]], as_mapping: bool,
) -> None:
    config = parse_config(
        yaml.safe_dump({"names": dict(enumerate(names)) if as_mapping else names}, allow_unicode=True),
        tmp_path / "data.yaml",
    )
    text = "".join(f"{index % len(names)} {x!r} {y!r} {w!r} {h!r}\n" for index, x, y, w, h in rows)
    boxes, faults = parse_labels(text, PATH, config.names)
    assert faults == ()
    assert [(box.label, box.xmin, box.ymax, box.line) for box in boxes] == [
        (names[index % len(names)], x - w / 2, y + h / 2, line) for line, (index, x, y, w, h) in enumerate(rows, 1)
    ]


PIECES = st.sampled_from([
    "0", "1", "9", "-1", "0.5", "1e999", "nan", "-inf", "a", " ", "\n", "\r", "\0", "\x85", "é", "0 0.5 0.5 0.1 0.1\n",
])
YAML_PIECES = st.sampled_from([
    "names", "nc", "train", "val", ":", ": ", " ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", "a", "0", "'", '"',
    "\\", "&x", "*x", "!", "|", ">", "#", "%", "---", "? ", "<<", "~", "\\U", "FFFFFFFF", "2024-99-99", "%YAML 9",
    "@", "\t",
])


def joined(pieces: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.lists(pieces, max_size=most).map("".join)


@given(joined(PIECES, 30))
def test_any_lines_parse(text: str) -> None:
    _, faults = parse_labels(text, PATH, NAMES)
    assert {fault.code for fault in faults} <= {"D101", "D104"}


@given(joined(YAML_PIECES, 25), st.booleans())
@drawn(300, deadline=None)
def test_any_yaml_parses_or_fails_with_a_code(text: str, fitting: bool) -> None:
    assert outcome(lambda: parse_config(YAML * fitting + text, Path("data.yaml"))) in ("", "D101", "D104")


@given(st.binary(max_size=60), st.one_of(st.binary(max_size=60), joined(YAML_PIECES, 12).map(str.encode)),
       joined(PIECES, 8).map(str.encode))
@drawn(60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_folder_reads_or_fails_with_a_code(tmp_path: Path, label: bytes, config: bytes, names: bytes) -> None:
    grow(tmp_path, {
        "data.yaml": YAML.encode() + b"train: train.txt\n" + config, "train.txt": label, "a.txt": label,
        "classes.txt": names,
    })
    for chosen in (None, tmp_path / "classes.txt"):
        assert outcome(lambda chosen=chosen: read_yolo(tmp_path, chosen)) in ("", "D101", "D104")  # type: ignore[misc]
    assert sniff_yolo(tmp_path)


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    stems = [f"clip{index}/frame" for index in range(3)]
    grow(tmp_path, {"data.yaml": "train: 1.txt\nval: 2.txt\n" + YAML, **{f"labels/{stem}.txt": "" for stem in stems}})
    grow(tmp_path, {"1.txt": "/home/x/images/clip0/frame.jpg\n", "2.txt": "clip2/frame.png\nframe.jpg\n"})
    labels = read_yolo(tmp_path, None)
    assert labels.faults == ()
    assert sides(labels) == dict(zip(stems, ("train", None, "eval"), strict=True))
