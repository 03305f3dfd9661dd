"""Keras idioms: each works, or is refused with a one-line message."""

import usr_tf  # picks Keras 2, before TensorFlow comes

# isort: split
import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config, toy_schema
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.optimizers import RankingOptimizer
from usr_tf.train import save_run, train

PLAIN = {"ie": False, "fg": False, "glmt": False, "contrastive": False}
ROWS = 48


def make(**keys) -> USRModel:
    schema = toy_schema()
    return USRModel(schema, sizes_of(schema), small_config(**keys))


def batches(count: int = 2) -> tf.data.Dataset:
    """Of `ROWS` rows each."""
    return tf.data.Dataset.from_tensor_slices(random_rows(toy_schema(), count * ROWS)).batch(ROWS)


@pytest.fixture
def model() -> USRModel:
    model = make()
    model.compile(run_eagerly=True)
    return model


# Callbacks


class Counter(keras.callbacks.Callback):
    """Counts the calls of each of its methods, and sees the rate of each epoch."""

    def __init__(self, stop_at: tuple[int, int] | None = None):
        super().__init__()
        self.calls, self.rates, self.stop_at, self.epoch = {}, [], stop_at, 0

    def on_train_begin(self, logs=None):
        self.calls["train"] = self.calls.get("train", 0) + 1

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.calls["batch"] = self.calls.get("batch", 0) + 1
        if (self.epoch, batch) == self.stop_at:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def test_learning_rate_callbacks_move_both_parts_of_the_optimizer(model):
    halved = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    # A figure that no longer improves by 100 halves the rate after each epoch.
    plateau = keras.callbacks.ReduceLROnPlateau("val_nll", 0.5, patience=0, min_delta=100)
    counter = Counter()
    model.fit(batches(), validation_data=batches(1), epochs=3, callbacks=[halved, counter, plateau], verbose=0)
    assert counter.rates == pytest.approx([0.005, 0.0025, 0.000625])
    assert isinstance(model.optimizer, RankingOptimizer)


def test_whole_models_are_saved_and_loaded(tmp_path):
    model = make(usr=PLAIN | {"ie": True})
    model.compile(run_eagerly=True)
    best = keras.callbacks.ModelCheckpoint(str(tmp_path / "best"), "val_nll", save_best_only=True)
    weights = keras.callbacks.ModelCheckpoint(str(tmp_path / "weights.h5"), save_weights_only=True)
    stop = keras.callbacks.EarlyStopping("val_nll", restore_best_weights=True)
    model.fit(batches(), validation_data=batches(1), callbacks=[best, weights, stop], verbose=0)
    expected = model.evaluate(batches(), return_dict=True, verbose=0)
    model.save(tmp_path / "model.keras")
    for path in (tmp_path / "model.keras", tmp_path / "best"):
        loaded = keras.models.load_model(path)
        loaded.run_eagerly = True
        figures = loaded.evaluate(batches(), return_dict=True, verbose=0)
        assert figures["loss"] == pytest.approx(expected["loss"])
        if path.suffix != ".keras":  # Keras itself restores no optimizer from a SavedModel
            continue
        assert int(loaded.optimizer.iterations) == 2
        for variable, other in zip(model.trainable_variables, loaded.trainable_variables, strict=True):
            for name, state in model.optimizer.state(variable).items():
                np.testing.assert_array_equal(loaded.optimizer.state(other)[name], state)
    clean = make(usr=PLAIN | {"ie": True}, seed=9)
    clean.load_weights(tmp_path / "weights.h5")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    features, _ = random_rows(model.schema, 5)
    for other in (clean, clone):
        np.testing.assert_allclose(other(features)["ctr"], model(features)["ctr"], rtol=1e-5)


def test_a_model_is_built_when_it_is_made(capsys):
    model = make()
    assert model.count_params() == sum(math.prod(weight.shape) for weight in model.weights) > 0
    model.summary()
    assert "interest_extractor" in capsys.readouterr().out
    again = USRModel.from_config(json.loads(json.dumps(model.get_config())))
    assert (again.schema, again.config) == (model.schema, model.config)


