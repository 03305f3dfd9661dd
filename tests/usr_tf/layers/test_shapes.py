"""Shape checks of layers and losses; each message ends with the received value."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import pytest
import tensorflow as tf

from usr_tf import layers
from usr_tf.layers.shapes import check_shapes

ITEM, HISTORY, MASK = tf.zeros([4, 6]), tf.zeros([4, 5, 6]), tf.ones([4, 5], tf.bool)
TRIGGER, SCENARIO = tf.zeros([4, 2, 3]), tf.zeros([4], tf.int32)


def built(layer, *inputs):
    layer(*inputs)
    return layer


CALLS = {
    "interest of another width": (
        lambda: layers.InterestExtractor(2, 4)(ITEM[:, :3], HISTORY, MASK, TRIGGER),
        r"`history` must be \[B, L, d\] with d = 3\. Received: shape \(4, 5, 6\)",
    ),
    "interest with a mask of another history": (
        lambda: layers.InterestExtractor(2, 4)(ITEM, HISTORY, MASK[:, :2], TRIGGER),
        r"`mask` must be \[B, L\] with L = 5\. Received: shape \(4, 2\)",
    ),
    "interest with a mask of numbers": (
        lambda: layers.InterestExtractor(2, 4)(ITEM, HISTORY, tf.cast(MASK, tf.float32), TRIGGER),
        r"`mask` must be bool\. Received: float32",
    ),
    "interest with a trigger for no view": (
        lambda: layers.InterestExtractor(2, 4)(ITEM, HISTORY, MASK, TRIGGER[:, 0]),
        r"`trigger` must be \[T, V, t\]\. Received: shape \(4, 3\)",
    ),
    "attention of other rows": (
        lambda: layers.DIN([3])(ITEM[:2], HISTORY, MASK),
        r"`history` must be \[B, L, d\] with B = 2\. Received: shape \(4, 5, 6\)",
    ),
    "attention with a mask of numbers": (
        lambda: layers.DIN([3])(ITEM, HISTORY, tf.cast(MASK, tf.int32)),
        r"`mask` must be bool\. Received: int32",
    ),
    "features as one tensor of three axes": (
        lambda: layers.FeatureGenerator(4)((HISTORY, ITEM), TRIGGER),
        r"`request` must be \[R, dr\]\. Received: shape \(4, 5, 6\)",
    ),
    "views of other sizes": (
        lambda: layers.ContrastiveLoss()(TRIGGER, TRIGGER[..., :2]),
        r"`augmented` must be \[B, V, d\] with d = 3\. Received: shape \(4, 2, 2\)",
    ),
    "weights of other rows": (
        lambda: layers.ContrastiveLoss()(TRIGGER, TRIGGER, tf.ones([3])),
        r"`weight` must be \[B\] with B = 4\. Received: shape \(3,\)",
    ),
    "a temperature of NaN": (
        lambda: layers.ContrastiveLoss(temperature=float("nan")),
        r"`temperature` must be above 0, and finite\. Received: nan",
    ),
    "heads of other tasks": (
        lambda: layers.GlobalLabelHeads(3, 2)(TRIGGER, TRIGGER, SCENARIO),
        r"`scenario_hidden` must be \[B, 3, h\]\. Received: shape \(4, 2, 3\)",
    ),
    "heads with logits of other tasks": (
        lambda: layers.GlobalLabelHeads(2, 2)(TRIGGER, TRIGGER, SCENARIO, tf.zeros([4, 1])),
        r"`scenario_logit` must be \[B, 2\]\. Received: shape \(4, 1\)",
    ),
    "positions as a column": (
        lambda: layers.PositionTower(2, 2, positions=3, dropout=0.1)(SCENARIO, SCENARIO[:, tf.newaxis]),
        r"`position` must be \[B\]\. Received: shape \(4, 1\)",
    ),
    "normalisation of three axes": (
        lambda: layers.PartitionedNormalization(2)((ITEM, HISTORY), SCENARIO),
        r"`candidate` must be \[B, dc\]\. Received: shape \(4, 5, 6\)",
    ),
    "normalisation with an epsilon of NaN": (
        lambda: layers.PartitionedNormalization(2, epsilon=float("nan")),
        r"`epsilon` above 0\. Received: 0.99, nan",
    ),
    "inputs of another width": (
        lambda: built(layers.SplitDense(2), (ITEM, ITEM))((ITEM, ITEM[:, :2])),
        r"must be 12 wide together\. Received: shapes \(4, 6\), \(4, 2\)",
    ),
    "experts' inputs of another width": (
        lambda: built(layers.ExpertStack(2, [3]), (ITEM, ITEM))((ITEM, ITEM[:, :5])),
        r"must be 12 wide together\. Received: shapes \(4, 6\), \(4, 5\)",
    ),
    "scenarios' inputs of another width": (
        lambda: built(layers.ScenarioDense(2, 3), ITEM, SCENARIO)(ITEM[:, :1], SCENARIO),
        r"must be 6 wide together\. Received: shapes \(4, 1\)",
    ),
    "labels as a column": (
        lambda: layers.binary_cross_entropy(tf.zeros([4]), tf.zeros([4, 1])),
        r"of one shape and type\. Received: float32 \(4,\) and float32 \(4, 1\)",
    ),
    "whole labels": (
        lambda: layers.binary_cross_entropy(tf.zeros([4]), tf.zeros([4], tf.int32)),
        r"of one shape and type\. Received: float32 \(4,\) and int32 \(4,\)",
    ),
    "whole logarithms": (lambda: layers.log1mexp(tf.constant([-1])), r"`x` must be floats\. Received: int32"),
}


@pytest.mark.parametrize("trace", [tf.function, lambda call: call], ids=["traced", "eager"])
@pytest.mark.parametrize("case", CALLS)
def test_shapes_and_values_that_make_no_sense(case, trace):
    call, message = CALLS[case]
    with pytest.raises(ValueError, match=message):
        trace(call)()


def test_what_is_known_only_when_the_graph_runs_is_not_checked():
    @tf.function(input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec(None), tf.TensorSpec([3, None])])
    def check(left, anything, right):
        check_shapes(left=(left, "B d"), anything=(anything, "B L d"), right=(right, "B 7"), absent=(None, "B"))
        return tf.size(left)

    assert check(tf.zeros([3, 2]), 1.0, tf.zeros([3, 7])) == 6
