from __future__ import annotations

import gzip
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.data.features import parse_example
from gcpod.data.formats.tfrecord import RecordImage, read_tfrecords, record_files, sniff_tfrecord
from gcpod.data.labelmap import LabelItem, LabelMap, render_pbtxt
from gcpod.data.model import Box, Labels, Sample
from gcpod.errors import DataError
from gcpod.records import frame, masked_crc32c
from gcpod.wire import delimited, integer, packed_floats, packed_int64
from tests.wiring import fixed32

from .making import drawn, outcome, picture

Values = Sequence[bytes] | Sequence[float] | Sequence[int] | bytes
IMAGE = picture()
EDGES = ("xmin", "ymin", "xmax", "ymax")


def feature(values: Values) -> bytes:
    """An encoded ``tf.train.Feature``; bytes stand for one that is encoded already."""
    if isinstance(values, bytes):
        return values
    texts = [value for value in values if isinstance(value, bytes)]
    floats = [value for value in values if isinstance(value, float)]
    if texts:
        return delimited(1, b"".join(delimited(1, text) for text in texts))
    if floats:
        return delimited(2, packed_floats(1, floats))
    return delimited(3, packed_int64(1, [value for value in values if isinstance(value, int)]))


def entry(key: str, values: Values) -> bytes:
    return delimited(1, delimited(1, key.encode()) + delimited(2, feature(values)))


def example(features: Mapping[str, Values]) -> bytes:
    return delimited(1, b"".join(entry(key, values) for key, values in features.items()))


def usual(boxes: Sequence[Box] = (), **other: Values) -> dict[str, Values]:
    """What most conversion scripts write; ``other`` has keys with "__" for "/", below ``image/``."""
    features: dict[str, Values] = {
        "image/height": [50], "image/width": [100], "image/filename": [b"a.jpg"], "image/source_id": [b"a.jpg"],
        "image/encoded": [IMAGE], "image/format": [b"jpg"],
        **{f"image/object/bbox/{edge}": [float(getattr(box, edge)) for box in boxes] for edge in EDGES},
        "image/object/class/text": [box.label.encode() for box in boxes],
    }
    return features | {f"image/{key.replace('__', '/')}": values for key, values in other.items()}


CAT, DOG = Box("cat", 0.25, 0.25, 0.5, 0.75), Box("dog", 0, 0, 1, 0.5)


def write(path: Path, *records: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(frame, records)))
    return path


def read(path: Path) -> tuple[Labels, tuple[Sample, ...]]:
    return read_tfrecords([path], path.parent)


def one(path: Path, record: bytes) -> Sample:
    """The only record of a file, which must be sound."""
    labels, [sample] = read(write(path, record))
    assert labels.faults == ()
    return sample


def boxes_of(sample: Sample) -> list[Box]:
    assert sample.annotation is not None
    return list(sample.annotation.boxes)


def image_of(sample: Sample) -> RecordImage:
    assert isinstance(sample.image, RecordImage)
    return sample.image


LABELS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=9)
FRACTIONS = st.floats(width=32, allow_nan=False)
BOXES = st.builds(
    Box, LABELS, FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS, st.booleans(), st.booleans(), st.booleans(), LABELS,
)


def full(boxes: Sequence[Box], image: bytes, number: int) -> bytes:
    return example(usual(
        boxes, encoded=[image], source_id=[f"sub/{number}.png".encode()], format=[b"png"],
        object__difficult=[int(box.difficult) for box in boxes], object__view=[box.pose.encode() for box in boxes],
        object__truncated=[int(box.truncated) for box in boxes], object__is_crowd=[int(box.crowd) for box in boxes],
    ))


