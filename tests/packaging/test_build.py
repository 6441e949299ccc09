from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from gcpod.cache import cache_dir
from gcpod.packaging.build import Packages, build_packages, ensure_packages
from gcpod.runtimes import find_runtime

RUNTIME = find_runtime("tf2.12")


def names(path: Path) -> set[str]:
    with tarfile.open(path) as tar:
        return {member.name.split("/", 1)[1] for member in tar}


def digests(packages: Packages) -> list[tuple[str, str]]:
    return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in packages.paths]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The packages of the runtime, from the sources of the package index (downloaded once, then cached)."""
    return build_packages(RUNTIME, "3.11", tmp_path_factory.mktemp("packages"), cache_dir())


def test_every_package_is_there_under_its_name(built: Packages) -> None:
    assert [path.name for path in built.paths[:2]] == ["object_detection-2.8.0.post1.tar.gz", "slim-2.8.0.post1.tar.gz"]
    assert built.pycocotools.name.startswith("pycocotools-2.0.11-cp311-cp311-manylinux")
    assert built.launcher.name == "gcpod_launcher-0.1.0.tar.gz"
    assert sorted(built.launcher.parent.iterdir()) == sorted(built.paths)


def test_building_again_elsewhere_gives_the_same_bytes(built: Packages, tmp_path: Path) -> None:
    out = tmp_path / "deeper" / "elsewhere"
    again = build_packages(RUNTIME, "3.11", out, cache_dir())
    assert digests(again) == digests(built)
    assert digests(build_packages(RUNTIME, "3.11", out, cache_dir())) == digests(built)


def test_object_detection_holds_what_a_job_imports_and_no_tests(built: Packages) -> None:
    found = names(built.object_detection)
    wanted = {"model_main_tf2.py", "exporter_main_v2.py", "model_lib_v2.py", "protos/pipeline_pb2.py"}
    assert {f"object_detection/{name}" for name in wanted} <= found
    assert [name for name in found if name.endswith((".ipynb", ".md", ".pyc", ".png"))] == []
    tests = {name for name in found if name.endswith(("_test.py", "_testdata.py"))}
    assert tests == set()


def test_slim_holds_nets_at_its_top(built: Packages) -> None:
    found = names(built.slim)
    assert {"nets/mobilenet_v1.py", "nets/mobilenet/mobilenet_v2.py", "setup.py", "PKG-INFO"} <= found
    assert {name.split("/")[0] for name in found if "/" in name} == {"nets", "datasets", "deployment", "preprocessing"}


def test_the_protobuf_modules_are_in_the_form_of_today(built: Packages) -> None:
    with tarfile.open(built.object_detection) as tar:
        texts = {m.name: f.read().decode() for m in tar if m.name.endswith("_pb2.py") and (f := tar.extractfile(m))}
    assert len(texts) > 30
    assert [name for name, text in texts.items() if "AddSerializedFile" not in text] == []
    assert [name for name, text in texts.items() if "serialized_pb=" in text] == []


def test_the_launcher_is_packed_whole(built: Packages) -> None:
    modules = {"__init__", "__main__", "compat", "evaluation", "packages"}
    assert names(built.launcher) == {"setup.py", "PKG-INFO", *(f"gcpod_launcher/{name}.py" for name in modules)}


def test_a_second_run_takes_them_from_the_cache(built: Packages, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    for name in (RUNTIME.object_detection.filename, built.pycocotools.name):
        (tmp_path / "downloads" / name).write_bytes((cache_dir() / "downloads" / name).read_bytes())
    first = ensure_packages(RUNTIME, "3.11", tmp_path)
    assert digests(first) == digests(built)
    stamps = [path.stat().st_mtime_ns for path in first.paths]
    assert ensure_packages(RUNTIME, "3.11", tmp_path) == first
    assert [path.stat().st_mtime_ns for path in first.paths] == stamps
    assert [path.name for path in (tmp_path / "packages").iterdir()] == [first.slim.parent.name]
