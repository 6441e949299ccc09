"""A zoo model on this disk: fetched once, known again by its digest, ready to restore from."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gcpod.cache import locked
from gcpod.errors import PackageError
from gcpod.models.archive import LIMITS, Limits, Version, find_checkpoint, unpack
from gcpod.models.download import PATIENCE, Download, Patience, Say
from gcpod.models.zoo import ZooModel
from gcpod.uris import inside

Progress = Callable[[str, int, "int | None"], None]
"""Called with "fetch" or "unpack", bytes done, and bytes in all or None."""
DIGEST = "M602"
_HASH_BYTES = 1 << 20


@dataclass(frozen=True)
class FetchedModel:
    """A model in the user's cache.

    Attributes:
        prefix: for ``fine_tune_checkpoint``; what the checkpoint's files share.
        files: the checkpoint's own: the index and every data shard.
        fine_tune_checkpoint_version: that field of the config: "V2" for an object-based checkpoint (TF2), "V1" for a
            name-based one (TF1).
        pipeline_config: the one that came along, None where none did.
        sha256: of the archive.
        folder: of the model in the cache; without it, it is fetched anew.
    """

    model: ZooModel
    prefix: Path
    files: tuple[Path, ...]
    fine_tune_checkpoint_version: Version
    pipeline_config: Path | None
    sha256: str
    folder: Path


@dataclass(frozen=True)
class _Record:
    """What was fetched at first use: the archive's digest and size, and the size of each file that was in it."""

    url: str
    sha256: str
    size_bytes: int
    files: dict[str, int]


def mirrored(model: ZooModel, base: str) -> str:
    """The model's address below another base: the file keeps its name."""
    return f"{base.rstrip('/')}/{model.url.rsplit('/', 1)[1]}"


def _folder(model: ZooModel, cache: Path) -> Path:
    return inside(cache / "models", model.name)


def fetched_model(model: ZooModel, cache: Path) -> FetchedModel | None:
    """The model where it lies whole in ``cache/models/NAME``; no network is asked.

    Raises:
        PackageError: M602, the record of the first use is damaged.
        ConfigError: C201, it holds no whole checkpoint.
    """
    return _lying(model, _folder(model, cache))


def fetch_model(
    model: ZooModel, cache: Path, session: Any, *, base: str | None = None, limits: Limits = LIMITS,
    patience: Patience = PATIENCE, progress: Progress = lambda *_: None, say: Say = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> FetchedModel:
    """The model in ``cache/models/NAME``, fetched and unpacked there unless it lies there whole.

    Args:
        model: one of the zoo.
        cache: the user's cache directory.
        session: a requests.Session.
        base: where to fetch from in place of the zoo's own address; the file has the same name there.
        limits: the largest archive that is taken.
        patience: how long the server is waited for.
        progress: see `Progress`.
        say: told why a request is repeated.
        sleep: waits so many seconds.

    Raises:
        PackageError: M601, it cannot be fetched; M602, it is not what it was at first use; M603, the archive is
            damaged, too large or malicious; M604, the address is not allowed.
        ConfigError: C201, it holds no whole checkpoint.
    """
    folder = _folder(model, cache)
    there = _lying(model, folder)
    if there is not None:
        return there
    folder.mkdir(parents=True, exist_ok=True)
    # One process at a time fetches a model; the others wait and find it there.
    with locked(folder):
        there = _lying(model, folder)
        if there is not None:
            return there
        transfer = Download(
            mirrored(model, base) if base else model.url, folder / "archive.part", session,
            limit_bytes=limits.archive_bytes, patience=patience, say=say, sleep=sleep,
            progress=lambda done, total: progress("fetch", done, total),
        )
        transfer.run()
        try:
            _install(folder, transfer, limits, progress)
        finally:
            shutil.rmtree(_aside(folder), ignore_errors=True)
        found = _lying(model, folder)
    if found is None:
        raise PackageError("fetching", model.name, "its files changed while they were put into the cache",
                           "let nothing else write there and run the command again", code=DIGEST)
    return found


def in_words(say: Say, name: str) -> Progress:
    """Progress as a line at the begin and at each quarter of a fetch, for where no bar can be."""
    quarters = -1

    def told(phase: str, done: int, total: int | None) -> None:
        nonlocal quarters
        reached = 4 * done // total if total else 0
        if phase == "fetch" and reached > quarters:
            quarters = reached
            say(f"fetching {name}: {done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB"))

    return told


def _install(folder: Path, transfer: Download, limits: Limits, progress: Progress) -> None:
    """Unpacks aside and moves into place. Killed anywhere, nothing half done is taken for whole."""
    archive, aside, target = transfer.part, _aside(folder), folder / "files"
    digest = _sha256(archive)
    try:
        _compare(folder, digest, transfer.url)
        shutil.rmtree(aside, ignore_errors=True)
        unpack(archive, aside, limits, lambda done, total: progress("unpack", done, total), transfer.url)
        find_checkpoint(aside, transfer.url)
    except Exception as e:
        if not isinstance(e, OSError):
            transfer.forget()
        raise
    sizes = {path.relative_to(aside).as_posix(): path.stat().st_size for path in _regular(aside)}
    _write_record(folder, _Record(transfer.url, digest, archive.stat().st_size, sizes))
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    transfer.forget()


def _compare(folder: Path, digest: str, url: str) -> None:
    """Refuses an archive that is not the one of the first use.

    Raises:
        PackageError: M602.
    """
    record = _record(folder)
    if record is not None and record.sha256 != digest:
        raise PackageError(
            "checking what came from", url, f"its SHA-256 is {digest}, and was {record.sha256} at first use",
            f"do not trust it; if the zoo did change it, remove {_told(folder)}", code=DIGEST,
        )


def _lying(model: ZooModel, folder: Path) -> FetchedModel | None:
    """The model if all of its files lie there with the sizes they had."""
    record, files = _record(folder), folder / "files"
    if record is None or not files.is_dir():
        return None
    if {path.relative_to(files).as_posix(): path.stat().st_size for path in _regular(files)} != record.files:
        return None
    checkpoint = find_checkpoint(files, model.name)
    configs = sorted(files.rglob("pipeline.config"), key=lambda path: (len(path.parts), path))
    config = configs[0] if configs else None
    return FetchedModel(model, checkpoint.prefix, checkpoint.files, checkpoint.version, config, record.sha256, folder)


def _record(folder: Path) -> _Record | None:
    """What was recorded at first use.

    Raises:
        PackageError: M602, the record is damaged, so that nothing can be compared with it.
    """
    path = _told(folder)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): int(size) for name, size in raw["files"].items()}
        return _Record(str(raw["url"]), str(raw["sha256"]), int(raw["size_bytes"]), files)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise PackageError("reading", path, "the record of the first use is damaged",
                           f"remove {folder} to fetch the model anew", code=DIGEST) from e


def _write_record(folder: Path, record: _Record) -> None:
    aside = folder / "record.json.part"
    aside.write_text(json.dumps(asdict(record), indent=2), encoding="utf-8")
    aside.replace(_told(folder))


def _told(folder: Path) -> Path:
    return folder / "record.json"


def _aside(folder: Path) -> Path:
    return folder / "files.part"


def _regular(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()
