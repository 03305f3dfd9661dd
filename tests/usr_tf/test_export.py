import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import usr_tf.export as export_module
from serving.formats.contract import schema_specs
from serving.formats.request import request_inputs
from serving.publishing.warmup import to_examples
from tests.serving.warmup_records import read_warmup_records
from tests.usr_tf.fixtures import small_config, toy_schema
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.export import ServingModule, export
from usr_tf.layers.folding import folding
from usr_tf.request_spec import request_spec
from usr_tf.run import Run, open_run
from usr_tf.train import train

SCENARIOS = ("search", "recommendation")
ITEM_SIDE = {"item_id", "tags", "title", "price"}


@pytest.fixture(scope="module")
def served(toy_version):
    """The SavedModel's signatures, as TensorFlow 2 loads them."""
    loaded = tf.saved_model.load(str(toy_version))
    return {name: (loaded, signature) for name, signature in loaded.signatures.items()}


def ask(served, name: str, inputs: dict) -> dict[str, np.ndarray]:
    tensors = {key: tf.constant(value) for key, value in inputs.items()}
    return {key: value.numpy() for key, value in served[name][1](**tensors).items()}


def request(**changes) -> dict[str, np.ndarray]:
    """Three items for a user with two actions, newest last."""
    inputs = {
        "user_id": ["u01"],
        "interests": [["tea", ""]],
        "spend": np.array([0.5], np.float32),
        "item_id": ["i00", "i03", "i08"],
        "tags": [["tea", "tag1"], ["tea", ""], ["", ""]],
        "title": ["Tea 0", "Tea 3", ""],
        "price": np.array([1.0, 3.0, 8.0], np.float32),
        "query": ["tea fresh"],
        "device": ["phone"],
        "history_item_id": [["i02", "i07"]],
        "history_tags": [[["soap", "tag2"], ["cake", ""]]],
        "history_action": [["click", "purchase"]],
        "history_scenario": [["search", "recommendation"]],
        "history_age": np.array([[7_200_000, 60_000]], np.int64),
    }
    return inputs | changes


def same(one: dict, other: dict, atol: float = 1e-6) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_allclose(other[name], values, rtol=0, atol=atol)


def differ(one: dict, other: dict) -> None:
    assert max(np.abs(one[name] - other[name]).max() for name in one) > 1e-5


def logged(run: Run, scenario: str) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
    specs = schema_specs(run.schema)
    for line in (run.requests / f"{scenario}.jsonl").read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        yield document, request_inputs(document["inputs"], specs)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# The contract


def test_signatures_have_the_names_inputs_and_outputs_of_the_contract(toy_version):
    meta = saved_model_pb2.SavedModel.FromString((toy_version / "saved_model.pb").read_bytes()).meta_graphs[0]
    signatures = {name: signature for name, signature in meta.signature_def.items() if signature.inputs}
    assert set(signatures) == {
        "search",
        "recommendation",
        "search_examples",
        "recommendation_examples",
        "serving_default",
    }
    expected = dict.fromkeys(("user_id", "query", "device"), ("string", (1,)))
    expected |= dict.fromkeys(("item_id", "title"), ("string", (-1,)))
    expected |= {"interests": ("string", (1, -1)), "tags": ("string", (-1, -1))}
    expected |= {"spend": ("float32", (1,)), "price": ("float32", (-1,))}
    expected |= {f"history_{name}": ("string", (1, -1)) for name in ("item_id", "action", "scenario")}
    expected |= {"history_tags": ("string", (1, -1, -1)), "history_age": ("int64", (1, -1))}
    for name, signature in signatures.items():
        assert signature.method_name == "tensorflow/serving/predict"
        inputs = {key: described(info) for key, info in signature.inputs.items()}
        assert inputs == (expected if name in SCENARIOS else {"examples": ("string", (-1,))})
        outputs = {key: described(info) for key, info in signature.outputs.items()}
        assert outputs == {"ctr": ("float32", (-1,)), "ctcvr": ("float32", (-1,))}


