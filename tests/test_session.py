from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import AuthError, SpecError
from gcpod.session import Session
from gcpod.settings import Setting, Settings, gcloud_config_dir, read_gcloud_config, resolve
from gcpod.spec import Spec

SECRET = "MIIEvQIBADANBgkqh"
LOOPBACK = "http://127.0.0.1:8080"


def write_gcloud(folder: Path, text: str, name: str = "default") -> None:
    (folder / "configurations").mkdir(parents=True, exist_ok=True)
    (folder / "configurations" / f"config_{name}").write_text(text, encoding="utf-8")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose gcloud names a project and both regions."""
    write_gcloud(tmp_path / ".config" / "gcloud",
                 "[core]\nproject = of-gcloud\n[compute]\nregion = of-compute\n[ai]\nregion = of-ai\n")
    return tmp_path


PROJECT_LADDER = [
    (Spec(project="of-file"), {}, "of-file", "gcpod.yaml"),
    (Spec(), {"GOOGLE_CLOUD_PROJECT": "a", "CLOUDSDK_CORE_PROJECT": "b"}, "a", "environment GOOGLE_CLOUD_PROJECT"),
    (Spec(), {"CLOUDSDK_CORE_PROJECT": "b"}, "b", "environment CLOUDSDK_CORE_PROJECT"),
    (Spec(), {"GOOGLE_CLOUD_PROJECT": ""}, "of-gcloud", "gcloud configuration default (core/project)"),
]
REGION_LADDER = [
    (Spec(region="of-file"), {}, "of-file", "gcpod.yaml"),
    (Spec(), {"CLOUD_ML_REGION": "a", "CLOUDSDK_AI_REGION": "b"}, "a", "environment CLOUD_ML_REGION"),
    (Spec(), {"CLOUDSDK_AI_REGION": "b", "CLOUDSDK_COMPUTE_REGION": "c"}, "b", "environment CLOUDSDK_AI_REGION"),
    (Spec(), {"CLOUDSDK_COMPUTE_REGION": "c"}, "c", "environment CLOUDSDK_COMPUTE_REGION"),
    (Spec(), {}, "of-ai", "gcloud configuration default (ai/region)"),
]


@pytest.mark.parametrize(("spec", "environ", "value", "source"), PROJECT_LADDER)
def test_where_the_project_comes_from(home: Path, spec: Spec, environ: dict[str, str], value: str, source: str) -> None:
    assert resolve(spec, environ=environ, home=home).project == Setting(value, source)


@pytest.mark.parametrize(("spec", "environ", "value", "source"), REGION_LADDER)
def test_where_the_region_comes_from(home: Path, spec: Spec, environ: dict[str, str], value: str, source: str) -> None:
    assert resolve(spec, environ=environ, home=home).region == Setting(value, source)


def test_the_file_wins_over_everything(home: Path) -> None:
    environ = {"GOOGLE_CLOUD_PROJECT": "a", "CLOUD_ML_REGION": "b", "GOOGLE_APPLICATION_CREDENTIALS": "/c.json"}
    spec = Spec(project="p", region="r", bucket="gs://bucket/x", credentials="key.json", folder=Path("/proj"))
    found = resolve(spec, environ=environ, home=home)
    values = [found.project, found.region, found.bucket, found.credentials]
    assert values == [Setting(v, "gcpod.yaml") for v in ("p", "r", "gs://bucket/x", "/proj/key.json")]
    assert str(found.bucket_uri) == "gs://bucket/x"
    assert found.endpoint == Setting("", "Google Cloud")


def test_the_compute_region_stands_in_for_the_ai_region(tmp_path: Path) -> None:
    write_gcloud(tmp_path, "[core]\nproject=p\n[compute]\nregion=europe-west4\n")
    found = resolve(Spec(), environ={"CLOUDSDK_CONFIG": str(tmp_path)}, home=tmp_path)
    assert found.region == Setting("europe-west4", "gcloud configuration default (compute/region)")
    assert found.bucket == Setting("gs://p-gcpod", "project")


@pytest.mark.parametrize(("spec", "what"), [(Spec(), "project"), (Spec(project="p"), "region")])
def test_nothing_found_says_what_was_looked_at(tmp_path: Path, spec: Spec, what: str) -> None:
    with pytest.raises(AuthError, match=f"finding the {what}") as caught:
        resolve(spec, environ={}, home=tmp_path)
    assert caught.value.exit_code == 7
    assert "CLOUDSDK_" in caught.value.found
    assert f"set `{what}:` in gcpod.yaml" in caught.value.fix


def test_where_gcloud_keeps_its_configurations(tmp_path: Path) -> None:
    assert gcloud_config_dir({"CLOUDSDK_CONFIG": "/x", "APPDATA": "/y"}, tmp_path) == Path("/x")
    assert gcloud_config_dir({"APPDATA": "/y"}, tmp_path) == Path("/y/gcloud")
    assert gcloud_config_dir({}, tmp_path) == tmp_path / ".config" / "gcloud"


def test_which_configuration_is_active(tmp_path: Path) -> None:
    for name in ("default", "work", "play"):
        write_gcloud(tmp_path, f"[core]\nproject = of-{name}\n", name)
    environ = {"CLOUDSDK_CONFIG": str(tmp_path)}
    assert read_gcloud_config(environ, tmp_path) == ("default", {"core/project": "of-default"})
    (tmp_path / "active_config").write_text("work\n")
    assert read_gcloud_config(environ, tmp_path) == ("work", {"core/project": "of-work"})
    environ["CLOUDSDK_ACTIVE_CONFIG_NAME"] = "play"
    assert read_gcloud_config(environ, tmp_path) == ("play", {"core/project": "of-play"})
    environ["CLOUDSDK_ACTIVE_CONFIG_NAME"] = "missing"
    assert read_gcloud_config(environ, tmp_path) == ("missing", {})


def test_a_configuration_of_a_damaged_name_is_none_at_all(tmp_path: Path) -> None:
    write_gcloud(tmp_path, "[core]\nproject = p\n")
    for name in ("a\0b", "../../config_default", "x" * 5000):
        (tmp_path / "active_config").write_text(name)
        assert read_gcloud_config({"CLOUDSDK_CONFIG": str(tmp_path)}, tmp_path)[1] in ({}, {"core/project": "p"})


@pytest.mark.parametrize("text", [f"project = {SECRET}\n", f"[core]\n{SECRET}\n", f"[core\nproject = {SECRET}\n"])
def test_a_damaged_gcloud_configuration_is_an_error_of_one_line(tmp_path: Path, text: str) -> None:
    write_gcloud(tmp_path, text)
    with pytest.raises(AuthError, match="reading gcloud's configuration default") as caught:
        resolve(Spec(), environ={"CLOUDSDK_CONFIG": str(tmp_path)}, home=tmp_path)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_percent_signs_and_repeated_keys_are_read_as_gcloud_does(tmp_path: Path) -> None:
    write_gcloud(tmp_path, "[core]\nproject = a%(b)s\nproject = c%d\n")
    assert read_gcloud_config({"CLOUDSDK_CONFIG": str(tmp_path)}, tmp_path)[1] == {"core/project": "c%d"}


@pytest.mark.tools
def test_gcpod_reads_what_gcloud_itself_wrote(tmp_path: Path) -> None:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        assert os.environ.get("CI") != "true", "CI has gcloud"
        pytest.skip("gcloud is not installed")
    environ = {"CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    own = {**os.environ, **environ}
    for arguments in (
        ["config", "configurations", "create", "team", "--no-user-output-enabled"],
        ["config", "set", "project", "written-by-gcloud"],
        ["config", "set", "ai/region", "europe-west4"],
    ):
        done = subprocess.run([gcloud, *arguments], env=own, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    found = resolve(Spec(), environ=environ, home=tmp_path / "none")
    assert found.project == Setting("written-by-gcloud", "gcloud configuration team (core/project)")
    assert found.region == Setting("europe-west4", "gcloud configuration team (ai/region)")


def test_a_local_cloud_needs_no_account(tmp_path: Path) -> None:
    spec = Spec(region="us-central1", credentials="key.json")
    found = resolve(spec, endpoint=f"{LOOPBACK}/", environ={}, home=tmp_path)
    assert (found.project.value, found.region.value) == ("local-project", "local")
    assert found.endpoint == Setting(LOOPBACK, "option")
    assert found.credentials.value == ""
    session = Session(found)
    assert session.is_local
    assert session.location == "projects/local-project/locations/local"
    assert session.console_url("7") == f"{LOOPBACK}/v1/projects/local-project/locations/local/customJobs/7"
    assert type(session.credentials).__name__ == "AnonymousCredentials"
    assert resolve(Spec(project="mine"), endpoint=LOOPBACK, environ={}, home=tmp_path).project.value == "mine"


def test_the_endpoint_may_come_from_the_environment(tmp_path: Path) -> None:
    found = resolve(Spec(), environ={"GCPOD_ENDPOINT": LOOPBACK}, home=tmp_path)
    assert found.endpoint == Setting(LOOPBACK, "environment GCPOD_ENDPOINT")


@pytest.mark.parametrize("url", [LOOPBACK, "http://localhost:1", "http://[::1]:1", "HTTP://LOCALHOST:80"])
def test_loopback_endpoints_are_taken(tmp_path: Path, url: str) -> None:
    assert resolve(Spec(), endpoint=url, environ={}, home=tmp_path).endpoint.value == url


@pytest.mark.parametrize("url", [
    "", "127.0.0.1:1", "https://127.0.0.1:1", "http://evil.example", "http://127.0.0.1:1@evil.example",
    f"http://user:{SECRET}@127.0.0.1:1", f"http://{SECRET}@evil.example", "http://evil.example\\@127.0.0.1",
    "http://127.0.0.1.evil.example", "http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:x", "http://0.0.0.0:1",
    "http://169.254.169.254", "file:///etc/passwd", "http://127.0.0.1:1/\n", "http://127.0.0.1#@evil.example", "http://",
    "http://127.0.0.1:0",
])
def test_any_other_endpoint_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SpecError, match="no http:// address on loopback") as caught:
        resolve(Spec(), endpoint=url, environ={}, home=tmp_path)
    assert SECRET not in str(caught.value)


@given(st.text() | st.text("htp:/@[]127.0#?\\ localhost", max_size=30))
def test_any_endpoint_is_on_loopback_or_refused(url: str) -> None:
    for candidate in (url, f"http://{url}", f"http://127.0.0.1{url}"):
        try:
            found = resolve(Spec(), endpoint=candidate, environ={}, home=Path("/nonexistent"))
        except SpecError:
            continue
        host = found.endpoint.value.split("/")[2].lower()
        assert host.startswith(("127.0.0.1", "localhost", "[::1]"))
        assert host.rpartition("]")[2].rpartition(":")[0] in ("", "127.0.0.1", "localhost")


@pytest.mark.parametrize("bucket", ["my-bucket", "gs://UPPER", "s3://bucket"])
def test_a_bucket_that_is_none_is_refused(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(SpecError, match="reading the address"):
        resolve(Spec(bucket=bucket), endpoint=LOOPBACK, environ={}, home=tmp_path)


def settings(credentials: Setting) -> Settings:
    return Settings(Setting("p", "x"), Setting("us-central1", "x"), Setting("gs://bucket", "x"), credentials,
                    Setting("", "Google Cloud"))


def test_where_the_credentials_come_from(home: Path) -> None:
    variable = {"GOOGLE_APPLICATION_CREDENTIALS": "/adc.json"}
    cases: list[tuple[Spec, dict[str, str], Setting]] = [
        (Spec(credentials="key.json", folder=Path("/proj")), variable, Setting("/proj/key.json", "gcpod.yaml")),
        (Spec(), variable, Setting("/adc.json", "environment GOOGLE_APPLICATION_CREDENTIALS")),
        (Spec(), {}, Setting("", "Application Default Credentials")),
    ]
    for spec, environ, expected in cases:
        assert resolve(spec, environ=environ, home=home).credentials == expected


USER = {"type": "authorized_user", "client_id": "id", "client_secret": SECRET, "refresh_token": SECRET}


def test_a_good_key_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(USER))
    session = Session(settings(Setting(str(path), "gcpod.yaml")))
    assert session.credentials.refresh_token == SECRET
    assert session.credentials is session.credentials
    assert not session.is_local
    assert session.console_url("7").startswith("https://console.cloud.google.com/vertex-ai/locations/us-central1/")


ACCOUNT = {"type": "service_account", "client_email": "a@b", "token_uri": "https://x"}


@pytest.mark.parametrize(("content", "found"), [
    ('{"type": "service_account", "private_key": "' + SECRET, "it is no JSON"),
    (f"{SECRET}\xff\xfe", "it is no JSON"),
    ("", "it is no JSON"),
    ("[" * 100_000, "google-auth cannot use them"),
    (f'"{SECRET}"', "google-auth cannot use them"),
    (f'["{SECRET}"]', "google-auth cannot use them"),
    ("null", "google-auth cannot use them"),
    (json.dumps({"type": SECRET}), "google-auth cannot use them"),
    (json.dumps({"type": [SECRET]}), "google-auth cannot use them"),
    (json.dumps({"type": "service_account", "private_key": SECRET}), "missing fields "),
    (json.dumps({**ACCOUNT, "private_key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n"}), "google-auth cannot use them"),
    (json.dumps({**ACCOUNT, "private_key": [SECRET]}), "google-auth cannot use them"),
    (json.dumps({"type": "authorized_user", "refresh_token": SECRET}), "missing fields "),
    (json.dumps({"type": "impersonated_service_account", "source_credentials": SECRET}), "google-auth cannot use them"),
    (json.dumps({"type": "external_account", "audience": SECRET}), "google-auth cannot use them"),
])
def test_a_broken_key_file_is_an_error_that_tells_nothing_of_its_content(
    tmp_path: Path, content: str, found: str,
) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(AuthError) as caught:
        _ = Session(settings(Setting(str(path), "gcpod.yaml"))).credentials
    message = str(caught.value)
    assert message.startswith(f"E105: loading credentials from {path} (gcpod.yaml): {found}")
    assert SECRET not in message
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "no.json", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(AuthError, match=found):
            _ = Session(settings(Setting(str(path), "gcpod.yaml"))).credentials


PRINT_CREDENTIALS = """
from gcpod.errors import AuthError
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
try:
    print(Session(resolve(Spec(project="p", region="r"))).credentials.refresh_token)
