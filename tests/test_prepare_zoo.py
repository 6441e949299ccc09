"""`fine_tune_checkpoint: zoo:NAME`: whole runs on a local cloud, the model served on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gcpod.cache import cache_dir
from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.errors import ConfigError, GcpodError, PackageError
from gcpod.jobs.service import Jobs
from gcpod.localcloud.cloud import JobCloud
from gcpod.naming import run_name
from gcpod.runner import Run
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import DataSpec, Spec
from gcpod.specfile import render_spec
from gcpod.storage.objects import Objects
from gcpod.textproto import Message, parse
from gcpod.uris import GcsUri
from tests.data.making import Dataset
from tests.models import TF1_FILES, TF1_NAME, TF2_FILES, TF2_NAME, Fault, FileServer, archive
from tests.runs import Told, blink

MODELS = GcsUri.parse(f"gs://local-project-gcpod/models/{TF2_NAME}")
CHECKPOINT = {
    name.removeprefix("checkpoint/"): content
    for name, content in TF2_FILES.items() if name.startswith("checkpoint/ckpt-0.")
}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(archive(TF2_FILES, TF2_NAME)) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache without models; packages are the real one's, which are costly to make."""
    real, own = cache_dir().absolute(), tmp_path / "users-cache"
    own.mkdir()
    for name in ("packages", "downloads", "tools"):
        (real / name).mkdir(parents=True, exist_ok=True)
        (own / name).symlink_to(real / name)
    monkeypatch.setenv("GCPOD_CACHE", str(own))
    return own


@pytest.fixture
def spec(tmp_path: Path, server: FileServer, cache: Path) -> Spec:
    """A spec over a few images that starts from the zoo's model."""
    data = Dataset(tmp_path)
    for number in range(8):
        data.add(f"picture{number}.jpg", Box("cat" if number % 2 else "dog", 10, 10, 60, 40))
    made = demo_spec(steps=100)
    model = replace(made.model, depth_multiplier=None, fine_tune_checkpoint=f"zoo:{TF2_NAME}", zoo_mirror=server.url)
    return replace(made, folder=tmp_path, data=DataSpec(images="images"), model=model)


@pytest.fixture
def session(quick_cloud: JobCloud, spec: Spec) -> Iterator[Session]:
    made = Session(resolve(spec, endpoint=quick_cloud.url, environ={}, home=spec.folder))
    yield made
    made.storage.close()


def with_model(spec: Spec, **values: Any) -> Spec:
    return replace(spec, model=replace(spec.model, **values))


def run_of(spec: Spec, session: Session, told: Told | None = None) -> Run:
    return Run(spec, session, told or Told(), sleep=blink)


def in_bucket(session: Session, folder: GcsUri) -> dict[str, tuple[int, bytes]]:
    """Generation and content of every object below a folder, by its name there."""
    objects, found = Objects(session), {}
    for info in objects.list(folder):
        content = objects.read(info.uri)
        assert content is not None
        found[info.uri.name.removeprefix(folder.prefix)] = (info.generation, content.content)
    return found


def config_in_bucket(session: Session, run: Run) -> Message:
    content = Objects(session).read(run.upload().layout.config)
    assert content is not None
    return parse(content.content.decode())


def test_a_run_fetches_the_model_once_and_every_run_shares_it(
    spec: Spec, session: Session, server: FileServer, cache: Path,
) -> None:
    told = Told()
    result = run_of(spec, session, told).start()
    assert set(result.jobs) == {"train", "eval", "export"}
    assert [asked.path for asked in server.asked] == [f"/{TF2_NAME}.tar.gz"]
    there = in_bucket(session, MODELS)
    assert {name: content for name, (_, content) in there.items()} == CHECKPOINT
    assert any(text.startswith(f"fetching {TF2_NAME}: 0.3 of 0.3 MB") for text in told.texts)
    assert any(text.startswith("model: uploaded 2 files (") and text.endswith(str(MODELS)) for text in told.texts)

    again, other = Told(), Told()
    assert run_of(spec, session, again).start().jobs == result.jobs
    longer = replace(spec, train=replace(spec.train, steps=200))
    assert run_of(longer, session, other).upload().run_id != result.run_id
    for said in (again, other):
        assert f"model: uploaded 0 files (0.0 MB), 2 were there: {MODELS}" in said.texts
    assert in_bucket(session, MODELS) == there
    assert len(server.asked) == 1
    assert (cache / "models" / TF2_NAME / "record.json").exists()


