"""LightGBM as an optional dependency: its import, its log, and a check of its parameters."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from usr_tf.errors import InputError


class _Log:
    """LightGBM's log: warnings are kept, the rest is dropped."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def info(self, text: str) -> None:
        pass

    def warning(self, text: str) -> None:
        self.warnings.append(text.strip())


def load_lightgbm() -> ModuleType:
    """The module `lightgbm`.

    Raises:
      InputError: it is not installed, or a library that it needs is missing.
    """
    try:
        return importlib.import_module("lightgbm")
    except ImportError as error:
        raise InputError(
            "baseline", "no module lightgbm", "what this installs: pip install 'usr-tf[baseline]'"
        ) from error
    except OSError as error:  # such as no libgomp.so.1
        raise InputError("baseline", f"lightgbm that cannot be loaded ({error})", "its shared libraries") from error


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuses parameters that LightGBM does not know or would ignore, before there is work to lose.

    Raises:
      InputError: an unknown parameter, a second name of one that is set, or a value that LightGBM refuses.
    """
    lightgbm, log = load_lightgbm(), _Log()
    lightgbm.register_logger(log)
    few = np.arange(8, dtype=np.float32).reshape(4, 2)
    checked = {**parameters, "verbosity": 0}  # below 0, LightGBM does not warn
    try:
        rows = lightgbm.Dataset(few, [0, 1, 0, 1], group=[2, 2], params=checked)
        lightgbm.Booster(checked, rows)
    except (lightgbm.basic.LightGBMError, TypeError, ValueError) as error:
        raise InputError("--set", str(error).strip(), "a value that LightGBM takes") from error
    for warning in log.warnings:
        if "Unknown parameter" in warning or "will be ignored" in warning:
            raise InputError(
                "--set", warning.removeprefix("[LightGBM] [Warning] "), "a parameter of LightGBM, set once"
            )
