from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gcpod.data.build import DatasetRequest, build_dataset, check_dataset
from gcpod.data.demo import draw_demo
from gcpod.data.features import Example
from gcpod.data.formats.voc import to_voc
from gcpod.data.labelmap import LabelItem, LabelMap, render_pbtxt
from gcpod.data.manifest import DatasetManifest
from gcpod.data.model import Box, Split
from gcpod.data.recognise import NAMES
from gcpod.data.scan import scan_dataset
from gcpod.errors import DataError
from gcpod.prepare import dataset_request
from gcpod.specfile import parse_spec

from .making import Dataset
from .test_conversions import box_of, encoded, pattern, recorded

SIZE = (100, 50)
TRUTH: Mapping[str, tuple[Box, ...]] = {
    "one": (Box("dog", 10, 10, 50, 40), Box("cat", 0, 0, 100, 50)),
    "two": (Box("cat", 20, 5, 60, 45),),
    "three": (Box("dog", 5, 5, 30, 30), Box("dog", 60, 10, 80, 20)),
    "four": (Box("cat", 40, 10, 90, 30),),
}
SIDES: Mapping[str, Split] = {"one": "train", "two": "train", "three": "eval", "four": "eval"}
TEST: Mapping[Split, str] = {"train": "train", "eval": "test"}
GIVEN = {"dog": 1, "cat": 2}
"""Ids of formats that have some: not the order of the names, which labels without ids are numbered by."""


@dataclass(frozen=True)
class Laid:
    """A dataset laid out as a tool leaves it.

    Attributes:
        format: as it is called.
        ids: what its labels come to have.
        split: whether it names the sides of SIDES.
    """

    images: Path
    annotations: Path | None
    format: str
    ids: Mapping[str, int]
    split: bool = True


def picture_of(name: str) -> bytes:
    return encoded(pattern(len(name) + ord(name[0]), SIZE), "JPEG")


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def images(root: Path, folder_of: Callable[[str], str]) -> None:
    for name in TRUTH:
        put(root / folder_of(name) / f"{name}.jpg", picture_of(name))


def xmls(root: Path, folder_of: Callable[[str], str]) -> None:
    for name, boxes in TRUTH.items():
        put(root / folder_of(name) / f"{name}.xml", to_voc(f"{name}.jpg", *SIZE, boxes))


ALPHABETIC = {"cat": 1, "dog": 2}


def voc_beside(root: Path) -> Laid:
    images(root, lambda name: "")
    xmls(root, lambda name: "")
    return Laid(root, None, "Pascal VOC XML", ALPHABETIC, split=False)


def voc_parallel(root: Path) -> Laid:
    images(root / "images", SIDES.__getitem__)
    xmls(root / "xml", lambda name: "")
    return Laid(root / "images", root / "xml", "Pascal VOC XML", ALPHABETIC)


def voc_train_test(root: Path) -> Laid:
    images(root, lambda name: TEST[SIDES[name]])
    xmls(root, lambda name: TEST[SIDES[name]])
    return Laid(root, None, "Pascal VOC XML", ALPHABETIC)


def vott1(root: Path) -> Laid:
    images(root / "JPEGImages", lambda name: "")
    xmls(root / "Annotations", lambda name: "")
    for label in GIVEN:
        for word, side in (("train", "train"), ("val", "eval")):
            lines = [
                f"{name} {1 if label in {box.label for box in boxes} else -1}\n"
                for name, boxes in TRUTH.items() if SIDES[name] == side
            ]
            put(root / "ImageSets" / "Main" / f"{label}_{word}.txt", "".join(lines))
    items = tuple(LabelItem(number, label) for label, number in GIVEN.items())
    put(root / "pascal_label_map.pbtxt", render_pbtxt(LabelMap(items)))
    return Laid(root, None, "VoTT 1 Pascal VOC export", GIVEN)


