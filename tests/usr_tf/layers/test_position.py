import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.saved import check_config, check_everywhere
from usr_tf.layers import PositionTower

SCENARIO = tf.constant([0, 1, 1, 0, 1, 0])
POSITION = tf.constant([1, 1, 2, 3, 9, 0], tf.int64)


def built(use_global: bool = True, dropout: float = 0.0) -> PositionTower:
    """Two scenarios, two tasks and three places, whose biases are 1, 2, 3, … in that order."""
    layer = PositionTower(2, 2, use_global, positions=3, dropout=dropout)
    layer(SCENARIO, POSITION)
    layer.bias.assign(1.0 + np.arange(np.prod(layer.bias.shape)).reshape(layer.bias.shape))
    return layer


def test_starts_at_zero():
    for bias in PositionTower(2, 3, positions=4, dropout=0.1)(SCENARIO, POSITION):
        np.testing.assert_array_equal(bias, np.zeros([6, 3]))


def test_global_labels_have_a_bias_of_the_first_task_and_each_scenario_task_has_its_own():
    scenario, shared = built()(SCENARIO, POSITION)
    # Columns of the weights: the global task, then ctr and ctcvr. The last place stands for 9; the place 0 is unknown.
    np.testing.assert_array_equal(scenario, [[2, 3], [11, 12], [14, 15], [8, 9], [17, 18], [0, 0]])
    np.testing.assert_array_equal(shared, [[1, 0], [10, 0], [13, 0], [7, 0], [16, 0], [0, 0]])


def test_an_esmm_chain_has_a_bias_of_its_first_task():
    scenario, shared = built(use_global=False)(SCENARIO, POSITION)
    np.testing.assert_array_equal(scenario, [[1, 0], [4, 0], [5, 0], [3, 0], [6, 0], [0, 0]])
    assert shared is None


def test_a_share_of_the_rows_gets_the_neutral_value_by_the_seed():
    layer = built(dropout=0.25)
    scenario, position = tf.zeros([20_000], tf.int32), tf.ones([20_000], tf.int64)
    first, again, other = (layer(scenario, position, tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3]))
    neutral = first.scenario[:, 0] == 0
    assert np.mean(neutral) == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(neutral, first.shared[:, 0] == 0)  # of the whole row
    np.testing.assert_array_equal(first.scenario, again.scenario)
    assert np.any(neutral != (other.scenario[:, 0] == 0))
    assert np.all(layer(scenario, position).scenario[:, 0] != 0)  # no seed, no chance


@pytest.mark.parametrize("use_global", [True, False])
def test_everywhere(use_global, tmp_path):
    layer = built(use_global)
    check_everywhere(layer, (SCENARIO, POSITION), tmp_path)
    check_config(layer)


def test_refuses_sizes_that_cannot_be():
    with pytest.raises(ValueError, match=r"at least 1\. Received: 2, 2, 0"):
        PositionTower(2, 2, positions=0, dropout=0.1)
    with pytest.raises(ValueError, match=r"from 0 to below 1\. Received: 1"):
        PositionTower(2, 2, positions=3, dropout=1.0)
