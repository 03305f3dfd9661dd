import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.fixtures import sizes_of, small_config
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.optimizers import RankingOptimizer, make_optimizer
from usr_tf.schema import parse_schema
from usr_tf.training.schedules import Warmup

SCHEMA = parse_schema("""
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}]
features:
  item_id: {group: item, type: categorical}
""")


@pytest.fixture
def model() -> USRModel:
    return USRModel(SCHEMA, sizes_of(SCHEMA), small_config())


def gradients_of(model: USRModel) -> list:
    """Ones: for the table, of its rows 2 and 5 alone."""
    table = model.table_variables[0]
    slices = tf.IndexedSlices(tf.ones([2, table.shape[1]]), tf.constant([2, 5]), tf.constant(table.shape))
    return [
        (slices if variable is table else tf.ones_like(variable), variable) for variable in model.trainable_variables
    ]


def sparse(values: list[float], rows: list[int]) -> tf.IndexedSlices:
    return tf.IndexedSlices(tf.constant(values)[:, tf.newaxis], tf.constant(rows), tf.constant([7, 1]))


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
    model.compile(optimizer)
    optimizer.learning_rate = 0.0
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer.apply_gradients(gradients_of(model))
    for variable, was in zip(model.trainable_variables, before, strict=True):  # one rate moves all
        np.testing.assert_array_equal(variable, was)


def test_state_is_kept_in_a_checkpoint(model, tmp_path):
    optimizer = make_optimizer(model, model.config.train)
    optimizer.apply_gradients(gradients_of(model))
    path = tf.train.Checkpoint(optimizer=optimizer).save(str(tmp_path / "c"))
    other = make_optimizer(model, model.config.train)
    tf.train.Checkpoint(optimizer=other).restore(path).assert_consumed()
    assert int(other.iterations) == 1
    for variable in model.trainable_variables:
        for name, state in optimizer.state(variable).items():
            np.testing.assert_array_equal(other.state(variable)[name], state)


@pytest.mark.parametrize("kind", ["table", "dense"])
def test_each_part_is_keras_s_where_ids_are_repeated(kind):
    """Of a sparse gradient of repeated rows, and of a dense one."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=(7, 3)).astype(np.float32)
    variables = [tf.Variable(start, name="table_3" if kind == "table" else "kernel") for _ in range(2)]
    keras_s = (
        keras.optimizers.legacy.Adagrad(0.3, initial_accumulator_value=1e-7)
        if kind == "table"
        else keras.optimizers.legacy.Adam(0.01)
    )
    optimizers = [RankingOptimizer(0.01, embedding_ratio=30), keras_s]
    for number in range(4):
        values = tf.constant(rng.normal(size=(6, 3)), tf.float32)
        gradient = tf.IndexedSlices(values, tf.constant([5, 0, 5, 2, 5, 2]), tf.constant([7, 3]))
        if number == 3:
            gradient = tf.convert_to_tensor(gradient)
        for optimizer, variable in zip(optimizers, variables, strict=True):
            optimizer.apply_gradients([(gradient, variable)])
        if kind == "table" and number == 2:
            np.testing.assert_array_equal(variables[0].numpy()[[1, 3, 4, 6]], start[[1, 3, 4, 6]])
    np.testing.assert_allclose(*variables, rtol=2e-5)


def test_the_norm_that_is_clipped_is_that_of_the_rows_sums():
    """Rows 2, 2 and 4 of gradients 3, 1 and 3 have norm 5; clipped to 1, row 2 moves by 0.8 and row 4 by 0.6."""
    table = tf.Variable(tf.zeros([7, 1]), name="table_1")
    # A sum of squares that starts at 1e6 makes Adagrad a plain step of rate / 1000.
    optimizer = RankingOptimizer(1.0, embedding_ratio=1000, initial_accumulator_value=1e6, global_clipnorm=1.0)
    optimizer.apply_gradients([(sparse([3.0, 1.0, 3.0], [2, 2, 4]), table)])
    np.testing.assert_allclose(table.numpy()[[2, 4], 0], [-0.8, -0.6], rtol=1e-4)


def test_weight_decay_leaves_tables_alone():
    table, kernel = tf.Variable(tf.ones([7, 1]), name="table_1"), tf.Variable(tf.ones([1]), name="kernel")
    optimizer = RankingOptimizer(0.1, weight_decay=0.5)
    optimizer.apply_gradients([(sparse([0.0], [2]), table), (tf.zeros([1]), kernel)])
    np.testing.assert_array_equal(table, tf.ones([7, 1]))
    np.testing.assert_allclose(kernel, [0.95])


def test_is_serialized_whole():
    schedule = Warmup(0.1, 4, keras.optimizers.schedules.CosineDecay(0.1, 10, alpha=0.2))
    optimizer = RankingOptimizer(schedule, 3.0, ("rows",), 0.8, 0.9, 1e-6, 0.5, clipnorm=2.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    np.testing.assert_allclose([again.learning_rate, schedule(9)], [0.025, optimizer._learning_rate(9)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_ratio": 0}, "`embedding_ratio` must be above 0. Received: 0"),
        ({"beta_1": 1.0}, r"must be in \[0, 1\). Received: 1.0"),
        ({"initial_accumulator_value": -1.0}, "must not be negative. Received: -1.0"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RankingOptimizer(**options)


# Schedules


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({}, {0: 1, 99: 1}),
        ({"warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1, 4: 1, 50: 1}),
        ({"decay": "cosine", "decay_steps": 10, "decay_rate": 0.2}, {0: 1, 5: 0.6, 10: 0.2, 30: 0.2}),
        ({"decay": "cosine"}, {0: 1, 10: 0.55, 20: 0.1}),  # 5 steps of an epoch, 4 epochs
        ({"decay": "step", "decay_steps": 3, "decay_rate": 0.5}, {0: 1, 2: 1, 3: 0.5, 6: 0.25}),
        ({"warmup_steps": 2, "decay": "step", "decay_steps": 3, "decay_rate": 0.5}, {0: 0.5, 1: 1, 4: 1, 5: 0.5}),
    ],
)
def test_schedules(model, schedule, rates):
    config = small_config(train={"learning_rate": 0.01, "epochs": 4, "schedule": schedule, "clip_norm": 2.0}).train
    optimizer = make_optimizer(model, config, steps_per_epoch=5)
    assert optimizer.global_clipnorm == 2.0
    rate = optimizer._learning_rate if config.schedule.varies else lambda _: optimizer.learning_rate
    found = {step: float(rate(tf.constant(step, tf.int64))) / 0.01 for step in rates}
    assert found == pytest.approx(rates, rel=1e-5)


def test_a_schedule_over_the_whole_training_needs_its_length(model):
    config = small_config(train={"schedule": {"decay": "cosine"}}).train
    with pytest.raises(InputError, match=r"train.schedule.decay_steps: found null, expected steps"):
        make_optimizer(model, config)
