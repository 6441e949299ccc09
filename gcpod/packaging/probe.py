"""Run by the runtime's own Python, never imported by the client: imports modules as a job would, and writes what fails.

    python -I probe.py REQUEST

REQUEST is a JSON file with ``launcher`` (the folder of gcpod_launcher, or "" where a package brings it), ``packages``
(paths that the launcher unpacks; empty where pip installed them), ``folder`` (for either), ``modules``, ``entry`` (the
module that the job runs) and ``result``: where the answer goes, a list with an object per module.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def probe(request: dict[str, Any]) -> list[dict[str, str]]:
    """Puts the packages on the import path and imports each module; what is told has only texts."""
    sys.path.insert(0, request["launcher"] or request["folder"])
    from gcpod_launcher import compat, packages

    packages.put_on_path(request["packages"], Path(request["folder"]))
    steps: dict[str, Callable[[], object]] = {"tensorflow": lambda: compat.apply(request["entry"])}
    steps |= {module: partial(importlib.import_module, module) for module in request["modules"]}
    return [_told(module, step) for module, step in steps.items()]


def _told(module: str, step: Callable[[], object]) -> dict[str, str]:
    try:
        step()
    except BaseException as e:  # a module may as well end the process; that it does is the answer
        missing = e.name if isinstance(e, ModuleNotFoundError) else None
        return {"module": module, "error": type(e).__name__, "text": str(e), "missing": missing or ""}
    return {"module": module, "error": "", "text": "", "missing": ""}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = probe(request)
    Path(request["result"]).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
