"""Position tower in the model: used in training, absent from every score."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config, toy_schema
from usr_tf.evaluate import predict
from usr_tf.model import USRModel
from usr_tf.request_spec import request_spec
from usr_tf.run import open_run
from usr_tf.schema import parse_schema
from usr_tf.train import train

ROWS = 12
PLAIN = {"ie": False, "fg": False, "contrastive": False}
PLACES = tf.constant([1, 2, 3, 4, 5, 60] * 2, tf.int64)


@pytest.fixture(scope="module")
def model() -> USRModel:
    """A model whose tower hides no position and whose every weight is far from 0."""
    model = USRModel(
        toy_schema(),
        sizes_of(toy_schema()),
        small_config(position_tower={"enabled": True, "dropout": 0.0}, usr={"contrastive": False}),
    )
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


def test_scores_and_validation_losses_do_not_change_with_the_position(model):
    features, labels = random_rows(model.schema, ROWS)
    placed = features | {"position": PLACES}
    for name, values in model(features).items():
        np.testing.assert_array_equal(model(placed)[name], values)
    assert float(model.compute_loss((placed, labels))) == float(model.compute_loss((features, labels)))


def test_the_training_loss_changes_with_the_position_where_it_is_known(model):
    features, labels = random_rows(model.schema, ROWS)

    def loss(position: tf.Tensor) -> float:
        return float(model.compute_loss((features | {"position": position}, labels), training=True))

    assert loss(PLACES) != pytest.approx(loss(PLACES[::-1]), abs=1e-4)
    assert loss(tf.zeros_like(PLACES)) == pytest.approx(float(model.compute_loss((features, labels))), rel=1e-6)


@pytest.mark.parametrize("one_request", [True, False])
def test_serving_reads_neither_position_nor_tower(model, one_request):
    assert "position" not in request_spec(model.schema)
    features, _ = random_rows(model.schema, ROWS)
    request = {
        name: values[:1] if one_request and name not in model.schema.features_of("item") else values
        for name, values in features.items()
        if name != "scenario"
    }
    before = model.serve(request, 0, one_request)
    saved = model.position_tower.bias.numpy()
    model.position_tower.bias.assign(np.full_like(saved, np.nan))
    for task, values in model.serve(request, 0, one_request).items():
        np.testing.assert_array_equal(values, before[task])
    model.position_tower.bias.assign(saved)


def test_a_run_learns_the_places_that_were_shown(toy_data, tmp_path):
    """And its weights come back, the tower's among them, to score rows that have no position among their features."""
    config = small_config(
        usr={**PLAIN, "glmt": False},
        history={"pooling": "din", "describe": ["action", "position"]},
        position_tower={"enabled": True},
        train={"epochs": 1},
    )
    train(toy_data, tmp_path / "run", config, verbose=0)
    model = open_run(tmp_path / "run").load_model()
    learned = np.any(model.position_tower.bias.numpy() != 0, axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(learned), np.arange(5))  # slates of five
    assert np.all(np.isfinite(predict(model, toy_data, "test").probabilities["ctr"]))


# Logged clicks of a ranker that put the worst items first

SCHEMA = parse_schema("""
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}, {name: ctcvr, action: purchase}]
features:
  item_id: {group: item, type: categorical}
""")
RELEVANCE = np.array([0.9, 0.6, 0.4, 0.25])
"""Of items 1 to 4: the chance of a click when examined, and of a purchase after it."""
EXAMINED = np.array([[1.0, 0.3], [1.0, 0.15]])
"""By scenario and place."""
USUAL_PLACE = (2, 2, 1, 1)
"""Where an item stands in six of seven impressions."""


def biased_rows(unit: int = 80) -> tuple[dict, dict]:
    """Rows with clicks drawn from `EXAMINED · RELEVANCE`; users want an item elsewhere in a third of the cases."""
    rng = np.random.default_rng(0)
    cells = [
        (scenario, item, place)
        for scenario, item, place in itertools.product(range(2), range(4), (1, 2))
        for _ in range(unit * (6 if place == USUAL_PLACE[item] else 1))
    ]
    scenario, item, place = np.array(cells).T

    def drawn(probability: np.ndarray) -> np.ndarray:
        return rng.random(len(cells)) < probability

    wanted = RELEVANCE[item]
    click = drawn(EXAMINED[scenario, place - 1] * wanted)
    purchase = click & drawn(wanted)
    global_click = click | drawn(wanted / 3)
    global_purchase = purchase | (global_click & drawn(wanted / 3))
    labels = (click, purchase, global_click, global_purchase)
    return (
        {
            "scenario": tf.constant(scenario, tf.int32),
            "item_id": tf.constant(item + 1, tf.int64),
            "position": tf.constant(place, tf.int64),
        },
        {name: tf.constant(label, tf.float32) for name, label in zip(SCHEMA.label_names, labels, strict=True)},
    )


def trained(rows, glmt: bool, tower: bool) -> USRModel:
    keras.utils.set_random_seed(0)
    model = USRModel(
        SCHEMA, {"item_id": 5}, small_config(usr={**PLAIN, "glmt": glmt}, position_tower={"enabled": tower})
    )
    optimizer, weights = keras.optimizers.legacy.Adam(0.03), model.trainable_variables

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = model.compute_loss(rows, training=True)
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    for _ in range(80):
        step()
    return model


def ordered_pairs(model: USRModel) -> float:
    """Share of the pairs of items that the model orders by relevance, over scenarios and tasks."""
    items = {"item_id": tf.range(1, 5, dtype=tf.int64)}
    scores = [score.numpy() for scenario in (0, 1) for score in model.serve(items, scenario, True).values()]
    return float(np.mean([score[a] > score[b] for score in scores for a, b in itertools.combinations(range(4), 2)]))


@pytest.mark.parametrize("glmt", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_model_of_biased_clicks_ranks_by_relevance_with_a_tower_and_not_without(glmt):
    rows = biased_rows()
    model = trained(rows, glmt, tower=True)
    assert ordered_pairs(model) > 0.95
    assert ordered_pairs(trained(rows, glmt, tower=False)) < 0.8
    for task, expected in rows[1].items():  # and its scores keep the average of the labels
        if task in model.schema.task_names:
            assert np.mean(model(rows[0])[task]) == pytest.approx(np.mean(expected), rel=0.2)
