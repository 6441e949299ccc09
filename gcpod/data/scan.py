"""Finds images and their annotations on disk and pairs them; nothing is decided about their quality here.

An annotation never makes a path: names in it are only looked up among the files that were found below the image
folder, so they cannot lead out of it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from gcpod.data.images import OTHER_SUFFIXES, SUFFIXES
from gcpod.data.split import Split, given_split
from gcpod.data.voc import Annotation, read_voc
from gcpod.errors import DataError
from gcpod.status import Finding, Severity


@dataclass(frozen=True)
class Sample:
    """An image with its annotation, or one of them alone.

    Attributes:
        name: path relative to the image folder (of an annotation alone: to the annotation folder), with forward
            slashes.
        image: None for an annotation without image.
        annotation: None for an image without annotation, or when that could not be read; then ``faults`` says why.
        given: the side of a split that the top folder names.
        faults: what went wrong while reading and pairing.
    """

    name: str
    image: Path | None
    annotation: Annotation | None
    given: Split | None = None
    faults: tuple[Finding, ...] = ()


def scan_dataset(images: Path, annotations: Path | None = None) -> tuple[Sample, ...]:
    """Walks both folders and pairs what is there, in the order of the names; hidden files are passed over.

    An annotation belongs to the image with its own relative path but for the suffix; failing that to the only image
    left of its bare name (a flat annotation folder beside images in subfolders), failing that to the image that its
    ``<filename>`` names.

    Args:
        annotations: folder of the XML files; None means beside the images.

    Raises:
        DataError: a folder is missing or unreadable, or holds no images or no annotations at all.
    """
    found_images = _found(images, "images", SUFFIXES.keys() | OTHER_SUFFIXES)
    folder = images if annotations is None else annotations
    read = {name: _read(folder / name) for name in _found(folder, "annotations", {".xml"})}
    pairs, faults = _pair({name: read[name][0] for name in read}, found_images)
    by_image = {image: xml for xml, image in pairs.items()}
    samples = [
        Sample(
            name=image, image=images / image, given=given_split(image),
            annotation=read[by_image[image]][0] if image in by_image else None,
            faults=read[by_image[image]][1] if image in by_image else (),
        )
        for image in found_images
    ]
    for xml in read.keys() - pairs.keys():
        annotation, broken = read[xml]
        fault = (Finding("D106", *_ambiguous(folder / xml, faults[xml])),) if xml in faults else ()
        samples.append(Sample(xml, None, annotation, given_split(xml), broken + fault))
    return tuple(sorted(samples, key=lambda sample: sample.name))


def claimed_name(annotation: Annotation) -> str:
    """The bare file name in ``<filename>``, whichever slashes it was written with."""
    return PureWindowsPath(annotation.filename).name


def _found(folder: Path, what: str, suffixes: Iterable[str]) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"looking for {what} in", folder, "there is no such folder", "give an existing folder")
    wanted = frozenset(suffixes)
    names = sorted(name for name in _walk(folder) if PurePosixPath(name).suffix.lower() in wanted)
    if not names:
        fix = "put JPEG or PNG files there" if what == "images" else "label the images with LabelImg (Pascal VOC)"
        raise DataError(f"looking for {what} in", folder, f"there are no {what} in it", fix)
    return names


def _walk(folder: Path) -> Iterator[str]:
    def fail(err: OSError) -> None:
        raise DataError("reading the folder", err.filename, str(err.strerror), "make it readable") from err

    for root, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = Path(root).relative_to(folder)
        yield from ((base / name).as_posix() for name in files if not name.startswith("."))


def _read(path: Path) -> tuple[Annotation | None, tuple[Finding, ...]]:
    try:
        return read_voc(path), ()
    except DataError as err:
        return None, (Finding(err.code, "error", err.on, err.found, err.fix),)


def _pair(xmls: dict[str, Annotation | None], images: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Returns image by annotation, and the candidates of each annotation that has too many of them."""
    exact, bare, named = (_index(images, key) for key in (_stem, _bare_stem, _base))
    pairs: dict[str, str] = {}
    many: dict[str, list[str]] = {}
    taken: set[str] = set()
    for index, key in ((exact, _stem), (bare, _bare_stem), (named, None)):
        for xml, annotation in xmls.items():
            claimed = claimed_name(annotation) if annotation else ""
            found = [image for image in index[key(xml) if key else claimed] if image not in taken]
            if len(found) > 1:
                found = [image for image in found if _base(image) == claimed] or found
            if xml in pairs or xml in many or not found:
                continue
            if len(found) > 1:
                many[xml] = found
            else:
                pairs[xml] = found[0]
                taken.add(found[0])
    return pairs, many


def _index(images: list[str], key: Callable[[str], str]) -> defaultdict[str, list[str]]:
    index: defaultdict[str, list[str]] = defaultdict(list)
    for image in images:
        index[key(image)].append(image)
    return index


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _bare_stem(name: str) -> str:
    return PurePosixPath(name).stem


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _ambiguous(path: Path, candidates: list[str]) -> tuple[Severity, str, str, str]:
    found = f"{len(candidates)} images could be meant: {', '.join(candidates[:3])}"
    return "error", str(path), found, "give each image and its annotation a name of their own"
