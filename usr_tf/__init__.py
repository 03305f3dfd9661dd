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

_NAMES = {
    "Config": "usr_tf.config",
    "Data": "usr_tf.data",
    "InputError": "usr_tf.errors",
    "RankingOptimizer": "usr_tf.optimizers",
    "Run": "usr_tf.run",
    "Schema": "usr_tf.schema",
    "USRModel": "usr_tf.model",
    "load_config": "usr_tf.config",
    "load_schema": "usr_tf.schema",
    "make_optimizer": "usr_tf.optimizers",
    "open_data": "usr_tf.data",
    "open_run": "usr_tf.run",
    "save_run": "usr_tf.train",
}
"""The module of each public name."""
_MODULES = ("compare", "config", "errors", "evaluate", "export", "metrics", "optimizers", "run", "schema", "train")
"""Public modules, such as `usr_tf.train` with `train` and `save_run`."""
__all__ = sorted([*_NAMES, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"usr_tf.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
