"""The table of machines: gcpod's own (machines.yaml), with the rows of a user's file beside or in place of them.

Google offers new machines before gcpod knows them: who needs one names a file in GCPOD_MACHINES (docs/machines.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from gcpod.errors import SpecError
from gcpod.jobs.dated import is_day, read_text, refuse_odd

MACHINES_VARIABLE = "GCPOD_MACHINES"
MAX_BYTES = 1_000_000
MAX_COUNT = 100_000
_CLASS = re.compile(r"[a-z][a-z0-9]{0,19}(-[a-z0-9]{1,20}){1,2}")
_TYPE = re.compile(r"[a-z][a-z0-9]{0,19}(-[a-z0-9]{1,20}){1,3}")
_ACCELERATOR = re.compile(r"(NVIDIA|TPU)_[A-Z0-9_]{1,40}")
_REGION = re.compile(r"[a-z][a-z0-9-]{0,62}")
_TOPOLOGY = re.compile(r"[1-9][0-9]{0,2}(x[1-9][0-9]{0,2}){1,2}")
_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}")


def machine_table() -> Mapping[str, Any]:
    """The table that holds in this process, in the shape of machines.yaml.

    Raises:
        SpecError: J402, the file that GCPOD_MACHINES names cannot be read or understood.
    """
    return _table_with(os.environ.get(MACHINES_VARIABLE, ""))


@lru_cache
def _table_with(path: str) -> Mapping[str, Any]:
    own: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "machines.yaml").read_text(encoding="utf-8"))
    if not path:
        return own
    more = load_rows(Path(path))
    return {**own, "updated": more["date"], **{part: {**own[part], **more.get(part, {})} for part in _PARTS}}


def load_rows(path: Path) -> dict[str, Any]:
    """The rows in a user's file: ``date`` and any of the parts ``types``, ``accelerators`` and ``tpu_topologies``.

    Raises:
        SpecError: J402, it is missing, too large, no YAML, or holds anything else; with the key.
    """
    return parse_rows(read_text(path, MAX_BYTES, _wrong, f"correct {MACHINES_VARIABLE}, or leave it empty"), path)


def parse_rows(text: str, path: Path) -> dict[str, Any]:
    """The rows in a text; ``path`` is for messages.

    Raises:
        SpecError: as for load_rows.
    """
    try:
        refuse_odd(text, path, _wrong)
        # Every scalar of it is a string, so nothing is made of it but lists and mappings.
        raw = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, ValueError, TypeError) as e:
        mark = getattr(e, "problem_mark", None)
        raise _wrong(f"{path}:{mark.line + 1}" if mark else path, "it is no YAML", "correct it there") from e
    if not isinstance(raw, dict) or "date" not in raw or raw.keys() - {"date", *_PARTS}:
        raise _wrong(path, "it is not date and rows", f"it needs date, and may have {', '.join(_PARTS)}")
    found: dict[str, Any] = {"date": _day(raw["date"], path)}
    for part, (name, row_of) in _PARTS.items():
        rows = raw.get(part, {})
        if not isinstance(rows, dict):
            raise _wrong(path, f"{part} is no mapping", "see docs/machines.md for the format")
        found[part] = {
            _match(key, name, part, path): row_of(row, f"{part}.{key}", path) for key, row in rows.items()
        }
    return found


def _day(text: Any, path: Path) -> str:
    if not is_day(text):
        raise _wrong(path, "date is no day", "write the day it was read, as 2026-11-21")
    return str(text)


def _accelerator(row: Any, where: str, path: Path) -> dict[str, Any]:
    known = _keys(row, {"machines", "regions", "tensorflow"}, "machines", where, path)
    if not isinstance(known["machines"], dict) or not known["machines"]:
        raise _wrong(path, f"{where}.machines is no mapping", "write {TYPE: [COUNT]}, as {a3-highgpu-8g: [8]}")
    machines = {
        _match(kind, _TYPE, f"{where}.machines", path): _counts(counts, f"{where}.machines.{kind}", path)
        for kind, counts in known["machines"].items()
    }
    return {"machines": machines, **_place(known, where, path)}


def _sliced(row: Any, where: str, path: Path) -> dict[str, Any]:
    known = _keys(row, {"topologies", "regions", "tensorflow"}, "topologies", where, path)
    topologies = [_match(one, _TOPOLOGY, f"{where}.topologies", path)
                  for one in _list(known["topologies"], f"{where}.topologies", path)]
    return {"topologies": topologies, **_place(known, where, path)}


def _counts(values: Any, where: str, path: Path) -> list[int]:
    found = []
    for value in _list(values, where, path):
        if not isinstance(value, str) or not re.fullmatch("[0-9]{1,6}", value) or not 1 <= int(value) <= MAX_COUNT:
            raise _wrong(path, f"{where} holds {str(value)[:40]!r}", "write whole numbers from 1 on, as [4, 8]")
        found.append(int(value))
    return found


_PARTS: dict[str, tuple[re.Pattern[str], Callable[[Any, str, Path], Any]]] = {
    "types": (_CLASS, _counts), "accelerators": (_ACCELERATOR, _accelerator), "tpu_topologies": (_TYPE, _sliced),
}
"""What a user's file may add to, by part: how its rows are named, and what reads one."""


def _place(known: Mapping[str, Any], where: str, path: Path) -> dict[str, Any]:
    """The regions that a row names, and the TensorFlow it needs; as in machines.yaml, both may be left out."""
    found: dict[str, Any] = {}
    if "regions" in known:
        found["regions"] = [_match(one, _REGION, f"{where}.regions", path)
                            for one in _list(known["regions"], f"{where}.regions", path)]
    if "tensorflow" in known:
        found["tensorflow"] = _match(known["tensorflow"], _VERSION, f"{where}.tensorflow", path)
    return found


def _keys(row: Any, allowed: set[str], needed: str, where: str, path: Path) -> dict[str, Any]:
    if not isinstance(row, dict) or needed not in row or row.keys() - allowed:
        raise _wrong(path, f"{where} is no row", f"it needs {needed}, and may have regions and tensorflow")
    return row


def _list(value: Any, where: str, path: Path) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _wrong(path, f"{where} is no list", "write values in brackets, as [4, 8]")
    return value


def _match(value: Any, pattern: re.Pattern[str], where: str, path: Path) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _wrong(path, f"{where} has the name {str(value)[:40]!r}", "see docs/machines.md for the format")
    return value


def _wrong(where: object, found: str, fix: str) -> SpecError:
    return SpecError("reading the machines in", where, found, fix, code="J402")
