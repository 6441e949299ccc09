"""`gcpod dataset build` and `check` at the command line: places, options, what goes to which stream, exit codes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from gcpod import errors
from gcpod.data.labelmap import read_pbtxt
from gcpod.data.model import Box
from gcpod.localcloud.server import LocalCloud
from gcpod.records import read_records
from gcpod.storage.objects import Objects
from gcpod.uris import GcsUri
from tests.data.making import Dataset, picture
from tests.jobs import session_of
from tests.output import Output

OK, USAGE = 0, 2


@pytest.fixture
def gcpod(gcpod: Any) -> Any:
    """Calls `gcpod dataset`, or another group, see tests/conftest.py."""

    def call(*arguments: object, group: str = "dataset") -> Output:
        return cast(Output, gcpod(group, *arguments))

    return call


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Eight labelled pictures in ``images`` of the folder that commands start in: cats and dogs."""
    made = Dataset(tmp_path)
    made.cats_and_dogs()
    return made


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud")) as running:
        yield running


def in_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_bucket(url: str, place: str) -> dict[str, bytes]:
    session, uri = session_of(url), GcsUri.parse(place)
    objects, found = Objects(session), {}
    for info in objects.list(uri):
        content = objects.read(info.uri)
        assert content is not None
        found[info.uri.name.removeprefix(uri.prefix)] = content.content
    session.storage.close()
    return found


def records(folder: Path) -> dict[str, list[bytes]]:
    found = {}
    for path in folder.glob("*.tfrecord"):
        with path.open("rb") as file:
            found[path.name] = list(read_records(file))
    return found


def boxes(output: Output) -> dict[str, int]:
    """Boxes by label of both splits, as ``--json`` gives them."""
    both = output.json["boxes"]
    return {label: both["train"][label] + both["eval"][label] for label in both["train"]}


def refused(output: Output, kind: type[errors.GcpodError]) -> str:
    """The last line of a command that ended in such an error."""
    assert output.code == kind.exit_code
    last = output.err.splitlines()[-1]
    assert last.startswith("gcpod: ")
    assert "Traceback" not in output.err
    return last


