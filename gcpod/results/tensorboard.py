"""A run's TensorBoard files mirrored to a local folder: at each poll only the bytes that are new."""

from __future__ import annotations

from pathlib import Path

from gcpod.storage.mirror import Mirrored, mirror
from gcpod.storage.objects import Objects
from gcpod.storage.receive import Download
from gcpod.uris import GcsUri, inside

_MARK = "events.out.tfevents."


def fetch_tensorboard(objects: Objects, model: GcsUri, folder: Path) -> Mirrored:
    """Brings the event files below ``model`` up to date in ``folder``, keeping their subfolders.

    Raises:
        StorageError, AuthError, OutageError: the bucket cannot be read.
    """
    downloads = [
        Download(info, inside(folder, info.uri.name.removeprefix(model.prefix)))
        for info in objects.list(model) if _MARK in info.uri.name
    ]
    return mirror(objects, downloads, folder)
