"""Small objects of a bucket: read, written under a generation precondition, listed. Errors are coded.

They go over the channel that transfers use; importing google-cloud-storage takes longer than all that a submission asks
of the bucket. It is imported where a bucket is made, or an object of unknown size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, TypeVar

from gcpod.errors import AuthError, GcpodError, OutageError, StorageError
from gcpod.session import Session
from gcpod.storage.calls import Content, DamagedError, Small, fetch, is_bucket, look, put, remove
from gcpod.storage.channel import Channel, Line
from gcpod.storage.listing import list_objects
from gcpod.storage.patience import Patience, coded
from gcpod.storage.plan import ObjectInfo
from gcpod.storage.pool import Pool
from gcpod.storage.traffic import PATIENCE_S, Traffic, TransferOptions
from gcpod.uris import GcsUri

TIMEOUT_S = 60.0
_WRITES, _TRIES = 5, 3
CHUNK_BYTES = 8 << 20
"""A multiple of 256 KiB (https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload)."""

_Result = TypeVar("_Result")


@contextmanager
def translated(tried: str, on: object) -> Iterator[None]:
    """Turns what Google's storage client raises into coded errors.

    Raises:
        AuthError: status 401 or 403.
        OutageError: no answer, or status 408, 429, 500, 502, 503 or 504.
        StorageError: everything else that the client raises.
    """
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests.exceptions import RequestException

    try:
        yield
    except GcpodError:
        raise
    except GoogleAPICallError as e:
        raise coded(tried, on, int(e.code or 0), e.message) from e
    except InvalidResponse as e:
        raise coded(tried, on, int(e.response.status_code), str(e.args[0])) from e
    except GoogleAuthError as e:
        raise AuthError(tried, on, str(e).splitlines()[0], "run `gcloud auth application-default login`") from e
    except DataCorruption as e:
        raise StorageError(tried, on, "the bytes do not match their checksum", "run the command again") from e
    except (RequestException, RetryError, ConnectionError) as e:
        raise OutageError(tried, on, f"no answer ({type(e).__name__})", "check the network and run it again") from e


class _Sender:
    """Passes writes on until one fails, and then fails with that: closing gzip writes once more, and would hide it."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._failure: Exception | None = None

    def write(self, data: bytes) -> int:
        if self._failure is not None:
            raise self._failure
        try:
            return int(self._writer.write(data))
        except Exception as e:
            self._failure = e
            raise


