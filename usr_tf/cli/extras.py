"""Optional dependencies: modules of each extra of the package, and which are missing."""

import importlib.util
from collections.abc import Iterable

from usr_tf.errors import InputError

_TENSORFLOW = ("tensorflow", "tensorflow_serving")
_FIGURES = ("matplotlib", "pandas", "scipy", "sklearn")
_CLIENT = ("grpc", "httpx", "numpy", "orjson", *_TENSORFLOW)
_SERVE = (*_CLIENT, "aiohttp", "grpc_health", "grpc_reflection", "prometheus_client")

EXTRAS = {
    "baseline": ("lightgbm",),
    "client": _CLIENT,
    "features": ("kafka", "orjson", "redis"),
    "serve": _SERVE,
    "pipelines": (
        *_TENSORFLOW,
        *_FIGURES,
        "apache_beam",
        "numpy",
        "orjson",
        "pyarrow",
        "tensorflow_metadata",
        "tensorflow_transform",
        "tf_keras",
        "tfx_bsl",
    ),
    "train": (
        *_SERVE,
        *_FIGURES,
        "optuna",
        "tensorboard",
        "tensorflow_recommenders",
        "tensorflow_transform",
        "tf_keras",
    ),
}
"""Extra → top-level modules, one for each requirement of the extra in setup.py."""


def require(extras: Iterable[str], place: str) -> None:
    """Raises if modules of some extras are missing.

    Raises:
      InputError: the first missing module, and the command that installs the extras.
    """
    extras = tuple(extras)
    for extra in extras:
        for module in EXTRAS[extra]:
            if importlib.util.find_spec(module) is None:
                install = f"pip install 'usr-tf[{','.join(extras)}]'"
                raise InputError(place, f"no module {module}", f"what this installs: {install}")
