"""Source distributions written without running anybody's setup.py: the same files always give the same bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_EPOCH = 315_532_800
"""1980-01-01, the oldest time that every archive format can hold."""


@dataclass(frozen=True)
class Sdist:
    """A package as it will be packed.

    Attributes:
        name, version: as pip will see them.
        files: path inside the package (with ``/``) to content.
        requires: requirements that pip installs beside it; empty where the image holds everything.
    """

    name: str
    version: str
    files: Mapping[str, bytes]
    requires: tuple[str, ...] = ()

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}.tar.gz"


def packages_of(paths: Iterable[str]) -> list[str]:
    """Dotted names of every folder that holds a module, whether it has an ``__init__.py`` or not."""
    folders = {path.rsplit("/", 1)[0] for path in paths if path.endswith(".py") and "/" in path}
    return sorted(folder.replace("/", ".") for folder in folders)


def pack(sdist: Sdist) -> bytes:
    """The .tar.gz bytes, laid out as https://packaging.python.org/en/latest/specifications/source-distribution-format/."""
    top = f"{sdist.name}-{sdist.version}"
    metadata = f"Metadata-Version: 2.1\nName: {sdist.name}\nVersion: {sdist.version}\n"
    metadata += "".join(f"Requires-Dist: {r}\n" for r in sdist.requires)
    content = {"PKG-INFO": metadata.encode(), "setup.py": _setup(sdist).encode(), **sdist.files}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(content):
            member = tarfile.TarInfo(f"{top}/{path}")
            member.size, member.mtime, member.mode = len(content[path]), _EPOCH, 0o644
            tar.addfile(member, io.BytesIO(content[path]))
    return gzip.compress(raw.getvalue(), compresslevel=6, mtime=_EPOCH)


def _setup(sdist: Sdist) -> str:
    data = sorted({"*." + path.rsplit(".", 1)[-1] for path in sdist.files if "." in path and not path.endswith(".py")})
    return (
        "from setuptools import setup\n\n"
        f"setup(\n    name={sdist.name!r},\n    version={sdist.version!r},\n"
        f"    packages={packages_of(sdist.files)!r},\n"
        f"    package_data={{'': {data!r}}},\n"
        f"    install_requires={list(sdist.requires)!r},\n)\n"
    )
