"""A split as folders of files, as the tutorials' partition script makes it: for tools that know no records."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

from gcpod.data.check import CheckedSample
from gcpod.data.formats.voc import to_voc
from gcpod.data.model import Box, Split
from gcpod.data.pixels import convert
from gcpod.data.plan import DatasetPlan
from gcpod.errors import DataError

FOLDERS: Final[dict[Split, str]] = {"train": "train", "eval": "test"}


def materialise(plan: DatasetPlan, out: Path) -> dict[Split, int]:
    """Copies the images into ``out/train`` and ``out/test``, each with its boxes as Pascal VOC XML beside it.

    Names keep their folders below the image folder, less a leading one that named the split. Images that are converted
    are copied as they are recorded; boxes are those that are recorded, in whole pixels.

    Returns:
        the number of images by split.

    Raises:
        DataError: the folder holds files already, two images would get one name, or a file cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError("copying the split to", out, "the folder is not empty", "give a new one")
    counts: dict[Split, int] = {"train": 0, "eval": 0}
    taken: set[Path] = set()
    try:
        for shard in plan.shards:
            for sample in shard.samples:
                path = out / FOLDERS[shard.split] / _name(sample)
                if path.with_suffix("") in taken:
                    raise DataError("copying", sample.image, f"{path} is there already", "rename one of the images")
                taken.add(path.with_suffix(""))
                _copy(sample, path)
                counts[shard.split] += 1
    except OSError as err:
        raise DataError("copying the split to", out, err.strerror or str(err), "choose another folder") from err
    return counts


def _name(sample: CheckedSample) -> str:
    name = PurePosixPath(sample.name)
    parts = name.parts[1:] if sample.given and len(name.parts) > 1 else name.parts
    suffix = f".{sample.conversion.format}" if sample.conversion and sample.conversion.why else name.suffix
    if sample.conversion is None and not name.suffix:
        suffix = f".{sample.probe.format}"
    return str(PurePosixPath(*parts).with_suffix(suffix.replace(".jpeg", ".jpg")))


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
