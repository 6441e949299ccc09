"""The pipeline on Beam's own runner in this process gives the files of the built-in path, byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("apache_beam")

from apache_beam.internal.gcp import auth
from google.cloud import storage

from gcpod.beam.options import BeamOptions
from gcpod.beam.pipeline import build_with_beam, cleared
from gcpod.data.build import DatasetError, DatasetRequest, build_dataset
from gcpod.data.manifest import intact
from gcpod.data.model import Box
from gcpod.errors import DataError, JobFailedError, SpecError
from gcpod.localcloud.server import LocalCloud
from gcpod.spec import Policies
from tests.data.making import Dataset, picture

BOX = Box("cat", 10, 10, 50, 40)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


def mixed(dataset: Dataset, count: int = 90) -> DatasetRequest:
    """JPEG and PNG, in folders, one of them turned; a warning; more than one piece of work and more than one shard."""
    for index in range(count):
        kind, suffix = (("PNG", "png"), ("JPEG", "jpg"))[index % 2]
        data = picture((index, 250 - 2 * index, index * 37 % 256), kind=kind)
        dataset.add(f"{index % 3}/{index:02}.{suffix}", replace(BOX, xmin=float(index % 9)), data=data)
    dataset.add("wide.jpg", Box("dog", 1, 1, 120, 40), data=picture((250, 250, 9)))
    return DatasetRequest(dataset.images, None, dataset.out, shard_bytes=60_000)


def test_real_photographs_give_the_same_bytes(raccoon: Path, tmp_path: Path) -> None:
    request = DatasetRequest(raccoon / "images", raccoon / "annotations", tmp_path / "one", shard_bytes=8 << 20)
    manifest = build_dataset(request)
    by_beam = build_with_beam(request, str(tmp_path / "two"))
    assert sums(tmp_path / "one") == sums(tmp_path / "two")
    assert len(by_beam.shards) > 2
    assert by_beam == replace(manifest, folder=tmp_path / "two")
    assert intact(by_beam)


@pytest.mark.parametrize("more", [
    {}, {"max_side": 40, "verify": "decode"}, {"compression": "gzip", "near_duplicates": False},
    {"labels": ("dog", "cat"), "shard_examples": 7, "eval_fraction": 0.3},
])
def test_every_option_gives_the_same_bytes(more: dict[str, object], dataset: Dataset, tmp_path: Path) -> None:
    request = replace(mixed(dataset), **more)  # type: ignore[arg-type]
    build_dataset(request)
    build_with_beam(request, str(tmp_path / "two"))
    assert sums(dataset.out) == sums(tmp_path / "two")
    assert len(sums(dataset.out)) > 4


def test_masks_travel_with_their_boxes(dataset: Dataset, tmp_path: Path) -> None:
    outline = {"segmentation": [[10, 10, 50, 10, 50, 40]], "bbox": [10, 10, 40, 30], "category_id": 7, "iscrowd": 0}
    crowd = {"segmentation": {"size": [50, 100], "counts": [900, 600, 3500]}, "bbox": [18, 0, 12, 50], "iscrowd": 1}
    labels = tmp_path / "coco.json"
    labels.write_text(json.dumps({
        "images": [
            {"id": n, "file_name": dataset.image(f"{n}.jpg", picture((n * 28, 0, 0))).name, "width": 100, "height": 50}
            for n in range(9)
        ],
        "annotations": [
            {**more, "id": 2 * n + k, "image_id": n, "category_id": 7}
            for n in range(9) for k, more in enumerate((outline, crowd))
        ],
        "categories": [{"id": 7, "name": "cat"}],
    }), encoding="utf-8")
    request = DatasetRequest(dataset.images, labels, dataset.out, masks=True)
    assert build_dataset(request).num_classes == 7
    build_with_beam(request, str(tmp_path / "two"))
    assert sums(dataset.out) == sums(tmp_path / "two")


def test_records_are_read_where_they_lie(dataset: Dataset, tmp_path: Path) -> None:
    build_dataset(mixed(dataset, 20))
    request = DatasetRequest(dataset.out, None, tmp_path / "one", shard_examples=4)
    build_dataset(request)
    build_with_beam(request, str(tmp_path / "two"))
    assert sums(tmp_path / "one") == sums(tmp_path / "two")


def test_other_processes_give_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    build_dataset(mixed(dataset))
    code = f"""
