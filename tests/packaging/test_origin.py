from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from gcpod.cache import cache_dir
from gcpod.errors import PackageError
from gcpod.packaging.origin import Sources, read_sources, setup_of
from gcpod.packaging.source import fetch_source
from gcpod.runtimes import find_runtime

from .archives import archive, write
from .checkout import NOISE
from .conftest import Checkout

SMALL = {
    "object_detection/__init__.py": "", "object_detection/model_main_tf2.py": "x = 1\n", "slim/nets/__init__.py": "",
    "object_detection/packages/tf1/setup.py": "setup(version='0.1')",
    "object_detection/packages/tf2/setup.py":
        "from setuptools import setup\nsetup(name='object_detection', version='0.2')",
    "slim/setup.py": "import setuptools\nsetuptools.setup(version='0.3.0', name='slim')",
}


@pytest.fixture(scope="module")
def sources(checkout: Checkout) -> Sources:
    return read_sources(checkout.research)


def tree_digest(folder: Path) -> str:
    """Of all paths, contents, modes and times."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"{path} {status.st_mode} {status.st_mtime_ns} {status.st_ino}".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def test_a_checkout_is_read_from_its_top_or_its_research_folder_and_never_written(
    checkout: Checkout, sources: Sources,
) -> None:
    before = tree_digest(checkout.models)
    assert read_sources(checkout.models) == read_sources(checkout.research) == sources
    assert tree_digest(checkout.models) == before


def test_what_no_job_imports_is_left_out(checkout: Checkout, sources: Sources) -> None:
    packed = {*sources.object_detection, *(f"slim/{path}" for path in sources.slim)}
    assert all((checkout.research / path).is_file() for path in (*NOISE, *packed))
    assert packed.isdisjoint(NOISE)
    assert not any(path.startswith("object_detection/packages/") for path in packed)
    assert {path.split("/")[0] for path in sources.slim} == {"nets", "datasets", "deployment", "preprocessing"}


def test_a_release_and_a_checkout_are_the_same(checkout: Checkout, sources: Sources, tmp_path: Path) -> None:
    path = tmp_path / "models-9.9.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(checkout.models, "models-9.9.0")
    assert read_sources(path) == sources
    assert read_sources(path).digest == sources.digest
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_pinned_archive_holds_what_the_checkout_was_made_of(sources: Sources) -> None:
    pinned = read_sources(fetch_source(find_runtime("tf2.12").object_detection, cache_dir()))
    assert pinned.slim == sources.slim
    assert {path for path in pinned.object_detection if not path.endswith("_pb2.py")} == {
        path for path in sources.object_detection if not path.endswith(".proto")
    }
    assert pinned.version == pinned.slim_version == sources.version == "2.8.0.post1"
    assert sources.slim_version == "0.1"


def test_an_sdist_of_object_detection_tells_its_version(tmp_path: Path) -> None:
    path = archive(tmp_path / "od.tar.gz", ("od-1/object_detection/x.py", b"1"), ("od-1/slim/nets/y.py", b"2"),
                   ("od-1/PKG-INFO", b"Metadata-Version: 2.1\nName: od\nVersion: 1.0-1\n"))
    assert read_sources(path) == Sources({"object_detection/x.py": b"1"}, {"nets/y.py": b"2"}, "1.0.post1", "1.0.post1")


def test_where_the_folder_lies_and_who_made_it_plays_no_part(tmp_path: Path) -> None:
    digests = []
    for number, mask in enumerate((0o022, 0o077)):
        old = os.umask(mask)
        try:
            items = list(SMALL.items())
            root = write(tmp_path / f"place-{number}", dict(items if number else reversed(items)))
        finally:
            os.umask(old)
        for path in root.rglob("*"):
            os.utime(path, (number * 1e9, number * 1e9))
        digests.append(read_sources(root).digest)
    assert digests[0] == digests[1]
    (tmp_path / "place-1" / "object_detection" / "__init__.py").write_text(" ")
    assert read_sources(tmp_path / "place-1").digest != digests[0]


def test_the_setup_that_goes_with_the_entry_point_tells_the_version(tmp_path: Path) -> None:
    write(tmp_path, SMALL)
    for entry in ("model_main_tf2", "exporter_main_v2"):
        assert setup_of(f"object_detection.{entry}") == "object_detection/packages/tf2/setup.py"
        assert read_sources(tmp_path, f"object_detection.{entry}").version == "0.2"
    for entry in ("model_main", "model_tpu_main", "legacy.train", "legacy.eval", "export_inference_graph"):
        assert setup_of(f"object_detection.{entry}") == "object_detection/packages/tf1/setup.py"
        assert read_sources(tmp_path, f"object_detection.{entry}").version == "0.1"
    assert read_sources(tmp_path).slim_version == "0.3.0"


@pytest.mark.parametrize("text", ["setup(version=compute())", "def (", "", "setup(version='no version')", "(" * 9000])
def test_a_setup_that_tells_no_version_is_passed_over(tmp_path: Path, text: str) -> None:
    write(tmp_path, {**SMALL, "object_detection/packages/tf2/setup.py": text})
    assert read_sources(tmp_path).version == "0.1"


@pytest.mark.parametrize(("gone", "found"), [
    ("object_detection", "it holds no folder object_detection"), ("slim", "it holds no folder slim"),
    ("slim/nets", "it holds no modules in slim/nets"),
])
def test_a_source_that_lacks_a_part_is_refused(tmp_path: Path, gone: str, found: str) -> None:
    shutil.rmtree(write(tmp_path / "research", SMALL) / gone)
    with pytest.raises(PackageError) as caught:
        read_sources(tmp_path / "research")
    assert str(caught.value).startswith(f"K301: reading {tmp_path / 'research'}: {found}; give a tensorflow/models")
    members = [(f"t/{path}", text.encode()) for path, text in SMALL.items() if not path.startswith(f"{gone}/")]
    with pytest.raises(PackageError, match="K301"):
        read_sources(archive(tmp_path / "a.tar.gz", *members))


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no such file or folder"):
        read_sources(tmp_path / "absent")
    with pytest.raises(PackageError, match="E104: reading"):
        read_sources(write(tmp_path, {"a.zip": "PK"}) / "a.zip")


def test_a_checkout_whose_links_lead_out_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "research", SMALL)
    (tmp_path / "secret.py").write_text("x")
    (root / "object_detection" / "README.md").symlink_to(tmp_path / "secret.py")
    assert read_sources(root)
    (root / "object_detection" / "secret.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(PackageError, match=r"object_detection/secret.py: it is a link that leads out"):
        read_sources(root)
