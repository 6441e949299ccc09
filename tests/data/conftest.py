"""Small datasets made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest

from .making import Dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path)