def test_the_trainer_reads_where_the_checkpoint_lies_and_of_which_kind_it_is(spec: Spec, session: Session) -> None:
    train = config_in_bucket(session, run_of(spec, session)).find("train_config")
    assert isinstance(train, Message)
    prefix = train.text("fine_tune_checkpoint")
    assert prefix == str(MODELS / "ckpt-0")
    assert train.text("fine_tune_checkpoint_type") == "detection"
    assert train.text("fine_tune_checkpoint_version") == "V2"
    objects = Objects(session)
    assert objects.exists(GcsUri.parse(f"{prefix}.index"))
    assert objects.exists(GcsUri.parse(f"{prefix}.data-00000-of-00001"))
    full = with_model(spec, fine_tune_checkpoint_type="full")
    assert config_in_bucket(session, run_of(full, session)).text("train_config.fine_tune_checkpoint_type") == "full"


def test_the_checkpoint_is_named_as_the_archive_has_it(spec: Spec, session: Session, server: FileServer) -> None:
    server.content = archive({name.replace("ckpt-0.", "ckpt-301."): content for name, content in TF2_FILES.items()})
    config = config_in_bucket(session, run_of(spec, session))
    assert config.text("train_config.fine_tune_checkpoint") == str(MODELS / "ckpt-301")
    assert set(in_bucket(session, MODELS)) == {name.replace("ckpt-0.", "ckpt-301.") for name in CHECKPOINT}


def test_a_fetch_that_breaks_off_goes_on_where_it_stopped(spec: Spec, session: Session, server: FileServer) -> None:
    server.faults = [Fault(503), Fault(after=100_000)]
    told = Told()
    run_of(spec, session, told).upload()
    assert len(server.asked) == 3
    assert server.asked[2].range is not None
    assert sum("trying again" in text for text in told.texts) == 2
    assert {name: content for name, (_, content) in in_bucket(session, MODELS).items()} == CHECKPOINT


def refusal(spec: Spec, session: Session) -> GcpodError:
    """How a run ends that must leave neither a job nor an object."""
    with pytest.raises(GcpodError) as caught:
        run_of(spec, session).start()
    assert "\n" not in str(caught.value)
    assert Jobs(session).list() == []
    assert in_bucket(session, GcsUri("local-project-gcpod")) == {}
    return caught.value


def test_nothing_is_sent_or_submitted_before_the_model_is_here(
    spec: Spec, session: Session, server: FileServer,
) -> None:
    server.faults = [Fault(404)]
    missing = refusal(spec, session)
    assert (type(missing), missing.code) == (PackageError, "M601")
    assert "model.zoo_mirror" in missing.fix
    server.content = archive(TF1_FILES, TF2_NAME)
    other = refusal(spec, session)
    assert (type(other), other.code) == (ConfigError, "C201")
    assert "version V1 in place of V2" in other.found


MISFITS: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"fine_tune_checkpoint": "zoo:ssd_mobilenet_v2_320x320"}, "E101", f"did you mean {TF2_NAME}"),
    ({"fine_tune_checkpoint": f"zoo:{TF1_NAME}"}, "C201", f"this template goes with zoo:{TF2_NAME}"),
    ({"template": "ssd_mobilenet_v2_fpnlite_320"}, "C201", "use model.template: ssd_mobilenet_v2 or ssd_mobilenet_v2_"),
    ({"template": "centernet_resnet50", "image_size": None}, "C201", "use model.template: ssd_mobilenet_v2 or "),
    ({"set": {"model.ssd.feature_extractor.type": "ssd_mobilenet_v1_keras"}}, "C201", "use model.template: "),
    ({"depth_multiplier": 0.35}, "C201", "leave model.depth_multiplier empty"),
    ({"zoo_mirror": "http://example.com"}, "M604", "https://"),
)
"""Changes of a spec that fits, the code of the refusal, and what its remedy says."""


