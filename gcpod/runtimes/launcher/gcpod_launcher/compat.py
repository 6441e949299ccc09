"""What object_detection 2.8 misses on newer TensorFlow releases, put back before it is imported."""

from __future__ import annotations

import importlib

from gcpod_launcher import tf1

_MOVED = {
    "case": ("control_flow_case", "case"),
    "cond": ("cond", "cond"),
    "while_loop": ("while_loop", "while_loop"),
    "Assert": ("control_flow_assert", "Assert"),
}
"""Names that left tensorflow.python.ops.control_flow_ops in TF 2.13; tf-slim 1.1.0 still looks for them there."""


def apply(module: str = "") -> None:
    """Readies this process for a module; TensorFlow behaves as 1.x for those of ``tf1.MODULES`` alone."""
    ops = "tensorflow.python.ops."
    control_flow = importlib.import_module(ops + "control_flow_ops")
    for name, (moved_to, attribute) in _MOVED.items():
        if not hasattr(control_flow, name):
            setattr(control_flow, name, getattr(importlib.import_module(ops + moved_to), attribute))
    if module in tf1.MODULES:
        tf1.apply()
