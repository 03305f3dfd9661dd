"""Every kind of signal from the log to the served score: values by hand, parity, and inputs that hold nothing."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import functools
import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from benchmarks.replay_parity import replay
from pipelines.preprocess import preprocess
from serving.features import open_store
from serving.formats.contract import schema_specs
from serving.formats.logged_requests import read_requests
from serving.formats.request import TensorSpec, request_inputs
from serving.publishing.warmup import to_examples
from tests.once import made_once
from tests.signals.spellings import KINDS, spelled, words
from tests.usr_tf.fixtures import START, small_config, write_toy_logs
from usr_tf.counter_snapshot import CounterSnapshot
from usr_tf.data import open_data
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.export import ServingModule
from usr_tf.request_spec import request_spec
from usr_tf.run import open_run
from usr_tf.schema import counter_column
from usr_tf.train import train

SCHEMA = """\
scenarios: [search, recommendation]
tasks:
  - {name: ctr, action: click}
  - {name: ctcvr, action: purchase}
labels: {attribution: 1h, global_window: 6h}
history: {actions: [click, purchase], max_length: 4, queries: {max_length: 3, tokens: 2}}
split: {valid: 0.15, test: 0.15}
features:
  user_id:   {group: user, type: categorical, hash_buckets: 60}
  taste:     {group: user, type: vector, width: 3}
  item_id:   {group: item, type: categorical, in_history: true}
  tags:      {group: item, type: categorical_list, max_length: 2, hash_buckets: 16, in_history: true,
              weights: tag_weights, normalize: nfkc}
  title:     {group: item, type: text, hash_buckets: 16}
  price:     {group: item, type: numeric, transform: log, buckets: 4}
  look:      {group: item, type: vector, width: 3}
  listed:    {group: item, type: numeric, transform: log, buckets: 3, since: listed_at}
  query:     {group: query, type: text, max_length: 3, hash_buckets: 12}
  device:    {group: context, type: categorical, hash_buckets: 5}
  stock:     {group: candidate, type: numeric, transform: none}
  badge:     {group: candidate, type: categorical, hash_buckets: 5}
match:
  query_title: {features: [query, title]}
  query_tags: {features: [query, tags], by: [coverage]}
  taste_look: {features: [taste, look]}
  past_title: {features: [history_queries, title]}
history_match: [item_id, tags]
counters:
  item: {key: [item_id], actions: [click], windows: [1d, all], by_scenario: true}
  user_item: {key: [user_id, item_id], actions: [click, purchase], delay: 0s, prior: 2}
  query: {key: [query], actions: [click], delay: 1m}
