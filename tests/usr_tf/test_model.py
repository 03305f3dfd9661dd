import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tests.usr_tf.fixtures import random_rows, sizes_of, small_config, toy_schema
from usr_tf.errors import InputError
from usr_tf.model import USRModel
from usr_tf.schema import Schema, parse_schema

ROWS = 12
ROOT = Path(__file__).parents[2]

LEAST = """
scenarios: [search]
tasks: [{name: ctr, action: click}]
features:
  item_id: {group: item, type: categorical}
"""


def make(schema: Schema | None = None, **keys) -> USRModel:
    keras.utils.set_random_seed(1)
    schema = schema or toy_schema()
    model = USRModel(schema, sizes_of(schema), small_config(**keys))
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:  # no bias or gate at zero, where one gone astray would not show
        variable.assign_add(rng.normal(0, 0.3, variable.shape))
    return model


def schema_of(scenarios: int = 2, tasks: int = 2, without: tuple[str, ...] = (), history: bool = True) -> Schema:
    """The toy schema with another number of scenarios and tasks, and without the features of some groups."""
    document = toy_schema().model_dump(mode="json", exclude_unset=True)
    document["scenarios"] = [f"s{number}" for number in range(scenarios)]
    document["tasks"] = [{"name": f"t{number}", "action": f"a{number}"} for number in range(tasks)]
    document["features"] = {
        name: feature for name, feature in document["features"].items() if feature["group"] not in without
    }
    if not history:
        del document["history"]
    return Schema.model_validate(document)


def loss_and_gradients(model: USRModel, rows) -> tuple[float, dict[str, tf.Tensor]]:
    with tf.GradientTape() as tape:
        loss = model.compute_loss(rows, training=True)
    gradients = tape.gradient(loss, model.trainable_variables)
    return float(loss), {
        variable.name: gradient for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
    }


def check_whole(model: USRModel, schema: Schema) -> None:
    """Probabilities of every label, a finite loss, and a finite gradient of every weight."""
    rows = random_rows(schema, ROWS)
    probabilities = model(rows[0])
    for values in probabilities.values():
        assert values.shape == [ROWS]
        assert np.all((values > 0) & (values < 1))
    loss, gradients = loss_and_gradients(model, rows)
    assert np.isfinite(loss)
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert np.all(np.isfinite(tf.convert_to_tensor(gradient))), name


# Every schema and configuration


@pytest.mark.parametrize(("scenarios", "tasks"), [(1, 1), (1, 3), (2, 1), (3, 1), (3, 3)])
def test_any_number_of_scenarios_and_tasks(scenarios, tasks):
    schema = schema_of(scenarios, tasks)
    model = make(schema)
    check_whole(model, schema)
    assert tuple(model(random_rows(schema, 2)[0])) == schema.label_names


