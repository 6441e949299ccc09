"""A module of the user's own in place of the trainer: what its job is given, and that it runs and finds its package."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from gcpod.cache import cache_dir
from gcpod.jobs.logs import LogReader
from gcpod.jobs.service import Jobs
from gcpod.jobs.watch import Watcher
from gcpod.localcloud.cloud import JobCloud
from gcpod.runtimes import find_runtime
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import PackagesSpec, RuntimeSpec, Spec
from gcpod.status import JobState
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.packaging.archives import write
from tests.runs import Told, make_run

LOOP = """
import argparse
import json
import sys

import my_loop
import object_detection
import tensorflow as tf
from my_loop.words import GREETING

parser = argparse.ArgumentParser()
for name in ("records", "labels", "config", "out", "root"):
    parser.add_argument(f"--{name}", required=True)
parser.add_argument("words", nargs="*")
options = parser.parse_args()


def text(uri):
    with tf.io.gfile.GFile(uri) as f:
        return f.read()


report = {
    "name": __name__, "greeting": GREETING, "package": my_loop.__file__, "words": options.words, "root": options.root,
    "records": sum(1 for _ in tf.data.TFRecordDataset(tf.io.gfile.glob(options.records))),
    "labels": text(options.labels), "config": text(options.config),
}
with tf.io.gfile.GFile(f"{options.out}/report.json", "w") as f:
    f.write(json.dumps(report))
"""
PACKAGE = {
    "pyproject.toml": '[project]\nname = "my-loop"\nversion = "1.0"\n',
    "src/my_loop/__init__.py": "", "src/my_loop/words.py": 'GREETING = "found by the job"\n',
    "src/my_loop/loop.py": LOOP,
}
ARGUMENTS = ("--records={data}/train-*", "--labels", "{label_map}", "--config={config}", "--out", "{model}",
             "--root={root}", "{data}{root}", "{kept} as {it} is", "it's $HOME; \"quoted\" ü")
TELLING = """#!/bin/sh
printf 'GOT %s\\n' "$@"
exec {python} "$@"
"""
"""An image's python that tells its arguments first."""


def own_spec(spec: Spec, *more: str) -> Spec:
    """The spec with the user's package, whose module and arguments are the training."""
    write(spec.folder / "own", PACKAGE)
    train = replace(spec.train, module="my_loop.loop", arguments=(*ARGUMENTS, *more))
    return replace(spec, packages=PackagesSpec(training="own"), train=train)


@contextmanager
def session_on(cloud: JobCloud, spec: Spec) -> Iterator[Session]:
    session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=spec.folder))
    yield session
    session.storage.close()


@pytest.fixture
def telling_cloud(tmp_path: Path, quick_python: Path) -> Iterator[JobCloud]:
    """A local cloud whose jobs log their arguments and then run the quick trainer."""
    program = tmp_path / "image" / "python"
    program.parent.mkdir()
    program.write_text(TELLING.format(python=quick_python))
    program.chmod(0o755)
    with JobCloud(tmp_path / "cloud", cache=tmp_path / "cache", environment_of=lambda *_: program) as cloud:
        yield cloud


def given(told: Told, kind: str) -> tuple[dict[str, list[str]], list[str]]:
    """The launcher's options, and the module's own arguments, that the process of a job was started with."""
    got = [line.removeprefix(f"{kind} GOT ") for line in told.logged if line.startswith(f"{kind} GOT ")]
    assert got[:2] == ["-m", "gcpod_launcher"]
    dashes = got.index("--")
    options: dict[str, list[str]] = {}
    for name, value in zip(got[2:dashes:2], got[3:dashes:2], strict=True):
        options.setdefault(name.removeprefix("--"), []).append(value)
    return options, got[dashes + 1:]