def rows(form: str, names: list[str]) -> str:
    return "".join(
        form.format(name=name, box=box, width=SIZE[0], height=SIZE[1]) for name in names for box in TRUTH[name]
    )


def vott2(root: Path) -> Laid:
    images(root / "vott-csv-export", lambda name: "")
    form = '"{name}.jpg",{box.xmin:.6f},{box.ymin:.6f},{box.xmax:.6f},{box.ymax:.6f},"{box.label}"\n'
    header = '"image","xmin","ymin","xmax","ymax","label"\n'
    put(root / "vott-csv-export" / "animals-export.csv", header + rows(form, list(TRUTH)))
    return Laid(root / "vott-csv-export", None, "CSV table", ALPHABETIC, split=False)


def tutorial(root: Path) -> Laid:
    images(root / "images", lambda name: "")
    form = "{name}.jpg,{width},{height},{box.label},{box.xmin:.0f},{box.ymin:.0f},{box.xmax:.0f},{box.ymax:.0f}\n"
    for side, word in TEST.items():
        names = [name for name in TRUTH if SIDES[name] == side]
        header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        put(root / "data" / f"{word}_labels.csv", header + rows(form, names))
    return Laid(root / "images", root / "data", "CSV table", ALPHABETIC)


def tutorial_pattern(root: Path) -> Laid:
    laid = tutorial(root)
    put(root / "data" / "notes.txt", "nothing of interest")
    return replace(laid, annotations=root / "data" / "*.csv")