OFF = {"ie": False, "fg": False, "glmt": False, "contrastive": False}
CONFIGS = {
    **{f"without {part}": {"usr": {part: False}} for part in OFF},
    "without any": {"usr": OFF},
    "mmoe": {"backbone": "mmoe"},
    "mmoe without any": {"backbone": "mmoe", "usr": OFF},
    "gate that reads the features": {"usr": {"fg_condition": "trigger_and_features"}},
    "mmoe, gate that reads the features": {"backbone": "mmoe", "usr": {"fg_condition": "trigger_and_features"}},
    "same_view": {"usr": {"contrastive_loss": {"variant": "same_view"}}},
    "learned temperature": {"usr": {"contrastive_loss": {"learn_temperature": True}}},
    "several heads, places of the history": {"usr": {"heads": 7}, "history": {"describe": ["position", "action"]}},
    "din": {"usr": {"ie": False}, "history": {"pooling": "din", "describe": []}},
    "a sequence of each scenario": {"history": {"sequences": "by_scenario"}},
    "din of each scenario": {"usr": {"ie": False}, "history": {"pooling": "din", "sequences": "by_scenario"}},
    "din alone": {"usr": OFF, "history": {"pooling": "din"}},
    "no towers": {"shared_bottom": {"tower": []}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_any_configuration(name):
    model = make(**CONFIGS[name])
    check_whole(model, model.schema)
    check_serving(model, random_rows(model.schema, ROWS)[0])
    labels = model.schema.label_names if model.config.usr.glmt else model.schema.task_names
    assert tuple(model(random_rows(model.schema, 2)[0])) == labels


def test_a_sequence_of_each_scenario_holds_its_actions_and_those_without_a_scenario():
    model = make(history={"sequences": "by_scenario"})
    features = random_rows(model.schema, 1)[0]
    length = features["history_age"].shape[1]
    scenarios, ages = np.zeros((2, 1, length), np.int64)
    scenarios[0, :3], ages[0, :2] = [1, 0, 2], 1  # search, none; then padding
    inputs = model.look_up({**features, "history_scenario": tf.constant(scenarios), "history_age": tf.constant(ages)})
    expected = np.zeros((1, 2, length), bool)
    expected[0, 0, :2] = expected[0, 1, 1] = True
    np.testing.assert_array_equal(inputs.sequences, expected)
    assert model.view(inputs, 0).interest.shape[-1] == 2 * inputs.item.shape[-1]


@pytest.mark.parametrize("without", [("query",), ("user", "context"), ("user", "context", "query")])
@pytest.mark.parametrize(
    ("history", "usr"), [(True, {}), (False, {"fg_condition": "trigger_and_features"}), (True, OFF)], ids=str
)
def test_schemas_that_lack_a_side(without, history, usr):
    schema = schema_of(without=without, history=history)
    model = make(schema, usr=usr)
    check_whole(model, schema)
    check_serving(model, random_rows(schema, ROWS)[0])


@pytest.mark.parametrize("usr", [{}, OFF])
def test_the_least_schema(usr):
    schema = parse_schema(LEAST)
    model = make(schema, usr=usr)
    check_whole(model, schema)
    check_serving(model, random_rows(schema, ROWS)[0])


def test_heads_that_do_not_divide_an_actions_width_are_refused():
    with pytest.raises(InputError, match=r"usr\.heads: found 2, expected a divisor of 7, the width of an action"):
        make(usr={"heads": 2})


def test_a_query_of_numbers_alone_is_read_as_it_is():
    document = schema_of(without=("query",)).model_dump(mode="json", exclude_unset=True)
    document["features"]["length"] = {"group": "query", "type": "numeric"}
    schema = Schema.model_validate(document)
    check_whole(make(schema), schema)


# What the numbers mean


def test_chain_of_probabilities():
    model = make(schema_of(tasks=3))
    p = model(random_rows(model.schema, 50)[0])
    for task in model.schema.task_names:
        assert np.all(p[task] <= p[f"global_{task}"])
    for one, later in (("t0", "t1"), ("t1", "t2")):
        assert np.all(p[f"global_{later}"] <= p[f"global_{one}"])


def test_chain_without_global_labels():
    model = make(schema_of(tasks=3), usr={"glmt": False})
    p = model(random_rows(model.schema, 50)[0])
    assert np.all(p["t1"] <= p["t0"])
    assert np.all(p["t2"] <= p["t1"])


def test_loss_is_the_sum_of_its_terms():
    weights = {"ie_weight": 0.3, "fg_weight": 0.7}
    model = make(usr={"global_weight": 0.4, "contrastive_loss": weights})
    features, labels = random_rows(model.schema, ROWS)
    model.reset_metrics()
    loss = model.compute_loss((features, labels), training=True)
    terms = {metric.name: float(metric.result()) for metric in model.metrics}
    probabilities = model(features)
    for name, p in probabilities.items():
        y, p = labels[name].numpy().astype(float), p.numpy().astype(float)
        by_hand = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
        np.testing.assert_allclose(terms[f"{name}_loss"], by_hand, rtol=1e-4)
    assert terms["nll"] == pytest.approx(terms["ctr_loss"] + terms["ctcvr_loss"], rel=1e-5)
    assert terms["interest_contrastive"] > 0
    assert terms["features_contrastive"] > 0
    expected = (
        terms["nll"]
        + 0.4 * (terms["global_ctr_loss"] + terms["global_ctcvr_loss"])
        + 0.3 * terms["interest_contrastive"]
        + 0.7 * terms["features_contrastive"]
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)


def test_loss_outside_training_has_no_contrastive_terms():
    model, plain = make(), make(usr={"contrastive": False})
    weights = [variable for variable in model.trainable_variables if "contrastive" not in variable.name]
    assert len(weights) == len(model.trainable_variables) - 2  # a projection for each loss
    for variable, weight in zip(plain.trainable_variables, weights, strict=True):
        variable.assign(weight)
    rows = random_rows(model.schema, ROWS)
    assert float(model.compute_loss(rows)) == pytest.approx(float(plain.compute_loss(rows)), rel=1e-6)
    assert float(model.compute_loss(rows)) == float(model.compute_loss(rows))  # nothing is dropped


def test_a_contrastive_loss_of_weight_zero_is_not_made():
    model = make(usr={"contrastive_loss": {"ie_weight": 0.0}})
    names = {metric.name for metric in model.metrics}
    assert "features_contrastive" in names
    assert "interest_contrastive" not in names


def test_l2_is_a_penalty_on_the_kernels_of_backbone_and_heads():
    model = make(train={"l2": 0.5})
    penalised = model.backbone.trainable_variables + model.heads.trainable_variables
    kernels = [variable for variable in penalised if "kernel" in variable.name]
    squares = 0.5 * sum(float(tf.reduce_sum(kernel**2)) for kernel in kernels)
    assert float(tf.add_n(model.losses)) == pytest.approx(squares, rel=1e-5)
    assert not make().losses


# Rows are alone


def test_permuting_a_batch_permutes_the_outputs():
    model = make(backbone="mmoe")
    features, _ = random_rows(model.schema, ROWS)
    order = np.random.default_rng(0).permutation(ROWS)
    straight, permuted = model(features), model({name: tf.gather(v, order) for name, v in features.items()})
    for name in straight:
        np.testing.assert_allclose(permuted[name], straight[name].numpy()[order], rtol=1e-5)


def test_a_batch_of_one_gives_what_the_row_gets_in_company():
    model = make()
    features, _ = random_rows(model.schema, ROWS)
    together = model(features)
    for row in range(3):
        alone = model({name: value[row : row + 1] for name, value in features.items()})
        for name in together:
            np.testing.assert_allclose(alone[name], together[name][row : row + 1], rtol=1e-5)


@pytest.mark.parametrize("variant", ["augmented", "same_view"])
@pytest.mark.parametrize("rows", [1, 2])
def test_training_on_a_batch_of_a_row_or_two(variant, rows):
    model = make(usr={"contrastive_loss": {"variant": variant}})
    loss, gradients = loss_and_gradients(model, random_rows(model.schema, rows))
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(tf.convert_to_tensor(gradient))) for gradient in gradients.values())


