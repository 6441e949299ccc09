"""YOLO's class names: data.yaml, which also says where the sides of the split lie, or a list with a name a line.

Both are described at https://docs.ultralytics.com/datasets/detect/, lists of names at
https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

import yaml

from gcpod.data.formats.reading import malformed
from gcpod.data.formats.splitlists import HOLDERS
from gcpod.data.formats.text import load_text
from gcpod.data.model import Split, side_of
from gcpod.errors import DataError
from gcpod.status import Finding

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 20
CLASS_LISTS: Final = ("classes.txt", "obj.names")

_NAMES_KEY = re.compile(rb"""(?:^|[{,]\s*)["']?names["']?\s*:""", re.MULTILINE)
_SPLIT_KEYS: Final = ("train", "val", "valid", "test")
_YAML: Final = (".yaml", ".yml")
_malformed = partial(malformed, "reading the labels")


@dataclass(frozen=True)
class Config:
    """What data.yaml, or a list of names, says.

    Attributes:
        names: by class id, from 0; with gaps only where the ids are written out.
        splits: side, what is written there (an image folder, or a .txt that lists images), and its place.
        poses: lines are a box and keypoints, no polygons.
    """

    path: Path
    names: Mapping[int, str]
    splits: tuple[tuple[Split, str, str], ...] = ()
    poses: bool = False
    faults: tuple[Finding, ...] = ()


def read_config(path: Path) -> Config:
    """Reads data.yaml, or by its suffix a list of names.

    Raises:
        DataError: D104, it cannot be opened or decoded; D104 and D101, see `parse_config` and `parse_names`.
    """
    text, odd = load_text(path)
    config = (parse_config if path.suffix.lower() in _YAML else parse_names)(text, path)
    return replace(config, faults=(*odd, *config.faults))


def find_config(labels: Path, below: Iterable[str]) -> Config:
    """Looks for data.yaml in a folder of labels and those above it that only hold them, then for lists of names.

    Args:
        below: the relative paths of all files below the folder, among which there may be lists of names.

    Raises:
        DataError: D104, a folder cannot be read; D101, there is none, or several that differ; or see `read_config`.
    """
    folders = [labels]
    while (name := folders[-1].name) and (name.lower() in HOLDERS or side_of(name)):
        folders.append(folders[-1].parent)
    try:
        for folder in folders:
            yamls = yamls_with_names(folder)
            yamls = [path for path in yamls if path.stem.lower() in ("data", "dataset")] or yamls
            if len(yamls) > 1:
                raise _misnamed(folder, f"{yamls[0].name} and {yamls[1].name} both have names", "say which one counts")
            if yamls:
                return read_config(yamls[0])
        lists = [folder / name for folder in folders[1:] for name in CLASS_LISTS if (folder / name).is_file()]
    except OSError as err:
        raise _malformed(err.filename or labels, 0, err.strerror or str(err), "make it readable") from err
    lists += [labels / name for name in below if PurePosixPath(name).name.lower() in CLASS_LISTS]
    if not lists:
        fix = "write data.yaml with names: [first, second…] beside the labels"
        raise _misnamed(labels, "there are no class names, neither data.yaml nor classes.txt", fix)
    configs = [read_config(path) for path in lists]
    other = next((config.path for config in configs if config.names != configs[0].names), None)
    if other:
        raise _misnamed(other, f"it differs from {lists[0]}", "number the classes alike everywhere, in one list")
    return configs[0]


def yamls_with_names(folder: Path) -> list[Path]:
    """The folder's YAML files that have a key ``names``."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.name.lower().endswith(_YAML)):
        if not path.name.startswith(".") and path.is_file():
            with path.open("rb") as file:
                found += [path] if _NAMES_KEY.search(file.read(MAX_BYTES)) else []
    return found


def parse_config(text: str, path: Path) -> Config:
    """Parses data.yaml; class names are taken as written, also where YAML would read a number or a truth value.

    Raises:
        DataError: D104, no YAML, or YAML that uses aliases or tags, is over 1 MB or nested deeper than 20; D101, no
            names, or one that is empty, repeated or not printable.
    """
    keys = _mapping(text, path)
    at = {key: f"{path}:{node.start_mark.line + 1}" for key, node in keys.items()}
    if "names" not in keys:
        raise _misnamed(path, "it has no names", "write names: [first, second…] into it")
    names = _checked(_yaml_names(keys["names"], path), path)
    faults = []
    if "nc" in keys and _scalar(keys["nc"]) != str(len(names)):
        found = f"nc is {_scalar(keys['nc'])[:20]!r}, but there are {len(names)} names"
        faults.append(Finding("D101", "warning", at["nc"], found, "the names count; correct nc"))
    splits = []
    for key in keys.keys() & set(_SPLIT_KEYS):
        node, side = keys[key], side_of(key)
        entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
        splits += [(side, _scalar(entry), at[key]) for entry in entries if side and _scalar(entry)]
    return Config(path, names, tuple(sorted(splits)), "kpt_shape" in keys, tuple(faults))


def parse_names(text: str, path: Path) -> Config:
    """Parses a list of names, one a line from class 0; blank lines may stand at its end only.

    Raises:
        DataError: D101; as for `parse_config`.
    """
    lines = enumerate(text.rstrip().split("\n"))
    return Config(path, _checked(((index, name, f"{path}:{index + 1}") for index, name in lines), path))


def _mapping(text: str, path: Path) -> dict[str, yaml.Node]:
    if len(text) > MAX_BYTES:
        raise _malformed(path, 0, f"it has {len(text)} characters", "data.yaml is a few dozen lines; check the path")
    try:
        _refuse_odd(text, path)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError) as err:
        mark = getattr(err, "problem_mark", None)
        found = getattr(err, "problem", None) or getattr(err, "reason", None) or str(err)
        raise _malformed(path, mark.line + 1 if mark else 0, str(found), "correct the YAML there") from err
    if not isinstance(root, yaml.MappingNode):
        raise _malformed(path, 0, "it is no mapping", "write it as `key: value` lines")
    keys: dict[str, yaml.Node] = {}
    for key, value in root.value:
        if _scalar(key) in keys:
            found = f"{_scalar(key)[:60]!r} is given twice"
            raise _malformed(path, key.start_mark.line + 1, found, "keep one of them")
        keys[_scalar(key)] = value
    return keys


def _refuse_odd(text: str, path: Path) -> None:
    """What no data.yaml needs: aliases can make a short text huge, depth ends in a RecursionError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise _malformed(path, line, "it uses a YAML alias (*name)", "write the value out")
        if getattr(event, "tag", None) is not None:
            raise _malformed(path, line, "it uses a YAML tag (!name)", "write the value without it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _malformed(path, line, f"it is nested deeper than {MAX_DEPTH}", "flatten it")


def _scalar(node: yaml.Node) -> str:
    """The text of a plain value, "" for null and for whatever is no plain value."""
    is_text = isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null"
    return str(node.value) if is_text else ""


def _yaml_names(node: yaml.Node, path: Path) -> Iterator[tuple[int, str, str]]:
    pairs: Iterable[tuple[str, yaml.Node]] = ()
    if isinstance(node, yaml.SequenceNode):
        pairs = ((str(index), value) for index, value in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        pairs = ((_scalar(key), value) for key, value in node.value)
    for index, value in pairs:
        place = f"{path}:{value.start_mark.line + 1}"
        if not re.fullmatch("[0-9]{1,9}", index) or not isinstance(value, yaml.ScalarNode):
            raise _misnamed(place, "this is no class id with its name", "write names: [first, second…]")
        yield int(index), str(value.value), place


def _checked(named: Iterable[tuple[int, str, str]], path: Path) -> dict[int, str]:
    """Names by class id, out of ids, names and places."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for index, written, place in named:
        name = " ".join(written.split())
        if not name or index in names or name in taken:
            found = f"class {index}, named {name[:60]!r}, is there twice or its name is empty"
            raise _misnamed(place, found, "give each class a name of its own")
        if re.search("[\x00-\x1f\x7f\ud800-\udfff]", name):
            raise _misnamed(place, f"{name[:60]!r} holds a control character", "remove it")
        names[index] = name
        taken.add(name)
    if not names:
        raise _misnamed(path, "it names no classes", "write names: [first, second…] into it")
    return names


def _misnamed(on: object, found: str, fix: str) -> DataError:
    return DataError("reading the class names", on, found, fix, code="D101")
