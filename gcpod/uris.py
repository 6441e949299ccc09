"""gs:// URIs, and paths that stay inside a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gcpod.errors import SpecError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_MAX_NAME_BYTES = 1024


@dataclass(frozen=True, order=True)
class GcsUri:
    """A place in Cloud Storage: a bucket and an object name or prefix ("" is the whole bucket).

    Bucket names follow https://cloud.google.com/storage/docs/buckets#naming, object names
    https://cloud.google.com/storage/docs/objects#naming (1 to 1,024 bytes of UTF-8, no CR or LF).
    """

    bucket: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> GcsUri:
        """Reads ``gs://bucket/name``.

        Raises:
            SpecError: the text is not such a URI, or breaks the naming rules.
        """
        if not text.startswith("gs://"):
            raise SpecError("reading the address", text, "it does not start with gs://", "write gs://BUCKET/PATH")
        bucket, _, name = text[5:].partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise SpecError(
                "reading the address", text, f"{bucket!r} is no bucket name",
                "use 3 to 222 lower-case letters, digits, '-', '_' or '.'",
            )
        if "\r" in name or "\n" in name or len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
            raise SpecError(
                "reading the address", bucket, "the object name has a line break or more than 1,024 bytes", "rename it",
            )
        return cls(bucket, name)

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}" if self.name else f"gs://{self.bucket}"

    def __truediv__(self, part: str) -> GcsUri:
        prefix = self.name.rstrip("/")
        return GcsUri(self.bucket, f"{prefix}/{part}" if prefix else part)

    @property
    def prefix(self) -> str:
        """The name with one closing slash, for listings; "" for the whole bucket."""
        stripped = self.name.rstrip("/")
        return f"{stripped}/" if stripped else ""


def inside(folder: Path, relative: str) -> Path:
    """Joins a name that came from outside to a folder, refusing to leave it.

    Raises:
        SpecError: the name is absolute, climbs out with "..", or holds a NUL byte.
    """
    root = folder.resolve()
    if "\0" not in relative:
        path = (root / relative).resolve()
        if path != root and path.is_relative_to(root):
            return path
    raise SpecError("using the name", repr(relative), f"it leads outside {folder}", "use a name below that folder")
