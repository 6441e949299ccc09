"""Google's clients for one set of settings; the only constructor of Google clients.

Another endpoint, such as the local cloud's, is only another Session.
"""

from __future__ import annotations

import json
import os
import re
import threading
import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from gcpod.errors import AuthError
from gcpod.settings import Settings

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
REQUEST_TIMEOUT_S = 60.0


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


class UnreachableError(Exception):
    """Google's token service did not answer: it may later."""


class StatusError(Exception):
    """A service answered with another status than 2xx."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(status)
        self.status, self.content = status, content


@dataclass(frozen=True)
class Request:
    """A request of one of Google's services that is made, and not sent yet."""

    transport: Any
    method: str
    uri: str
    body: bytes | None

    def execute(self) -> Any:
        """Sends it, once: a create whose reply got lost would otherwise start a second job.

        Returns:
            What the JSON of the reply holds; an empty dictionary for an empty reply.

        Raises:
            StatusError: the status is not 2xx.
            ValueError: the reply is no JSON.
            requests.RequestException, google.auth.exceptions.GoogleAuthError: no answer, no credentials.
        """
        told = {"Accept": "application/json", **({} if self.body is None else {"Content-Type": "application/json"})}
        reply = self.transport.request(
            self.method, self.uri, data=self.body, headers=told, timeout=REQUEST_TIMEOUT_S, allow_redirects=False,
        )
        if not 200 <= reply.status_code < 300:
            raise StatusError(reply.status_code, reply.content)
        return json.loads(reply.content) if reply.content else {}


class Resource:
    """A resource of an API: each of its methods makes a request, each resource below it is called by its name.

    Google's own client of these documents takes a third of a second to import and to read them, which is three times
    as long as all the rest of `gcpod jobs show`.

    Args:
        transport: google-auth's session.
        base: URL of the service.
        described: the resource in the discovery document
            (https://developers.google.com/discovery/v1/reference/apis).
    """

    def __init__(self, transport: Any, base: str, described: dict[str, Any]) -> None:
        self._transport, self._base, self._described = transport, base, described

    def __getattr__(self, name: str) -> Any:
        if name in self._described.get("methods", {}):
            return partial(self._request, self._described["methods"][name])
        if name in self._described.get("resources", {}):
            return partial(Resource, self._transport, self._base, self._described["resources"][name])
        raise AttributeError(name)

    def _request(self, method: dict[str, Any], *, body: Any = None, **given: Any) -> Request:
        """Parameters that are None are left out.

        Raises:
            TypeError: the method has no such parameter, or wants another.
            ValueError: a part of the path is none.
        """
        known = method["parameters"]
        if (unknown := given.keys() - known.keys()) or (body is not None) is not ("request" in method):
            raise TypeError(f"{method['id']} is not called with {', '.join(sorted(unknown)) or 'that body'}")
        path, query = method["path"], {"alt": "json"}
        for name, parameter in known.items():
            value = given.get(name)
            if parameter["location"] == "path":
                if not re.fullmatch(parameter.get("pattern", "[^/]+"), str(value)):
                    raise ValueError(f"{method['id']} has no {name} {value!a}")
                path = path.replace(f"{{+{name}}}", quote(str(value))).replace(f"{{{name}}}", quote(str(value), ""))
            elif value is not None:
                query[name] = str(value)
        content = None if body is None else json.dumps(body).encode()
        return Request(self._transport, method["httpMethod"], f"{self._base}/{path}?{urlencode(query)}", content)


def resource_of(text: str, api: str, *path: str) -> dict[str, Any]:
    """One resource out of the text of a discovery document, such as ``projects``, ``locations``, ``customJobs``.

    Only this much is parsed: the whole of Vertex AI's 3 MB takes 45 ms.

    Raises:
        LookupError: there is no such resource.
    """
    key, prefix, reader = f'"{path[-1]}"', f"{api}.{'.'.join(path)}.", json.JSONDecoder()
    start = -1
    while (start := text.find(key, start + 1)) >= 0:
        # A quote inside a string has a backslash before it, so this is a whole string, and a key where a colon follows.
        value = re.compile(r"\s*:\s*(?=\{)").match(text, start + len(key))
        found = reader.raw_decode(text, value.end())[0] if value else {}
        methods = found.get("methods", {})
        if isinstance(methods, dict) and any(method.get("id") == prefix + name for name, method in methods.items()):
            return dict(found)
    raise LookupError(prefix)


