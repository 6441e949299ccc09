"""A run's TensorBoard files mirrored to a local folder: at each poll only the bytes that are new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcpod.storage.mirror import Mirrored, mirror
from gcpod.storage.objects import Objects
from gcpod.storage.plan import ObjectInfo
from gcpod.storage.receive import Download
from gcpod.uris import GcsUri, inside

_MARK = "events.out.tfevents."


def fetch_tensorboard(
    objects: Objects, model: GcsUri, folder: Path, listed: Sequence[ObjectInfo] | None = None,
) -> Mirrored:
    """Brings the event files below ``model`` up to date in ``folder``, keeping their subfolders.

    Args:
        objects: the bucket's.
        model: the trainer's model_dir.
        folder: on this machine.
        listed: what lies below ``model``, where that was just listed.

    Raises:
        StorageError, AuthError, OutageError: the bucket cannot be read.
    """
    there = objects.list(model) if listed is None else listed
    downloads = [
        Download(info, inside(folder, info.uri.name.removeprefix(model.prefix)))
        for info in there if _MARK in info.uri.name
    ]
    return mirror(objects, downloads, folder)
