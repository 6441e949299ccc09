"""The model zoo as data: which pretrained detectors there are, and what each is."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from gcpod.errors import SpecError
from gcpod.models.archive import Version

ZOO = Path(__file__).with_name("zoo.yaml")


@dataclass(frozen=True)
class ZooModel:
    """One pretrained detector; every number's source is named in zoo.yaml.

    Attributes:
        name: as the zoo calls its archive.
        tensorflow: 1 or 2, the trainer that its checkpoint is for.
        url: of its ``.tar.gz``.
        architecture: field of the config's ``model``: ssd, faster_rcnn or center_net.
        extractor: the config's ``feature_extractor.type``.
        resizer: field of the config's ``image_resizer``.
        input_px: height and width; with keep_aspect_ratio_resizer the shorter and the longer side.
        coco_map: published box AP on COCO in percent, None where none is published.
        speed_ms: published milliseconds an image, None where none is published.
        fine_tune_checkpoint_type: what the config says to restore it.
        template: the built-in pipeline config that it goes with.
    """

    name: str
    tensorflow: int
    url: str
    architecture: str
    extractor: str
    resizer: str
    input_px: tuple[int, int]
    fine_tune_checkpoint_type: str
    template: str
    coco_map: float | None = None
    speed_ms: float | None = None

    @property
    def checkpoint_version(self) -> Version:
        """The config's ``fine_tune_checkpoint_version``, as far as it is known before the archive is."""
        return "V1" if self.tensorflow == 1 else "V2"

    @property
    def checkpoint_name(self) -> str:
        """What the zoo calls the checkpoints of that kind in its archives."""
        return "model.ckpt" if self.tensorflow == 1 else "ckpt-0"

    @property
    def input_text(self) -> str:
        """The input's size in pixels, in words."""
        first, second = self.input_px
        exact = self.resizer == "fixed_shape_resizer" or first == second
        return f"{first}x{second}" if exact else f"{first} to {second}"


def _model(name: str, raw: dict[str, Any]) -> ZooModel:
    return ZooModel(name=name, **{**raw, "input_px": tuple(raw["input_px"])})


@lru_cache
def all_models() -> dict[str, ZooModel]:
    """Every model of zoo.yaml by name."""
    raw = yaml.safe_load(ZOO.read_text(encoding="utf-8"))
    return {name: _model(name, fields) for name, fields in raw["models"].items()}


def find_model(name: str) -> ZooModel:
    """The model of that name.

    Raises:
        SpecError: there is none; the message has the nearest names.
    """
    known = all_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        fix = f"did you mean {' or '.join(near)}?" if near else "choose one of `gcpod model list`"
        raise SpecError("finding the model", name, "it is not in the list", fix)
    return known[name]
