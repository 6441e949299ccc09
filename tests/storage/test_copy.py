"""`gcpod copy` over the local cloud: whole trees there and back, what moves and what does not, how it fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from gcpod import errors
from gcpod.copying import copy
from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec, StorageSpec
from gcpod.storage.objects import Objects
from gcpod.storage.traffic import TransferOptions
from gcpod.uris import GcsUri
from tests.output import Output

from .faulty import Fault, Faulty, StallBefore

ODD_NAMES = (
    "a//b", "/a", "a/../b", "a/./b", "x" * 1024, "d", "d/e", "spaces and ünïcödé ☃", "# ? % & + = ;", "back\\slash",
    "tab\there", ".hidden/.name", "..", "a" * 255 + "/" + "b" * 255, ".gcpod-transfer-2/y", "a/.gcpod-transferred/x",
)


@pytest.fixture
def url(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("GCPOD_CACHE", str(tmp_path / "cache"))
    return cloud.url


@pytest.fixture
def bucket(url: str) -> Iterator[Objects]:
    spec = Spec(bucket=f"gs://b{os.urandom(6).hex()}")
    objects = Objects(Session(resolve(spec, endpoint=url, environ={}, home=Path())))
    objects.ensure_bucket(root(objects).bucket)
    yield objects
    objects.session.storage.close()


@pytest.fixture
def gcpod(gcpod: Any, url: str) -> Any:
    """Calls `gcpod copy` with the local cloud's address."""

    def call(*arguments: object) -> Output:
        there = () if "--endpoint" in arguments else ("--endpoint", url)
        return cast(Output, gcpod("copy", *arguments, *there))

    return call


def root(objects: Objects) -> GcsUri:
    return objects.session.settings.bucket_uri


