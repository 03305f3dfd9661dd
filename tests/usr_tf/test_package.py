"""Import effects of the package, each in its own process."""

import os
import re
import subprocess
import sys

import pytest

import usr_tf
from usr_tf.cli.extras import EXTRAS


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


NEEDED = {
    "baseline": ["usr_tf.baseline.lightgbm", "lightgbm"],
    "client": ["serving.client", "serving.formats.contract"],
    "serve": ["serving.local_server", "serving.publishing.canary", "serving.publishing.smoke"],
    "pipelines": ["pipelines.simulator.simulate", "pipelines.preprocess", "pipelines.score", "pipelines.evaluate"],
    "train": [
        "usr_tf.train",
        "usr_tf.evaluate",
        "usr_tf.evaluation.explain",
        "serving.publishing.publish",
        "usr_tf.experiments.tune",
    ],
}
"""Extra → what it is for."""
BROUGHT = {
    "baseline": {"numpy", "scipy"},
    "pipelines": {"google.protobuf", "grpc"},
    "train": {"apache_beam", "pyarrow", "tensorflow_metadata", "tfx_bsl"},
}
"""Extra → what its requirements require."""


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_what_an_extra_is_for_needs_no_other_extra(extra):
    others = {module for modules in EXTRAS.values() for module in modules}
    others -= {*EXTRAS[extra], *BROUGHT.get(extra, ())}
    hidden = f"import sys; sys.modules.update(dict.fromkeys({sorted(others)}))"
    done = run(f"{hidden}; import {', '.join(NEEDED[extra])}; print('fine')")
    assert done.stdout == "fine\n", done.stderr


def test_the_schema_and_the_configuration_need_no_extra():
    hidden = f"import sys; sys.modules.update(dict.fromkeys({sorted({*sum(EXTRAS.values(), ())})}))"
    done = run(f"{hidden}; import usr_tf, usr_tf.cli; print(usr_tf.load_config().backbone, usr_tf.Schema.__name__)")
    assert done.stdout == "shared_bottom Schema\n", done.stderr


def test_public_names_are_there():
    assert usr_tf.__all__ == sorted(usr_tf.__all__)
    for name in usr_tf.__all__:
        assert getattr(usr_tf, name).__name__ in (name, f"usr_tf.{name}")
    with pytest.raises(AttributeError, match="no attribute 'usr'"):
        _ = usr_tf.usr