except AuthError as e:
    print(e)
"""


@pytest.mark.parametrize(("content", "expected"), [
    (json.dumps(USER), SECRET),
    (None, "loading credentials from Application Default Credentials: there are none; run `gcloud auth"),
    (json.dumps({"type": SECRET + "!"}), "Application Default Credentials: google-auth cannot use them;"),
])
def test_application_default_credentials(
    tmp_path: Path, content: str | None, expected: str,
) -> None:
    if content is not None:
        (tmp_path / "application_default_credentials.json").write_text(content)
    environ = {"CLOUDSDK_CONFIG": str(tmp_path), "NO_GCE_CHECK": "true", "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-W", "error", "-c", PRINT_CREDENTIALS], env=environ, capture_output=True,
                          text=True, timeout=60, check=False)
    assert expected in done.stdout, done.stderr
    assert f"{SECRET}!" not in done.stdout


def test_googles_clients_go_to_the_endpoint_of_the_settings(tmp_path: Path) -> None:
    local = Session(resolve(Spec(bucket="gs://bucket"), endpoint=LOOPBACK, environ={}, home=tmp_path))
    assert local.storage.project == "local-project"
    assert local.storage.api_endpoint == LOOPBACK
    request = local.vertex.list(parent=local.location)
    assert request.uri.startswith(f"{LOOPBACK}/v1/projects/local-project/locations/local/customJobs?")
    assert local.log_entries.list(body={}).uri.startswith(f"{LOOPBACK}/v2/entries:list?")
    path = tmp_path / "key.json"
    path.write_text(json.dumps(USER))
    real = Session(settings(Setting(str(path), "gcpod.yaml")))
    assert real.vertex.list(parent=real.location).uri.startswith("https://us-central1-aiplatform.googleapis.com/v1/")
    assert real.log_entries.list(body={}).uri.startswith("https://logging.googleapis.com/v2/")


def test_an_endpoint_is_asked_for_its_own_region_or_the_one_that_is_named() -> None:
    url = "http://127.0.0.1:8080"
    assert resolve(Spec(region="us-east1"), endpoint=url, environ={}, home=Path("/nonexistent")).region.value == "local"
    environ = {"GCPOD_ENDPOINT_REGION": "us-central1"}
    named = resolve(Spec(), endpoint=url, environ=environ, home=Path("/nonexistent")).region
    assert (named.value, named.source) == ("us-central1", "environment GCPOD_ENDPOINT_REGION")