def described(info) -> tuple[str, tuple[int, ...]]:
    return tf.as_dtype(info.dtype).name, tuple(dim.size for dim in info.tensor_shape.dim)


def test_loads_in_a_session_as_tensorflow_serving_does(toy_version, served):
    expected = ask(served, "search", request())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(toy_version))
        signature = meta.signature_def["search"]
        feed = {info.name: request()[name] for name, info in signature.inputs.items()}
        outputs = session.run({name: info.name for name, info in signature.outputs.items()}, feed)
    same(outputs, expected)
    for values in outputs.values():
        assert values.dtype == np.float32
        assert values.shape == (3,)


CORE_ONLY = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry
with open(sys.argv[1] + "/saved_model.pb", "rb") as file:
    graph = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs[0].graph_def
functions = {function.signature.name for function in graph.library.function}
nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
unknown = {node.op for node in nodes} - functions
unknown = {op for op in unknown if op_def_registry.get(op) is None}
assert not unknown, unknown
assert {node.op for node in nodes} & {"LookupTableFindV2"}  # the vocabulary is in there
loaded = tf.saved_model.load(sys.argv[1])
outputs = loaded.signatures["serving_default"](examples=tf.constant([tf.train.Example().SerializeToString()] * 2))
assert sorted(outputs) == ["ctcvr", "ctr"] and outputs["ctr"].shape == [2]
extra = {name.split(".")[0] for name in sys.modules} & {
    "tensorflow_text", "tfx_bsl", "struct2tensor", "tensorflow_transform", "tensorflow_recommenders", "usr_tf"
}
assert not extra, extra
print("ok")
"""


def test_needs_core_tensorflow_alone(toy_version, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CORE_ONLY, str(toy_version)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "ok\n", done.stderr[-3000:]


def test_warm_up_records_replay_for_every_signature(toy_version, served):
    records = read_warmup_records(toy_version)
    assert {name for name, _ in records} == set(served)
    for name in dict(records):
        inputs = next(inputs for signature, inputs in records if signature == name)
        for values in ask(served, name, inputs).values():
            assert np.all((values > 0) & (values < 1))


# The same scores everywhere


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_request_examples_and_offline_scores_are_the_same(scenario, toy_run, toy_data, served):
    offline = predict(toy_run.load_model(), toy_data, "test")
    place = {key: row for row, key in enumerate(zip(offline.request, offline.item, strict=True))}
    checked = 0
    for document, inputs in logged(toy_run, scenario):
        by_request = ask(served, scenario, inputs)
        by_examples = ask(served, f"{scenario}_examples", {"examples": to_examples(inputs)})
        rows = [place[document["request_id"].encode(), item] for item in inputs["item_id"]]
        expected = {task: offline.probabilities[task][rows] for task in ("ctr", "ctcvr")}
        same(by_request, expected, atol=1e-5)
        same(by_examples, expected, atol=1e-5)
        checked += len(rows)
    assert checked == np.count_nonzero(offline.scenario == SCENARIOS.index(scenario))  # of 90 requests, all are sampled


def test_a_whole_history_is_cut_as_the_pipeline_cut_it(toy_run, toy_data, served):
    """Requests with all of a user's earlier actions, as the raw logs have them, get the offline scores of their rows,
    which hold the newest four.
    """
    logs = toy_data.directory.parent / "logs"
    items = {row["item_id"]: row for row in read_lines(logs / "items.jsonl")}
    moments = {row["request_id"]: row for row in read_lines(logs / "impressions.jsonl")}
    order = ("timestamp", "action", "item_id", "scenario")  # the pipeline's, ties included
    actions = sorted(read_lines(logs / "actions.jsonl"), key=lambda row: [row[name] for name in order])
    offline = predict(toy_run.load_model(), toy_data, "test")
    place = {key: row for row, key in enumerate(zip(offline.request, offline.item, strict=True))}
    specs = schema_specs(toy_run.schema)
    longest = 0
    for document, inputs in list(logged(toy_run, "search"))[:10]:
        moment = moments[document["request_id"]]
        past = [
            row for row in actions if row["user_id"] == moment["user_id"] and row["timestamp"] < moment["timestamp"]
        ]
        whole = {
            "history_item_id": [row["item_id"] for row in past],
            "history_tags": [items[row["item_id"]]["tags"] for row in past],
            "history_action": [row["action"] for row in past],
            "history_scenario": [row["scenario"] for row in past],
            "history_age": [moment["timestamp"] - row["timestamp"] for row in past],
        }
        inputs = request_inputs(document["inputs"] | whole, specs)
        rows = [place[document["request_id"].encode(), item] for item in inputs["item_id"]]
        expected = {task: offline.probabilities[task][rows] for task in ("ctr", "ctcvr")}
        same(ask(served, "search", inputs), expected, atol=1e-5)
        longest = max(longest, len(past))
    assert longest > 2 * toy_run.schema.history.max_length


OPTIONS = {
    "din and a position tower": {
        "usr": {"ie": False},
        "history": {"pooling": "din"},
        "position_tower": {"enabled": True},
    },
    "heads and places": {"usr": {"heads": 7}, "history": {"describe": ["action", "scenario", "age", "position"]}},
    "two sequences": {"history": {"sequences": "by_scenario"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_served_scores_are_the_offline_ones_with_options(name, toy_data, tmp_path):
    train(toy_data, tmp_path / "run", small_config(train={"epochs": 1}, **OPTIONS[name]), verbose=0)
    run = open_run(tmp_path / "run")
    loaded = tf.saved_model.load(str(export(run, tmp_path / "serving")))
    served = {name: (loaded, signature) for name, signature in loaded.signatures.items()}
    offline = predict(run.load_model(), toy_data, "test")
    place = {key: row for row, key in enumerate(zip(offline.request, offline.item, strict=True))}
    for scenario in SCENARIOS:
        assert "position" not in served[scenario][1].structured_input_signature[1]
        for document, inputs in list(logged(run, scenario))[:10]:
            rows = [place[document["request_id"].encode(), item] for item in inputs["item_id"]]
            expected = {task: offline.probabilities[task][rows] for task in ("ctr", "ctcvr")}
            same(ask(served, scenario, inputs), expected, atol=1e-5)
            same(ask(served, f"{scenario}_examples", {"examples": to_examples(inputs)}), expected, atol=1e-5)


def test_serving_default_is_the_first_scenarios_examples(served, toy_run):
    _, inputs = next(logged(toy_run, "search"))
    examples = {"examples": to_examples(inputs)}
    same(ask(served, "serving_default", examples), ask(served, "search_examples", examples), atol=0)
    differ(ask(served, "serving_default", examples), ask(served, "recommendation_examples", examples))


# Requests of every shape


def test_items_are_scored_one_by_one(served):
    whole = ask(served, "search", request())
    for row in range(3):
        alone = request(**{name: request()[name][row : row + 1] for name in ITEM_SIDE})
        same(ask(served, "search", alone), {name: values[row : row + 1] for name, values in whole.items()})


@pytest.mark.parametrize("name", [*SCENARIOS, "search_examples"])
def test_no_item_gives_no_score(served, name):
    empty = request(item_id=tf.zeros([0], tf.string), title=tf.zeros([0], tf.string), price=np.zeros(0, np.float32))
    empty["tags"] = tf.zeros([0, 0], tf.string)
    inputs = {"examples": tf.zeros([0], tf.string)} if name.endswith("examples") else empty
    assert {task: values.shape for task, values in ask(served, name, inputs).items()} == {"ctr": (0,), "ctcvr": (0,)}


def history(*actions: int) -> dict:
    """Histories of items of these numbers, newest last."""
    count = len(actions)
    return {
        "history_item_id": tf.reshape(tf.constant([f"i{a:02}" for a in actions], tf.string), [1, count]),
        "history_tags": tf.reshape(tf.constant([f"tag{a % 5}" for a in actions], tf.string), [1, count, 1]),
        "history_action": tf.fill([1, count], "click"),
        "history_scenario": tf.fill([1, count], "search"),
        "history_age": tf.reshape(tf.constant([60_000 * (99 - a) for a in actions], tf.int64), [1, count]),
    }


def test_a_history_may_be_empty(served):
    empty = ask(served, "search", request(**history()))
    assert np.all(np.isfinite(empty["ctr"]))
    differ(empty, ask(served, "search", request(**history(2))))
    wide = request(**history()) | {"history_tags": tf.zeros([1, 0, 3], tf.string)}
    same(ask(served, "search", wide), empty, atol=0)


@pytest.mark.parametrize("longer", ["history_item_id", "history_action", "history_age"])
def test_histories_of_different_length_are_refused(served, longer):
    """Each is cut to its newest actions, which would pair the rest with other actions than their own."""
    two, six = request(**history(2, 7)), request(**history(1, 2, 3, 4, 5, 6))
    with pytest.raises(tf.errors.InvalidArgumentError):
        ask(served, "search", two | {longer: six[longer]})
    arrays = {name: as_bytes(value) for name, value in (two | {longer: six[longer]}).items()}
    with pytest.raises(tf.errors.InvalidArgumentError):
        ask(served, "search_examples", {"examples": to_examples(arrays)})


def test_the_newest_actions_are_kept(served):
    last = ask(served, "search", request(**history(13, 14, 15, 16)))
    same(ask(served, "search", request(**history(1, 2, 3, 13, 14, 15, 16))), last)
    differ(ask(served, "search", request(**history(13, 14, 15, 16, 1))), last)


def test_the_newest_actions_are_kept_of_examples(served):
    def examples(*actions: int) -> dict:
        inputs = {name: as_bytes(value) for name, value in request(**history(*actions)).items()}
        tags = inputs["history_tags"]
        inputs["history_tags"] = np.concatenate(
            [tags, np.full_like(tags, b"")], axis=2
        )  # as wide as the schema's lists
        return {"examples": to_examples(inputs)}

    last = ask(served, "search_examples", examples(13, 14, 15, 16))
    same(ask(served, "search_examples", examples(1, 2, 3, 13, 14, 15, 16)), last)
    same(ask(served, "search", request(**history(13, 14, 15, 16))), last)


@pytest.mark.parametrize(
    "tags",
    [
        [["", "tea", "tag1"], ["tea", "", ""], ["", "", ""]],
        [["tea", "", "", "tag1"], ["", "", "", "tea"], ["", "", "", ""]],
        [["tea", "tag1", "cut off"], ["tea", "", ""], ["", "", ""]],  # the schema keeps two
    ],
)
def test_pads_stand_anywhere_in_an_items_list(served, tags):
    same(ask(served, "search", request(tags=tags)), ask(served, "search", request()))


@pytest.mark.parametrize(
    "tags",
    [
        [[["tag2", "soap"], ["", "cake"]]],
        [[["soap", "tag2", "cut off"], ["cake", "", ""]]],
        [[["", "", "soap", "tag2"], ["", "cake", "", ""]]],
    ],
)
def test_pads_stand_anywhere_in_a_list_of_the_history(served, tags):
    same(ask(served, "search", request(history_tags=tags)), ask(served, "search", request()))


def test_lists_may_have_no_place(served):
    none = request(tags=tf.zeros([3, 0], tf.string), interests=tf.zeros([1, 0], tf.string))
    padded = request(tags=[["", ""]] * 3, interests=[[""]])
    same(ask(served, "search", none), ask(served, "search", padded))
    none = request(history_tags=tf.zeros([1, 2, 0], tf.string))
    same(ask(served, "search", none), ask(served, "search", request(history_tags=[[["", ""], ["", ""]]])))


def test_an_unknown_number_is_the_mean(served):
    unknown = ask(served, "search", request(price=np.array([np.nan] * 3, np.float32)))
    assert np.all(np.isfinite(unknown["ctr"]))
    arrays = {name: as_bytes(value) for name, value in request(price=np.array([np.nan] * 3, np.float32)).items()}
    same(ask(served, "search_examples", {"examples": to_examples(arrays)}), unknown)
    endless = ask(served, "search", request(price=np.array([np.inf, -np.inf, np.nan], np.float32)))
    same(endless, unknown)


def as_bytes(value) -> np.ndarray:
    """An input as a client sends it: strings as bytes."""
    array = np.asarray(value)
    return np.char.encode(array).astype(object) if array.dtype.kind == "U" else array


def test_unknown_strings_are_scored(served):
    odd = request(
        user_id=["never seen"], item_id=["i00", "löwe 🦁", ""], device=[""], query=["  ? ЧАЙ  "], interests=[["", "x"]]
    )
    for scenario in SCENARIOS:
        scores = ask(served, scenario, odd)
        assert all(np.all((values > 0) & (values < 1)) for values in scores.values())
    odd["history_action"] = [["teleport", "click"]]
    odd["history_scenario"] = [["shop window", "search"]]
    assert np.all(np.isfinite(ask(served, "search", odd)["ctr"]))


# What a request costs


@pytest.fixture(scope="module")
def module(toy_run) -> ServingModule:
    return ServingModule(toy_run.load_model(), toy_run.transform)


@pytest.fixture(scope="module")
def graphs(module) -> dict[str, tf.Graph]:
    return {name: function.graph for name, function in module.signatures().items() if name in SCENARIOS}


@pytest.fixture(scope="module")
def scoring_graphs(module, toy_run) -> dict[str, tf.Graph]:
    """Of each scenario what comes after the transform, whose one call takes and gives both sides."""
    inputs = {name: tf.zeros(spec.shape, spec.dtype) for name, spec in _spec(toy_run).items()}
    specs = {
        name: tf.TensorSpec([None if name in ITEM_SIDE else 1, *values.shape[1:]], values.dtype, name=name)
        for name, values in module.request_features(inputs, 0).items()
    }
    with folding():
        return {
            scenario: tf.function(
                lambda features, number=number: module._model.value.serve(features, number, one_request=True)
            )
            .get_concrete_function(specs)
            .graph
            for number, scenario in enumerate(SCENARIOS)
        }


def _spec(run: Run) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec(
            [size or (1 if axis == 0 and name not in ITEM_SIDE else 3) for axis, size in enumerate(spec.shape)],
            spec.dtype,
        )
        for name, spec in request_spec(run.schema).items()
    }


def sides(graph: tf.Graph) -> dict[str, set[str]]:
    """Each tensor of the graph → which sides of the request it is computed from: `request`, `item`, both or none."""
    found: dict[str, set[str]] = {}
    for op in graph.get_operations():  # in the order in which they were added
        from_ = set().union(*(found[tensor.name] for tensor in op.inputs)) if op.inputs else set()
        if op.type == "Placeholder" and op.outputs[0].dtype != tf.resource:
            from_ = {"item" if op.name in ITEM_SIDE else "request"}
        found |= {tensor.name: from_ for tensor in op.outputs}
    return found


def spread(graph: tf.Graph) -> list[str]:
    """Ops that write the request's values once for every item: they copy one side's data by the other's count."""
    found = sides(graph)
    copying = (
        "Tile",
        "BroadcastTo",
        "GatherV2",
        "ResourceGather",
        "Reshape",
        "ConcatV2",
        "Fill",
        "StatefulPartitionedCall",
    )
    names = []
    for op in graph.get_operations():
        if op.type in copying:
            by_input = [found[tensor.name] for tensor in op.inputs]
            if {"request"} in by_input and any("item" in side for side in by_input):
                names.append(f"{op.type} {op.name}")
    return names


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_request_side_is_computed_once(scoring_graphs, scenario):
    graph = scoring_graphs[scenario]
    assert spread(graph) == []
    found, first = sides(graph), "shared_bottom.*/split_dense.*/MatMul"
    products = [op for op in graph.get_operations() if op.type == "MatMul" and re.search(first, op.name)]
    by_side = sorted(sorted(found[op.outputs[0].name]) for op in products)
    assert by_side == [["item", "request"], ["request"]]  # W [u; c] = W_u u + W_c c, and c is rescaled by the trigger


