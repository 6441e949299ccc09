"""The schema that comes with gcpod is that of the source that is packaged by default."""

from __future__ import annotations

import pytest

from gcpod.cache import cache_dir
from gcpod.packaging.source import fetch_source
from gcpod.pipeline.schema import built_in_schema
from gcpod.runtimes import find_runtime
from tests.pipeline.source_schema import source_schema


@pytest.mark.trainer
def test_the_built_in_schema_is_the_packaged_releases() -> None:
    assert built_in_schema() == source_schema(fetch_source(find_runtime("tf2.12").object_detection, cache_dir()))
