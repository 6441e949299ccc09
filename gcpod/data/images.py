"""What an image file really is, read from its headers without decoding a pixel.

The trainer decodes JPEG and PNG; a picture of another format can be converted, and everything else is a `DataError`
with code D106 naming what the file is instead. Segment and chunk layouts: JPEG ITU-T T.81 annex B
(https://www.w3.org/Graphics/JPEG/itu-t81.pdf), PNG https://www.w3.org/TR/png-3/, the EXIF orientation tag 0x0112 CIPA
DC-008 (https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import google_crc32c

from gcpod.data.pixels import ORIENTATION_TAG, read_header, refused
from gcpod.errors import DataError

ImageFormat = Literal["jpeg", "png", "bmp", "gif", "webp"]

SUFFIXES: Final[dict[str, ImageFormat]] = {
    ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".png": "png", ".bmp": "bmp", ".dib": "bmp",
    ".gif": "gif", ".webp": "webp",
}
"""Suffixes of images, and the format each one promises."""

OTHER_SUFFIXES: Final = frozenset({
    ".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".psd", ".tif", ".tiff",
})
"""Suffixes of images that are found and refused by name, so that none goes missing in silence."""

_PILLOW: Final[tuple[tuple[bytes, ImageFormat], ...]] = ((b"GIF8", "gif"), (b"BM", "bmp"), (b"RIFF", "webp"))
_MAGIC: Final = (
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"8BPS", "Photoshop"), (b"%PDF", "PDF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x0a", "JPEG XL"), (b"\0\0\0\x0cJXL ", "JPEG XL"), (b"<svg", "SVG"),
    (b"P6\n", "PPM"), (b"<!DO", "HTML page"), (b"<html", "HTML page"),
    (b"version https://git-lfs", "Git LFS pointer, not the file itself,"),
)
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_MODES: Final = {1: "L", 3: "RGB", 4: "CMYK"}
_PNG_MODES: Final = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_SOF_READABLE: Final = frozenset({0xC0, 0xC1, 0xC2})
_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_BARE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True)
class ImageProbe:
    """What the bytes of an image say.

    Attributes:
        format: the real one, whatever the name ends with; the value of ``image/format``.
        width, height: pixels as stored and as TensorFlow decodes them, before any EXIF rotation.
        mode: L, LA, P, RGB, RGBA or CMYK, with ";16" for 16 bits per sample.
        orientation: EXIF orientation, 1 (upright) to 8.
        size_bytes: length of the file.
        sha256: of the whole file, in hexadecimal.
        crc32c: of the whole file.
        frames: pictures in the file, as far as it is known to hold more than one.
    """

    format: ImageFormat
    width: int
    height: int
    mode: str
    orientation: int
    size_bytes: int
    sha256: str
    crc32c: int
    frames: int = 1

    @property
    def swaps_axes(self) -> bool:
        """Whether a viewer that honours EXIF shows the picture on its side (orientations 5 to 8)."""
        return self.orientation >= 5

    @property
    def unfit(self) -> str:
        """What keeps the trainer from reading it as it is, such as "a WebP file"; "" when nothing does.

        TensorFlow's decoder reads GIF and BMP too, but the Object Detection API's reader counts on JPEG and PNG
        (image/format in object_detection/data_decoders/tf_example_decoder.py), and a GIF has a fourth dimension.
        """
        if self.format not in ("jpeg", "png"):
            return f"a {_NAMES[self.format]} file"
        if self.mode == "CMYK":
            return "a CMYK JPEG"
        return "an animated PNG" if self.frames > 1 else ""


_NAMES: Final[dict[ImageFormat, str]] = {"jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "gif": "GIF", "webp": "WebP"}


@dataclass(frozen=True, slots=True)
class _Header:
    format: ImageFormat
    width: int
    height: int
    mode: str
    orientation: int
    frames: int = 1


def parse_image(data: bytes, where: object) -> ImageProbe:
    """Says what the bytes are; ``where`` is only for messages.

    Raises:
        DataError: D106; empty, truncated (no end marker), damaged header, none of the formats above, or a JPEG process
            that TensorFlow's decoder does not read.
    """
    if not data:
        raise refused(where, "the file is empty", "copy the image again, or delete it and its annotation")
    try:
        header = _header(data, where)
    except (struct.error, IndexError) as err:
        raise _truncated(where) from err
    if not (header.width and header.height):
        raise refused(where, f"its header says {header.width} x {header.height} pixels", "save the image again")
    return ImageProbe(
        format=header.format, width=header.width, height=header.height, mode=header.mode,
        orientation=header.orientation, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
        crc32c=google_crc32c.value(data), frames=header.frames,
    )


def _header(data: bytes, where: object) -> _Header:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data, where)
    if data.startswith(_PNG_SIGNATURE):
        return _png(data, where)
    for magic, kind in _PILLOW:
        if data.startswith(magic) and (kind != "webp" or data[8:12] == b"WEBP"):
            width, height, mode, orientation, frames = read_header(data, kind, where)
            return _Header(kind, width, height, mode, orientation, frames)
    raise refused(where, f"it is {_name(data)}", "convert it to JPEG or PNG")


def _name(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "an AVIF file" if data[8:11] == b"avi" else "a HEIC or video file"
    named = next((name for magic, name in _MAGIC if data.startswith(magic)), None)
    return f"a {named} file" if named else "no image that is known here"


def _jpeg(data: bytes, where: object) -> _Header:
    width = height = components = 0
    orientation = 1
    for marker, start, end in _segments(data, where):
        if marker in _SOF:
            if marker not in _SOF_READABLE or data[start] != 8:
                found = f"it is a JPEG of process SOF{marker - 0xC0} with {data[start]} bits"
                raise refused(where, found, "save it as a baseline or progressive JPEG")
            height, width, components = struct.unpack_from(">HHB", data, start + 1)
        elif marker == _APP1 and data[start : start + 6] == b"Exif\0\0":
            orientation = _orientation(data[start + 6 : end])
        elif marker == _SOS:
            # Within a scan 0xFF is always followed by 0 or a restart marker, so that this is the true end of image.
            if data.rfind(b"\xff\xd9", end) < 0:
                raise _truncated(where)
            break
    if components not in _JPEG_MODES:
        raise refused(where, f"it is a JPEG of {components} components", "convert it to RGB")
    return _Header("jpeg", width, height, _JPEG_MODES[components], orientation)


def _segments(data: bytes, where: object) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, start, end) of each segment's content, up to the first scan."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise refused(where, f"its JPEG segments are damaged at byte {at}", "save the image again")
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if marker in _BARE_MARKERS:
            continue
        if marker == _EOI:
            return
        size = struct.unpack_from(">H", data, at)[0]
        if size < 2 or at + size > len(data):
            raise _truncated(where)
        yield marker, at + 2, at + size
        at += size


def _png(data: bytes, where: object) -> _Header:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or zlib.crc32(data[12:29]) != struct.unpack_from(">I", data, 29)[0]:
        raise refused(where, "its PNG header is damaged", "save the image again")
    orientation = frames = 1
    for kind, start, end in _chunks(data, where):
        if kind == b"acTL":
            frames = struct.unpack_from(">I", data, start)[0]
        if kind == b"eXIf":
            orientation = _orientation(data[start:end])
    if colour not in _PNG_MODES:
        raise refused(where, f"its PNG colour type {colour} does not exist", "save the image again")
    return _Header("png", width, height, _PNG_MODES[colour] + (";16" if depth == 16 else ""), orientation, frames)


def _chunks(data: bytes, where: object) -> Iterator[tuple[bytes, int, int]]:
    """Yields (type, start, end) of each chunk's content; ends at IEND, and nowhere else."""
    at = len(_PNG_SIGNATURE)
    while True:
        size, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            raise _truncated(where)
        if kind == b"IEND":
            return
        yield kind, at + 8, at + 8 + size
        at += 12 + size


def _orientation(tiff: bytes) -> int:
    """The orientation in a TIFF block; 1 where it is absent or the block is damaged, as viewers have it."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        first = struct.unpack_from(f"{order}I", tiff, 4)[0]
        for index in range(struct.unpack_from(f"{order}H", tiff, first)[0]):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, first + 2 + 12 * index)
            if (tag, kind, count) == (ORIENTATION_TAG, 3, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _truncated(where: object) -> DataError:
    return refused(where, "the file is truncated", "copy the image again, or delete it and its annotation")
