import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from serving.formats.contract import schema_specs
from serving.formats.logged_requests import read_requests
from serving.formats.request import request_inputs
from serving.formats.signatures import read_signatures, signature_specs
from tests.usr_tf.fixtures import random_rows, small_config
from tests.usr_tf.test_model import OFF, make
from usr_tf.backbones import BACKBONES
from usr_tf.cli import main
from usr_tf.data import vocabulary_sizes
from usr_tf.errors import InputError
from usr_tf.evaluation.explain import Explainer, Explanation, difference
from usr_tf.evaluation.explain.integrated_gradients import Paths
from usr_tf.evaluation.explain.raw_values import unknown_of
from usr_tf.model import Inputs, USRModel
from usr_tf.schema import Schema


def logged(run, schema: Schema | None = None, scenario: str = "search") -> list[dict[str, np.ndarray]]:
    """Logged requests as a signature takes them, without what another schema lacks."""
    specs = schema_specs(schema or run.schema)
    documents = [request.inputs for request in read_requests(run.requests / f"{scenario}.jsonl")]
    return [request_inputs({name: each[name] for name in specs}, specs) for each in documents]


def without_history(request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value[:, :0] if name.startswith("history_") else value for name, value in request.items()}


def longest(requests: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return max(requests, key=lambda request: request["history_age"].shape[1])


def check_sums(explanation: Explanation, least: float = 0.1) -> None:
    """What moved the scores adds up to their differences: to 0.1 % of them, or of `least` where they are smaller."""
    for name, task in explanation.tasks.items():
        assert abs(task.residual) <= 1e-3 * max(abs(task.difference), least), (name, task.residual, task.difference)


@pytest.fixture(scope="module")
def explainer(toy_run) -> Explainer:
    return Explainer(toy_run.load_model(), toy_run.transform)


@pytest.fixture(scope="module")
def explained(toy_run, explainer):
    """The two best candidates of a request."""
    requests = logged(toy_run)
    request = longest(requests)
    rows = explainer.choose("search", request, "ctr", top=2)
    return request, rows, explainer.explain("search", request, rows, requests[:3])


# Paths


def test_a_product_is_shared_out_and_a_stopped_gradient_passes():
    def function(parts, given):
        x = parts["x"]
        return tf.stack([x[:, 0] * x[:, 1] * given["y"], tf.stop_gradient(x[:, 0]) * x[:, 0]], axis=1)

    paths = Paths(function, {"x": np.eye(2, dtype=np.float32)})
    ends = {"x": tf.constant([[0.0, 0.0], [2.0, 1.0]])}, {"x": tf.constant([[2.0, 3.0]])}
    difference = np.array([(24 + 16) / 2, (4 + 0) / 2])  # of x_0 x_1 y, and of x_0 x_0, at the end less at the starts
    integral = paths.integrate(*ends, {"y": tf.constant([4.0])}, difference, 4, np.full(2, 1e-5))
    # From (0, 0) both share 24 alike; from (2, 1) only the second moves, by 2 · (3 - 1) · 4 = 16.
    np.testing.assert_allclose(integral.moved, [[6, 14], [2, 0]], atol=1e-5)
    assert integral.steps == 4


def test_a_bend_takes_more_steps():
    paths = Paths(lambda parts, _: tf.nn.relu(parts["x"] - 0.3), {"x": np.ones((1, 1), np.float32)})
    ends = {"x": tf.zeros([1, 1])}, {"x": tf.ones([1, 1])}
    integral = paths.integrate(*ends, {}, np.array([0.7]), 8, np.array([0.01]))
    assert integral.steps == 64  # 22 of 32 points lie beyond the bend, and 45 of 64
    np.testing.assert_allclose(integral.moved, [[0.7]], atol=0.01)


# Explanations


def test_explained_scores_are_the_served_ones(toy_run, toy_version, explainer, explained):
    request, rows, explanations = explained
    signature = tf.saved_model.load(str(toy_version)).signatures["search"]
    served = signature(**{name: tf.constant(value) for name, value in request.items()})
    for row, explanation in zip(rows, explanations, strict=True):
        for name, task in explanation.tasks.items():
            assert task.probability == pytest.approx(float(served[name][row]), abs=1e-5)
            assert explainer.score("search", request)[name][row] == pytest.approx(task.probability, abs=1e-5)
    assert [explanation.item for explanation in explanations] == [request["item_id"][row].decode() for row in rows]


def test_what_moved_a_score_adds_up_to_its_difference(explained):
    one, other = explained[2]
    check_sums(one)
    check_sums(other)
    for name, apart in difference(one, other).items():
        total = sum(apart.features.values()) + sum(apart.history)
        assert apart.log_odds == pytest.approx(one.tasks[name].log_odds - other.tasks[name].log_odds)
        assert total == pytest.approx(apart.log_odds, abs=5e-3)


def test_the_baseline_is_the_mean_of_logged_candidates_without_a_history(toy_run, explainer, explained):
    explanations = explained[2]
    scores = [explainer.score("search", without_history(each)) for each in logged(toy_run)[:3]]
    for name, task in explanations[0].tasks.items():
        p = np.concatenate([each[name] for each in scores])  # 15 candidates, fewer than are taken
        assert task.baseline_log_odds == pytest.approx(np.mean(np.log(p / (1 - p))), abs=1e-5)


def test_every_action_is_told_and_attention_sums_to_one(explained):
    request, _, (explanation, _) = explained
    assert len(explanation.history) == request["history_age"].shape[1] == 4
    for name in ("item", "action", "scenario"):
        column = f"history_{name}" if name != "item" else "history_item_id"
        assert [getattr(action, name) for action in explanation.history] == [
            value.decode() for value in request[column][0]
        ]
    assert [action.age_ms for action in explanation.history] == request["history_age"][0].tolist()  # newest last
    assert sum(action.attention for action in explanation.history) == pytest.approx(1, abs=1e-5)
    assert any(explanation.tasks["ctr"].history)


def test_of_a_history_that_is_too_long_the_newest_actions_are_told(explainer, explained):
    request = explained[0]
    older = {name: value[:, ::-1] for name, value in request.items() if name.startswith("history_")}
    longer = request | {name: np.concatenate([value, request[name]], axis=1) for name, value in older.items()}
    (explanation,) = explainer.explain("search", longer, [0], steps=2)
    assert [action.age_ms for action in explanation.history] == request["history_age"][0].tolist()


def test_features_have_their_raw_values(explained):
    request, rows, (explanation, _) = explained
    assert list(explanation.values) == list(explanation.tasks["ctr"].features)
    assert explanation.values["user_id"] == request["user_id"][0].decode()
    assert explanation.values["query"] == request["query"][0].decode()
    assert explanation.values["tags"] == " ".join(filter(None, (tag.decode() for tag in request["tags"][rows[0]])))
    assert explanation.values["price"] in {f"{request['price'][rows[0]]:g}", ""}


def test_values_that_the_vocabulary_lacks_are_told(explainer, explained):
    request, (row, _), (known, _) = explained
    other = {name: request[name].copy() for name in ("item_id", "history_item_id", "device")}
    other["item_id"][row] = other["history_item_id"][0, -1] = "i☃".encode()
    other["device"][0] = b"fridge"  # a hash like any other
    (unknown,) = explainer.explain("search", request | other, [row], steps=2)
    assert known.unknown == {}
    assert [action.unknown for action in known.history] == [()] * 4
    assert unknown.unknown == {"item_id": ("i☃",)}
    assert [action.unknown for action in unknown.history] == [(), (), (), ("i☃",)]


def test_of_a_text_and_a_list_the_words_that_no_vocabulary_has_are_told():
    schema = Schema.model_validate(
        {
            "scenarios": ["search"],
            "tasks": [{"name": "ctr", "action": "click"}],
            "features": {
                "item_id": {"group": "item", "type": "categorical"},
                "tags": {"group": "item", "type": "categorical_list", "max_length": 2},
                "query": {"group": "query", "type": "text", "oov_buckets": 3},
                "filter": {"group": "query", "type": "text", "shares": "query"},
            },
        }
    )
    tags = np.array([b"red", b"", b"blue", b"cut off"], object)
    assert unknown_of(tags, np.array([1, 5]), "tags", schema) == ("red",)
    for name in ("query", "filter"):
        assert unknown_of(b" Green  TEA cup", np.array([4, 3, 1, 0]), name, schema) == ("tea", "cup")
    assert unknown_of(b"", np.array([0]), "query", schema) == ()
    assert unknown_of(b"", np.array(0), "item_id", schema) == ()


def test_scores_that_are_no_numbers_are_refused(explainer, explained, monkeypatch):
    monkeypatch.setattr(explainer, "_log_odds", lambda parts, *_: tf.fill([len(parts["candidate"]), 2], np.nan))
    with pytest.raises(InputError, match="scores in search: found NaN or infinity"):
        explainer.explain("search", explained[0], [0], steps=2)


def test_gates_move_what_the_score_loses_without_them(toy_run, explainer, explained):
    _, _, (explanation, _) = explained
    assert set(explanation.gates) == set(toy_run.schema.features) - {"query"}
    assert all(0 < gate < 2 for gate in explanation.gates.values())
    assert set(explanation.tasks["ctr"].gates) == set(explanation.gates)


def test_without_a_history_a_query_and_logs(toy_run, explainer):
    request = without_history(logged(toy_run)[0]) | {"query": np.array([b""])}
    (explanation,) = explainer.explain("search", request, [0])
    assert explanation.history == explanation.tasks["ctr"].history == ()
    assert explanation.baseline == "the request's 5 candidates, without history"
    check_sums(explanation)
    for task in explanation.tasks.values():  # what all candidates share moves none of them
        assert task.features["user_id"] == task.features["query"] == task.features["device"] == 0
    assert explanation.values["query"] == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("home", "ctr", None), "scenario: found 'home', expected one of search, recommendation"),
        (("search", "cvr", None), "task: found 'cvr', expected one of ctr, ctcvr"),
        (("search", "ctr", "i99"), "item: found 'i99', expected one of i"),
    ],
)
def test_unknown_names_are_refused(explainer, explained, arguments, line):
    scenario, task, item = arguments
    with pytest.raises(InputError) as error:
        explainer.choose(scenario, explained[0], task, item)
    assert str(error.value).startswith(line)


