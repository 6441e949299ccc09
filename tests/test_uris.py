from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.cache import cache_dir
from gcpod.errors import GcpodError, SpecError
from gcpod.layout import RunLayout
from gcpod.status import JobInfo, JobState, Progress
from gcpod.uris import GcsUri, inside
from tests.data.making import outcome

BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", fullmatch=True)
NAMES = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=200)


@given(BUCKETS, NAMES)
def test_an_address_reads_back_as_it_was_written(bucket: str, name: str) -> None:
    uri = GcsUri(bucket, name)
    assert GcsUri.parse(str(uri)) == uri


@given(st.text() | st.text().map("gs://{}".format) | st.text().map("gs://bucket/{}".format))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    code = outcome(lambda: GcsUri.parse(text))
    assert code in ("", "E101")
    if not code:
        assert str(GcsUri.parse(text)).rstrip("/") == text.rstrip("/")


@pytest.mark.parametrize("text", [
    "", "bucket/x", "s3://bucket/x", "GS://bucket", "gs://", "gs:///x", "gs://ab/x", "gs://Bucket/x", "gs://-ab/x",
    "gs://ab-/x", "gs://bucket/a\nb", "gs://bucket/a\rb", "gs://bucket/" + "é" * 513, "gs://" + "a" * 223,
])
def test_what_breaks_the_naming_rules_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        GcsUri.parse(text)


def test_the_longest_names_are_taken() -> None:
    assert GcsUri.parse("gs://bucket/" + "é" * 512).name == "é" * 512
    assert GcsUri.parse("gs://" + "a" * 222).bucket == "a" * 222


def test_joining_and_prefixes() -> None:
    bucket = GcsUri.parse("gs://bucket")
    assert str(bucket / "a" / "b") == "gs://bucket/a/b"
    assert str(GcsUri.parse("gs://bucket/a/") / "b") == "gs://bucket/a/b"
    assert (bucket.prefix, (bucket / "a").prefix, GcsUri("bucket", "a/").prefix) == ("", "a/", "a/")
    assert str(bucket) == "gs://bucket"


def test_what_is_a_runs_own_lies_below_one_prefix() -> None:
    layout = RunLayout.of(GcsUri("bucket", "team"), "run-1")
    assert str(layout.root) == "gs://bucket/team/runs/run-1"
    places = [
        layout.config, layout.checkpoint, layout.model, layout.export, layout.best, layout.stop(1), layout.saved_model,
        layout.manifest, layout.claim("train-1"), layout.claim("train-2"), layout.marker(1),
    ]
    assert len(set(places)) == len(places)
    assert all(str(place).startswith(f"{layout.root}/") for place in places)
    assert str(layout.model) == f"{layout.root}/model"


def test_records_and_packages_lie_beside_the_runs_below_their_digests() -> None:
    bucket = GcsUri("bucket", "team")
    layout = RunLayout.of(bucket, "run-1", "d1", "p1")
    assert str(layout.data) == "gs://bucket/team/datasets/d1"
    assert str(layout.label_map) == "gs://bucket/team/datasets/d1/label_map.pbtxt"
    assert str(layout.packages) == "gs://bucket/team/packages/p1"
    other = RunLayout.of(bucket, "run-2", "d1", "p1")
    assert (other.data, other.packages) == (layout.data, layout.packages)
    assert RunLayout.of(GcsUri("bucket"), "run-1", "d1").data == GcsUri("bucket", "datasets/d1")


def test_a_layout_that_knows_no_digest_gives_no_address() -> None:
    layout = RunLayout.of(GcsUri("bucket"), "run-1")
    with pytest.raises(ValueError, match="datasets"):
        _ = layout.data
    with pytest.raises(ValueError, match="packages"):
        _ = layout.packages


@given(st.text(max_size=30) | st.text("./a~", max_size=12))
def test_a_name_never_leads_outside_its_folder(name: str) -> None:
    root = Path("/some/folder")
    try:
        path = inside(root, name)
    except SpecError:
        return
    assert path != root
    assert path.is_relative_to(root)
    assert ".." not in path.parts


def test_names_that_lead_outside_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    for name in ("../x", "/etc/passwd", "a/../../x", "link/x", "", ".", "a/..", "a\0b"):
        with pytest.raises(SpecError):
            inside(folder, name)
    assert inside(folder, "a/../b/c") == folder / "b" / "c"


def test_the_cache_follows_the_environment() -> None:
    assert cache_dir({"GCPOD_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/gcpod")
    assert cache_dir({"XDG_CACHE_HOME": "not/absolute"}) == Path.home() / ".cache" / "gcpod"
    assert cache_dir({}) == Path.home() / ".cache" / "gcpod"


def test_only_an_ended_job_is_terminal() -> None:
    ended = {state.short for state in JobState if state.terminal}
    assert ended == {"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"}
    assert JobState.from_wire("JOB_STATE_RUNNING") is JobState.RUNNING
    assert not JobState.from_wire("JOB_STATE_OF_NEXT_YEAR").terminal
    assert not JobState.from_wire(None).terminal


def test_small_facts_of_the_records() -> None:
    assert JobInfo("projects/p/locations/r/customJobs/42", "x", JobState.RUNNING).id == "42"
    assert Progress(step=100, total_steps=300, steps_per_s=4.0).left_s == 50.0
    assert Progress(step=400, total_steps=300, steps_per_s=4.0).left_s == 0.0
    assert Progress(step=100).left_s is None



def test_each_kind_of_failure_has_an_exit_code_of_its_own() -> None:
    kinds = [cls for cls in GcpodError.__subclasses__() if cls.__module__ == "gcpod.errors"]
    assert len({cls.exit_code for cls in kinds}) == len({cls.code for cls in kinds}) == len(kinds) == 12
    assert all(2 < cls.exit_code < 126 for cls in kinds)


def test_a_message_is_one_line() -> None:
    error = GcpodError("reading", "a\nb", "x\n\ty", "stop", code="D101")
    assert (error.message, str(error)) == ("reading a b: x y; stop", "D101: reading a b: x y; stop")
