"""The trees of object_detection and slim, out of whatever the user has: archive, checkout or release.

A source is the pinned archive of the Python package index, a checkout of tensorflow/models or its ``research`` folder
(where ``.proto`` files stand in place of generated modules), a release's tarball, or any sdist of object_detection. It
is only ever read.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from gcpod.errors import PackageError
from gcpod.packaging.tree import Tree, list_folder, read_archive, read_files
from gcpod.packaging.versions import normal_version

TOPS = ("object_detection", "slim")
ENTRY = "object_detection.model_main_tf2"
"""What a training starts with unless another module is named."""
_FIX = "give a tensorflow/models checkout, its research folder, a release's tarball or an sdist of object_detection"
_RESEARCH = "research/"
_LEFT_OUT = ("_test.py", "_tests.py", "_testdata.py", ".ipynb", ".md", ".png", ".jpg", ".jpeg", ".gif", ".sh", ".pyc",
             "/BUILD")
_FOLDERS_LEFT_OUT = frozenset({
    "__pycache__", "colab_tutorials", "configs", "dockerfiles", "g3doc", "samples", "test_ckpt", "test_data",
    "test_images", "testdata",
})
"""Documentation, pictures, sample configs and what only tests read: no job imports any of it."""
_TF1_MODULES = ("object_detection.model_main", "object_detection.model_tpu_main", "object_detection.legacy.",
                "object_detection.export_inference_graph")
"""Entry points of the TensorFlow 1 world (https://github.com/tensorflow/models/tree/master/research/object_detection)."""


@dataclass(frozen=True)
class Sources:
    """What is packed.

    Attributes:
        object_detection: paths start with ``object_detection/``; may hold ``.proto`` files.
        slim: paths start below ``slim``, such as ``nets/``.
        version, slim_version: normal forms of PEP 440.
    """

    object_detection: Tree
    slim: Tree
    version: str
    slim_version: str

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it, in hexadecimal."""
        digest = hashlib.sha256(f"{self.version} {self.slim_version}".encode())
        for tree in (self.object_detection, self.slim):
            for path, content in sorted(tree.items()):
                digest.update(f"{len(path)} {len(content)} {path}".encode())
                digest.update(content)
        return digest.hexdigest()


def setup_of(entry: str) -> str:
    """The setup.py that goes with a module: the one for TensorFlow 1 or that for TensorFlow 2.

    Args:
        entry: such as "object_detection.model_main_tf2".
    """
    first = any(entry == name or (name.endswith(".") and entry.startswith(name)) for name in _TF1_MODULES)
    return f"object_detection/packages/{'tf1' if first else 'tf2'}/setup.py"


def read_sources(path: Path, entry: str = ENTRY) -> Sources:
    """The sources in a folder or an archive.

    Args:
        path: a checkout of tensorflow/models, its research folder, or a .tar.gz.
        entry: the module that jobs start with; its setup.py tells the version.

    Raises:
        PackageError: K301, it holds no object_detection or no slim; or it cannot be read.
    """
    if path.is_dir():
        tree = _checkout(path)
    elif path.exists():
        tree = _below_research(read_archive(path, lambda name: _wanted(name.removeprefix(_RESEARCH))))
    else:
        raise PackageError("reading", path, "there is no such file or folder", _FIX)
    for required in ("object_detection", "slim/nets"):
        if not any(name.startswith(f"{required}/") and name.endswith(".py") for name in tree):
            raise PackageError("reading", path, f"it holds no modules in {required}", _FIX, code="K301")
    version = _version(tree, (setup_of(entry), "PKG-INFO"))
    return Sources(
        {name: content for name, content in tree.items() if _packed(name, "object_detection/")},
        {name.removeprefix("slim/"): content for name, content in tree.items() if _packed(name, "slim/")},
        version, _version(tree, ("slim/setup.py",), version),
    )


def _checkout(path: Path) -> Tree:
    root = path / "research" if (path / "research" / "object_detection").is_dir() else path
    missing = [top for top in TOPS if not (root / top).is_dir()]
    if missing:
        raise PackageError("reading", path, f"it holds no folder {' and no folder '.join(missing)}", _FIX, code="K301")
    names = [name for top in TOPS for name in list_folder(root, top, _entered) if _wanted(name)]
    return read_files(root, names)


def _entered(folder: str, _: Collection[str]) -> bool:
    return folder.rsplit("/", 1)[-1] not in _FOLDERS_LEFT_OUT


def _below_research(tree: Tree) -> Tree:
    """A release holds all of tensorflow/models, an sdist what is below its research folder."""
    if any(name.startswith(_RESEARCH) for name in tree):
        return {name.removeprefix(_RESEARCH): content for name, content in tree.items() if name.startswith(_RESEARCH)}
    return tree


def _wanted(path: str) -> bool:
    if path == "PKG-INFO":
        return True
    *folders, _ = path.split("/")
    return folders[:1] in (["object_detection"], ["slim"]) and _FOLDERS_LEFT_OUT.isdisjoint(folders) \
        and not path.endswith(_LEFT_OUT)


def _packed(path: str, top: str) -> bool:
    """Whether a file goes into the package: those that only said how to pack it do not, nor do scripts beside slim."""
    if not path.startswith(top) or path.startswith("object_detection/packages/"):
        return False
    return top != "slim/" or path.count("/") > 1


def _version(tree: Tree, places: Collection[str], otherwise: str = "0.1") -> str:
    """The version that the first of some files tells; "0.1" is what those of tensorflow/models say."""
    for place in places:
        told = _TELLS[place.rsplit("/", 1)[-1]](tree.get(place, b""))
        if told and (version := normal_version(told)):
            return version
    return otherwise


def _of_setup(content: bytes) -> str | None:
    try:
        calls = [node for node in ast.walk(ast.parse(content)) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    values = [k.value for call in calls for k in call.keywords if k.arg == "version"]
    return next((v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)), None)


def _of_metadata(content: bytes) -> str | None:
    return HeaderParser().parsestr(content.decode("utf-8", "replace")).get("Version")


_TELLS: dict[str, Callable[[bytes], str | None]] = {"setup.py": _of_setup, "PKG-INFO": _of_metadata}
