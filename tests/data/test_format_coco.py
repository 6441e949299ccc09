from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.data.formats.coco import parse_coco, read_coco, sniff_coco
from gcpod.data.formats.jsonitems import Item, read_json, walk
from gcpod.data.labelmap import LabelItem
from gcpod.data.masks import Polygons, Rle
from gcpod.data.model import Box, Labels
from gcpod.errors import DataError
from gcpod.status import Finding

from .making import drawn, outcome

PATH = Path("instances.json")
NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=9)
NUMBERS = st.one_of(st.integers(-9999, 9999), st.floats(allow_nan=False, width=32))
IMAGE = {"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}
CATEGORY = {"id": 3, "name": "cat", "supercategory": "animal"}
ANNOTATION = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20.5, 30, 40], "iscrowd": 0, "area": 1200}
TRIANGLE = [1, 2, 9, 2, 9, 8]


def coco(
    annotations: Sequence[object] = (ANNOTATION,),
    images: Sequence[object] = (IMAGE,),
    categories: Sequence[object] = (CATEGORY,),
) -> str:
    """One item a line: images from line 2, categories after them, then annotations."""
    parts = {"images": images, "categories": categories, "annotations": annotations}
    rows = [f'"{key}": [' + ",\n".join(map(json.dumps, items)) + "]" for key, items in parts.items()]
    return "{\n" + ",\n".join(rows) + "\n}"


def parsed(**parts: Any) -> Labels:
    masks = parts.pop("masks", False)
    return parse_coco(coco(**parts), PATH, masks)


def told(finding: Finding) -> tuple[str, str, str, str]:
    return finding.code, finding.severity, finding.where, finding.found


@st.composite
def datasets(draw: st.DrawFn) -> dict[str, Any]:
    images = [
        {"id": number, "file_name": name, "width": draw(st.integers(0, 9999)), "height": draw(st.integers(0, 9999))}
        for number, name in zip(
            draw(st.lists(st.one_of(st.integers(), NAMES), unique=True, min_size=4, max_size=4)),
            draw(st.lists(NAMES.filter(lambda name: "\\" not in name), unique=True, max_size=4)), strict=False,
        )
    ]
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=4))
    ids = draw(st.lists(st.integers(1, (1 << 31) - 1), unique=True, min_size=len(names), max_size=len(names)))
    categories = [{"id": number, "name": name} for number, name in zip(ids, names, strict=True)]
    annotations = [
        {
            "id": number, "image_id": draw(st.sampled_from(images))["id"], "category_id": draw(st.sampled_from(ids)),
            "bbox": draw(st.lists(NUMBERS, min_size=4, max_size=4)), "iscrowd": draw(st.integers(0, 1)),
        }
        for number in range(draw(st.integers(0, 5)) if images else 0)
    ]
    parts = {"images": images, "annotations": annotations, "categories": categories, "info": {"year": [1, {}]}}
    return {key: parts[key] for key in draw(st.permutations(list(parts)))}


