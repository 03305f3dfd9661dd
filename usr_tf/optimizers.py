"""Optimizers that suit ranking models: sparse Adagrad for the tables, Adam for the rest.

Adam moves every row of a table in every step, O(vocabulary); Adagrad touches the rows of the batch alone.
"""

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from usr_tf.config import Train
from usr_tf.model import USRModel


def make_optimizer(model: USRModel, config: Train) -> keras.optimizers.legacy.Optimizer:
    """The optimizer of `config` for `model.compile`. Make it under the strategy that the model was made under."""
    # Keras starts the sums of squares at 0.1, which the gradients of a table, each row's share of a batch's mean, do
    # not reach for epochs: until then Adagrad is plain SGD with a rate that suits no row.
    adagrad = keras.optimizers.legacy.Adagrad(config.embedding_learning_rate, initial_accumulator_value=1e-7)
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