def coco(root: Path) -> Laid:
    names = list(TRUTH)
    for side, word in (("train", "train2017"), ("eval", "val2017")):
        here = [name for name in names if SIDES[name] == side]
        for name in here:
            put(root / word / f"{name}.jpg", picture_of(name))
        content = {
            "info": {"year": 2017}, "images": [
                {"id": names.index(name), "file_name": f"{name}.jpg", "width": 100, "height": 50} for name in here
            ],
            "annotations": [
                {"id": 10 * names.index(name) + at, "image_id": names.index(name), "iscrowd": 0,
                 "category_id": {"dog": 18, "cat": 17}[box.label],
                 "bbox": [box.xmin, box.ymin, box.xmax - box.xmin, box.ymax - box.ymin]}
                for name in here for at, box in enumerate(TRUTH[name])
            ],
            "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        }
        put(root / "annotations" / f"instances_{word}.json", json.dumps(content))
    return Laid(root, None, "COCO JSON", {"cat": 17, "dog": 18})


def yolo_text(name: str) -> str:
    lines = [
        f"{GIVEN[box.label] - 1} {(box.xmin + box.xmax) / 200:.6f} {(box.ymin + box.ymax) / 100:.6f} "
        f"{(box.xmax - box.xmin) / 100:.6f} {(box.ymax - box.ymin) / 50:.6f}\n" for box in TRUTH[name]
    ]
    return "".join(lines)


def yolo_beside(root: Path) -> Laid:
    images(root, lambda name: "")
    for name in TRUTH:
        put(root / f"{name}.txt", yolo_text(name))
    put(root / "classes.txt", "dog\ncat\n")
    return Laid(root, None, "YOLO text files", GIVEN, split=False)


def yolo_by_kind(root: Path) -> Laid:
    """images/train, labels/train."""
    images(root / "images", SIDES.__getitem__)
    for name, side in SIDES.items():
        put(root / "labels" / side / f"{name}.txt", yolo_text(name))
    put(root / "data.yaml", "train: images/train\nval: images/eval\nnames: {0: dog, 1: cat}\n")
    return Laid(root, None, "YOLO text files", GIVEN)


def yolo_by_side(root: Path) -> Laid:
    """train/images, train/labels."""
    folders = {"train": "train", "eval": "valid"}
    images(root, lambda name: f"{folders[SIDES[name]]}/images")
    for name, side in SIDES.items():
        put(root / folders[side] / "labels" / f"{name}.txt", yolo_text(name))
    put(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['dog', 'cat']\n")
    return Laid(root, root / "data.yaml", "YOLO text files", GIVEN)


def openimages(root: Path) -> Laid:
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
    mids = {"dog": "/m/0bt9lr", "cat": "/m/01yrx"}
    for side, word in (("train", "train"), ("eval", "validation")):
        lines = [
            f"{name},x,{mids[box.label]},1,{box.xmin / 100},{box.xmax / 100},{box.ymin / 50},{box.ymax / 50},0,0,0\n"
            for name, boxes in TRUTH.items() if SIDES[name] == side for box in boxes
        ]
        put(root / "csv" / f"{word}-annotations-bbox.csv", header + "".join(lines))
    described = "".join(f"{mid},{label}\n" for label, mid in mids.items())
    put(root / "csv" / "class-descriptions-boxable.csv", described)
    images(root / "pictures", lambda name: "")
    return Laid(root / "pictures", root / "csv", "Open Images CSV", ALPHABETIC)


def openimages_pattern(root: Path) -> Laid:
    return replace(openimages(root), annotations=root / "csv" / "*.csv")


def tfrecord(root: Path) -> Laid:
    laid = yolo_by_kind(root / "before")
    build_dataset(DatasetRequest(laid.images, laid.annotations, root / "records"))
    return Laid(root / "records", None, "TFRecords", GIVEN)


LAYOUTS: tuple[Callable[[Path], Laid], ...] = (
    voc_beside, voc_parallel, voc_train_test, vott1, vott2, tutorial, tutorial_pattern, coco, yolo_beside, yolo_by_kind,
    yolo_by_side, openimages, openimages_pattern, tfrecord,
)
layouts = pytest.mark.parametrize("lay", LAYOUTS, ids=[lay.__name__ for lay in LAYOUTS])


def told(manifest: DatasetManifest) -> dict[str, tuple[Box, ...]]:
    """The recorded boxes by the image's stem."""
    return {Path(name).stem: tuple(boxes_of(example)) for name, example in recorded(manifest).items()}


def boxes_of(example: Example) -> Iterator[Box]:
    for index, label in enumerate(example.texts("image/object/class/text")):
        xmin, ymin, xmax, ymax = (round(edge, 3) for edge in box_of(example, index))
        yield Box(label, xmin, ymin, xmax, ymax)


def sides(manifest: DatasetManifest) -> dict[str, str]:
    """The side of each image, by its stem."""
    return {
        Path(name).stem: shard.split
        for shard in manifest.shards for name in recorded(replace(manifest, shards=(shard,)))
    }


@layouts
def test_the_same_boxes_arrive_whatever_the_format(lay: Callable[[Path], Laid], tmp_path: Path) -> None:
    laid = lay(tmp_path / "data")
    manifest = build_dataset(DatasetRequest(laid.images, laid.annotations, tmp_path / "out"))
    assert manifest.findings == ()
    assert told(manifest) == TRUTH
    assert manifest.read_label_map().ids() == laid.ids
    for example in recorded(manifest).values():
        labels = example.texts("image/object/class/text")
        assert example.integers("image/object/class/label") == tuple(laid.ids[label] for label in labels)
        name = Path(example.byte_string("image/filename").decode()).stem
        assert example.byte_string("image/encoded") == picture_of(name)
    if laid.split:
        assert sides(manifest) == SIDES


@layouts
def test_a_format_can_be_insisted_on(lay: Callable[[Path], Laid], tmp_path: Path) -> None:
    laid = lay(tmp_path)
    key = next(key for key, name in NAMES.items() if name == laid.format)
    assert scan_dataset(laid.images, laid.annotations, key).source.format == key
    other = "csv" if key != "csv" else "coco"
    with pytest.raises(DataError, match=f"nothing of the format {other}") as caught:
        scan_dataset(laid.images, laid.annotations, other)
    assert caught.value.code == "D104"


def test_of_several_formats_the_tools_own_comes_first_unless_the_spec_insists(tmp_path: Path) -> None:
    voc_beside(tmp_path)
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    put(tmp_path / "labels.csv", header + "".join(f"{name}.jpg,100,50,emu,1,2,3,4\n" for name in TRUTH))
    scan = scan_dataset(tmp_path)
    assert (scan.source.format, scan.source.also) == ("voc", ("csv",))
    spec = parse_spec(f"data:\n  images: {tmp_path}\n  format: csv\n", tmp_path / "gcpod.yaml")
    manifest = build_dataset(dataset_request(spec, tmp_path / "out"))
    assert told(manifest) == dict.fromkeys(TRUTH, (Box("emu", 1, 2, 3, 4),))
    auto = parse_spec(f"data:\n  images: {tmp_path}\n", tmp_path / "gcpod.yaml")
    assert told(build_dataset(dataset_request(auto, tmp_path / "out"))) == TRUTH


@layouts
def test_records_built_inside_of_the_dataset_do_not_take_its_place(lay: Callable[[Path], Laid], tmp_path: Path) -> None:
    laid = lay(tmp_path)
    manifest = build_dataset(DatasetRequest(laid.images, laid.annotations, laid.images / "runs" / "dataset"))
    again = scan_dataset(laid.images, laid.annotations)
    assert NAMES[again.source.format] == laid.format
    assert manifest.findings == ()


def test_a_pattern_takes_what_fits_it_and_nothing_else(tmp_path: Path) -> None:
    laid = tutorial(tmp_path)
    scan = scan_dataset(laid.images, tmp_path / "data" / "test*.csv")
    assert {Path(one.name).stem for one in scan.samples if one.annotation} == {"three", "four"}
    assert len(scan.samples) == len(TRUTH)
    with pytest.raises(DataError, match="there is no such file or folder"):
        scan_dataset(laid.images, tmp_path / "data" / "val*.csv")
    put(tmp_path / "data" / "odd.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match="no labels in a format known here"):
        scan_dataset(laid.images, tmp_path / "data" / "*.csv")


def test_nothing_that_is_recognised(tmp_path: Path) -> None:
    images(tmp_path, lambda name: "")
    for name, content in (("a.csv", "x,y\n1,2\n"), ("b.json", "{}"), ("c.txt", "hello"), ("d.record", "none")):
        put(tmp_path / name, content)
    with pytest.raises(DataError, match=r"no labels in a format known here.*Pascal VOC XML.*COCO JSON") as caught:
        scan_dataset(tmp_path)
    assert caught.value.code == "D104"


NAMED = {
    "C:\\Users\\me\\My Pictures\\one.jpg": "one", "two.jpg": "two", "/home/me/three.jpg": "three",
    "\\\\server\\share\\four.jpg": "four",
}


def claim(dataset: Dataset, kind: str, names: list[str]) -> Path:
    """Labels of a format that name images themselves."""
    path = dataset.folder / "labels" / {"csv": "labels.csv", "coco": "labels.json", "voc": "0.xml"}[kind]
    if kind == "csv":
        put(path, "image,xmin,ymin,xmax,ymax,label\n" + "".join(f'"{name}",1,2,30,40,cat\n' for name in names))
    elif kind == "coco":
        put(path, json.dumps({
            "images": [{"id": index, "file_name": name} for index, name in enumerate(names)],
            "annotations": [
                {"image_id": index, "category_id": 1, "bbox": [1, 2, 29, 38]} for index in range(len(names))
            ],
            "categories": [{"id": 1, "name": "cat"}],
        }))
    else:
        for index, name in enumerate(names):
            put(path.with_name(f"{index}.xml"), to_voc(name, *SIZE, [Box("cat", 1, 2, 30, 40)], path=name))
    return path.parent


kinds = pytest.mark.parametrize("kind", ["csv", "coco", "voc"])


@kinds
def test_paths_of_other_machines_mean_the_image_of_that_name(dataset: Dataset, kind: str) -> None:
    for name in TRUTH:
        dataset.image(f"sub/{name}.jpg", picture_of(name))
    scan = scan_dataset(dataset.images, claim(dataset, kind, list(NAMED)))
    pairs = {one.name: one.annotation.filename for one in scan.samples if one.annotation and one.image}
    assert pairs == {f"sub/{name}.jpg": claimed for claimed, name in NAMED.items()}


@kinds
def test_of_a_path_of_another_machine_only_the_last_part_counts(dataset: Dataset, kind: str) -> None:
    dataset.image("same.jpg", picture_of("one"))
    dataset.image("sub/same.jpg", picture_of("two"))
    scan = scan_dataset(dataset.images, claim(dataset, kind, ["D:\\sub\\same.jpg"]))
    assert [one.name for one in scan.samples if one.annotation and one.image] == ["same.jpg"]


@kinds
def test_folders_in_a_name_tell_images_of_one_name_apart(dataset: Dataset, kind: str) -> None:
    dataset.image("a/same.jpg", picture_of("one"))
    dataset.image("b/same.jpg", picture_of("two"))
    samples = scan_dataset(dataset.images, claim(dataset, kind, ["a\\same.jpg", "b/same.jpg"])).samples
    assert [(one.name, bool(one.annotation)) for one in samples] == [("a/same.jpg", True), ("b/same.jpg", True)]
    dataset.image("one.jpg", picture_of("three"))
    labels = claim(dataset, kind, ["D:\\same.jpg", "one.jpg"])
    [error] = check_dataset(DatasetRequest(dataset.images, labels, dataset.out)).checked.errors
    assert error.code == "D106"
    assert "2 images could be meant: a/same.jpg, b/same.jpg" in error.found


WATCHED = """
import sys
from pathlib import Path
from gcpod.data import crew
from gcpod.data.build import DatasetRequest, build_dataset

# What a helper opens would not be seen.
crew.MAX_HELPERS = 0
opened = []

def watch(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))

folder = Path(sys.argv[1])
sys.addaudithook(watch)
for images, labels in zip(sys.argv[2::2], sys.argv[3::2]):
    build_dataset(DatasetRequest(Path(images), Path(labels), folder / "out"))
print("opened", len([path for path in opened if path.endswith(".jpg")]))
print(*[path for path in opened if Path(path).name in ("secret.jpg", "secret.txt", "passwd")], sep="\\n")
"""


def test_no_name_leads_out_of_the_image_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    put(secret, picture_of("secret"))
    put(tmp_path / "secret.txt", "one\ntwo\n")
    names = [
        "one.jpg", "two.jpg", "../secret.jpg", "..\\secret.jpg", str(secret), f"file:{secret}",
        f"sub/../../{secret.name}", "../../../../../../../../etc/passwd", "/etc/passwd", "secret.jpg",
    ]
    places: list[Path] = []
    for kind in ("csv", "coco", "voc"):
        folder = tmp_path / kind
        folder.mkdir()
        dataset = Dataset(folder)
        for name in ("one", "two"):
            dataset.image(f"{name}.jpg", picture_of(name))
        places += [dataset.images, claim(dataset, kind, names)]
    yolo = tmp_path / "yolo"
    for name in ("one", "two"):
        put(yolo / f"{name}.jpg", picture_of(name))
        put(yolo / f"{name}.txt", "0 0.5 0.5 0.2 0.2\n")
    put(yolo / "data.yaml", f"names: [cat]\ntrain: ../secret.txt\nval: {tmp_path}/secret.txt\ntest: /etc/passwd\n")
    places += [yolo, yolo]
    command = [sys.executable, "-c", WATCHED, str(tmp_path), *map(str, places)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    count, *leaks = result.stdout.strip().splitlines()
    assert int(count.removeprefix("opened ")) >= 16
    assert leaks == []


@kinds
def test_what_leads_out_is_told_as_missing(dataset: Dataset, kind: str) -> None:
    dataset.image("one.jpg", picture_of("one"))
    put(dataset.folder / "secret.jpg", picture_of("secret"))
    labels = claim(dataset, kind, ["one.jpg", "../secret.jpg"])
    checked = check_dataset(DatasetRequest(dataset.images, labels, dataset.out)).checked
    assert [one.name for one in checked.samples] == ["one.jpg"]
    assert [(one.code, one.severity, one.found) for one in checked.findings] == [
        ("D106", "warning", "there is no image secret.jpg"),
    ]


def test_the_demo_is_a_dataset_with_a_given_split(tmp_path: Path) -> None:
    draw_demo(tmp_path, train=3, eval=2)
    scan = scan_dataset(tmp_path / "images", tmp_path / "annotations")
    assert sorted(str(one.given) for one in scan.samples) == ["eval"] * 2 + ["train"] * 3


def test_a_leading_dot_means_the_image_folder(dataset: Dataset) -> None:
    dataset.image("a/same.jpg", picture_of("one"))
    dataset.image("b/same.jpg", picture_of("two"))
    samples = scan_dataset(dataset.images, claim(dataset, "csv", ["./a/same.jpg", ".\\b\\same.jpg"])).samples
    assert [(one.name, bool(one.annotation)) for one in samples] == [("a/same.jpg", True), ("b/same.jpg", True)]


def coco_file(path: Path) -> None:
    put(path, json.dumps({
        "images": [{"id": 1, "file_name": "0001.jpg"}], "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
    }))


def test_coco_json_beside_its_images_means_those(tmp_path: Path) -> None:
    """train/_annotations.coco.json and valid/_annotations.coco.json, each with its own 0001.jpg beside it."""
    for index, side in enumerate(("train", "valid")):
        put(tmp_path / side / "0001.jpg", picture_of("one" if index else "two"))
        coco_file(tmp_path / side / "_annotations.coco.json")
    samples = scan_dataset(tmp_path).samples
    assert [(one.name, bool(one.image and one.annotation)) for one in samples] == [
        ("train/0001.jpg", True), ("valid/0001.jpg", True),
    ]


def test_names_match_whatever_their_case(dataset: Dataset) -> None:
    dataset.image("sub/IMG.jpg", picture_of("one"))
    dataset.image("c d.jpg", picture_of("two"))
    samples = scan_dataset(dataset.images, claim(dataset, "csv", ["IMG.JPG", "c%20d.jpg"])).samples
    assert [(one.name, bool(one.annotation)) for one in samples] == [("c d.jpg", True), ("sub/IMG.jpg", True)]


def test_records_are_taken_where_there_is_no_image(dataset: Dataset) -> None:
    box = Box("cat", 1, 2, 30, 40)
    dataset.add("a.jpg", box)
    dataset.add("b.jpg", box, data=picture_of("two"))
    build_dataset(DatasetRequest(dataset.images, None, dataset.out))
    table = "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,1,9,9\n"
    (dataset.out / "labels.csv").write_text(table, encoding="utf-8")
    assert scan_dataset(dataset.out).source.format == "tfrecord"


def paired(images: Path, annotations: Path | None = None) -> dict[str, bool]:
    samples = scan_dataset(images, annotations).samples
    return {one.name: one.annotation is not None for one in samples if one.image}


def test_a_name_in_another_folder_is_another_image(dataset: Dataset) -> None:
    for name in ("cats/1.jpg", "dogs/1.jpg", "dogs/2.jpg"):
        dataset.image(name, picture_of(name))
    for name in ("cats/1", "birds/1", "dogs/2"):
        dataset.xml(f"../ann/{name}.xml", [Box("cat", 1, 2, 30, 40)], filename="1.jpg")
    assert paired(dataset.images, dataset.folder / "ann") == {
        "cats/1.jpg": True, "dogs/1.jpg": False, "dogs/2.jpg": True,
    }
    labels = claim(dataset, "csv", ["cats/1.jpg", "birds/1.jpg", "else/dogs/2.jpg"])
    assert paired(dataset.images, labels) == {"cats/1.jpg": True, "dogs/1.jpg": False, "dogs/2.jpg": True}


def test_a_second_annotation_of_an_image_is_told(dataset: Dataset) -> None:
    dataset.add("a.jpg", Box("cat", 1, 2, 30, 40))
    dataset.xml("b.xml", [Box("dog", 1, 2, 30, 40)], filename="a.jpg")
    checked = check_dataset(DatasetRequest(dataset.images, None, dataset.out)).checked
    [finding] = checked.findings
    assert (finding.code, Path(finding.where).name) == ("D106", "b.xml")
    assert "its image a.jpg has another annotation already" in finding.found


def test_folders_behind_links_count_and_circles_and_pipes_do_not(dataset: Dataset) -> None:
    real = dataset.folder / "real"
    real.mkdir()
    dataset.add("../real/a.jpg", Box("cat", 1, 2, 30, 40))
    (dataset.images / "train").symlink_to(real)
    (dataset.images / "circle").symlink_to(dataset.images)
    (dataset.images / "nowhere.jpg").symlink_to(dataset.folder / "nowhere")
    os.mkfifo(dataset.images / "pipe.jpg")
    assert paired(dataset.images) == {"train/a.jpg": True}


def test_any_xml_is_no_annotation(dataset: Dataset) -> None:
    dataset.image("a.jpg")
    put(dataset.images / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    put(dataset.images / "classes.txt", "cat\n")
    put(dataset.images / "project.xml", "<project/>")
    assert scan_dataset(dataset.images).source.format == "yolo"


def test_shards_that_are_missing_or_empty_are_errors(dataset: Dataset) -> None:
    for index in range(9):
        dataset.add(f"{index}.jpg", Box("cat", 1, 2, 30, 40), data=picture_of("x" * index + "y"))
    manifest = build_dataset(DatasetRequest(dataset.images, None, dataset.out, 0.3, shard_examples=2))
    train = manifest.shard_paths("train")
    assert len(train) > 2
    train[0].write_bytes(b"")
    train[1].unlink()
    faults = scan_dataset(dataset.out).faults
    assert [(one.code, one.severity, Path(one.where).name) for one in faults] == [
        ("D104", "error", train[1].name), ("D104", "error", train[0].name),
    ]


def test_places_within_a_finding_are_relative_too(dataset: Dataset, tmp_path: Path) -> None:
    dataset.image("a.jpg", picture_of("one"))
    dataset.image("b.jpg", picture_of("other"))
    table = "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,1,9,9\n"
    put(dataset.images / "train_labels.csv", table + "b.jpg,cat,1,1,9,9\n")
    put(dataset.images / "test_labels.csv", table)
    moved = tmp_path / "elsewhere" / "deeper"
    shutil.copytree(dataset.images, moved)
    one, two = (build_dataset(DatasetRequest(at, None, tmp_path / name)) for at, name in (
        (dataset.images, "one"), (moved, "two"),
    ))
    assert one.findings
    assert one.digest == two.digest
    assert str(tmp_path) not in one.to_json()


def test_the_spelling_of_the_folder_does_not_matter(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch,
) -> None:
    for side in ("x", "y"):
        dataset.image(f"{side}/a.jpg", picture_of(side))
        put(dataset.images / side / "l.json", json.dumps({
            "images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "cat"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
        }))
    monkeypatch.chdir(dataset.images)
    expected = paired(dataset.images)
    assert paired(Path()) == paired(Path("../images")) == expected
