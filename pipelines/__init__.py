"""Logs to training data: sources, the simulated shop, the join and the transform."""

import usr_tf  # noqa: F401  (picks Keras 2 before TensorFlow Transform imports TensorFlow)
