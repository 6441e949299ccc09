from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from gcpod import wire
from gcpod.checksums import file_crc32c
from gcpod.data import write
from gcpod.data.build import DatasetError, DatasetRequest, build_dataset, check_dataset, plan_checked
from gcpod.data.crew import Crew
from gcpod.data.demo import draw_demo
from gcpod.data.formats.voc import read_voc
from gcpod.data.labelmap import LabelItem, LabelMap
from gcpod.data.manifest import DatasetManifest, intact, parse_manifest, read_manifest
from gcpod.data.model import Box
from gcpod.data.store import FolderStore
from gcpod.data.write import write_dataset
from gcpod.errors import DataError, SpecError
from gcpod.records import read_records

from .making import Dataset, picture

GOOD = Box("cat", 10, 10, 50, 40)
Feature = tuple[Any, ...]


def examples(manifest: DatasetManifest) -> Iterator[dict[str, Feature]]:
    for shard in manifest.shards:
        with (manifest.folder / shard.name).open("rb") as file:
            for record in read_records(file):
                yield decoded(record)


def decoded(record: bytes) -> dict[str, Feature]:
    [(_, _, features)] = wire.fields(record)
    found: dict[str, Feature] = {}
    for _, _, entry in wire.fields(wire.to_bytes(features)):
        (_, _, key), (_, _, feature) = wire.fields(wire.to_bytes(entry))
        [(kind, _, values)] = wire.fields(wire.to_bytes(feature))
        inner = [wire.to_bytes(value) for _, _, value in wire.fields(wire.to_bytes(values))]
        if kind == 1:
            found[wire.to_bytes(key).decode()] = tuple(inner)
        else:
            packed = inner[0] if inner else b""
            found[wire.to_bytes(key).decode()] = wire.unpack_floats(packed) if kind == 2 else wire.unpack_int64(packed)
    return found


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def small(dataset: Dataset, count: int = 12) -> DatasetRequest:
    for index in range(count):
        dataset.add(f"{index:02}.jpg", replace(GOOD, xmin=float(index)), data=picture((20 * index, 0, 0)))
    return DatasetRequest(dataset.images, None, dataset.out)


@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 7])
def test_as_many_training_shards_as_machines(dataset: Dataset, wanted: int) -> None:
    manifest = build_dataset(replace(small(dataset), train_shards=wanted))
    shards = [shard for shard in manifest.shards if shard.split == "train"]
    assert len(shards) >= min(wanted, manifest.images["train"])
    assert all(shard.examples for shard in shards)
    assert len([shard for shard in manifest.shards if shard.split == "eval"]) == 1


def test_every_key_of_an_example(dataset: Dataset) -> None:
    data = picture(kind="PNG")
    boxes = (Box("chat noir é", 25, 10, 50, 40, difficult=True, pose="Left"), Box("dog", 0, 0, 100, 50, truncated=True))
    dataset.add("sub/a.png", *boxes, data=data)
    dataset.add("b.jpg")
    manifest = build_dataset(DatasetRequest(dataset.images, None, dataset.out))
    by_name = {one["image/filename"][0]: one for one in examples(manifest)}
    assert list(by_name[b"a.png"]) == sorted(by_name[b"a.png"])
    assert by_name[b"a.png"] == {
        "image/encoded": (data,), "image/format": (b"png",), "image/width": (100,), "image/height": (50,),
        "image/filename": (b"a.png",), "image/source_id": (b"sub/a.png",),
        "image/key/sha256": (hashlib.sha256(data).hexdigest().encode(),),
        "image/object/bbox/xmin": (0.25, 0.0), "image/object/bbox/xmax": (0.5, 1.0),
        "image/object/bbox/ymin": (pytest.approx(0.2), 0.0), "image/object/bbox/ymax": (pytest.approx(0.8), 1.0),
        "image/object/class/text": ("chat noir é".encode(), b"dog"), "image/object/class/label": (1, 2),
        "image/object/difficult": (1, 0), "image/object/truncated": (0, 1),
        "image/object/view": (b"Left", b"Unspecified"),
    }
    assert by_name[b"b.jpg"]["image/object/bbox/xmin"] == by_name[b"b.jpg"]["image/object/class/text"] == ()