def explain_random(run, schema: Schema | None = None, **keys) -> None:
    """Explains a candidate by a model whose weights are random, gates and biases too."""
    schema = schema or run.schema
    keras.utils.set_random_seed(1)
    model = USRModel(schema, vocabulary_sizes(schema, run.transform), small_config(**keys))
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, 0.3, variable.shape))
    requests = logged(run, schema)
    request = longest(requests) if schema.history_columns else requests[0]
    explainer = Explainer(model, run.transform)
    (explanation,) = explainer.explain("search", request, [1], requests[:2])
    check_sums(explanation, least=1)  # such weights bend the paths more than trained ones
    for name, scores in explainer.score("search", request).items():
        assert explanation.tasks[name].probability == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("usr", [{}, OFF], ids=["usr", "alone"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone(toy_run, backbone, usr):
    explain_random(toy_run, backbone=backbone, usr=usr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"backbone": "pepnet", "usr": {"fg_condition": "trigger_and_features"}},  # gates whose gradient is stopped
        {"usr": {"ie": False}, "history": {"pooling": "din"}},
        {"usr": {"ie": False}, "history": {"pooling": "mean", "product": True}},
        {"usr": {"fg": False}},
        {"usr": {"glmt": False}},
        {"usr": {"heads": 7}, "history": {"describe": ["position"]}},
        {"history": {"sequences": "by_scenario"}},
    ],
    ids=str,
)
def test_every_part(toy_run, keys):
    explain_random(toy_run, **keys)


