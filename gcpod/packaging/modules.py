"""The modules of a source that tell what a pipeline config may hold, read as text; protos are compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gcpod.errors import PackageError
from gcpod.packaging.protoc import compile_protos
from gcpod.packaging.source import Runner, run_command
from gcpod.packaging.tree import Tree, read_archive, read_files

MODEL_BUILDER: Final = "object_detection/builders/model_builder.py"
_RESEARCH: Final = "research/"


def config_modules(source: Path, cache: Path, runner: Runner = run_command) -> dict[str, str]:
    """The text of the protobuf modules and of the model builder, by path.

    Args:
        source: a checkout of tensorflow/models, its research folder, any folder with ``object_detection`` in it, or a
            .tar.gz of one of them.
        cache: the user's cache directory, for protoc.
        runner: runs protoc.

    Raises:
        PackageError: K301, it holds no object_detection; or it cannot be read or compiled.
    """
    tree = _folder(source) if source.is_dir() else _archive(source)
    if not tree:
        found, fix = "it holds no object_detection", "name the folder above it, or an archive of it"
        raise PackageError("reading the modules of", source, found, fix, code="K301")
    protos = {path: content for path, content in tree.items() if path.endswith(".proto")}
    tree |= compile_protos(protos, cache, runner) if protos else {}
    return {path: content.decode("latin-1") for path, content in tree.items() if path.endswith(".py")}


def _folder(source: Path) -> Tree:
    top = source / "research" if (source / "research" / "object_detection").is_dir() else source
    found = [*top.glob("object_detection/protos/*"), top / MODEL_BUILDER]
    names = {path.relative_to(top).as_posix() for path in found if path.is_file()}
    return read_files(top, sorted(filter(_told, names)))


def _archive(source: Path) -> Tree:
    tree = read_archive(source, lambda path: _told(path.removeprefix(_RESEARCH)))
    return {path.removeprefix(_RESEARCH): content for path, content in tree.items()}


def _told(path: str) -> bool:
    protos = path.startswith("object_detection/protos/") and path.endswith((".proto", "_pb2.py"))
    return protos or path == MODEL_BUILDER
