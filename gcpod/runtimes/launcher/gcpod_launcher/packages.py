"""Source distributions and wheels fetched from the bucket and put on the import path, without a build step."""

from __future__ import annotations

import sys
import tarfile
import zipfile
import zlib
from pathlib import Path


def put_on_path(uris: list[str], folder: Path) -> None:
    """Unpacks each package below ``folder`` and puts it first on sys.path, in the order given.

    Raises:
        SystemExit: a package cannot be read, or a member of it would leave the folder.
    """
    for number, uri in enumerate(reversed(uris)):
        target = folder / str(number)
        target.mkdir()
        archive = folder / uri.rsplit("/", 1)[-1]
        _fetch(uri, archive)
        sys.path.insert(0, str(unpack(archive, target)))
        sys.stdout.write(f"gcpod_launcher: {uri} is on the import path\n")
    sys.stdout.flush()


def _fetch(uri: str, path: Path) -> None:
    import tensorflow as tf

    try:
        tf.io.gfile.copy(uri, str(path), overwrite=True)
    except tf.errors.OpError as e:
        sys.exit(f"gcpod_launcher: fetching {uri}: {e.message}; upload the packages again with `gcpod upload`")


def unpack(archive: Path, target: Path) -> Path:
    """Extracts an archive and returns the folder that holds its modules.

    Raises:
        SystemExit: it is damaged, or a member of it would leave the folder.
    """
    try:
        return _extract(archive, target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as e:
        sys.exit(f"gcpod_launcher: unpacking {archive}: {e}; upload the packages again with `gcpod upload`")


def _extract(archive: Path, target: Path) -> Path:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                _confine(archive, target, name)
            wheel.extractall(target)
        return target
    with tarfile.open(archive) as sdist:
        members = [m for m in sdist.getmembers() if m.isfile() or m.isdir()]
        for member in members:
            _confine(archive, target, member.name)
        sdist.extractall(target, members=members)
    tops = {m.name.split("/", 1)[0] for m in members}
    return target / tops.pop() if len(tops) == 1 else target


def _confine(archive: Path, target: Path, name: str) -> None:
    if not (target / name).resolve().is_relative_to(target.resolve()):
        sys.exit(f"gcpod_launcher: unpacking {archive}: its member {name!r} leads outside; build the package again")
