"""Serving: publishing and canary of exported SavedModels, a local TF Serving server, and clients.

Servers and clients read no model's Python code: the SavedModel is the whole contract. `publish` alone runs the model
too, for the offline scores that the SavedModel is compared with.
"""

import usr_tf.errors  # noqa: F401  (importing usr_tf picks Keras 2, which has to happen before TensorFlow's import)
