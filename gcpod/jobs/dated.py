"""What the dated data files of users have in common, prices and machines: plain YAML, and a day."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import yaml

from gcpod.errors import SpecError

Wrong = Callable[[object, str, str], SpecError]
"""Makes the error for a place, what was found there, and what to do."""
DEPTH = 5


def read_text(path: Path, most: int, wrong: Wrong, missing: str) -> str:
    """The text of a file of at most so many bytes; ``missing`` is what to do where it cannot be opened.

    Raises:
        SpecError: it cannot be read, is too large, or is no UTF-8.
    """
    try:
        with path.open("rb") as f:
            raw = f.read(most + 1)
        if len(raw) > most:
            raise wrong(path, f"it has more than {most} bytes", "check the path")
        return raw.decode("utf-8-sig")
    except OSError as e:
        raise wrong(path, e.strerror or str(e), missing) from e
    except UnicodeDecodeError as e:
        raise wrong(path, f"byte {e.start} is not UTF-8", "save it as UTF-8") from e


def refuse_odd(text: str, path: Path, wrong: Wrong) -> None:
    """An alias can make a short text stand for more than fits into memory, and nesting takes time by its square.

    Raises:
        SpecError: the text has either.
        yaml.YAMLError, ValueError: it is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > DEPTH:
            odd = "a YAML alias (*name)" if isinstance(event, yaml.AliasEvent) else "too many levels"
            raise wrong(path, f"it has {odd}", "see docs/machines.md for the format")


def is_day(text: object) -> bool:
    """Whether a text is a day as 2026-11-21; later versions of Python take more spellings than that."""
    with suppress(TypeError, ValueError):
        return isinstance(text, str) and datetime.date.fromisoformat(text).isoformat() == text
    return False
