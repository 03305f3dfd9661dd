"""Serving: an exported SavedModel over TF Serving's gRPC API, and a client of it.

Nothing here reads a model's Python code: the SavedModel is the whole contract.
"""

import usr_tf.errors  # noqa: F401  (importing usr_tf picks Keras 2, which has to happen before TensorFlow's import)
