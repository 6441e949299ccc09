from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.data.build import DatasetRequest, build_dataset, check_dataset, plan_checked
from gcpod.data.formats.voc import read_voc
from gcpod.data.manifest import DatasetManifest
from gcpod.data.materialise import materialise
from gcpod.data.model import Box
from gcpod.errors import DataError
from gcpod.spec import Policies

from .making import Dataset
from .test_conversions import box_of, consistent, encoded, opened, pattern, recorded
from .test_scan_formats import SIDES, TRUTH, Laid, layouts, put

CAT = Box("cat", 10, 10, 50, 40, difficult=True, truncated=True, pose="Left")
SIZE = (100, 50)


def data(seed: int, kind: str = "JPEG") -> bytes:
    return encoded(pattern(seed, SIZE), kind)


def request(dataset: Dataset) -> DatasetRequest:
    return DatasetRequest(dataset.images, None, dataset.out, materialise=dataset.folder / "split")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def told(manifest: DatasetManifest) -> dict[str, str]:
    """train or test by the image's name."""
    sides = {}
    for shard in manifest.shards:
        for name in recorded(replace(manifest, shards=(shard,))):
            sides[name] = {"train": "train", "eval": "test"}[shard.split]
    return sides


def test_each_image_lies_in_the_folder_of_its_side_with_its_boxes(dataset: Dataset) -> None:
    for index in range(8):
        dataset.add(f"sub/{index}.jpg", CAT, Box("dog", index, 0, 100, 50), data=data(index))
    dataset.add("plain.png", data=data(9, "PNG"))
    asked = request(dataset)
    manifest = build_dataset(asked)
    split = dataset.folder / "split"
    sides = told(manifest)
    assert set(sides.values()) == {"train", "test"}
    assert files(split) == {
        file for name, side in sides.items()
        for file in (f"{side}/{name}", f"{side}/{Path(name).with_suffix('.xml')}")
    }
    for name, example in recorded(manifest).items():
        path = split / sides[name] / name
        assert path.read_bytes() == (dataset.images / name).read_bytes() == example.byte_string("image/encoded")
        written = read_voc(path.with_suffix(".xml"))
        assert written.boxes == read_voc((dataset.images / name).with_suffix(".xml")).boxes
        assert (written.filename, written.width, written.height) == (path.name, *SIZE)


@layouts
def test_a_given_split_is_kept_and_the_copy_is_a_dataset_again(lay: Callable[[Path], Laid], tmp_path: Path) -> None:
    laid = lay(tmp_path / "data")
    asked = DatasetRequest(laid.images, laid.annotations, tmp_path / "out", materialise=tmp_path / "split")
    first = build_dataset(asked)
    again = build_dataset(DatasetRequest(tmp_path / "split", None, tmp_path / "again"))
    assert (again.images, again.boxes, again.findings) == (first.images, first.boxes, ())
    stems = {Path(file).stem: file.partition("/")[0] for file in files(tmp_path / "split")}
    assert stems.keys() == TRUTH.keys()
    if laid.split:
        assert stems == {name: {"train": "train", "eval": "test"}[side] for name, side in SIDES.items()}


def test_folders_that_name_the_side_are_left_out_and_others_stay(dataset: Dataset) -> None:
    for index, name in enumerate(("train/a", "train/cats/b", "val/c", "images/train/d", "images/test/e")):
        dataset.add(f"{name}.jpg", CAT, data=data(index))
    build_dataset(request(dataset))
    assert {file for file in files(dataset.folder / "split") if file.endswith(".jpg")} == {
        "train/a.jpg", "train/cats/b.jpg", "test/c.jpg", "train/images/d.jpg", "test/images/e.jpg",
    }


def test_sides_that_labels_give_cost_no_folder_its_name(dataset: Dataset) -> None:
    for index, name in enumerate(("cats/a", "dogs/a", "cats/b", "dogs/b")):
        dataset.image(f"{name}.jpg", data(index))
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    for side, name in (("train", "a"), ("test", "b")):
        rows = "".join(f"{kind}/{name}.jpg,100,50,cat,1,2,30,40\n" for kind in ("cats", "dogs"))
        put(dataset.folder / "csv" / f"{side}_labels.csv", header + rows)
    build_dataset(replace(request(dataset), annotations=dataset.folder / "csv"))
    assert {file for file in files(dataset.folder / "split") if file.endswith(".jpg")} == {
        "train/cats/a.jpg", "train/dogs/a.jpg", "test/cats/b.jpg", "test/dogs/b.jpg",
    }


