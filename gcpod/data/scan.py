"""Finds images and their annotations on disk and pairs them; nothing is decided about their quality here.

An annotation never makes a path: names in it are only looked up among the files that were found below the image
folder, so they cannot lead out of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from gcpod.data.crew import Crew
from gcpod.data.files import ImageFile, suffix_of, walk, with_suffix
from gcpod.data.formats.coco import read_coco
from gcpod.data.formats.openimages import descriptions_beside
from gcpod.data.formats.splitlists import HOLDERS
from gcpod.data.formats.tables import read_tables
from gcpod.data.formats.tfrecord import read_tfrecords
from gcpod.data.formats.voc import read_voc_files
from gcpod.data.formats.vott1 import read_vott1
from gcpod.data.formats.yolo import read_yolo
from gcpod.data.images import OTHER_SUFFIXES, SUFFIXES
from gcpod.data.labelmap import LabelMap
from gcpod.data.model import Annotation, ImageSource, Labels, Sample, side_of
from gcpod.data.recognise import Source, recognise
from gcpod.errors import DataError
from gcpod.status import Finding


@dataclass(frozen=True)
class Scan:
    """A dataset as it lies there.

    Attributes:
        source: where the labels were found, and in which format.
        samples: in the order of their names.
        label_map: the one that belongs to the labels, where the format has ids.
        faults: of the annotations as a whole, or without an image they could be told of.
    """

    source: Source
    samples: tuple[Sample, ...]
    label_map: LabelMap | None = None
    faults: tuple[Finding, ...] = ()


def scan_dataset(
    images: Path, annotations: Path | None = None, format: str = "auto", masks: bool = False,
    listed: Sequence[str] | None = None, crew: Crew | None = None,
) -> Scan:
    """Reads all annotations, walks the image folder and pairs what is there.

    An annotation of a format with a file for each image belongs to the image with its own relative path but for the
    suffix; failing that to the only image left of its bare name where one of the two has no folder (a flat annotation
    folder beside images in subfolders), failing that, as all others, to the image that it names.

    Args:
        images: folder of the images, or of TFRecords.
        annotations: folder, file or pattern of the labels; None means that they lie in the image folder.
        format: a `gcpod.data.recognise.Format` to insist on, or "auto".
        masks: carry COCO's masks along.
        listed: names of the images, where they are not files of a folder on this machine.
        crew: who reads annotations that are many files; None is this process alone.

    Raises:
        DataError: a folder is missing or unreadable, or holds no images or no annotations at all.
    """
    source = recognise(annotations or images, format)
    if source.format == "tfrecord":
        labels, samples = read_tfrecords(source.files, source.folder)
        return Scan(source, samples, labels.label_map, labels.faults)
    names = _images(images) if listed is None else list(listed)
    if not names and "tfrecord" in source.also:
        return scan_dataset(images, annotations, "tfrecord")
    if not names:
        raise DataError("looking for images in", images, "there are no images in it", "put JPEG or PNG files there")
    labels = _read(source, masks, crew)
    samples = _paired(labels, {name: ImageFile(f"{images}/{name}") for name in names}, images)
    return Scan(source, samples, labels.label_map, labels.faults)


def _read(source: Source, masks: bool, crew: Crew | None) -> Labels:
    folder = source.folder
    if source.format == "vott1":
        return read_vott1(folder, crew)
    if source.format == "voc":
        return read_voc_files(folder, source.names, crew)
    if source.format == "yolo":
        return read_yolo(folder, source.files[0] if source.names else None)
    if source.format == "coco":
        return read_coco(source.files, masks)
    descriptions = descriptions_beside(source.files) if source.format == "openimages" else None
    return read_tables(source.files, descriptions)


def _images(folder: Path) -> list[str]:
    return with_suffix(walk(folder), SUFFIXES.keys() | OTHER_SUFFIXES)


def _paired(labels: Labels, images: Mapping[str, ImageSource], folder: Path) -> tuple[Sample, ...]:
    keys: list[Annotation | str] = [*labels.annotations, *labels.broken]
    pairs, many, lost = _pair(keys, list(images), _Beside(folder))
    by_image = {name: keys[index] for index, name in pairs.items()}
    samples = [_sample(name, image, by_image.get(name), labels) for name, image in images.items()]
    for index, key in enumerate(keys):
        if index not in pairs:
            samples.append(_alone(key, many.get(index), lost.get(index), labels))
    return tuple(sorted(samples, key=lambda sample: sample.name))


def _sample(name: str, image: ImageSource, key: Annotation | str | None, labels: Labels) -> Sample:
    top, slash, rest = name.partition("/")
    if slash and top.lower() in HOLDERS:
        top, slash, rest = rest.partition("/")
    given = side_of(top) if slash else None
    if isinstance(key, Annotation):
        return Sample(name, image, key, key.given or given)
    faults = () if key is None else (labels.broken[key],)
    return Sample(name, image, None, given, faults)


def _alone(key: Annotation | str, candidates: list[str] | None, lost: str | None, labels: Labels) -> Sample:
    if isinstance(key, str):
        return Sample(key, None, None, None, (labels.broken[key],))
    faults: tuple[Finding, ...] = ()
    if candidates:
        faults = (_ambiguous(str(key.path), candidates),)
    elif lost:
        found = f"its image {lost} has another annotation already, so this one was left out"
        faults = (Finding("D106", "warning", str(key.path), found, "delete one of the two"),)
    return Sample(str(key.path), None, key, key.given, faults)


def _pair(
    keys: Sequence[Annotation | str], images: Sequence[str], beside: _Beside,
) -> tuple[dict[int, str], dict[int, list[str]], dict[int, str]]:
    """Returns image by the number of its annotation, the candidates of those that have too many of them, and the image
    that another annotation took before."""
    pairs: dict[int, str] = {}
    many: dict[int, list[str]] = {}
    lost: dict[int, str] = {}
    taken: set[str] = set()
    steps: tuple[tuple[Callable[[str], str], Callable[[Annotation | str], str]], ...] = (
        (_stem, lambda key: _stem(_stem_of(key))),
        (lambda image: image.lower(), beside),
        (lambda image: image.lower(), lambda key: _claimed_path(key).lower()),
        (_bare_stem, lambda key: _base(_stem_of(key))),
        (_base, lambda key: key.claimed if isinstance(key, Annotation) else ""),
        (lambda image: _base(image).lower(), lambda key: unquote(_claimed_path(key).rpartition("/")[2]).lower()),
    )
    for of_image, of_key in steps:
        left = [number for number in range(len(keys)) if number not in pairs and number not in many]
        index = _index(images, of_image) if left else {}
        for number in left:
            key = keys[number]
            wanted = of_key(key)
            meant = [image for image in index.get(wanted, ()) if _may_belong(image, key)] if wanted else []
            found = [image for image in meant if image not in taken]
            if meant and not found:
                lost.setdefault(number, meant[0])
            if len(found) > 1:
                claimed = key.claimed if isinstance(key, Annotation) else ""
                found = [image for image in found if _base(image) == claimed] or found
            if len(found) > 1:
                many[number] = found
            elif found:
                pairs[number] = found[0]
                taken.add(found[0])
    return pairs, many, lost


def _may_belong(image: str, key: Annotation | str) -> bool:
    """Whether their folders say nothing against it: one has none, or the end of one is the other."""
    stem = _stem_of(key)
    folder = _folder(_stem(stem) if stem else _claimed_path(key))
    own = _folder(_stem(image))
    return f"/{own}".endswith(f"/{folder}") or f"/{folder}".endswith(f"/{own}") or not (own and folder)


def _folder(name: str) -> str:
    return "/".join(part for part in name.split("/")[:-1] if part.lower() not in HOLDERS).lower()


class _Beside:
    """The claimed name as one in the annotation file's own folder, where that lies below the image folder."""

    def __init__(self, images: Path) -> None:
        self._root = "" if images == Path() else f"{images}/"
        self._folders: dict[Path, str] = {}

    def __call__(self, key: Annotation | str) -> str:
        claimed = _claimed_path(key)
        if isinstance(key, str) or not claimed:
            return ""
        if key.path not in self._folders:
            folder = "" if key.path.parent == Path() else f"{key.path.parent}/"
            self._folders[key.path] = folder.removeprefix(self._root) if folder.startswith(self._root) else ""
        return (self._folders[key.path] + claimed).lower()


def _stem_of(key: Annotation | str) -> str:
    return key.stem if isinstance(key, Annotation) else key


def _claimed_path(key: Annotation | str) -> str:
    """The claimed name as a relative path; of an absolute one its last part, as it is from another machine."""
    if isinstance(key, str):
        return ""
    path = key.filename.replace("\\", "/")
    if path.startswith("/") or ":" in path:
        return key.claimed
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _index(images: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    index: defaultdict[str, list[str]] = defaultdict(list)
    for image in images:
        index[key(image)].append(image)
    return index


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    suffix = suffix_of(last)
    last = last[: len(last) - len(suffix)] if suffix in SUFFIXES else last
    if not slash:
        return last
    return "/".join([*(part for part in folder.split("/") if part.lower() not in HOLDERS), last])


def _bare_stem(name: str) -> str:
    last = _base(name)
    return last[: len(last) - len(suffix_of(last))]


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _ambiguous(path: str, candidates: list[str]) -> Finding:
    found = f"{len(candidates)} images could be meant: {', '.join(candidates[:3])}"
    return Finding("D106", "error", path, found, "give each image and its annotation a name of their own")
