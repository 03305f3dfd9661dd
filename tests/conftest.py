"""What every test starts from: Keras 2 picked before anything imports TensorFlow."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import usr_tf  # noqa: F401
