"""The launcher's objects as files of a folder, for tests without TensorFlow; the real ones are in tests/trainer."""

from __future__ import annotations

import shutil
from pathlib import Path


class Folder:
    """``gcpod_launcher.objects.Files`` on a disk, which fails from the nth change on, or while it is ``out``."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.changes, self.fail_at, self.out = 0, fail_at, False

    def _change(self) -> None:
        if self.fail_at is not None and self.changes >= self.fail_at:
            raise OSError("the storage went away")
        self.changes += 1
        self._look()

    def _look(self) -> None:
        if self.out:
            raise OSError("the storage does not answer")

    def read(self, uri: str) -> str | None:
        self._look()
        path = Path(uri)
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def write(self, uri: str, text: str) -> None:
        self._change()
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        Path(uri).write_text(text, encoding="utf-8")

    def version(self, uri: str) -> int | None:
        self._look()
        return Path(uri).stat().st_mtime_ns if Path(uri).exists() else None

    def names(self, folder: str) -> list[str]:
        self._look()
        return [p.name + "/" * p.is_dir() for p in Path(folder).iterdir()] if Path(folder).is_dir() else []

    def copy(self, source: str, target: str) -> None:
        self._change()
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

    def remove(self, uri: str) -> None:
        self._change()
        Path(uri).unlink(missing_ok=True)


def save(folder: Path, name: str, shards: int = 1, content: str = "") -> str:
    """Writes what stands for a whole checkpoint; returns its prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        (folder / f"{name}.data-{shard:05d}-of-{shards:05d}").write_text(f"{content or name} {shard}")
    (folder / f"{name}.index").write_text(content or name)
    return f"{folder}/{name}"
