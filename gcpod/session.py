"""Google's clients for one set of settings; the only constructor of Google clients.

Another endpoint, such as the local cloud's, is only another Session.
"""

from __future__ import annotations

import json
import os
import re
import threading
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

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
        """google-auth's session; on loopback it passes over the proxies that the environment names."""
        from google.auth.transport.requests import AuthorizedSession

        session = AuthorizedSession(self.credentials)
        session.trust_env = not self.is_local
        return session

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
        return self._discovered("aiplatform", "v1", base).projects().locations().customJobs()

    @cached_property
    def log_entries(self) -> Any:
        """The ``entries`` resource of the Cloud Logging API."""
        base = self.settings.endpoint.value or "https://logging.googleapis.com"
        return self._discovered("logging", "v2", base).entries()

    @cached_property
    def builds(self) -> Any:
        """The ``projects.locations.builds`` resource of the Cloud Build API."""
        base = self.settings.endpoint.value or "https://cloudbuild.googleapis.com"
        return self._discovered("cloudbuild", "v1", base).projects().locations().builds()

    @cached_property
    def registry(self) -> Any:
        """The ``projects.locations`` resource of the Artifact Registry API: its repositories and operations."""
        base = self.settings.endpoint.value or "https://artifactregistry.googleapis.com"
        return self._discovered("artifactregistry", "v1", base).projects().locations()

    @cached_property
    def billing(self) -> Any:
        """The ``services`` resource of the Cloud Billing API, which has the catalogue of prices."""
        base = self.settings.endpoint.value or "https://cloudbilling.googleapis.com"
        return self._discovered("cloudbilling", "v1", base).services()

    def _discovered(self, api: str, version: str, base: str) -> Any:
        from googleapiclient import discovery

        options = {"api_endpoint": base}
        http = _Http(self._transport)
        return discovery.build(api, version, http=http, static_discovery=True, client_options=options)

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
