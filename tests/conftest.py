"""What every test starts from: Keras 2 picked before TensorFlow is imported, and third parties' warnings let through."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import usr_tf  # noqa: E402, F401
