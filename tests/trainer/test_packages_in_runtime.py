"""The packages and the records as the real trainer takes them: its entry points import, its decoder reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gcpod.cache import cache_dir
from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.data.demo import draw_demo
from gcpod.data.formats.voc import read_voc
from gcpod.errors import ChecksFailedError
from gcpod.jobs.logs import LogReader
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import Watcher
from gcpod.localcloud.cloud import JobCloud
from gcpod.packaging.build import Packages, build_packages
from gcpod.packaging.check import ENTRIES, Mode, check_packages
from gcpod.packaging.protos import SUFFIX, modernise
from gcpod.packaging.sdist import Sdist, pack
from gcpod.runtimes import find_runtime
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.status import JobState
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.packaging.archives import write
from tests.packaging.checkout import make_checkout, pinned_trees
from tests.packaging.conftest import descriptor_in

from .conftest import Trainer

RUNTIME = find_runtime("tf2.12")

IMPORT = """
import importlib
module = importlib.import_module("object_detection." + Path(sys.argv[3]).name)
import nets.mobilenet.mobilenet_v2
print("FOUND " + json.dumps([module.__file__, nets.mobilenet.mobilenet_v2.__file__]))
"""

TRAINING = {"pyproject.toml": '[project]\nname = "my-trainer"\nversion = "1.0"\ndependencies = ["tensorflow>=2.10"]\n',
            "src/my_trainer/__init__.py": "import nets, object_detection\n",
            "src/my_trainer/task.py": "print('found by the job')\n"}


@pytest.fixture(scope="module")
def own_packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Everything from a checkout, with a package of the user's own."""
    folder = tmp_path_factory.mktemp("own")
    trees = pinned_trees()
    modules = {path: modernise(data.decode(), path) for path, data in trees["object_detection"].items()
               if path.endswith(SUFFIX)}
    make_checkout(folder / "models", {path: descriptor_in(text) for path, text in modules.items()}, trees)
    write(folder / "project", TRAINING)
    return build_packages(RUNTIME, "3.11", folder / "out", cache_dir(), source=folder / "models",
                          training=folder / "project")


@pytest.mark.trainer
@pytest.mark.parametrize("mode", ["container", "package"])
def test_packages_of_a_checkout_have_no_findings(own_packages: Packages, runtime_python: Path, mode: Mode) -> None:
    assert check_packages(own_packages, RUNTIME, runtime_python, "3.11", mode) == []


@pytest.mark.trainer
def test_old_generated_modules_are_k303_in_the_real_runtime(
    own_packages: Packages, runtime_python: Path, tmp_path: Path,
) -> None:
    old = Sdist("object_detection", "1.0", pinned_trees()["object_detection"])
    (tmp_path / old.filename).write_bytes(pack(old))
    built = replace(own_packages, object_detection=tmp_path / old.filename, training=None)
    found = check_packages(built, RUNTIME, runtime_python, "3.11", "container", entries=ENTRIES[:1])
    assert {finding.code for finding in found} == {"K303"}
    assert "Descriptors cannot be created directly" in found[0].found


@pytest.mark.trainer
def test_the_command_says_that_all_is_well(gcpod: Any, tmp_path: Path) -> None:
    write(tmp_path, {"gcpod.yaml": "packages:\n  training: own\n", **{f"own/{p}": t for p, t in TRAINING.items()}})
    assert gcpod("package", "check", "--json").json == []
    wrong = TRAINING["pyproject.toml"].replace(">=2.10", ">=2.16")
    write(tmp_path / "own", {"pyproject.toml": wrong})
    done = gcpod("package", "check")
    assert (done.code, done.out.count("K304")) == (ChecksFailedError.exit_code, 1)


