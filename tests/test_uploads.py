"""Records and packages in the bucket: once for all runs, whole whoever sends them, and where runs from before go on."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.checksums import file_crc32c
from gcpod.data.manifest import parse_manifest
from gcpod.errors import PackageError
from gcpod.localcloud.server import LocalCloud
from gcpod.packaging.build import Packages
from gcpod.prepare import Prepared, packages_digest, prepare
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.objects import Objects
from gcpod.textproto import parse
from gcpod.uploads import upload_run
from gcpod.uris import GcsUri
from tests.runs import small_spec
from tests.storage.faulty import Fault, Faulty, Request, StallBefore
from tests.storage.test_transfer_races import beside
from tests.waiting import until

UPLOADER = """
import pickle, sys
from pathlib import Path
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.storage.objects import Objects
from gcpod.uploads import upload_run
prepared = pickle.loads(Path(sys.argv[1]).read_bytes())
session = Session(resolve(prepared.spec, endpoint=sys.argv[2], environ={}, home=prepared.spec.folder))
upload_run(Objects(session), prepared, print)
"""


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Faulty]:
    with LocalCloud(tmp_path / "cloud") as cloud, Faulty(cloud.url) as running:
        yield running


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A spec over a few images of two classes."""
    return small_spec(tmp_path)


@pytest.fixture
def objects(proxy: Faulty, spec: Spec) -> Iterator[Objects]:
    session = Session(resolve(spec, endpoint=proxy.url, environ={}, home=spec.folder))
    made = Objects(session)
    made.ensure_bucket(session.settings.bucket_uri.bucket)
    yield made
    session.storage.close()


def prepared_of(spec: Spec, objects: Objects, rate: float = 0.08) -> Prepared:
    return prepare(replace(spec, train=replace(spec.train, learning_rate=rate)), objects.session.settings)


def upload(prepared: Prepared, objects: Objects) -> list[str]:
    said: list[str] = []
    upload_run(objects, prepared, said.append)
    return said


def sent(proxy: Faulty) -> list[str]:
    """Names of the objects that bytes were sent for, in their order."""
    return [one.name for one in proxy.log if one.operation in ("insert", "start")]


def in_bucket(prepared: Prepared, objects: Objects) -> dict[str, tuple[int, str]]:
    """Generation and checksum of every object in the bucket by its name."""
    bucket = GcsUri(prepared.layout.root.bucket)
    return {info.uri.name: (info.generation, info.crc32c) for info in objects.list(bucket)}


def check_shared(prepared: Prepared, objects: Objects) -> None:
    """In the folders of records and packages lie exactly the files of this machine, byte by byte."""
    manifest, layout = prepared.manifest, prepared.layout
    records = [*(manifest.folder / shard.name for shard in manifest.shards), manifest.label_map_path]
    for folder, paths in ((layout.data, records), (layout.packages, list(prepared.packages.paths))):
        there = {info.uri: info.crc32c for info in objects.list(folder)}
        assert there == {folder / path.name: file_crc32c(path) for path in paths}


def config_of(prepared: Prepared, objects: Objects) -> str:
    found = objects.read(prepared.layout.config)
    assert found is not None
    return found.content.decode()


def test_a_second_run_of_one_dataset_sends_no_records_and_no_packages(
    spec: Spec, objects: Objects, proxy: Faulty,
) -> None:
    first = prepared_of(spec, objects)
    upload(first, objects)
    check_shared(first, objects)
    before = in_bucket(first, objects)
    proxy.clear()
    second = prepared_of(spec, objects, rate=0.02)
    said = upload(second, objects)
    own = second.layout.root.prefix
    assert second.run_id != first.run_id
    assert (second.layout.data, second.layout.packages) == (first.layout.data, first.layout.packages)
    assert sorted(sent(proxy)) == [f"{own}manifest.json", f"{own}pipeline.config"]
    # A listing of each folder, and one of the manifest alone, for the generation that it replaces.
    assert proxy.count("list") == 4
    assert proxy.count("any") == 6
    assert before.items() <= in_bucket(first, objects).items()
    assert said == [
        f"uploaded 0 files (0.0 MB), {len(second.manifest.shards) + 1} were there: {second.layout.data}",
        f"uploaded 0 files (0.0 MB), {len(second.packages.paths)} were there: {second.layout.packages}",
        f"uploaded 1 files (0.0 MB), 0 were there: {second.layout.root}",
    ]


def test_config_requests_and_manifest_name_the_shared_folders(spec: Spec, objects: Objects) -> None:
    made = prepared_of(spec, objects)
    upload(made, objects)
    bucket = made.layout.bucket
    assert made.layout.data == bucket / "datasets" / made.manifest.digest
    config = parse(config_of(made, objects))
    assert config.text("train_input_reader.label_map_path") == str(made.layout.label_map)
    records = config.text("train_input_reader.tf_record_input_reader.input_path")
    assert records is not None
    assert records.startswith(f"{made.layout.data}/train-")
    told = json.dumps(made.request("train", objects.session.settings))
    assert f"{made.layout.packages}/object_detection-" in told
    assert "/data/" not in told
    written = objects.read(made.layout.manifest)
    assert written is not None
    content = json.loads(written.content)
    assert (content["data"], content["packages"]) == (str(made.layout.data), str(made.layout.packages))
    assert parse_manifest(written.content.decode(), made.manifest.folder) == made.manifest


