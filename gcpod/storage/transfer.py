"""Files moved to the bucket: several at once, each under its generation, each checked against the server's checksum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from gcpod.errors import StorageError
from gcpod.storage.objects import TIMEOUT_S, Objects, translated
from gcpod.storage.plan import LocalFile, Upload, UploadPlan, plan_upload
from gcpod.uris import GcsUri

WORKERS = 8


def upload_files(
    objects: Objects, files: Iterable[LocalFile], prefix: GcsUri, progress: Callable[[LocalFile], None] | None = None,
) -> UploadPlan:
    """Makes the bucket hold the files; what lies there unchanged is not sent again.

    Args:
        objects: the bucket's objects.
        files: what should be there, all below ``prefix``.
        prefix: listed once, to know what is there.
        progress: called after each file that moved, from this thread.

    Returns:
        what was done.

    Raises:
        StorageError, AuthError: the first failure; files already moved stay and are not sent again next time.
    """
    plan = plan_upload(files, objects.list(prefix))
    client = objects.session.storage
    with ThreadPoolExecutor(WORKERS) as pool:
        moving = {pool.submit(upload_one, client, upload, objects.retry): upload for upload in plan.uploads}
        try:
            for done in as_completed(moving):
                done.result()
                if progress is not None:
                    progress(moving[done].file)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return plan


def upload_one(client: Any, upload: Upload, retry: Any) -> None:
    """Moves one file; what the bucket has then is what the file had when it was planned.

    Raises:
        StorageError, AuthError: it could not be moved, or other bytes lie there.
    """
    from google.api_core.exceptions import PreconditionFailed

    file = upload.file
    with translated("uploading", file.uri):
        blob = client.bucket(file.uri.bucket).blob(file.uri.name)
        # The server refuses bytes that do not match this checksum; the client's own would replace it.
        blob.crc32c = file.crc32c
        try:
            blob.upload_from_filename(
                str(file.path), if_generation_match=upload.generation, timeout=TIMEOUT_S, checksum=None, retry=retry,
            )
        except PreconditionFailed:
            # The client's own repeat after a lost reply meets its first write.
            blob.reload(timeout=TIMEOUT_S, retry=retry)
    if blob.crc32c != file.crc32c:
        raise StorageError("uploading", file.uri, "another object with other bytes lies there since this upload began",
                           "make sure that nobody else writes there and run the command again")