"""


def _listed_at(item: int) -> int | None:
    """An unknown moment, one long before the logs, or one of the seven days that they span."""
    return None if item % 5 == 0 else 0 if item % 5 == 1 else START + item * 6 * 3_600_000


def _make(folder: Path) -> None:
    """The toy shop with vectors, weights, columns of candidates, and texts and tags in many spellings."""
    logs = write_toy_logs(folder / "logs")
    (logs / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    rng = np.random.default_rng(1)

    def rewrite(table: str, change) -> None:
        path = logs / f"{table}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps(row | change(row)) + "\n" for row in rows), encoding="utf-8")

    def of_item(row: dict) -> dict:
        number = int(row["item_id"][1:])
        look = None if number == 3 else rng.normal(size=3).tolist()
        weights = [0.5 + place for place in range(len(row["tags"]))]
        return {"look": look, "tag_weights": weights, "listed_at": _listed_at(number)}

    rewrite("items", of_item)
    rewrite("users", lambda row: {"taste": rng.normal(size=3).tolist()})
    rewrite("impressions", lambda row: {"stock": float(rng.integers(9)), "badge": [None, "sale"][rng.integers(2)]})
    for table, key in (("items", "item_id"), ("impressions", "request_id")):
        rewrite(table, lambda row, key=key: _spelled(row, np.random.default_rng(int(row[key][1:]))))
    preprocess(str(logs), str(folder / "data"), partitions=2)
    data = open_data(folder / "data")
    train(data, folder / "run", small_config(train={"epochs": 1}), verbose=0)


def _spelled(row: dict, draw: np.random.Generator) -> dict:
    return {name: spelled(name, value, draw) for name, value in row.items()}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return made_once(tmp_path_factory, "signals", _make)


@pytest.fixture(scope="module")
def run(shop):
    return open_run(shop / "run")


@pytest.fixture(scope="module")
def model(run):
    return run.load_model()


@pytest.fixture(scope="module")
def by_request(run, model):
    """The signatures of a model whose counters come with each request."""
    return ServingModule(model, run.transform).signatures()


@pytest.fixture(scope="module")
def by_snapshot(run, model):
    module = ServingModule(model, run.transform, CounterSnapshot(run.counters, run.schema))
    return module.signatures()


@pytest.fixture(scope="module")
def requests(run):
    return [request for name in run.schema.scenarios for request in read_requests(run.requests / f"{name}.jsonl")]


def _specs(run, counters: bool) -> dict[str, TensorSpec]:
    return schema_specs(run.schema, counters)


def _ask(signatures, request, specs, **changes) -> dict[str, np.ndarray]:
    inputs = request_inputs({**request.inputs, **changes}, specs)
    return {name: values.numpy() for name, values in _call(signatures[request.scenario], inputs).items()}


def _call(signature, inputs: dict) -> dict[str, tf.Tensor]:
    return signature(**{name: tf.constant(values) for name, values in inputs.items()})


def _features(run, model, request, **changes) -> dict[str, np.ndarray]:
    """The transformed features of a request, with the counts that it brings."""
    inputs = request_inputs({**request.inputs, **changes}, _specs(run, counters=True))
    tensors = {name: tf.constant(values) for name, values in inputs.items()}
    found = _transformer(model, run.transform)(tensors, 0)
    return {name: values.numpy() for name, values in found.items()}


@functools.cache
def _transformer(model, transform: Path):
    """The transform of requests, traced once."""
    return tf.function(ServingModule(model, transform).request_features, reduce_retracing=True)


def _recency(age: int) -> float:
    return max(1 - math.log1p(age / 1000) / math.log1p(365 * 86_400), 1e-3)


def _ids(values: list[str]) -> set[str]:
    return {unicodedata.normalize("NFKC", value) for value in values if value}


def _share(query: list[str], document: list[str]) -> float:
    distinct = set(query)
    return sum(word in document for word in distinct) / len(distinct) if distinct else 0.0


def _grams(words: list[str]) -> list[str]:
    marked = [f"^{word}$" for word in words]
    return [word[place : place + 3] for word in marked for place in range(len(word) - 2)]


def test_signals_are_what_plain_python_makes_of_the_logged_request(run, model, requests):
    for request in requests[:6] + requests[-6:]:
        given, found = request.inputs, _features(run, model, request)
        for row, title in enumerate(given["title"]):
            query, document = words(given["query"]), words(title)
            tags_words = words(" ".join(given["tags"][row]), "NFKC")
            expected = {
                "match_query_title_overlap": math.log1p(sum(word in document for word in set(query))),
                "match_query_title_coverage": _share(query, document),
                "match_query_title_ngram": _share(_grams(query), _grams(document)),
                "match_query_tags_coverage": _share(words(given["query"], "NFKC"), tags_words),
            }
            taste, look = (np.array(values, float) for values in (given["taste"], given["look"][row]))
            norm = np.linalg.norm(taste) * np.linalg.norm(look)
            expected["match_taste_look_cosine"] = taste @ look / norm if norm else 0.0
            past = [_share(words(text), document) for text in given["history_queries"]]
            recencies = [_recency(age) for age in given["history_queries_age"]]
            expected["match_past_title_latest"] = past[-1] if past else 0.0
            expected["match_past_title_best"] = max(past, default=0.0)
            expected["match_past_title_recency"] = max(map(np.prod, zip(past, recencies, strict=True)), default=0.0)
            actions = list(
                zip(
                    *(given[f"history_{name}"] for name in ("item_id", "action", "scenario", "age", "tags")),
                    strict=True,
                )
            )
            for feature, same in (
                ("item_id", [action[0] == given["item_id"][row] for action in actions]),
                ("tags", [bool(_ids(action[4]) & _ids(given["tags"][row])) for action in actions]),
            ):
                prefix = f"history_match_{feature}"
                matching = [action for action, is_same in zip(actions, same, strict=True) if is_same]
                for name in ("click", "purchase"):
                    of_action = [action for action in matching if action[1] == name]
                    expected[f"{prefix}_{name}_count"] = math.log1p(len(of_action))
                    expected[f"{prefix}_{name}_recency"] = max((_recency(action[3]) for action in of_action), default=0)
                for name in run.schema.scenarios:
                    count = sum(action[2] == name for action in matching)
                    expected[f"{prefix}_{name}_count"] = math.log1p(count)
                expected[f"{prefix}_share"] = len(matching) / len(actions) if actions else 0.0
                expected[f"{prefix}_last"] = float(bool(same and same[-1]))
            for name, value in expected.items():
                np.testing.assert_allclose(found[name][row], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_counter_rates_are_log_lifts_over_the_average_of_training(run, model, requests):
    names = [counter_column("user_item", None, event) for event in ("impression", "click", "purchase")]
    assert set(names) <= set(run.schema.counter_columns)
    counts = {name: [0.0] * len(requests[0].inputs["item_id"]) for name in run.schema.counter_columns}
    nothing = _features(run, model, requests[0], **counts)
    for name in run.schema.signals:
        if name.startswith("counter_"):
            np.testing.assert_allclose(nothing[name], 0.0, atol=1e-6)
    counts[names[0]] = [1.0, 2.0, 4.0, 8.0, 0.0]
    counts[names[1]] = [1.0, 0.0, 2.0, 0.0, 0.0]
    found = _features(run, model, requests[0], **counts)
    np.testing.assert_allclose(found[f"{names[0]}s"], np.log1p(counts[names[0]]), rtol=1e-6)
    lifts = found[f"{names[1]}_rate"]
    # log((a + 2 m) / (n + 2) / m): two unknowns, m and the lift, so m from one row and the others by it.
    mean = 1 / (np.exp(lifts[0]) * 3 - 2)
    expected = [
        math.log((clicks + 2 * mean) / (shown + 2) / mean) for clicks, shown in ((1, 1), (0, 2), (2, 4), (0, 8), (0, 0))
    ]
    np.testing.assert_allclose(lifts, expected, rtol=1e-4, atol=1e-6)
    assert 0 < mean < 1


def test_served_scores_of_logged_requests_are_the_offline_ones(shop, run, model, by_request, requests):
    predictions = predict(model, open_data(shop / "data"), "test")
    offline = {}
    for row, key in enumerate(zip(predictions.request, predictions.item, strict=True)):
        offline[key] = {task: scores[row] for task, scores in predictions.probabilities.items()}
    specs, worst = _specs(run, counters=True), 0.0
    for request in requests:
        inputs = request_inputs(request.inputs, specs)
        examples = {"examples": np.array(to_examples(inputs), object)}
        for scores in (
            _call(by_request[request.scenario], inputs),
            _call(by_request[f"{request.scenario}_examples"], examples),
        ):
            for task, values in scores.items():
                for item, value in zip(request.inputs["item_id"], values.numpy(), strict=True):
                    worst = max(worst, abs(value - offline[request.request_id.encode(), item.encode()][task]))
    assert worst <= 1e-5


@pytest.mark.slow
def test_requests_rebuilt_from_events_are_the_logged_ones(shop, run, requests, tmp_path):
    """So their scores are the offline ones too, as those of the logged requests are."""
    logged = {request.request_id: request.document for request in requests}
    with open_store(tmp_path / "store", run.schema) as store:
        rebuilt = [*replay(store, str(shop / "logs"), logged)]
    assert len(rebuilt) == len(logged) > 50
    assert all(document == logged[document["request_id"]] for document in rebuilt)
    counted = [document["inputs"][name] for document in rebuilt for name in run.schema.counter_columns]
    assert sum(any(values) for values in counted) > 100


def test_a_snapshot_scores_as_its_own_counts_in_the_request_do(run, by_request, by_snapshot, requests):
    with_counts, without = _specs(run, counters=True), _specs(run, counters=False)
    assert not any(name.startswith("counter_") for name in request_spec(run.schema))
    tables = {name: pq.read_table(run.counters / f"{name}.parquet").to_pylist() for name in run.schema.counters}
    for request in requests[:4] + requests[-4:]:
        counts = _counts(run.schema, tables, request)
        expected = _ask(by_request, request, with_counts, **counts)
        served = _ask(by_snapshot, request, without)
        logged = {name: values for name, values in request.inputs.items() if name not in counts}
        examples = np.array(to_examples(request_inputs(logged, without)), object)
        rows = _call(by_snapshot[f"{request.scenario}_examples"], {"examples": examples})
        for task in run.schema.task_names:
            np.testing.assert_allclose(served[task], expected[task], rtol=0, atol=1e-6)
            np.testing.assert_allclose(rows[task], expected[task], rtol=0, atol=1e-5)


def _counts(schema, tables, request) -> dict[str, list[float]]:
    """What a snapshot holds of a request's candidates, in plain Python."""
    counts = {name: [] for name in schema.counter_columns}
    for row in range(len(request.inputs["item_id"])):
        for name, counter in schema.counters.items():
            wanted = {}
            for key in counter.key:
                value = request.inputs[key]
                value = (value[row] if isinstance(value, list) else value) or ""
                wanted[key] = " ".join(words(value)) if key == "query" else value
            if counter.by_scenario:
                wanted["scenario"] = request.scenario
            found = [line for line in tables[name] if all(line[key] == value for key, value in wanted.items())]
            known = bool(found) and all(wanted.values())
            for window in counter.windows:
                for event in ("impression", *counter.actions):
                    column = counter_column(name, window, event)
                    counts[column].append(float(found[0][column]) if known else 0.0)
    return counts


