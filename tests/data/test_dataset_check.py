from __future__ import annotations

import math
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gcpod.data.boxes import Frame, check_box
from gcpod.data.check import CheckOptions, examine
from gcpod.data.checked import Checked
from gcpod.data.labelmap import LabelMap
from gcpod.data.model import Box
from gcpod.data.scan import scan_dataset
from gcpod.errors import DataError
from gcpod.spec import Policies, Policy
from gcpod.status import Finding

from .making import Dataset, picture

GOOD = Box("cat", 10, 10, 50, 40)
STRICT = Policies(size="error", outside="error", reversed="error", zero_area="error", format="error")
LENIENT = Policies(zero_area="fix")
WARN: Policy = "warn"
LEAVING_OUT = Policies(**{field.name: WARN for field in fields(Policies)})


def findings(dataset: Dataset, policies: Policies | None = None, labels: LabelMap | None = None) -> list[Finding]:
    return list(checked(dataset, policies, labels).findings)


def checked(dataset: Dataset, policies: Policies | None = None, labels: LabelMap | None = None) -> Checked:
    options = CheckOptions(label_map=labels, policies=policies or Policies())
    return examine(scan_dataset(dataset.images).samples, options)


def only(found: list[Finding]) -> tuple[str, str, str]:
    [finding] = found
    return finding.code, finding.severity, Path(finding.where).name


def test_a_clean_dataset_has_no_findings(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD)
    dataset.add("sub/b.jpg")
    dataset.add("c.JPEG", GOOD)
    assert findings(dataset, STRICT) == []


@pytest.mark.parametrize(("box", "code", "mended"), [
    (Box("cat", 50, 10, 10, 40), "D103", GOOD),
    (Box("cat", 50, 40, 10, 10), "D103", GOOD),
    (Box("cat", -5, 10, 101, 50.5), "D102", Box("cat", 0, 10, 100, 50)),
    (Box("cat", 10, 10, 1e300, 40), "D102", Box("cat", 10, 10, 100, 40)),
    (Box("cat", 10, 10, 10, 40), "D105", None),
    (Box("cat", 10, 40, 50, 40), "D105", None),
])
def test_boxes_are_mended_or_refused_by_policy(dataset: Dataset, box: Box, code: str, mended: Box | None) -> None:
    dataset.add("a.jpg", box, GOOD)
    assert only(findings(dataset, STRICT)) == (code, "error", "a.xml:14")
    found = checked(dataset, LENIENT)
    assert only(list(found.findings)) == (code, "warning", "a.xml:14")
    assert found.samples[0].boxes == ((mended, GOOD) if mended else (GOOD,))
    left_out = checked(dataset, LEAVING_OUT)
    assert only(list(left_out.findings)) == (code, "warning", "a.xml:14")
    assert left_out.samples[0].boxes == (GOOD,)


def test_by_default_zero_area_is_an_error_and_the_rest_is_mended(dataset: Dataset) -> None:
    dataset.add("a.jpg", Box("cat", 10, 10, 10, 40))
    assert only(findings(dataset)) == ("D105", "error", "a.xml:14")
    dataset.add("a.jpg", Box("cat", 50, 10, 10, 400))
    assert [(one.code, one.severity) for one in findings(dataset)] == [("D103", "warning"), ("D102", "warning")]


def test_a_box_wholly_outside_has_no_area(dataset: Dataset) -> None:
    dataset.add("a.jpg", Box("cat", 200, 10, 300, 40))
    assert [one.code for one in findings(dataset)] == ["D102", "D105"]


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e999"])
def test_numbers_that_are_none(dataset: Dataset, text: str) -> None:
    dataset.add("a.jpg", Box("cat", 10, 10, 77, 40))
    path = dataset.images / "a.xml"
    path.write_text(path.read_text(encoding="utf-8").replace("77", text), encoding="utf-8")
    assert only(findings(dataset, LENIENT)) == ("D102", "error", "a.xml:14")


ANY = st.one_of(st.floats(), st.integers(-20, 120).map(float))


@given(ANY, ANY, ANY, ANY, st.integers(1, 65535), st.integers(1, 65535))
def test_a_box_that_passes_lies_within_the_image(
    xmin: float, ymin: float, xmax: float, ymax: float, w: int, h: int,
) -> None:
    box, found = check_box(Box("cat", xmin, ymin, xmax, ymax), Frame(w, h), LENIENT, "a.xml:1")
    if box:
        assert 0 <= box.xmin < box.xmax <= w
        assert 0 <= box.ymin < box.ymax <= h
        edges = [box.xmin / w, box.xmax / w, box.ymin / h, box.ymax / h]
        assert all(math.isfinite(edge) and 0 <= edge <= 1 for edge in edges)
    else:
        assert found


def test_an_unknown_label_names_line_and_nearest(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD, Box("racoon", 1, 1, 9, 9), Box("zzz", 1, 1, 9, 9))
    first, second = findings(dataset, labels=LabelMap.impose(["cat", "raccoon"]))
    assert (first.code, first.severity, Path(first.where).name) == ("D101", "error", "a.xml:26")
    assert first.fix == "did you mean 'raccoon'?"
    assert "add it" in second.fix


def test_labels_that_differ_only_in_case(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD)
    dataset.add("b.jpg", Box("Cat", 10, 10, 50, 40))
    [found] = findings(dataset)
    assert (found.code, found.severity) == ("D101", "warning")
    assert "Cat, cat" in found.found


def test_a_declared_size_that_is_not_real(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD, size=(50, 100))
    assert only(findings(dataset)) == ("D102", "warning", "a.xml")
    assert only(findings(dataset, STRICT)) == ("D102", "error", "a.xml")


