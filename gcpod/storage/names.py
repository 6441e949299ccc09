"""Object names: which ones Cloud Storage takes, and a path of its own below a folder for each one that it may hold.

A name is any text; a path is not. What cannot be a path lies in a folder beside the rest, and a small file there tells
what it was called, so that the tree goes up again under its old names. Names differ as they do on Linux: by case, and
by how an accented letter is written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gcpod.errors import StorageError

NAMES_FOLDER: Final = ".gcpod-names"
"""Where a download puts what cannot be a path."""
SIDECAR: Final = f"{NAMES_FOLDER}/names.json"
TRANSFER_FOLDER: Final = ".gcpod-transfer"
"""Where a download keeps what is not whole yet; never uploaded."""
PARTS_FOLDER: Final = ".gcpod-parts"
"""Where pieces of an upload lie until they are composed: at the top of the bucket, for a lifecycle rule knows only how
a name begins (https://cloud.google.com/storage/docs/lifecycle#matchesprefix-suffix)."""
REFUSED: Final = "S501"
DAMAGED: Final = "S503"
MAX_NAME_BYTES: Final = 1024
"""https://cloud.google.com/storage/docs/objects#naming"""
_ACME: Final = ".well-known/acme-challenge/"
_MAX_SEGMENT_BYTES: Final = 255
"""NAME_MAX of ext4, XFS, Btrfs and tmpfs (https://man7.org/linux/man-pages/man7/path_resolution.7.html)."""
_NO_SEGMENT: Final = frozenset(("", ".", "..", NAMES_FOLDER))
_HASH_LENGTH, _TAIL_LENGTH = 32, 40


def check_name(name: str) -> None:
    """Holds an object's whole name against https://cloud.google.com/storage/docs/objects#naming.

    Raises:
        StorageError: S501, Cloud Storage would refuse it.
    """
    _check_text(name)
    if name in ("", ".", ".."):
        raise _refused(name, "it is no name of an object")
    if name.startswith(_ACME):
        raise _refused(name, f"no object's name may start with {_ACME}")


def _check_text(name: str) -> None:
    """What holds for any part of a name too."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise _refused(name, "it cannot be written in UTF-8") from None
    if size > MAX_NAME_BYTES:
        raise _refused(name, f"it has {size} bytes in UTF-8, {MAX_NAME_BYTES} are allowed")
    if "\r" in name or "\n" in name:
        raise _refused(name, "it has a line break")


def _refused(name: str, found: str) -> StorageError:
    return StorageError("checking the object name", ascii(name[:100]), found, "rename it", code=REFUSED)


def local_paths(names: Sequence[str]) -> dict[str, str]:
    """Where each object of a downloaded prefix lies below the target folder.

    Args:
        names: of objects, without the prefix. Names that are empty or end in "/" are the empty objects by which
            TensorFlow and the console mark folders: they are left out here and nowhere else.

    Returns:
        name to path with "/", in the order of the names. Most are the same. No two paths are equal, none is a folder
        of another, all are relative and without ".", ".." or empty segments; a segment has 255 bytes at most. A path
        below `NAMES_FOLDER` depends on its name alone; whether a name gets one may depend on the other names: of an
        object ``a`` beside ``a/b``, it is ``a`` that does.

    Raises:
        StorageError: S501, a name that Cloud Storage cannot hold, so the listing is wrong.
    """
    wanted = [name for name in names if name and not name.endswith("/")]
    plain = {name for name in wanted if _can_be_path(name)}
    folders = _folders(plain)
    return {name: name if name in plain and name not in folders else _set_aside(name) for name in wanted}


def _can_be_path(name: str) -> bool:
    _check_text(name)
    segments = name.split("/")
    if "\0" in name or not _NO_SEGMENT.isdisjoint(segments) or any(s.startswith(TRANSFER_FOLDER) for s in segments):
        return False
    return len(name) <= _MAX_SEGMENT_BYTES // 4 or max(len(s.encode()) for s in segments) <= _MAX_SEGMENT_BYTES


def _folders(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        end = path.rfind("/")
        while end > 0 and path[:end] not in found:
            found.add(path[:end])
            end = path.rfind("/", 0, end)
    return found


def _set_aside(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{NAMES_FOLDER}/{digest}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[-_TAIL_LENGTH:]}"


def render_sidecar(names: Mapping[str, str], before: Mapping[str, str] | None = None) -> str:
    """The text of `SIDECAR`; "" where every name is its own path, so that none is needed.

    Args:
        names: path to name, the other way round than `local_paths` gives them; one that is its own path is left out.
        before: path to name, as the sidecar in the target folder has them already.
    """
    aside = dict(before or {}) | {path: name for path, name in names.items() if path != name}
    return json.dumps(aside, ensure_ascii=False, indent=1, sort_keys=True) + "\n" if aside else ""


def parse_sidecar(text: str | bytes, where: object) -> dict[str, str]:
    """Path to name, both relative to the folder that `NAMES_FOLDER` is in; each path is the one of its name.

    Args:
        text: of `SIDECAR`.
        where: the file, for the error.

    Raises:
        StorageError: S503, it is damaged or not of gcpod's making.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(where, "it is no JSON") from None
    if not isinstance(found, dict):
        raise _damaged(where, "it is no JSON object")
    for path, name in found.items():
        if not isinstance(name, str):
            raise _damaged(where, f"{path[:100]!a} has no name")
        try:
            _check_text(name)
        except StorageError as e:
            raise _damaged(where, f"{name[:100]!a}: {e.found}") from e
        if not name or name.endswith("/") or path != _set_aside(name):
            raise _damaged(where, f"{path[:100]!a} is not where {name[:100]!a} lies")
    return found


def _damaged(where: object, found: str) -> StorageError:
    fix = f"download again into a new folder, or remove {NAMES_FOLDER} and what is in it"
    return StorageError("reading the names in", where, found, fix, code=DAMAGED)