class Session:
    """Google's clients for one set of settings; each is made at its first use and may be used from one thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._renewing = threading.Lock()

    @property
    def project(self) -> str:
        return self.settings.project.value

    @property
    def region(self) -> str:
        return self.settings.region.value

    @property
    def is_local(self) -> bool:
        """Whether another endpoint stands for Google Cloud: decides address, proxies and patience only."""
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
        """google-auth's session; on loopback, where nobody asks for credentials, the one that it is made of, without
        the proxies that the environment names: google-auth loads cryptography, half the time of `gcpod jobs show`."""
        if self.is_local:
            import requests

            plain = requests.Session()
            plain.trust_env = False
            return plain
        from google.auth.transport.requests import AuthorizedSession

        return AuthorizedSession(self.credentials)

    def authorise(self, method: str, url: str, headers: dict[str, str]) -> None:
        """Adds the credentials' headers to those of a request; from any thread.

        Raises:
            UnreachableError: they cannot be renewed for want of an answer.
            AuthError: they cannot be had or renewed.
        """
        if self.is_local:
            return
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.auth.transport.requests import Request

        try:
            with self._renewing:
                self.credentials.before_request(Request(), method, url, headers)
        except GoogleAuthError as e:
            if isinstance(e, TransportError) or getattr(e, "retryable", False):
                raise UnreachableError(f"credentials could not be renewed ({type(e).__name__})") from e
            raise AuthError("renewing the credentials for", url.partition("?")[0], str(e).splitlines()[0],
                            "run `gcloud auth application-default login`") from e

    def renew(self) -> bool:
        """Has the next request get a new token, where there is one to get; returns whether there is."""
        if self.is_local or not hasattr(self.credentials, "token"):
            return False
        with self._renewing:
            self.credentials.token = None
        return True

    @cached_property
    def storage(self) -> Any:
        """A google.cloud.storage.Client."""
        # Else a session's first request is followed by one for the bucket's metadata, whoever may read it or pays.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        from google.cloud import storage

        if not self.is_local:
            return storage.Client(project=self.project, credentials=self.credentials)
        options = {"api_endpoint": self.settings.endpoint.value}
        return storage.Client(self.project, self.credentials, client_options=options, _http=self._transport)

    @cached_property
    def vertex(self) -> Any:
        """The ``projects.locations.customJobs`` resource of the Vertex AI API."""
        base = self.settings.endpoint.value or f"https://{self.region}-aiplatform.googleapis.com"
        return self._discovered("aiplatform", "v1", base, "projects", "locations", "customJobs")

    @cached_property
    def log_entries(self) -> Any:
        """The ``entries`` resource of the Cloud Logging API."""
        base = self.settings.endpoint.value or "https://logging.googleapis.com"
        return self._discovered("logging", "v2", base, "entries")

    @cached_property
    def builds(self) -> Any:
        """The ``projects.locations.builds`` resource of the Cloud Build API."""
        base = self.settings.endpoint.value or "https://cloudbuild.googleapis.com"
        return self._discovered("cloudbuild", "v1", base, "projects", "locations", "builds")

    @cached_property
    def registry(self) -> Any:
        """The ``projects.locations`` resource of the Artifact Registry API: its repositories and operations."""
        base = self.settings.endpoint.value or "https://artifactregistry.googleapis.com"
        return self._discovered("artifactregistry", "v1", base, "projects", "locations")

    @cached_property
    def billing(self) -> Any:
        """The ``services`` resource of the Cloud Billing API, which has the catalogue of prices."""
        base = self.settings.endpoint.value or "https://cloudbilling.googleapis.com"
        return self._discovered("cloudbilling", "v1", base, "services")

    def _discovered(self, api: str, version: str, base: str, *path: str) -> Any:
        """The client of one resource of an API, with those below it."""
        from googleapiclient.discovery_cache import get_static_doc

        return Resource(self._transport, base, resource_of(get_static_doc(api, version), api, *path))

    @property
    def location(self) -> str:
        """The parent of custom jobs and of image repositories, ``projects/P/locations/R``."""
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
