"""Session setup: Keras 2 before TensorFlow, and log levels restored after each test file."""

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
    """Restores log levels that a command has set, so that later files see the same records."""
    levels = {name: logging.getLogger(name).level for name in ("", "usr_tf", "serving", "tensorflow")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
