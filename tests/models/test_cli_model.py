"""`gcpod model` at the command line: what it prints, where things land, how it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from gcpod import errors
from gcpod.localcloud.server import LocalCloud
from gcpod.models.zoo import all_models
from gcpod.spec import ModelSpec
from gcpod.specfile import parse_spec
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.jobs import session_of
from tests.models import TF1_FILES, TF1_NAME, TF2_FILES, TF2_NAME, Fault, FileServer, archive
from tests.output import Output


@pytest.fixture
def gcpod(gcpod: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Calls `gcpod model` with a cache of the test's own, see tests/conftest.py."""
    monkeypatch.setenv("GCPOD_CACHE", str(tmp_path / "cache"))

    def call(*arguments: object) -> Output:
        return cast(Output, gcpod("model", *arguments))

    return call


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(archive(TF2_FILES, TF2_NAME)) as running:
        yield running


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud")) as running:
        yield running


def in_bucket(url: str, place: str) -> dict[str, bytes]:
    session = session_of(url)
    objects, found = Objects(session), {}
    for info in objects.list(GcsUri.parse(place)):
        content = objects.read(info.uri)
        assert content is not None
        found[str(info.uri)] = content.content
    session.storage.close()
    return found


def told_as_zoo(out: str) -> ModelSpec:
    """What the keys that are told in comments mean below ``model`` in gcpod.yaml."""
    keys = [line.removeprefix("#") for line in out.splitlines() if line.startswith("#   ")]
    return parse_spec("\n".join(["model:", *keys]), Path("gcpod.yaml")).model


def test_the_list_names_every_model_on_a_line_of_its_own(gcpod: Any) -> None:
    listed = gcpod("list")
    assert (listed.code, listed.err) == (0, "")
    for model in all_models().values():
        [line] = [line for line in listed.out.splitlines() if f" {model.name} " in line]
        assert {model.extractor, f"{model.coco_map:g}", f"{model.speed_ms:g}", model.template} <= set(line.split())
    as_json = gcpod("list", "--json").json
    assert [one["name"] for one in as_json] == list(all_models())
    assert as_json[0]["input_px"] == [640, 640]


def test_fetch_prints_the_prefix_and_a_spec_that_starts_from_it(
    gcpod: Any, server: FileServer, tmp_path: Path,
) -> None:
    fetched = gcpod("fetch", TF2_NAME, "--url", server.url)
    assert (fetched.code, fetched.err) == (0, "")
    prefix, rest = fetched.out.split("\n", 1)
    assert prefix == str(tmp_path / "cache" / "models" / TF2_NAME / "files" / TF2_NAME / "checkpoint" / "ckpt-0")
    assert "checkpoint is of TensorFlow 2" in rest
    model = parse_spec(rest, tmp_path / "gcpod.yaml").model
    assert (model.template, model.fine_tune_checkpoint) == ("ssd_mobilenet_v2_320", prefix)
    assert told_as_zoo(rest) == ModelSpec(fine_tune_checkpoint=f"zoo:{TF2_NAME}", zoo_mirror=server.url)
    again = gcpod("fetch", TF2_NAME).out
    assert again.startswith(prefix)
    assert told_as_zoo(again) == ModelSpec(fine_tune_checkpoint=f"zoo:{TF2_NAME}")
    assert len(server.asked) == 1


def test_fetch_as_json(gcpod: Any, server: FileServer) -> None:
    server.content = archive(TF1_FILES, TF1_NAME)
    found = gcpod("fetch", TF1_NAME, "--url", server.url, "--json").json
    assert found["fine_tune_checkpoint"].endswith("/model.ckpt")
    assert found["fine_tune_checkpoint_version"] == "V1"
    assert found["template"] == "ssd_mobilenet_v1"
    assert Path(found["pipeline_config"]).read_bytes() == TF1_FILES["pipeline.config"]
    assert found["zoo"] == f"zoo:{TF1_NAME}"
    advised = gcpod("fetch", TF1_NAME).out
    assert "checkpoint is of TensorFlow 1" in advised
    assert "zoo:" not in advised, "runs train by TensorFlow 2"


@pytest.mark.parametrize(("arguments", "kind", "said"), [
    (("nonsense",), errors.SpecError, "gcpod model list"),
    (("ssd_mobilenet_v2_320x320",), errors.SpecError, f"did you mean {TF2_NAME}"),
    ((TF2_NAME, "--url", "http://example.com/"), errors.PackageError, "M604"),
    ((TF2_NAME, "--url", "../here"), errors.PackageError, "M604"),
])
def test_what_was_asked_wrongly_is_refused(
    gcpod: Any, tmp_path: Path, arguments: tuple[str, ...], kind: type[errors.GcpodError], said: str,
) -> None:
    for command in (("fetch",), ("upload", "--endpoint", "http://127.0.0.1:1")):
        output = gcpod(*command, *arguments)
        assert (output.code, output.out, output.err.count("\n")) == (kind.exit_code, "", 1)
        assert said in output.err


def test_a_missing_file_is_said_in_one_line(gcpod: Any, server: FileServer) -> None:
    server.faults = [Fault(404)]
    output = gcpod("fetch", TF2_NAME, "--url", server.url)
    assert output.code == errors.PackageError.exit_code
    assert output.err == (
        f"gcpod: M601: fetching {server.url}/{TF2_NAME}.tar.gz: the server answered 404 Not Found; "
        "name another place with --url or model.zoo_mirror\n"
    )


def test_upload_sends_the_checkpoint_and_what_is_there_never_again(
    gcpod: Any, server: FileServer, cloud: LocalCloud, tmp_path: Path,
) -> None:
    (tmp_path / "gcpod.yaml").write_text("bucket: gs://models-here/team\n")
    command = ("upload", TF2_NAME, "--url", server.url, "--endpoint", cloud.url)
    first = gcpod(*command)
    folder = f"gs://models-here/team/models/{TF2_NAME}"
    assert first.code == 0
    assert first.err.startswith("uploaded 2 files (")
    prefix, rest = first.out.split("\n", 1)
    assert prefix == f"{folder}/ckpt-0"
    assert parse_spec(rest, tmp_path / "gcpod.yaml").model.fine_tune_checkpoint == prefix
    assert told_as_zoo(rest).fine_tune_checkpoint == f"zoo:{TF2_NAME}"
    assert in_bucket(cloud.url, "gs://models-here") == {
        f"{folder}/{name.removeprefix('checkpoint/')}": content
        for name, content in TF2_FILES.items() if name.startswith("checkpoint/ckpt-0.")
    }
    again = gcpod(*command, "--json").json
    assert (again["uploaded"], again["unchanged"], again["fine_tune_checkpoint"]) == (0, 2, prefix)
    assert len(server.asked) == 1


def test_upload_needs_a_project_before_it_fetches(gcpod: Any, server: FileServer) -> None:
    refused = gcpod("upload", TF2_NAME, "--url", server.url)
    assert refused.code == errors.AuthError.exit_code
    assert server.asked == []
