"""A small spec, and a session on a local cloud whose jobs run the quick trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gcpod.localcloud.cloud import JobCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import Spec
from tests.runs import small_spec


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A spec over a few images of two classes."""
    return small_spec(tmp_path)


@pytest.fixture
def session(quick_cloud: JobCloud, spec: Spec) -> Iterator[Session]:
    made = Session(resolve(spec, endpoint=quick_cloud.url, environ={}, home=spec.folder))
    yield made
    made.storage.close()
