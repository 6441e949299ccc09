"""Everything that decodes pixels, by Pillow: proof that an image decodes, its fingerprint, turning, shrinking and
converting it.

Pillow is imported at first use: most datasets need it for fingerprints only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final, Literal

from gcpod.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION_TAG: Final = 0x0112
JPEG_QUALITY: Final = 95
"""Of JPEGs that had to be encoded again: Pillow's documentation names it as the highest sensible one
(https://pillow.readthedocs.io/en/stable/handbook/image-file-formats.html#jpeg-saving)."""

GRID: Final = 8
"""A fingerprint is the picture shrunk to GRID x GRID cells of three colours, a byte each."""

_DECODED_PX = 64
"""JPEGs are decoded for a fingerprint at 1/8, 1/4 or 1/2 of their size, but no smaller than this: all their bits are
read, which is the proof that they decode, at a third of the time."""


@dataclass(frozen=True)
class Conversion:
    """What is done to an image before it is recorded.

    Attributes:
        orientation: the EXIF orientation that is applied, 1 for none.
        width, height: pixels afterwards.
        format: of the bytes afterwards.
        why: in words, such as "turned" or "a WebP file".
    """

    orientation: int
    width: int
    height: int
    format: Literal["jpeg", "png"]
    why: str


def refused(where: object, found: str, fix: str) -> DataError:
    """The D106 error of an image."""
    return DataError("reading the image", where, found, fix, code="D106")


@contextmanager
def _decoding(where: object) -> Iterator[None]:
    """Pillow raises OSError, SyntaxError, ValueError, struct.error, DecompressionBombError and more over damaged files.

    Raises:
        DataError: D106.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as err:
        why = "" if "BytesIO" in str(err) else f" ({err})"
        raise refused(where, f"it cannot be decoded{why}", "save the image again, or delete it") from err


_SUMMED: Final = frozenset({"L", "LA", "RGB", "RGBA", "CMYK"})
MAX_DECODED_PX: Final = 89_000_000
"""Pillow takes more for an attack (Image.MAX_IMAGE_PIXELS)."""


def read_header(data: bytes, kind: str, where: object) -> tuple[int, int, str, int, int]:
    """Width and height in pixels, Pillow's mode, EXIF orientation and number of frames of a BMP, GIF or WebP.

    Raises:
        DataError: D106; it is damaged.
    """
    from PIL import Image

    with _decoding(where), Image.open(BytesIO(data), formats=[kind.upper()]) as image:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
        known = orientation if orientation in range(1, 9) else 1
        return *image.size, image.mode, known, getattr(image, "n_frames", 1)


def fingerprint(data: bytes, where: object) -> bytes:
    """The picture shrunk to GRID x GRID cells, row by row, three bytes (red, green, blue) each.

    Copies of a picture that were encoded again differ by little in every cell, see `gcpod.data.near`.

    Raises:
        DataError: D106; it does not decode.
    """
    from PIL import Image

    with _decoding(where), Image.open(BytesIO(data)) as opened:
        drafted = opened.draft("RGB", (_DECODED_PX, _DECODED_PX)) if opened.format == "JPEG" else None
        opened.load()
        image: Image.Image = opened
        # The last block of a picture shrunk by a whole factor is filled only partly.
        width, height = drafted[1][2:] if drafted else image.size
        if not drafted and (factor := min(image.size) // _DECODED_PX) > 1 and image.mode in _SUMMED:
            # A large picture is shrunk before copies of it are made in other modes.
            width, height = image.width / factor, image.height / factor
            image = image.reduce(factor)
        small = _plain(image).convert("RGB")
        box = (0, 0, min(width, small.width), min(height, small.height))
        cells: bytes = small.resize((GRID, GRID), Image.Resampling.BILINEAR, box=box).tobytes()
        return cells


def convert(data: bytes, conversion: Conversion, where: object) -> bytes:
    """The first frame, turned, shrunk and encoded anew as a ``Conversion`` says, without its metadata.

    Raises:
        DataError: D106; it does not decode.
    """
    from PIL import Image

    with _decoding(where), Image.open(BytesIO(data)) as image:
        image.load()
        ready = resized(turned(_plain(image), conversion.orientation), conversion)
        out = BytesIO()
        if conversion.format == "jpeg":
            ready.convert("L" if ready.mode == "L" else "RGB").save(out, "JPEG", quality=JPEG_QUALITY)
        else:
            ready.save(out, "PNG")
        return out.getvalue()


def shrink_mask(png: bytes, width: int, height: int, where: object) -> bytes:
    """A mask at another size: every pixel stays 0 or 1.

    Raises:
        DataError: D106; it does not decode.
    """
    from PIL import Image

    with _decoding(where), Image.open(BytesIO(png)) as image:
        out = BytesIO()
        image.resize((width, height), Image.Resampling.NEAREST).save(out, "PNG")
        return out.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    """An image of a mode that can be shrunk and saved, without the metadata that would turn it again.

    It holds what the trainer's decoder makes of the file: of 16 bits a sample the high byte, and no transparency, under
    which the colours stay as they are (https://www.tensorflow.org/api_docs/python/tf/io/decode_png).
    """
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 256).convert("L")
    opaque = image.convert("RGBA") if image.mode in ("P", "PA") else image
    plain = opaque.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    plain.info = {}
    return plain


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as viewers that honour EXIF show it."""
    from PIL.Image import Transpose

    how = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if how is None else image.transpose(how)


def resized(image: Image.Image, conversion: Conversion) -> Image.Image:
    """The image at the size that a ``Conversion`` names."""
    from PIL.Image import Resampling

    size = (conversion.width, conversion.height)
    return image if image.size == size else image.resize(size, Resampling.LANCZOS, reducing_gap=3.0)


def library_version() -> str:
    """Pillow's version: what it encodes may differ from one to the next."""
    import PIL

    return PIL.__version__
