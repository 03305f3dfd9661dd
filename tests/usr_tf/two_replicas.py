"""Test process: training on two logical CPU devices, in place of two GPUs.

python -m tests.usr_tf.two_replicas [BACKBONE [device | host]]
"""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import sys

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config
from usr_tf.config import Config
from usr_tf.layers import PartitionedNormalization
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.schema import parse_schema

BATCHES = 16, 5, 1
"""Rows of each step: even, uneven, and none for the second replica."""
SCHEMA = parse_schema("""
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}, {name: ctcvr, action: purchase}]
history: {actions: [click]}
features:
  item_id: {group: item, type: categorical, in_history: true}
  price: {group: item, type: numeric}
  query: {group: query, type: text}
""")


def main(backbone: str = "shared_bottom", weights_on: str = "device") -> None:
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    devices = ["CPU:0", "CPU:1"]
    if weights_on == "host":
        two = tf.distribute.experimental.CentralStorageStrategy(devices, "CPU:0")
    else:
        two = tf.distribute.MirroredStrategy(devices)
    assert two.num_replicas_in_sync == 2
    check_same_start(two, backbone)
    check_same_as_one(two, backbone)
    check_shares_of_the_contrastive_loss(two, backbone)
    check_undefined_figures(two, backbone)
    check_partitioned_statistics(two)
    print("ok")


def check_same_start(strategy: tf.distribute.Strategy, backbone: str) -> None:
    """Checks that a seed gives the same initial weights."""
    weights = []
    for each in (tf.distribute.get_strategy(), strategy):
        with each.scope():
            model = USRModel(SCHEMA, sizes_of(SCHEMA), small_config(backbone=backbone, seed=3))
        weights.append([variable.numpy() for variable in model.trainable_variables])
    for left, right in zip(*weights, strict=True):
        np.testing.assert_array_equal(left, right)


def check_same_as_one(strategy: tf.distribute.Strategy, backbone: str) -> None:
    """Checks that the same global batches give the same losses, metrics and weights.

    Replicas meet the same ids, so this fails where Adagrad squares their gradients before it adds them.
    """
    # Of one shared expert PLE's gate is 1, so its gradient is rounding alone, which Adam makes steps of.
    options = {"usr": {"contrastive": False}, "train": {"l2": 0.01}, "ple": {"shared_experts": 2}}
    config = small_config(backbone=backbone, **options)
    rows = random_rows(SCHEMA, sum(BATCHES))
    one, one_logs = fit(tf.distribute.get_strategy(), config, rows)
    two, two_logs = fit(strategy, config, rows, eagerly=False)
    assert_same_figures(two_logs, one_logs)
    for left, right in zip(one.trainable_variables, two.trainable_variables, strict=True):
        np.testing.assert_allclose(right.numpy(), left.numpy(), rtol=1e-5, atol=1e-6, err_msg=left.name)
    check_evaluation(one, two)


def check_evaluation(one: USRModel, two: USRModel) -> None:
    """Checks the metrics of each scenario against one replica and scikit-learn."""
    sizes = (150, 55, 1)
    rows = random_rows(SCHEMA, sum(sizes), seed=2)
    figures = two.evaluate(batches(rows, sizes), verbose=0, return_dict=True)
    assert_same_figures(figures, one.evaluate(batches(rows, sizes), verbose=0, return_dict=True))
    features, labels = rows
    scores, scenario = one(features), features["scenario"].numpy()
    for task in SCHEMA.task_names:
        for index, name in enumerate(SCHEMA.scenarios):
            own = scenario == index
            p = scores[task].numpy()[own]
            bins = np.floor(np.log(p / (1 - p)) * 2048 / 28)  # the metric's: 2,048 of the logits within ±14
            expected = roc_auc_score(labels[task].numpy()[own], bins)
            np.testing.assert_allclose(figures[f"{name}/{task}_auc"], expected, atol=1e-3)  # a row at a bin's edge


