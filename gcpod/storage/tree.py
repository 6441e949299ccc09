"""Files of a local tree and the names they would have in a bucket; nothing is read but folders."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Final, Literal

from gcpod.errors import StorageError
from gcpod.storage.names import NAMES_FOLDER, SIDECAR, TRANSFER_FOLDER, check_name, parse_sidecar

Symlinks = Literal["follow", "refuse", "skip"]
UNFIT: Final = "S502"
_FIX_LINK: Final = "choose whether links are followed (--symlinks follow) or left out (--symlinks skip)"
_TAKE_OUT: Final = "take it out of the folder"


@dataclass(frozen=True)
class TreeFile:
    """A regular file as it was when its folder was listed.

    Attributes:
        path: absolute.
        name: relative to the tree's root, with "/"; for a root that is a file, the file's own name.
        size: bytes.
        mtime_ns: last change of the bytes, in nanoseconds since 1970.
        inode: the file's number in its file system.
        ctime_ns: last change of bytes, owner, mode or times, in nanoseconds since 1970. A program may set the other
            time back, this one it may not; 0 where it is not known.
    """

    path: Path
    name: str
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int = 0


def scan_tree(root: Path, symlinks: Symlinks = "refuse", prefix: str = "") -> list[TreeFile]:
    """The regular files below a folder, or the folder itself where it is a file, sorted by name.

    A downloaded tree has its old names again (`names.SIDECAR`, at any depth). `TRANSFER_FOLDER` is left out.

    Args:
        root: may be a link itself, whatever the policy.
        symlinks: "refuse" raises an error that names the first link; "skip" leaves links out; "follow" takes what they
            lead to, also where that lies outside ``root``.
        prefix: what the names will be put behind in the bucket; they are checked with it.

    Raises:
        StorageError: S501, an object may not have such a name; S502, a link, a pipe, a socket, a device, or something
            that cannot be read; S503, damaged names of a download. Nothing has been read or sent then.
    """
    top = root.absolute()
    try:
        kind = top.stat()
    except (OSError, ValueError) as e:
        raise _unfit(top, _reason(e), "check the path") from e
    if stat.S_ISREG(kind.st_mode):
        found = [_file(str(top), top.name, kind)]
    elif stat.S_ISDIR(kind.st_mode):
        found = _renamed(_Walk(top, symlinks).files)
    else:
        raise _unfit(top, _kind_of(kind.st_mode), "name a file or a folder")
    for file in found:
        check_name(prefix + file.name)
    found.sort(key=attrgetter("name"))
    for one, other in pairwise(found):
        if one.name == other.name:
            raise _unfit(other.path, f"{one.path} goes to the same object", "rename one of them")
    return found


def _file(path: str, name: str, about: os.stat_result) -> TreeFile:
    return TreeFile(Path(path), name, about.st_size, about.st_mtime_ns, about.st_ino, about.st_ctime_ns)


@dataclass(frozen=True)
class _Folder:
    """A folder to list; ``above`` holds device and inode of all that it is in, where links are followed."""

    name: str
    above: frozenset[tuple[int, int]] = frozenset()


class _Walk:
    """Lists everything before it complains, so that the first fault by name is told whatever the order of listing."""

    def __init__(self, top: Path, symlinks: Symlinks) -> None:
        self._top, self._symlinks = f"{str(top).rstrip('/')}/", symlinks
        self._faults: list[tuple[str, str, str]] = []
        self._waiting = [_Folder("")]
        self.files: list[TreeFile] = []
        while self._waiting:
            self._list(self._waiting.pop())
        if self._faults:
            name, found, fix = min(self._faults)
            raise _unfit(self._top + name, found, fix)

    def _list(self, folder: _Folder) -> None:
        place = self._top + folder.name
        try:
            above = self._entered(folder, place)
            with os.scandir(place) as entries:
                for entry in entries:
                    self._take(entry, f"{folder.name}{entry.name}", above)
        except FileNotFoundError:
            pass  # removed since it was listed
        except OSError as e:
            self._faults.append((folder.name.rstrip("/"), _reason(e), "check its permissions"))

    def _entered(self, folder: _Folder, place: str) -> frozenset[tuple[int, int]]:
        if self._symlinks != "follow":
            return folder.above
        about = Path(place).stat()
        key = about.st_dev, about.st_ino
        if key in folder.above:
            raise OSError(errno.ELOOP, "it is a link to a folder that it is in itself")
        return folder.above | {key}

    def _take(self, entry: os.DirEntry[str], name: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            if self._symlinks != "follow" and entry.is_symlink():
                if self._symlinks == "refuse":
                    self._faults.append((name, "it is a symbolic link", _FIX_LINK))
            elif entry.is_dir():
                if not entry.name.startswith(TRANSFER_FOLDER):
                    self._waiting.append(_Folder(f"{name}/", above))
            elif entry.is_file():
                self.files.append(_file(entry.path, name, entry.stat()))
            else:
                self._faults.append((name, _what(entry), _TAKE_OUT))
        except FileNotFoundError:
            pass  # removed since it was listed
        except OSError as e:
            self._faults.append((name, _reason(e), _TAKE_OUT))


def _renamed(files: list[TreeFile]) -> list[TreeFile]:
    """The files under their old names, without the sidecars."""
    aside = [file for file in files if f"/{NAMES_FOLDER}/" in f"/{file.name}"]
    if not aside:
        return files
    names = dict(_old_names(aside))
    plain = [file for file in files if f"/{NAMES_FOLDER}/" not in f"/{file.name}"]
    return plain + [_under_old_name(file, names) for file in aside if not _is_sidecar(file)]


def _is_sidecar(file: TreeFile) -> bool:
    return f"/{file.name}".endswith(f"/{SIDECAR}")


def _old_names(aside: list[TreeFile]) -> Iterator[tuple[str, str]]:
    for file in aside:
        if _is_sidecar(file):
            base = file.name.removesuffix(SIDECAR)
            try:
                text = file.path.read_bytes()
            except OSError as e:
                raise _unfit(file.path, _reason(e), "check its permissions") from e
            yield from ((base + path, base + name) for path, name in parse_sidecar(text, file.path).items())


def _under_old_name(file: TreeFile, names: Mapping[str, str]) -> TreeFile:
    if file.name not in names:
        raise _unfit(file.path, f"{SIDECAR} does not tell what it was called", "give it a name in another folder")
    return replace(file, name=names[file.name])


def _what(entry: os.DirEntry[str]) -> str:
    try:
        return _kind_of(Path(entry.path).stat().st_mode)
    except FileNotFoundError:
        if entry.is_symlink():
            return "it is a link that leads nowhere"
        raise


def _kind_of(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'something else')}, no regular file"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _unfit(path: Path | str, found: str, fix: str) -> StorageError:
    # A path that is not UTF-8 must be told all the same.
    shown = str(path).encode("utf-8", "backslashreplace").decode()
    return StorageError("listing", shown, found, fix, code=UNFIT)
