"""YOLO's data.yaml: class names, and where the sides of the split lie (https://docs.ultralytics.com/datasets/detect/)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import yaml

from gcpod.data.formats.reading import malformed
from gcpod.data.formats.yolo_names import Config, checked, misnamed
from gcpod.data.model import side_of
from gcpod.status import Finding

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 20

_SPLIT_KEYS: Final = ("train", "val", "valid", "test")
_malformed = partial(malformed, "reading the labels")


def parse_config(text: str, path: Path) -> Config:
    """Parses data.yaml; class names are taken as written, also where YAML would read a number or a truth value.

    Raises:
        DataError: D104, no YAML, or YAML that uses aliases or tags, is over 1 MB or nested deeper than 20; D101, no
            names, or one that is empty, repeated or not printable.
    """
    keys = _mapping(text, path)
    at = {key: f"{path}:{node.start_mark.line + 1}" for key, node in keys.items()}
    if "names" not in keys:
        raise misnamed(path, "it has no names", "write names: [first, second…] into it")
    names = checked(_yaml_names(keys["names"], path), path)
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
            raise misnamed(place, "this is no class id with its name", "write names: [first, second…]")
        yield int(index), str(value.value), place
