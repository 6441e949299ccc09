"""``manifest.json``: what a finished dataset consists of, and whether the files beside it are still those."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gcpod.checksums import file_crc32c
from gcpod.data.labelmap import LabelMap, read_pbtxt
from gcpod.data.model import SPLITS, Split
from gcpod.errors import DataError, SpecError
from gcpod.status import Finding
from gcpod.uris import inside

MANIFEST_NAME = "manifest.json"
LABEL_MAP_NAME = "label_map.pbtxt"


@dataclass(frozen=True)
class ShardInfo:
    """One finished file of records.

    Attributes:
        size_bytes: of the file.
        crc32c: of the file, as Cloud Storage shows it: base64 of the big-endian checksum
            (https://cloud.google.com/storage/docs/json_api/v1/objects#resource).
    """

    name: str
    split: Split
    examples: int
    size_bytes: int
    crc32c: str


@dataclass(frozen=True)
class DatasetManifest:
    """A dataset on disk.

    Attributes:
        folder: where it lies; not part of the file, which is the same wherever it lies.
        digest: see `gcpod.data.plan.DatasetPlan.digest`.
        label_map: name of the label map's file.
        num_classes: see `gcpod.data.labelmap.LabelMap.num_classes`.
        images: number of images by split.
        boxes: number of boxes by split and label.
        findings: the warnings it was built with.
    """

    folder: Path
    digest: str
    label_map: str
    num_classes: int
    shards: tuple[ShardInfo, ...]
    images: Mapping[str, int]
    boxes: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]

    @property
    def label_map_path(self) -> Path:
        return self.folder / self.label_map

    def read_label_map(self) -> LabelMap:
        return read_pbtxt(self.label_map_path)

    def shard_paths(self, split: Split) -> tuple[Path, ...]:
        return tuple(self.folder / shard.name for shard in self.shards if shard.split == split)

    def to_json(self) -> str:
        content = {key: value for key, value in asdict(self).items() if key != "folder"}
        return json.dumps(content, indent=2, sort_keys=True) + "\n"


def parse_manifest(text: str, folder: Path) -> DatasetManifest:
    """Reads what `DatasetManifest.to_json` wrote.

    Raises:
        DataError: no JSON, or not of that shape.
    """
    try:
        content: Any = json.loads(text)
        shards = tuple(ShardInfo(**shard) for shard in content["shards"])
        known = DatasetManifest(
            folder=folder, digest=content["digest"], label_map=content["label_map"],
            num_classes=content["num_classes"], shards=shards, images=content["images"], boxes=content["boxes"],
            findings=tuple(Finding(**finding) for finding in content["findings"]),
        )
        names = [known.label_map, *(shard.name for shard in shards)]
        for name in names:
            inside(folder, name)
        if any(shard.split not in SPLITS for shard in shards):
            raise ValueError("a split is neither train nor eval")
    except (ValueError, KeyError, TypeError, RecursionError, SpecError) as err:
        raise _broken(folder, f"it is no manifest of gcpod ({err!r})") from err
    return known


def read_manifest(folder: Path) -> DatasetManifest:
    """Reads the manifest in a dataset's folder.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        text = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise _broken(folder, str(err)) from err
    return parse_manifest(text, folder)


def intact(manifest: DatasetManifest) -> bool:
    """Whether every shard is there with the size and the CRC-32C that the manifest names; reads them all."""
    return all(
        path.is_file() and path.stat().st_size == shard.size_bytes and file_crc32c(path) == shard.crc32c
        for shard in manifest.shards
        for path in (manifest.folder / shard.name,)
    )


def _broken(folder: Path, found: str) -> DataError:
    return DataError("reading", folder / MANIFEST_NAME, found, "build the dataset again: gcpod dataset build")
