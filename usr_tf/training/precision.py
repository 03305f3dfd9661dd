"""Mixed precision: the Keras policy of new layers. Weights are always float32."""

import contextlib
from collections.abc import Iterator

import tf_keras as keras


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Context in which new layers use this Keras policy: `float32` or `mixed_bfloat16`.

    A layer that makes others when it is built makes them at the model's first call, so that belongs here too.
    """
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