def test_a_batch_without_one_of_the_scenarios():
    model = make()
    features, labels = random_rows(model.schema, ROWS)
    features["scenario"] = tf.ones([ROWS], tf.int32)
    model.reset_metrics()
    loss, gradients = loss_and_gradients(model, (features, labels))
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(tf.convert_to_tensor(gradient))) for gradient in gradients.values())
    figures = {metric.name: float(metric.result()) for metric in model.metrics}
    assert np.isnan(figures["search/ctr_auc"])  # undefined, neither 0 nor 0.5
    assert 0 <= figures["recommendation/ctr_auc"] <= 1


@pytest.mark.parametrize("length", [0, 3])
@pytest.mark.parametrize("usr", [{}, OFF], ids=["usr", "plain"])
def test_empty_histories_give_finite_gradients(usr, length):
    model = make(usr=usr)
    features, labels = random_rows(model.schema, ROWS, length=length)
    features |= {name: tf.zeros_like(features[name]) for name in model.schema.history_columns}
    loss, gradients = loss_and_gradients(model, (features, labels))
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(tf.convert_to_tensor(gradient))) for gradient in gradients.values())


def test_padding_of_the_history_changes_nothing():
    model = make()
    features, _ = random_rows(model.schema, ROWS)
    padded = dict(features)
    for name in model.schema.history_columns:
        before = [[0, 0], [2, 3]] + [[0, 0]] * (len(features[name].shape) - 2)
        padded[name] = tf.pad(features[name], before)
    for name, values in model(padded).items():
        np.testing.assert_allclose(values, model(features)[name], rtol=1e-5)


def test_a_row_without_a_query_reads_the_learned_vector():
    model = make()
    features, _ = random_rows(model.schema, ROWS)
    asked = np.any(features["query"].numpy(), axis=1)
    assert 0 < asked.sum() < ROWS
    before = model(features)["ctr"].numpy()
    variable = next(v for v in model.trainable_variables if "no_query" in v.name)
    variable.assign_add(tf.ones_like(variable))
    changed = model(features)["ctr"].numpy() != before
    np.testing.assert_array_equal(changed, ~asked)


