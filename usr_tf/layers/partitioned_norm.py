"""Partitioned normalisation: statistics per scenario (Sheng et al., "STAR", CIKM 2021)."""

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.dense import Split
from usr_tf.layers.folding import fold
from usr_tf.layers.scenario import Scenario
from usr_tf.layers.shapes import check_shapes
from usr_tf.training.strategies import sum_over_replicas


class Normalized(NamedTuple):
    """Normalised parts of the input."""

    scenario: Split
    """With the row's own scenario's statistics and weights."""
    shared: Split | None
    """With the statistics of all rows and the weights that scenarios share; None without the shared form."""


@keras.saving.register_keras_serializable(package="usr_tf")
class PartitionedNormalization(ConfiguredLayer):
    """Partitioned normalisation; for row `z` of scenario p, column by column::

        scenario:  (γ ⊗ γ_p) ⊗ (z - μ_p) / √(σ_p² + ε) + (β + β_p)
        shared:    γ ⊗ (z - μ) / √(σ² + ε) + β

    In training `μ_p` and `σ_p²` are the mean and the variance of the batch's rows of scenario p, `μ` and `σ²` those of
    all its rows; under several replicas the batch is all of theirs. Elsewhere they are moving averages, and the layer
    is an affine map of each column that sees no other row.

    A moving average takes the step `max(1 - momentum, n / N)`, n being the batch's rows and N all rows so far, the
    batch's included: until it would forget too slowly it is the mean, and the variance, of all rows so far, however few
    of them a batch has (Chan, Golub and LeVeque, 1979). It owes nothing to where it started. A scenario that is absent
    from a batch keeps its averages. A scenario's only row in a batch becomes `β + β_p`.

    Args:
      scenarios: Number of scenarios, K.
      use_shared: Whether there is the shared form.
      momentum: What a moving average keeps of itself at a step, in the long run.
      epsilon: ε, of the unit of a variance. The defaults are those of `keras.layers.BatchNormalization`.

    Call arguments:
      inputs: `(request [R, dr], candidate [B, dc])`. R is B in training, and B or 1 elsewhere.
      scenario: int32 `[B]`; or a Python int, and then only that scenario's weights are read.
      training: Whether statistics of the batch are used and the moving ones updated.

    Returns:
      `Normalized`. A part with one row keeps one where the scenario is a Python int, and in the shared form.
    """

    def __init__(
        self, scenarios: int, use_shared: bool = True, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if scenarios < 1:
            raise ValueError(f"`scenarios` must be at least 1. Received: {scenarios}")
        if not (0 <= momentum < 1 and epsilon > 0):
            raise ValueError(
                f"`momentum` must be from 0 to below 1 and `epsilon` above 0. Received: {momentum}, {epsilon}"
            )
        self.scenarios = scenarios
        self.use_shared = use_shared
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: tuple[tf.TensorShape, ...]) -> None:
        width = sum(shape[-1] for shape in input_shape)

        def moving(name: str, *stack: int) -> _Statistics:
            def add(part: str, shape: tuple[int, ...], initializer: str) -> tf.Variable:
                # Replicas compute the same step, from the rows of all of them.
                return self.add_weight(
                    name=f"{name}_{part}",
                    shape=shape,
                    initializer=initializer,
                    trainable=False,
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                )

            columns = (*stack, width)
            return _Statistics(
                add("rows", stack, "zeros"), add("mean", columns, "zeros"), add("variance", columns, "ones")
            )

        self.gamma = self.add_weight(name="gamma", shape=[width], initializer="ones")
        self.beta = self.add_weight(name="beta", shape=[width], initializer="zeros")
        self.scenario_gamma = self.add_weight(name="scenario_gamma", shape=[self.scenarios, width], initializer="ones")
        self.scenario_beta = self.add_weight(name="scenario_beta", shape=[self.scenarios, width], initializer="zeros")
        self.scenario_moving = moving("scenario_moving", self.scenarios)
        self.moving = moving("moving") if self.use_shared else None
        super().build(input_shape)

    def call(self, inputs: Split, scenario: Scenario, training: bool = False) -> Normalized:
        check_shapes(request=(inputs[0], "R dr"), candidate=(inputs[1], "B dc"))
        own, every = self.scenario_moving, self.moving
        if training:
            if isinstance(scenario, int):
                scenario = tf.fill([tf.shape(inputs[-1])[0]], scenario)
            own = self._statistics(tf.concat(inputs, axis=-1), scenario)
            self._update(self.scenario_moving, own)
            if self.use_shared:
                every = _pooled(own)
                self._update(self.moving, every)
        normalized = _apply(self._own_affine(own, scenario), inputs)
        if not self.use_shared:
            return Normalized(normalized, None)
        weights = [every.mean, every.variance, self.gamma, self.beta]
        return Normalized(normalized, _apply(fold(lambda: self._affine(*weights), *weights), inputs))

    def _own_affine(self, own: "_Statistics", scenario: Scenario) -> tuple[tf.Tensor, tf.Tensor]:
        """Scale and shift of each row's own scenario: `[B, d]`, or `[d]` if static."""
        weights = [own.mean, own.variance, self.scenario_gamma, self.scenario_beta]

        def compute(mean: tf.Tensor, variance: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple:
            return self._affine(mean, variance, self.gamma * gamma, self.beta + beta)

        if isinstance(scenario, int):
            return fold(lambda: compute(*(weight[scenario] for weight in weights)), *weights, self.gamma, self.beta)
        scale, shift = compute(*weights)
        return tf.gather(scale, scenario), tf.gather(shift, scenario)

    def _affine(
        self, mean: tf.Tensor, variance: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scale and shift that normalise a column and apply gain and bias."""
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        return scale, beta - mean * scale

    def _statistics(self, x: tf.Tensor, scenario: tf.Tensor) -> "_Statistics":
        """Batch statistics of the rows of each scenario; zeros for an absent one."""

        def summed(values: tf.Tensor) -> tf.Tensor:
            return sum_over_replicas(tf.math.unsorted_segment_sum(values, scenario, self.scenarios))

        rows = summed(tf.ones_like(x[:, 0]))
        mean = tf.math.divide_no_nan(summed(x), rows[:, tf.newaxis])
        variance = summed(tf.math.squared_difference(x, tf.gather(mean, scenario)))
        return _Statistics(rows, mean, tf.math.divide_no_nan(variance, rows[:, tf.newaxis]))

    def _update(self, moving: "_Statistics", batch: "_Statistics") -> None:
        rows = moving.rows + batch.rows
        step = tf.maximum(1 - self.momentum, tf.math.divide_no_nan(batch.rows, rows))
        step = tf.where(batch.rows > 0, step, 0.0)[..., tf.newaxis]
        apart = tf.math.squared_difference(batch.mean, moving.mean)  # what the batches' means add to the variance
        moving.variance.assign_add(step * (batch.variance + (1 - step) * apart - moving.variance))
        moving.mean.assign_add(step * (batch.mean - moving.mean))
        moving.rows.assign(rows)


class _Statistics(NamedTuple):
    """Column statistics of some rows, optionally with a leading scenario axis."""

    rows: tf.Tensor
    mean: tf.Tensor
    """`[..., d]`."""
    variance: tf.Tensor
    """`[..., d]`, the mean squared distance from the mean."""


def _pooled(parts: _Statistics) -> _Statistics:
    """Statistics of all rows from those per scenario: variance within plus between."""
    rows = tf.reduce_sum(parts.rows)
    share = tf.math.divide_no_nan(parts.rows, rows)[:, tf.newaxis]
    mean = tf.reduce_sum(share * parts.mean, axis=0)
    spread = parts.variance + tf.math.squared_difference(parts.mean, mean)
    return _Statistics(rows, mean, tf.reduce_sum(share * spread, axis=0))


def _apply(affine: tuple[tf.Tensor, tf.Tensor], inputs: Split) -> Split:
    """Applies scale and shift to each part, by its columns."""
    widths = [part.shape[-1] for part in inputs]
    scales, shifts = (tf.split(values, widths, axis=-1) for values in affine)
    return tuple(part * scale + shift for part, scale, shift in zip(inputs, scales, shifts, strict=True))
