"""Streaming AUC against scikit-learn: alone, in a graph, in `fit` and over replicas."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import usr_tf  # noqa: F401 (picks Keras 2 before TensorFlow is imported)
from usr_tf.training.streaming_auc import HistogramAUC, ScenarioAUC

import tensorflow as tf  # isort: skip
import tf_keras as keras  # isort: skip

SCENARIOS = ("search", "recommendation", "feed")


def draw(n=6_000, mean=-3.0, spread=1.0, seed=0, round_to=None):
    """Labels, probabilities (float32) and scenarios of `n` rows with logits about `mean`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(mean, spread, n)
    logits = logits if round_to is None else np.round(logits / round_to) * round_to
    probabilities = 1 / (1 + np.exp(-logits))
    labels = generator.uniform(size=n) < np.clip(probabilities * 3, 0, 0.9)
    return labels.astype(np.float32), probabilities.astype(np.float32), generator.integers(0, 3, n)


def results(auc):
    return {metric.name: float(metric.result()) for metric in auc.metrics_by_scenario}


def update_in_batches(auc, update, labels, probabilities, scenario, size=500):
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        update(labels[rows], probabilities[rows], scenario[rows])


DRAWN = pytest.mark.parametrize(
    "drawn",
    [
        pytest.param(draw(mean=0.0, spread=1.5), id="around a half"),
        pytest.param(draw(mean=-4.5, spread=0.5), id="click rates about 0.01"),
        pytest.param(draw(mean=-7.0, spread=0.7, n=60_000), id="click rates about 0.001"),
        pytest.param(draw(mean=-2.0, round_to=0.5), id="tied"),
    ],
)


@DRAWN
def test_equals_scikit_learn(drawn):
    labels, probabilities, scenario = drawn
    auc = ScenarioAUC(SCENARIOS, "ctr")
    update_in_batches(auc, auc.update_state, labels, probabilities, scenario)
    expected = {
        f"{name}/ctr_auc": roc_auc_score(labels[scenario == index], probabilities[scenario == index])
        for index, name in enumerate(SCENARIOS)
    }
    assert results(auc) == pytest.approx(expected, abs=1e-3)


@DRAWN
def test_is_the_exact_figure_but_for_pairs_in_one_bin(drawn):
    labels, probabilities, scenario = drawn
    auc = ScenarioAUC(SCENARIOS, "ctr")
    update_in_batches(auc, auc.update_state, labels, probabilities, scenario)
    for index, metric in enumerate(auc.metrics_by_scenario):
        rows = scenario == index
        exact = roc_auc_score(labels[rows], probabilities[rows])
        negatives, positives = metric.histogram.numpy()
        # Of a pair in one bin half is counted, where it is 0, a half or 1.
        bin_error = (negatives * positives).sum() / negatives.sum() / positives.sum() / 2
        assert abs(float(metric.result()) - exact) <= bin_error + 1e-6  # the result is a float32


def test_hand_computed_with_a_tie():
    auc = ScenarioAUC(["only"], "ctr")
    # 0.8 beats both negatives; 0.4 ties with one and beats the other: 3.5 of 4.
    auc.update_state([1.0, 0.0, 1.0, 0.0], [0.8, 0.4, 0.4, 0.2], [0, 0, 0, 0])
    assert results(auc) == {"only/ctr_auc": 0.875}


def test_extreme_probabilities_are_the_outermost():
    auc = ScenarioAUC(["only"], "ctr")
    auc.update_state([0.0, 0.0, 1.0, 1.0], [0.0, 1e-5, 1.0 - 1e-5, 1.0], [0, 0, 0, 0])
    assert results(auc) == {"only/ctr_auc": 1.0}


