"""A process for `test_model`: `MirroredStrategy` on two logical CPU devices, which stand for two GPUs."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config
from usr_tf.config import Config
from usr_tf.layers import PartitionedNormalization
from usr_tf.model import USRModel
from usr_tf.optimizers import make_optimizer
from usr_tf.schema import parse_schema

ROWS, STEPS = 16, 3
SCHEMA = parse_schema("""
scenarios: [search, recommendation]
tasks: [{name: ctr, action: click}, {name: ctcvr, action: purchase}]
history: {actions: [click]}
features:
  item_id: {group: item, type: categorical, in_history: true}
  price: {group: item, type: numeric}
  query: {group: query, type: text}
""")


def main(backbone: str = "shared_bottom") -> None:
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert mirrored.num_replicas_in_sync == 2
    check_same_as_one(mirrored, backbone)
    check_uneven_batches(mirrored, backbone)
    check_partitioned_statistics(mirrored)
    print("ok")


def check_same_as_one(mirrored: tf.distribute.Strategy, backbone: str) -> None:
    """The same global batches leave the same losses, figures and weights."""
    config = small_config(backbone=backbone, usr={"contrastive": False}, train={"l2": 0.01})
    rows = random_rows(SCHEMA, ROWS * STEPS)
    one, one_logs = fit(tf.distribute.get_strategy(), config, rows)
    two, two_logs = fit(mirrored, config, rows, eagerly=False)
    assert one_logs.keys() == two_logs.keys()
    for name in one_logs:
        if name != "regularization_loss":  # TFRS's own figure, of one replica's share
            np.testing.assert_allclose(two_logs[name], one_logs[name], rtol=1e-5, err_msg=name)
    for left, right in zip(one.trainable_variables, two.trainable_variables, strict=True):
        np.testing.assert_allclose(right.numpy(), left.numpy(), rtol=1e-5, atol=1e-6, err_msg=left.name)


def check_uneven_batches(mirrored: tf.distribute.Strategy, backbone: str) -> None:
    """One row leaves the other replica without any; a batch of one class and scenario leaves AUCs undefined."""
    config = small_config(backbone=backbone, position_tower={"enabled": True})
    features, labels = random_rows(SCHEMA, 3)
    features["position"] = tf.constant([1, 0, 2], tf.int64)
    labels = {name: tf.zeros_like(values) for name, values in labels.items()}
    features["scenario"] = tf.zeros([3], tf.int32)
    model, logs = fit(mirrored, config, (features, labels), batch=2)
    for variable in model.variables:
        assert np.all(np.isfinite(variable.numpy())), variable.name
    assert {name for name, values in logs.items() if np.isnan(values).any()} == {
        f"{scenario}/{task}_auc" for scenario in ("search", "recommendation") for task in ("ctr", "ctcvr")
    }


def check_partitioned_statistics(mirrored: tf.distribute.Strategy) -> None:
    """A scenario that one replica lacks, and an empty replica: outputs and statistics of the whole batch."""
    x = tf.constant(np.random.default_rng(0).normal(3, 2, [6, 2]), tf.float32)
    scenario = tf.constant([0, 0, 0, 1, 1, 0])
    one = PartitionedNormalization(3)
    expected = one((x[:, :1], x[:, 1:]), scenario, training=True)
    for cut in (3, 6):
        with mirrored.scope():
            two = PartitionedNormalization(3)
            two.build((tf.TensorShape([None, 1]), tf.TensorShape([None, 1])))

        def train(replica: tf.distribute.ReplicaContext, layer: PartitionedNormalization, cut: int) -> tf.Tensor:
            rows = slice(0, cut) if replica.replica_id_in_sync_group == 0 else slice(cut, 6)
            result = layer((x[rows, :1], x[rows, 1:]), scenario[rows], training=True)
            return tf.concat([*result.scenario, *result.shared], axis=1)

        results = mirrored.run(lambda two=two, cut=cut: train(tf.distribute.get_replica_context(), two, cut))
        results = tf.concat(mirrored.experimental_local_results(results), axis=0)
        np.testing.assert_allclose(results, tf.concat([*expected.scenario, *expected.shared], 1), rtol=1e-4, atol=1e-5)
        for left, right in zip(one.weights, two.weights, strict=True):
            for copy in mirrored.experimental_local_results(right):
                np.testing.assert_allclose(copy.numpy(), left.numpy(), rtol=1e-5, atol=1e-6, err_msg=left.name)


def fit(
    strategy: tf.distribute.Strategy, config: Config, rows: tuple, batch: int = ROWS, eagerly: bool = True
) -> tuple[USRModel, dict]:
    """Eager steps spare a trace, which takes longer than all the steps."""
    keras.utils.set_random_seed(5)
    with strategy.scope():
        model = USRModel(SCHEMA, sizes_of(SCHEMA), config)
        model.make_variables()
        optimizer = make_optimizer(model, config.train)
        rng = np.random.default_rng(0)
        for variable in model.trainable_variables:
            variable.assign(rng.normal(0, 0.3, variable.shape))
    model.compile(optimizer=optimizer, run_eagerly=eagerly)
    data = tf.data.Dataset.from_tensor_slices(rows).batch(batch)
    return model, model.fit(data, epochs=1, verbose=0).history


if __name__ == "__main__":
    main(*sys.argv[1:])
