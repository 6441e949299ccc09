"""What a training starts from: which checkpoint a config names, and which models of the zoo go with which config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.errors import ConfigError, GcpodError, PackageError, SpecError
from gcpod.layout import RunLayout, model_folder
from gcpod.models.fetch import FetchedModel, in_words
from gcpod.models.start import (
    Start,
    address,
    check_fetched,
    check_start,
    checkpoint_files,
    fits,
    start_of,
    start_type,
    zoo_model,
)
from gcpod.models.zoo import all_models, find_model
from gcpod.pipeline.render import TEMPLATES, template_names
from gcpod.spec import ModelSpec, Spec
from gcpod.textproto import parse
from gcpod.uris import GcsUri
from tests.models import TF1_NAME, TF2_NAME

BUCKET = GcsUri.parse("gs://bucket/team")
LAYOUT = RunLayout.of(BUCKET, "detector-1")
TEXTS = {name: (TEMPLATES / f"{name}.config").read_text(encoding="utf-8") for name in template_names()}


def spec_of(checkpoint: str | None, template: str = "ssd_mobilenet_v2", kind: str | None = None,
            mirror: str | None = None) -> Spec:
    return Spec(model=ModelSpec(template, fine_tune_checkpoint=checkpoint, fine_tune_checkpoint_type=kind,
                                zoo_mirror=mirror))


def fetched(name: str, prefix: str, version: str) -> FetchedModel:
    path = Path("cache") / "models" / name / "files" / prefix
    return FetchedModel(find_model(name), path, (), "V1" if version == "V1" else "V2", None, "0" * 64, path.parents[1])


def refused(spec: Spec, config: str) -> GcpodError:
    with pytest.raises(GcpodError) as caught:
        check_start(config, spec, TEXTS.items())
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_checkpoint_is_named_where_the_job_will_find_it() -> None:
    assert start_of(spec_of(None), LAYOUT) == Start(None, "detection")
    assert start_of(spec_of("gs://b/ckpt-7", kind="full"), LAYOUT) == Start("gs://b/ckpt-7", "full")
    assert start_of(spec_of("old/ckpt-7"), LAYOUT) == Start(f"{LAYOUT.root}/fine_tune/ckpt-7", "detection")
    zoo = start_of(spec_of(f"zoo:{TF2_NAME}"), LAYOUT)
    assert zoo == Start(f"gs://bucket/team/models/{TF2_NAME}/ckpt-0", "detection", "V2")
    assert start_of(spec_of(f"zoo:{TF1_NAME}"), LAYOUT).version == "V1"
    assert str(start_of(spec_of(f"zoo:{TF1_NAME}"), LAYOUT).address).endswith("/model.ckpt")
    assert checkpoint_files(spec_of(f"zoo:{TF2_NAME}")) == checkpoint_files(spec_of("gs://b/c")) == []


@pytest.mark.parametrize("bucket", ["gs://bucket", "gs://bucket/a/b", "gs://bucket/a/"])
def test_models_lie_beside_runs_in_any_bucket(bucket: str) -> None:
    uri = GcsUri.parse(bucket)
    folder = str(model_folder(uri, find_model(TF2_NAME).name))
    assert start_of(spec_of(f"zoo:{TF2_NAME}"), RunLayout.of(uri, "run-1")).address == f"{folder}/ckpt-0"
    assert folder == f"{bucket.rstrip('/')}/models/{TF2_NAME}"


def test_what_the_archive_holds_counts_once_it_is_here() -> None:
    start = start_of(spec_of(f"zoo:{TF2_NAME}"), LAYOUT, fetched(TF2_NAME, "ckpt-301", "V2"))
    assert start == Start(f"gs://bucket/team/models/{TF2_NAME}/ckpt-301", "detection", "V2")
    check_fetched(fetched(TF2_NAME, "ckpt-301", "V2"))
    with pytest.raises(ConfigError, match="holds a checkpoint of version V1 in place of V2") as caught:
        check_fetched(fetched(TF2_NAME, "model.ckpt", "V1"))
    assert caught.value.code == "C201"


def test_the_type_is_the_zoos_unless_the_spec_has_one() -> None:
    assert start_type(spec_of(f"zoo:{TF2_NAME}")) == find_model(TF2_NAME).fine_tune_checkpoint_type
    assert start_type(spec_of(f"zoo:{TF2_NAME}", kind="full")) == "full"


@pytest.mark.parametrize(("given", "said"), [
    ("zoo:ssd_mobilenet_v2_320x320", f"did you mean {TF2_NAME}"),
    ("zoo:", "gcpod model list"), ("zoo:../x", "gcpod model list"), ("zoo: x", "gcpod model list"),
])
def test_a_wrong_name_is_answered_with_the_nearest(given: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        zoo_model(spec_of(given))


@pytest.mark.parametrize("mirror", ["http://example.com/zoo", "file:///zoo", "https://me:word@example.com", "zoo"])
def test_a_mirror_is_https_or_on_this_machine(mirror: str) -> None:
    with pytest.raises(PackageError) as caught:
        zoo_model(spec_of(f"zoo:{TF2_NAME}", mirror=mirror))
    assert caught.value.code == "M604"
    assert zoo_model(spec_of("gs://b/c", mirror=mirror)) is None


def test_the_address_is_the_zoos_or_below_the_mirror() -> None:
    model = find_model(TF2_NAME)
    assert address(spec_of(f"zoo:{TF2_NAME}"), model) == model.url
    mirrored = spec_of(f"zoo:{TF2_NAME}", mirror="https://example.com/zoo/")
    assert address(mirrored, model) == f"https://example.com/zoo/{TF2_NAME}.tar.gz"
    assert zoo_model(mirrored) == model


@pytest.mark.parametrize("name", sorted(all_models()))
def test_each_model_goes_with_its_own_template_and_is_refused_with_its_name_elsewhere(name: str) -> None:
    model = find_model(name)
    assert fits(model, parse(TEXTS[model.template]))
    check_start(TEXTS[model.template], spec_of(f"zoo:{name}", model.template), TEXTS.items())
    others = [one for one, text in TEXTS.items() if not fits(model, parse(text))]
    assert len(others) >= len(TEXTS) - 2
    for other in others:
        error = refused(spec_of(f"zoo:{name}", other), TEXTS[other])
        assert (error.code, error.on) == ("C201", f"zoo:{name}")
        assert model.template in error.fix
        assert all(one.name in error.fix for one in all_models().values() if one.template == other)


def test_a_model_of_tensorflow_1_is_refused_with_one_that_can_be_used() -> None:
    error = refused(spec_of(f"zoo:{TF1_NAME}"), TEXTS["ssd_mobilenet_v2"])
    assert error.found.startswith("it is of TensorFlow 1, for the feature extractor ssd_mobilenet_v1")
    assert error.fix == (
        "it goes with ssd_mobilenet_v1, which is of TensorFlow 1 and no run trains; "
        f"this template goes with zoo:{TF2_NAME}"
    )


@pytest.mark.parametrize(("width", "narrow"), [
    ("1.0", False), ("1", False), ("1.0f", False), ("0.35", True), ("1.4f", True), ("0", True), ('"x"', False),
])
def test_layers_of_another_width_are_refused(width: str, narrow: bool) -> None:
    spec, text = spec_of(f"zoo:{TF2_NAME}"), TEXTS["ssd_mobilenet_v2"]
    assert text.count("depth_multiplier: 1.0") == 1
    config = text.replace("depth_multiplier: 1.0", f"depth_multiplier: {width}")
    if narrow:
        assert "model.depth_multiplier" in refused(spec, config).fix
    else:
        check_start(config, spec, TEXTS.items())
    check_start(config, replace(spec, model=replace(spec.model, fine_tune_checkpoint="gs://b/ckpt-1")), TEXTS.items())


def test_a_fetch_is_told_by_quarters() -> None:
    said: list[str] = []
    told = in_words(said.append, "m")
    for done in range(0, 8_000_001, 500_000):
        told("fetch", done, 8_000_000)
    told("unpack", 1, 1)
    assert said == [f"fetching m: {done}.0 of 8.0 MB" for done in (0, 2, 4, 6, 8)]
    blind: list[str] = []
    told = in_words(blind.append, "m")
    for done in (1_000_000, 2_000_000):
        told("fetch", done, None)
    assert blind == ["fetching m: 1.0 MB"]
