"""What a run is called: its name comes from what is learned, so that the same inputs find the same run again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from gcpod.models.start import start_type
from gcpod.packaging.build import own_sources, sources_digest
from gcpod.pipeline.render import template_text
from gcpod.spec import Spec, TrainSpec

_NOT_LEARNED = frozenset({"machine", "timeout_hours", "schedule", "stall_minutes", "cancel_on_nan"})
_LATER = frozenset({"workers", "module", "arguments"})
"""Keys of the training that count where they are set: runs made before they were there keep their names."""


def is_learned(key: str) -> bool:
    """Whether a dotted key of gcpod.yaml can be part of a run's name beside its data and packages."""
    part, _, rest = key.partition(".")
    if part == "model":
        return rest != "zoo_mirror"
    return part == "runtime" or (part == "train" and rest.partition(".")[0] not in _NOT_LEARNED)


def learned(spec: Spec) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What of model, train and runtime decides what is learned, and so counts for the run's name.

    Raises:
        SpecError, PackageError: the zoo has no such model, or a mirror of it no allowed address.
    """
    model = {**asdict(spec.model), "fine_tune_checkpoint_type": start_type(spec)}
    del model["zoo_mirror"]
    train = {
        k: v for k, v in asdict(spec.train).items()
        if k not in _NOT_LEARNED and not (k in _LATER and v == getattr(TrainSpec(), k))
    }
    return model, train, {"name": spec.runtime.name, "mode": spec.runtime.mode, "image": spec.runtime.image}


def run_name(spec: Spec, dataset_digest: str) -> str:
    """The name of a run: the same inputs always give the same, so that a second start finds the first.

    What changes what is learned counts; machines, time limits and places do not.

    Raises:
        SpecError, PackageError: as for render_spec_config.
    """
    template, _ = template_text(spec.model.template, spec.folder)
    inputs = [dataset_digest, template, *learned(spec)]
    if own := sources_digest(**own_sources(spec)):
        inputs.append(own)
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return f"{spec.name}-{digest[:8]}"
