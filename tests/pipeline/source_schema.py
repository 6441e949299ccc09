"""The schema of a whole source archive; run as a program it writes the one that comes with gcpod.

    python -m tests.pipeline.source_schema ARCHIVE
"""

from __future__ import annotations

import sys
from pathlib import Path

from gcpod.cache import cache_dir
from gcpod.packaging.modules import config_modules
from gcpod.pipeline.schema import BUILT_IN, Schema, read_schema, to_json


def source_schema(archive: Path) -> Schema:
    release = archive.name.removesuffix(".tar.gz").rpartition("-")[2]
    return read_schema(config_modules(archive, cache_dir()), release)


if __name__ == "__main__":
    BUILT_IN.write_text(to_json(source_schema(Path(sys.argv[1]))), encoding="utf-8")
