"""Optimizers for ranking models: Adam for dense weights, row-wise Adagrad for embedding tables.

Adam moves every row of a table in every step, O(vocabulary); Adagrad touches the rows of the batch alone.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from usr_tf.config import Schedule, Train
from usr_tf.embedding import TABLE_PREFIX
from usr_tf.errors import InputError
from usr_tf.training.schedules import learning_rate_schedule


def make_optimizer(model: keras.Model, config: Train, steps_per_epoch: int | None = None) -> "RankingOptimizer":
    """Optimizer of `config`, for `model.compile`.

    Args:
      model: What it will train. Its variables are made already, so the optimizer makes its state at once.
      config: Learning rates, their schedule, and clipping.
      steps_per_epoch: What a schedule over the whole training counts in. Only `train.schedule.decay_steps=null` needs
        it.

    Raises:
      InputError: the schedule needs `steps_per_epoch`.
    """
    steps = config.schedule.decay_steps or (steps_per_epoch and steps_per_epoch * config.epochs)
    if config.schedule.decay != "none" and not steps:
        raise InputError("train.schedule.decay_steps", "null", "steps, or `make_optimizer(..., steps_per_epoch=n)`")
    optimizer = RankingOptimizer(
        _rate(config.learning_rate, config.schedule, steps),
        embedding_ratio=config.embedding_learning_rate / config.learning_rate,
        global_clipnorm=config.clip_norm,
    )
    optimizer.build(model.trainable_variables)
    return optimizer


def _rate(learning_rate: float, schedule: Schedule, steps: int | None) -> Any:
    return learning_rate_schedule(learning_rate, schedule, steps) if schedule.varies else learning_rate


@keras.saving.register_keras_serializable(package="usr_tf")
class RankingOptimizer(keras.optimizers.Optimizer):
    """Adam for dense weights and sparse Adagrad for embedding tables, under one learning rate.

    ::

        tables   G += g²,  w -= embedding_ratio · lr · g / (√G + ε)     rows of the batch alone
        others   m, v, w   as `keras.optimizers.Adam` moves them

    Callbacks and schedules change `lr`; the rate of the tables changes in proportion.

    Args:
      learning_rate: Adam's learning rate, a number or a `LearningRateSchedule`.
      embedding_ratio: Learning rate of the tables as a multiple of `learning_rate`.
      tables: Substrings that identify the names of embedding tables.
      beta_1: Decay rate of Adam's first moment.
      beta_2: Decay rate of Adam's second moment.
      epsilon: Constant added to both denominators.
      initial_accumulator_value: Initial value of Adagrad's sums of squares. Keras's 0.1 is far above the squared
        gradients of a table, which are shares of a batch mean: Adagrad would act like SGD for epochs.
      **kwargs: Arguments of Keras optimizers: `clipnorm`, `clipvalue`, `global_clipnorm`, `weight_decay`, `name`, …

    Raises:
      ValueError: a rate, ratio or decay is out of range.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        embedding_ratio: float = 20.0,
        tables: Sequence[str] = (TABLE_PREFIX,),
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        initial_accumulator_value: float = 1e-7,
        name: str = "ranking",
        **kwargs: Any,
    ):
        if not embedding_ratio > 0:
            raise ValueError(f"`embedding_ratio` must be above 0. Received: {embedding_ratio}")
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
            raise ValueError(f"`beta_1` and `beta_2` must be in [0, 1). Received: {beta_1}, {beta_2}")
        if initial_accumulator_value < 0:
            raise ValueError(f"`initial_accumulator_value` must not be negative. Received: {initial_accumulator_value}")
        kwargs["jit_compile"] = False  # the number of rows of a sparse update is known to no compiler
        super().__init__(name=name, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        if self.weight_decay:  # of a table it would touch every row
            self.exclude_from_weight_decay(var_names=list(tables))
        self.embedding_ratio = embedding_ratio
        self.tables = tuple(tables)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.initial_accumulator_value = initial_accumulator_value

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the optimizer state: sums of squares of tables, two moments of other variables."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._states = []
        for variable in var_list:
            if self.is_table(variable):
                start = tf.fill(variable.shape, tf.cast(self.initial_accumulator_value, variable.dtype))
                state = {"accumulator": self.add_variable_from_reference(variable, "accumulator", initial_value=start)}
            else:
                state = {name: self.add_variable_from_reference(variable, name) for name in ("m", "v")}
            self._states.append(state)
        self._built = True

    @property
    def optimizers(self) -> list["RankingOptimizer"]:
        """List of this optimizer, for code that iterates over TFRS's `CompositeOptimizer`."""
        return [self]

    def is_table(self, variable: tf.Variable) -> bool:
        """Whether Adagrad trains the variable."""
        return any(part in variable.name for part in self.tables)

    def state(self, variable: tf.Variable) -> dict[str, tf.Variable]:
        """Optimizer state of a trained variable: `accumulator` of a table, else `m` and `v`."""
        return self._states[self._index_dict[self._var_key(variable)]]

    def update_step(self, gradient: tf.Tensor | tf.IndexedSlices, variable: tf.Variable) -> None:
        state = self.state(variable)
        rate = tf.cast(self.learning_rate, variable.dtype)
        if "accumulator" in state:
            self._adagrad(gradient, variable, state["accumulator"], rate * self.embedding_ratio)
        else:
            self._adam(tf.convert_to_tensor(gradient), variable, state["m"], state["v"], rate)

    def _adagrad(
        self, gradient: tf.Tensor | tf.IndexedSlices, table: tf.Variable, squares: tf.Variable, rate: tf.Tensor
    ) -> None:
        if not isinstance(gradient, tf.IndexedSlices):
            squares.assign_add(tf.square(gradient))
            table.assign_sub(rate * gradient / (tf.sqrt(squares) + self.epsilon))
            return
        values, rows = gradient.values, gradient.indices
        # Rows are read, moved and written back whole: TensorFlow's kernel goes through them one by one.
        total = tf.gather(squares, rows) + tf.square(values)
        moved = tf.gather(table, rows) - rate * values / (tf.sqrt(total) + self.epsilon)
        squares.scatter_update(tf.IndexedSlices(total, rows))
        table.scatter_update(tf.IndexedSlices(moved, rows))

    def _adam(
        self, gradient: tf.Tensor, variable: tf.Variable, m: tf.Variable, v: tf.Variable, rate: tf.Tensor
    ) -> None:
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(  # one pass over the weights, where Keras's own takes eight
            var=variable.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=rate,
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=gradient,
        )

    def _clip_gradients(self, grads: Sequence[tf.Tensor | tf.IndexedSlices]) -> Sequence[tf.Tensor | tf.IndexedSlices]:
        # Before, not after as Keras does: the norm of a row that a batch holds twice is the norm of the sum.
        summed = [_sum_duplicates(grad) if isinstance(grad, tf.IndexedSlices) else grad for grad in grads]
        return super()._clip_gradients(summed)

    def _deduplicate_sparse_grad(self, grads: Sequence[tf.Tensor | tf.IndexedSlices]) -> Any:
        return grads  # `_clip_gradients` has done it

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["jit_compile"]
        return config | {
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "embedding_ratio": self.embedding_ratio,
            "tables": list(self.tables),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "initial_accumulator_value": self.initial_accumulator_value,
        }


def _sum_duplicates(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """Gradient with distinct rows: sums of `values [n, d]` by `indices [n]`."""
    values, indices = gradient.values, gradient.indices
    distinct, places = tf.unique(indices, out_idx=tf.int64)
    count, sums = tf.size(indices, tf.int64), tf.size(distinct, tf.int64)
    # A matrix with a 1 where a row belongs to a sum: its product takes less time than an unsorted segment sum.
    belongs = tf.SparseTensor(
        tf.stack([places, tf.range(count)], axis=1),
        tf.ones([count], values.dtype),
        tf.stack([sums, count]),
    )
    return tf.IndexedSlices(tf.sparse.sparse_dense_matmul(belongs, values), distinct, gradient.dense_shape)
