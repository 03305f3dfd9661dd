import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.usr_tf.saved import check_everywhere
from usr_tf.layers.scenario import apply_own_weights, route


class Affine(tf.Module):
    """`x W_p + b_p` of three scenarios, 2 wide."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.normal(size=(3, 2, 2)), dtype=tf.float32)
        self.bias = tf.Variable(rng.normal(size=(3, 2)), dtype=tf.float32)

    def __call__(self, x, scenario):
        return apply_own_weights(lambda x, w, b: x @ w + b, x, [self.kernel, self.bias], scenario)


def test_each_row_meets_its_own_scenario_and_keeps_its_place():
    x, scenario = tf.constant([[1.0], [2.0], [3.0], [4.0]]), tf.constant([2, 0, 2, 0])
    result = route(lambda rows, p: rows * 10 + p, x, scenario, 3)
    assert result.numpy().tolist() == [[12.0], [20.0], [32.0], [40.0]]


def test_no_scenario_computes_rows_of_another():
    seen = []
    route(lambda rows, p: seen.append((p, rows.numpy().tolist())) or rows, tf.range(5), tf.constant([1, 3, 1, 0, 1]), 4)
    assert seen == [(0, [3]), (1, [0, 2, 4]), (2, []), (3, [1])]


@given(scenario=st.lists(st.integers(0, 2), max_size=6), one_request=st.booleans())
@settings(max_examples=25)
def test_equals_one_row_at_a_time(scenario, one_request):
    rows = len(scenario)
    request, candidate = tf.random.normal([1 if one_request else rows, 2]), tf.random.normal([rows, 3])
    kernel = tf.random.normal([3, 5, 2])

    def product(parts, weights):
        return parts[0] @ weights[:2] + parts[1] @ weights[2:]

    result = apply_own_weights(product, (request, candidate), [kernel], tf.constant(scenario, tf.int32))
    assert result.shape == [rows, 2]
    x = np.concatenate([np.broadcast_to(request, [rows, 2]), candidate], 1)
    for row, p in enumerate(scenario):
        np.testing.assert_allclose(result[row], x[row] @ kernel[p].numpy(), rtol=1e-5, atol=1e-5)


def test_a_static_scenario_is_called_once_on_the_inputs_as_they_are():
    x, calls = (tf.zeros([1, 2]), tf.zeros([4, 3])), []
    route(lambda rows, p: calls.append((rows, p)), x, 1, 3)
    route(lambda rows, p: calls.append((rows, p)), x, tf.zeros([4], tf.int32), 1)  # there is but one
    assert [p for _, p in calls] == [1, 0]
    assert all(rows is x for rows, _ in calls)


def test_gradients_are_those_of_the_rows_alone():
    layer, x = Affine(), tf.constant([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x, tf.constant([2, 0, 2])))
    kernel, bias, inputs = tape.gradient(total, [layer.kernel, layer.bias, x])
    assert kernel.numpy().tolist() == [[[3, 3], [5, 5]], [[0, 0], [0, 0]], [[8, 8], [13, 13]]]  # scenario 1 is absent
    assert bias.numpy().tolist() == [[1, 1], [0, 0], [2, 2]]
    np.testing.assert_allclose(inputs, layer.kernel.numpy()[[2, 0, 2]].sum(2), rtol=1e-6)


def test_an_empty_batch_has_gradients_of_zero():
    layer = Affine()
    with tf.GradientTape() as tape:
        result = layer(tf.zeros([0, 2]), tf.zeros([0], tf.int32))
    assert result.shape == [0, 2]
    for gradient in tape.gradient(result, [layer.kernel, layer.bias]):
        assert not np.any(gradient)


def test_one_request_collects_the_gradients_of_all_rows():
    request = tf.Variable([[2.0]])
    with tf.GradientTape() as tape:
        result = route(lambda rows, p: rows * (p + 1.0), request, tf.constant([0, 2, 2]), 3)
    assert result.numpy().tolist() == [[2.0], [6.0], [6.0]]
    assert tape.gradient(result, request).numpy().tolist() == [[7.0]]


def test_everywhere(tmp_path):
    layer, x, scenario = Affine(), tf.random.normal([5, 2]), tf.constant([1, 0, 2, 1, 1])
    check_everywhere(layer, (x, scenario), tmp_path / "mixed")
    check_everywhere(layer, (x, 1), tmp_path / "static")


def test_the_width_is_known_when_the_batch_is_not():
    layer = Affine()
    run = tf.function(layer, input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec([None], tf.int32)])
    assert run.get_concrete_function().output_shapes.as_list() == [None, 2]


@pytest.mark.parametrize("scenario", [-1, 3])
def test_refuses_a_scenario_that_does_not_exist(scenario):
    with pytest.raises(ValueError, match=rf"from 0 to 2. Received: {scenario}"):
        Affine()(tf.zeros([1, 2]), scenario)
    with pytest.raises(tf.errors.InvalidArgumentError):
        Affine()(tf.zeros([1, 2]), tf.constant([scenario]))
