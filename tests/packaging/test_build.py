from __future__ import annotations

import hashlib
import os
import re
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gcpod.cache import cache_dir
from gcpod.packaging.build import Packages, build_packages, ensure_packages, sources_digest
from gcpod.packaging.kept import UNUSED_S
from gcpod.runtimes import LAUNCHER, Runtime, Source, find_runtime

from .archives import archive, write
from .conftest import Checkout

RUNTIME = find_runtime("tf2.12")


def names(path: Path) -> set[str]:
    with tarfile.open(path) as tar:
        return {member.name.split("/", 1)[1] for member in tar}


def digests(packages: Packages) -> list[tuple[str, str]]:
    return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in packages.paths]


SOURCE = {
    "object_detection/__init__.py": "", "slim/nets/__init__.py": "",
    "object_detection/packages/tf1/setup.py": "setup(version='0.1')",
    "object_detection/packages/tf2/setup.py": "setup(version='0.2')",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The packages of the runtime, from the sources of the package index (downloaded once, then cached)."""
    return build_packages(RUNTIME, "3.11", tmp_path_factory.mktemp("packages"), cache_dir())


@dataclass(frozen=True)
class Small:
    """A runtime whose pinned archive holds little, and a cache of the test's own where it was downloaded."""

    runtime: Runtime
    cache: Path


@pytest.fixture
def small(built: Packages, tmp_path: Path) -> Small:
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / built.pycocotools.name).symlink_to(built.pycocotools)
    path = archive(downloads / "od-3.tar.gz", *((f"od-3/{name}", text.encode()) for name, text in SOURCE.items()))
    source = Source("od==3", path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    return Small(replace(RUNTIME, object_detection=source), tmp_path / "cache")


def test_every_package_is_there_under_its_name(built: Packages) -> None:
    ours = [path.name for path in (built.object_detection, built.slim, built.launcher)]
    bare = ["object_detection-2.8.0.post1+g", "slim-2.8.0.post1+g", "gcpod_launcher-0.1.0+g"]
    assert [re.sub(r"[0-9a-f]{12}\.tar\.gz$", "", name) for name in ours] == bare
    assert built.pycocotools.name.startswith("pycocotools-2.0.11-cp311-cp311-manylinux")
    assert sorted(built.launcher.parent.iterdir()) == sorted(built.paths)
    assert built.for_image == (built.object_detection, built.slim)


def test_building_again_elsewhere_gives_the_same_bytes(built: Packages, tmp_path: Path) -> None:
    again = build_packages(RUNTIME, "3.11", tmp_path / "deeper" / "elsewhere", cache_dir())
    assert digests(again) == digests(built)


def test_building_again_in_one_place_replaces_what_is_there(small: Small, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = digests(build_packages(small.runtime, "3.11", out, small.cache))
    for path in out.iterdir():
        path.write_bytes(b"damaged")
    assert digests(build_packages(small.runtime, "3.11", out, small.cache)) == first


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


def test_a_checkout_gives_the_very_same_object_detection(built: Packages, checkout: Checkout, tmp_path: Path) -> None:
    own = build_packages(RUNTIME, "3.11", tmp_path, cache_dir(), source=checkout.models)
    assert digests(own)[0] == digests(built)[0]
    assert own.slim.name.startswith("slim-0.1+g")
    assert names(own.slim) == names(built.slim)


def test_where_a_module_and_its_proto_are_there_the_proto_counts(tmp_path: Path) -> None:
    source = write(tmp_path / "research", {
        "object_detection/__init__.py": "", "slim/nets/__init__.py": "", "object_detection/protos/x_pb2.py": "stale",
        "object_detection/protos/x.proto": 'syntax = "proto2"; message X {}',
    })
    built = build_packages(RUNTIME, "3.11", tmp_path / "out", cache_dir(), source=source)
    with tarfile.open(built.object_detection) as tar:
        [text] = [f.read() for m in tar if m.name.endswith("x_pb2.py") and (f := tar.extractfile(m))]
    assert b"AddSerializedFile" in text
    assert not any(name.endswith(".proto") for name in names(built.object_detection))


PROJECT = {"pyproject.toml": '[project]\nname = "My-Trainer"\nversion = "1.0"\n', "my_trainer/__init__.py": "x = 1\n"}


def test_the_users_own_package_comes_last_and_into_images_too(small: Small, tmp_path: Path) -> None:
    project = write(tmp_path / "project", PROJECT)
    without = build_packages(small.runtime, "3.11", tmp_path / "without", small.cache)
    own = build_packages(small.runtime, "3.11", tmp_path / "own", small.cache, training=project)
    assert own.training is not None
    assert re.fullmatch(r"my_trainer-1\.0\+g[0-9a-f]{12}\.tar\.gz", own.training.name)
    assert own.paths[-1] == own.for_image[-1] == own.training
    assert digests(own)[:-1] == digests(without)
    assert names(own.training) == {"my_trainer/__init__.py", "setup.py", "PKG-INFO"}


def test_a_changed_package_gets_another_name_and_an_unchanged_one_is_not_built_again(
    small: Small, tmp_path: Path,
) -> None:
    project = write(tmp_path / "project", PROJECT)
    first = ensure_packages(small.runtime, "3.11", small.cache, training=project)
    before = sources_digest(None, project)
    os.utime(project / "my_trainer" / "__init__.py", (0, 0))
    assert ensure_packages(small.runtime, "3.11", small.cache, training=project) == first
    (project / "my_trainer" / "__init__.py").write_text("x = 2\n")
    second = ensure_packages(small.runtime, "3.11", small.cache, training=project)
    assert first.training is not None
    assert second.training is not None
    assert first.training.name != second.training.name
    assert [path.name for path in first.paths[:-1]] == [path.name for path in second.paths[:-1]]
    assert sources_digest(None, project) != before
    assert ensure_packages(small.runtime, "3.11", small.cache).training is None


FIRST = "object_detection.legacy.train"


def test_the_entry_point_chooses_the_setup_of_a_checkout(built: Packages, checkout: Checkout, tmp_path: Path) -> None:
    own = build_packages(RUNTIME, "3.11", tmp_path, cache_dir(), source=checkout.models, entry=FIRST)
    assert own.object_detection.name.startswith("object_detection-0.1+g")
    assert names(own.object_detection) == names(built.object_detection)


@pytest.mark.parametrize("pinned", [True, False])
def test_packages_of_another_entry_point_are_other_ones_in_the_cache(
    small: Small, tmp_path: Path, pinned: bool,
) -> None:
    source = None if pinned else write(tmp_path / "research", SOURCE)
    entries = ("object_detection.model_main_tf2", FIRST, "object_detection.model_main", "mine.task")
    made = [ensure_packages(small.runtime, "3.11", small.cache, source=source, entry=entry) for entry in entries]
    versions = [packages.object_detection.name.split("-")[1].split("+")[0] for packages in made]
    assert versions == ["0.2", "0.1", "0.1", "0.2"]
    assert (made[0], made[1]) == (made[3], made[2])


def test_the_digest_of_what_the_user_brings(checkout: Checkout, tmp_path: Path) -> None:
    project = write(tmp_path, PROJECT)
    seen = {sources_digest(None, None), sources_digest(checkout.models, None), sources_digest(None, project),
            sources_digest(checkout.models, project)}
    assert len(seen) == 4
    assert sources_digest(None, None) == ""
    assert sources_digest(checkout.research, None) in seen


def test_the_launcher_is_packed_whole(built: Packages) -> None:
    modules = {path.relative_to(LAUNCHER).as_posix() for path in LAUNCHER.rglob("*.py")}
    assert names(built.launcher) == {"setup.py", "PKG-INFO", *modules}


def test_a_second_run_takes_them_from_the_cache(small: Small, tmp_path: Path) -> None:
    first = ensure_packages(small.runtime, "3.11", small.cache)
    assert digests(first) == digests(build_packages(small.runtime, "3.11", tmp_path / "out", small.cache))
    stamps = [path.stat().st_mtime_ns for path in first.paths]
    assert ensure_packages(small.runtime, "3.11", small.cache) == first
    assert [path.stat().st_mtime_ns for path in first.paths] == stamps
    assert [path.name for path in (small.cache / "packages").iterdir()] == [first.slim.parent.name]


def test_packages_that_were_not_used_for_long_go_when_others_are_built(small: Small, tmp_path: Path) -> None:
    project = write(tmp_path / "project", PROJECT)
    ensure_packages(small.runtime, "3.11", small.cache, clock=lambda: 1e9)
    later = 1e9 + UNUSED_S + 1
    own = ensure_packages(small.runtime, "3.11", small.cache, training=project, clock=lambda: later)
    assert [path.name for path in (small.cache / "packages").iterdir()] == [own.slim.parent.name]
