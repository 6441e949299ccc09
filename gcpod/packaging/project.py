"""The user's own training package: a folder with pyproject.toml, setup.cfg or setup.py, packed without its build.

What a job can import is the packages' files themselves, so these are taken, from where the project says that they lie,
and put to the top of an sdist of the one form that both modes of a job can use: the launcher puts its top on the import
path, and pip builds it with setuptools alone, whatever backend the project itself asks for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gcpod.errors import PackageError
from gcpod.packaging.metadata import read_metadata
from gcpod.packaging.sdist import Sdist
from gcpod.packaging.tree import list_folder, read_files

_LEFTOVERS = frozenset({
    "__pycache__", ".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", ".eggs", ".mypy_cache", ".pytest_cache",
    ".ruff_cache", ".ipynb_checkpoints", ".idea", ".vscode", "node_modules", "CVS",
})
_LEFTOVERS_AT_TOP = frozenset({"build", "dist"})
_NO_PACKAGES = frozenset({
    "tests", "test", "docs", "doc", "examples", "example", "scripts", "tools", "util", "utils", "python", "bin", "ci",
    "benchmarks", "benchmark", "tasks", "notebooks",
})
"""Folders beside the packages of a project without src/, much as setuptools leaves them out
(https://setuptools.pypa.io/en/latest/userguide/package_discovery.html#flat-layout)."""
_NO_MODULES = frozenset({"setup.py", "conftest.py", "noxfile.py", "tasks.py", "fabfile.py", "dodo.py"})
_SUFFIXES_LEFT_OUT = (".pyc", ".pyo", "~", ".DS_Store", ".swp")
_RESERVED = frozenset({"object_detection", "slim", "pycocotools", "gcpod_launcher"})
_RESERVED_TOPS = frozenset({"object_detection", "nets", "datasets", "deployment", "preprocessing", "pycocotools",
                            "gcpod_launcher"})
"""What a job imports beside the user's package; two of a name cannot be on one import path."""


@dataclass(frozen=True)
class Project:
    """A training package ready to pack.

    Attributes:
        sdist: without the label of its digest.
        computed_requires: whether it has requirements that only running its setup would tell.
    """

    sdist: Sdist
    computed_requires: bool


def read_project(folder: Path) -> Project:
    """The package in a project's folder, which is only read.

    Raises:
        PackageError: it is no project, its name or version is computed, it needs a compiler, holds nothing to import
            or what cannot be packed.
    """
    if not folder.is_dir():
        raise PackageError("packing", folder, "it is no folder", "give the folder of a Python project")
    listed = list_folder(folder, "", _entered)
    known = set(listed)

    def read(path: str) -> str | None:
        return read_files(folder, [path])[path].decode("utf-8", "replace") if path in known else None

    metadata = read_metadata(read, folder)
    if metadata.name in _RESERVED:
        raise PackageError("packing", folder, f"every job has a package of its name, {metadata.name}", "rename it")
    root = _root(listed, metadata.where)
    chosen = _below(listed, root, flat=root == "" and metadata.where is None)
    if not any(path.endswith(".py") for path in chosen):
        raise PackageError("packing", folder, "it holds no package to import",
                           "put the modules into a folder with an __init__.py, or below src/")
    start = len(root) + 1 if root else 0
    for top in sorted({path[start:].split("/")[0].removesuffix(".py") for path in chosen}):
        if top in _RESERVED_TOPS:
            raise PackageError("packing", folder, f"its {top} has the name of what object_detection or slim brings",
                               f"rename {top}", code="K301")
    if compiled := next((path for path in chosen if path.endswith((".pyx", ".pxd"))), None):
        raise PackageError("packing", folder, f"{compiled} has to be compiled",
                           "install it into an image of your own (runtime.image)")
    files = {path[start:]: content for path, content in read_files(folder, chosen).items()}
    return Project(Sdist(metadata.name, metadata.version, files, metadata.requires), metadata.computed_requires)


def _entered(folder: str, names: Collection[str]) -> bool:
    name = folder.rsplit("/", 1)[-1]
    if name in _LEFTOVERS or folder in _LEFTOVERS_AT_TOP:
        return False
    return not name.endswith((".egg-info", ".dist-info")) and "pyvenv.cfg" not in names


def _root(listed: Collection[str], said: str | None) -> str:
    """The folder that packages start from: what the project says, else src/ where it holds modules, else its own."""
    if said is not None:
        return said
    return "src" if any(path.startswith("src/") and path.endswith(".py") for path in listed) else ""


def _below(listed: Collection[str], root: str, flat: bool) -> list[str]:
    """Paths of packages, with their data, and of modules at the root.

    Args:
        listed: every path of the project.
        root: where packages start.
        flat: whether what else a project has lies beside them.
    """
    prefix = f"{root}/" if root else ""
    paths = [path for path in listed if path.startswith(prefix) and not path.endswith(_SUFFIXES_LEFT_OUT)]
    modules = [path for path in paths if path.endswith(".py")]
    tops = {path[len(prefix) :].split("/")[0] for path in modules if "/" in path[len(prefix) :]}
    if flat:
        tops = {top for top in tops if top not in _NO_PACKAGES and not top.startswith((".", "_"))}
        regular = {top for top in tops if f"{prefix}{top}/__init__.py" in modules}
        tops = regular or tops
    loose = [path for path in modules if "/" not in path[len(prefix) :] and path not in _NO_MODULES]
    # Beside packages, loose files of a flat project are its scripts; setuptools leaves them out too.
    loose = [] if flat and tops else loose
    return sorted(path for path in paths if path in loose or path[len(prefix) :].split("/")[0] in tops)
