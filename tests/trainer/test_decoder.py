"""The Object Detection API's own TfExampleDecoder gives back what was recorded, shard by shard."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image, ImageDraw

from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.spec import Policies

from .conftest import Trainer

DECODE = """
import tensorflow as tf
from object_detection.data_decoders.tf_example_decoder import TfExampleDecoder
from object_detection.protos import input_reader_pb2
masks = input_reader_pb2.PNG_MASKS
decoder = TfExampleDecoder(
    load_instance_masks=sys.argv[4] == "masks", instance_mask_type=masks, label_map_proto_file=sys.argv[3],
)
found = {}
for shard in sys.argv[5:]:
    count = 0
    for record in tf.data.TFRecordDataset(shard):
        out = {key: value.numpy() for key, value in decoder.decode(record).items()}
        count += 1
        found[out["source_id"].decode()] = {
            "shard": shard, "shape": list(out["image"].shape), "corner": out["image"][2, 2].tolist(),
            "boxes": out["groundtruth_boxes"].tolist(), "classes": out["groundtruth_classes"].tolist(),
            "crowd": out["groundtruth_is_crowd"].tolist(), "group": out["groundtruth_group_of"].tolist(),
            "masks": [[int(mask.sum()), *mask.shape] for mask in out.get("groundtruth_instance_masks", ())],
        }
    assert count
print("FOUND " + json.dumps(found))
"""
SIZE = (80, 40)
RED = (220, 30, 40)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def images() -> dict[str, bytes]:
    """One picture, red but for a blue field on the right, in every format and mode that is recorded or converted."""
    plain = Image.new("RGB", SIZE, RED)
    ImageDraw.Draw(plain).rectangle((60, 0, 79, 39), fill=(20, 40, 230))
    deep = Image.new("I;16", SIZE, 40_000)
    return {
        "a.jpg": saved(plain, "JPEG", quality=95), "grey.jpg": saved(plain.convert("L"), "JPEG"),
        "progressive.jpg": saved(plain, "JPEG", progressive=True, quality=95), "b.png": saved(plain, "PNG"),
        "alpha.png": saved(plain.convert("RGBA"), "PNG"), "palette.png": saved(plain.quantize(16), "PNG"),
        "la.png": saved(plain.convert("LA"), "PNG"), "deep.png": saved(deep, "PNG"),
        "bitmap.bmp": saved(plain, "BMP"), "first.gif": saved(plain, "GIF"),
        "web.webp": saved(plain, "WEBP", lossless=True),
        "print.jpg": saved(plain.convert("CMYK"), "JPEG", quality=95), "phone.jpg": turned(plain),
        "large.jpg": saved(plain.resize((320, 160)), "JPEG", quality=95),
    }


def write_coco(folder: Path) -> dict[str, list[float]]:
    """The images with a box and its outline each, and a crowd in some; returns edges in fractions by name."""
    (folder / "images").mkdir()
    truth, listed, annotations = {}, [], []
    for number, (name, data) in enumerate(images().items(), 1):
        (folder / "images" / name).write_bytes(data)
        width, height = (320, 160) if name == "large.jpg" else SIZE
        x, y, w, h = width * 0.25, height * 0.25, width * 0.5, height * (0.25 + number / 100)
        truth[name] = [y / height, x / width, (y + h) / height, (x + w) / width]
        listed.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations.append({
            "id": number, "image_id": number, "category_id": 1 + number % 2 * 4, "bbox": [x, y, w, h],
            "iscrowd": int(number == 3), "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        })
    categories = [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}]
    coco = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(coco), encoding="utf-8")
    return truth


@pytest.mark.trainer
def test_the_decoder_gives_back_every_kind_of_image(trainer: Trainer, tmp_path: Path) -> None:
    truth = write_coco(tmp_path)
    manifest = build_dataset(DatasetRequest(
        tmp_path / "images", tmp_path / "instances.json", tmp_path / "out", 0.3, max_side=160, masks=True,
        near_duplicates=False, shard_examples=4, policies=Policies(unfit="fix", rotation="fix"),
    ))
    assert len(manifest.shards) > 3
    shards = [manifest.folder / shard.name for shard in manifest.shards]
    packages, label_map = tmp_path / "packages", manifest.label_map_path
    found = cast(dict[str, Any], trainer(packages, DECODE, label_map, Path("masks"), *shards))
    assert found.keys() == truth.keys()
    assert {one["shard"] for one in found.values()} == set(map(str, shards))
    for number, (name, edges) in enumerate(truth.items(), 1):
        one = found[name]
        width, height = (160, 80) if name == "large.jpg" else SIZE
        assert one["shape"] == [height, width, 3], name
        assert one["boxes"] == [pytest.approx(edges, abs=1e-6)], name
        assert one["classes"] == [1 + number % 2 * 4], name
        assert one["crowd"] == one["group"] == [number == 3], name
        area = (edges[2] - edges[0]) * height * (edges[3] - edges[1]) * width
        [[pixels, *shape]] = one["masks"]
        assert shape == [height, width]
        assert pixels == pytest.approx(area, rel=0.1)
        grey = name in ("grey.jpg", "la.png", "deep.png")
        expected = [156] * 3 if name == "deep.png" else [88] * 3 if grey else RED
        assert one["corner"] == pytest.approx(expected, abs=12), name


@pytest.mark.trainer
def test_the_decoder_reads_the_photographs_and_what_was_sharded_again(
    trainer: Trainer, raccoon: Path, tmp_path: Path,
) -> None:
    first = build_dataset(DatasetRequest(raccoon / "images", raccoon / "annotations", tmp_path / "one"))
    again = build_dataset(DatasetRequest(
        first.folder, None, tmp_path / "two", shard_examples=60, aliases={"raccoon": "bear"},
    ))
    assert again.images == first.images
    for manifest in (first, again):
        shards = [manifest.folder / shard.name for shard in manifest.shards]
        packages = manifest.folder.with_suffix(".packages")
        found = cast(dict[str, Any], trainer(packages, DECODE, manifest.label_map_path, Path("boxes"), *shards))
        assert len(found) == 200
        assert sum(len(one["boxes"]) for one in found.values()) == 217
        assert {number for one in found.values() for number in one["classes"]} == {1}