# Serving


def check_serving(model: USRModel, features) -> None:
    """`serve` in both forms gives what `call` gives, for the candidates of one request in each scenario."""
    schema = model.schema
    items = set(schema.features_of("item"))
    for number in range(len(schema.scenarios)):
        for row in (0, 1):  # without history, with a full one
            request = {name: value[row : row + 1] for name, value in features.items() if name not in items}
            request.pop("scenario")
            one = {**request, **{name: features[name] for name in items}}
            rows = {name: value if name in items else tf.repeat(value, ROWS, axis=0) for name, value in one.items()}
            expected = model({**rows, "scenario": tf.fill([ROWS], number)})
            for served in (model.serve(one, number, one_request=True), model.serve(rows, number, one_request=False)):
                assert tuple(served) == schema.task_names
                for task, values in served.items():
                    assert values.shape == [ROWS]
                    np.testing.assert_allclose(values, expected[task], rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [0, 6])
def test_serving_of_any_length_of_history(length):
    model = make()
    features, _ = random_rows(model.schema, ROWS, length=length)
    check_serving(model, features)


@pytest.mark.parametrize("backbone", ["shared_bottom", "mmoe"])
def test_serving_reads_its_own_scenarios_weights_alone(backbone):
    model = make(backbone=backbone)
    features, _ = random_rows(model.schema, ROWS)
    before = [model.serve(features, number, one_request=False) for number in (0, 1)]
    of_scenarios = [
        variable
        for variable in model.trainable_variables
        if "scenario" in variable.name and variable.shape[0] == 2 and "history" not in variable.name
    ]
    assert len(of_scenarios) >= 3  # the embedding, the towers and the heads
    for variable in of_scenarios:
        variable[1].assign(tf.fill(variable[1].shape, float("nan")))
    after = [model.serve(features, number, one_request=False) for number in (0, 1)]
    for task in model.schema.task_names:
        np.testing.assert_array_equal(after[0][task], before[0][task])
        assert np.all(np.isnan(after[1][task]))


# Training


def test_sparse_gradients_reach_the_tables():
    model = make()
    tables = {variable.ref() for variable in model.table_variables}
    assert tables | {variable.ref() for variable in model.dense_variables} == {
        variable.ref() for variable in model.trainable_variables
    }
    assert len(tables) == 2 + 3  # one for each width, and the history's action, scenario and age
    with tf.GradientTape() as tape:
        loss = model.compute_loss(random_rows(model.schema, ROWS), training=True)
    for table, gradient in zip(model.table_variables, tape.gradient(loss, model.table_variables), strict=True):
        few_rows = table.name.startswith("table_history_")  # the combinations of descriptions are added up first
        assert isinstance(gradient, tf.Tensor if few_rows else tf.IndexedSlices), table.name


def test_fit_from_python_shows_a_metric_for_each_scenario_and_task():
    model = make(schema_of(tasks=1, without=("user", "context", "query")), usr={**OFF, "glmt": True})
    model.compile(optimizer=keras.optimizers.legacy.Adam(0.01))
    rows = tf.data.Dataset.from_tensors(random_rows(model.schema, 64)).repeat(3)
    history = model.fit(rows, validation_data=rows, epochs=2, verbose=0).history
    own = {"loss", "nll", "t0_loss", "global_t0_loss", "s0/t0_auc", "s1/t0_auc"}
    assert set(history) == own | {f"val_{name}" for name in own}
    assert history["loss"][1] < history["loss"][0]
    assert history["nll"] == pytest.approx(history["t0_loss"])


def test_variables_are_whole_before_the_first_batch():
    model = make()
    names = [variable.name for variable in model.variables]
    check_whole(model, model.schema)
    model(random_rows(model.schema, 2)[0])
    assert [variable.name for variable in model.variables] == names
    assert all(metric.count == 0 for metric in make().metrics if isinstance(metric, keras.metrics.Mean))


def test_two_replicas_train_as_one(tmp_path):
    """Logical devices have to be made before TensorFlow starts, hence the process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.usr_tf.two_replicas"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "ok"
