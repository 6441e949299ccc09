"""Protobuf fields that gcpod only reads, as others write them."""

from __future__ import annotations

import struct

from gcpod import wire


def fixed32(field: int, number: float) -> bytes:
    """A field of type float."""
    return wire.tag(field, wire.FIXED32) + struct.pack("<f", number)


def fixed64(field: int, number: float) -> bytes:
    """A field of type double."""
    return wire.tag(field, wire.FIXED64) + struct.pack("<d", number)
