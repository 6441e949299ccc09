"""What a run came to, as a typed object, as JSON and as a file beside its logs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcpod.status import Metrics

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        run_id: names the run.
        root: its gs:// folder.
        saved_model: gs:// folder of the exported model.
        tensorboard: local folder of the event files.
        jobs: resource name of each job by kind.
        metrics: one entry for each evaluated checkpoint, in the order of the steps.
    """

    run_id: str
    root: str
    saved_model: str
    tensorboard: Path
    jobs: dict[str, str]
    metrics: tuple[Metrics, ...]

    @property
    def final(self) -> Metrics | None:
        """Metrics of the last evaluated checkpoint; None when nothing was evaluated."""
        return self.metrics[-1] if self.metrics else None

    def frame(self) -> pandas.DataFrame:
        """Every metric of every evaluated checkpoint: one row a step, one column a metric."""
        import pandas

        rows = {metrics.step: {"AP": metrics.ap, **metrics.values} for metrics in self.metrics}
        frame: pandas.DataFrame = pandas.DataFrame.from_dict(rows, orient="index")
        frame.index.name = "step"
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``--json`` prints them."""
        final = asdict(self.final) if self.final else None
        return {**asdict(self), "tensorboard": str(self.tensorboard), "final": final}


def write_result(result: RunResult, path: Path) -> None:
    """Writes the result as JSON, aside and renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