def test_the_job_is_given_the_module_its_package_and_filled_arguments(spec: Spec, telling_cloud: JobCloud) -> None:
    # The quick trainer looks for the run by the config's address.
    spec, told = own_spec(spec, "--pipeline_config_path={config}"), Told()
    with session_on(telling_cloud, spec) as session:
        result, objects = make_run(spec, session, told).start(), Objects(session)
        options, arguments = given(told, "train")
        assert (options["module"], options["role"]) == (["my_loop.loop"], ["train"])
        root, bucket = result.root, result.root.partition("/runs/")[0]
        data = arguments[2].removesuffix("/label_map.pbtxt")
        assert arguments == [
            f"--records={data}/train-*", "--labels", f"{data}/label_map.pbtxt", f"--config={root}/pipeline.config",
            "--out", f"{root}/model", f"--root={root}", f"{data}{root}", "{kept} as {it} is",
            "it's $HOME; \"quoted\" ü", f"--pipeline_config_path={root}/pipeline.config",
        ]
        assert data.startswith(f"{bucket}/datasets/")
        there = {info.uri.name.rpartition("/")[2] for info in objects.list(GcsUri.parse(data))}
        assert there >= {"label_map.pbtxt", "train-00000-of-00001.tfrecord"}
        [own] = [uri for uri in options["package"] if "/my_loop-" in uri]
        sent = objects.read(GcsUri.parse(own))
        assert sent is not None
        assert packed(sent.content, "my_loop/loop.py") == LOOP
    # Evaluation and export stay those of the Object Detection API, with the user's package on their path.
    assert {kind: given(told, kind)[0]["module"] for kind in ("eval", "export")} == {
        "eval": ["object_detection.model_main_tf2"], "export": ["object_detection.exporter_main_v2"],
    }
    assert all(own in given(told, kind)[0]["package"] for kind in ("eval", "export"))


def packed(sdist: bytes, name: str) -> str:
    """A module's text in a source distribution, below its one folder."""
    with tarfile.open(fileobj=io.BytesIO(sdist)) as tar:
        [member] = [one for one in tar.getnames() if one.partition("/")[2] == name]
        content = tar.extractfile(member)
        assert content is not None
        return content.read().decode()


def test_another_module_package_or_argument_is_another_run(spec: Spec, quick_cloud: JobCloud) -> None:
    own = own_spec(spec)
    with session_on(quick_cloud, spec) as session:
        def named(one: Spec) -> str:
            return make_run(one, session).inputs.prepare().run_id

        names = [named(one) for one in (
            spec, own, replace(own, train=replace(own.train, module="my_loop.words")),
            replace(own, train=replace(own.train, arguments=("--out={model}",))),
        )]
        write(spec.folder / "own", {"src/my_loop/words.py": 'GREETING = "another"\n'})
        assert len({*names, named(own)}) == 5


@pytest.mark.trainer
@pytest.mark.parametrize(("mode", "place"), [("container", "gcpod-packages-"), ("package", "site-packages")])
def test_the_module_runs_and_leaves_what_it_wrote(
    spec: Spec, tmp_path: Path, mode: Literal["container", "package"], place: str,
) -> None:
    image = f"local-docker.pkg.dev/p/gcpod/{find_runtime(spec.runtime.name).images['cpu']}:latest"
    spec = replace(own_spec(spec), runtime=RuntimeSpec(mode=mode, image=image))
    with JobCloud(tmp_path / "cloud", cache=cache_dir()) as cloud, session_on(cloud, spec) as session:
        run, objects = make_run(spec, session), Objects(session)
        prepared = run.upload()
        ended = Watcher(Jobs(session)).wait(run.submit("train").name)
        lines = [line.text for line in LogReader(session, ended.id).poll()]
        assert ended.state is JobState.SUCCEEDED, lines
        written = objects.read(prepared.layout.model / "report.json")
        assert written is not None
        report: dict[str, Any] = json.loads(written.content)
        assert (report["name"], report["greeting"]) == ("__main__", "found by the job")
        assert place in report["package"]
        root = str(prepared.layout.root)
        assert report["words"] == [f"{prepared.layout.data}{root}", "{kept} as {it} is", "it's $HOME; \"quoted\" ü"]
        assert (report["root"], report["records"]) == (root, prepared.manifest.images["train"])
        label_map = prepared.manifest.label_map_path.read_text(encoding="utf-8")
        assert (report["labels"], report["config"]) == (label_map, prepared.config)
        marker = objects.read(prepared.layout.marker(1))
        assert marker is not None
        assert json.loads(marker.content) == {"exit_code": 0}