@pytest.fixture(scope="module")
def photographs(raccoon: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetManifest:
    """The dataset of 200 real photographs; tests only read it."""
    out = tmp_path_factory.mktemp("photographs")
    return build_dataset(DatasetRequest(raccoon / "images", raccoon / "annotations", out))


def test_real_photographs(raccoon: Path, photographs: DatasetManifest) -> None:
    manifest = photographs
    assert sum(manifest.images.values()) == 200
    assert manifest.boxes["train"]["raccoon"] + manifest.boxes["eval"]["raccoon"] == 217
    assert manifest.num_classes == 1
    assert {one.code for one in manifest.findings} == {"D107"}
    for example in examples(manifest):
        name = wire.to_bytes(example["image/filename"][0]).decode()
        truth = read_voc(raccoon / "annotations" / Path(name).with_suffix(".xml"))
        assert example["image/encoded"] == ((raccoon / "images" / name).read_bytes(),)
        assert example["image/object/bbox/xmax"] == pytest.approx([box.xmax / truth.width for box in truth.boxes])


def test_the_same_input_gives_the_same_bytes_wherever_it_lies(
    raccoon: Path, photographs: DatasetManifest, tmp_path: Path,
) -> None:
    copy = tmp_path / "another place"
    for kind in ("images", "annotations"):
        shutil.copytree(raccoon / kind, copy / kind, copy_function=shutil.copy)
    for path in copy.rglob("*.jpg"):
        os.utime(path, (1, 1))
    build_dataset(DatasetRequest(copy / "images", copy / "annotations", tmp_path / "out"))
    assert sums(tmp_path / "out") == sums(photographs.folder)
    assert "manifest.json" in sums(photographs.folder)


def test_the_bytes_are_those_of_every_other_machine(photographs: DatasetManifest) -> None:
    assert sums(photographs.folder) == {
        "train-00000-of-00001.tfrecord": "0c4a3988fff0ec07ed769f33dcba107d8655d47dd41a062ce750fa6032ca1ca6",
        "eval-00000-of-00001.tfrecord": "c9d15a2e8892e189e37a891cccf399faab9042db2c6b1eaaad1db46a512592d4",
        "label_map.pbtxt": "e394ce7a0c5a8cf8986e41f8993c507f93807b0cb64103df6c1012a593ae332d",
        "manifest.json": "021159170265331d4002bc74576a10dda3ebdab93f21ad9655474b96219f411a",
    }, "other bytes for the same input: raise FORMAT_VERSION in gcpod/data/plan.py and take these sums anew"


def test_shards_and_manifest(dataset: Dataset) -> None:
    request = replace(small(dataset), shard_bytes=5000)
    manifest = build_dataset(request)
    names = [shard.name for shard in manifest.shards if shard.split == "train"]
    assert len(names) > 1
    assert names == [f"train-{index:05}-of-{len(names):05}.tfrecord" for index in range(len(names))]
    assert all(shard.size_bytes < 6000 for shard in manifest.shards)
    assert sum(shard.examples for shard in manifest.shards) == 12
    assert all(file_crc32c(path) for path in manifest.shard_paths("eval"))
    assert read_manifest(dataset.out) == manifest
    assert intact(manifest)
    written = {path.name for path in dataset.out.iterdir()}
    assert written == {*(one.name for one in manifest.shards), "label_map.pbtxt", "manifest.json"}
    assert manifest.read_label_map() == LabelMap.impose(["cat"])


def test_a_second_build_returns_at_once_and_mends_what_is_broken(dataset: Dataset) -> None:
    request = small(dataset)
    manifest = build_dataset(request)
    shard = manifest.shard_paths("train")[0]
    good = shard.read_bytes()
    phases: list[str] = []
    again = build_dataset(request, lambda phase, _done, _all: phases.append(phase))
    assert again == manifest
    assert set(phases) == {"check"}
    for broken in (good[:-1] + b"x", good[:-1]):
        shard.write_bytes(broken)
        assert not intact(manifest)
        assert build_dataset(request) == manifest
        assert shard.read_bytes() == good
    (dataset.out / "label_map.pbtxt").unlink()
    build_dataset(request)
    assert manifest.read_label_map().names == ("cat",)


def test_changed_input_builds_anew_and_old_shards_go(dataset: Dataset) -> None:
    request = small(dataset)
    many = build_dataset(replace(request, shard_bytes=1))
    assert len(many.shards) == 12
    dataset.add("new.jpg", Box("dog", 1, 1, 9, 9), data=picture((0, 99, 0)))
    new = build_dataset(request)
    assert new.digest != many.digest
    assert len(list(dataset.out.glob("*.tfrecord"))) == len(new.shards) == 2
    assert new.num_classes == 2


def test_an_interrupted_build_redoes_only_what_is_missing(dataset: Dataset) -> None:
    request = replace(small(dataset), shard_examples=3)
    whole = build_dataset(replace(request, out=dataset.folder / "whole"))

    def interrupt(phase: str, done: int, _all: int) -> None:
        if (phase, done) == ("write", 8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_dataset(request, interrupt)
    [aside] = (dataset.out / ".building").iterdir()
    names = [shard.name for shard in whole.shards]
    left = {path.name for path in aside.iterdir()}
    assert left == {f"{name}{end}" for name in names[:2] for end in ("", ".json")}
    kept = aside / names[0]
    inode = kept.stat().st_ino
    (aside / names[1]).write_bytes(b"damaged meanwhile")
    (aside.parent / "of another plan").mkdir()
    ticks: list[int] = []
    again = build_dataset(request, lambda phase, done, _: ticks.append(done) if phase == "write" else None)
    assert again.shards == whole.shards
    assert ticks[0] == 3
    assert (dataset.out / names[0]).stat().st_ino == inode
    assert sums(dataset.out) == sums(dataset.folder / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
from gcpod.data.build import DatasetRequest, build_dataset

def die(phase, done, whole):
    if (phase, done) == ("write", 8):
        os.kill(os.getpid(), signal.SIGKILL)

images, out = map(Path, sys.argv[1:])
build_dataset(DatasetRequest(images, None, out, shard_examples=3), die)
"""


def test_a_killed_build_leaves_no_half_shard(dataset: Dataset) -> None:
    request = replace(small(dataset), shard_examples=3)
    command = [sys.executable, "-c", KILLED, str(dataset.images), str(dataset.out)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [path.name for path in dataset.out.iterdir()] == [".building"]
    for path in dataset.out.rglob("*.tfrecord"):
        with path.open("rb") as file:
            assert len(list(read_records(file))) == 3
    ticks: list[int] = []
    manifest = build_dataset(request, lambda phase, done, _: ticks.append(done) if phase == "write" else None)
    assert ticks[0] >= 3
    assert intact(manifest)
    assert not (dataset.out / ".building").exists()


def test_shards_that_several_processes_write(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    request = replace(small(dataset), shard_examples=2)
    alone = build_dataset(request)
    monkeypatch.setattr(write, "_APART_BYTES", 0)
    ticks: list[int] = []
    out = dataset.folder / "together"
    with Crew(2, patience_s=0) as crew:
        found = check_dataset(request, crew=crew)
        plan = plan_checked(found, request)
        together = write_dataset(
            plan, FolderStore(out), out, lambda phase, done, _: ticks.append(done) if phase == "write" else None, crew,
        )
    assert together.shards == alone.shards
    assert sums(out) == sums(dataset.out)
    assert ticks == list(accumulate(shard.examples for shard in alone.shards))


def test_an_image_that_changed_is_told_by_whoever_writes_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write, "_APART_BYTES", 0)
    request = replace(small(dataset), shard_examples=2)
    plan = plan_checked(check_dataset(request), request)
    for path in dataset.images.glob("*.jpg"):
        path.write_bytes(b"other bytes")
    with Crew(1, patience_s=0) as crew, pytest.raises(DataError, match="it changed after it was checked"):
        write_dataset(plan, FolderStore(dataset.out), dataset.out, crew=crew)
    assert list(dataset.out.iterdir()) == []


def test_one_build_at_a_time(dataset: Dataset) -> None:
    request = small(dataset)

    def meddle(phase: str, done: int, _all: int) -> None:
        if (phase, done) == ("write", 1):
            with pytest.raises(DataError, match="another build is writing there"):
                build_dataset(request)

    assert intact(build_dataset(request, meddle))


def test_an_image_that_changes_meanwhile(dataset: Dataset) -> None:
    request = small(dataset)

    def spoil(phase: str, done: int, whole: int) -> None:
        if (phase, done) == ("check", whole):
            for path in dataset.images.glob("*.jpg"):
                path.write_bytes(picture((9, 9, 9)))

    with pytest.raises(DataError, match="changed after it was checked"):
        build_dataset(request, spoil)


def test_errors_carry_all_findings_and_write_nothing(dataset: Dataset) -> None:
    request = small(dataset)
    dataset.add("bad.jpg", Box("dgo", 1, 1, 9, 9), Box("cat", 5, 5, 5, 9))
    dataset.image("alone.jpg")
    with pytest.raises(DatasetError, match=r"D101: .*bad\.xml:14.*and 1 more errors") as caught:
        build_dataset(replace(request, labels=("cat", "dog")))
    assert [one.code for one in caught.value.findings] == ["D101", "D105", "D106"]
    assert caught.value.exit_code == DataError.exit_code
    assert not dataset.out.exists()


def test_imposed_label_maps(dataset: Dataset) -> None:
    request = small(dataset)
    assert build_dataset(replace(request, labels=("dog", "cat"))).num_classes == 2
    gaps = LabelMap((LabelItem(7, "/m/1", "cat"),))
    manifest = build_dataset(replace(request, labels=gaps))
    assert (manifest.num_classes, manifest.read_label_map()) == (7, gaps)
    assert {one["image/object/class/label"] for one in examples(manifest)} == {(7,)}


def test_a_given_split_is_kept(tmp_path: Path) -> None:
    draw_demo(tmp_path, train=7, eval=3)
    manifest = build_dataset(DatasetRequest(tmp_path / "images", tmp_path / "annotations", tmp_path / "out"))
    assert manifest.images == {"train": 7, "eval": 3}
    assert manifest.findings == ()
    names = [wire.to_bytes(value) for one in examples(manifest) for value in one["image/filename"]]
    assert [name[:4] for name in names] == [b"trai"] * 7 + [b"eval"] * 3


def test_nothing_to_build_from(dataset: Dataset) -> None:
    request = DatasetRequest(dataset.images, None, dataset.out)
    dataset.add("a.jpg")
    dataset.add("b.jpg")
    with pytest.raises(DataError, match="not one usable box"):
        build_dataset(request)
    shutil.rmtree(dataset.images)
    dataset.add("a.jpg", GOOD)
    with pytest.raises(DataError, match="only one distinct picture"):
        build_dataset(request)
    with pytest.raises(SpecError, match="eval fraction"):
        build_dataset(replace(small(dataset), eval_fraction=2))
    with pytest.raises(SpecError, match="0 bytes"):
        build_dataset(replace(request, shard_bytes=0))


def test_a_target_that_cannot_be_written(dataset: Dataset) -> None:
    dataset.out.write_text("a file", encoding="utf-8")
    with pytest.raises(DataError, match=r"writing the dataset to .*out"):
        build_dataset(small(dataset))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100000, '{"shards": [{}]}'])
def test_damaged_manifests(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no manifest of gcpod"):
        parse_manifest(text, tmp_path)


def test_a_manifest_cannot_name_files_elsewhere(dataset: Dataset) -> None:
    manifest = build_dataset(small(dataset))
    for evil in ("../x", "/etc/passwd", "", ".."):
        with pytest.raises(DataError, match="no manifest of gcpod"):
            parse_manifest(replace(manifest, label_map=evil).to_json(), dataset.out)


def test_the_demo_is_the_same_for_a_seed_and_fit_for_training(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        draw_demo(tmp_path / name, train=5, eval=2, seed=seed)
    one, two, three = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two", "three")
    )
    assert one == two
    assert one.keys() == three.keys()
    assert one != three
    for path in (tmp_path / "one").rglob("*.xml"):
        boxes = read_voc(path).boxes
        assert 1 <= len(boxes) <= 3
        assert all(36 <= box.xmax - box.xmin <= 72 and box.xmin > 0 and box.ymax < 160 for box in boxes)
    with pytest.raises(DataError, match="do not fit"):
        draw_demo(tmp_path, size=70)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.errors import GcpodError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
images, out = map(Path, sys.argv[1:])
try:
    build_dataset(DatasetRequest(images, None, out))
except GcpodError as err:
    print(err)
"""


def test_a_disk_that_takes_only_a_part_is_an_error(dataset: Dataset) -> None:
    small(dataset)
    command = [sys.executable, "-c", FULL_DISK, str(dataset.images), str(dataset.out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("E102: writing the dataset to ")
    assert not list(dataset.out.glob("*.tfrecord"))


SEEDED = """
import sys
from pathlib import Path
from gcpod.data.build import DatasetRequest, build_dataset
print(build_dataset(DatasetRequest(Path(sys.argv[1]), None, Path(sys.argv[2]))).digest)
"""


@pytest.mark.long
def test_the_digest_does_not_depend_on_how_python_hashes(dataset: Dataset) -> None:
    small(dataset)
    names = ("Cat", "cat", "Dog", "dog", "Cow", "cow", "Emu", "emu")
    dataset.add("many.jpg", *(Box(name, 1, 1, 9 + index, 9) for index, name in enumerate(names)))
    digests = set()
    for seed in "012":
        command = [sys.executable, "-c", SEEDED, str(dataset.images), str(dataset.folder / seed)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        digests.add(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    assert len(digests) == 1


def test_shards_that_a_killed_move_left_are_removed(dataset: Dataset) -> None:
    request = small(dataset)
    build_dataset(request)
    for name in ("train-00000-of-00004.tfrecord", "eval-00001-of-00009.tfrecord.gz"):
        (dataset.out / name).write_bytes(b"left")
    (dataset.out / "notes.tfrecord").write_bytes(b"mine")
    dataset.add("new.jpg", GOOD, data=picture((0, 99, 0)))
    manifest = build_dataset(request)
    assert {path.name for path in dataset.out.glob("*.tfrecord*")} == {
        "notes.tfrecord", *(shard.name for shard in manifest.shards),
    }
