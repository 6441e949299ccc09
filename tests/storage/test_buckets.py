"""Buckets planned, made on a real server by the real client, looked at, and at the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.cloud.storage.retry import DEFAULT_RETRY
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gcpod.cli.bucket import bucket as command
from gcpod.errors import AuthError, ChecksFailedError, SpecError, StorageError
from gcpod.localcloud.server import LocalCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec, StorageSpec
from gcpod.storage.buckets import (
    ELSEWHERE,
    FINE_GRAINED,
    NOT_REGIONAL,
    UNLIKE,
    UNSWEPT,
    BucketInfo,
    HiddenBucketError,
    check_bucket,
    create_bucket,
    find_bucket,
    plan_bucket,
    to_bucket_info,
)
from gcpod.storage.objects import Objects

KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
RETRY = DEFAULT_RETRY.with_delay(initial=0.01)


class Replies:
    """Puts statuses in place of replies: before a request is served or after it, by method, once each."""

    def __init__(self) -> None:
        self.instead: list[tuple[str, int]] = []
        self.after: list[tuple[str, int]] = []

    def __call__(self, app: ASGIApp) -> ASGIApp:
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            method = scope["method"]
            status = self._next(self.instead, method)
            if status:
                while (await receive()).get("more_body"):
                    pass
                await _answer(send, status)
                return
            status = self._next(self.after, method)

            async def told(message: Message) -> None:
                if not status:
                    await send(message)

            await app(scope, receive, told)
            if status:
                await _answer(send, status)

        return served

    def _next(self, waiting: list[tuple[str, int]], method: str) -> int:
        if waiting and waiting[0][0] == method:
            return waiting.pop(0)[1]
        return 0


async def _answer(send: Send, status: int) -> None:
    body = json.dumps({"error": {"code": status, "message": "put here by the test"}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def replies() -> Replies:
    return Replies()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, replies: Replies) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), middleware=replies) as running:
        yield running


@pytest.fixture(scope="module")
def session(cloud: LocalCloud) -> Iterator[Session]:
    made = Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=Path()))
    yield made
    made.storage.close()


@pytest.fixture
def gcpod_bucket(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls ``gcpod bucket`` in a folder of its own, against the module's cloud."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(command, [*arguments, "--endpoint", cloud.url])

    return call


def test_a_plan_is_the_resource_that_cloud_storage_documents() -> None:
    assert plan_bucket("my-bucket", "US-central1", storage_class="nearline", kms_key=KEY, labels={"team": "a"}) == {
        "name": "my-bucket",
        "location": "us-central1",
        "storageClass": "NEARLINE",
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"},
        "lifecycle": {"rule": [
            {"action": {"type": "Delete"}, "condition": {"age": 7, "matchesPrefix": [".gcpod-parts/"]}},
            {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
        ]},
        "encryption": {"defaultKmsKeyName": KEY},
        "labels": {"team": "a"},
    }
    assert set(plan_bucket("b" * 63, "local")) == {
        "name", "location", "storageClass", "iamConfiguration", "lifecycle"}


@pytest.mark.parametrize("name", [
    "", "ab", "x" * 64, "Upper", "-a-", "a_", "a b", "a/b", "a..b", ".ab", "192.168.5.4", "goog-mine", "my-google-data",
    "g00gle-x", "é-bucket", "a.b-", ".".join(["x" * 60] * 4), "name\n",
])
def test_names_that_no_bucket_may_have(name: str) -> None:
    with pytest.raises(SpecError):
        plan_bucket(name, "us-central1")


@pytest.mark.parametrize("location", ["us", "EU", "asia", "nam4", "eur4", "us-central1-a", "", "us central1", "us-"])
def test_places_that_are_no_region(location: str) -> None:
    with pytest.raises(SpecError, match="no region"):
        plan_bucket("bucket", location)


@pytest.mark.parametrize("wrong", [
    {"storage_class": "COLD"}, {"storage_class": ""}, {"kms_key": "k"},
    {"kms_key": KEY.replace("us-central1", "global")}, {"kms_key": f"{KEY}/cryptoKeyVersions/1"},
    {"labels": {"": "x"}}, {"labels": {"A": "x"}}, {"labels": {"a": "B"}},
    {"labels": {"a": "x" * 64}}, {"labels": {"a\n": "x"}},
])
def test_what_cloud_storage_would_refuse(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        plan_bucket("bucket", "us-central1", **wrong)


def test_a_key_of_any_region_does_for_the_local_cloud() -> None:
    assert plan_bucket("bucket", "local", kms_key=KEY)["encryption"] == {"defaultKmsKeyName": KEY}


GOOD = BucketInfo("b", "us-central1", "region", "STANDARD", True, "enforced", swept=True)
US = BucketInfo("b", "us", "multi-region", "STANDARD", True, "inherited", swept=True)


@pytest.mark.parametrize(("info", "tpu", "expected"), [
    (GOOD, True, []),
    (US, False, []),
    (US, True, [(NOT_REGIONAL, "error")]),
    (replace(US, location="nam4", location_type="dual-region"), True, [(NOT_REGIONAL, "error")]),
    (replace(GOOD, location="europe-west4"), True, [(ELSEWHERE, "warning")]),
    (replace(GOOD, uniform_access=False, swept=False), True, [(FINE_GRAINED, "warning"), (UNSWEPT, "note")]),
])
def test_what_speaks_against_a_bucket(info: BucketInfo, tpu: bool, expected: list[tuple[str, str]]) -> None:
    found = check_bucket(info, "us-central1", tpu=tpu)
    assert [(one.code, one.severity) for one in found] == expected
    assert all(one.where == "gs://b" for one in found)


def test_a_bucket_that_is_another_than_asked_for() -> None:
    asked = plan_bucket("bbb", "us-east1", storage_class="COLDLINE", kms_key=KEY.replace("central", "east"))
    found = [one for one in check_bucket(GOOD, "us-central1", tpu=True, asked=asked) if one.code == UNLIKE]
    assert [one.found.split(" is ")[0] for one in found] == ["its location", "its storage class", "its key"]
    assert check_bucket(GOOD, "us-central1", tpu=True, asked=plan_bucket("bbb", "us-central1")) == []


rules = st.lists(st.fixed_dictionaries({}, optional={
    "action": st.none() | st.fixed_dictionaries({}, optional={"type": st.sampled_from(["Delete", "SetStorageClass"])}),
    "condition": st.none() | st.fixed_dictionaries({}, optional={
        "age": st.integers(0, 9), "isLive": st.booleans(),
        "matchesPrefix": st.just([".gcpod-parts/", "x"]) | st.none()}),
}), max_size=3)


@given(st.fixed_dictionaries({}, optional={
    "location": st.text(max_size=5), "labels": st.none() | st.just({"a": "b"}), "encryption": st.none() | st.just({}),
    "iamConfiguration": st.none() | st.just({}) | st.just({"uniformBucketLevelAccess": {"enabled": True}}),
    "lifecycle": st.none() | st.fixed_dictionaries({"rule": rules}),
}))
def test_a_resource_that_says_little_is_read(resource: dict[str, Any]) -> None:
    info = to_bucket_info(resource)
    assert info.location == resource.get("location", "").lower()
    assert info.uniform_access == bool((resource.get("iamConfiguration") or {}).get("uniformBucketLevelAccess"))
    given_rules = (resource.get("lifecycle") or {}).get("rule", [])
    assert not info.swept or any((rule.get("action") or {}).get("type") == "Delete" for rule in given_rules)
    check_bucket(info, "us-central1", tpu=True)


def test_a_bucket_is_made_as_planned_and_only_once(session: Session) -> None:
    info, made = create_bucket(session, "planned", location="us-central1", storage_class="NEARLINE", kms_key=KEY,
                               labels={"team": "a"})
    assert made
    assert info == replace(GOOD, name="planned", storage_class="NEARLINE", kms_key=KEY, labels={"team": "a"})
    there = session.storage.get_bucket("planned")
    body = plan_bucket("planned", "us-central1", storage_class="NEARLINE", kms_key=KEY, labels={"team": "a"})
    assert [dict(rule) for rule in there.lifecycle_rules] == body["lifecycle"]["rule"]
    assert create_bucket(session, "planned", location="europe-west4") == (info, False)
    assert session.storage.get_bucket("planned").metageneration == there.metageneration
    assert find_bucket(session, "never-made") is None


def test_region_class_and_key_are_the_sessions_where_none_are_given(cloud: LocalCloud) -> None:
    spec = Spec(storage=StorageSpec(kms_key=KEY, storage_class="COLDLINE"))
    session = Session(resolve(spec, endpoint=cloud.url, environ={}, home=Path()))
    info, _ = create_bucket(session, "as-the-spec-says")
    assert (info.location, info.storage_class, info.kms_key) == ("local", "COLDLINE", KEY)
    session.storage.close()


def test_a_lost_reply_and_a_race_end_with_the_bucket(session: Session, replies: Replies) -> None:
    replies.after = [("POST", 503)]
    info, _ = create_bucket(session, "lost-reply", retry=RETRY)
    assert info.swept
    replies.instead = [("GET", 404)]
    assert create_bucket(session, "lost-reply", retry=RETRY) == (info, False)
    assert replies.after == replies.instead == []


def test_a_bucket_of_somebody_else(session: Session, replies: Replies) -> None:
    # Each name once: the client looks again, in a thread, for a bucket that it was refused and then does not find.
    replies.instead = [("GET", 403)]
    with pytest.raises(HiddenBucketError, match="somebody else's") as caught:
        find_bucket(session, "theirs-1")
    assert (caught.value.code, caught.value.exit_code) == (AuthError.code, AuthError.exit_code)
    replies.instead = [("GET", 403)]
    assert not Objects(session).ensure_bucket("theirs-2")
    replies.instead = [("GET", 404), ("POST", 409), ("GET", 403)]
    with pytest.raises(HiddenBucketError):
        create_bucket(session, "theirs-3")
    replies.instead = [("GET", 404), ("POST", 403)]
    with pytest.raises(AuthError, match="making the bucket"):
        Objects(session).ensure_bucket("theirs-4")
    replies.instead = [("GET", 404), ("POST", 409), ("GET", 404)]
    with pytest.raises(StorageError, match="the name is taken"):
        create_bucket(session, "theirs-5")


def test_create_and_show_at_the_command_line(gcpod_bucket: Any) -> None:
    made = gcpod_bucket("create", "shown", "--class", "coldline", "--label", "team=a", "--label", "empty=")
    assert made.exit_code == 0
    assert made.output.startswith("gs://shown made: local (region), COLDLINE, uniform access, never public, Google's")
    assert "team=a" in made.output
    again = gcpod_bucket("create", "gs://shown/", "--json")
    assert again.exit_code == 0
    data = json.loads(again.output)
    assert (data["made"], data["bucket"]["labels"]) == (False, {"team": "a", "empty": ""})
    assert [one["code"] for one in data["findings"]] == [UNLIKE]
    shown = gcpod_bucket("show", "shown")
    assert shown.output == made.output.replace("made", "is there")
    assert json.loads(gcpod_bucket("show", "shown", "--json").output)["findings"] == []
    usage = gcpod_bucket("create", "shown", "--label", "a")
    assert (usage.exit_code, "no '='" in usage.output) == (2, True)


def test_without_a_name_it_is_the_specs_bucket(gcpod_bucket: Any, tmp_path: Path) -> None:
    assert isinstance(gcpod_bucket("show").exception, StorageError)
    assert "gs://local-project-gcpod made" in gcpod_bucket("create").output
    (tmp_path / "gcpod.yaml").write_text("bucket: gs://of-the-spec/folder\n")
    assert "gs://of-the-spec made" in gcpod_bucket("create").output
    assert "gs://of-the-spec is there" in gcpod_bucket("show").output


def test_a_bucket_that_a_tpu_cannot_train_from_ends_with_an_error(gcpod_bucket: Any, session: Session) -> None:
    session.storage.create_bucket("multi-regional", location="US")
    for action in ("create", "show"):
        shown = gcpod_bucket(action, "multi-regional")
        assert isinstance(shown.exception, ChecksFailedError)
        assert all(code in shown.output for code in (NOT_REGIONAL, FINE_GRAINED, UNSWEPT))
        listed = gcpod_bucket(action, "multi-regional", "--json")
        assert isinstance(listed.exception, ChecksFailedError)
        assert json.loads(listed.output)["findings"][0]["code"] == NOT_REGIONAL


@pytest.mark.parametrize("arguments", [
    ["NAME"], ["gs://b/object"], ["google-x"], ["fine", "--region", "us"], ["fine", "--kms-key", "k"],
    ["fine", "--label", "A=b"],
])
def test_wrong_arguments_are_told_before_anything_is_asked(arguments: list[str], tmp_path: Path) -> None:
    ended = CliRunner().invoke(command, ["create", *arguments, "--local", "--file", str(tmp_path / "gcpod.yaml")])
    assert isinstance(ended.exception, SpecError)
    assert list(tmp_path.iterdir()) == []
