"""Random seeds for a part of a program."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import tf_keras as keras


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, Keras's initializers draw from `seed`; Python's and NumPy's own generators are as before after it."""
    python, numpy = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
