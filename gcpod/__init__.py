"""gcpod: from a folder of labelled images to a trained, evaluated, exported object detector on Google Cloud.

The public names are loaded at their first use, so that ``import gcpod`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcpod.errors import GcpodError as GcpodError

__version__ = "0.1.0"

_WHERE = {
    "GcpodError": "gcpod.errors",
}
__all__ = ["GcpodError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'gcpod' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