@pytest.mark.parametrize(
    "optimizer",
    ["adam", lambda: keras.optimizers.Adagrad(0.1), lambda: keras.optimizers.legacy.Adam(0.01)],
    ids=["name", "object", "legacy"],
)
def test_any_optimizer_of_keras(optimizer):
    model = make(usr=PLAIN)
    model.compile(optimizer if isinstance(optimizer, str) else optimizer(), run_eagerly=True)
    before = model.table_variables[0].numpy()
    model.fit(batches(1), verbose=0)
    assert np.abs(model.table_variables[0].numpy() - before).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "computes its own loss: leave out `loss`.*Received: 'mse', None"),
        ({"loss_weights": {"ctr": 2.0}}, "leave out `loss` and `loss_weights`"),
        ({"jit_compile": True}, "XLA cannot compile sparse updates.*leave out `jit_compile`"),
    ],
)
def test_what_compile_cannot_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(usr=PLAIN).compile(**options)


def test_class_weight_is_refused(model):
    with pytest.raises(ValueError, match=r"several tasks.*sample_weight.*Received: class_weight=\{0: 1, 1: 9\}"):
        model.fit(batches(1), class_weight={0: 1, 1: 9})


# Weights of rows, further metrics, names


@pytest.mark.parametrize("usr", [PLAIN, {"contrastive": False}], ids=["plain", "glmt"])
def test_a_weight_multiplies_the_losses_of_its_row(usr):
    model = make(usr=usr)
    features, labels = random_rows(model.schema, 6)
    weights = tf.constant([0.0, 1.0, 3.0, 1.0, 0.5, 2.0])
    each = []
    for row in range(6):
        one = ({name: value[row : row + 1] for name, value in part.items()} for part in (features, labels))
        each.append(float(model.compute_loss(tuple(one), training=True)))
    weighted = float(model.compute_loss((features, labels, weights), training=True))
    assert weighted == pytest.approx(np.dot(each, weights) / 6, rel=1e-5)  # over the rows, as Keras has it
    model.compile(run_eagerly=True, weighted_metrics={"ctr": keras.metrics.MeanSquaredError(name="mse")})
    rows = tf.data.Dataset.from_tensors((features, labels, weights))
    figures = model.evaluate(rows, return_dict=True, verbose=0)
    assert figures["loss"] == pytest.approx(weighted, rel=1e-5)
    error = np.square(labels["ctr"] - model(features)["ctr"])
    assert figures["ctr_mse"] == pytest.approx(np.average(error, weights=weights), rel=1e-5)
    model.fit(rows, verbose=0)


def test_names_of_metrics_are_those_of_the_values(model):
    model.fit(batches(1), verbose=0)
    right = model.evaluate(batches(), return_dict=True, verbose=0)
    assert dict(zip(model.metrics_names, model.evaluate(batches(), verbose=0), strict=True)) == pytest.approx(
        right, nan_ok=True
    )
    one = next(iter(batches(1)))
    values = model.train_on_batch(*one, reset_metrics=True)
    assert values[model.metrics_names.index("nll")] == pytest.approx(float(model.get_metrics_result()["nll"]))


# The configuration from Python


def test_precision_and_seed_are_the_configurations():
    half = make(train={"precision": "mixed_bfloat16"})
    assert half.backbone.compute_dtype == "bfloat16"
    assert keras.mixed_precision.global_policy().name == "float32"
    state = np.random.get_state()[1].copy()
    first, same, other = (make(seed=seed).get_weights() for seed in (4, 4, 5))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # a seed of the model's alone
    assert all(np.array_equal(one, two) for one, two in zip(first, same, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


# Values out of range


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("device", 7, r"(?s)ids of user_id, device: found.*expected 0 to"),
        ("item_id", -1, r"ids of .*item_id"),
        ("tags", 7, r"ids of tags: found"),
        ("history_item_id", 7, r"ids of item_id: found"),
        ("history_action", 3, r"ids of history_action"),
        ("scenario", 2, r"scenario: expected 0 to 1, found"),
        ("ctr", 0.5, r"(?s)labels ctr, .*expected 0 or 1, found"),
        ("global_ctr", math.nan, r"expected 0 or 1, found"),
    ],
)
@pytest.mark.parametrize("traced", [False, True])
def test_a_value_out_of_range_is_refused(name, value, message, traced):
    model = make(usr=PLAIN | {"glmt": True})
    features, labels = random_rows(model.schema, 6)
    part = labels if name in labels else features
    changed = part[name].numpy()
    changed.flat[-1] = value
    part[name] = tf.constant(changed, part[name].dtype)
    loss = tf.function(model.compute_loss) if traced else model.compute_loss
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loss((features, labels), training=True)