class Objects:
    """The objects a session reaches; for any thread, each of which has a connection that stays open.

    Args:
        session: who and where.
        patience_s: seconds that one call is tried again while the service is out of reach.
    """

    def __init__(self, session: Session, patience_s: float = PATIENCE_S) -> None:
        self.session, self.patience_s = session, patience_s
        self._pool = Pool(Line(session, Traffic(self.transfer_options)))

    def close(self) -> None:
        """Closes the connections; what nobody uses any more is closed by itself."""
        self._pool.close()

    @cached_property
    def retry(self) -> Any:
        """When Google's client tries again: transport errors, 408, 429 and 5xx; writes here carry a precondition."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(self.patience_s)

    @property
    def transfer_options(self) -> TransferOptions:
        """How bytes move where nobody says otherwise."""
        told = self.session.settings.storage
        return TransferOptions(workers=told.workers, rate_bytes=told.limit_bytes, patience_s=self.patience_s)

    def _ask(self, tried: str, on: object, attempt: Callable[[Channel], _Result]) -> _Result:
        """The result of a request, which is sent again while that may help.

        Raises:
            StorageError: the service refuses, or bytes arrive damaged again and again.
            AuthError, OutageError: see `Patience`.
        """
        with self._pool.channel() as channel:
            for _ in range(_TRIES):
                with suppress(DamagedError):
                    return Patience(channel.traffic, tried, on).run(lambda: attempt(channel))
        raise StorageError(tried, on, f"its bytes arrived damaged {_TRIES} times",
                           "check this machine's network and memory, and run the command again")

    def ensure_bucket(self, name: str) -> bool:
        """Makes the bucket in the session's region where it is missing; returns whether it was made.

        Training on a TPU needs a regional bucket (https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm).

        Raises:
            StorageError, AuthError: it can be neither found nor made.
        """
        if self._ask("looking for the bucket", f"gs://{name}", lambda channel: is_bucket(name, channel)):
            # Also where it may not be looked at: who may write objects need not be allowed to; the first write tells.
            return False
        from gcpod.storage.buckets import HiddenBucketError, create_bucket

        try:
            return create_bucket(self.session, name, retry=self.retry)[1]
        except HiddenBucketError:
            return False

    def read(self, uri: GcsUri) -> Content | None:
        """The bytes of an object and their generation; None when there is none."""
        return self._ask("reading", uri, lambda channel: fetch(uri, channel))

    def write_if(self, uri: GcsUri, content: bytes, generation: int) -> int | None:
        """Writes if the object's generation is the given one (0: does not exist); None when it is another.

        After a lost reply the repeated request meets what the first one wrote and gets 412, so a refusal only counts
        when the bytes there are not ours.

        Returns:
            the new generation.
        """
        written = self._ask("writing", uri, lambda channel: put(Small(content, uri, generation), channel))
        if written is not None:
            return written
        there = self.read(uri)
        return there.generation if there and there.content == content and there.generation != generation else None

    def delete_if(self, uri: GcsUri, generation: int) -> bool:
        """Deletes that generation of an object; False when it is another by now."""
        with self._pool.channel() as channel:
            return remove(uri, generation, channel)

    def write(self, uri: GcsUri, content: bytes) -> None:
        """Writes whatever is there, under the generation that it replaces.

        Raises:
            StorageError: somebody else writes there again and again.
        """
        for _ in range(_WRITES):
            there = self.list_exactly(uri)
            if self.write_if(uri, content, there[0].generation if there else 0) is not None:
                return
        raise StorageError("writing", uri, "somebody else writes it at the same time", "run the command again")

    @contextmanager
    def writer(self, uri: GcsUri, generation: int, metadata: Mapping[str, str]) -> Iterator[Any]:
        """A file to write an object of unknown size to, sent in parts of `CHUNK_BYTES` as they fill.

        The object comes into being at the end of the block, if its generation is the given one still (0: does not
        exist); a block that ends in an error leaves nothing.

        Raises:
            StorageError: somebody else wrote it meanwhile; or see `translated`.
        """
        with translated("writing", uri):
            told = self.session.settings.storage
            bucket = self.session.storage.bucket(uri.bucket, user_project=told.user_project)
            blob = bucket.blob(uri.name, kms_key_name=told.kms_key)
            blob.metadata = dict(metadata)
            writer = blob.open(
                "wb", chunk_size=CHUNK_BYTES, if_generation_match=generation, timeout=TIMEOUT_S, retry=self.retry,
                ignore_flush=True,
            )
            try:
                yield _Sender(writer)
                writer.close()
            except BaseException as e:
                # A writer that is dropped open sends what it holds as the object's end: half an object.
                writer.close = lambda: None
                with suppress(Exception):
                    writer.terminate()
                if type(e) is ValueError:
                    # The client's word for a service that kept fewer bytes than it was sent.
                    raise StorageError("writing", uri, str(e), "run the command again") from e
                raise

    def exists(self, uri: GcsUri) -> bool:
        return self._ask("looking at", uri, lambda channel: look(uri, channel)) is not None

    def list_exactly(self, uri: GcsUri) -> list[ObjectInfo]:
        """The object of that very name, if it is there."""
        return [info for info in self._listed(uri, uri.name, uri.name + "!") if info.uri == uri]

    def list(self, prefix: GcsUri) -> list[ObjectInfo]:
        """Everything below a prefix, without the empty "directory" objects that TensorFlow writes."""
        return [info for info in self._listed(prefix, prefix.prefix) if not info.uri.name.endswith("/")]

    def _listed(self, uri: GcsUri, prefix: str, before: str = "") -> Iterator[ObjectInfo]:
        with self._pool.channel() as channel:
            yield from list_objects(channel, uri, prefix, before)
