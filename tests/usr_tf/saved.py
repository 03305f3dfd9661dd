"""Layer check: eager, traced and reloaded results agree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras


def check_everywhere(
    layer: keras.layers.Layer, arguments: tuple, path: Path, function: Callable | None = None, dynamic: int = 1
) -> Any:
    """Results of `function(*arguments)`, checked to agree eagerly, traced and reloaded.

    Args:
      layer: What `function` calls; saved with its weights.
      arguments: Tensors, tuples of tensors, None, or Python values, which stay as they are in the graph.
      path: An empty folder.
      function: Called with the arguments.
      dynamic: How many leading axes of every tensor the traced function knows nothing of; never a float's last one.
    """
    function = function or layer
    eager = function(*arguments)

    module = tf.Module()
    module.layer = layer
    static = [not tf.is_tensor(value) for value in tf.nest.flatten(arguments)]
    tensors = [value for value in tf.nest.flatten(arguments) if tf.is_tensor(value)]

    def run(*given: tf.Tensor) -> Any:
        given = iter(given)
        flat = [
            value if fixed else next(given) for value, fixed in zip(tf.nest.flatten(arguments), static, strict=True)
        ]
        return tf.nest.flatten(function(*tf.nest.pack_sequence_as(arguments, flat)))

    module.run = tf.function(run, input_signature=[_spec(tensor, dynamic) for tensor in tensors])
    tf.saved_model.save(module, str(path))
    reloaded = tf.saved_model.load(str(path))

    expected = [value for value in tf.nest.flatten(eager) if value is not None]
    for results in (module.run(*tensors), reloaded.run(*tensors)):
        results = [value for value in results if value is not None]
        assert len(results) == len(expected)
        for result, value in zip(results, expected, strict=True):
            tf.debugging.assert_near(result, value, rtol=1e-5, atol=1e-6)
            assert result.shape == value.shape
    return eager


def check_config(layer: keras.layers.Layer) -> None:
    """Checks that `get_config` round-trips through Keras's registry."""
    document = keras.saving.serialize_keras_object(layer)
    assert document["registered_name"] == f"usr_tf>{type(layer).__name__}"
    again = keras.saving.deserialize_keras_object(document)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


def _spec(tensor: tf.Tensor, dynamic: int) -> tf.TensorSpec:
    known = tensor.shape.rank - 1 if tensor.dtype.is_floating else tensor.shape.rank  # the width always is
    shape = [None if axis < min(dynamic, known) else size for axis, size in enumerate(tensor.shape)]
    return tf.TensorSpec(shape, tensor.dtype)
