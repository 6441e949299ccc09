"""Fixtures of the tests of transfers; modules that need another cloud have one of that name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gcpod.localcloud.server import LocalCloud

from .place import Place, placed


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture
def place(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("GCPOD_CACHE", str(tmp_path / "cache"))
    with placed(cloud, tmp_path) as made:
        yield made