@drawn(40)
@given(st.lists(st.tuples(st.lists(BOXES, max_size=4), st.binary(min_size=1, max_size=60)), min_size=1, max_size=4))
def test_what_was_written_comes_back(items: list[tuple[list[Box], bytes]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.record")
        labels, samples = read(write(path, *(full(*item, number) for number, item in enumerate(items))))
        assert [boxes_of(sample) for sample in samples] == [boxes for boxes, _ in items]
        assert [image_of(sample).read() for sample in samples] == [image for _, image in items]
        assert [sample.name for sample in samples] == [f"sub/{number}.png" for number in range(len(items))]
    assert labels.faults == ()
    for number, sample in enumerate(samples, 1):
        annotation = sample.annotation
        assert annotation is not None
        assert {annotation.place(box.line) for box in annotation.boxes} <= {f"{path}:{number}"}
        assert (annotation.filename, annotation.width, annotation.height) == ("a.jpg", 100, 50)
        assert annotation.fraction
        assert (str(sample.image), image_of(sample).promised) == (f"{path}:{number}", "png")
        assert image_of(sample).extras() == {}
    assert list(labels.annotations) == [sample.annotation for sample in samples]


def test_the_usual_layout_of_the_scripts(tmp_path: Path) -> None:
    label_map = LabelMap((LabelItem(3, "/m/cat", "cat"), LabelItem(7, "dog")))
    (tmp_path / "label_map.pbtxt").write_text(render_pbtxt(label_map), encoding="utf-8")
    by_id = usual([CAT, DOG], object__class__text=[], object__class__label=[3, 7], source_id=[b"b.jpg"])
    write(tmp_path / "train.record", example(usual([CAT], object__class__label=[3])), example(by_id))
    write(tmp_path / "test.record-00000-of-00001", example(usual([DOG])))
    (tmp_path / "notes.txt").write_text("train.record", encoding="utf-8")
    files = record_files(tmp_path)
    assert [path.name for path in files] == ["test.record-00000-of-00001", "train.record"]
    labels, samples = read_tfrecords(files, tmp_path)
    assert (labels.label_map, labels.faults) == (label_map, ())
    assert [(sample.name, sample.given) for sample in samples] == [
        ("a.jpg", "eval"), ("a.jpg#2", "train"), ("b.jpg", "train"),
    ]
    assert [boxes_of(sample) for sample in samples] == [[DOG], [CAT], [replace(CAT, label="/m/cat"), DOG]]
    assert {sample.annotation.given for sample in samples if sample.annotation} == {"eval", "train"}
    assert {image_of(sample).promised for sample in samples} == {"jpeg"}


@pytest.mark.parametrize(("name", "side"), [
    ("train/x.tfrecord", "train"), ("valid/deep/x.tfrecord", "eval"), ("x.tfrecord", None),
    ("train/coco_val.record-00000-of-00001", "eval"), ("train-00001-of-00002.tfrecord", "train"),
])
def test_the_side_by_file_or_folder(name: str, side: str | None, tmp_path: Path) -> None:
    write(tmp_path / name, example(usual([CAT])))
    assert [sample.given for sample in read_tfrecords(record_files(tmp_path), tmp_path)[1]] == [side]


def test_group_of_is_a_crowd_too(tmp_path: Path) -> None:
    sample = one(tmp_path / "x.record", example(usual([CAT, DOG], object__group_of=[0, 1])))
    assert boxes_of(sample) == [CAT, replace(DOG, crowd=True)]


def test_lists_that_are_not_packed(tmp_path: Path) -> None:
    edges = {
        f"object__bbox__{edge}": delimited(2, fixed32(1, getattr(CAT, edge)) + packed_floats(1, [getattr(DOG, edge)]))
        for edge in EDGES
    }
    flags = delimited(3, integer(1, 0) + integer(1, -1))
    sample = one(tmp_path / "x.record", example(usual([CAT, DOG], **edges, object__difficult=flags)))
    assert boxes_of(sample) == [CAT, replace(DOG, difficult=True)]


def test_whatever_order_and_parts_protobuf_allows() -> None:
    odd = integer(9, 1) + delimited(10, b"odd") + fixed32(11, 1)
    value = integer(2, 5) + delimited(3, integer(1, -5)) + odd + delimited(3, integer(1, 6) + integer(7, 7))
    parts = delimited(2, value) + delimited(1, b"first") + delimited(1, b"n") + delimited(2, feature([7]))
    first = delimited(1, odd + entry("n", [1]) + entry("e", b""))
    found = parse_example(odd + first + integer(1, 3) + delimited(1, delimited(1, parts)))
    assert found.integers("n") == (-5, 6, 7)
    assert parse_example(example({"again": found.features["n"].raw})).integers("again") == (-5, 6, 7)
    assert found.features["e"].kind == ""
    last = feature([1]) + feature([b"x"]) + feature([0.5]) + feature([8])
    assert parse_example(example({"n": last})).integers("n") == (8,)
    assert parse_example(delimited(1, delimited(1, b""))).features.keys() == {""}


def test_the_last_of_equal_keys_counts(tmp_path: Path) -> None:
    last = delimited(1, entry("image/encoded", [b"last"]) + entry("image/source_id", [b"last.png"]))
    sample = one(tmp_path / "x.record", example(usual([CAT])) + last)
    assert (sample.name, image_of(sample).read()) == ("last.png", b"last")


def test_unknown_keys_are_carried_unchanged(tmp_path: Path) -> None:
    odd = delimited(3, integer(1, 300) + b"\x08\xac\x82\x00") + integer(99, 5)
    extras: dict[str, Values] = {"image/object/weight": [0.5], "mine": [b"\xff\0"], "image/object/area": odd, "": b""}
    records = example(usual([CAT])), example(usual([CAT]) | extras)
    _, (first, second) = read(write(tmp_path / "x.record", *records))
    assert image_of(first).extras() == {}
    assert image_of(second).extras() == {key: feature(values) for key, values in extras.items()}


@pytest.mark.parametrize(("source", "filename", "name"), [
    (b"sub/a b.jpg", b"other.jpg", "sub/a b.jpg"),
    (b"139", b"a.jpg", "139"),
    (b"", b"C:\\data\\a.jpg", "a.jpg"),
    (b"../../a.jpg", b"/b/c.jpg", "c.jpg"),
    (b"/etc/passwd", b"a.jpg", "a.jpg"),
    (b"C:/x.jpg", b"a.jpg", "a.jpg"),
    (b"gs://bucket/x.jpg", b"a.jpg", "a.jpg"),
    (b"a\0.jpg", b"a.jpg", "a.jpg"),
    (b"./x.jpg", b"..", "x.record-1"),
    (b"", b"", "x.record-1"),
    (b"\xffa.jpg", b"a.jpg", "\udcffa.jpg"),
])
def test_names(source: bytes, filename: bytes, name: str, tmp_path: Path) -> None:
    record = example(usual([CAT], source_id=[source], filename=[filename]))
    assert one(tmp_path / "x.record", record).name == name


def test_names_are_unique(tmp_path: Path) -> None:
    sources = [b"a", b"a#2", b"a", b"a", b"a#2", b"b"]
    _, samples = read(write(tmp_path / "x.record", *(example(usual(source_id=[name])) for name in sources)))
    assert [sample.name for sample in samples] == ["a", "a#2", "a#3", "a#4", "a#2#2", "b"]


def test_missing_claims_are_empty(tmp_path: Path) -> None:
    sample = one(tmp_path / "x.record", example({"image/encoded": [IMAGE]}))
    assert sample.annotation is not None
    assert (sample.annotation.filename, sample.annotation.width, sample.annotation.height) == ("", 0, 0)
    assert (boxes_of(sample), image_of(sample).promised) == ([], None)
    assert image_of(sample).read() == IMAGE


TWO = usual([CAT, DOG])
FAULTS: list[tuple[bytes, str]] = [
    (b"", "the record is empty"),
    (b"hello", "no tf.train.Example"),
    (b"\x08\x01", "without any feature"),
    (delimited(1, entry("image/encoded", [IMAGE])) + delimited(2, b""), "SequenceExample"),
    (example({"image/encoded": delimited(2, delimited(1, b"123"))}), "no tf.train.Example .*3 bytes are no whole"),
    (delimited(1, delimited(1, delimited(1, b"\xff"))), "key is not UTF-8"),
    (delimited(1, delimited(1, delimited(1, b"\xff") + delimited(1, b"a"))), "key is not UTF-8"),
    (example(TWO | {"mine": delimited(1, b"\xff") + feature([1])}), "no tf.train.Example"),
    (example(TWO | {"image/encoded": b""}), "it has no image"),
    (example(TWO | {"image/encoded": [b""]}), "it has no image"),
    (example(TWO | {"image/encoded": [1]}), "image/encoded holds integers where bytes are expected"),
    (example(TWO | {"image/encoded": [b"a", b"b"]}), "image/encoded holds 2 values"),
    (example(TWO | {"image/width": [1, 2]}), "image/width holds 2 values"),
    (example(TWO | {"image/width": [-1]}), "image/width is -1"),
    (example(TWO | {"image/height": [1 << 31]}), "image/height is 2147483648"),
    (example(TWO | {"image/filename": [5]}), "image/filename holds integers"),
    (example(TWO | {"image/source_id": [b"a", b"b"]}), "image/source_id holds 2 values"),
    (example(TWO | {"image/format": [0.5]}), "image/format holds floats"),
    (example(TWO | {"image/object/bbox/xmax": [0.5]}), "xmax has 1 values, image/object/bbox/xmin has 2"),
    (example(TWO | {"image/object/bbox/ymin": []}), "ymin has 0 values"),
    (example(TWO | {"image/object/bbox/xmin": []}), "has 2 values, image/object/bbox/xmin has 0"),
    (example(TWO | {"image/object/bbox/xmin": [1, 2]}), "xmin holds integers where floats are expected"),
    (example(TWO | {"image/object/class/text": [b"cat"]}), "class/text has 1 values"),
    (example(TWO | {"image/object/class/text": [b"cat", b"\xff"]}), r"class/text is not UTF-8: b'\\xff'"),
    (example(TWO | {"image/object/class/text": [b"cat", b" "]}), "box 2 has neither"),
    (example(TWO | {"image/object/class/text": []}), "box 1 has neither"),
    (example(TWO | {"image/object/class/label": [1, 2, 3]}), "class/label has 3 values"),
    (example(TWO | {"image/object/difficult": [1]}), "difficult has 1 values"),
    (example(TWO | {"image/object/truncated": [0.5, 1]}), "truncated holds floats"),
    (example(TWO | {"image/object/view": [b"\xe9", b""]}), "view is not UTF-8"),
    (example(TWO | {"image/object/is_crowd": [1]}), "is_crowd has 1 values"),
    (example(TWO | {"image/object/group_of": [1, 1, 1]}), "group_of has 3 values"),
]


@pytest.mark.parametrize(("record", "found"), FAULTS)
def test_a_faulty_record_is_named_and_the_others_are_read(record: bytes, found: str, tmp_path: Path) -> None:
    good = example(usual([CAT]))
    path = write(tmp_path / "x.record", good, record, good)
    labels, samples = read(path)
    assert [sample.name for sample in samples] == ["a.jpg", "a.jpg#2"]
    assert [image_of(sample).read() for sample in samples] == [IMAGE, IMAGE]
    [fault] = labels.faults
    assert (fault.code, fault.severity, fault.where) == ("D104", "error", f"{path}:2")
    assert re.search(found, fault.found)


def test_numbers_pass_through(tmp_path: Path) -> None:
    [box] = boxes_of(one(tmp_path / "x.record", example(usual([Box("cat", math.inf, math.nan, -0.5, 1e30)]))))
    assert (box.xmin, box.xmax, math.isnan(box.ymin)) == (math.inf, -0.5, True)
    assert box.ymax == pytest.approx(1e30)


def classes(folder: Path, *items: tuple[str, int]) -> tuple[Labels, list[str]]:
    """Reads one record for each text and id (0: none)."""
    records = [
        example(usual([CAT], object__class__text=[text.encode()], object__class__label=[number] if number else []))
        for text, number in items
    ]
    labels, samples = read(write(folder / "x.record", *records))
    return labels, [boxes_of(sample)[0].label for sample in samples]


def label_map(path: Path, *names: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(render_pbtxt(LabelMap.impose(names)), encoding="utf-8")


def test_ids_without_names(tmp_path: Path) -> None:
    labels, names = classes(tmp_path, ("", 3), ("", 3), ("cat", 9), ("", -1))
    assert (labels.label_map, names) == (None, ["class_3", "class_3", "cat", "class_-1"])
    places = [(fault.code, fault.severity, fault.where) for fault in labels.faults]
    assert places == [("D101", "warning", f"{tmp_path / 'x.record'}:{number}") for number in (1, 4)]
    label_map(tmp_path / "l.pbtxt", "cat")
    labels, names = classes(tmp_path, ("", 1), ("", 3))
    assert names == ["cat", "class_3"]
    [fault] = labels.faults
    assert (fault.code, fault.severity, fault.where) == ("D101", "error", f"{tmp_path / 'x.record'}:2")


def test_text_that_contradicts_the_label_map(tmp_path: Path) -> None:
    label_map(tmp_path / "l.pbtxt", "cat", "dog")
    items = [("dog", 1), ("dog", 1), ("cat", 1), ("cow", 2), ("cat", 9), ("cow", 9), ("cow", 0)]
    labels, names = classes(tmp_path, *items)
    assert names == [text for text, _ in items]
    found = {fault.where.rpartition(":")[2]: fault.found for fault in labels.faults}
    assert found.keys() == {"1", "4", "5"}
    assert "'dog' and its id 1, which is 'cat'" in found["1"]
    assert "id 9, which does not exist" in found["5"]
    assert {(fault.code, fault.severity) for fault in labels.faults} == {("D101", "error")}


def test_several_label_maps(tmp_path: Path) -> None:
    for side in ("train", "valid"):
        label_map(tmp_path / side / "cats_label_map.pbtxt", "cat")
        write(tmp_path / side / "cats.tfrecord", example(usual([CAT], object__class__label=[1])))
    labels, _ = read_tfrecords(record_files(tmp_path), tmp_path)
    assert (labels.label_map, labels.faults) == (LabelMap.impose(["cat"]), ())
    label_map(tmp_path / "label_map.pbtxt", "dog", "cat")
    labels, _ = read_tfrecords(record_files(tmp_path), tmp_path)
    assert labels.label_map is None
    assert [(fault.code, fault.severity) for fault in labels.faults] == [("D101", "warning")]


def test_a_damaged_label_map(tmp_path: Path) -> None:
    (tmp_path / "l.pbtxt").write_text("item {\n id: x }", encoding="utf-8")
    (tmp_path / "._l.pbtxt").write_bytes(b"\0\5\x16\7")
    labels, names = classes(tmp_path, ("cat", 1))
    assert (labels.label_map, names) == (None, ["cat"])
    assert [(fault.code, fault.severity) for fault in labels.faults] == [("D101", "error")]


@pytest.mark.parametrize("name", [
    "a.tfrecord", "a.tfrecords", "a.record", "a.RECORDS", "a.record-00000-of-00010", "a-00000-of-00010.tfrecord",
    "b/c/a.tfrecord-00001-of-00002", "a.tfrecord.gz",
])
def test_files_of_records_by_name(name: str, tmp_path: Path) -> None:
    assert record_files(tmp_path) == []
    path = write(tmp_path / name, example(usual([CAT])))
    for other in (".hidden.record", "model.ckpt.data-00000-of-00001", "a.records.txt", ".git/a.record"):
        write(tmp_path / other, b"")
    assert record_files(tmp_path) == [path]


def test_files_of_records_by_content(tmp_path: Path) -> None:
    text = tmp_path / "a.record"
    text.write_text("world record", encoding="utf-8")
    assert record_files(tmp_path) == record_files(text) == record_files(tmp_path / "none") == []
    other = write(tmp_path / "whatever", example(usual([CAT])))
    assert record_files(other) == [other]
    shard = write(tmp_path / "b.record", example(usual([CAT])))
    assert record_files(tmp_path) == [text, shard]
    with pytest.raises(DataError, match=r"a\.record at byte 0: the checksum of the length"):
        read_tfrecords(record_files(tmp_path), tmp_path)


def test_sniffing(tmp_path: Path) -> None:
    path = write(tmp_path / "x", b"\0" * 9000)
    good = path.read_bytes()
    assert sniff_tfrecord(path)
    path.write_bytes(gzip.compress(good))
    assert sniff_tfrecord(path)
    for bad in (b"", good[:11], b"\0" * 12, gzip.compress(b"x" * 50), gzip.compress(good)[:15], b"\x1f\x8b" + good):
        path.write_bytes(bad)
        assert not sniff_tfrecord(path)
    assert not sniff_tfrecord(tmp_path)
    assert not sniff_tfrecord(tmp_path / "none")


def test_gzip_is_refused_by_its_content(tmp_path: Path) -> None:
    path = write(tmp_path / "x.record.gz", example(usual([CAT])))
    assert len(read(path)[1]) == 1
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"D104: .*x\.record\.gz: it is packed with gzip; unpack it"):
        read(path)
    lookalike = write(path, bytes(0x088B1F))
    assert lookalike.read_bytes().startswith(b"\x1f\x8b\x08")
    assert "no tf.train.Example" in read(lookalike)[0].faults[0].found


@pytest.mark.parametrize(("start", "end", "put", "found"), [
    (-1, None, b"", "[1-9].*the file ends before"), (-9, -8, b"#", "[1-9].*checksum of the payload"),
    (8, 9, b"#", "0: the checksum of the length"), (None, 7, b"", "0: "),
])
def test_damaged_files(start: int | None, end: int | None, put: bytes, found: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.record", *[example(usual([CAT]))] * 2)
    data = bytearray(path.read_bytes())
    data[start:end] = put
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"reading records of .*x\.record at byte {found}") as caught:
        read(path)
    assert caught.value.code == "D104"


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"D104: .*No such file"):
        read(tmp_path / "none.record")


def test_a_file_that_changed_after_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "x.record"
    image = image_of(one(path, example(usual([CAT]) | {"mine": [1]})))
    data = path.read_bytes()
    path.write_bytes(data[:200])
    with pytest.raises(OSError, match=r"shorter.*x\.record"):
        image.read()
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match="the file ends before"):
        image.extras()
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        image.extras()
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        image.read()


