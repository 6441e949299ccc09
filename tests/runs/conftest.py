"""A small spec, and a session on a local cloud whose jobs run the quick trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gcpod.data.model import Box
from gcpod.demo import demo_spec
from gcpod.localcloud.cloud import JobCloud
from gcpod.session import Session
from gcpod.settings import resolve
from gcpod.spec import DataSpec, Spec
from tests.data.making import Dataset


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A spec over a few images of two classes."""
    data = Dataset(tmp_path)
    for number in range(8):
        data.add(f"picture{number}.jpg", Box("cat" if number % 2 else "dog", 10, 10, 60, 40))
    return replace(demo_spec(steps=100), folder=tmp_path, data=DataSpec(images="images"))


@pytest.fixture
def session(quick_cloud: JobCloud, spec: Spec) -> Iterator[Session]:
    made = Session(resolve(spec, endpoint=quick_cloud.url, environ={}, home=spec.folder))
    yield made
    made.storage.close()
