"""Whole folders to and from the bucket: what is new or changed moves, what is there already does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gcpod.errors import StorageError
from gcpod.storage.aside import transfer_folder
from gcpod.storage.known import known_checksums, to_local, tree_file
from gcpod.storage.names import PARTS_FOLDER, SIDECAR, check_name, local_paths, parse_sidecar, render_sidecar
from gcpod.storage.objects import Objects
from gcpod.storage.plan import ObjectInfo
from gcpod.storage.receive import Download
from gcpod.storage.traffic import TransferOptions
from gcpod.storage.transfer import Tell, fetch_all, plan_changes, send_all, with_checksums
from gcpod.storage.tree import Symlinks, scan_tree
from gcpod.uris import GcsUri

_Go = Callable[[TransferOptions | None, Tell], None]


@dataclass(frozen=True)
class CopyPlan:
    """What a copy would do.

    Attributes:
        moving: pairs of source and target, as texts.
        bytes: of what moves.
        unchanged: files that are there already.
        go: does it; see `transfer.send_all`.
    """

    moving: tuple[tuple[str, str], ...]
    bytes: int
    unchanged: int
    go: _Go


def plan_tree_upload(objects: Objects, root: Path, to: GcsUri, symlinks: Symlinks = "refuse") -> CopyPlan:
    """What makes a prefix hold a folder's files, or an object hold a file.

    Args:
        objects: the bucket's objects.
        root: a folder, whose files go below ``to``; or a file, which goes to ``to``, or below it where that ends in "/"
            or names a whole bucket.
        symlinks: see `tree.scan_tree`.

    Raises:
        StorageError: a file cannot be read or named so, before any byte moves; or the bucket cannot be listed.
    """
    if root.is_dir():
        files = scan_tree(root, symlinks, to.prefix)
        pairs = [(file, GcsUri(to.bucket, to.prefix + file.name)) for file in files]
        there = objects.list(to)
    else:
        (file,) = scan_tree(root, symlinks)
        uri = to if to.name and not to.name.endswith("/") else GcsUri(to.bucket, to.prefix + file.name)
        check_name(uri.name)
        pairs, there = [(file, uri)], objects.list_exactly(uri)
    plan = plan_changes(objects, to_local(pairs), there)
    moving = tuple((str(upload.file.path), str(upload.file.uri)) for upload in plan.uploads)
    return CopyPlan(
        moving, plan.bytes, len(plan.unchanged),
        lambda options, tell: send_all(objects, plan.uploads, tell, options),
    )


def plan_tree_download(objects: Objects, source: GcsUri, target: Path) -> CopyPlan:
    """What makes a folder hold the objects below a prefix, or a file hold an object.

    Args:
        objects: the bucket's objects.
        source: an object, or a prefix; where both are there, the object is meant unless it ends in "/".
        target: for a prefix the folder; for an object the file, or an existing folder to put it in.

    Raises:
        StorageError: there is nothing, or the bucket cannot be listed.
    """
    exact = [] if not source.name or source.name.endswith("/") else objects.list_exactly(source)
    if exact:
        path = target / source.name.rsplit("/", 1)[-1] if target.is_dir() else target
        if path.name in ("", ".", ".."):
            raise StorageError("downloading", source, f"{path} is no name of a file", "name the file to write")
        return _download_plan(objects, [(exact[0], path)], path.parent)
    # Pieces of uploads under way, at the top of a bucket, are nobody's files.
    found = [info for info in objects.list(source) if source.name or not info.uri.name.startswith(f"{PARTS_FOLDER}/")]
    if not found:
        raise StorageError("downloading", source, "there is no such object, and none below it", "check the address")
    names = {info.uri.name.removeprefix(source.prefix): info for info in found}
    paths = local_paths(list(names))
    plan = _download_plan(objects, [(names[name], target / path) for name, path in paths.items()], target)
    odd = {path: name for name, path in paths.items() if path != name}
    return plan if not odd else CopyPlan(plan.moving, plan.bytes, plan.unchanged, _with_names(plan.go, target, odd))


def _with_names(go: _Go, target: Path, odd: dict[str, str]) -> _Go:
    def both(options: TransferOptions | None, tell: Tell) -> None:
        sidecar = target / SIDECAR
        before = parse_sidecar(sidecar.read_bytes(), sidecar) if sidecar.exists() else {}
        sidecar.parent.mkdir(parents=True, exist_ok=True)
        # Before the files: one that came without its name would go up again under a wrong one.
        with transfer_folder(target) as folder:
            aside = folder / "names"
            aside.write_text(render_sidecar(odd, before), encoding="utf-8")
            aside.replace(sidecar)
        go(options, tell)

    return both


def _download_plan(objects: Objects, pairs: Sequence[tuple[ObjectInfo, Path]], folder: Path) -> CopyPlan:
    complete = with_checksums(objects, [info for info, _ in pairs])
    pairs = [(info, path) for info, (_, path) in zip(complete, pairs, strict=True)]
    _check_folders({path.parent for _, path in pairs}, folder)
    same = _unchanged(pairs)
    moving = [Download(info, path) for info, path in pairs if path not in same]
    return CopyPlan(
        tuple((str(one.info.uri), str(one.path)) for one in moving), sum(one.info.size for one in moving), len(same),
        lambda options, tell: fetch_all(objects, moving, folder, tell, options),
    )


def _check_folders(folders: set[Path], top: Path) -> None:
    """That no link among the folders that are there leads what is downloaded elsewhere."""
    real = top.resolve()
    for folder in folders:
        if not folder.resolve().is_relative_to(real):
            found = f"a link leads out of {top}"
            raise StorageError("downloading into", folder, found, "remove it, or choose another folder")


def _unchanged(pairs: Sequence[tuple[ObjectInfo, Path]]) -> set[Path]:
    """Paths that hold their object's bytes; only files of the right size are read."""
    like = [(info, path) for info, path in pairs if path.is_file() and path.stat().st_size == info.size]
    checksums = known_checksums().crc32c_of([tree_file(path) for _, path in like])
    return {path for (info, path), crc in zip(like, checksums, strict=True) if crc == info.crc32c}
