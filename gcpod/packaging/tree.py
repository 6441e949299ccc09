"""Files of a source as path and content, from a folder or an archive, which is read but never unpacked.

Whatever a source holds, only regular files below it are read: a link is followed where it leads to such a file, and a
link that leads out, a device, a pipe or a path with ``..`` is refused.
"""

from __future__ import annotations

import gzip
import os
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from gcpod.errors import PackageError

MAX_MEMBER_BYTES = 64 * 1024 * 1024
MAX_TREE_BYTES = 512 * 1024 * 1024
Tree = dict[str, bytes]
"""Path inside the source, with ``/``, to content."""
Wanted = Callable[[str], bool]


def list_folder(root: Path, top: str, enter: Callable[[str, Collection[str]], bool] = lambda *_: True) -> list[str]:
    """Paths of everything below ``root/top`` that is no folder, relative to ``root``, sorted.

    Args:
        root: where the paths start.
        top: the folder to list, "" for all of ``root``.
        enter: told a folder's path and the names in it; whether to list what is in it.

    Raises:
        PackageError: a folder cannot be read.
    """
    found: list[str] = []
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
                if not enter(folder, {entry.name for entry in inside}):
                    continue
                for entry in inside:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    (waiting if entry.is_dir(follow_symlinks=False) else found).append(path)
        except OSError as e:
            raise PackageError("reading", root / folder, e.strerror or str(e), "check the path of the source") from e
    return sorted(found)


def read_files(root: Path, paths: Collection[str]) -> Tree:
    """The contents of regular files, or of links to some, below a folder.

    Raises:
        PackageError: one cannot be read, is too large, is no file, or is a link that leads out of ``root``.
    """
    real, tree, total = root.resolve(), {}, 0
    for path in paths:
        try:
            data = _read(real, path)
        except OSError as e:
            raise _refused(root, path, e.strerror or str(e)) from e
        total += len(data)
        if total > MAX_TREE_BYTES:
            raise _refused(root, path, f"with it the package has more than {MAX_TREE_BYTES >> 20} MB")
        tree[path] = data
    return tree


def _read(root: Path, path: str) -> bytes:
    place = root / path
    if not path.isprintable():
        raise _refused(root, repr(path), "its name is not printable")
    if place.is_symlink():
        place = Path(os.path.realpath(place))  # Path.resolve raises RuntimeError for a circle of links
        if not place.is_relative_to(root):
            raise _refused(root, path, "it is a link that leads out")
    # Opening a pipe or a device could wait for ever, so its kind is asked first.
    kind = place.stat()
    if not stat.S_ISREG(kind.st_mode):
        raise _refused(root, path, "it is a link to a folder" if place.is_dir() else "it is no regular file")
    if kind.st_size > MAX_MEMBER_BYTES:
        raise _refused(root, path, f"it has more than {MAX_MEMBER_BYTES >> 20} MB")
    return place.read_bytes()


def read_archive(archive: Path, wanted: Wanted) -> Tree:
    """The wanted files of a .tar.gz, by their path below its one top folder, without extracting anything to disk.

    Args:
        archive: such as an sdist or a tarball of a release.
        wanted: told a path, whether its content is.

    Raises:
        PackageError: the archive is damaged, too large, or holds a member that leads out of it.
    """
    tree: Tree = {}
    links: dict[str, str] = {}
    total = 0
    try:
        with gzip.open(archive) as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                parts = [part for part in member.name.split("/") if part not in ("", ".")]
                if ".." in parts or member.name.startswith("/"):
                    raise _refused(archive, member.name, "it leads out")
                if not member.name.isprintable():
                    raise _refused(archive, repr(member.name), "its name is not printable")
                path = "/".join(parts[1:])
                if member.isdir() or not path or not wanted(path):
                    continue
                if member.issym() or member.islnk():
                    links[path] = _target(archive, member, path)
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    raise _refused(archive, member.name, "it is no regular file")
                total += member.size
                if member.size > MAX_MEMBER_BYTES or total > MAX_TREE_BYTES:
                    raise _refused(archive, member.name, f"it has {member.size} bytes, which is too much")
                tree[path] = file.read()
            while raw.read(1 << 20):
                pass  # gzip's checksum stands at the end
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as e:
        raise PackageError("reading", archive, str(e) or type(e).__name__, "fetch it again") from e
    return _follow(archive, tree, links)


def _target(archive: Path, member: tarfile.TarInfo, path: str) -> str:
    """Where a link leads, below the top folder; a hard link names a member, a symbolic one starts from its folder."""
    if member.islnk():
        target = posixpath.normpath(member.linkname.partition("/")[2])
    else:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.linkname))
    if member.linkname.startswith("/") or target.split("/")[0] == "..":
        raise _refused(archive, member.name, "it is a link that leads out")
    return target


def _follow(archive: Path, tree: Tree, links: Mapping[str, str]) -> Tree:
    """The tree with each link as the file it leads to, maybe by way of other links."""
    for path in links:
        seen, at = {path}, links[path]
        while at in links and at not in seen:
            seen.add(at)
            at = links[at]
        if at not in tree:
            raise _refused(archive, path, f"it is a link to {at!r}, which is no file of the package")
        tree[path] = tree[at]
    return tree


def _refused(where: Path, path: str, found: str) -> PackageError:
    return PackageError("packing", f"{where}: {path}", found, "take it out of the source")
