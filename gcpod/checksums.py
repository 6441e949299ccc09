"""CRC-32C as Cloud Storage writes it: base64 of the big-endian checksum.

https://cloud.google.com/storage/docs/json_api/v1/objects#resource
"""

from __future__ import annotations

import base64
from pathlib import Path

import google_crc32c

_READ_BYTES = 1 << 20


def crc32c_text(crc: int) -> str:
    """A checksum in Cloud Storage's form."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def file_crc32c(path: Path, then: bytes = b"") -> str:
    """The checksum of a file's bytes, followed by some more, in Cloud Storage's form."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            crc = google_crc32c.extend(crc, block)
    return crc32c_text(google_crc32c.extend(crc, then))