def test_images_of_one_name_on_one_side_keep_the_folder_that_tells_them_apart(dataset: Dataset) -> None:
    same = data(1)
    for name, content in (("train/a", same), ("test/a", same), ("val/a", data(2)), ("train/b", data(3))):
        dataset.add(f"{name}.jpg", CAT, data=content)
    manifest = build_dataset(request(dataset))
    assert manifest.images == {"train": 1, "eval": 3}
    copied = {file for file in files(dataset.folder / "split") if file.endswith(".jpg")}
    assert "train/b.jpg" in copied
    assert "test/a.jpg" in copied
    assert len(copied) == 4
    assert copied - {"train/b.jpg", "test/a.jpg"} < {"test/train/a.jpg", "test/test/a.jpg", "test/val/a.jpg"}


def test_two_images_with_one_annotation_name(dataset: Dataset) -> None:
    dataset.image("a.jpg", data(1))
    dataset.image("a.png", data(2, "PNG"))
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    put(dataset.folder / "train.csv", header + "a.jpg,100,50,cat,1,2,30,40\na.png,100,50,cat,1,2,30,40\n")
    dataset.image("b.jpg", data(3))
    put(dataset.folder / "test.csv", header + "b.jpg,100,50,cat,1,2,30,40\n")
    with pytest.raises(DataError, match="is there already; rename one of the images"):
        build_dataset(replace(request(dataset), annotations=dataset.folder / "t*.csv"))


def test_converted_images_are_copied_as_they_are_recorded(dataset: Dataset) -> None:
    large = encoded(pattern(1, (200, 100)), "JPEG")
    dataset.add("large.jpeg", Box("cat", 20, 20, 100, 80), data=large, size=(200, 100))
    dataset.add("odd.webp", CAT, data=data(2, "WEBP"))
    dataset.add("liar.jpg", CAT, data=data(3, "PNG"))
    asked = replace(request(dataset), max_side=50, policies=Policies(unfit="fix"))
    manifest = build_dataset(asked)
    found, sides = recorded(manifest), told(manifest)
    for name, copy in (("large.jpeg", "large.jpeg"), ("odd.webp", "odd.png"), ("liar.jpg", "liar.png")):
        path = dataset.folder / "split" / sides[name] / copy
        assert path.read_bytes() == found[name].byte_string("image/encoded")
        assert consistent(found[name]).size == (50, 25)
        written = read_voc(path.with_suffix(".xml"))
        assert (written.filename, written.width, written.height) == (copy, 50, 25)
        [box] = written.boxes
        assert (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx(box_of(found[name]), abs=0.5)
    assert len(files(dataset.folder / "split")) == 6


def test_records_become_files_with_a_suffix(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    dataset = Dataset(folder)
    for index in range(4):
        dataset.add(f"v1.{index}.jpg", CAT, data=data(index))
    records = build_dataset(DatasetRequest(dataset.images, None, tmp_path / "records"))
    twice = tmp_path / "twice"
    twice.mkdir()
    for shard in records.shards:
        put(twice / shard.name, (records.folder / shard.name).read_bytes())
        put(twice / shard.name.replace("of", "of-0"), (records.folder / shard.name).read_bytes())
    split = tmp_path / "split"
    build_dataset(DatasetRequest(twice, None, tmp_path / "out", materialise=split))
    copied = files(split)
    assert len(copied) == 16
    for file in copied:
        path = split / file
        assert path.suffix in (".jpg", ".xml")
        assert path.suffix == ".xml" or opened(path.read_bytes()).format == "JPEG"
        assert path.with_suffix(".xml").exists()


def test_a_folder_that_holds_something_is_left_alone(dataset: Dataset) -> None:
    for index in range(3):
        dataset.add(f"{index}.jpg", CAT, data=data(index))
    asked = request(dataset)
    split = dataset.folder / "split"
    put(split / "mine.txt", "precious")
    with pytest.raises(DataError, match="the folder is not empty"):
        build_dataset(asked)
    assert files(split) == {"mine.txt"}
    (split / "mine.txt").unlink()
    build_dataset(asked)
    assert len(files(split)) == 6


def test_a_target_that_is_a_file(dataset: Dataset) -> None:
    for index in range(3):
        dataset.add(f"{index}.jpg", CAT, data=data(index))
    put(dataset.folder / "split", "a file")
    with pytest.raises(DataError, match="copying the split to"):
        build_dataset(request(dataset))
    plan = plan_checked(check_dataset(request(dataset)), request(dataset))
    with pytest.raises(DataError, match="copying the split to"):
        materialise(plan, dataset.folder / "split" / "below")
    assert materialise(plan, dataset.folder / "new") in ({"train": 2, "eval": 1}, {"train": 1, "eval": 2})
