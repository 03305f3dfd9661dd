"""Beam pipelines from logs to training data: log sources, simulator, join, transform, data quality, batch scoring."""

import usr_tf  # noqa: F401  (picks Keras 2 before TensorFlow Transform imports TensorFlow)
