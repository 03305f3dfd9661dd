"""Dense layers that split over request and candidate, and stacked dense layers."""

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.configured_layer import ConfiguredLayer
from usr_tf.layers.folding import fold
from usr_tf.layers.scenario import Scenario, apply_own_weights

Split = tuple[tf.Tensor, ...]
"""An input in parts: `(request [R, dr], candidate [B, dc])`; R is B in training, and 1 in serving with B items."""


_NARROW = 40
"""So many outputs of all scenarios together cost a row less than its way to its own scenario and back
(`docs/performance.md`)."""


class _Dense(ConfiguredLayer):
    """Base class: an affine map with leading axes `stack`, and an activation."""

    def __init__(
        self,
        units: int,
        *,
        stack: Sequence[int] = (),
        activation: Any = None,
        use_bias: bool = True,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if min((units, *stack)) < 1:
            raise ValueError(f"`units` and the number of layers must be at least 1. Received: {units}, {tuple(stack)}")
        self.units = units
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self._stack = tuple(stack)

    def build(self, input_shape: Any) -> None:
        width = sum(shape[-1] for shape in tf.nest.flatten(input_shape))
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self._stack, width, self.units),
            initializer=glorot_uniform(width, self.units),
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(*self._stack, self.units), initializer="zeros")
        super().build(input_shape)

    @property
    def _parameters(self) -> list[tf.Variable]:
        return [self.kernel, self.bias] if self.use_bias else [self.kernel]