@pytest.mark.trainer
def test_jobs_of_both_modes_import_packages_whose_names_carry_digests(
    own_packages: Packages, runtime_python: Path, tmp_path: Path,
) -> None:
    image = f"local-docker.pkg.dev/p/gcpod/{RUNTIME.images['cpu']}:latest"
    launcher = ["--module", "my_trainer.task"]
    with JobCloud(tmp_path / "cloud", cache=cache_dir(), environment_of=lambda *_: runtime_python) as cloud:
        session = Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=Path()))
        objects, jobs = Objects(session), Jobs(session)
        objects.ensure_bucket("bench")
        uris = {path: GcsUri("bench", f"packages/{path.name}") for path in own_packages.paths}
        for path, uri in uris.items():
            objects.write(uri, path.read_bytes())
        fetched = [part for path in own_packages.for_image for part in ("--package", str(uris[path]))]
        pools: list[dict[str, Any]] = [
            {"containerSpec": {"imageUri": image, "command": ["python", "-m", "gcpod_launcher"],
                               "args": [*fetched, *launcher]}},
            {"pythonPackageSpec": {"executorImageUri": image, "packageUris": list(map(str, uris.values())),
                                   "pythonModule": "gcpod_launcher.__main__", "args": launcher}},
        ]
        for pool in pools:
            pool |= {"machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1"}
            info = jobs.create({"displayName": "import", "jobSpec": {"workerPoolSpecs": [pool]}})
            ended = Watcher(jobs).wait(info.name)
            lines = [line.text for line in LogReader(session, info.id).poll()]
            assert (ended.state, "found by the job" in lines) == (JobState.SUCCEEDED, True), lines
        session.storage.close()


DECODE = """
import tensorflow as tf
from object_detection.core import standard_fields
from object_detection.data_decoders.tf_example_decoder import TfExampleDecoder
field = standard_fields.InputDataFields
decoder = TfExampleDecoder(label_map_proto_file=sys.argv[3])
found = {}
for record in tf.data.TFRecordDataset(sys.argv[4:]):
    read = decoder.decode(record)
    found[read[field.source_id].numpy().decode()] = {
        "boxes": read[field.groundtruth_boxes].numpy().tolist(),
        "classes": read[field.groundtruth_classes].numpy().tolist(),
        "image": read[field.image].shape.as_list(),
        "difficult": read[field.groundtruth_difficult].numpy().tolist(),
    }
print("FOUND " + json.dumps(found))
"""


@pytest.mark.trainer
@pytest.mark.parametrize("name", ["model_main_tf2", "exporter_main_v2"])
def test_the_entry_points_import_from_the_packages(trainer: Trainer, tmp_path: Path, name: str) -> None:
    found: Any = trainer(tmp_path / "unpacked", IMPORT, Path(name))
    assert [Path(file).name for file in found] == [f"{name}.py", "mobilenet_v2.py"]
    assert all(Path(file).is_relative_to(tmp_path) for file in found)


@pytest.mark.trainer
def test_the_apis_own_decoder_reads_the_records(trainer: Trainer, tmp_path: Path) -> None:
    draw_demo(tmp_path, train=12, eval=4)
    images, annotations = tmp_path / "images", tmp_path / "annotations"
    manifest = build_dataset(DatasetRequest(images, annotations, tmp_path / "out"))
    shards = [path for split in ("train", "eval") for path in manifest.shard_paths(split)]
    found: Any = trainer(tmp_path / "unpacked", DECODE, tmp_path / "out" / manifest.label_map, *shards)
    ids = manifest.read_label_map().ids()
    assert len(found) == 16
    for name, example in found.items():
        truth = read_voc((annotations / name).with_suffix(".xml"))
        width, height = truth.width, truth.height
        expected = [[b.ymin / height, b.xmin / width, b.ymax / height, b.xmax / width] for b in truth.boxes]
        assert len(example["boxes"]) == len(expected) > 0
        for box, wanted in zip(example["boxes"], expected, strict=True):
            assert box == pytest.approx(wanted, abs=1e-6)
        assert example["classes"] == [ids[box.label] for box in truth.boxes]
        assert example["difficult"] == [box.difficult for box in truth.boxes]
        assert example["image"] == [height, width, 3]