def test_other_data_or_other_packages_lie_in_other_folders(spec: Spec, objects: Objects, tmp_path: Path) -> None:
    made = prepared_of(spec, objects)
    cats = prepared_of(replace(spec, data=replace(spec.data, aliases={"dog": "cat"})), objects)
    assert cats.layout.data != made.layout.data
    assert cats.layout.packages == made.layout.packages
    paths = [tmp_path / name for name in ("a-1.tar.gz", "b-1.tar.gz", "c.whl", "d-1.tar.gz", "a-2.tar.gz")]
    for path in paths:
        path.write_bytes(b"code")
    packages = Packages(*paths[:4])
    known = {packages_digest(packages), packages_digest(replace(packages, object_detection=paths[4])),
             packages_digest(replace(packages, training=paths[4]))}
    paths[1].write_bytes(b"edoc")
    assert len(known | {packages_digest(packages)}) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in known)
    paths[1].unlink()
    with pytest.raises(PackageError, match="b-1"):
        packages_digest(packages)


def test_a_shared_object_that_is_damaged_is_sent_anew(spec: Spec, objects: Objects, proxy: Faulty) -> None:
    made = prepared_of(spec, objects)
    upload(made, objects)
    objects.write(made.layout.label_map, b"half of")
    proxy.clear()
    upload(prepared_of(spec, objects, rate=0.02), objects)
    assert made.layout.label_map.name in sent(proxy)
    check_shared(made, objects)


def test_a_run_from_before_goes_on_and_what_its_jobs_read_stays(spec: Spec, objects: Objects, proxy: Faulty) -> None:
    made = prepared_of(spec, objects)
    root = made.layout.root
    old = {root / "data" / shard.name: (made.manifest.folder / shard.name).read_bytes()
           for shard in made.manifest.shards}
    old |= {root / "packages" / path.name: path.read_bytes() for path in made.packages.paths}
    for uri, content in old.items():
        objects.write(uri, content)
    objects.write(made.layout.config, made.config.replace(str(made.layout.data), str(root / "data")).encode())
    objects.write(made.layout.manifest, made.manifest.to_json().encode())
    proxy.clear()
    upload(made, objects)
    order = sent(proxy)
    # The config that names the new place is there no sooner than all that lies in that place.
    assert order[-2:] == [made.layout.config.name, made.layout.manifest.name]
    assert str(root / "data") not in config_of(made, objects)
    check_shared(made, objects)
    for uri, content in old.items():
        found = objects.read(uri)
        assert found is not None
        assert found.content == content


def test_two_who_upload_one_dataset_at_once_both_end_well(spec: Spec, objects: Objects, proxy: Faulty) -> None:
    first, second = prepared_of(spec, objects), prepared_of(spec, objects, rate=0.02)
    label_map = first.layout.label_map.name
    proxy.clear()
    proxy.spoil(Fault("insert", StallBefore(), name=label_map))
    with beside(lambda: upload(first, objects)):
        until(lambda: proxy.stalled == 1)
        # The second has listed before the first one's bytes are there, and is done before they arrive.
        upload(second, objects)
        check_shared(second, objects)
        proxy.release()
    refused = [one for one in proxy.log if one.name == label_map and one.status == 412]
    assert [one.operation for one in refused] == ["insert"]
    check_shared(first, objects)
    manifests = [objects.exists(one.layout.manifest) for one in (first, second)]
    assert manifests == [True, True]


@pytest.mark.long
def test_two_processes_upload_one_dataset_at_once(
    spec: Spec, objects: Objects, proxy: Faulty, tmp_path: Path,
) -> None:
    both = [prepared_of(spec, objects, rate) for rate in (0.08, 0.02)]
    proxy.clear()
    proxy.spoil(Fault("insert", StallBefore(), name=f"{both[0].layout.data.prefix}label_map.pbtxt", times=2))
    processes = []
    for number, made in enumerate(both):
        kept = tmp_path / f"{number}.pickle"
        kept.write_bytes(pickle.dumps(made))
        processes.append(subprocess.Popen(
            [sys.executable, "-c", UPLOADER, str(kept), proxy.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ))
    try:
        until(lambda: proxy.stalled == 2, seconds=60)
        proxy.release()
        said = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], said
    assert [len(text.splitlines()) for text, _ in said] == [3, 3], said
    for made in both:
        check_shared(made, objects)
        assert objects.exists(made.layout.manifest)
    assert refusals(proxy.log)


def refusals(log: list[Request]) -> bool:
    """Whether the two met: each object was made once, and somebody was told that it was there."""
    made = [one.name for one in log if one.operation == "insert" and one.status == 200]
    return len(made) == len(set(made)) and any(one.status == 412 for one in log)