def test_scores_do_not_depend_on_the_spelling(run, by_snapshot, requests):
    specs, draw = _specs(run, counters=False), np.random.default_rng(2)
    for request in requests[:8] + requests[-8:]:
        expected = _ask(by_snapshot, request, specs)
        for task, scores in _ask(by_snapshot, request, specs, **_spelled(request.inputs, draw)).items():
            np.testing.assert_allclose(scores, expected[task], rtol=0, atol=1e-6)
    keys = pq.read_table(run.counters / "query.parquet").column("query").to_pylist()
    assert sorted(keys) == sorted(f"{kind} fresh" for kind in KINDS.values())


def test_a_query_that_is_no_utf8_has_a_score(run, by_snapshot, requests):
    request = requests[0]
    inputs = request_inputs(request.inputs, _specs(run, counters=False))
    broken = inputs | {"query": np.array([b"\xff\xfe th\xc3\xa9 e\xcc"], object)}
    for scores in _call(by_snapshot[request.scenario], broken).values():
        assert np.isfinite(scores.numpy()).all()


@pytest.mark.parametrize("candidates", [1, 2_000])
def test_any_number_of_candidates(run, by_snapshot, requests, candidates):
    request, specs = requests[0], _specs(run, counters=False)
    of_item = {name for name, spec in request_spec(run.schema).items() if spec.shape[0] is None}
    items = len(request.inputs["item_id"])
    changes = {name: [request.inputs[name][row % items] for row in range(candidates)] for name in of_item}
    alone, scores = _ask(by_snapshot, request, specs), _ask(by_snapshot, request, specs, **changes)
    for task, values in scores.items():
        np.testing.assert_allclose(values, np.resize(alone[task], candidates), rtol=0, atol=1e-6)