from pathlib import Path
from gcpod.beam.options import BeamOptions
from gcpod.beam.pipeline import build_with_beam
from gcpod.data.build import DatasetRequest
if __name__ == "__main__":
    request = DatasetRequest(Path({str(dataset.images)!r}), None, Path("x"), shard_bytes=60_000)
    flags = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    build_with_beam(request, {str(tmp_path / "two")!r}, BeamOptions(extra=flags))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sums(dataset.out) == sums(tmp_path / "two")


def test_errors_carry_all_findings_and_write_nothing(dataset: Dataset, tmp_path: Path) -> None:
    request = mixed(dataset)
    dataset.add("bad.jpg", Box("dgo", 5, 5, 5, 9))
    dataset.image("broken.jpg", b"\xff\xd8\xff")
    dataset.xml("broken.xml", [BOX])
    (dataset.images / "0/00.xml").write_text("<annotation>", encoding="utf-8")
    with pytest.raises(DatasetError) as known:
        build_dataset(request)
    with pytest.raises(DatasetError) as caught:
        build_with_beam(request, str(tmp_path / "two"))
    assert caught.value.findings == known.value.findings
    assert str(caught.value) == str(known.value)
    assert {one.code for one in caught.value.findings} >= {"D104", "D105", "D106"}
    assert caught.value.exit_code == DataError.exit_code
    assert not (tmp_path / "two").exists()


def test_faults_of_the_plan_are_told_as_ever(dataset: Dataset, tmp_path: Path) -> None:
    request = mixed(dataset, 3)
    none_of_them = replace(request, labels=("cow",), policies=Policies(unknown_label="warn"))
    with pytest.raises(SpecError, match="eval fraction"):
        build_with_beam(replace(request, eval_fraction=2), str(tmp_path / "two"))
    with pytest.raises(DataError, match="not one usable box"):
        build_with_beam(none_of_them, str(tmp_path / "two"))
    assert not (tmp_path / "two").exists()


def test_a_second_build_mends_what_is_broken_and_old_shards_go(dataset: Dataset, tmp_path: Path) -> None:
    request, out = mixed(dataset), tmp_path / "two"
    first = build_with_beam(request, str(out))
    whole = sums(out)
    kept, broken = first.shard_paths("train")[:2]
    inode = kept.stat().st_ino
    broken.write_bytes(b"x" * broken.stat().st_size)
    (out / "label_map.pbtxt").unlink()
    assert build_with_beam(request, str(out)) == first
    assert sums(out) == whole
    assert kept.stat().st_ino == inode
    fewer = build_with_beam(replace(request, shard_bytes=1 << 20), str(out))
    assert set(sums(out)) == {*(shard.name for shard in fewer.shards), "label_map.pbtxt", "manifest.json"}
    assert intact(fewer)


def test_work_that_is_done_twice_changes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    request = mixed(dataset)
    build_dataset(request)
    build_with_beam(request, str(tmp_path / "two"), BeamOptions(extra=("--direct_runner_bundle_repeat=1",)))
    assert sums(dataset.out) == sums(tmp_path / "two")


def test_a_place_for_work_files_is_left_clean(dataset: Dataset, tmp_path: Path) -> None:
    temp = tmp_path / "work"
    temp.mkdir()
    build_with_beam(mixed(dataset), str(tmp_path / "two"), BeamOptions(temp_location=str(temp)))
    assert list(temp.iterdir()) == []


@pytest.mark.parametrize(("runner", "err", "stay"), [
    ("DirectRunner", KeyboardInterrupt, False), ("DataflowRunner", KeyboardInterrupt, True),
    ("DataflowRunner", JobFailedError, False),
])
def test_work_files_stay_only_for_a_job_that_goes_on_elsewhere(
    runner: str, err: type[BaseException], stay: bool, tmp_path: Path,
) -> None:
    raised = JobFailedError("a", "b", "c", "d") if err is JobFailedError else err()
    with pytest.raises(err), cleared(tmp_path.rmdir, BeamOptions(runner)):
        raise raised
    assert tmp_path.exists() == stay


def test_a_target_that_cannot_be_written(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "two").write_text("a file", encoding="utf-8")
    with pytest.raises(DataError, match=r"writing the dataset to .*it is a file"):
        build_with_beam(mixed(dataset, 3), str(tmp_path / "two"))
    with pytest.raises(JobFailedError, match=r"by a pipeline on DirectRunner: .*Not a directory"):
        build_with_beam(mixed(dataset, 3), str(tmp_path / "two" / "three"))


