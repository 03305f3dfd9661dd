"""Model with every backbone on difficult batches: eager, traced, reloaded, two replicas."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.usr_tf.fixtures import random_rows
from tests.usr_tf.test_model import OFF, check_serving, loss_and_gradients, make, schema_of
from usr_tf.backbones import BACKBONES
from usr_tf.model import USRModel
from usr_tf.schema import SCENARIO, Schema

ROWS = 12
ROOT = Path(__file__).parents[2]
SIZES = [pytest.param(2, 2, id="2 scenarios, 2 tasks")] + [
    pytest.param(scenarios, tasks, id=f"{scenarios} scenarios, {tasks} tasks", marks=pytest.mark.slow)
    for scenarios, tasks in [(1, 1), (1, 3), (2, 1), (2, 3), (5, 1), (5, 2), (5, 3)]
]
USR = [pytest.param({}, id="usr"), pytest.param(OFF, id="alone", marks=pytest.mark.slow)]


def batches(schema: Schema) -> dict[str, tuple[dict, dict]]:
    """Rows for every trap, `(features, labels)`."""
    mixed = random_rows(schema, ROWS)
    one_scenario = {**mixed[0], SCENARIO: tf.zeros([ROWS], tf.int32)}
    return {
        "mixed": mixed,
        "one row": random_rows(schema, 1),
        "one scenario alone": (one_scenario, mixed[1]),
        "empty histories": random_rows(schema, ROWS, length=0),
        "longer histories than the pipeline makes": random_rows(schema, ROWS, length=schema.history.max_length + 3),
    }


@pytest.mark.parametrize("usr", USR)
@pytest.mark.parametrize(("scenarios", "tasks"), SIZES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_scores_are_the_same_eagerly_traced_and_reloaded(backbone, scenarios, tasks, usr, tmp_path):
    schema = schema_of(scenarios, tasks)
    model = make(schema, backbone=backbone, usr=usr)
    cases = batches(schema)
    traced = exported(model, cases["mixed"][0], tmp_path)
    reloaded = tf.saved_model.load(str(tmp_path))
    for name, (features, _) in cases.items():
        eager = model(features)
        assert set(eager) == set(schema.label_names if model.config.usr.glmt else schema.task_names)
        for module in (traced, reloaded):
            for label, values in module.score(features).items():
                assert values.shape == features[SCENARIO].shape
                np.testing.assert_allclose(values, eager[label], rtol=1e-5, atol=1e-6, err_msg=f"{name}, {label}")
    check_serving(model, cases["mixed"][0])
    for name, rows in cases.items():  # last, as training moves statistics
        loss, gradients = loss_and_gradients(model, rows)
        assert np.isfinite(loss), name
        for variable, gradient in gradients.items():
            assert gradient is None or np.isfinite(tf.convert_to_tensor(gradient)).all(), (name, variable)
        assert all(np.isfinite(variable).all() for variable in model.variables), name


def exported(model: USRModel, features: dict, path: Path) -> tf.Module:
    """Saves the model as a function of batches of any size and any length of history."""
    spec = {name: tf.TensorSpec([None] * len(value.shape), value.dtype) for name, value in features.items()}
    module = tf.Module()
    module.parts = model.checkpoint()
    module.score = tf.function(lambda features: model(features), input_signature=[spec])
    tf.saved_model.save(module, str(path))
    return module


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_two_replicas_train_as_one(backbone):
    """Logical devices have to be made before TensorFlow starts, hence the process of its own."""
    command = [sys.executable, "-m", "tests.usr_tf.two_replicas", backbone]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "ok"
