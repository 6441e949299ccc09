"""Source distributions written without running anybody's setup.py: the same files always give the same bytes."""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

_EPOCH = 315_532_800
"""1980-01-01, the oldest time that every archive format can hold."""
_DIGEST_DIGITS = 12


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

    @property
    def digest(self) -> str:
        """SHA-256 of everything that will be packed, in hexadecimal."""
        digest = hashlib.sha256()
        for path, content in sorted(_content(self).items()):
            digest.update(f"{len(path)} {len(content)} {path}".encode("utf-8", "surrogateescape"))
            digest.update(content)
        return digest.hexdigest()

    def labelled(self) -> Sdist:
        """The same under a version that carries the digest, ``1.0+g1a2b3c4d5e6f``: a local version label (PEP 440).

        A changed package thus never hides behind the name of an old one; the letter keeps a digest of digits only from
        being read as a number (https://packaging.python.org/en/latest/specifications/version-specifiers/).
        """
        joint = "." if "+" in self.version else "+"
        return replace(self, version=f"{self.version}{joint}g{self.digest[:_DIGEST_DIGITS]}")


def packages_of(paths: Iterable[str]) -> list[str]:
    """Dotted names of every folder that holds a module, whether it has an ``__init__.py`` or not."""
    folders = {path.rsplit("/", 1)[0] for path in paths if path.endswith(".py") and "/" in path}
    return sorted(folder.replace("/", ".") for folder in folders)


def data_of(paths: Iterable[str]) -> dict[str, list[str]]:
    """For each package the files in it that are no modules, as setuptools' ``package_data`` wants them."""
    listed = list(paths)
    packages = {name.replace(".", "/") for name in packages_of(listed)}
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in listed if not path.endswith(".py")):
        folder = path
        while "/" in folder:
            folder = folder.rsplit("/", 1)[0]
            if folder in packages:
                found.setdefault(folder.replace("/", "."), []).append(glob.escape(path[len(folder) + 1 :]))
                break
    return found


def pack(sdist: Sdist) -> bytes:
    """The .tar.gz bytes, laid out as https://packaging.python.org/en/latest/specifications/source-distribution-format/."""
    top, content = f"{sdist.name}-{sdist.version}", _content(sdist)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(content):
            member = tarfile.TarInfo(f"{top}/{path}")
            member.size, member.mtime, member.mode = len(content[path]), _EPOCH, 0o644
            tar.addfile(member, io.BytesIO(content[path]))
    return gzip.compress(raw.getvalue(), compresslevel=6, mtime=_EPOCH)


def _content(sdist: Sdist) -> dict[str, bytes]:
    metadata = f"Metadata-Version: 2.1\nName: {sdist.name}\nVersion: {sdist.version}\n"
    metadata += "".join(f"Requires-Dist: {r}\n" for r in sdist.requires)
    return {**sdist.files, "PKG-INFO": metadata.encode(), "setup.py": _setup(sdist).encode()}


def _setup(sdist: Sdist) -> str:
    loose = {path for path in sdist.files if path.endswith(".py") and "/" not in path} - {"setup.py"}
    modules = sorted(path.removesuffix(".py") for path in loose)
    return (
        "from setuptools import setup\n\n"
        f"setup(\n    name={sdist.name!r},\n    version={sdist.version!r},\n"
        f"    packages={packages_of(sdist.files)!r},\n"
        f"    py_modules={modules!r},\n"
        f"    package_data={data_of(sdist.files)!r},\n"
        f"    install_requires={list(sdist.requires)!r},\n)\n"
    )