PLAIN = full([CAT, replace(DOG, crowd=True)], b"image", 1)
CHANGES = st.lists(st.tuples(st.integers(0, len(frame(PLAIN)) - 1), st.binary(max_size=3)), min_size=1, max_size=3)


def damaged(data: bytes, changes: Sequence[tuple[int, bytes]]) -> bytes:
    """Overwrites some bytes, and drops the one where nothing is put."""
    for at, put in changes:
        data = data[:at] + put + data[at + len(put or b"x") :]
    return data


@drawn(150)
@given(st.one_of(st.binary(max_size=60), CHANGES.map(lambda changes: damaged(PLAIN, changes))))
def test_any_payload_is_read_or_a_coded_fault(payload: bytes) -> None:
    with TemporaryDirectory() as folder:
        labels, samples = read(write(Path(folder, "x.record"), payload))
        assert len(samples) + sum(fault.code == "D104" for fault in labels.faults) == 1
        for sample in samples:
            assert payload.count(image_of(sample).read())
            assert outcome(image_of(sample).extras) == ""


def lying(size: int, rest: bytes) -> bytes:
    """A header that fits, before something that is not that long."""
    length = size.to_bytes(8, "little")
    return length + masked_crc32c(length).to_bytes(4, "little") + rest


@drawn(100)
@given(st.one_of(
    st.binary(max_size=40),
    st.builds(lying, st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1)), st.binary(max_size=40)),
    CHANGES.map(lambda changes: damaged(frame(PLAIN), changes)),
))
def test_any_file_is_read_or_ends_in_a_coded_error(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.record")
        path.write_bytes(data)
        assert outcome(lambda: read(path)) in ("", "D104")
        assert record_files(path.parent) == ([path] if sniff_tfrecord(path) else [])
