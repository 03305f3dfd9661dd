"""What every test starts from: Keras 2 before anything imports TensorFlow, and logging as no other test left it."""

import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import pytest

import usr_tf  # noqa: F401

# A machine that is busy is no failure.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _levels_of_logging():
    """Commands that a test runs in this process set levels for good: files that run later would see other records."""
    levels = {name: logging.getLogger(name).level for name in ("", "usr_tf", "serving", "tensorflow")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