@pytest.mark.usefixtures("dataset")
def test_build_to_a_bucket_alone(gcpod: Any, cloud: LocalCloud, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    command = ("build", "--images", "images", "--to", "gs://straight/data/v1/", "--endpoint", cloud.url)
    built = gcpod(*command)
    assert (built.code, built.err) == (OK, "")
    assert set(tmp_path.rglob("*")) == before
    there = in_bucket(cloud.url, "gs://straight/data/v1")
    size = len(there["train-00000-of-00001.tfrecord"])
    assert built.out.splitlines()[0] == (
        f"gs://straight/data/v1/train-00000-of-00001.tfrecord: 6 examples, {size} bytes"
    )
    assert built.out.splitlines()[-1] == "gs://straight/data/v1/label_map.pbtxt: cat, dog"
    assert gcpod(*command).out == built.out
    assert gcpod("build", "--images", "images", "--out", "out").code == OK
    assert there == in_folder(tmp_path / "out")
    assert gcpod(*command, "--json").json == gcpod("build", "--images", "images", "--out", "out", "--json").json | {
        "folder": ".",
    }


@pytest.mark.usefixtures("dataset")
def test_build_into_a_folder_and_a_bucket(gcpod: Any, cloud: LocalCloud, tmp_path: Path) -> None:
    built = gcpod(
        "build", "--images", "images", "--out", "out", "--to", "gs://both-of-them", "--endpoint", cloud.url, "--json",
        "--shard-examples", "2",
    )
    assert built.code == OK
    assert [shard["examples"] for shard in built.json["shards"]] == [2, 2, 2, 2]
    assert in_bucket(cloud.url, "gs://both-of-them") == in_folder(tmp_path / "out")


@pytest.mark.usefixtures("dataset")
def test_build_into_the_local_cloud_of_the_project(gcpod: Any, tmp_path: Path) -> None:
    try:
        built = gcpod("build", "--images", "images", "--to", "gs://mine/data", "--local")
        assert (built.code, built.err) == (OK, "")
        url = gcpod("status", group="local").out.strip()
        there = in_bucket(url, "gs://mine/data")
        assert not (tmp_path / "data").exists()
    finally:
        stopped = gcpod("down", group="local")
    assert stopped.out == "stopped\n"
    gcpod("build", "--images", "images", "--out", "out")
    assert there == in_folder(tmp_path / "out")


@pytest.mark.parametrize(("arguments", "said"), [
    (("--eval-fraction", "7"), "give 0.01 to 0.9"),
    (("--max-side", "-5"), "give 16 to 65535"),
    (("--local",), "--to is missing"),
    (("--endpoint", "http://127.0.0.1:1"), "--to is missing"),
    (("--project", "p"), "need --runner"),
    (("--beam-option=--a=b",), "need --runner"),
    (("--runner", "DirectRunner", "--to", "gs://b/c"), "--out or --to"),
])
@pytest.mark.usefixtures("dataset")
def test_options_that_make_no_sense_are_wrong_use(gcpod: Any, arguments: tuple[str, ...], said: str) -> None:
    output = gcpod("build", "--images", "images", "--out", "out", *arguments)
    assert output.code == 2
    assert said in output.err


@pytest.mark.parametrize(("arguments", "said"), [
    (("--images", "images"), "--out or --to"),
    (("--out", "out"), "--images"),
    (("--images", "images", "--to", "data/here"), "gs://"),
    (("--images", "images", "--to", "gs://B"), "bucket name"),
    (("--images", "images", "--to", "gs://mine/data", "--endpoint", "http://example.com"), "loopback"),
    (("--images", "images", "--out", "out", "--shard-bytes", "0"), "hold nothing"),
    (("--images", "images", "--out", "out", "--shard-examples", "0"), "hold nothing"),
    (("--images", "images", "--out", "out", "--label", "cat", "--label-map", "map.pbtxt"), "both"),
])
@pytest.mark.usefixtures("dataset")
def test_what_was_asked_wrongly_is_refused_and_writes_nothing(
    gcpod: Any, tmp_path: Path, arguments: tuple[str, ...], said: str,
) -> None:
    before = set(tmp_path.rglob("*"))
    output = gcpod("build", *arguments)
    assert said in refused(output, errors.SpecError)
    assert output.err.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("dataset")
def test_a_bucket_needs_a_project_unless_it_is_local(gcpod: Any) -> None:
    assert "--local" in refused(gcpod("build", "--images", "images", "--to", "gs://mine/data"), errors.AuthError)


@pytest.mark.parametrize(("arguments", "said"), [
    (("--policy", "nonsense=fix"), "missing_image"),
    (("--policy", "size=maybe"), "error, fix, warn"),
    (("--policy", "image=fix"), "error, warn"),
    (("--policy", "images=warn"), "known are"),
    (("--policy", "verify=decode"), "missing_image"),
    (("--policy", "format=voc"), "error, fix, warn"),
    (("--policy", "size"), "NAME=VALUE"),
    (("--policy", "size="), "NAME=VALUE"),
    (("--alias", "Cat"), "NAME=VALUE"),
    (("--alias", "=cat"), "NAME=VALUE"),
    (("--format", "pascal"), "voc"),
    (("--verify", "maybe"), "decode"),
    (("--shard-bytes", "many"), "--shard-bytes"),
    (("--nonsense",), "--nonsense"),
])
@pytest.mark.usefixtures("dataset")
def test_unknown_names_and_values_are_usage_errors(gcpod: Any, arguments: tuple[str, ...], said: str) -> None:
    for command in (("build", "--out", "out"), ("check",)):
        output = gcpod(*command, "--images", "images", *arguments)
        assert output.code == USAGE
        assert said in output.err
    assert not Path("out").exists()


def test_every_finding_goes_to_stderr_when_the_data_is_wrong(
    gcpod: Any, dataset: Dataset, cloud: LocalCloud,
) -> None:
    dataset.image("1.jpg", b"no picture")
    dataset.add("bad.jpg", Box("cat", 10, 10, 10, 40), Box("cat", 10, 10, 400, 40))
    places = (("--out", "out"), ("--to", "gs://never/data", "--endpoint", cloud.url))
    for place in (*places, places[0] + places[1]):
        output = gcpod("build", "--images", "images", *place, "--json")
        *findings, last = output.err.splitlines()
        assert (output.code, output.out) == (errors.DataError.exit_code, "")
        assert [line.split()[:2] for line in findings if line.startswith("error")] == [
            ["error:", "D106"], ["error:", "D105"],
        ]
        assert any("1.jpg" in line for line in findings)
        assert any(line.startswith("warning: D102") and "bad" in line for line in findings)
        assert last.startswith("gcpod: D106: checking images")
        assert "1 more error" in last
    assert not Path("out").exists()
    assert in_bucket(cloud.url, "gs://never/data") == {}


def test_check_prints_findings_and_ends_in_its_own_code(gcpod: Any, dataset: Dataset, tmp_path: Path) -> None:
    clean = gcpod("check", "--images", "images")
    assert (clean.code, clean.out, clean.err) == (OK, "images: no errors\n", "")
    assert gcpod("check", "--images", "images", "--json").json == []
    dataset.image("unlabelled.jpg")
    assert gcpod("check", "--images", "images").out.splitlines()[-1] == "images: no errors, 1 remarks"
    dataset.image("1.jpg", b"no picture")
    before = set(tmp_path.rglob("*"))
    text, listed = gcpod("check", "--images", "images"), gcpod("check", "--images", "images", "--json")
    assert "1 error was found" in refused(text, errors.ChecksFailedError)
    assert refused(text, errors.ChecksFailedError) == refused(listed, errors.ChecksFailedError)
    assert listed.err.count("\n") == text.err.count("\n") == 1
    assert {(one["code"], one["severity"]) for one in listed.json} == {("D106", "error"), ("D106", "warning")}
    assert set(listed.json[0]) == {"code", "severity", "where", "found", "fix"}
    assert len(text.out.splitlines()) == len(listed.json)
    assert gcpod("check", "--images", "images", "--policy", "image=warn").code == OK
    assert set(tmp_path.rglob("*")) == before


def test_policies_decide_what_a_fault_does(gcpod: Any, dataset: Dataset) -> None:
    dataset.add("over.jpg", Box("cat", 10, 10, 400, 40), data=picture((250, 250, 0)))
    build = ("build", "--images", "images", "--json", "--out")
    assert boxes(gcpod(*build, "fixed"))["cat"] == 5
    left_out = gcpod(*build, "warned", "--policy", "outside=warn", "--policy", "unlabelled=error")
    assert boxes(left_out)["cat"] == 4
    assert "D102" in refused(gcpod(*build, "refused", "--policy", "outside=error"), errors.DataError)
    last_one_counts = gcpod(*build, "last", "--policy", "outside=error", "--policy", "outside=fix")
    assert boxes(last_one_counts)["cat"] == 5


def test_a_policy_that_is_called_like_another_key(gcpod: Any, dataset: Dataset) -> None:
    dataset.image("1.jpg", picture((30, 9, 200), kind="PNG"))
    build = ("build", "--images", "images", "--out", "out")
    assert gcpod(*build, "--policy", "format=fix").code == OK
    assert "D106" in refused(gcpod(*build, "--policy", "format=error"), errors.DataError)


def test_aliases_labels_and_label_maps(gcpod: Any, dataset: Dataset, tmp_path: Path) -> None:
    dataset.add("more.jpg", Box("Kitty", 10, 10, 50, 40), data=picture((250, 250, 0)))
    build = ("build", "--images", "images", "--json")
    assert boxes(gcpod(*build, "--out", "a", "--alias", "Kitty=cat", "--alias", "dog=hound")) == {"cat": 5, "hound": 4}
    (tmp_path / "map.pbtxt").write_text("item { id: 3 name: 'dog' } item { id: 7 name: 'cat' }")
    unknown = gcpod(*build, "--out", "b", "--label-map", "map.pbtxt")
    assert "D101" in refused(unknown, errors.DataError)
    imposed = gcpod(*build, "--out", "b", "--label-map", "map.pbtxt", "--alias", "Kitty=cat")
    assert imposed.json["num_classes"] == 7
    assert dict(read_pbtxt(tmp_path / "b" / "label_map.pbtxt").ids()) == {"dog": 3, "cat": 7}
    ordered = gcpod(*build, "--out", "c", "--label", "dog", "--label", "cat", "--label", "Kitty")
    assert ordered.code == OK
    assert dict(read_pbtxt(tmp_path / "c" / "label_map.pbtxt").ids()) == {"dog": 1, "cat": 2, "Kitty": 3}
    assert "absent.pbtxt" in refused(gcpod(*build, "--out", "d", "--label-map", "absent.pbtxt"), errors.DataError)


def test_the_spec_says_what_the_command_line_does_not(
    gcpod: Any, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset.add("over.jpg", Box("Kitty", 10, 10, 400, 40), data=picture((250, 250, 0)))
    (tmp_path / "map.pbtxt").write_text("item { id: 3 name: 'hound' } item { id: 7 name: 'cat' }")
    (tmp_path / "gcpod.yaml").write_text("""
data:
  images: images
  label_map: map.pbtxt
  eval_fraction: 0.5
  aliases: {Kitty: cat, dog: hound}
  policies: {outside: error}
""")
    assert "D102" in refused(gcpod("build", "--out", "out"), errors.DataError)
    assert "D102" in gcpod("check").out
    built = gcpod("build", "--out", "out", "--policy", "outside=fix", "--json")
    assert boxes(built) == {"hound": 4, "cat": 5}
    assert built.json["num_classes"] == 7
    more = gcpod("build", "--out", "more", "--policy", "outside=fix", "--eval-fraction", "0.2", "--json")
    assert more.json["images"]["eval"] < built.json["images"]["eval"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = ("build", "--file", "../gcpod.yaml", "--policy", "outside=fix", "--json", "--out")
    assert gcpod(*command, "here").json["digest"] == built.json["digest"]
    assert (tmp_path / "elsewhere" / "here" / "manifest.json").is_file()
    named = gcpod(*command, "named", "--images", "../images", "--alias", "Kitty=hound")
    assert boxes(named) == {"hound": 5, "cat": 4}
    monkeypatch.chdir(tmp_path)
    text = (tmp_path / "gcpod.yaml").read_text()
    elsewhere = "images: absent\n  annotations: absent\n  format: csv"
    (tmp_path / "gcpod.yaml").write_text(text.replace("images: images", elsewhere))
    assert "absent" in refused(gcpod("build", "--out", "none"), errors.DataError)
    whole = gcpod("build", "--out", "whole", "--images", "images", "--policy", "outside=fix", "--json")
    assert whole.json["digest"] == built.json["digest"]
    (tmp_path / "gcpod.yaml").write_text(text.replace("images: images", "pictures: images"))
    assert "pictures" in refused(gcpod("build", "--out", "out"), errors.SpecError)


@pytest.mark.usefixtures("dataset")
def test_gzip_packs_the_same_records(gcpod: Any, cloud: LocalCloud, tmp_path: Path) -> None:
    assert gcpod("build", "--images", "images", "--out", "plain").code == OK
    packed = gcpod("build", "--images", "images", "--out", "packed", "--gzip", "--json")
    assert [shard["name"] for shard in packed.json["shards"]] == [
        "train-00000-of-00001.tfrecord.gz", "eval-00000-of-00001.tfrecord.gz",
    ]
    unpacked = {
        path.name.removesuffix(".gz"): list(read_records(BytesIO(gzip.decompress(path.read_bytes()))))
        for path in (tmp_path / "packed").glob("*.gz")
    }
    assert unpacked == records(tmp_path / "plain")
    assert sum(map(len, unpacked.values())) == 8
    there = ("--to", "gs://packed/data", "--endpoint", cloud.url)
    assert gcpod("build", "--images", "images", "--gzip", *there).code == OK
    assert in_bucket(cloud.url, "gs://packed/data") == in_folder(tmp_path / "packed")


@pytest.mark.usefixtures("dataset")
def test_shards_are_as_small_as_asked(gcpod: Any, tmp_path: Path) -> None:
    def shards(*arguments: str) -> list[int]:
        found = gcpod("build", "--images", "images", "--json", *arguments).json["shards"]
        return [shard["examples"] for shard in found if shard["split"] == "train"]

    assert shards("--out", "one") == [6]
    assert shards("--out", "examples", "--shard-examples", "4") == [4, 2]
    assert shards("--out", "bytes", "--shard-bytes", "1") == [1] * 6
    assert shards("--out", "bytes", "--shard-bytes", "1000000", "--shard-examples", "5") == [5, 1]
    assert {path.name for path in (tmp_path / "bytes").glob("train-*")} == {
        "train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord",
    }


def test_materialise_copies_the_images_by_split(
    gcpod: Any, dataset: Dataset, cloud: LocalCloud, tmp_path: Path,
) -> None:
    build = ("build", "--images", "images", "--json")
    assert gcpod(*build, "--out", "out", "--materialise", "copy").code == OK
    copies = {path.name: path for path in (tmp_path / "copy").rglob("*.jpg")}
    assert {name: path.read_bytes() for name, path in copies.items()} == {
        path.name: path.read_bytes() for path in dataset.images.glob("*.jpg")
    }
    assert {path.relative_to(tmp_path / "copy").parts[0] for path in copies.values()} == {"train", "test"}
    refused(gcpod(*build, "--out", "out", "--materialise", "copy"), errors.DataError)
    there = ("--to", "gs://copied/data", "--endpoint", cloud.url, "--materialise", "again")
    assert gcpod(*build, *there).code == OK
    assert {path.name for path in (tmp_path / "again").rglob("*.jpg")} == set(copies)
    assert in_bucket(cloud.url, "gs://copied/data") == in_folder(tmp_path / "out")


def test_verify_max_side_and_near_duplicates(gcpod: Any, dataset: Dataset, tmp_path: Path) -> None:
    whole = picture((1, 100, 1), (300, 200), "PNG")
    broken = whole[:60] + b"XXXX" + whole[64:]
    dataset.add("large.png", Box("cat", 10, 10, 60, 40), data=broken, size=(300, 200))
    assert gcpod("check", "--images", "images", "--no-near-duplicates").code == OK
    for option in (("--verify", "decode", "--no-near-duplicates"), ("--near-duplicates",), ()):
        decoded = gcpod("check", "--images", "images", "--json", *option)
        assert decoded.code == errors.ChecksFailedError.exit_code
        assert [one["code"] for one in decoded.json] == ["D106"]
    dataset.image("large.png", whole)
    shrunk = gcpod("build", "--images", "images", "--out", "small", "--max-side", "50", "--materialise", "copies")
    assert shrunk.code == OK
    sizes = []
    for path in (tmp_path / "copies").rglob("*.[jp][pn]g"):
        with Image.open(path) as image:
            sizes.append(max(image.size))
    assert sizes == [50] * 9


def test_what_cannot_be_split_is_found_by_the_check_and_shown_on_the_page(gcpod: Any, tmp_path: Path) -> None:
    alone = Dataset(tmp_path)
    alone.add("a.jpg", Box("cat", 1, 1, 40, 40))
    told = gcpod("check", "--images", "images")
    assert told.code == errors.ChecksFailedError.exit_code
    assert "error: D107 images: there is only one distinct picture" in told.out
    page = gcpod("preview", "--images", "images", "--out", "page.html")
    assert (page.code, page.out) == (OK, "wrote page.html: images fit for training: 1, errors: 1, warnings: 0\n")
    assert "there is only one distinct picture" in (tmp_path / "page.html").read_text(encoding="utf-8")
    told = gcpod("preview", "--images", "images", "--out", "other.html", "--json")
    assert told.json == {"page": "other.html", "images": 1, "errors": 1, "warnings": 0}