def rotated(orientation: int, size: tuple[int, int] = (100, 50)) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = BytesIO()
    Image.new("RGB", size).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.mark.parametrize(("orientation", "declared", "severity"), [
    (6, (50, 100), "error"), (8, (0, 0), "error"), (3, (100, 50), "error"), (6, (100, 50), "warning"),
])
def test_exif_orientation_is_never_ignored(
    dataset: Dataset, orientation: int, declared: tuple[int, int], severity: str,
) -> None:
    dataset.add("a.jpg", GOOD, data=rotated(orientation), size=declared)
    assert only(findings(dataset)) == ("D102", severity, "a.xml")


def test_a_png_named_jpg(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD, data=picture(kind="PNG"))
    assert only(findings(dataset)) == ("D106", "warning", "a.jpg")
    assert only(findings(dataset, STRICT)) == ("D106", "error", "a.jpg")
    assert checked(dataset).samples[0].probe.format == "png"


@pytest.mark.parametrize(("name", "data"), [
    ("a.jpg", b""), ("a.jpg", picture()[:300]), ("a.tif", picture(kind="TIFF")),
])
def test_images_that_stop_the_trainer(dataset: Dataset, name: str, data: bytes) -> None:
    dataset.add(name, GOOD, data=data)
    dataset.add("good.jpg", GOOD)
    assert only(findings(dataset)) == ("D106", "error", name)
    left_out = checked(dataset, LEAVING_OUT)
    assert only(list(left_out.findings)) == ("D106", "warning", name)
    assert [sample.name for sample in left_out.samples] == ["good.jpg"]


def test_another_file_name_is_told_and_the_stem_counts(dataset: Dataset) -> None:
    dataset.image("a.jpg")
    dataset.xml("a.xml", [GOOD], filename="..\\..\\Desktop\\b.jpg")
    assert only(findings(dataset)) == ("D106", "warning", "a.xml")
    dataset.xml("a.xml", [GOOD], filename="C:\\Users\\me\\a.jpg")
    assert findings(dataset) == []


def test_lonely_files(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD)
    for index in range(5):
        dataset.image(f"alone{index}.jpg")
    dataset.xml("gone.xml", [GOOD])
    gone, alone = findings(dataset)
    assert (gone.code, gone.severity, Path(gone.where).name) == ("D106", "warning", "gone.xml")
    assert (alone.code, alone.severity) == ("D106", "warning")
    assert "5 images have no annotation" in alone.found
    assert alone.found.endswith("alone0.jpg, alone1.jpg, alone2.jpg and 2 more")


def test_a_malformed_annotation(dataset: Dataset) -> None:
    dataset.image("a.jpg")
    (dataset.images / "a.xml").write_bytes(b"<annotation>\n<object/></annotation>")
    assert only(findings(dataset)) == ("D104", "error", "a.xml:2")


def test_duplicates(dataset: Dataset) -> None:
    same = picture((1, 2, 3))
    dataset.add("a.jpg", GOOD, data=same)
    dataset.add("b.jpg", GOOD, data=same)
    assert findings(dataset) == []
    dataset.add("c.jpg", data=same)
    assert only(findings(dataset)) == ("D107", "warning", "a.jpg")


def test_duplicates_across_a_given_split(dataset: Dataset) -> None:
    same = picture((1, 2, 3))
    dataset.add("train/a.jpg", GOOD, data=same)
    dataset.add("test/a.jpg", GOOD, data=same)
    [found] = findings(dataset)
    assert (found.code, found.found) == ("D107", "the same picture is in train and eval: test/a.jpg, train/a.jpg")


def test_pairing(dataset: Dataset, tmp_path: Path) -> None:
    dataset.image("train/a.jpg")
    dataset.image("test/a.jpg")
    dataset.image("train/b.jpg")
    dataset.image("train/c.jpg")
    dataset.image("train/c.png")
    dataset.image("train/d.jpg")
    xmls = tmp_path / "xml"
    for name, filename in (("test/a", ""), ("train/a", ""), ("b", ""), ("train/c", "c.png"), ("x", "d.jpg")):
        path = dataset.xml(f"../xml/{name}.xml", [GOOD], filename=filename or None)
        assert path.exists()
    samples = scan_dataset(dataset.images, xmls).samples
    pairs = {one.name: one.annotation.path.relative_to(xmls).as_posix() for one in samples if one.annotation}
    assert pairs == {
        "train/a.jpg": "train/a.xml", "test/a.jpg": "test/a.xml", "train/b.jpg": "b.xml", "train/c.png": "train/c.xml",
        "train/d.jpg": "x.xml",
    }


def test_an_annotation_for_several_images(dataset: Dataset) -> None:
    dataset.image("train/a.jpg")
    dataset.image("test/a.jpg")
    dataset.xml("a.xml", [GOOD])
    errors = [one for one in findings(dataset) if one.severity == "error"]
    assert only(errors) == ("D106", "error", "a.xml")
    assert "2 images could be meant" in errors[0].found


def test_hidden_files_are_passed_over(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD)
    dataset.image("._a.jpg", b"resource fork")
    dataset.image(".cache/b.jpg", b"")
    assert findings(dataset) == []


def test_folders_that_hold_nothing(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="there is no such file or folder"):
        scan_dataset(dataset.folder / "none")
    dataset.xml("a.xml", [GOOD])
    with pytest.raises(DataError, match="there are no images in it"):
        scan_dataset(dataset.images)
    dataset.image("a.jpg")
    (dataset.images / "a.xml").unlink()
    with pytest.raises(DataError, match="no labels in a format known here"):
        scan_dataset(dataset.images)
    with pytest.raises(DataError, match="there is no such file or folder"):
        scan_dataset(dataset.images, dataset.folder / "none")
