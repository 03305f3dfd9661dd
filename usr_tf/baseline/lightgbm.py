"""LightGBM as an optional dependency: its import, and a check of its parameters."""

import importlib
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from usr_tf.errors import InputError
from usr_tf.streams import no_stderr


class _Log:
    """LightGBM's log, kept in memory. Warnings of its C++ library come as `info`, with a prefix."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text.strip())

    warning = info


def load_lightgbm() -> ModuleType:
    """The module `lightgbm`.

    Raises:
      InputError: it is not installed, or a library that it needs is missing.
    """
    try:
        return importlib.import_module("lightgbm")
    except ImportError as error:
        expected = "what this installs: pip install 'usr-tf[baseline]'"
        raise InputError("baseline", "no module lightgbm", expected) from error
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
        with no_stderr():
            rows = lightgbm.Dataset(few, [0, 1, 0, 1], group=[2, 2], params=checked)
            lightgbm.Booster(checked, rows)
    except (lightgbm.basic.LightGBMError, TypeError, ValueError) as error:
        found = re.sub(r" at \S+, line \d+ \.\s*$", "", str(error)).strip()  # of LightGBM's source
        raise InputError("--set", found, "a value that LightGBM takes") from error
    for line in log.lines:
        if "Unknown parameter" in line or "will be ignored" in line:
            found = line.removeprefix("[LightGBM] [Warning] ")
            raise InputError("--set", found, "a parameter of LightGBM, set once")
