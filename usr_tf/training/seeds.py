"""Random seeds of Keras initializers within a block."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import tf_keras as keras


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which Keras's initializers draw from `seed`; restores Python's and NumPy's generators."""
    python, numpy = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
