"""Memory per row: no tensor of training or serving holds a weight matrix per row."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import math

import pytest
import tensorflow as tf

from tests.usr_tf.backbones.common import SIZES
from usr_tf.backbones import BACKBONES

REQUEST, CANDIDATE = 29, 31
HIDDEN, TOWER = (23, 19), (17,)
WIDE = {"bottom": HIDDEN, "expert": HIDDEN, "network": HIDDEN, "tower": TOWER, "gate_hidden": 19, "task_embedding": 19}
SMALLEST = 17 * 19
"""Numbers of the smallest matrix between these layers. What a row has of its own, all together, is less."""


def largest_of_a_row(function: tf.types.experimental.ConcreteFunction) -> tuple[int, str]:
    """The most numbers that a tensor of the graph holds for each row, of which the graph does not know how many."""
    tensors = [tensor for op in function.graph.get_operations() for tensor in op.outputs]
    of_rows = [tensor for tensor in tensors if tensor.shape.rank and None in tensor.shape]
    assert not function.graph.as_graph_def().library.function  # nothing hides in a function of its own
    return max(
        (math.prod(size for size in tensor.shape if size), f"{tensor.op.name} {tensor.shape}") for tensor in of_rows
    )


def traced(backbone, scenario: tf.TensorSpec | int, requests: int | None):
    def run(request, candidate, scenario=scenario):
        with tf.GradientTape() as tape:
            tape.watch([request, candidate])
            output = backbone(request, candidate, scenario, training=not isinstance(scenario, int))
            total = tf.add_n([tf.reduce_sum(part) for part in output if part is not None])
        if isinstance(scenario, int):
            return total
        return tape.gradient(total, [request, candidate, *backbone.trainable_variables])

    specs = [tf.TensorSpec([requests, REQUEST]), tf.TensorSpec([None, CANDIDATE])]
    specs += [scenario] if isinstance(scenario, tf.TensorSpec) else []
    return tf.function(run).get_concrete_function(*specs)


@pytest.mark.parametrize("name", BACKBONES)
def test_no_row_has_a_matrix_of_weights(name):
    sizes = {key: WIDE.get(key, size) for key, size in SIZES[name].items()}
    backbone = BACKBONES[name](3, 2, **sizes)
    backbone(tf.zeros([1, REQUEST]), tf.zeros([1, CANDIDATE]), 0)
    for function in (traced(backbone, tf.TensorSpec([None], tf.int32), None), traced(backbone, 1, 1)):
        numbers, tensor = largest_of_a_row(function)
        assert numbers >= max(HIDDEN)  # rows were found
        assert numbers < SMALLEST, tensor


def test_a_matrix_for_each_row_would_be_seen():
    kernel = tf.Variable(tf.zeros([3, 19, 17]))

    def run(x, scenario):
        return tf.linalg.matvec(tf.gather(kernel, scenario), x, transpose_a=True)

    function = tf.function(run).get_concrete_function(tf.TensorSpec([None, 19]), tf.TensorSpec([None], tf.int32))
    assert largest_of_a_row(function)[0] == SMALLEST
