"""A split as folders of files, as the tutorials' partition script makes it: for tools that know no records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from gcpod.data.checked import CheckedSample
from gcpod.data.formats.splitlists import HOLDERS
from gcpod.data.formats.voc import to_voc
from gcpod.data.images import SUFFIXES
from gcpod.data.model import Box, Split, side_of
from gcpod.data.pixels import convert
from gcpod.data.plan import DatasetPlan
from gcpod.errors import DataError

FOLDERS: Final[dict[Split, str]] = {"train": "train", "eval": "test"}


def materialise(plan: DatasetPlan, out: Path) -> dict[Split, int]:
    """Copies the images into ``out/train`` and ``out/test``, each with its boxes as Pascal VOC XML beside it.

    Names keep their folders below the image folder, less one that named the side, and get the suffix of the format
    that is recorded. Images that are converted are copied as they are recorded; boxes are those that are recorded, in
    whole pixels.

    Returns:
        the number of images by split.

    Raises:
        DataError: the folder holds files already, two images would get one name, or a file cannot be written.
    """
    counts: dict[Split, int] = {"train": 0, "eval": 0}
    taken: set[Path] = set()
    try:
        if out.exists() and any(out.iterdir()):
            raise DataError("copying the split to", out, "the folder is not empty", "give a new one")
        for shard in plan.shards:
            for sample in shard.samples:
                names = [out / FOLDERS[shard.split] / _named(sample, name) for name in _names(sample)]
                path = next((path for path in names if path.with_suffix("") not in taken), None)
                if path is None:
                    found = f"{names[-1]} is there already"
                    raise DataError("copying", sample.image, found, "rename one of the images")
                taken.add(path.with_suffix(""))
                _copy(sample, path)
                counts[shard.split] += 1
    except OSError as err:
        raise DataError("copying the split to", out, err.strerror or str(err), "choose another folder") from err
    return counts


def _names(sample: CheckedSample) -> Iterator[PurePosixPath]:
    """The sample's name without the folder that names its side, and the whole of it, should that one be taken."""
    name = PurePosixPath(sample.name)
    folders = name.parts[:-1]
    at = 1 if folders and folders[0].lower() in HOLDERS else 0
    if len(folders) > at and side_of(folders[at]):
        yield PurePosixPath(*folders[:at], *folders[at + 1 :], name.name)
    yield name


def _named(sample: CheckedSample, name: PurePosixPath) -> PurePosixPath:
    kind = sample.conversion.format if sample.conversion else sample.probe.format
    promised = SUFFIXES.get(name.suffix.lower())
    if promised == kind:
        return name
    suffix = ".jpg" if kind == "jpeg" else f".{kind}"
    return name.with_suffix(suffix) if promised else name.with_name(name.name + suffix)


def _copy(sample: CheckedSample, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = sample.image.read()
    conversion = sample.conversion
    path.write_bytes(convert(data, conversion, sample.image) if conversion else data)
    width, height = (conversion.width, conversion.height) if conversion else (sample.width, sample.height)
    boxes = [_scaled(box, width / sample.width, height / sample.height) for box in sample.boxes]
    text = to_voc(path.name, width, height, boxes, folder=path.parent.name, path=str(path))
    path.with_suffix(".xml").write_text(text, encoding="utf-8")


def _scaled(box: Box, x: float, y: float) -> Box:
    return Box(
        box.label, box.xmin * x, box.ymin * y, box.xmax * x, box.ymax * y, box.difficult, box.truncated, pose=box.pose,
    )
