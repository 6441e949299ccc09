"""Rigs: one storage contract for the local cloud, and for the real one where GCPOD_LIVE_BUCKET names a bucket."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from gcpod.localcloud.server import LocalCloud

QUANTUM = 256 * 1024
"""What chunks of a resumable upload are multiples of, in bytes."""
AT_ONCE = DEFAULT_RETRY.with_delay(initial=0.001, maximum=0.01)
"""Google's own retries without their pauses."""
LIVE_BUCKET = os.environ.get("GCPOD_LIVE_BUCKET", "")


@dataclass(frozen=True)
class Space:
    """A place of a test's own: a bucket, and a prefix that is "" where the bucket is fresh."""

    bucket: Any
    prefix: str

    def blob(self, name: str, **options: Any) -> Any:
        return self.bucket.blob(self.prefix + name, **options)

    def put(self, name: str, content: bytes = b"", **options: Any) -> Any:
        blob = self.blob(name)
        blob.upload_from_string(content, **options)
        return blob

    def names(self, prefix: str = "", **options: Any) -> list[str]:
        return [
            one.name.removeprefix(self.prefix) for one in self.bucket.list_blobs(prefix=self.prefix + prefix, **options)
        ]


def crc(content: bytes) -> str:
    """The CRC32C of bytes as the service writes it."""
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


@dataclass(frozen=True)
class Answer:
    """A raw HTTP reply."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class Raw:
    """Requests as no client library would send them."""

    host: str

    def line(self) -> socket.socket:
        """A bare connection."""
        name, _, port = self.host.partition(":")
        return socket.create_connection((name, int(port)), timeout=30)

    def __call__(self, verb: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(verb, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return Answer(reply.status, reply.headers, reply.read())
        finally:
            connection.close()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture(scope="session")
def client(cloud: LocalCloud) -> Iterator[Any]:
    made = local_client(cloud.url)
    yield made
    made.close()


def local_client(url: str) -> Any:
    return storage.Client(project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": url})


@pytest.fixture
def bucket(client: Any) -> Any:
    return client.create_bucket(f"b-{uuid.uuid4().hex[:12]}")


@pytest.fixture(params=["local", "live"] if LIVE_BUCKET else ["local"])
def space(request: pytest.FixtureRequest) -> Iterator[Space]:
    if request.param == "local":
        yield Space(request.getfixturevalue("bucket"), "")
        return
    live = storage.Client()
    made = Space(live.bucket(LIVE_BUCKET), f"gcpod-contract/{uuid.uuid4().hex}/")
    yield made
    made.bucket.delete_blobs(list(made.bucket.list_blobs(prefix=made.prefix)))
    live.close()


@pytest.fixture
def raw(cloud: LocalCloud) -> Raw:
    return Raw(f"127.0.0.1:{cloud.port}")


@pytest.fixture
def second_cloud(tmp_path: Path) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path / "second") as running:
        yield running