def test_a_request_that_is_copied_for_every_item_would_be_seen(module, toy_run):
    model, spec = toy_run.load_model(), request_spec(toy_run.schema)

    def score(inputs):
        return {"x": tf.repeat(inputs["spend"], tf.shape(inputs["price"])[0]) + inputs["price"]}

    assert spread(tf.function(score).get_concrete_function(spec).graph)
    assert model.schema == toy_schema().with_normal_forms(None)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_other_scenarios_weights_take_no_part(graphs, module, scenario):
    """Weights that hold a slice for each scenario are folded to the scenario's own slice."""
    graph, model = graphs[scenario], module._model.value
    stacked = [
        *model.backbone._scenario_towers.trainable_variables,
        *(variable for variable in model.heads.trainable_variables if "scenario" in variable.name),
    ]
    assert len(stacked) == 4  # kernels and biases of towers and heads
    captured = {id(external) for external, _ in graph.captures}
    assert not [variable.name for variable in stacked if id(variable.handle) in captured]
    constants = [tf.make_ndarray(op.get_attr("value")) for op in graph.get_operations() if op.type == "Const"]
    for variable in stacked:
        own = variable.numpy()[SCENARIOS.index(scenario)]
        assert any(np.array_equal(constant, own) for constant in constants), variable.name
        assert not any(np.array_equal(constant, variable) for constant in constants), variable.name