def check_shares_of_the_contrastive_loss(strategy: tf.distribute.Strategy, backbone: str) -> None:
    """Each anchor weighs the same, wherever it is: replicas of 6 and 2 rows add up to the mean of both."""
    options = {"variant": "same_view", "negatives": 3, "projection": 4}
    config = small_config(backbone=backbone, usr={"contrastive_loss": options})
    parts = random_rows(SCHEMA, 6), random_rows(SCHEMA, 2, seed=1)
    one, two = (make(each, config) for each in (tf.distribute.get_strategy(), strategy))
    for part in parts:
        one.compute_loss(part, training=True)
    means = {metric.name: float(metric.result()) for metric in one.metrics}
    contrastive, weight = config.usr.contrastive_loss, config.usr.global_weight
    expected = sum(means[f"{name}_loss"] * (weight if "global" in name else 1) for name in SCHEMA.label_names)
    expected += contrastive.ie_weight * means["interest_contrastive"]
    expected += contrastive.fg_weight * means["features_contrastive"]
    values = strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )
    shares = strategy.experimental_local_results(strategy.run(two.compute_loss, args=(values, True)))
    if backbone != "star":  # whose statistics are those of both parts together
        np.testing.assert_allclose(sum(shares), expected, rtol=1e-5)


def check_undefined_figures(strategy: tf.distribute.Strategy, backbone: str) -> None:
    """Batches of one class and scenario, of which a replica may have none, leave AUCs undefined and all else finite."""
    config = small_config(backbone=backbone, position_tower={"enabled": True})
    features, labels = random_rows(SCHEMA, 3)
    features["position"] = tf.constant([1, 0, 2], tf.int64)
    labels = {name: tf.zeros_like(values) for name, values in labels.items()}
    features["scenario"] = tf.zeros([3], tf.int32)
    model, logs = fit(strategy, config, (features, labels), (2, 1))
    for variable in model.variables:
        assert np.all(np.isfinite(variable.numpy())), variable.name
    assert {name for name, values in logs.items() if np.isnan(values).any()} == {
        f"{scenario}/{task}_auc" for scenario in ("search", "recommendation") for task in ("ctr", "ctcvr")
    }


def check_partitioned_statistics(strategy: tf.distribute.Strategy) -> None:
    """A scenario that one replica lacks, and an empty replica: outputs and statistics of the whole batch."""
    x = tf.constant(np.random.default_rng(0).normal(3, 2, [6, 2]), tf.float32)
    scenario = tf.constant([0, 0, 0, 1, 1, 0])
    one = PartitionedNormalization(3)
    expected = one((x[:, :1], x[:, 1:]), scenario, training=True)
    for cut in (3, 6):
        with strategy.scope():
            two = PartitionedNormalization(3)
            two.build((tf.TensorShape([None, 1]), tf.TensorShape([None, 1])))

        def train(replica: tf.distribute.ReplicaContext, layer: PartitionedNormalization, cut: int) -> tf.Tensor:
            rows = slice(0, cut) if replica.replica_id_in_sync_group == 0 else slice(cut, 6)
            result = layer((x[rows, :1], x[rows, 1:]), scenario[rows], training=True)
            return tf.concat([*result.scenario, *result.shared], axis=1)

        results = strategy.run(lambda two=two, cut=cut: train(tf.distribute.get_replica_context(), two, cut))
        results = tf.concat(strategy.experimental_local_results(results), axis=0)
        np.testing.assert_allclose(results, tf.concat([*expected.scenario, *expected.shared], 1), rtol=1e-4, atol=1e-5)
        for left, right in zip(one.weights, two.weights, strict=True):
            for copy in strategy.experimental_local_results(right):
                np.testing.assert_allclose(copy.numpy(), left.numpy(), rtol=1e-5, atol=1e-6, err_msg=left.name)


def assert_same_figures(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        if name != "regularization_loss":  # TFRS's own figure, of one replica's share
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)


def batches(rows: tuple, sizes: tuple[int, ...] = BATCHES) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(
        lambda: (tf.nest.map_structure(lambda part, end=end, size=size: part[end - size : end], rows)
                 for end, size in zip(np.cumsum(sizes), sizes, strict=True)),
        output_signature=tf.nest.map_structure(lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), rows),
    )  # fmt: skip


def make(strategy: tf.distribute.Strategy, config: Config) -> USRModel:
    with strategy.scope():
        model = USRModel(SCHEMA, sizes_of(SCHEMA), config)
        rng = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


def fit(
    strategy: tf.distribute.Strategy,
    config: Config,
    rows: tuple,
    sizes: tuple[int, ...] = BATCHES,
    eagerly: bool = True,
) -> tuple[USRModel, dict]:
    """Eager steps spare a trace, which takes longer than all the steps."""
    model = make(strategy, config)
    with strategy.scope():
        optimizer = make_optimizer(model, config.train)
    model.compile(optimizer=optimizer, run_eagerly=eagerly)
    return model, model.fit(batches(rows, sizes), epochs=1, verbose=0).history


if __name__ == "__main__":
    main(*sys.argv[1:])
