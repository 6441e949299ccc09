"""TensorFlow 2 as the TensorFlow 1 entry points of object_detection want it.

They build graphs by ``tensorflow.compat.v1``, which needs TensorFlow 2's own behaviour switched off, and use a few
names of ``tensorflow.contrib``, which TensorFlow 2 does not have. Each name stands here for who asks for it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

MODULES = frozenset({
    "object_detection.legacy.train",
    "object_detection.legacy.eval",
    "object_detection.model_main",
    "object_detection.model_tpu_main",
    "object_detection.export_inference_graph",
})
"""Entry points that take configs of TensorFlow 1."""

CONTRIB = "tensorflow.contrib"


def apply() -> None:
    """Switches TensorFlow 2's behaviour off and puts ``tensorflow.contrib`` in place where there is none.

    Has to come before object_detection is imported: its modules ask at import which TensorFlow they run on.
    """
    import tensorflow as tf

    tf.compat.v1.disable_v2_behavior()
    if CONTRIB not in sys.modules and importlib.util.find_spec(CONTRIB) is None:
        for name, attributes in _contrib(tf).items():
            _put(f"{CONTRIB}.{name}", attributes)


def _contrib(tf: Any) -> dict[str, dict[str, object]]:
    from gcpod_launcher.averages import MovingAverageOptimizer

    options = tf.compat.v1.profiler.ProfileOptionBuilder
    return {
        # builders/optimizer_builder.py: every optimizer whose config does not say `use_moving_average: false`.
        "opt": {"MovingAverageOptimizer": MovingAverageOptimizer},
        # exporter.py prints the exported graph's parameters and operations; what it calls has moved.
        "tfprof": {"model_analyzer": SimpleNamespace(
            TRAINABLE_VARS_PARAMS_STAT_OPTIONS=options.trainable_variables_parameter(),
            FLOAT_OPS_OPTIONS=options.float_operation(),
            print_model_analysis=lambda graph, tfprof_options: tf.compat.v1.profiler.profile(
                graph, options=tfprof_options),
        )},
        # slim/nets/nasnet: the sizes of NASNet and PNASNet.
        "training": {"HParams": HParams},
        # builders/graph_rewriter_builder.py: quantization-aware training, a rewriting of graphs that went with contrib.
        "quantize": {name: refusal(f"{CONTRIB}.quantize", "take graph_rewriter out of the pipeline config")
                     for name in ("experimental_create_training_graph", "experimental_create_eval_graph")},
        # matchers/bipartite_matcher.py imports it for every model; an operation in C++.
        "image.python.ops.image_ops": {"bipartite_match": refusal(
            f"{CONTRIB}.image.bipartite_match", "use argmax_matcher in the pipeline config")},
    }


class HParams(SimpleNamespace):
    """Named values that can be changed by name."""

    def set_hparam(self, name: str, value: object) -> None:
        setattr(self, name, value)


def refusal(missing: str, fix: str) -> Callable[..., None]:
    """A function that ends the job with one line: training on without what the config asks for would be worse."""
    def refuse(*_: object, **__: object) -> None:
        sys.exit(f"gcpod_launcher: building the graph: {missing} is not part of TensorFlow 2; {fix}")
    return refuse


def _put(name: str, attributes: dict[str, object]) -> None:
    """Makes a module importable, and the packages above it that do not exist."""
    parent, _, last = name.rpartition(".")
    if parent not in sys.modules:
        _put(parent, {})
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(attributes)
    setattr(sys.modules[parent], last, module)
