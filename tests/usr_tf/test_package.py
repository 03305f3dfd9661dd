"""What importing the package does. Each in a process of its own, where nothing has been imported yet."""

import os
import re
import subprocess
import sys

import pytest

import usr_tf


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )


def test_after_keras_3_the_import_says_what_to_do():
    done = run("import tensorflow as tf; tf.keras.layers; import usr_tf")
    assert done.returncode == 1
    assert re.search(r"^ImportError: usr_tf needs Keras 2, .*TF_USE_LEGACY_KERAS'\] = '1'.*before", done.stderr, re.M)


def test_picks_keras_2_for_a_tensorflow_whose_keras_nobody_has_used():
    done = run("import tensorflow as tf; import usr_tf; import tf_keras; print(tf.keras.Model is tf_keras.Model)")
    assert done.stdout == "True\n", done.stderr


def test_is_content_with_a_tensorflow_of_keras_2():
    done = run("import tensorflow as tf; tf.keras.layers; import usr_tf; print('fine')", TF_USE_LEGACY_KERAS="1")
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.slow
def test_a_client_needs_nothing_of_what_trains_and_exports():
    heavy = "tensorflow_transform tensorflow_recommenders usr_tf.model usr_tf.export"
    done = run(f"import sys, serving.client; print([name for name in '{heavy}'.split() if name in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_public_names_are_there():
    assert usr_tf.__all__ == sorted(usr_tf.__all__)
    for name in usr_tf.__all__:
        assert getattr(usr_tf, name).__name__ in (name, f"usr_tf.{name}")
    with pytest.raises(AttributeError, match="no attribute 'usr'"):
        _ = usr_tf.usr
