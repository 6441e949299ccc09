"""Small datasets made on the spot, and the real photographs that lie beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .making import Dataset

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data; absent on a machine that has only the repository, but never in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED} is missing in CI")
        pytest.skip(f"{SHARED} is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def raccoon(shared_data: Path) -> Path:
    return shared_data / "raccoon"