@given(datasets(), st.sampled_from([None, 0, 1]), st.booleans())
def test_what_is_written_comes_back(data: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    labels = parse_coco(json.dumps(data, indent=indent, ensure_ascii=ascii_only), PATH)
    names = {category["id"]: category["name"] for category in data["categories"]}
    assert labels.faults == ()
    assert labels.label_map is not None
    assert {item.id: item.name for item in labels.label_map.items} == names
    expected = {}
    for image in data["images"]:
        expected[image["file_name"]] = image["width"], image["height"], [
            Box(names[item["category_id"]], x, y, x + width, y + height, crowd=item["iscrowd"] == 1)
            for item in data["annotations"] if item["image_id"] == image["id"]
            for x, y, width, height in [map(float, item["bbox"])]
        ]
    assert {item.filename: (item.width, item.height, list(item.boxes)) for item in labels.annotations} == expected


@given(datasets())
@drawn(30)
def test_lines_are_those_of_the_text(data: dict[str, Any]) -> None:
    text = json.dumps(data, indent=1, ensure_ascii=False)
    lines = text.split("\n")
    for annotation in parse_coco(text, PATH).annotations:
        for box in annotation.boxes:
            assert lines[box.line - 1].strip() == "{"
            assert json.loads("\n".join(lines[box.line - 1 : box.line + 3]).rstrip(",") + "}").keys() >= {"image_id"}


def test_an_image_without_annotations_has_no_boxes() -> None:
    labels = parsed(images=[IMAGE, {"id": 8, "file_name": "train2017\\b.jpg"}])
    [first, second] = labels.annotations
    assert first.boxes == [Box("cat", 10, 20.5, 40, 60.5)]
    assert first.boxes[0].line == 5
    assert (second.filename, second.width, second.height, len(second.boxes)) == ("train2017\\b.jpg", 0, 0, 0)
    assert second.claimed == "b.jpg"


def test_categories_keep_their_ids_and_gaps() -> None:
    labels = parsed(categories=[{"id": 90, "name": " tooth\t brush"}, CATEGORY])
    assert labels.label_map is not None
    assert labels.label_map.items == (LabelItem(3, "cat"), LabelItem(90, "tooth brush"))


def test_a_category_with_the_background_s_id_leaves_the_numbering_to_the_data() -> None:
    labels = parsed(categories=[{"id": 0, "name": "animals"}, CATEGORY])
    assert labels.label_map is None
    [finding] = labels.faults
    assert told(finding)[:3] == ("D101", "warning", "instances.json:3")
    assert "numbers the labels anew" in finding.fix
    assert labels.annotations[0].boxes.labels == ("cat",)


@pytest.mark.parametrize(("categories", "found"), [
    ([CATEGORY, {"id": 3, "name": "dog"}], "3 is taken"),
    ([CATEGORY, {"id": 4, "name": "cat"}], "'cat' is taken"),
    ([CATEGORY, {"id": -1, "name": "dog"}], "its id is -1"),
    ([CATEGORY, {"id": 1 << 31, "name": "dog"}], "its id is 2147483648"),
    ([CATEGORY, {"id": "1", "name": "dog"}], "its id is '1'"),
    ([CATEGORY, {"id": True, "name": "dog"}], "its id is True"),
    ([CATEGORY, {"name": "dog"}], "it has no id"),
    ([CATEGORY, {"id": 4}], "it has no name"),
    ([CATEGORY, {"id": 4, "name": " "}], "its name is empty"),
    ([CATEGORY, {"id": 4, "name": "\ud800"}], "its name is"),
    ([CATEGORY, "dog"], "it is no object"),
])
def test_categories_that_make_no_label_map(categories: list[object], found: str) -> None:
    labels = parsed(categories=categories)
    assert labels.label_map is None
    [finding] = labels.faults
    assert told(finding)[:3] == ("D101", "error", "instances.json:4")
    assert finding.found.startswith(f"categories[1]: {found}")
    assert labels.annotations[0].boxes.labels == ("cat",)


@pytest.mark.parametrize(("change", "found"), [
    ({"image_id": 8}, "its image_id 8 is no image's"),
    ({"image_id": None}, "its image_id is None"),
    ({"image_id": False}, "its image_id is False"),
    ({"image_id": float("nan")}, "its image_id is nan"),
    ({"category_id": 4}, "its category_id is no category's"),
    ({"category_id": [3]}, "its category_id is [3]"),
    ({"bbox": None}, "its bbox is not"),
    ({"bbox": []}, "its bbox is not"),
    ({"bbox": [1, 2, 3, "4"]}, "it has '4' for a number"),
    ({"bbox": [1, 2, 3, None]}, "it has None for a number"),
    ({"bbox": [True, 2, 3, 4]}, "it has True for a number"),
    ({"iscrowd": 2}, "its iscrowd is 2"),
    ({"iscrowd": "0"}, "its iscrowd is '0'"),
    ({"segmentation": [[1, 2, 3]]}, "a polygon has 3 numbers"),
    ({"segmentation": {"size": [640, 480], "counts": [640 * 480]}}, "its segmentation is of 480 x 640 pixels"),
])
def test_a_faulty_annotation_costs_only_itself(change: dict[str, object], found: str) -> None:
    labels = parsed(annotations=[ANNOTATION, ANNOTATION | change, ANNOTATION], masks=True)
    [finding] = labels.faults
    assert told(finding)[:3] == ("D104", "error", "instances.json:5")
    assert finding.found.startswith(f"annotations[1]: {found}")
    assert [box.line for box in labels.annotations[0].boxes] == [4, 6]


@pytest.mark.parametrize(("image", "found"), [
    (IMAGE, "its id 7 is taken"),
    ({"id": 8}, "it has no file_name"),
    ({"id": 8, "file_name": ""}, "its file_name is ''"),
    ({"id": 8, "file_name": "\udfff"}, r"its file_name is '\udfff'"),
    ({"file_name": "b.jpg"}, "it has no id"),
    ({"id": 8.5, "file_name": "b.jpg"}, "its id is 8.5"),
    ({"id": 8, "file_name": "b.jpg", "width": -1}, "its width is -1"),
    ({"id": 8, "file_name": "b.jpg", "height": float("nan")}, "its height is nan"),
    ({"id": 8, "file_name": "b.jpg", "height": 10**400}, "its height is 1000"),
    ({"id": 8, "file_name": "b.jpg", "height": True}, "its height is True"),
    ([], "it is no object"),
])
def test_a_faulty_image_costs_only_itself(image: object, found: str) -> None:
    labels = parsed(images=[IMAGE, image])
    [finding] = labels.faults
    assert told(finding)[:3] == ("D104", "error", "instances.json:3")
    assert finding.found.startswith(f"images[1]: {found}")
    assert [item.filename for item in labels.annotations] == ["a.jpg"]


def test_numbers_that_make_no_sense_pass_to_the_check() -> None:
    text = coco([ANNOTATION | {"bbox": [5, 6, -2, 3]}, ANNOTATION | {"bbox": [1, 2, 3, 10**400]}, ANNOTATION])
    labels = parse_coco(text.replace("20.5", "-Infinity"), PATH)
    assert labels.annotations[0].boxes[:2] == [Box("cat", 5, 6, 3, 9), Box("cat", 1, 2, 4, float("inf"))]
    assert labels.annotations[0].boxes[2].ymin == float("-inf")
    assert labels.faults == ()


def test_ids_as_whole_floats_and_texts() -> None:
    labels = parsed(
        images=[IMAGE, {"id": "x", "file_name": "b.jpg"}],
        annotations=[ANNOTATION | {"image_id": 7.0, "category_id": 3.0}, ANNOTATION | {"image_id": "x"}],
    )
    assert [len(item.boxes) for item in labels.annotations] == [1, 1]


def test_masks_only_when_asked_for() -> None:
    rle = {"size": [480, 640], "counts": [0, 480 * 640]}
    annotations = [
        ANNOTATION | {"segmentation": [TRIANGLE]}, ANNOTATION | {"segmentation": rle, "iscrowd": 1},
        ANNOTATION | {"segmentation": []}, ANNOTATION,
    ]
    polygons, crowd, empty, missing = parsed(annotations=annotations, masks=True).annotations[0].boxes
    assert isinstance(polygons.mask, Polygons)
    assert isinstance(crowd.mask, Rle)
    assert crowd.crowd
    assert (empty.mask, missing.mask) == (None, None)
    damaged = [*annotations, ANNOTATION | {"segmentation": "?"}]
    without = parsed(annotations=damaged)
    assert [box.mask for box in without.annotations[0].boxes] == [None] * 5
    assert without.faults == ()


def write(path: Path, **parts: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(coco(**parts), encoding="utf-8")
    return path


def test_files_give_their_side_and_share_the_categories(tmp_path: Path) -> None:
    dog = {"id": 9, "name": "dog"}
    files = [
        write(tmp_path / "instances_train2017.json"),
        write(
            tmp_path / "instances_val2017.json", images=[IMAGE | {"file_name": "b.jpg"}], categories=[dog],
            annotations=[ANNOTATION | {"category_id": 9}],
        ),
    ]
    labels = read_coco(files)
    assert [(item.filename, item.given) for item in labels.annotations] == [("a.jpg", "train"), ("b.jpg", "eval")]
    assert labels.label_map is not None
    assert labels.label_map.ids() == {"cat": 3, "dog": 9}
    assert labels.faults == ()


def test_an_image_on_both_sides_evaluates(tmp_path: Path) -> None:
    other = ANNOTATION | {"bbox": [1, 1, 2, 2]}
    train = write(tmp_path / "train.json", images=[IMAGE | {"file_name": "x/a.jpg"}], annotations=[other, ANNOTATION])
    val = write(tmp_path / "val.json", images=[IMAGE | {"file_name": "x\\a.jpg"}])
    for files in ([train, val], [val, train]):
        labels = read_coco(files)
        [annotation] = labels.annotations
        assert (annotation.path, annotation.given) == (val, "eval")
        assert annotation.boxes == [Box("cat", 10, 20.5, 40, 60.5), Box("cat", 1, 1, 3, 3)]
        assert [box.line for box in annotation.boxes] == [4, 0]
        [finding] = labels.faults
        assert told(finding)[:3] == ("D107", "warning", str(files[1]))
        assert str(files[0]) in finding.found


def test_files_of_one_side_may_share_images(tmp_path: Path) -> None:
    first = write(tmp_path / "cats.json", images=[{"id": 7, "file_name": "a.jpg"}])
    labels = read_coco([first, write(tmp_path / "more.json")])
    [annotation] = labels.annotations
    assert (annotation.path, annotation.width, annotation.height, annotation.given) == (first, 640, 480, None)
    assert len(annotation.boxes) == 1
    assert labels.faults == ()


def test_equal_names_next_to_different_files_are_different_images(tmp_path: Path) -> None:
    files = [write(tmp_path / side / "_annotations.coco.json") for side in ("train", "valid")]
    assert [item.path for item in read_coco(files).annotations] == files


def test_two_images_of_one_name_in_one_file() -> None:
    labels = parsed(images=[IMAGE, IMAGE | {"id": 8}], annotations=[ANNOTATION, ANNOTATION | {"image_id": 8}])
    [annotation] = labels.annotations
    assert len(annotation.boxes) == 1
    assert [told(item)[:3] for item in labels.faults] == [("D107", "warning", "instances.json")]


@pytest.mark.parametrize(("category", "found"), [
    ({"id": 3, "name": "dog"}, "category 3 is 'dog', in {} it is 'cat'"),
    ({"id": 4, "name": "cat"}, "category 'cat' has id 4, in {} it has 3"),
])
def test_files_that_disagree_about_a_category(tmp_path: Path, category: dict[str, object], found: str) -> None:
    one = write(tmp_path / "one.json")
    two = write(tmp_path / "two.json", categories=[category], annotations=[])
    labels = read_coco([one, two])
    assert labels.label_map is None
    assert [told(item) for item in labels.faults] == [("D101", "error", str(two), found.format(one))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_unicode_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(coco(categories=[{"id": 3, "name": "x"}]).replace('"x"', '"浣熊"').encode(encoding))
    assert sniff_coco(path)
    assert read_coco([path]).annotations[0].boxes.labels == ("浣熊",)


@pytest.mark.parametrize(("text", "found"), [
    ("", r"instances.json:1: it ends in the middle .column 1"),
    ("\n [1]", r"instances.json:2: it is no JSON object .column 2"),
    ("\ufeff{}", "it is no JSON object"),
    ("{}", "no array of images and none of annotations and none of categories"),
    ('{"images": [], "annotations": []}', "no array of categories"),
    ('{\n"images": {}}', r"instances.json:2: 'images' is no array"),
    (coco()[:-1], r"instances.json:5: it ends in the middle"),
    (coco()[:60], r"instances.json:2: it"),
    (coco().replace("]\n}", ",]\n}"), r"instances.json:4: it is no JSON \(Expecting value\)"),
    (coco().replace('"annotations": [', '"annotations": [1 '), r"instances.json:4: a comma or \] is missing"),
    (coco().replace(',\n"cat', '\n"cat'), r"instances.json:3: a comma or } is missing"),
    (coco().replace('"annotations":', '"annotations"'), r"instances.json:4: a colon is missing"),
    (coco().replace('"annotations":', "[]:"), r"instances.json:4: a key is not in quotes"),
    (coco().replace('"annotations":', '"images":'), r"instances.json:4: the key 'images' stands twice"),
    (coco() + "\n{}", r"instances.json:6: something follows"),
    (coco().replace("20.5", "9" * 5000), r"instances.json:4: a number in this value has thousands of digits"),
    (coco().replace("20.5", "[" * 200_000), r"instances.json:4: a value nests too deep"),
])
def test_other_texts_are_refused_with_their_line(text: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_coco(text, PATH)
    assert caught.value.code == "D104"


def test_a_key_twice_in_an_item() -> None:
    labels = parse_coco(coco().replace('"iscrowd"', '"bbox"'), PATH)
    assert [told(item)[2:] for item in labels.faults] == [
        ("instances.json:4", "annotations[0]: the key 'bbox' stands twice in it"),
    ]


@pytest.mark.parametrize(("data", "found"), [
    (coco().replace("cat", "cafÉ").encode("latin-1"), r"a.json:3: it is not utf-8"),
    (coco().encode("utf-16")[:-1], r"it is not utf-16"),
])
def test_other_encodings_are_refused(tmp_path: Path, data: bytes, found: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=found):
        read_coco([path])


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_coco([tmp_path / "none.json"])


def test_sniffing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, expected in (
        (coco(), True), ('{"info": {}, "licenses": [], "images" : [', True), ('{"a": {"filename": "a.jpg"}}', False),
        ('[{"image_id": 1, "bbox": []}]', False), ("", False), ("<annotation/>", False), ('{"images": {}}', False),
    ):
        path.write_text(text, encoding="utf-8")
        assert sniff_coco(path) is expected
    assert not sniff_coco(tmp_path)
    assert not sniff_coco(tmp_path / "none.json")
    assert not sniff_coco(Path("a\0.json"))


def test_walking_gives_members_and_their_items() -> None:
    text = '{"a": [], "b":\n [1,\n {"x": 2}\n, "s"],\r\n"c": {"d": [3], "d": 4}}'
    assert list(walk(text, PATH)) == [
        Item("a", -1, [], 1), Item("b", -1, [], 1), Item("b", 0, 1, 2), Item("b", 1, {"x": 2}, 3),
        Item("b", 2, "s", 4), Item("c", -1, {"d": 4}, 5, "d"),
    ]


def test_a_large_file_is_never_in_memory_as_objects() -> None:
    segmentation = [[round(index / 7, 2) for index in range(120)]]
    text = coco([ANNOTATION | {"segmentation": segmentation}] * 3000)
    tracemalloc.start()
    try:
        labels = parse_coco(text, PATH)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(labels.annotations[0].boxes) == 3000
    assert peak < 500 * 3000, "boxes took more than their columns and a sorted index"


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.floats(), st.sampled_from(["", "a.jpg", "1", "\ud800"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["id", "image_id", "category_id", "bbox", "name", "file_name", "segmentation", "size"]),
            inner, max_size=5,
        ),
    ),
    max_leaves=10,
)
DOCUMENTS = st.fixed_dictionaries({
    key: st.lists(st.one_of(st.just(sound), st.fixed_dictionaries({}, optional=dict.fromkeys(sound, JSON)), JSON))
    for key, sound in (("images", IMAGE), ("categories", CATEGORY), ("annotations", ANNOTATION))
})


@given(st.one_of(DOCUMENTS, JSON))
@drawn(150)
def test_any_document_is_read_or_fails_with_a_code(document: object) -> None:
    assert outcome(lambda: parse_coco(json.dumps(document), PATH, masks=True)) in ("", "D104")


@given(st.data())
@drawn(150)
def test_damaged_files_are_read_or_fail_with_a_code(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject,
) -> None:
    raw = bytearray(coco([ANNOTATION | {"segmentation": [TRIANGLE]}] * 2).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw) - 1))
        raw[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(raw)
    sniff_coco(path)
    assert outcome(lambda: read_coco([path], masks=True)) in ("", "D104")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_fail_with_a_code(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(data)
    sniff_coco(path)
    assert outcome(lambda: list(walk(read_json(path), path))) in ("", "D104")
