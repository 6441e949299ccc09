"""Which checkpoints of a folder are whole, and which one its index names.

A checkpoint is an ``.index`` file and shards ``.data-NNNNN-of-MMMMM``; the file ``checkpoint`` beside it, a text proto
CheckpointState, names the newest (https://www.tensorflow.org/guide/checkpoint). The trainer writes it last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from gcpod_launcher.objects import Files

INDEX = "checkpoint"
_PART = re.compile(r"(?P<name>[^/]+)\.(?:index|data-(?P<shard>\d{5})-of-(?P<shards>\d{5}))")
_NAMED = re.compile(r'^\s*model_checkpoint_path\s*:\s*"([^"\\\n]*)"', re.MULTILINE)
_NUMBER = re.compile(r"-(\d{1,18})$")


def parts(names: Iterable[str]) -> dict[str, list[str]]:
    """The files of each whole checkpoint by its name, oldest checkpoint first; the ``.index`` is each one's last."""
    indexed: set[str] = set()
    shards: dict[tuple[str, int], dict[int, str]] = {}
    for name in names:
        match = _PART.fullmatch(name)
        if match and match["shard"] is None:
            indexed.add(match["name"])
        elif match:
            shards.setdefault((match["name"], int(match["shards"])), {})[int(match["shard"])] = name
    whole = {
        name: [*(found[number] for number in range(count)), f"{name}.index"]
        for (name, count), found in shards.items()
        if name in indexed and count and all(number in found for number in range(count))
    }
    return dict(sorted(whole.items(), key=lambda item: (_number(item[0]), item[0])))


def _number(name: str) -> int:
    match = _NUMBER.search(name)
    return int(match.group(1)) if match else -1


def index_text(names: Iterable[str]) -> str:
    """The text of an index for checkpoints beside it, oldest first; the last one is the newest."""
    names = list(names)
    every = "".join(f'all_model_checkpoint_paths: "{name}"\n' for name in names)
    return f'model_checkpoint_path: "{names[-1]}"\n{every}'


def named_by(text: str | None) -> str | None:
    """The checkpoint that an index names, as it stands there; None where there is no index or it cannot be read."""
    match = _NAMED.search(text) if text else None
    return match.group(1) if match else None


def split(prefix: str) -> tuple[str, str]:
    """Folder and name of a checkpoint's prefix."""
    folder, _, name = prefix.rpartition("/")
    return folder or ".", name


def mend(files: Files, folder: str, say: Callable[[str], None]) -> None:
    """Makes a model folder's index name its newest whole checkpoint, where the one that it names is not whole.

    A training that starts in the folder restores the one that is named. Nothing is done where the index names one of
    another folder; without any whole checkpoint the index goes, and the training begins anew.

    Raises:
        OSError: the storage failed.
    """
    folder = folder.rstrip("/")
    index = f"{folder}/{INDEX}"
    text = files.read(index)
    if text is None:
        return
    where, _, name = (named_by(text) or "").rpartition("/")
    if where and where.rstrip("/") != folder:
        return
    whole = list(parts(files.names(folder)))
    if name in whole:
        return
    found = f"{name} is not whole" if name else "it names no checkpoint"
    if whole:
        files.write(index, index_text(whole))
        say(f"reading {index}: {found}; the training goes on from {whole[-1]}")
    else:
        files.remove(index)
        say(f"reading {index}: {found}, and no other is; the training begins anew")