def test_one_class_and_no_rows_are_nan():
    auc = ScenarioAUC(SCENARIOS, "ctr")
    assert np.isnan(list(results(auc).values())).all()
    auc.update_state([0.0, 0.0, 1.0, 1.0, 0.0], [0.1, 0.2, 0.3, 0.4, 0.5], [0, 0, 1, 1, 2])
    assert np.isnan(list(results(auc).values())).all()
    auc.update_state([1.0], [0.15], [0])
    assert results(auc)["search/ctr_auc"] == 0.5  # above one of two, by count
    assert np.isnan(results(auc)["recommendation/ctr_auc"])


def test_empty_batches_and_left_out_rows_change_nothing():
    auc = ScenarioAUC(SCENARIOS, "ctr")
    auc.update_state([0.0, 1.0], [0.1, 0.2], [0, 0])
    auc.update_state(tf.zeros([0]), tf.zeros([0]), tf.zeros([0], tf.int64))
    auc.update_state([1.0, 0.0], [0.01, 0.9], [-1, -1])
    assert results(auc)["search/ctr_auc"] == 1.0
    counts = [float(tf.reduce_sum(metric.histogram)) for metric in auc.metrics_by_scenario]
    assert counts == [2, 0, 0]


def test_column_shapes_and_tf_function():
    labels, probabilities, scenario = draw(n=1_000)
    auc, plain = ScenarioAUC(SCENARIOS, "ctr"), ScenarioAUC(SCENARIOS, "ctr")
    column = [tf.TensorSpec([None, 1], dtype) for dtype in (tf.float32, tf.float32, tf.int64)]
    update = tf.function(auc.update_state, input_signature=column)
    columns = [labels[:, None], probabilities[:, None], scenario[:, None]]
    update_in_batches(auc, update, *columns, size=300)
    plain.update_state(labels, probabilities, scenario)
    assert results(auc) == results(plain)


def test_one_scenario_is_reset_alone():
    auc = ScenarioAUC(SCENARIOS, "ctr")
    auc.update_state([0.0, 1.0, 0.0, 1.0], [0.1, 0.2, 0.2, 0.1], [0, 0, 1, 1])
    auc.metrics_by_scenario[0].reset_state()
    assert np.isnan(results(auc)["search/ctr_auc"])
    assert results(auc)["recommendation/ctr_auc"] == 0.0  # every pair the wrong way round: a defined 0


class Model(keras.Model):
    """Logistic regression with a metric per task and scenario, as our model holds them."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.nll = keras.metrics.Mean("nll")
        self.auc = [ScenarioAUC(SCENARIOS, task) for task in ("ctr", "ctcvr")]

    def call(self, features):
        return tf.sigmoid(self.dense(features)[:, 0])

    def _step(self, data):
        labels, scenario = data["labels"], data["scenario"]
        probabilities = self(data["features"])
        loss = tf.reduce_mean(keras.losses.binary_crossentropy(labels, probabilities))
        self.nll.update_state(loss)
        for auc in self.auc:
            auc.update_state(labels, probabilities, scenario)
        return loss

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self._step(data)
        self.optimizer.minimize(loss, self.trainable_variables, tape)
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data):
        self._step(data)
        return {metric.name: metric.result() for metric in self.metrics}


def data_of_two_scenarios(n=1_000):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(n, 3)).astype(np.float32)
    labels = (generator.uniform(size=n) < 1 / (1 + np.exp(1 - features[:, 0]))).astype(np.float32)
    return {"features": features, "labels": labels, "scenario": generator.integers(0, 2, n)}


def test_in_fit_the_model_shows_and_resets_them():
    rows = data_of_two_scenarios()
    model = Model()
    model.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices(rows).batch(128)
    history = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    names = [f"{scenario}/{task}_auc" for task in ("ctr", "ctcvr") for scenario in SCENARIOS]
    assert [metric.name for metric in model.metrics] == ["nll", *names]
    assert set(history) == {"nll", *names, "val_nll", *(f"val_{name}" for name in names)}
    assert np.isnan(history["feed/ctr_auc"]).all()
    # Validation sees the weights of the epoch's end, each epoch from nothing.
    chosen = rows["scenario"] == 1
    expected = roc_auc_score(rows["labels"][chosen], model(rows["features"]).numpy()[chosen])
    assert history["val_recommendation/ctr_auc"][-1] == pytest.approx(expected, abs=1e-3)
    assert not any("histogram" in weight.name for weight in model.weights)
    model.reset_metrics()
    assert all(float(tf.reduce_sum(m.histogram)) == 0 for m in model.metrics if isinstance(m, HistogramAUC))


def test_nan_spends_patience_and_does_not_fail():
    rows = data_of_two_scenarios(n=256)
    model = Model()
    model.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices(rows).batch(128)
    stopping = keras.callbacks.EarlyStopping("val_feed/ctr_auc", mode="max", patience=2)
    history = model.fit(data, validation_data=data, epochs=9, verbose=0, callbacks=[stopping]).history
    assert len(history["nll"]) in (2, 3)


REPLICAS = """
import usr_tf
import numpy as np
import tensorflow as tf
from usr_tf.training.streaming_auc import ScenarioAUC

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    auc = ScenarioAUC(["search", "recommendation"], "ctr")