def test_nothing_known_scores_all_the_same(run, by_snapshot, requests):
    """No history, no earlier query, no query, and items, users, words and numbers that nobody has seen."""
    request, specs = requests[0], _specs(run, counters=False)
    items = len(request.inputs["item_id"])
    changes = {name: [] for name in request.inputs if name.startswith("history_")}
    changes |= {"query": None, "user_id": "nobody", "taste": [0.0, 0.0, 0.0], "item_id": ["new"] * items}
    changes |= {"tags": [[]] * items, "tag_weights": [[]] * items, "title": [None] * items, "price": [None] * items}
    changes |= {"look": [[0.0, 0.0, 0.0]] * items, "stock": [None] * items, "badge": [None] * items}
    changes |= {"listed": [None] * items}
    for values in _ask(by_snapshot, request, specs, **changes).values():
        assert np.isfinite(values).all()
        np.testing.assert_allclose(values, values[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 3e38, -3e38])
def test_strange_numbers_change_the_scores_of_their_candidate_alone(run, by_request, requests, number):
    request, specs = requests[0], _specs(run, counters=True)
    good = _ask(by_request, request, specs)
    inputs = request_inputs(request.inputs, specs)
    for name in [name for name, values in inputs.items() if values.dtype == np.float32]:
        strange = inputs[name].copy()
        strange[0] = number
        scores = _call(by_request[request.scenario], {**inputs, name: strange})
        for task, values in scores.items():
            assert np.isfinite(values).all(), name
            if name in _of_item(run):
                np.testing.assert_allclose(values[1:], good[task][1:], rtol=0, atol=1e-6)


