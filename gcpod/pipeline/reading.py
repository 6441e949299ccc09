"""Configs read although a Windows path stands in them, whose backslashes are escapes: finding C201 tells of it.

What the trainer makes of such a path nobody wants: text_format turns ``\\n`` into a line end, keeps ``\\d`` as it is
and refuses ``\\U`` (https://protobuf.dev/reference/protobuf/textformat-spec/#string).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gcpod.errors import ConfigError
from gcpod.textproto import Message, Scalar, offset_of, parse

_PATHS: Final = re.compile(r"(^|\.)(\w*input_path|\w*label_map_path|fine_tune_checkpoint|label_map|model_dir)$")
_CLOUD: Final = ("gs://", "/gcs/")
_END: Final = re.compile(r"[\"'\n]|\Z")
_ROUNDS: Final = 50
"""Of reading; each takes one string with backslashes that are no escapes."""


def is_path(path: str) -> bool:
    """Whether what stands at a dotted path of a config is the address of a file."""
    return _PATHS.search(path) is not None


def in_cloud(address: str) -> bool:
    """Whether a job can read what an address leads to."""
    return address.startswith(_CLOUD)


@dataclass(frozen=True)
class Reading:
    """A config's tree.

    Attributes:
        mended: offsets of backslashes that are no escapes, and were read as slashes like those after them.
    """

    tree: Message
    mended: tuple[int, ...] = ()

    def holds(self, value: Scalar) -> bool:
        """Whether a value is one that was mended."""
        return any(value.start <= at < value.end for at in self.mended)


def read(text: str, where: str) -> Reading:
    """The tree of a config, in whose addresses backslashes may be no escapes.

    Raises:
        ConfigError: C200 or C204; the text cannot be read, and not only for an address.
    """
    try:
        return Reading(parse(text, where))
    except ConfigError as err:
        reading = _mended(text, where, err)
        if reading is None:
            raise
        return reading


def _mended(text: str, where: str, err: ConfigError) -> Reading | None:
    """The tree as it would be with slashes; None where that does not make the text readable, or makes it another."""
    mended: list[int] = []
    for _ in range(_ROUNDS):
        at, text = _slashed(text, err)
        if at is None:
            return None
        mended.append(at)
        try:
            reading = Reading(parse(text, where), tuple(mended))
        except ConfigError as another:
            err = another
            continue
        addresses = [value for path, value in reading.tree.walk() if is_path(path)]
        return reading if all(any(one.start <= at < one.end for one in addresses) for at in mended) else None
    return None


def _slashed(text: str, err: ConfigError) -> tuple[int | None, str]:
    """Where the backslashes of a string were made slashes, and the text with them; None where that is not the error.

    The string is one with an escape that is none, or one that does not end, as ``"C:\\data\\"`` does not.
    """
    at = offset_of(text, *map(int, err.on.rsplit(":", 2)[1:]))
    end = _END.search(text, at + 1)
    if err.code != "C200" or end is None or text[at : at + 1] not in ("\\", '"', "'"):
        return None, text
    found = text.find("\\", at, end.start())
    if found < 0:
        return None, text
    return found, text[:found] + text[found : end.start()].replace("\\", "/") + text[end.start() :]


def backslashed(raw: str, address: str, cloud: bool) -> bool:
    """Whether backslashes keep a value that can be read from being an address.

    Args:
        raw: as it is written.
        address: as it is read. An object's name may be written with escapes (``\\303\\251``), but none that makes a
            backslash or a control character.
        cloud: whether a job will read it; elsewhere a path of Windows is one if its backslashes are doubled.
    """
    if in_cloud(address):
        return any(character == "\\" or character < " " for character in address)
    return "\\" in (raw if cloud else raw.replace("\\\\", ""))
