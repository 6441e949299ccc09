"""Training with moving averages of the weights, as tensorflow.contrib.opt had it.

The averages are what an evaluation or export with ``use_moving_averages: true`` reads from the checkpoint.
"""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf


class MovingAverageOptimizer(tf.train.Optimizer):  # type: ignore[misc]  # TensorFlow has no types
    """Applies another optimizer's gradients and then averages the variables they changed.

    Args:
        optimizer: a tf.train.Optimizer.
        average_decay: how much of the average stays at each step, 0 to 1.
    """

    def __init__(self, optimizer: Any, average_decay: float) -> None:
        super().__init__(use_locking=False, name="MovingAverageOptimizer")
        self._optimizer = optimizer
        self._average = tf.train.ExponentialMovingAverage(average_decay)

    def compute_gradients(self, *args: Any, **kwargs: Any) -> Any:
        return self._optimizer.compute_gradients(*args, **kwargs)

    def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, name: str | None = None) -> Any:
        pairs = list(grads_and_vars)
        train = self._optimizer.apply_gradients(pairs, global_step, name)
        with tf.control_dependencies([train]):
            return self._average.apply([variable for gradient, variable in pairs if gradient is not None])
