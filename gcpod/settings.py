"""Project, region, bucket, credentials and endpoint, and where each value came from; nothing is asked of a network.

Each comes from gcpod.yaml, else the environment, else gcloud's active configuration (project, region) or Application
Default Credentials (credentials).
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gcpod.errors import AuthError, SpecError
from gcpod.spec import Spec, StorageSpec
from gcpod.uris import GcsUri

ENDPOINT_VARIABLE = "GCPOD_ENDPOINT"
ENDPOINT_REGION_VARIABLE = "GCPOD_ENDPOINT_REGION"
"""The region to ask of a local cloud whose configuration has others than its own."""
PROJECT_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
REGION_VARIABLES = ("CLOUD_ML_REGION", "CLOUDSDK_AI_REGION", "CLOUDSDK_COMPUTE_REGION")
LOCAL_PROJECT = "local-project"
LOCAL_REGION = "local"
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
    storage: StorageSpec = StorageSpec()

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
        if env.get(ENDPOINT_REGION_VARIABLE):
            region = Setting(env[ENDPOINT_REGION_VARIABLE], f"environment {ENDPOINT_REGION_VARIABLE}")
    else:
        name, gcloud = read_gcloud_config(env, folder)
        project = _first("project", spec.project, env, PROJECT_VARIABLES, gcloud, ("core/project",), name)
        region = _first("region", spec.region, env, REGION_VARIABLES, gcloud, ("ai/region", "compute/region"), name)
    bucket = Setting(spec.bucket, "gcpod.yaml") if spec.bucket else Setting(_default_bucket(project.value), "project")
    GcsUri.parse(bucket.value)
    return Settings(project, region, bucket, _credentials(spec, env, where), where, spec.storage)


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
