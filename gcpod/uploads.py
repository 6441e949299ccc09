"""What a run needs, put into the bucket: its records, config, packages and checkpoint, and models of the zoo."""

from __future__ import annotations

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
    """Makes the bucket hold a run's records, config, packages and checkpoint; the manifest last.

    Raises:
        StorageError, AuthError: the bucket cannot be written.
    """
    files = prepared.files(write_config(prepared))
    plan = upload_files(objects, files, prepared.layout.root, tell)
    objects.write(prepared.layout.manifest, prepared.manifest.to_json().encode())
    say(f"{moved(plan)}: {prepared.layout.root}")


def moved(plan: UploadPlan) -> str:
    return f"uploaded {len(plan.uploads)} files ({plan.bytes / 1e6:.1f} MB), {len(plan.unchanged)} were there"