@pytest.mark.slow
@pytest.mark.parametrize("usr", [{}, OFF], ids=["usr", "alone"])
@pytest.mark.parametrize(
    "without", [("user", "context"), ("query",), ("history",), ("user", "context", "query", "history")]
)
def test_schemas_that_lack_a_side(toy_run, without, usr):
    document = toy_run.schema.model_dump(mode="json", exclude_unset=True)
    document["features"] = {
        name: feature for name, feature in document["features"].items() if feature["group"] not in without
    }
    if "history" in without:
        del document["history"]
    explain_random(toy_run, Schema.model_validate(document), usr=usr)


# What the explanations read of the model


def test_gates_and_attention_are_those_that_the_model_uses():
    model = make(usr={"heads": 7})
    features, _ = random_rows(model.schema, 6)
    inputs = model.look_up(features)
    views = model.view(inputs, 0)
    for gate, part, view in zip(model.gates(inputs, 0), (inputs.request, inputs.candidate), views, strict=False):
        np.testing.assert_allclose(gate * part, view[:, 0], rtol=1e-5, atol=1e-6)
    attention = model.attention(inputs, 0).numpy()
    assert attention.shape == (6, 7, 3)
    real = inputs.mask.numpy().any(axis=1)
    np.testing.assert_allclose(attention.sum(axis=2), np.repeat(real[:, None], 7, axis=1), atol=1e-5)
    scores = model.serve(features, 0, one_request=False)
    np.testing.assert_allclose(np.exp(model.rank(inputs, views, 0))[:, 0], scores["ctr"], rtol=1e-5)