# Publishing


class Stub(tf.Module):
    """Stands for `ServingModule`, whose tracing takes seconds, where only the folders matter."""

    def __init__(self, *_):
        super().__init__()

    def signatures(self) -> dict:
        return {"serving_default": tf.function(lambda x: {"y": x}).get_concrete_function(tf.TensorSpec([]))}


@pytest.fixture
def quick(toy_run, monkeypatch) -> Run:
    monkeypatch.setattr(export_module, "ServingModule", Stub)
    monkeypatch.setattr(Run, "load_model", lambda self: None)
    return toy_run


def test_a_version_gets_its_name_when_it_is_whole(quick, tmp_path):
    seen = []

    def look(folder: Path) -> None:
        seen.append(folder.name)
        assert (folder / "saved_model.pb").exists()
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]

    version = export(quick, tmp_path, look)
    assert seen[0].startswith(".")  # which a server passes over
    assert version.parent == tmp_path
    assert version.name.isdigit()
    assert (version / "saved_model.pb").exists()
    assert list(tmp_path.iterdir()) == [version]


def test_a_failure_leaves_nothing(quick, tmp_path):
    def fail(folder: Path) -> None:
        raise RuntimeError("no warm-up")

    with pytest.raises(RuntimeError, match="no warm-up"):
        export(quick, tmp_path / "serving", fail)
    assert list((tmp_path / "serving").iterdir()) == []


def test_versions_increase(quick, tmp_path):
    (tmp_path / "notes").mkdir()
    first, second = (int(export(quick, tmp_path).name) for _ in range(2))
    assert first < second
    (tmp_path / str(10**12)).mkdir()
    assert export(quick, tmp_path).name == str(10**12 + 1)


def test_a_folder_that_cannot_be_is_refused(quick, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="found no writable directory"):
        export(quick, tmp_path / "taken" / "serving")
