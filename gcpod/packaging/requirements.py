"""Whether installing a package would replace what the runtime has locked (finding K304)."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gcpod.errors import PackageError
from gcpod.packaging.versions import normal_requirement
from gcpod.runtimes import Runtime
from gcpod.status import Finding

_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu")
"""Distributions that bring the module tensorflow: each would overwrite another's files."""


def locked(runtime: Runtime) -> dict[str, str]:
    """Version by normalised name of every distribution of a runtime."""
    text = runtime.lock.read_text(encoding="utf-8")
    found: dict[str, str] = dict.fromkeys(_TENSORFLOWS, runtime.tensorflow)
    for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;\\]+)", text):
        found[canonicalize_name(name)] = version
    return found


def requirements_of(archive: Path) -> tuple[str, ...]:
    """What an sdist or a wheel says it needs.

    Raises:
        PackageError: it is damaged, or holds no metadata.
    """
    try:
        text = _metadata(archive)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, StopIteration) as e:
        raise PackageError("reading", archive, str(e) or "it holds no metadata", "delete it and build it again") from e
    return tuple(HeaderParser().parsestr(text).get_all("Requires-Dist") or ())


def _metadata(archive: Path) -> str:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            return wheel.read(name).decode("utf-8", "replace")
    with tarfile.open(archive) as sdist:
        name = next(name for name in sdist.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO"))
        file = sdist.extractfile(name)
        return file.read().decode("utf-8", "replace") if file else ""


def compare(archive: Path, requires: tuple[str, ...], runtime: Runtime, python: str) -> Iterator[Finding]:
    """K304 for each requirement of a package that the runtime's locked versions do not meet.

    Args:
        archive: the package, for messages.
        requires: in the form of PEP 508.
        runtime: whose lock counts.
        python: version of the Python the job runs on, for markers such as ``python_version < "3.9"``.
    """
    known, environment = locked(runtime), _environment(python)
    for text in requires:
        if normal_requirement(text) is None:
            continue
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        version = known.get(name)
        if version is None:
            yield Finding("K304", "warning", archive.name, f"it requires {text}, which {runtime.name} has not locked",
                          "a trainer image lacks it, and pip would choose it and all it needs: build it into an image")
        elif requirement.url or not requirement.specifier.contains(version, prereleases=True):
            what = "TensorFlow" if name in _TENSORFLOWS else name
            yield Finding("K304", "error", archive.name, f"it requires {text}, {runtime.name} has {name} {version}",
                          f"ask for no other {what} than the runtime's, or for none")


def _environment(python: str) -> Mapping[str, str]:
    """Markers of the job's machine (https://packaging.python.org/en/latest/specifications/dependency-specifiers/)."""
    return {"python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython",
            "implementation_version": f"{python}.0", "platform_python_implementation": "CPython", "os_name": "posix",
            "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "extra": ""}