def tree(folder: Path, **files: bytes) -> Path:
    for name, content in (files or {"one": b"1", "sub_two": b"22", "empty": b""}).items():
        path = folder / name.replace("_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        # Younger files might change again within the clock's tick, and are read each time.
        os.utime(path, ns=(10**18, 10**18))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_tree_goes_up_and_comes_down(gcpod: Any, bucket: Objects, tmp_path: Path) -> None:
    source, there = tree(tmp_path / "source"), f"{root(bucket)}/some/place"
    up = gcpod(source, there)
    assert (up.code, up.out, up.err) == (0, "", "moved 3 files (3 bytes), 0 were there\n")
    assert gcpod(source, there).err == "moved 0 files (0 bytes), 3 were there\n"
    assert gcpod(there, tmp_path / "back").err == "moved 3 files (3 bytes), 0 were there\n"
    assert contents(tmp_path / "back") == contents(source)
    assert gcpod(there, tmp_path / "back").err == "moved 0 files (0 bytes), 3 were there\n"


def test_only_what_changed_moves(gcpod: Any, bucket: Objects, tmp_path: Path) -> None:
    source, there = tree(tmp_path / "source"), f"{root(bucket)}/p"
    gcpod(source, there)
    (source / "one").write_bytes(b"X")
    (source / "new").write_bytes(b"new")
    told = gcpod(source, there, "--json").json
    assert told == {
        "moved": [{"source": str(source / name), "target": f"{there}/{name}"} for name in ("new", "one")],
        "bytes": 4, "unchanged": 2, "dry_run": False,
    }
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "one").write_bytes(b"?")
    gcpod(there, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(source)


def test_a_dry_run_moves_nothing(gcpod: Any, bucket: Objects, tmp_path: Path) -> None:
    source, there = tree(tmp_path / "source", one=b"1"), f"{root(bucket)}/p"
    up = gcpod(source, there, "--dry-run")
    assert up.out == f"{source}/one -> {there}/one\n"
    assert up.err == "would move 1 files (1 bytes), 0 were there\n"
    assert bucket.list(root(bucket)) == []
    gcpod(source, there, "--quiet")
    down = gcpod(there, tmp_path / "back", "--dry-run")
    assert down.out == f"{there}/one -> {tmp_path}/back/one\n"
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(("options", "shown"), [((), True), (("--quiet",), False), (("--json",), False)])
def test_bytes_rate_and_time_left_are_shown_on_a_terminal(
    gcpod: Any, bucket: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], shown: bool,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    source = tree(tmp_path / "source", big=b"x" * 1_000_000)
    told = gcpod(source, root(bucket), "--limit", "2M", *options)
    for text in ("1 files", "/1.0 MB", "B/s"):
        assert (text in told.err) is shown


def test_quiet_is_quiet(gcpod: Any, bucket: Objects, tmp_path: Path) -> None:
    told = gcpod(tree(tmp_path / "source"), root(bucket), "--quiet")
    assert (told.code, told.out, told.err) == (0, "", "")
    assert {info.uri.name for info in bucket.list(root(bucket))} == {"one", "sub/two", "empty"}


@pytest.mark.parametrize(("target", "name"), [("", "one"), ("/", "one"), ("/folder/", "folder/one"), ("/file", "file")])
def test_a_single_file_goes_where_it_is_told_to(
    gcpod: Any, bucket: Objects, tmp_path: Path, target: str, name: str,
) -> None:
    source = tree(tmp_path / "source") / "one"
    assert gcpod(source, f"{root(bucket)}{target}").code == 0
    assert [info.uri.name for info in bucket.list(root(bucket))] == [name]
    assert gcpod(f"{root(bucket)}/{name}", tmp_path / "named").code == 0
    assert (tmp_path / "named").read_bytes() == b"1"
    (tmp_path / "folder").mkdir()
    assert gcpod(f"{root(bucket)}/{name}", tmp_path / "folder").code == 0
    assert contents(tmp_path / "folder") == {name.rsplit("/", maxsplit=1)[-1]: b"1"}


def test_odd_names_survive_the_round_trip(bucket: Objects, url: str, tmp_path: Path) -> None:
    names = [f"odd/{name}" if len(name) < 1000 else name for name in ODD_NAMES]
    for name in names:
        bucket.write(GcsUri(root(bucket).bucket, name), name.encode())
    copy(str(root(bucket)), str(tmp_path / "down"), endpoint=url)
    assert {p.resolve().is_relative_to(tmp_path / "down") for p in (tmp_path / "down").rglob("*")} == {True}
    again = f"gs://b{os.urandom(6).hex()}"
    bucket.ensure_bucket(again.removeprefix("gs://"))
    copy(str(tmp_path / "down"), again, endpoint=url)
    there = {info.uri.name: info.crc32c for info in bucket.list(GcsUri.parse(again))}
    assert there == {info.uri.name: info.crc32c for info in bucket.list(root(bucket))}
    assert there.keys() == set(names)


def test_a_link_in_the_target_leads_nothing_out_of_it(gcpod: Any, bucket: Objects, tmp_path: Path) -> None:
    bucket.write(root(bucket) / "sub/two", b"2")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "sub").symlink_to(tmp_path / "elsewhere")
    told = gcpod(root(bucket), tmp_path / "back")
    assert told.code == errors.StorageError.exit_code
    assert "a link leads out of" in told.err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_links_are_refused_skipped_or_followed(gcpod: Any, bucket: Objects, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", one=b"1")
    (source / "link").symlink_to(source / "one")
    told = gcpod(source, root(bucket))
    assert told.code == errors.StorageError.exit_code
    assert f"{source}/link" in told.err
    assert told.err.count("\n") == 1
    assert bucket.list(root(bucket)) == []
    assert gcpod(source, root(bucket), "--symlinks", "skip", "--json").json["bytes"] == 1
    assert gcpod(source, root(bucket), "--symlinks", "follow").code == 0
    assert {info.uri.name for info in bucket.list(root(bucket))} == {"one", "link"}


def test_an_illegal_name_is_refused_before_the_first_byte_moves(gcpod: Any, bucket: Objects, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", one=b"1")
    (source / "line\nbreak").write_bytes(b"x")
    told = gcpod(source, root(bucket))
    assert told.code == errors.StorageError.exit_code
    assert told.err.startswith("gcpod: S501: ")
    assert bucket.list(root(bucket)) == []


@pytest.mark.parametrize(("arguments", "found"), [
    (("here", "there"), "one of them has to be in a bucket"),
    (("gs://one-bucket/x", "gs://other-bucket/x"), "one of them has to be in a bucket"),
    (("gs://UPPER/x", "there"), "is no bucket name"),
    (("missing", "gs://bucket/x"), "No such file"),
    (("gs://nobody-has-this-one/x", "there"), "answered 404"),
    (("here", "gs://bucket/x", "--limit", "fast"), "it is no rate"),
    (("here", "gs://bucket/x", "--limit", "0"), "it is no rate"),
])
def test_what_cannot_be_is_said_in_one_line(gcpod: Any, arguments: tuple[str, ...], found: str) -> None:
    told = gcpod(*arguments)
    assert told.code in (errors.SpecError.exit_code, errors.StorageError.exit_code)
    assert found in told.err
    assert told.err.count("\n") == 1


def test_nothing_below_an_address_is_an_error(gcpod: Any, bucket: Objects, tmp_path: Path) -> None:
    told = gcpod(f"{root(bucket)}/nothing", tmp_path / "back")
    assert "there is no such object, and none below it" in told.err
    assert not (tmp_path / "back").exists()


def test_an_unchanged_tree_costs_one_listing_a_thousand_objects_and_no_bytes(
    cloud: LocalCloud, bucket: Objects, tmp_path: Path,
) -> None:
    source = tree(tmp_path / "source", **{f"f{number}": b"x" for number in range(1001)})
    there = f"{root(bucket)}/tree"
    copy(str(source), there, endpoint=cloud.url)
    with Faulty(cloud.url) as proxy:
        plan = copy(str(source), there, endpoint=proxy.url)
        assert (plan.unchanged, plan.bytes) == (1001, 0)
        assert proxy.count("list") == 2
        assert {one.operation for one in proxy.log} == {"list"}


def test_the_metadata_of_new_objects_and_who_pays(cloud: LocalCloud, bucket: Objects, tmp_path: Path) -> None:
    key = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    spec = Spec(storage=StorageSpec(user_project="payer", kms_key=key, storage_class="NEARLINE"))
    source = tree(tmp_path / "source", **{"page.html": b"<p>", "records.bin": b"r" * 300_000})
    options = TransferOptions(single_bytes=100_000)
    with Faulty(cloud.url) as proxy:
        copy(str(source), str(root(bucket)), spec, endpoint=proxy.url, options=options)
        copy(str(root(bucket)), str(tmp_path / "back"), spec, endpoint=proxy.url, options=options)
        billed = {one.operation: one.query.get("userProject") for one in proxy.log if one.operation != "chunk"}
    assert billed == {"list": "payer", "insert": "payer", "start": "payer", "get": "payer"}
    for name, kind in (("page.html", "text/html"), ("records.bin", "application/octet-stream")):
        blob = bucket.session.storage.bucket(root(bucket).bucket).get_blob(name)
        assert (blob.content_type, blob.storage_class, blob.kms_key_name) == (kind, "NEARLINE", key)


def test_a_requester_pays_bucket_is_used_with_a_project_that_pays(
    gcpod: Any, bucket: Objects, url: str, tmp_path: Path,
) -> None:
    made = bucket.session.storage.get_bucket(root(bucket).bucket)
    made.requester_pays = True
    made.patch()
    source = tree(tmp_path / "source")
    told = gcpod(source, root(bucket))
    assert told.code == errors.StorageError.exit_code
    assert "Bucket is requester pays bucket but no user project provided" in told.err
    assert "name the project that pays as storage.user_project in gcpod.yaml" in told.err
    (tmp_path / "gcpod.yaml").write_text("storage:\n  user_project: payer\n")
    assert gcpod(source, root(bucket)).err == "moved 3 files (3 bytes), 0 were there\n"
    assert gcpod(root(bucket), tmp_path / "back").code == 0
    assert contents(tmp_path / "back") == contents(source)
    spec = Spec(storage=StorageSpec(user_project="payer"))
    payer = Objects(Session(resolve(spec, endpoint=url, environ={}, home=Path())))
    payer.write(root(bucket) / "small", b"x")
    assert payer.read(root(bucket) / "small") is not None
    payer.session.storage.close()


def test_objects_stored_as_gzip_come_down_as_they_are_stored(bucket: Objects, url: str, tmp_path: Path) -> None:
    import gzip

    packed = gzip.compress(b"text" * 1000)
    blob = bucket.session.storage.bucket(root(bucket).bucket).blob("packed.txt")
    blob.content_encoding = "gzip"
    blob.upload_from_string(packed)
    copy(str(root(bucket)), str(tmp_path / "back"), endpoint=url)
    assert (tmp_path / "back" / "packed.txt").read_bytes() == packed


def test_the_options_of_the_command_reach_the_transfer(
    cloud: LocalCloud, bucket: Objects, gcpod: Any, tmp_path: Path,
) -> None:
    source = tree(tmp_path / "source", **{f"f{number}": b"x" * 50_000 for number in range(20)})
    with Faulty(cloud.url) as proxy:
        told = gcpod(source, root(bucket), "--endpoint", proxy.url, "--workers", "1")
        # One for the listing, one for the files.
        assert (told.code, proxy.connections.ever) == (0, 2)
        proxy.spoil(Fault("get", StallBefore()))
        stalled = gcpod(root(bucket), tmp_path / "back", "--endpoint", proxy.url, "--stall", "1", "--workers", "1")
        assert stalled.code == 0
        assert proxy.count("get") == 21
        begun = time.monotonic()
        assert gcpod(source, f"{root(bucket)}/k", "--endpoint", proxy.url, "--limit", "2M").code == 0
        assert 0.4 < time.monotonic() - begun < 30


def test_the_spec_says_how_many_connections_and_how_fast(
    cloud: LocalCloud, bucket: Objects, gcpod: Any, tmp_path: Path,
) -> None:
    source = tree(tmp_path / "source", **{f"f{number}": b"x" * 50_000 for number in range(20)})
    (tmp_path / "gcpod.yaml").write_text("storage:\n  workers: 2\n  limit_bytes: 2000000\n")
    with Faulty(cloud.url) as proxy:
        begun = time.monotonic()
        assert gcpod(source, root(bucket), "--endpoint", proxy.url).code == 0
        assert time.monotonic() - begun > 0.4
        assert proxy.connections.ever == 3


def test_a_limit_holds(bucket: Objects, url: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "source", **{f"f{number}": b"x" * 100_000 for number in range(10)})
    begun = time.monotonic()
    copy(str(source), str(root(bucket)), endpoint=url, options=TransferOptions(rate_bytes=2e6))
    # A megabyte at two a second, but for the last piece, which leaves as its turn comes.
    assert time.monotonic() - begun > 0.4
