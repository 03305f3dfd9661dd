import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import pytest
import tensorflow as tf

from usr_tf.layers.folding import fold, folding


def traced(weight: tf.Variable) -> tf.types.experimental.ConcreteFunction:
    function = tf.function(lambda x: x * fold(lambda: weight * weight, weight))
    return function.get_concrete_function(tf.TensorSpec([]))


def reads_of(function) -> list[str]:
    return [op.type for op in function.graph.get_operations() if op.type in ("ReadVariableOp", "Mul")]


def test_eagerly_it_is_the_computation():
    weight = tf.Variable(3.0)
    assert fold(lambda: weight + 1, weight) == 4.0
    with folding():
        assert fold(lambda: weight + 1, weight) == 4.0


def test_a_trace_reads_the_weight_each_time():
    weight = tf.Variable(3.0)
    function = traced(weight)
    assert function(tf.constant(2.0)) == 18.0
    weight.assign(1.0)
    assert function(tf.constant(2.0)) == 2.0


def test_a_folding_trace_holds_the_result_as_it_was():
    weight = tf.Variable(3.0)
    with folding():
        function = traced(weight)
    assert reads_of(function) == ["Mul"]  # by x alone; the weight is not read
    assert not function.captured_inputs
    assert function(tf.constant(2.0)) == 18.0
    weight.assign(1.0)
    assert function(tf.constant(2.0)) == 18.0


def test_what_does_not_depend_on_variables_alone_stays_in_the_graph():
    weight = tf.Variable(3.0)
    with folding():
        function = tf.function(lambda x: fold(lambda: x * weight, x, weight)).get_concrete_function(tf.TensorSpec([]))
    assert function.captured_inputs
    assert function(tf.constant(2.0)) == 6.0


def test_results_may_be_nested():
    weight = tf.Variable([1.0, 2.0])
    with folding():
        compute = tf.function(lambda: fold(lambda: {"a": [weight, weight[1]], "b": tf.shape(weight)}, weight))
        function = compute.get_concrete_function()
    result = function()
    assert result["a"][0].numpy().tolist() == [1.0, 2.0]
    assert result["a"][1] == 2.0
    assert result["b"].numpy().tolist() == [2]
    assert not function.captured_inputs


def test_ends_with_its_block_even_by_an_error():
    weight = tf.Variable(3.0)

    def fail():
        with folding():
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert traced(weight).captured_inputs


def test_blocks_nest():
    weight = tf.Variable(3.0)
    with folding():
        with folding():
            pass
        assert not traced(weight).captured_inputs
