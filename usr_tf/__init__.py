"""USR: one ranking model for search and recommendation (SIGIR 2024), from logs to served scores.

Importing this package picks Keras 2 (`tf_keras`) for TensorFlow, which TensorFlow Recommenders and
TensorFlow Transform need. TensorFlow itself is imported only when a name that needs it is used, so that
`usr_tf.schema` and the pipeline's workers start without it.
"""

import importlib
import os
import sys
from typing import Any

__version__ = "0.1.0"

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
if getattr(getattr(sys.modules.get("tensorflow"), "keras", None), "__version__", "2").startswith("3"):
    raise ImportError(
        "usr_tf needs Keras 2, but TensorFlow was imported with Keras 3. Restart the runtime and set "
        "os.environ['TF_USE_LEGACY_KERAS'] = '1', or import usr_tf, before importing tensorflow."
    )

_HOMES = {
    "Config": "usr_tf.config",
    "InputError": "usr_tf.errors",
    "Schema": "usr_tf.schema",
    "USRModel": "usr_tf.model",
    "load_config": "usr_tf.config",
    "load_schema": "usr_tf.schema",
    "open_data": "usr_tf.data",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
