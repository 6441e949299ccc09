"""Files between this machine and a bucket."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gcpod.connection import connect, loaded, objects_of
from gcpod.errors import SpecError
from gcpod.spec import Spec
from gcpod.storage.traffic import TransferOptions
from gcpod.storage.transfer import Tell
from gcpod.storage.tree import Symlinks
from gcpod.storage.trees import CopyPlan, plan_tree_download, plan_tree_upload
from gcpod.uris import GcsUri


def copy(
    source: str, target: str, spec: Spec | Path | str | None = None, *, local: bool = False,
    endpoint: str | None = None, options: TransferOptions | None = None, symlinks: Symlinks = "refuse",
    dry_run: bool = False, tell: Tell = lambda _: None,
) -> CopyPlan:
    """Makes the target hold what the source holds; what is there already does not move, nothing is deleted.

    Args:
        source, target: one is ``gs://BUCKET/PATH``, the other a local folder or file; see storage/trees.py.
        spec, local, endpoint: see connect; ``storage`` of the spec has class, key and who pays.
        options: how bytes move; by default as ``storage`` of the spec has it.
        symlinks: what becomes of links in a local folder.
        dry_run: only say what would move.
        tell: told how far it is.

    Returns:
        what moved.

    Raises:
        SpecError: none or both of them are in a bucket.
        StorageError, AuthError, OutageError: a file or an object cannot be read or written; what moved stays.
    """
    up = target.startswith("gs://")
    if up == source.startswith("gs://"):
        found = "one of them has to be in a bucket, the other on this machine"
        raise SpecError("copying", f"{source} to {target}", found, "write gs://BUCKET/PATH for one")
    remote = GcsUri.parse(target if up else source)
    session = connect(loaded(spec or Spec()), local=local, endpoint=endpoint)
    objects = objects_of(session)
    if up:
        plan = plan_tree_upload(objects, Path(source), remote, symlinks)
    else:
        plan = plan_tree_download(objects, remote, Path(target))
    if not dry_run:
        told = options or objects.transfer_options
        # A server on this machine that is gone does not come back by itself.
        plan.go(replace(told, patience_s=min(told.patience_s, objects.patience_s)), tell)
    return plan
