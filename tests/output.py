"""What a call of the command line leaves behind."""

from __future__ import annotations

import json
from typing import Any


class Output:
    """What one command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)