@tf.function
def step(labels, probabilities, scenario):
    def replica(labels, probabilities, scenario):
        auc.update_state(labels, probabilities, scenario)
        return [metric.result() for metric in auc.metrics_by_scenario]
    return strategy.run(replica, (labels, probabilities, scenario))

def spread(column, dtype):
    parts = [tf.constant(part, dtype) for part in column]
    values = strategy.experimental_distribute_values_from_function(lambda c: parts[c.replica_id_in_sync_group])
    return values

def run(labels, probabilities, scenario):
    types = (tf.float32, tf.float32, tf.int32)
    return step(*(spread(c, t) for c, t in zip((labels, probabilities, scenario), types)))

# One class per replica, then an empty replica, then both.
run([[1, 1], [0, 0]], [[.8, .4], [.4, .2]], [[0, 0], [0, 0]])
print(*(float(m.result()) for m in auc.metrics_by_scenario))
run([[1, 0], []], [[.1, .3], []], [[0, 1], []])
print(*(float(m.result()) for m in auc.metrics_by_scenario))
inside = run([[], [1]], [[], [.9]], [[], [1]])
print(*(float(m.result()) for m in auc.metrics_by_scenario))
print(*(float(strategy.experimental_local_results(value)[0]) for value in inside))
for metric in auc.metrics_by_scenario:
    metric.reset_state()
print(*(float(m.result()) for m in auc.metrics_by_scenario))
"""


def test_replicas_with_an_empty_and_a_one_class_batch():
    """Two logical CPUs, in a process of their own: devices are split before TensorFlow starts."""
    done = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    lines = [[float(value) for value in line.split()] for line in done.stdout.strip().splitlines()]
    np.testing.assert_allclose(
        lines,
        [
            [0.875, np.nan],  # 3.5 of 4 pairs, over both replicas
            [3.5 / 6, np.nan],  # the positive of 0.1 loses twice; one negative of the second scenario
            [3.5 / 6, 1.0],
            [3.5 / 6, 1.0],  # what a replica reads inside the step is the sum as well
            [np.nan, np.nan],
        ],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenarios": []}, r"distinct names. Received: \[\]"),
        ({"scenarios": ["a", "a"]}, "Received: .'a', 'a'."),
        ({"bins": 1}, "Received: 1"),
        ({"limit": 0.0}, "Received: 0.0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScenarioAUC(**({"scenarios": ["a"], "task": "ctr"} | arguments))


def test_config():
    auc = ScenarioAUC(["a", "b"], "ctr", bins=64, limit=9.0)
    again = ScenarioAUC.from_config(auc.get_config())
    assert again.get_config() == auc.get_config()
    assert HistogramAUC.from_config(HistogramAUC(8, "x").get_config()).bins == 8
