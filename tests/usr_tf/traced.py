"""Graph inspection of a layer: weights read after export, and the largest tensor."""

import tensorflow as tf
import tf_keras as keras

from usr_tf.layers.folding import folding


def exported(function, *examples: tf.Tensor) -> tf.types.experimental.ConcreteFunction:
    """`function` traced as for export, for any number of rows."""
    with folding():
        specs = [tf.TensorSpec([None, *example.shape[1:]], example.dtype) for example in examples]
        return tf.function(function).get_concrete_function(*specs)


def weights_read(function: tf.types.experimental.ConcreteFunction, layer: keras.layers.Layer) -> list[tf.Variable]:
    captured = {id(tensor) for tensor in function.captured_inputs}
    return [weight for weight in layer.weights if id(weight.handle) in captured]


def largest_tensor(function, *examples: tf.Tensor) -> int:
    """Numbers in the largest tensor of a training step: of `function`'s sum and its gradients."""

    @tf.function
    def step(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(tf.square(function(*inputs)))
        tape.gradient(total, [*inputs, *tape.watched_variables()])
        operations = tf.compat.v1.get_default_graph().get_operations()
        return [tf.size(tensor) for op in operations for tensor in op.outputs if tensor.dtype.is_floating]

    return max(int(size) for size in step(*examples))
