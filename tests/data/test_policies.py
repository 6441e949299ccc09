from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image, ImageOps

from gcpod.data.boxes import LEFT_OUT
from gcpod.data.build import DatasetError, DatasetRequest, build_dataset, check_dataset
from gcpod.data.checked import Checked
from gcpod.data.labelmap import LabelItem, LabelMap
from gcpod.data.model import Box
from gcpod.data.pixels import ORIENTATION_TAG
from gcpod.errors import DataError
from gcpod.spec import Policies, Policy

from .making import Dataset
from .test_conversions import box_of, consistent, encoded, far, middles, opened, pattern, recorded

SIZE = (100, 50)
GOOD = Box("cat", 10, 10, 50, 40)
OTHER = Box("cat", 60, 5, 90, 45)
LABELS = LabelMap.impose(["cat", "red_panda"])


def plain(seed: int, kind: str = "JPEG", **options: Any) -> bytes:
    return encoded(pattern(seed, SIZE), kind, **options)


def oriented(image: Image.Image, orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return encoded(image, kind, exif=exif)


def with_box(box: Box) -> Callable[[Dataset], object]:
    """One fault among the boxes of an image, beside a sound one."""
    return lambda dataset: dataset.add("bad.jpg", box, GOOD, data=plain(2))


def malformed(dataset: Dataset) -> None:
    dataset.image("bad.jpg", plain(2))
    (dataset.images / "bad.xml").write_bytes(b"<annotation><object/></annotation>")


def straddling(dataset: Dataset) -> None:
    dataset.add("train/bad.jpg", GOOD, data=plain(2))
    dataset.add("test/bad2.jpg", GOOD, data=plain(2))
    dataset.add("train/other.jpg", OTHER, data=plain(3))


@dataclass(frozen=True)
class Fault:
    """A dataset's fault, and which boxes of which images are left of it; without "fixed", it cannot be fixed.

    Attributes:
        said: what is said where it is fixed.
        left: what is said where it is left out.
    """

    code: str
    make: Callable[[Dataset], object]
    fixed: Mapping[str, tuple[Box, ...]] | None
    warned: Mapping[str, tuple[Box, ...]]
    said: str = ""
    left: str = LEFT_OUT


ONE, NONE = {"bad.jpg": (GOOD,)}, dict[str, tuple[Box, ...]]()
FAULTS: dict[str, Fault] = {
    "unknown_label": Fault("D101", with_box(replace(OTHER, label="Red Panda")),
                           {"bad.jpg": (replace(OTHER, label="red_panda"), GOOD)}, ONE,
                           "taken for 'red_panda'", "its box was left out"),
    "size": Fault("D102", lambda one: one.add("bad.jpg", Box("cat", 20, 20, 100, 80), data=plain(2), size=(200, 100)),
                  ONE, NONE, "boxes were scaled"),
    "rotation": Fault("D102", lambda one: one.add("bad.jpg", GOOD, data=oriented(pattern(2, SIZE), 3, "JPEG")),
                      ONE, NONE, "pixels are turned"),
    "outside": Fault("D102", with_box(Box("cat", -9, 10, 300, 40)),
                     {"bad.jpg": (Box("cat", 0, 10, 100, 40), GOOD)}, ONE, "clipped"),
    "reversed": Fault("D103", with_box(Box("cat", 90, 45, 60, 5)), {"bad.jpg": (OTHER, GOOD)}, ONE, "swapped"),
    "annotation": Fault("D104", malformed, None, NONE),
    "zero_area": Fault("D105", with_box(Box("cat", 10, 10, 10, 40)), ONE, ONE, "dropped"),
    "image": Fault("D106", lambda one: one.add("bad.jpg", GOOD, data=plain(2)[:200]), None, NONE),
    "format": Fault("D106", lambda one: one.add("bad.jpg", GOOD, data=plain(2, "PNG")), ONE, NONE, "recorded as png"),
    "unfit": Fault("D106", lambda one: one.add("bad.webp", GOOD, data=plain(2, "WEBP")),
                   {"bad.webp": (GOOD,)}, NONE, "converted"),
    "missing_image": Fault("D106", lambda one: one.xml("bad.xml", [GOOD]), None, NONE),
    "unlabelled": Fault("D106", lambda one: one.image("bad.jpg", plain(2)), {"bad.jpg": ()}, NONE,
                        "images without objects", "they were left out"),
    "straddling": Fault("D107", straddling,
                        {"test/bad2.jpg": (GOOD,), "train/bad.jpg": (GOOD,), "train/other.jpg": (OTHER,)},
                        {"test/bad2.jpg": (GOOD,), "train/other.jpg": (OTHER,)}, "all of them evaluate",
                        "copies that train were left out"),
}
CHOICES = [(field.name, policy) for field in fields(Policies) for policy in field.metadata["choices"]]


def request(dataset: Dataset, **options: Any) -> DatasetRequest:
    return DatasetRequest(dataset.images, None, dataset.out, **options)


def check(dataset: Dataset, **options: Any) -> Checked:
    return check_dataset(request(dataset, **options)).checked


@pytest.mark.parametrize(("name", "policy"), CHOICES)
def test_each_fault_under_each_policy(dataset: Dataset, name: str, policy: Policy) -> None:
    fault = FAULTS[name]
    dataset.add("good.jpg", OTHER, data=plain(1))
    fault.make(dataset)
    asked = request(dataset, labels=LABELS, policies=Policies(**{name: policy}))
    checked = check_dataset(asked).checked
    kept = {one.name: tuple(one.boxes) for one in checked.samples if one.name != "good.jpg"}
    [finding] = checked.findings
    assert (finding.code, finding.severity) == (fault.code, "error" if policy == "error" else "warning")
    if policy == "error":
        if name not in ("unlabelled", "straddling"):
            assert kept == {}
        with pytest.raises(DatasetError, match=fault.code) as caught:
            build_dataset(asked)
        assert caught.value.findings == checked.findings
        assert not dataset.out.exists()
    elif policy == "fix":
        assert fault.said in finding.fix
        assert kept == fault.fixed
    else:
        assert fault.left in finding.fix
        assert kept == fault.warned


def test_every_policy_can_be_fixed_where_it_says_so() -> None:
    fixable = {name for name, policy in CHOICES if policy == "fix"}
    assert {name for name, fault in FAULTS.items() if fault.fixed is not None} == fixable
    assert {name for name, _ in CHOICES} == FAULTS.keys()


@pytest.mark.parametrize("label", ["RED_PANDA", "red panda", "Red-Panda", "red  _ panda"])
def test_labels_are_matched_but_for_case_spaces_and_dashes(dataset: Dataset, label: str) -> None:
    dataset.add("a.jpg", replace(GOOD, label=label))
    checked = check(dataset, labels=LABELS, policies=Policies(unknown_label="fix"))
    assert checked.samples[0].boxes.labels == ("red_panda",)
    assert [one.severity for one in checked.findings] == ["warning"]


def test_a_label_like_no_other_is_an_error_even_so(dataset: Dataset) -> None:
    dataset.add("a.jpg", replace(GOOD, label="redpanda"))
    checked = check(dataset, labels=LABELS, policies=Policies(unknown_label="fix"))
    [finding] = checked.findings
    assert (finding.code, finding.severity, finding.fix) == ("D101", "error", "did you mean 'red_panda'?")
    assert checked.samples == ()


def texts(dataset: Dataset, **options: Any) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Labels and ids as recorded."""
    found = recorded(build_dataset(request(dataset, **options)))
    return {
        name: (one.texts("image/object/class/text"), one.integers("image/object/class/label"))
        for name, one in found.items()
    }


def test_aliases_rename_and_merge_before_the_label_map_is_asked(dataset: Dataset) -> None:
    dataset.add("a.jpg", replace(GOOD, label="kitty"), replace(OTHER, label="tomcat"), data=plain(1))
    dataset.add("b.jpg", replace(GOOD, label="cat"), replace(OTHER, label="dog"), data=plain(2))
    merged = {"kitty": "cat", "tomcat": "cat"}
    assert texts(dataset, aliases=merged) == {
        "a.jpg": (("cat", "cat"), (1, 1)), "b.jpg": (("cat", "dog"), (1, 2)),
    }
    imposed = LabelMap((LabelItem(4, "dog"), LabelItem(9, "cat")))
    assert texts(dataset, aliases=merged, labels=imposed)["b.jpg"] == (("cat", "dog"), (9, 4))
    swapped = {"cat": "dog", "dog": "cat"}
    assert texts(dataset, aliases=swapped)["b.jpg"] == (("dog", "cat"), (2, 1))


def yolo(dataset: Dataset, *names: str) -> None:
    (dataset.images / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    for index, name in enumerate(names):
        dataset.image(f"{name}.jpg", plain(index))
        (dataset.images / f"{name}.txt").write_text(f"{index} 0.3 0.5 0.4 0.6\n", encoding="utf-8")


def test_a_label_map_that_came_with_the_labels_is_renamed(dataset: Dataset) -> None:
    yolo(dataset, "zebra", "horse", "ant")
    assert texts(dataset) == {
        "zebra.jpg": (("zebra",), (1,)), "horse.jpg": (("horse",), (2,)), "ant.jpg": (("ant",), (3,)),
    }
    assert texts(dataset, aliases={"zebra": "quagga"})["zebra.jpg"] == (("quagga",), (1,))
    merged = texts(dataset, aliases={"zebra": "horse"})
    assert merged == {"zebra.jpg": (("horse",), (2,)), "horse.jpg": (("horse",), (2,)), "ant.jpg": (("ant",), (3,))}


def test_an_image_resized_since_takes_its_boxes_along(dataset: Dataset) -> None:
    dataset.add("a.jpg", Box("cat", 30, 30, 150, 120), data=plain(1), size=(300, 150))
    dataset.add("b.jpg", Box("cat", 5, 5, 25, 20), data=plain(2), size=(50, 25))
    dataset.add("rounded.jpg", Box("cat", 33, 33, 166, 133), data=plain(3), size=(333, 166))
    a, b, rounded = check(dataset).samples
    assert [tuple(one.boxes) for one in (a, b)] == [(GOOD,), (GOOD,)]
    [box] = rounded.boxes
    assert (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx((10, 10, 50, 40), abs=0.2)


def test_of_other_proportions_the_real_size_counts(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD, data=plain(1), size=(300, 300))
    checked = check(dataset)
    assert checked.samples[0].boxes == (GOOD,)
    [finding] = checked.findings
    assert finding.found == "<size> is 300 x 300, the image has 100 x 50 pixels"
    assert finding.fix.startswith("the real size was used")


STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture is stored that an orientation shows upright."""
RED, MARK = (250, 0, 0), Box("cat", 7, 11, 31, 24)


def marked() -> Image.Image:
    """A gray picture, red exactly where the box is."""
    image = Image.new("RGB", (64, 40), (90, 90, 90))
    image.paste(RED, (7, 11, 31, 24))
    return image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_turned_picture_lies_under_its_boxes(dataset: Dataset, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    data = encoded(marked().transpose(STORED[orientation]), kind, exif=exif, quality=100, lossless=True)
    assert ImageOps.exif_transpose(opened(data)).size == (64, 40)
    dataset.add(f"a.{kind.lower()}", MARK, data=data, size=(64, 40))
    dataset.add("b.jpg", GOOD, data=plain(1))
    found = recorded(build_dataset(request(dataset, policies=Policies(rotation="fix", unfit="fix"))))
    example = found[f"a.{kind.lower()}"]
    image = consistent(example)
    assert box_of(example) == pytest.approx((7, 11, 31, 24))
    red = image.convert("RGB").getchannel("R").point(lambda value: 255 * (value > 170)).getbbox()
    assert red == (7, 11, 31, 24)
    if kind != "JPEG":
        assert far(image, marked()) == 0


@pytest.mark.parametrize("policy", ["error", "fix", "warn"])
def test_a_declared_size_proves_that_boxes_are_on_the_stored_picture(dataset: Dataset, policy: Policy) -> None:
    data = oriented(marked(), 6)
    dataset.add("a.png", MARK, data=data, size=(64, 40))
    dataset.add("b.jpg", GOOD, data=plain(1))
    manifest = build_dataset(request(dataset, policies=Policies(rotation=policy)))
    assert [(one.code, one.severity) for one in manifest.findings] == [("D102", "warning")]
    example = recorded(manifest)["a.png"]
    assert example.byte_string("image/encoded") == data
    assert box_of(example) == pytest.approx((7, 11, 31, 24))
    assert (example.integer("image/width"), example.integer("image/height")) == (64, 40)


def test_a_stored_picture_that_is_shrunk_is_not_turned(dataset: Dataset) -> None:
    dataset.add("a.png", MARK, data=oriented(marked(), 6), size=(64, 40))
    dataset.add("b.jpg", GOOD, data=plain(1))
    example = recorded(build_dataset(request(dataset, max_side=32, policies=Policies(rotation="fix"))))["a.png"]
    assert consistent(example).size == (32, 20)
    assert box_of(example) == pytest.approx((3.5, 5.5, 15.5, 12))


def test_without_boxes_nothing_is_turned(dataset: Dataset) -> None:
    data = oriented(marked(), 6)
    dataset.add("a.png", data=data, size=(40, 64))
    dataset.add("b.jpg", GOOD, data=plain(1))
    manifest = build_dataset(request(dataset, policies=Policies(size="fix")))
    assert recorded(manifest)["a.png"].byte_string("image/encoded") == data


def animated(kind: str) -> bytes:
    return encoded(pattern(4, SIZE), kind, save_all=True, append_images=[pattern(5, SIZE), pattern(6, SIZE)])


UNFIT = {
    "BMP": ("bmp", plain(4, "BMP"), "png", 0), "GIF": ("gif", animated("GIF"), "png", 40),
    "WebP": ("webp", plain(4, "WEBP", quality=95), "png", 40),
    "CMYK": ("jpg", encoded(pattern(4, SIZE).convert("CMYK"), "JPEG", quality=95), "jpeg", 40),
    "animated": ("png", animated("PNG"), "png", 0),
}


@pytest.mark.parametrize("name", UNFIT)
def test_formats_that_the_trainer_does_not_read_are_converted(dataset: Dataset, name: str) -> None:
    suffix, data, kind, tolerance = UNFIT[name]
    dataset.add(f"a.{suffix}", GOOD, data=data)
    dataset.add("b.jpg", GOOD, data=plain(1))
    [refused] = check(dataset).errors
    assert (refused.code, Path(refused.where).name) == ("D106", f"a.{suffix}")
    assert name in refused.found
    example = recorded(build_dataset(request(dataset, policies=Policies(unfit="fix"))))[f"a.{suffix}"]
    image = consistent(example)
    assert example.byte_string("image/format").decode() == kind
    assert (image.size, getattr(image, "n_frames", 1)) == (SIZE, 1)
    assert far(middles(image), middles(pattern(4, SIZE))) <= tolerance
    assert box_of(example) == pytest.approx((10, 10, 50, 40))


def test_straddling_copies_all_evaluate_or_leave_the_training(dataset: Dataset) -> None:
    for index in range(3):
        dataset.add(f"train/{index}.jpg", GOOD, data=plain(10 + index))
        dataset.add(f"test/{index}.jpg", GOOD, data=plain(20 + index))
    straddling(dataset)
    assert build_dataset(request(dataset)).images == {"train": 4, "eval": 5}
    assert build_dataset(request(dataset, policies=Policies(straddling="warn"))).images == {"train": 4, "eval": 4}
    with pytest.raises(DatasetError, match="is in train and eval"):
        build_dataset(request(dataset, policies=Policies(straddling="error")))


def test_images_without_annotation_are_recorded_as_images_without_objects(dataset: Dataset) -> None:
    dataset.add("a.jpg", GOOD, data=plain(1))
    dataset.image("alone.jpg", plain(2))
    malformed(dataset)
    policies = Policies(unlabelled="fix", annotation="warn")
    manifest = build_dataset(request(dataset, policies=policies))
    assert [(one.code, one.fix) for one in manifest.findings] == [
        ("D104", LEFT_OUT), ("D106", "they were taken as images without objects"),
    ]
    found = recorded(manifest)
    assert found.keys() == {"a.jpg", "alone.jpg"}
    assert found["alone.jpg"].floats("image/object/bbox/xmin") == ()


def test_a_split_of_copies_alone_is_refused_whatever_the_policy(dataset: Dataset) -> None:
    for index in range(3):
        for side in ("train", "test"):
            dataset.add(f"{side}/{index}.jpg", GOOD, data=plain(index))
    for policy in get_args(Policy):
        with pytest.raises(DataError, match=r"D107: .*(copy of one that evaluates|in train and eval)"):
            build_dataset(request(dataset, policies=Policies(straddling=policy)))


@pytest.mark.parametrize(("declared", "turns"), [
    ((100, 50), False), ((50, 25), False), ((50, 100), True), ((25, 50), True),
])
def test_declared_proportions_tell_which_way_the_picture_was_seen(
    dataset: Dataset, declared: tuple[int, int], turns: bool,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = BytesIO()
    Image.new("RGB", (100, 50)).save(out, "JPEG", exif=exif)
    factor = max(declared) / 100
    box = Box("cat", 2 * factor, 2 * factor, 40 * factor, 20 * factor)
    dataset.add("a.jpg", box, data=out.getvalue(), size=declared)
    [sample] = check(dataset, policies=Policies(rotation="fix")).samples
    assert (sample.width, sample.height) == ((50, 100) if turns else (100, 50))
    assert sample.boxes[0] == Box("cat", 2, 2, 40, 20)


def test_an_alias_that_nothing_has_is_told(dataset: Dataset) -> None:
    dataset.add("a.jpg", Box("raccoon", 1, 1, 9, 9))
    [finding] = check(dataset, aliases={"racoon": "bear"}).findings
    assert (finding.code, finding.where, finding.fix) == ("D101", "data.aliases", "did you mean 'raccoon'?")


def test_a_very_large_image_is_only_decoded_when_it_is_asked_for(dataset: Dataset) -> None:
    data = plain(1, "PNG").replace(struct.pack(">II", 100, 50), struct.pack(">II", 20_000, 20_000), 1)
    head = data[12:29]
    data = data.replace(data[29:33], zlib.crc32(head).to_bytes(4, "big"), 1)
    dataset.add("a.png", GOOD, data=data, size=(20_000, 20_000))
    assert check(dataset).findings == ()
    [finding] = check(dataset, verify="decode").findings
    assert "more than are decoded to verify it" in finding.found


def test_copies_are_not_materialised_into_what_they_were_read_from(dataset: Dataset) -> None:
    for index in range(3):
        dataset.add(f"{index}.jpg", GOOD, data=plain(index))
    with pytest.raises(DataError, match="where the next build would find the copies"):
        build_dataset(request(dataset, materialise=dataset.images / "split"))
    assert not dataset.out.exists()
