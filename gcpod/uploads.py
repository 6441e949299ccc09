"""What a run needs, put into the bucket: its records, config, packages and checkpoint, and models of the zoo."""

from __future__ import annotations

import json
from collections.abc import Callable

from gcpod.layout import model_folder
from gcpod.models.fetch import FetchedModel
from gcpod.prepare import Prepared, write_config
from gcpod.storage.known import local_files
from gcpod.storage.objects import Objects
from gcpod.storage.plan import UploadPlan
from gcpod.storage.transfer import Tell, upload_files
from gcpod.uris import GcsUri


def upload_model(
    objects: Objects, fetched: FetchedModel, bucket: GcsUri, tell: Tell = lambda _: None,
) -> UploadPlan:
    """Makes the bucket hold a model's checkpoint, once for all runs.

    Args:
        bucket: the bucket, or the folder in it, that models and runs lie in.

    Raises:
        StorageError, AuthError: the bucket cannot be written.
    """
    folder = model_folder(bucket, fetched.model.name)
    return upload_files(objects, local_files([(path, folder / path.name) for path in fetched.files]), folder, tell)


def upload_run(
    objects: Objects, prepared: Prepared, say: Callable[[str], None], tell: Tell = lambda _: None,
) -> None:
    """Makes the bucket hold a run's records, packages, checkpoint and config; the manifest last.

    Records and packages lie once for all runs that use the same. A folder of theirs has the digest of what is in it
    for its name, so whoever writes there writes the same bytes, and nothing in it is ever taken away.

    A run from before, whose records and packages lie below its own folder, goes on: those stay, for the jobs that were
    submitted with them, and its config is replaced by one that names equal records once these are in their place.

    Raises:
        StorageError, AuthError: the bucket cannot be written.
    """
    for folder, files in prepared.files(write_config(prepared)):
        say(f"{moved(upload_files(objects, files, folder, tell))}: {folder}")
    objects.write(prepared.layout.manifest, run_manifest(prepared).encode())


def run_manifest(prepared: Prepared) -> str:
    """The dataset's manifest, with the addresses of the records and of the packages."""
    layout = prepared.layout
    told = {**json.loads(prepared.manifest.to_json()), "data": str(layout.data), "packages": str(layout.packages)}
    return json.dumps(told, indent=2, sort_keys=True) + "\n"


def moved(plan: UploadPlan) -> str:
    return f"uploaded {len(plan.uploads)} files ({plan.bytes / 1e6:.1f} MB), {len(plan.unchanged)} were there"
