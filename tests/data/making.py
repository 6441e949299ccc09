"""What the tests of this folder make their input with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import settings
from PIL import Image

from gcpod.data.formats.voc import to_voc
from gcpod.data.model import Box
from gcpod.errors import GcpodError


def drawn(examples: int, **more: Any) -> settings:
    """So many examples where a profile draws a hundred, and in proportion for `make test-fast`, which draws fewer."""
    return settings(max_examples=max(1, examples * settings().max_examples // 100), **more)


def outcome(call: Callable[[], object]) -> str:
    """The code of the error that a call ends in, "" when it ends well; any other exception passes."""
    try:
        call()
    except GcpodError as err:
        return err.code
    return ""


def picture(
    colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (100, 50), kind: str = "JPEG",
) -> bytes:
    """The bytes of a plain image."""
    out = BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


class Dataset:
    """A folder of images with their XML beside them, grown by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()
        self.out = folder / "out"

    def image(self, name: str, data: bytes | None = None) -> Path:
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture((hash_colour(name), 90, 120)) if data is None else data)
        return path

    def cats_and_dogs(self) -> None:
        """Eight labelled pictures."""
        for number in range(8):
            box = Box("cat" if number % 2 else "dog", 10, 10, 60 + number, 40)
            self.add(f"{number}.jpg", box, data=picture((30 * number, 9, 200)))

    def xml(
        self, name: str, boxes: Sequence[Box], *, filename: str | None = None, size: tuple[int, int] = (100, 50),
    ) -> Path:
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_voc(filename or f"{path.stem}.jpg", *size, boxes), encoding="utf-8")
        return path

    def add(self, name: str, *boxes: Box, data: bytes | None = None, size: tuple[int, int] = (100, 50)) -> None:
        image = self.image(name, data)
        self.xml(str(Path(name).with_suffix(".xml")), boxes, filename=image.name, size=size)


def hash_colour(name: str) -> int:
    """A colour of its own for most names, so that pictures differ."""
    return sum(index * ord(char) for index, char in enumerate(name, 1)) % 256