def test_weights_of_a_list_and_buckets_of_a_number_reach_the_model(run, model, requests):
    request, embedding = requests[0], model.embedding
    found = {name: tf.constant(values) for name, values in _features(run, model, request).items()}
    row = next(row for row, tags in enumerate(request.inputs["tags"]) if len(tags) == 2)
    ids = found["tags"].numpy()[row]
    lists = [
        embedding({**found, "tags": tf.constant([[number]], tf.int64), "tag_weights": tf.constant([[1.0]])}, ["tags"])
        for number in ids
    ]
    expected = (0.5 * lists[0][0].numpy() + 1.5 * lists[1][0].numpy()) / 2.0
    np.testing.assert_allclose(embedding(found, ["tags"]).numpy()[row], expected, rtol=1e-5)
    prices = [None, 1.0, 8.0, 15.0, 22.0, 29.0, 1e9]
    changes = {name: [request.inputs[name][0]] * 7 for name in request.inputs if name in _of_item(run)}
    buckets = _features(run, model, request, **{**changes, "price": prices})["bucket_price"]
    assert (buckets[0], buckets[1], buckets[5], buckets[6]) == (1, 2, 5, 5)
    assert (np.diff(buckets) >= 0).all()


def _of_item(run) -> set[str]:
    return {name for name, spec in request_spec(run.schema, counters=True).items() if spec.shape[0] is None}


def test_an_age_is_missing_until_its_moment_and_counts_from_it(shop, requests):
    times = {}
    for line in (shop / "logs" / "impressions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        times[row["request_id"]] = row["timestamp"]
    found = []
    for request in requests:
        for item, age in zip(request.inputs["item_id"], request.inputs["listed"], strict=True):
            moment = _listed_at(int(item[1:]))
            since = None if moment is None else times[request.request_id] - moment
            expected = None if since is None or since < 0 else np.float32(since / 1000)
            assert age == expected
            found.append((moment is None, age is None))
    assert {(True, True), (False, True), (False, False)} <= {*found}


def test_a_vector_of_another_width_is_refused(run, requests):
    with pytest.raises(InputError, match=r"inputs.taste: found 2 numbers, expected 3, the width of the vector"):
        request_inputs({**requests[0].inputs, "taste": [1.0, 2.0]}, _specs(run, counters=True))


def test_a_missing_snapshot_is_named(run, tmp_path):
    with pytest.raises(InputError, match=r"item.parquet: found no readable snapshot"):
        CounterSnapshot(tmp_path, run.schema)


def test_stored_rows_hold_what_the_request_gives(shop, run, model, requests):
    """Features of the test split's rows, as training reads them, and of the same logged requests, as served."""
    rows = {}
    for features, _, keys in open_data(shop / "data").evaluation(512, "test"):
        for row, key in enumerate(zip(keys["request_id"].numpy(), keys["raw_item_id"].numpy(), strict=True)):
            rows[key] = {name: values[row].numpy() for name, values in features.items()}
    for request in requests[:4]:
        found = _features(run, model, request)
        for place, item in enumerate(request.inputs["item_id"]):
            stored = rows[request.request_id.encode(), item.encode()]
            for name in (*run.schema.signals, "look", "taste", "bucket_price", "stock"):
                value = found[name][place] if len(found[name]) > 1 else found[name][0]
                np.testing.assert_allclose(value, stored[name], rtol=1e-5, atol=1e-6, err_msg=name)