def test_what_is_not_finite_makes_its_rows_scores_nan():
    """On every CPU: a ReLU of some turns NaN into 0."""
    model = make()
    features, _ = random_rows(model.schema, 4)
    features["price"] = tf.constant([0.5, math.nan, math.inf, -1.0])
    for function in (model, tf.function(model)):
        assert np.isnan(function(features)["ctr"]).tolist() == [False, True, True, False]


# Runs


def test_one_fit_trains_a_whole_run_and_obeys_its_callbacks(toy_data: Data, tmp_path):
    counter = Counter()
    config = small_config(usr=PLAIN, train={"epochs": 9, "patience": 9})
    # A figure that no longer improves by 100 stops at once.
    stop = keras.callbacks.EarlyStopping("val_nll", patience=2, min_delta=100)
    train(toy_data, tmp_path / "run", config, verbose=False, callbacks=[counter, stop])
    assert counter.calls == {"train": 1, "batch": 3 * 17}
    summary = json.loads((tmp_path / "run" / "training.json").read_text())
    assert (summary["epochs"], summary["stopped"]) == (3, "callback")
    assert summary["best_epoch"] in (1, 2, 3)


def test_a_run_stopped_in_the_middle_of_an_epoch_says_so(toy_data: Data, tmp_path):
    config = small_config(usr=PLAIN)
    train(toy_data, tmp_path / "run", config, verbose=False, callbacks=[Counter(stop_at=(1, 4))])
    summary = json.loads((tmp_path / "run" / "training.json").read_text())
    expected = {"epochs": 1, "stopped": "callback", "batches": 5, "of_batches": 17}
    assert {name: summary[name] for name in expected} == expected
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [line.get("batches") for line in lines] == [None, 5]


def test_a_run_that_cannot_be_saved_leaves_nothing_and_the_next_try_works(toy_data: Data, tmp_path, monkeypatch):
    model = USRModel.from_data(toy_data, small_config(usr=PLAIN))
    model.compile("sgd")
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: np.float32(1e-3))
    model.fit(toy_data.training(128).take(2), callbacks=[rate], verbose=0)
    with monkeypatch.context() as patch:
        patch.setattr(usr_tf.train, "metrics_document", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_run(model, toy_data, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    run = save_run(model, toy_data, tmp_path / "run")
    (line,) = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["lr"] == pytest.approx(1e-3)
    assert run.directory == tmp_path / "run"
    with pytest.raises(InputError, match="found a run, expected a new directory"):
        save_run(model, toy_data, tmp_path / "run")


def test_an_id_out_of_range_ends_a_run_in_one_line(toy_data: Data, tmp_path):
    data = dataclasses.replace(toy_data)
    data.__dict__["vocabulary_sizes"] = {**toy_data.vocabulary_sizes, "device": 2}
    with pytest.raises(InputError, match=r"data: found ids of .*device.*: found .*, expected rows that"):
        train(data, tmp_path / "run", small_config(usr=PLAIN), verbose=False)


def test_the_public_surface_is_there_after_a_bare_import():
    names = "train.save_run", "evaluate.evaluate", "export.export", "optimizers.make_optimizer"
    code = "import usr_tf, sys; usr_tf.schema.load_schema; assert 'tensorflow' not in sys.modules; "
    code += "; ".join(f"usr_tf.{name}" for name in names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
