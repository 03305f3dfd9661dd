import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.fixtures import sizes_of, small_config
from usr_tf.model import USRModel
from usr_tf.optimizers import SparseAdagrad, make_optimizer
from usr_tf.schema import parse_schema

SCHEMA = parse_schema("""
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}]
features:
  item_id: {group: item, type: categorical}
""")


@pytest.fixture
def model() -> USRModel:
    model = USRModel(SCHEMA, sizes_of(SCHEMA), small_config())
    model.make_variables()
    return model


def gradients_of(model: USRModel) -> list:
    """Ones: for the table, of its rows 2 and 5 alone."""
    table = model.table_variables[0]
    slices = tf.IndexedSlices(tf.ones([2, table.shape[1]]), tf.constant([2, 5]), tf.constant(table.shape))
    return [
        (slices if variable is table else tf.ones_like(variable), variable) for variable in model.trainable_variables
    ]


def test_tables_by_adagrad_and_the_rest_by_adam(model):
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer = make_optimizer(model, model.config.train)
    optimizer.apply_gradients(gradients_of(model))
    table = model.table_variables[0]
    for variable, was in zip(model.trainable_variables, before, strict=True):
        moved = was - variable.numpy()
        if variable is table:
            expected = np.zeros(variable.shape)
            expected[[2, 5]] = 0.2  # the first step is the rate, as no sum of squares stands in its way
            np.testing.assert_allclose(moved, expected, atol=1e-6)
        else:
            np.testing.assert_allclose(moved, 0.01, atol=1e-5)  # Adam's first step is the rate


def test_state_is_kept_in_a_checkpoint(model, tmp_path):
    optimizer = make_optimizer(model, model.config.train)
    optimizer.apply_gradients(gradients_of(model))
    path = tf.train.Checkpoint(model=model, optimizer=optimizer).save(str(tmp_path / "c"))
    names = {name for name, _ in tf.train.list_variables(path)}
    assert any("embedding" in name and "accumulator" in name for name in names)
    assert any("backbone" in name and "/.OPTIMIZER_SLOT/" in name and "/m/" in name for name in names)


def test_sparse_adagrad_is_keras_s_where_ids_are_repeated():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(7, 3)).astype(np.float32)
    ours, keras_s = tf.Variable(start), tf.Variable(start)
    optimizers = [
        adagrad(0.3, initial_accumulator_value=1e-7) for adagrad in (SparseAdagrad, keras.optimizers.legacy.Adagrad)
    ]
    for _ in range(3):
        slices = tf.IndexedSlices(
            tf.constant(rng.normal(size=(6, 3)), tf.float32), tf.constant([5, 0, 5, 2, 5, 2]), tf.constant([7, 3])
        )
        for optimizer, variable in zip(optimizers, (ours, keras_s), strict=True):
            optimizer.apply_gradients([(slices, variable)])
    np.testing.assert_allclose(ours, keras_s, rtol=1e-5)
    np.testing.assert_array_equal(ours.numpy()[[1, 3, 4, 6]], start[[1, 3, 4, 6]])
