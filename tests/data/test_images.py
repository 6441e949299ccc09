from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gcpod.data.files import ImageFile
from gcpod.data.images import parse_image
from gcpod.errors import DataError

from .making import outcome, picture

PATH = Path("a.jpg")


def saved(mode: str, kind: str, **options: object) -> bytes:
    out = BytesIO()
    Image.new(mode, (64, 40)).save(out, kind, **options)
    return out.getvalue()


def turned(orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    return saved("RGB", kind, exif=exif)


def test_real_photographs_are_read_as_pillow_reads_them(raccoon: Path) -> None:
    for path in sorted((raccoon / "images").iterdir()):
        probe = parse_image(path.read_bytes(), path)
        with Image.open(path) as image:
            assert (probe.width, probe.height, probe.mode) == (*image.size, image.mode)
            assert probe.format == str(image.format).lower()
            assert probe.orientation == image.getexif().get(0x0112, 1)


@pytest.mark.parametrize(("mode", "kind", "options"), [
    ("RGB", "JPEG", {}), ("L", "JPEG", {}), ("RGB", "JPEG", {"progressive": True}), ("RGB", "PNG", {}),
    ("L", "PNG", {}), ("P", "PNG", {}), ("RGBA", "PNG", {}), ("LA", "PNG", {}),
])
def test_formats_that_the_trainer_reads(mode: str, kind: str, options: dict[str, object]) -> None:
    data = saved(mode, kind, **options)
    probe = parse_image(data, PATH)
    assert (probe.format, probe.width, probe.height, probe.mode) == (kind.lower(), 64, 40, mode)
    assert (probe.size_bytes, probe.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert probe.crc32c == google_crc32c.value(data)


def test_sixteen_bits_are_named() -> None:
    assert parse_image(saved("I;16", "PNG"), PATH).mode == "L;16"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_exif_orientation(kind: str, orientation: int) -> None:
    probe = parse_image(turned(orientation, kind), PATH)
    assert (probe.orientation, probe.swaps_axes) == (orientation, orientation >= 5)


def animated_png() -> bytes:
    out = BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.mark.parametrize(("data", "found"), [
    (b"", "is empty"),
    (saved("RGB", "TIFF"), "a TIFF file"),
    (saved("RGB", "BMP")[:20], "cannot be decoded"),
    (saved("P", "GIF")[:10], "cannot be decoded"),
    (saved("RGB", "WEBP")[:20], "cannot be decoded"),
    (b"\0\0\0\x1cftypheic", "HEIC"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    (b"hello", "no image that is known"),
    (picture()[:-2], "truncated"),
    (picture()[:100], "truncated"),
    (picture(kind="PNG")[:-12], "truncated"),
    (picture(kind="PNG")[:20], "truncated"),
    (picture(kind="PNG").replace(b"IHDR", b"IHDX"), "PNG header is damaged"),
    (picture().replace(b"\xff\xc0", b"\xff\xc3"), "process SOF3"),
    (picture().replace(b"\xff\xdb", b"\x00\xdb", 1), "segments are damaged"),
    (picture().replace(b"\x00\x32\x00\x64", b"\x00\x00\x00\x64"), "100 x 0 pixels"),
])
def test_other_files_are_refused_by_name(data: bytes, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_image(data, PATH)
    assert caught.value.code == "D106"


def test_a_thumbnail_within_a_truncated_jpeg_does_not_hide_it() -> None:
    whole = saved("RGB", "JPEG", comment=picture((1, 2, 3), (8, 8)))
    assert whole.count(b"\xff\xd9") > 1
    with pytest.raises(DataError, match="truncated"):
        parse_image(whole[:-2], PATH)


def test_promised_formats() -> None:
    promises = {"a.JPG": "jpeg", "b.jpeg": "jpeg", "c.png": "png", "d.bmp": "bmp", "e.tif": None}
    assert {name: ImageFile(name).promised for name in promises} == promises


@pytest.mark.parametrize(("data", "kind", "mode", "unfit"), [
    (saved("CMYK", "JPEG"), "jpeg", "CMYK", "a CMYK JPEG"),
    (animated_png(), "png", "RGB", "an animated PNG"),
    (saved("RGB", "BMP"), "bmp", "RGB", "a BMP file"),
    (saved("P", "GIF"), "gif", "P", "a GIF file"),
    (saved("RGB", "WEBP"), "webp", "RGB", "a WebP file"),
])
def test_formats_that_can_be_converted(data: bytes, kind: str, mode: str, unfit: str) -> None:
    probe = parse_image(data, PATH)
    assert (probe.format, probe.mode, probe.unfit) == (kind, mode, unfit)
    assert min(probe.width, probe.height) >= 8


WHOLE = st.sampled_from([
    turned(6), picture(), turned(3, "PNG"), saved("P", "PNG"), saved("P", "GIF"), saved("RGB", "WEBP"),
    saved("RGB", "BMP"),
])


@given(st.data(), WHOLE)
def test_damaged_images_are_read_or_refused(data: st.DataObject, whole: bytes) -> None:
    raw = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 6)) if raw else 0):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(lambda: parse_image(bytes(raw), PATH)) in ("", "D106")


STARTS = st.sampled_from([
    b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe1\x00\x20Exif\0\0II*\0",
    b"",
])


@given(STARTS, st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(start: bytes, rest: bytes) -> None:
    assert outcome(lambda: parse_image(start + rest, PATH)) in ("", "D106")
