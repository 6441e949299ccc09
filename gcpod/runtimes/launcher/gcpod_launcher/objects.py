"""Small objects and files of checkpoints, in a bucket or on a disk: all that the launcher reads and writes itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


def say(line: str) -> None:
    """One line in the job's log."""
    sys.stdout.write(f"gcpod_launcher: {line}\n")
    sys.stdout.flush()


class Files(Protocol):
    """Where the launcher's objects lie; each method raises OSError when the storage fails."""

    def read(self, uri: str) -> str | None:
        """The text of an object; None when there is none."""

    def write(self, uri: str, text: str) -> None:
        """Makes or replaces an object."""

    def version(self, uri: str) -> int | None:
        """Another number for each time the object was written; None when there is none."""

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, without its address; nothing where there is no such folder."""

    def copy(self, source: str, target: str) -> None:
        """Copies an object over whatever is there."""

    def remove(self, uri: str) -> None:
        """Deletes an object if it is there."""


class GFiles:
    """The file systems of TensorFlow, which has Cloud Storage's built in."""

    def __init__(self) -> None:
        import tensorflow as tf

        self._tf: Any = tf

    def read(self, uri: str) -> str | None:
        with self._trouble(uri):
            try:
                with self._tf.io.gfile.GFile(uri, "rb") as f:
                    return str(f.read(), "utf-8", "replace")
            except self._tf.errors.NotFoundError:
                return None

    def write(self, uri: str, text: str) -> None:
        with self._trouble(uri), self._tf.io.gfile.GFile(uri, "w") as f:
            f.write(text)

    def version(self, uri: str) -> int | None:
        with self._trouble(uri):
            try:
                return int(self._tf.io.gfile.stat(uri).mtime_nsec)
            except self._tf.errors.NotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        with self._trouble(folder):
            try:
                return [str(name) for name in self._tf.io.gfile.listdir(folder)]
            except self._tf.errors.NotFoundError:
                return []

    def copy(self, source: str, target: str) -> None:
        with self._trouble(source):
            self._tf.io.gfile.makedirs(target.rpartition("/")[0])
            self._tf.io.gfile.copy(source, target, overwrite=True)

    def remove(self, uri: str) -> None:
        with self._trouble(uri):
            try:
                self._tf.io.gfile.remove(uri)
            except self._tf.errors.NotFoundError:
                return

    @contextmanager
    def _trouble(self, uri: str) -> Iterator[None]:
        try:
            yield
        except self._tf.errors.OpError as e:
            raise OSError(f"{uri}: {' '.join(e.message.split())[:300]}") from e