def test_images_beside_the_dataset_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    request = replace(mixed(dataset, 3), materialise=tmp_path / "m")
    with pytest.raises(SpecError, match="a pipeline does not write it"):
        build_with_beam(request, str(tmp_path / "two"))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[storage.Bucket]:
    with LocalCloud(tmp_path / "cloud") as cloud:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.url)
        # Credentials were looked for and there are none: Beam looks four times, for half a minute.
        monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
        client = storage.Client.create_anonymous_client()
        client.project = "p"
        made = client.create_bucket("cats-and-dogs")
        yield made
        client.close()


def test_images_and_dataset_in_cloud_storage(dataset: Dataset, bucket: storage.Bucket, tmp_path: Path) -> None:
    request = replace(mixed(dataset, 20), shard_bytes=20_000)
    build_dataset(request)
    labels = tmp_path / "labels"
    for path in sorted(dataset.images.rglob("*.*")):
        name = path.relative_to(dataset.images)
        if path.suffix == ".xml":
            (labels / name).parent.mkdir(parents=True, exist_ok=True)
            path.rename(labels / name)
        else:
            bucket.blob(f"in/{name}").upload_from_filename(path)
    bucket.blob("in/.hidden/a.jpg").upload_from_string(b"x")
    there = replace(request, images=labels, annotations=labels)
    options = BeamOptions(temp_location="gs://cats-and-dogs/tmp/")
    for _ in range(2):
        manifest = build_with_beam(there, "gs://cats-and-dogs/out/", options, images="gs://cats-and-dogs/in")
        found = {blob.name: blob.download_as_bytes() for blob in bucket.list_blobs() if blob.name[:3] != "in/"}
        assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == {
            f"out/{name}": digest for name, digest in sums(dataset.out).items()
        }
    assert len(manifest.shards) > 2
    bucket.blob("in/wide.jpg").delete()
    bucket.blob("in/wide.jpg").upload_from_string(b"GIF8")
    with pytest.raises(DatasetError, match=r"checking gs://cats-and-dogs/in, gs://cats-and-dogs/in/wide\.jpg"):
        build_with_beam(there, "gs://cats-and-dogs/out", options, images="gs://cats-and-dogs/in")
    with pytest.raises(DataError, match="no images"):
        build_with_beam(there, "gs://cats-and-dogs/out", options, images="gs://cats-and-dogs/nothing")


@pytest.mark.parametrize(("out", "images", "told"), [
    ("/data/out", "gs://b/in", "the dataset's folder is not in Cloud Storage"),
    ("gs://b/out", None, "the image folder is not in Cloud Storage"),
    ("gs://b/out", "gs://b/in", "give the folder or file of the annotations"),
    ("gs://b/out[1]", "gs://b/in", "takes its name for a pattern"),
])
def test_places_that_dataflow_cannot_reach(out: str, images: str | None, told: str, tmp_path: Path) -> None:
    options = BeamOptions(runner="DataflowRunner", project="p", region="r", temp_location="gs://b/t")
    with pytest.raises(SpecError, match=told):
        build_with_beam(DatasetRequest(tmp_path, None, tmp_path), out, options, images=images)


def test_a_runner_that_does_not_exist(dataset: Dataset, tmp_path: Path) -> None:
    options = BeamOptions(runner="NoRunner", temp_location=os.fspath(tmp_path / "t"), package="x.tar.gz")
    with pytest.raises(SpecError, match="NoRunner"):
        build_with_beam(mixed(dataset, 3), str(tmp_path / "two"), options)


def test_the_command_line(raccoon: Path, tmp_path: Path) -> None:
    source = ["--images", str(raccoon / "images"), "--annotations", str(raccoon / "annotations")]
    for out, more in (("here", []), ("beam", ["--runner", "DirectRunner"])):
        command = [sys.executable, "-m", "gcpod", "dataset", "build", *source, "--out", str(tmp_path / out), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert sums(tmp_path / "beam") == sums(tmp_path / "here")
    wrong = subprocess.run(
        [*command[:5], *source, "--to", "gs://b/x", "--runner", "DataflowRunner"], capture_output=True, text=True,
        check=False, cwd=tmp_path,
    )
    assert wrong.returncode == SpecError.exit_code
    assert "project and region and temp_location are missing" in wrong.stderr
