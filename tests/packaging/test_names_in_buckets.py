"""Names with '+', as PEP 440's local labels have it, through Google's client and each of the service's interfaces."""

from __future__ import annotations

import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from gcpod.localcloud.server import LocalCloud
from gcpod.packaging.sdist import Sdist, pack
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from gcpod.storage.known import local_files
from gcpod.storage.objects import Objects
from gcpod.storage.transfer import upload_files
from gcpod.uris import GcsUri

LABELLED = Sdist("trainer", "1.0", {"trainer/__init__.py": b"x = 1\n"}).labelled()
FOLDER = GcsUri("bench", "packages/digest")


def get(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as reply:
        data: bytes = reply.read()
        return data


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    (tmp_path / LABELLED.filename).write_bytes(pack(LABELLED))
    return pack(LABELLED)


def test_an_unchanged_package_is_uploaded_once_and_read_back_everywhere(tmp_path: Path, data: bytes) -> None:
    (file,) = local_files([(tmp_path / LABELLED.filename, FOLDER / LABELLED.filename)])
    with LocalCloud(tmp_path / "cloud") as cloud:
        session = Session(resolve(Spec(), endpoint=cloud.url, environ={}, home=Path()))
        objects = Objects(session)
        objects.ensure_bucket(FOLDER.bucket)
        plans = [upload_files(objects, [file], FOLDER) for _ in range(2)]
        assert [len(plan.uploads) for plan in plans] == [1, 0]
        assert [found.uri for found in objects.list(FOLDER)] == [file.uri]
        content = objects.read(file.uri)
        assert content is not None
        assert content.content == data
        # TensorFlow and gcloud write '+' as %2B; in a path it may stand for itself as well (RFC 3986, section 3.3).
        name = f"{FOLDER.name}/{LABELLED.filename}"
        for quoted in (urllib.parse.quote(name, safe=""), urllib.parse.quote(name, safe="+")):
            assert get(f"{cloud.url}/storage/v1/b/bench/o/{quoted}?alt=media") == data
        assert get(f"{cloud.url}/bench/{urllib.parse.quote(name)}") == data
        session.storage.close()
