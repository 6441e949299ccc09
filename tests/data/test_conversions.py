from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gcpod.data.build import DatasetError, DatasetRequest, build_dataset
from gcpod.data.features import Example, parse_example
from gcpod.data.manifest import DatasetManifest, intact
from gcpod.data.model import Box
from gcpod.data.pixels import fingerprint
from gcpod.records import read_records
from gcpod.spec import Policies

from .making import Dataset

SIZE = (80, 40)
CAT = Box("cat", 8, 4, 32, 24)
EDGES = ("xmin", "ymin", "xmax", "ymax")


def pattern(seed: int, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    """A picture that no other seed's is like: coarse blocks of random colours."""
    blocks = Image.frombytes("RGB", (8, 8), hashlib.shake_256(str(seed).encode()).digest(192))
    return blocks.resize(size, Image.Resampling.NEAREST).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def recorded(manifest: DatasetManifest) -> dict[str, Example]:
    """Every record by the name of its image."""
    found = {}
    for shard in manifest.shards:
        with (manifest.folder / shard.name).open("rb") as file:
            examples = list(map(parse_example, read_records(file)))
        assert len(examples) == shard.examples
        found.update({example.byte_string("image/source_id").decode(): example for example in examples})
    return found


def box_of(example: Example, index: int = 0) -> tuple[float, ...]:
    """A box in pixels of the recorded image."""
    width, height = example.integer("image/width"), example.integer("image/height")
    edges = (example.floats(f"image/object/bbox/{edge}")[index] for edge in EDGES)
    return tuple(edge * side for edge, side in zip(edges, (width, height) * 2, strict=True))


def consistent(example: Example) -> Image.Image:
    """The recorded image, once all that the record says of it is true."""
    data = example.byte_string("image/encoded")
    image = opened(data)
    assert image.format == example.byte_string("image/format").decode().upper()
    assert image.size == (example.integer("image/width"), example.integer("image/height"))
    assert example.byte_string("image/key/sha256").decode() == hashlib.sha256(data).hexdigest()
    assert image.getexif().get(0x0112, 1) == 1
    return image


def far(image: Image.Image, other: Image.Image) -> int:
    """The most that a channel of a pixel differs."""
    pairs = zip(image.convert("RGB").tobytes(), other.convert("RGB").tobytes(), strict=True)
    return max(abs(one - two) for one, two in pairs)


def request(dataset: Dataset, **options: Any) -> DatasetRequest:
    return DatasetRequest(dataset.images, None, dataset.out, **options)


def middles(image: Image.Image) -> Image.Image:
    """The pixel in the middle of each block of a pattern."""
    return image.convert("RGB").resize((8, 8), Image.Resampling.NEAREST)


CLIPPING = Policies(outside="fix", zero_area="fix")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_larger_images_are_shrunk_and_boxes_stay_where_they_are(dataset: Dataset, kind: str) -> None:
    name = {"PNG": "{}.png", "JPEG": "{}.jpg"}[kind]
    small = encoded(pattern(1), kind)
    dataset.add(name.format("small"), CAT, data=small, size=SIZE)
    dataset.add(name.format("large"), replace(CAT, xmin=40, xmax=120, ymin=20, ymax=60), size=(160, 80),
                data=encoded(pattern(2, (160, 80)), kind))
    dataset.add(name.format("tall"), replace(CAT, xmin=11, ymin=101), size=(33, 301),
                data=encoded(pattern(3, (33, 301)), kind))
    plain = recorded(build_dataset(replace(request(dataset), out=dataset.folder / "plain", policies=CLIPPING)))
    shrunk = recorded(build_dataset(request(dataset, max_side=80, policies=CLIPPING)))
    assert shrunk[name.format("small")].byte_string("image/encoded") == small
    for each, size in (("small", SIZE), ("large", SIZE), ("tall", (9, 80))):
        one, whole = shrunk[name.format(each)], plain[name.format(each)]
        assert consistent(one).size == size
        assert one.byte_string("image/format") == kind.lower().encode()
        for edge in EDGES:
            key = f"image/object/bbox/{edge}"
            assert one.floats(key) == whole.floats(key)
    assert box_of(shrunk[name.format("large")]) == pytest.approx((20, 10, 60, 30))
    assert far(middles(consistent(shrunk[name.format("large")])), middles(pattern(2))) < 30


def deep(value: int) -> bytes:
    """A grayscale PNG of 16 bits a sample, its left half black."""
    row = bytes(80) + value.to_bytes(2, "little") * 40
    return encoded(Image.frombytes("I;16", SIZE, row * 40))


MODES: dict[str, bytes] = {
    "L": encoded(pattern(1, mode="L")), "LA": encoded(pattern(2, mode="LA")), "P": encoded(pattern(3, mode="P")),
    "RGBA": encoded(pattern(4, mode="RGBA")), "1": encoded(pattern(5, mode="1")), "16": deep(40_000),
    "RGB": encoded(pattern(6)), "P with transparency": encoded(pattern(7, mode="P"), transparency=3),
}


def test_modes_the_trainer_decodes_are_recorded_as_they_are(dataset: Dataset) -> None:
    for name, data in MODES.items():
        dataset.add(f"{name}.png", CAT, data=data, size=SIZE)
    gray = encoded(pattern(8, mode="L"), "JPEG")
    progressive = encoded(pattern(9), "JPEG", progressive=True)
    dataset.add("gray.jpg", CAT, data=gray, size=SIZE)
    dataset.add("progressive.jpg", CAT, data=progressive, size=SIZE)
    manifest = build_dataset(request(dataset))
    assert manifest.findings == ()
    found = {name: example.byte_string("image/encoded") for name, example in recorded(manifest).items()}
    files = {f"{name}.png": data for name, data in MODES.items()}
    assert found == {**files, "gray.jpg": gray, "progressive.jpg": progressive}


def test_shrinking_keeps_what_the_trainer_sees_of_each_mode(dataset: Dataset) -> None:
    for name, data in MODES.items():
        dataset.add(f"{name}.png", CAT, data=data, size=SIZE)
    dataset.add("gray.jpg", CAT, data=encoded(pattern(8, mode="L"), "JPEG"), size=SIZE)
    clear = pattern(10, mode="RGBA")
    clear.putalpha(0)
    dataset.add("clear.png", CAT, data=encoded(clear), size=SIZE)
    found = recorded(build_dataset(request(dataset, max_side=40)))
    images = {name: consistent(example) for name, example in found.items()}
    assert {image.size for image in images.values()} == {(40, 20)}
    assert images["gray.jpg"].mode == "L"
    assert images["16.png"].getpixel((5, 10)) == 0
    assert images["16.png"].getpixel((35, 10)) == 40_000 >> 8
    # Without its transparency, under which the colours are what they were.
    assert far(middles(images["clear.png"]), middles(pattern(10))) < 60
    assert far(middles(images["P.png"]), middles(opened(MODES["P"]))) < 60


def test_conversions_drop_metadata_and_enlarge_nothing(dataset: Dataset) -> None:
    keyed = encoded(pattern(1), transparency=(1, 2, 3), icc_profile=b"a profile of colours", dpi=(300, 300))
    assert opened(keyed).info.keys() >= {"transparency", "icc_profile", "dpi"}
    dataset.add("keyed.png", CAT, data=keyed, size=SIZE)
    dataset.add("odd.webp", CAT, data=encoded(pattern(2, (60, 30)), "WEBP"), size=(60, 30))
    found = recorded(build_dataset(request(dataset, max_side=70, policies=Policies(unfit="fix"))))
    assert consistent(found["keyed.png"]).size == (70, 35)
    assert opened(found["keyed.png"].byte_string("image/encoded")).info == {}
    assert consistent(found["odd.webp"]).size == (60, 30)


def test_pictures_of_16_bits_are_told_apart() -> None:
    bright, dark = deep(60_000), deep(20_000)
    assert fingerprint(bright, "")[-1] == 60_000 >> 8
    assert fingerprint(dark, "")[-1] == 20_000 >> 8


def test_the_same_conversion_gives_the_same_bytes(dataset: Dataset) -> None:
    for index in range(6):
        kind, suffix = (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"))[index % 3]
        dataset.add(f"{index}.{suffix}", CAT, data=encoded(pattern(index), kind), size=SIZE)
    asked = request(dataset, max_side=50, policies=Policies(unfit="fix"))
    first = build_dataset(asked)
    second = build_dataset(replace(asked, out=dataset.folder / "again"))
    assert intact(first)
    assert replace(second, folder=first.folder) == first
    assert build_dataset(replace(asked, max_side=49)).digest != first.digest


def coco(folder: Path, images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / "instances.json"
    content = {
        "images": images, "categories": [{"id": 5, "name": "cat"}],
        "annotations": [{"id": index, "category_id": 5, **each} for index, each in enumerate(annotations)],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


POLYGON = {"bbox": [8, 4, 24, 20], "segmentation": [[8, 4, 32, 4, 32, 24, 8, 24]]}
RLE = {"bbox": [0, 20, 4, 20], "iscrowd": 1, "segmentation": {"size": [40, 80], "counts": [20, 20] * 4 + [3040]}}
"""The lower half of the first four columns."""
BARE = {"bbox": [40, 10, 20, 30]}


def masked(dataset: Dataset, size: tuple[int, int] = SIZE, **options: Any) -> DatasetRequest:
    """An image with an outline of each kind, and one with none."""
    dataset.image("one.png", encoded(pattern(1)))
    dataset.image("two.png", encoded(pattern(2)))
    width, height = size
    images = [{"id": 1, "file_name": "one.png", "width": width, "height": height}, {"id": 2, "file_name": "two.png"}]
    annotations = [{"image_id": 1, **POLYGON}, {"image_id": 1, **BARE}, {"image_id": 2, **BARE}]
    if size == SIZE:
        annotations.append({"image_id": 1, **RLE})
    return replace(request(dataset, **options), annotations=coco(dataset.folder, images, annotations))


def extents(example: Example) -> list[tuple[int, int, int, int]]:
    """The rectangle that each mask fills, having checked that it fills all of it and has the image's size."""
    found = []
    for data in example.byte_strings("image/object/mask"):
        mask = opened(data)
        assert (mask.mode, mask.size) == ("L", (example.integer("image/width"), example.integer("image/height")))
        extent = mask.getbbox()
        assert extent is not None
        assert mask.crop(extent).getextrema() == (1, 1)
        found.append(extent)
    return found


def test_masks_are_recorded_where_they_are_asked_for(dataset: Dataset) -> None:
    found = recorded(build_dataset(masked(dataset, masks=True)))
    assert extents(found["one.png"]) == [(8, 4, 32, 24), (40, 10, 60, 40), (0, 20, 4, 40)]
    assert extents(found["two.png"]) == [(40, 10, 60, 40)]
    without = recorded(build_dataset(masked(dataset)))
    assert all("image/object/mask" not in example.features for example in without.values())


def test_masks_shrink_with_their_image(dataset: Dataset) -> None:
    found = recorded(build_dataset(masked(dataset, masks=True, max_side=40)))
    assert extents(found["one.png"]) == [(4, 2, 16, 12), (20, 5, 30, 20), (0, 10, 2, 20)]


def test_masks_follow_an_image_that_was_resized_since(dataset: Dataset) -> None:
    asked = masked(dataset, (160, 80), masks=True)
    found = recorded(build_dataset(asked))["one.png"]
    assert box_of(found) == pytest.approx((4, 2, 16, 12))
    assert extents(found) == [(4, 2, 16, 12), (20, 5, 30, 20)]
    smaller = recorded(build_dataset(replace(asked, max_side=40)))["one.png"]
    assert extents(smaller) == [(2, 1, 8, 6), (10, 2, 15, 10)]


def test_masks_lie_on_the_turned_image(dataset: Dataset) -> None:
    asked = masked(dataset, masks=True, policies=Policies(rotation="fix"))
    exif = Image.Exif()
    exif[0x0112] = 6
    dataset.image("one.png", encoded(pattern(1).transpose(Image.Transpose.ROTATE_90), exif=exif))
    found = recorded(build_dataset(asked))["one.png"]
    assert far(consistent(found), pattern(1)) == 0
    assert extents(found)[0] == (8, 4, 32, 24)


def test_crowds_are_told_only_where_there_are_some(dataset: Dataset) -> None:
    asked = masked(dataset)
    found = recorded(build_dataset(asked))
    for key in ("image/object/is_crowd", "image/object/group_of"):
        assert found["one.png"].integers(key) == (0, 0, 1)
        assert found["two.png"].integers(key) == (0,)
    coco(dataset.folder, [{"id": 1, "file_name": "one.png"}, {"id": 2, "file_name": "two.png"}],
         [{"image_id": 1, **BARE}, {"image_id": 2, **BARE, "iscrowd": 0}])
    without = recorded(build_dataset(asked))
    assert not any(key.endswith(("is_crowd", "group_of")) for one in without.values() for key in one.features)


def test_masks_of_records_are_not_shrunk_in_silence(dataset: Dataset) -> None:
    asked = masked(dataset, masks=True)
    build_dataset(asked)
    with pytest.raises(DatasetError, match="its masks would not fit the image"):
        build_dataset(DatasetRequest(asked.out, None, dataset.folder / "again", max_side=40))
