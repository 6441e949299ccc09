"""The demo: a small labelled dataset drawn here, and the spec that learns it in minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from gcpod.data.demo import draw_demo
from gcpod.spec import DataSpec, EvalSpec, ModelSpec, Spec, TrainSpec
from gcpod.specfile import load_spec, render_spec

SPEC_NAME = "gcpod.yaml"
_HEAD = "# The demo's spec: everything small, so that two cores learn it in minutes.\n"


def demo_spec(steps: int = 500) -> Spec:
    """The spec of the demo.

    SSD MobileNet v2 at depth multiplier 0.35 and 128 x 128 pixels learns the drawn shapes in 500 steps of 16 images.
    It asks for the tutorials' TPU and GPU; the local region runs CPU machines in their place and says so.
    """
    return Spec(
        name="shapes",
        data=DataSpec(images="data/images", annotations="data/annotations"),
        model=ModelSpec(image_size=128, depth_multiplier=0.35),
        train=TrainSpec(steps=steps, batch_size=16, learning_rate=0.08, warmup_steps=50, checkpoint_every=steps),
        eval=EvalSpec(poll_s=2.0),
    )


def make_demo(folder: Path, steps: int = 500) -> Spec:
    """Draws the dataset and writes the spec where they are missing, and returns the spec.

    Raises:
        SpecError: a spec lies there that cannot be read.
    """
    path = folder / SPEC_NAME
    if not path.exists():
        draw_demo(folder / "data")
        path.write_text(_HEAD + render_spec(demo_spec(steps)), encoding="utf-8")
    return load_spec(path)


