"""CRC-32C as Cloud Storage writes it: base64 of the big-endian checksum.

https://cloud.google.com/storage/docs/json_api/v1/objects#resource
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import google_crc32c

_READ_BYTES = 1 << 20


def crc32c_text(crc: int) -> str:
    """A checksum in Cloud Storage's form."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def file_crc32c(path: Path, *more: Path, start: int = 0, size: int | None = None) -> str:
    """The checksum of a file's bytes, and of those of more files behind them, in Cloud Storage's form.

    Args:
        path: the file; ``start`` and ``size`` choose a part of it.
        more: whole files.
    """
    crc = _extend(0, path, start, sys.maxsize if size is None else size)
    for one in more:
        crc = _extend(crc, one, 0, sys.maxsize)
    return crc32c_text(crc)


def _extend(crc: int, path: Path, start: int, left: int) -> int:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while block := file.read(min(_READ_BYTES, left)):
            crc, left = google_crc32c.extend(crc, block), left - len(block)
    return crc