def test_what_does_not_go_together_is_refused_before_anything_is_fetched(
    spec: Spec, session: Session, server: FileServer,
) -> None:
    for values, code, said in MISFITS:
        error = refusal(with_model(spec, **values), session)
        assert (error.code, said in error.fix) == (code, True), error
    assert server.asked == []


def test_the_name_of_a_run_follows_the_model_and_not_where_it_comes_from(spec: Spec, server: FileServer) -> None:
    name = run_name(spec, "digest")
    assert name == run_name(with_model(spec, zoo_mirror=None), "digest")
    assert name == run_name(with_model(spec, fine_tune_checkpoint_type="detection"), "digest")
    others = [with_model(spec, fine_tune_checkpoint=None), with_model(spec, fine_tune_checkpoint_type="full"),
              with_model(spec, fine_tune_checkpoint=f"zoo:{TF1_NAME}")]
    assert len({name, *(run_name(other, "digest") for other in others)}) == 4
    assert server.asked == []


def test_check_and_dry_run_say_what_would_be_fetched_and_fetch_nothing(
    spec: Spec, server: FileServer, cache: Path, gcpod: Any,
) -> None:
    path = spec.folder / "gcpod.yaml"
    path.write_text(render_spec(spec), encoding="utf-8")
    address = f"{server.url}/{TF2_NAME}.tar.gz"
    checked = gcpod("check", "--local", "--json", "--file", path)
    [note] = [finding for finding in checked.json if finding["code"] == "M600"]
    assert (checked.code, note["severity"], note["where"]) == (0, "note", "model.fine_tune_checkpoint")
    assert note["fix"] == f"a run fetches {address} once and puts its checkpoint into {MODELS}"
    planned = gcpod("run", "--local", "--dry-run", "--file", path)
    assert planned.code == 0
    assert f"zoo:{TF2_NAME} is not here yet: a run fetches it once from {address}" in planned.err
    assert len(json.loads(planned.out)) == 3
    rendered = gcpod("config", "render", "--local", "--file", path)
    assert parse(rendered.out).text("train_config.fine_tune_checkpoint") == str(MODELS / "ckpt-0")
    assert server.asked == []
    assert not (cache / "models").exists()

    assert gcpod("model", "fetch", TF2_NAME, "--url", server.url).code == 0
    path.write_text(render_spec(with_model(spec, zoo_mirror=None)), encoding="utf-8")
    assert [finding for finding in gcpod("check", "--local", "--json", "--file", path).json
            if finding["code"].startswith("M")] == []
    assert "is not here yet" not in gcpod("run", "--local", "--dry-run", "--file", path).err
    assert len(server.asked) == 1


def test_check_finds_what_does_not_go_together_beside_everything_else(
    spec: Spec, server: FileServer, gcpod: Any,
) -> None:
    def found(**values: Any) -> dict[str, str]:
        path = spec.folder / "gcpod.yaml"
        changed = replace(with_model(spec, **values), train=replace(spec.train, steps=60))
        path.write_text(render_spec(changed), encoding="utf-8")
        checked = gcpod("check", "--local", "--json", "--file", path)
        assert checked.code == 12
        return {one["code"]: one["fix"] for one in checked.json}

    wrong = found(fine_tune_checkpoint="zoo:ssd_mobilenet_v2_320x320")
    assert TF2_NAME in wrong["E101"]
    assert "C210" in wrong
    odd = found(template="ssd_inception_v2", image_size=None)
    assert odd["C201"].startswith("use model.template: ssd_mobilenet_v2 or ")
    assert "C203" in odd
    assert server.asked == []
