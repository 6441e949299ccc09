"""What is wrong at one place of a config, and the change of its text that puts it right, where there is a safe one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gcpod.pipeline.edit import Edit
from gcpod.pipeline.reading import Reading, backslashed
from gcpod.pipeline.schema import Schema, built_in_schema
from gcpod.status import Finding, Severity
from gcpod.textproto import Message, Scalar, position


@dataclass(frozen=True)
class LintContext:
    """What the config is for.

    Attributes:
        num_labels: classes in the label map; None when unknown.
        tpu_cores: cores the training will use; 0 off a TPU.
        gpus: accelerators the training will use, of all its machines; 0 off a GPU.
        cloud: paths must be readable by a job (gs:// or /gcs/).
        tensorflow: "1" or "2", whose entry point will train; "" for whichever the model is for.
        schema: of the release that will be packaged.
    """

    num_labels: int | None = None
    tpu_cores: int = 0
    gpus: int = 0
    cloud: bool = True
    tensorflow: str = ""
    schema: Schema = field(default_factory=built_in_schema)


@dataclass(frozen=True)
class Problem:
    """A finding at a place of the text; ``edits`` is empty where only its author knows what is right."""

    finding: Finding
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Config:
    """A config that was parsed, for the rules to look at."""

    text: str
    where: str
    reading: Reading
    context: LintContext

    @property
    def tree(self) -> Message:
        return self.reading.tree

    def backslashed(self, address: Scalar) -> bool:
        """Whether backslashes keep a value from being the address that it should be."""
        raw = self.text[address.start : address.end]
        return self.reading.holds(address) or backslashed(raw, address.value, self.context.cloud)

    def problem(
        self, code: str, at: int, found: str, fix: str, edits: Sequence[Edit] = (), severity: Severity = "error",
    ) -> Problem:
        """One at an offset of the text."""
        return Problem(Finding(code, severity, f"{self.where}:{position(self.text, at)}", found, fix), tuple(edits))
