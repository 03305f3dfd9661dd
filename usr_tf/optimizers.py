"""Optimizers that suit ranking models: sparse Adagrad for the tables, Adam for the rest.

Adam moves every row of a table in every step, O(vocabulary); Adagrad touches the rows of the batch alone.
"""

from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from usr_tf.config import Train
from usr_tf.model import USRModel


def make_optimizer(model: USRModel, config: Train) -> keras.optimizers.legacy.Optimizer:
    """The optimizer of `config` for `model.compile`. Make it under the strategy that the model was made under."""
    # Keras starts the sums of squares at 0.1, which the gradients of a table, each row's share of a batch's mean, do
    # not reach for epochs: until then Adagrad is plain SGD with a rate that suits no row.
    adagrad = SparseAdagrad(config.embedding_learning_rate, initial_accumulator_value=1e-7)
    adam = keras.optimizers.legacy.Adam(config.learning_rate)
    return tfrs.experimental.optimizers.CompositeOptimizer(
        [(adagrad, lambda: model.table_variables), (adam, lambda: model.dense_variables)]
    )


def make_state(optimizer: tfrs.experimental.optimizers.CompositeOptimizer, model: USRModel) -> None:
    """Makes the variables of `make_optimizer(model, …)` now, once the model has its own.

    Keras would make them in the first step, whose trace is of no use afterwards.
    """
    for part, variables in zip(optimizer.optimizers, trained_variables(model), strict=True):
        part._create_all_weights(variables)


def trained_variables(model: USRModel) -> tuple[list[tf.Variable], list[tf.Variable]]:
    """What each part of `make_optimizer(model, …)` trains."""
    return model.table_variables, model.dense_variables


class SparseAdagrad(keras.optimizers.legacy.Adagrad):
    """Keras's Adagrad, to the letter, with a faster sparse update (docs/performance.md)."""

    def _resource_apply_sparse_duplicate_indices(
        self, grad: tf.Tensor, handle: tf.Variable, indices: tf.Tensor, **kwargs: Any
    ) -> tf.Operation:
        return self._resource_apply_sparse(*_sum_duplicates(grad, indices), **kwargs, var=handle)

    def _resource_apply_sparse(
        self, grad: tf.Tensor, indices: tf.Tensor, var: tf.Variable, apply_state: dict | None = None
    ) -> tf.Operation:
        place = var.device, var.dtype.base_dtype
        rate = ((apply_state or {}).get(place) or self._fallback_apply_state(*place))["lr_t"]
        squares = self.get_slot(var, "accumulator")
        # Rows are read, moved and written back whole: Keras's kernel goes through them one by one.
        total = tf.gather(squares, indices) + tf.square(grad)
        moved = tf.gather(var, indices) - rate * grad / (tf.sqrt(total) + self.epsilon)
        return tf.group(
            squares.scatter_update(tf.IndexedSlices(total, indices)),
            var.scatter_update(tf.IndexedSlices(moved, indices)),
        )


def _sum_duplicates(values: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`[u, d]` and int `[u]`: the sum of `values [n, d]` at each of the distinct `indices [n]`."""
    distinct, places = tf.unique(indices, out_idx=tf.int64)
    count, sums = tf.size(indices, tf.int64), tf.size(distinct, tf.int64)
    # A matrix with a 1 where a row belongs to a sum: its product takes less time than an unsorted segment sum.
    belongs = tf.SparseTensor(
        tf.stack([places, tf.range(count)], axis=1),
        tf.ones([count], values.dtype),
        tf.stack([sums, count]),
    )
    return tf.sparse.sparse_dense_matmul(belongs, values), distinct
