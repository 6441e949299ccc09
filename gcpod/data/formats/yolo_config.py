"""Where YOLO's class names are: in data.yaml, which also says where the sides of the split lie, or in a list of names.

Both are described at https://docs.ultralytics.com/datasets/detect/, lists of names at
https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from gcpod.data.formats.reading import malformed
from gcpod.data.formats.splitlists import HOLDERS
from gcpod.data.formats.text import load_text
from gcpod.data.formats.yolo_names import Config, misnamed, parse_names
from gcpod.data.model import side_of

CLASS_LISTS: Final = ("classes.txt", "obj.names")

_SNIFFED_BYTES: Final = 1_000_000
_NAMES_KEY = re.compile(rb"""(?:^|[{,]\s*)["']?names["']?\s*:""", re.MULTILINE)
_YAML: Final = (".yaml", ".yml")
_malformed = partial(malformed, "reading the labels")


def read_config(path: Path) -> Config:
    """Reads data.yaml, or by its suffix a list of names.

    Raises:
        DataError: D104, it cannot be opened or decoded; D104 and D101, see `gcpod.data.formats.yolo_yaml.parse_config`
            and `parse_names`.
    """
    text, odd = load_text(path)
    if path.suffix.lower() in _YAML:
        from gcpod.data.formats.yolo_yaml import parse_config

        config = parse_config(text, path)
    else:
        config = parse_names(text, path)
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
                raise misnamed(folder, f"{yamls[0].name} and {yamls[1].name} both have names", "say which one counts")
            if yamls:
                return read_config(yamls[0])
        lists = [folder / name for folder in folders[1:] for name in CLASS_LISTS if (folder / name).is_file()]
    except OSError as err:
        raise _malformed(err.filename or labels, 0, err.strerror or str(err), "make it readable") from err
    lists += [labels / name for name in below if PurePosixPath(name).name.lower() in CLASS_LISTS]
    if not lists:
        fix = "write data.yaml with names: [first, second…] beside the labels"
        raise misnamed(labels, "there are no class names, neither data.yaml nor classes.txt", fix)
    configs = [read_config(path) for path in lists]
    other = next((config.path for config in configs if config.names != configs[0].names), None)
    if other:
        raise misnamed(other, f"it differs from {lists[0]}", "number the classes alike everywhere, in one list")
    return configs[0]


def yamls_with_names(folder: Path) -> list[Path]:
    """The folder's YAML files that have a key ``names``."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.name.lower().endswith(_YAML)):
        if not path.name.startswith(".") and path.is_file():
            with path.open("rb") as file:
                found += [path] if _NAMES_KEY.search(file.read(_SNIFFED_BYTES)) else []
    return found
