"""Who and where you are: project, region, credentials and endpoints; the only constructor of Google clients.

Each value comes from gcpod.yaml, else the environment, else gcloud's active configuration (project, region) or
Application Default Credentials (credentials). Another endpoint, such as the local cloud's, is only another Session.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gcpod.errors import AuthError, SpecError
from gcpod.spec import Spec
from gcpod.uris import GcsUri

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ENDPOINT_VARIABLE = "GCPOD_ENDPOINT"
PROJECT_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
REGION_VARIABLES = ("CLOUD_ML_REGION", "CLOUDSDK_AI_REGION", "CLOUDSDK_COMPUTE_REGION")
LOCAL_PROJECT = "local-project"
LOCAL_REGION = "local"
REQUEST_TIMEOUT_S = 60.0
ANY_LOCAL = "http://127.0.0.1:1"
"""Stands for a local cloud where nothing will be asked of it: nothing ever serves on port 1."""


@dataclass(frozen=True)
class Setting:
    """A value and where it came from, for `gcpod config show`."""

    value: str
    source: str


@dataclass(frozen=True)
class Settings:
    """Everything a Session is made of.

    Attributes:
        endpoint: base URL that stands for all of Google Cloud; "" is Google itself.
        credentials: key file path; "" means Application Default Credentials, or none for an http:// endpoint.
    """

    project: Setting
    region: Setting
    bucket: Setting
    credentials: Setting
    endpoint: Setting

    @property
    def bucket_uri(self) -> GcsUri:
        return GcsUri.parse(self.bucket.value)


def gcloud_config_dir(environ: Mapping[str, str], home: Path) -> Path:
    """Where gcloud keeps its configurations (https://cloud.google.com/sdk/docs/configurations)."""
    if environ.get("CLOUDSDK_CONFIG"):
        return Path(environ["CLOUDSDK_CONFIG"])
    if environ.get("APPDATA"):
        return Path(environ["APPDATA"]) / "gcloud"
    return home / ".config" / "gcloud"


def read_gcloud_config(environ: Mapping[str, str], home: Path) -> tuple[str, dict[str, str]]:
    """The name of gcloud's active configuration and its properties as ``section/key``; empty when there is none."""
    folder = gcloud_config_dir(environ, home)
    name = environ.get("CLOUDSDK_ACTIVE_CONFIG_NAME") or _read(folder / "active_config").strip() or "default"
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(_read(folder / "configurations" / f"config_{Path(name).name}"))
    except configparser.Error as e:
        raise AuthError(
            "reading gcloud's configuration", name, str(e).splitlines()[0],
            "repair it with `gcloud config set project ID`",
        ) from e
    return name, {f"{section}/{key}": value for section in parser.sections() for key, value in parser[section].items()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def resolve(
    spec: Spec, *, endpoint: str | None = None, environ: Mapping[str, str] | None = None, home: Path | None = None,
) -> Settings:
    """Looks each setting up: the file, else the environment, else gcloud, else Application Default Credentials.

    Args:
        spec: the loaded gcpod.yaml.
        endpoint: base URL of a cloud that stands for Google's; default: the variable GCPOD_ENDPOINT.
        environ, home: the process's own unless given.

    Raises:
        AuthError: no project or no region can be found.
        SpecError: the endpoint or the bucket is no valid address.
    """
    env = os.environ if environ is None else environ
    folder = Path.home() if home is None else home
    where = _endpoint(endpoint, env)
    if where.value:
        project = Setting(spec.project, "gcpod.yaml") if spec.project else Setting(LOCAL_PROJECT, "local cloud")
        region = Setting(LOCAL_REGION, "local cloud")
    else:
        name, gcloud = read_gcloud_config(env, folder)
        project = _first("project", spec.project, env, PROJECT_VARIABLES, gcloud, ("core/project",), name)
        region = _first("region", spec.region, env, REGION_VARIABLES, gcloud, ("ai/region", "compute/region"), name)
    bucket = Setting(spec.bucket, "gcpod.yaml") if spec.bucket else Setting(_default_bucket(project.value), "project")
    GcsUri.parse(bucket.value)
    return Settings(project, region, bucket, _credentials(spec, env, where), where)


def _default_bucket(project: str) -> str:
    """The default bucket of a project; ids of organisations' projects hold a colon, which bucket names may not."""
    return "gs://" + project.replace(":", "-").replace(".", "-") + "-gcpod"


def _endpoint(given: str | None, env: Mapping[str, str]) -> Setting:
    if given is not None:
        where = Setting(given, "option")
    elif env.get(ENDPOINT_VARIABLE):
        where = Setting(env[ENDPOINT_VARIABLE], f"environment {ENDPOINT_VARIABLE}")
    else:
        return Setting("", "Google Cloud")
    if not _on_loopback(where.value):
        raise SpecError("using the endpoint of", where.source, "it is no http:// address on loopback",
                        "give the URL of `gcpod local up`")
    return Setting(where.value.rstrip("/"), where.source)


def _on_loopback(url: str) -> bool:
    """Whether every URL parser sees this machine: a user name or a backslash is where they differ."""
    try:
        parts = urlsplit(url)
        known = parts.hostname in ("127.0.0.1", "localhost", "::1") and parts.port != 0
    except ValueError:
        return False
    odd = re.search(r"[@\\\s?#]", url)
    return parts.scheme == "http" and known and not odd


def _first(
    what: str, given: str | None, env: Mapping[str, str], variables: tuple[str, ...],
    gcloud: Mapping[str, str], keys: tuple[str, ...], configuration: str,
) -> Setting:
    if given:
        return Setting(given, "gcpod.yaml")
    for variable in variables:
        if env.get(variable):
            return Setting(env[variable], f"environment {variable}")
    for key in keys:
        if gcloud.get(key):
            return Setting(gcloud[key], f"gcloud configuration {configuration} ({key})")
    raise AuthError(
        f"finding the {what}", "for Google Cloud",
        f"neither gcpod.yaml, nor {' or '.join(variables)}, nor gcloud's configuration {configuration!r} names one",
        f"set `{what}:` in gcpod.yaml, or run with --local to need no account",
    )


def _credentials(spec: Spec, env: Mapping[str, str], endpoint: Setting) -> Setting:
    if endpoint.value:
        return Setting("", "none needed by the local cloud")
    if spec.credentials:
        return Setting(str(spec.local_path(spec.credentials)), "gcpod.yaml")
    if env.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return Setting(env["GOOGLE_APPLICATION_CREDENTIALS"], "environment GOOGLE_APPLICATION_CREDENTIALS")
    return Setting("", "Application Default Credentials")


def _load_credentials(path: str) -> Any:
    import google.auth

    if not path:
        return google.auth.default(scopes=[SCOPE])[0]
    json.loads(Path(path).read_bytes())
    with warnings.catch_warnings():
        # google-auth deprecates this for files of strangers; this one the user named.
        warnings.simplefilter("ignore", DeprecationWarning)
        return google.auth.load_credentials_from_file(path, scopes=[SCOPE])[0]


def _refusal(error: Exception) -> str:
    """What is wrong with credentials, without a word of what they hold."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return "it is no JSON"
    text = str(error)
    missing = re.search(r"missing fields [a-z_, ]+", text)
    if missing:
        return missing.group()
    return "there are none" if "were not found" in text else "google-auth cannot use them"


class _Http:
    """The transport of the discovery clients: google-auth's session in the shape that httplib2 has.

    httplib2 itself sends a request again when the connection breaks (its RETRIES), also a create whose reply got lost,
    which would start a second job.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any,
    ) -> tuple[Any, bytes]:
        import httplib2

        reply = self._session.request(method, uri, data=body, headers=headers, timeout=REQUEST_TIMEOUT_S)
        return httplib2.Response({**reply.headers, "status": str(reply.status_code)}), reply.content

    def close(self) -> None:
        self._session.close()


class Session:
    """Google's clients for one set of settings; each is made at its first use and may be used from one thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def project(self) -> str:
        return self.settings.project.value

    @property
    def region(self) -> str:
        return self.settings.region.value

    @property
    def is_local(self) -> bool:
        """Whether another endpoint stands for Google Cloud; for messages only, never for another way of working."""
        return bool(self.settings.endpoint.value)

    @cached_property
    def credentials(self) -> Any:
        """google-auth credentials.

        Raises:
            AuthError: there are none, or the key file cannot be read.
        """
        import google.auth.credentials

        if self.is_local:
            return google.auth.credentials.AnonymousCredentials()
        path, source = self.settings.credentials.value, self.settings.credentials.source
        try:
            return _load_credentials(path)
        except Exception as e:
            # google-auth lets KeyError, TypeError and AttributeError out of damaged files, and quotes the file's
            # content in its messages and in theirs: nothing of either is shown.
            raise AuthError(
                "loading credentials from", f"{path} ({source})" if path else source, _refusal(e),
                "run `gcloud auth application-default login`, or name a key file in gcpod.yaml",
            ) from None

    @cached_property
    def _transport(self) -> Any:
        """google-auth's session; on loopback it passes over the proxies that the environment names."""
        from google.auth.transport.requests import AuthorizedSession

        session = AuthorizedSession(self.credentials)
        session.trust_env = not self.is_local
        return session

    @cached_property
    def storage(self) -> Any:
        """A google.cloud.storage.Client."""
        from google.cloud import storage

        if not self.is_local:
            return storage.Client(project=self.project, credentials=self.credentials)
        options = {"api_endpoint": self.settings.endpoint.value}
        return storage.Client(self.project, self.credentials, client_options=options, _http=self._transport)

    @cached_property
    def vertex(self) -> Any:
        """The ``projects.locations.customJobs`` resource of the Vertex AI API."""
        base = self.settings.endpoint.value or f"https://{self.region}-aiplatform.googleapis.com"
        return self._discovered("aiplatform", "v1", base).projects().locations().customJobs()

    @cached_property
    def log_entries(self) -> Any:
        """The ``entries`` resource of the Cloud Logging API."""
        base = self.settings.endpoint.value or "https://logging.googleapis.com"
        return self._discovered("logging", "v2", base).entries()

    def _discovered(self, api: str, version: str, base: str) -> Any:
        from googleapiclient import discovery

        options = {"api_endpoint": base}
        http = _Http(self._transport)
        return discovery.build(api, version, http=http, static_discovery=True, client_options=options)

    @property
    def location(self) -> str:
        """The parent of custom jobs, ``projects/P/locations/R``."""
        return f"projects/{self.project}/locations/{self.region}"

    def sdk_job(self, name: str) -> Any:
        """A job as the ``aiplatform.CustomJob`` of Google's SDK, for scripts that go on with that.

        The SDK's settings are those of the whole process: this call replaces them by this session's.
        """
        from google.cloud import aiplatform

        options = {"api_endpoint": self.settings.endpoint.value, "api_transport": "rest"} if self.is_local else {}
        aiplatform.init(project=self.project, location=self.region, credentials=self.credentials, **options)
        return aiplatform.CustomJob.get(name)

    def console_url(self, job_id: str) -> str:
        """The page of a job in the console; for the local cloud, its own job resource."""
        if self.is_local:
            return f"{self.settings.endpoint.value}/v1/{self.location}/customJobs/{job_id}"
        return f"https://console.cloud.google.com/vertex-ai/locations/{self.region}/training/{job_id}?project={self.project}"