def test_columns_name_the_feature_that_changes_them():
    model = make()
    features, _ = random_rows(model.schema, 5)
    before, columns = model.look_up(features), model.columns()
    for part, names in columns.items():
        assert len(names) == getattr(before, part).shape[1]
        for name in set(names):
            value = features[name]
            other = value + 1 if value.dtype.is_floating else tf.where(value == 1, 2, tf.ones_like(value))
            changed = np.any(getattr(model.look_up({**features, name: other}), part) != getattr(before, part), axis=0)
            assert {names[column] for column in np.flatnonzero(changed)} == {name}


def test_inputs_have_the_item_first_in_the_candidate():
    model = make()
    inputs: Inputs = model.look_up(random_rows(model.schema, 5)[0])
    np.testing.assert_array_equal(inputs.candidate[:, : inputs.item.shape[1]], inputs.item)


# The command


def test_a_request_is_refused_as_the_exported_model_would(toy_run, toy_version, tmp_path, capsys):
    assert schema_specs(toy_run.schema) == signature_specs(read_signatures(toy_version))["search"]
    document = read_requests(toy_run.requests / "search.jsonl")[0].document
    del document["inputs"]["query"]
    (tmp_path / "request.json").write_text(json.dumps(document), encoding="utf-8")
    assert main(["explain", f"--run={toy_run.directory}", f"--request={tmp_path}/request.json"]) == 2
    assert "request.json: inputs.query: found nothing, expected a string" in capsys.readouterr().err


def test_the_command_prints_tables_and_writes_page_and_json(toy_run, explainer, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("usr_tf.run.Run.load_model", lambda run: None)
    monkeypatch.setattr(
        "usr_tf.evaluation.explain.Explainer", lambda model, transform, counters: explainer
    )  # which is traced already
    document = read_requests(toy_run.requests / "search.jsonl")[0].document
    (tmp_path / "request.json").write_text(json.dumps(document), encoding="utf-8")
    one, other = document["inputs"]["item_id"][:2]
    given = [f"--run={toy_run.directory}", f"--request={tmp_path}/request.json", f"--against={other}"]
    assert main(["explain", *given, f"--item={one}", "--steps=8", f"--out={tmp_path}/out"]) == 0
    out = capsys.readouterr().out
    assert f"{one}: ctr 0." in out
    assert f" {other}: ctr 0." in out
    assert "left over" in out
    written = json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert [each["item"] for each in written["explanations"]] == [one]
    assert written["against"]["item"] == other
    assert set(written["differences"][0]) == {"ctr", "ctcvr"}
    page = (tmp_path / "out" / "explanation.html").read_text(encoding="utf-8")
    assert f"<h1>Why {one}, and not {other}</h1>" in page
    assert page.count("<svg") == 6
    assert f"--against={other}" in page

    assert main(["explain", *given, f"--item={other}"]) == 2
    assert capsys.readouterr().err == f"usr-tf explain: --against: found '{other}' itself, expected another candidate\n"
    assert main(["explain", *given, f"--item={one}", "--top=1"]) == 2
    assert capsys.readouterr().err == "usr-tf explain: --item, --top: found both, expected one of these flags\n"
