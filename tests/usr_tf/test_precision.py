import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config, toy_schema
from usr_tf.model import USRModel

ROWS = 64


def trained(backbone: str, policy: str) -> tuple[USRModel, list[float]]:
    """A model after a few steps, and their losses."""
    schema = toy_schema()
    config = small_config(
        backbone=backbone,
        seed=3,
        history={"describe": ["action", "age"]},
        position_tower={"enabled": True},
        train={"precision": policy},
    )
    model = USRModel(schema, sizes_of(schema), config)
    model.compile()
    features, labels = random_rows(schema, ROWS)
    features["position"] = tf.constant(np.arange(ROWS) % 7, tf.int64)
    batch = tf.data.Dataset.from_tensors((features, labels))
    return model, [model.fit(batch, verbose=0).history["loss"][0] for _ in range(4)]


# The others are no different: two traces each take long.
@pytest.mark.parametrize("backbone", ["mmoe", pytest.param("star", marks=pytest.mark.slow)])
def test_bfloat16_learns_what_float32_does_with_weights_of_float32(backbone):
    (_, expected), (model, losses) = (trained(backbone, policy) for policy in ("float32", "mixed_bfloat16"))
    np.testing.assert_allclose(losses, expected, rtol=0.05)
    assert losses[-1] < losses[0]
    assert {weight.dtype for weight in model.weights if weight.dtype.is_floating} <= {tf.float32, tf.float64}
    assert model.backbone.compute_dtype == "bfloat16"
    assert model.heads.compute_dtype == "float32"
    assert keras.mixed_precision.global_policy().name == "float32"


def test_no_table_is_cast_as_a_whole():
    model, _ = trained("shared_bottom", "mixed_bfloat16")
    shapes = {tuple(table.shape) for table in model.table_variables}
    features, labels = random_rows(model.schema, ROWS)
    features["position"] = tf.zeros([ROWS], tf.int64)
    step = tf.function(lambda: model.compute_loss((features, labels), training=True)).get_concrete_function()
    casts = [op for op in step.graph.get_operations() if op.type == "Cast" and op.outputs[0].dtype == tf.bfloat16]
    assert casts
    assert not shapes & {tuple(op.outputs[0].shape) for op in casts if op.outputs[0].shape.rank is not None}