@keras.saving.register_keras_serializable(package="usr_tf")
class SplitDense(_Dense):
    """`activation(W [x_1; x_2; …] + b)` of parts that are never concatenated.

    `W [r; c] = W_r r + W_c c`, so in serving the one request is multiplied once and not once a candidate. The result
    and the distribution of the initial weights are those of a `Dense` on the concatenation.

    Args:
      units: Size of the output.
      activation, use_bias, kernel_regularizer: As for `keras.layers.Dense`.

    Call arguments:
      inputs: Tuple of parts `[..., d_i]` of one rank whose leading axes broadcast: `(request [R, dr], candidate
        [B, dc])` with R = B or R = 1.

    Returns:
      `[..., units]`: for those parts `[B, units]`.
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            units, activation=activation, use_bias=use_bias, kernel_regularizer=kernel_regularizer, **kwargs
        )

    def call(self, inputs: Split) -> tf.Tensor:
        return self.activation(affine(inputs, *self._parameters))


@keras.saving.register_keras_serializable(package="usr_tf")
class StackedDense(_Dense):
    """`layers` independent dense layers in one product.

    Args:
      units: Size of each layer's output.
      layers: How many layers, S below.
      activation, use_bias, kernel_regularizer: As for `keras.layers.Dense`.

    Call arguments:
      inputs: `[B, S, in]`, each layer reading its own slice; or `[B, in]`, read by all; or a tuple of parts of either
        form, as for `SplitDense`.

    Returns:
      `[B, S, units]`.
    """

    def __init__(
        self,
        units: int,
        layers: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            units,
            stack=(layers,),
            activation=activation,
            use_bias=use_bias,
            kernel_regularizer=kernel_regularizer,
            **kwargs,
        )
        self.layers = layers

    def call(self, inputs: tf.Tensor | Split) -> tf.Tensor:
        return self.activation(affine(inputs, *self._parameters))


@keras.saving.register_keras_serializable(package="usr_tf")
class ScenarioDense(_Dense):
    """Dense layer with weights per scenario, and optionally per task.

    The rows of a mixed batch are routed to their scenarios' kernels (`usr_tf.layers.scenario.route`): as many products
    as a `Dense` has, and no row has a kernel to itself. Where all scenarios' outputs together are narrow, they are
    computed for every row, which chooses its own: that moves less than the routing of its input.

    Args:
      units: Size of the output.
      scenarios: Number of scenarios, K.
      tasks: Number of tasks, T, each with its own weights. None: no such axis.
      activation, use_bias, kernel_regularizer: As for `keras.layers.Dense`.

    Call arguments:
      inputs: `[B, in]`; with tasks also `[B, T, in]`, each task reading its own slice; or a tuple of parts of either
        form, as for `SplitDense`.
      scenario: int32 `[B]`; or a Python int, and then only that scenario's weights are read.

    Returns:
      `[B, units]`, with tasks `[B, T, units]`.
    """

    def __init__(
        self,
        units: int,
        scenarios: int,
        tasks: int | None = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            units,
            stack=(scenarios,) if tasks is None else (scenarios, tasks),
            activation=activation,
            use_bias=use_bias,
            kernel_regularizer=kernel_regularizer,
            **kwargs,
        )
        self.scenarios = scenarios
        self.tasks = tasks

    def call(self, inputs: tf.Tensor | Split, scenario: Scenario) -> tf.Tensor:
        shared = all(len(part.shape) == 2 for part in tf.nest.flatten(inputs))
        narrow = math.prod(self._stack) * self.units <= _NARROW
        apply = self._choose if shared and narrow and not isinstance(scenario, int) else self._route
        return self.activation(apply(inputs, scenario))

    def _route(self, inputs: tf.Tensor | Split, scenario: Scenario) -> tf.Tensor:
        return apply_own_weights(affine, inputs, self._parameters, scenario)

    def _choose(self, inputs: tf.Tensor | Split, scenario: tf.Tensor) -> tf.Tensor:
        stack = math.prod(self._stack)
        flat = [tf.reshape(weight, [stack, *weight.shape[len(self._stack) :]]) for weight in self._parameters]
        every = tf.reshape(affine(inputs, *flat), [-1, *self._stack, self.units])
        own = tf.one_hot(scenario, self.scenarios, dtype=every.dtype)
        return tf.reduce_sum(every * tf.reshape(own, [-1, self.scenarios] + [1] * len(self._stack)), axis=1)


@keras.saving.register_keras_serializable(package="usr_tf")
class ExpertStack(ConfiguredLayer):
    """Independent ReLU networks that read the same input.

    Args:
      experts: Number of experts, E.
      units: Size of each layer of an expert, first layer first.
      kernel_regularizer: As for `keras.layers.Dense`.

    Call arguments:
      inputs: `(request [R, dr], candidate [B, dc])`, as for `SplitDense`.

    Returns:
      `[B, E, units[-1]]`.
    """

    def __init__(self, experts: int, units: Sequence[int], kernel_regularizer: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not units:
            raise ValueError(f"`units` must hold at least one layer. Received: {units}")
        if min((experts, *units)) < 1:
            raise ValueError(f"`experts` and `units` must be at least 1. Received: {experts}, {units}")
        self.experts = experts
        self.units = list(units)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: tuple[tf.TensorShape, ...]) -> None:
        width = sum(shape[-1] for shape in input_shape)
        self._parameters = []
        for index, size in enumerate(self.units):
            kernel = self.add_weight(
                name=f"kernel_{index}",
                shape=(self.experts, width, size),
                initializer=glorot_uniform(width, size),
                regularizer=self.kernel_regularizer,
            )
            bias = self.add_weight(name=f"bias_{index}", shape=(self.experts, size), initializer="zeros")
            self._parameters += [kernel, bias]
            width = size
        super().build(input_shape)

    def call(self, inputs: Split) -> tf.Tensor:
        return relu_network(inputs, *self._parameters)


def glorot_uniform(fan_in: int, fan_out: int) -> keras.initializers.Initializer:
    """Glorot uniform initializer with explicit fans.

    Keras would count the leading axes of a stack of kernels as a convolution's window. Every entry of the stack is
    drawn on its own, so no two layers of it are born alike.
    """
    limit = math.sqrt(6 / max(1, fan_in + fan_out))
    return keras.initializers.RandomUniform(-limit, limit)


def relu_network(inputs: tf.Tensor | Split, *weights: tf.Tensor) -> tf.Tensor:
    """ReLU network `inputs → relu(inputs W + b)` from its kernels and biases.

    Inputs and kernels are as for `affine`. With kernels `[S, in, u]` S networks side by side, one after the other: a
    product for each moves less than one batched product a layer, whose results are too large for the cache. On a CPU
    that takes three quarters to nine tenths of the time in training, and no more in serving (`benchmarks/experts.py`).
    """
    if len(weights[0].shape) == 3:
        stacked = fold(lambda: [tf.unstack(weight) for weight in weights], *weights)
        networks = zip(_slices(inputs, len(stacked[0])), *stacked, strict=True)
        return tf.stack([relu_network(own, *slices) for own, *slices in networks], axis=1)
    hidden = inputs
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        hidden = tf.nn.relu(affine(hidden, kernel, bias))
    return hidden


def affine(inputs: tf.Tensor | Split, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """Product of a kernel with the concatenation of `inputs`, plus bias.

    Args:
      inputs: `[..., in]`, or parts `[..., in_i]` whose leading axes broadcast, each multiplied by itself.
      kernel: `[in, u]`; or `[S, in, u]`, and then the inputs are `[B, in]`, read by all, or `[B, S, in]`.
      bias: `[u]` or `[S, u]`.

    Returns:
      `[..., u]`; with S kernels `[B, S, u]`.

    Raises:
      ValueError: the parts together are not as wide as the kernel is long.
    """
    parts = tf.nest.flatten(inputs)
    widths = [part.shape[-1] for part in parts]
    if None not in widths and sum(widths) != kernel.shape[-2]:
        found = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"The inputs must be {kernel.shape[-2]} wide together. Received: shapes {found}")
    if len(kernel.shape) == 3:
        return _affine_each(parts, kernel, bias)
    parts = [part for part in parts if part.shape[-1]] or parts[:1]
    widths = [part.shape[-1] for part in parts]
    kernels = fold(lambda: tf.split(kernel, widths, axis=0), kernel) if len(parts) > 1 else [kernel]
    result = _product(parts[0], kernels[0])
    if bias is not None:  # to the first part, which may be one row
        result = tf.nn.bias_add(result, bias) if len(result.shape) > 1 else result + bias
    for part, own in zip(parts[1:], kernels[1:], strict=True):
        product = _product(part, own)
        # One request's part is a bias of its candidates' products, which TensorFlow adds within the product.
        result = tf.nn.bias_add(product, result[0]) if result.shape[:-1] == [1] else result + product
    return result


def _affine_each(parts: Sequence[tf.Tensor], kernel: tf.Tensor, bias: tf.Tensor | None) -> tf.Tensor:
    """`[B, S, u]` products of stacked kernels `[S, in, u]`."""
    stack, width, units = kernel.shape
    if all(len(part.shape) == 2 for part in parts):  # the same for all: one product
        together = fold(lambda: tf.reshape(tf.transpose(kernel, [1, 0, 2]), [width, stack * units]), kernel)
        flat = affine(tuple(parts), together, None if bias is None else tf.reshape(bias, [-1]))
        return tf.reshape(flat, [-1, stack, units])
    kernels = fold(lambda: tf.unstack(kernel), kernel)
    biases = [None] * stack if bias is None else tf.unstack(bias)
    each = zip(_slices(tuple(parts), stack), kernels, biases, strict=True)
    return tf.stack([affine(own, *weights) for own, *weights in each], axis=1)


def _slices(inputs: tf.Tensor | Split, stack: int) -> list[tf.Tensor | Split]:
    """Input of each of S networks: its slice of a part `[B, S, in]`, all of a part `[B, in]`."""
    parts = tf.nest.flatten(inputs)
    own = [tf.unstack(part, stack, axis=1) if len(part.shape) == 3 else [part] * stack for part in parts]
    return [tuple(slices) for slices in zip(*own, strict=True)]


def _product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Product of `x [..., in]` and a kernel `[in, u]`."""
    return tf.matmul(x, kernel) if len(x.shape) == 2 else tf.tensordot(x, kernel, axes=1)
