"""Data quality: hand-computed statistics, equal for every order and batching of the rows."""

import json
import math

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.beam.blocks import BlockStore
from pipelines.join.rows import row_schema
from pipelines.quality.statistics import MeasureQuality, _lengths, figures_of, measure_raw, measure_transformed, merge
from usr_tf.schema import Feature, Schema, parse_schema
from usr_tf.tokens import tokens

SCHEMA = parse_schema("""
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click], max_length: 3}
features:
  user_id: {group: user, type: categorical}
  item_id: {group: item, type: categorical, in_history: true, oov_buckets: 2}
  color: {group: item, type: categorical, hash_buckets: 8}
  words: {group: item, type: categorical_list}
  price: {group: item, type: numeric}
  query: {group: query, type: text}
""")
ROWS = [
    {"scenario": "search", "user_id": "u1", "words": ["a", "", "b"], "price": 1.0, "query": "green  tea"},
    {"scenario": "search", "user_id": "u1", "words": [""], "price": 0.1, "query": "green  tea", "history": 2},
    {"scenario": "search", "user_id": "é", "words": [], "price": None, "query": " "},
    {"scenario": "search", "user_id": "", "words": ["a"], "price": math.nan, "query": "", "history": 1},
    {"scenario": "search", "user_id": "u2", "words": ["c", "c"], "price": 3.0, "query": "茶"},
]
RAW, TRANSFORMED = "raw", "transformed"
OF_TRANSFORMED = {"values", "oov", "oov_share", "clamped"}
NONE_CLAMPED = {"clamped": {"below": 0, "low": None, "above": 0, "high": None}}


def to_batch(rows: list[dict], schema: Schema = SCHEMA) -> pa.RecordBatch:
    """Rows as the join makes them; what is left out is missing."""
    lists = []
    for number, row in enumerate(rows):
        values = {"request_id": f"r{row.get('number', number)}", "raw_user_id": "u", "raw_item_id": "i", **row}
        columns = {name: [] if values.get(name) is None else [values[name]] for name in row_schema(schema).names}
        for name, feature in schema.features.items():
            if feature.type == "categorical_list":
                columns[name] = values.get(name, [])
            elif feature.type != "numeric":
                columns[name] = [values.get(name, "")]
        if "history" in row:
            columns["history_action"] = ["click"] * row["history"]
        lists.append(columns)
    return pa.RecordBatch.from_pylist(lists, row_schema(schema))


def to_ids(scenarios: list[str], bounds: list | None = None, **columns: list[list[int]]) -> pa.RecordBatch:
    """Transformed rows, as TensorFlow Transform lays them out. `bounds` are those that the price was clamped to."""
    arrays = {name: pa.array(ids, pa.large_list(pa.int64())) for name, ids in columns.items()}
    if bounds is not None:
        arrays["packed_bounds_price"] = pa.array(bounds, pa.large_list(pa.float32()))
    arrays["scenario"] = pa.array([[name] for name in scenarios], pa.list_(pa.string()))
    return pa.RecordBatch.from_pydict(arrays)


def measure(kind: str, *batches, schema: Schema = SCHEMA) -> dict:
    """The figures of one kind, each batch measured by a worker of its own; they must be JSON."""
    measure_batch = {RAW: measure_raw, TRANSFORMED: measure_transformed}[kind]
    sums = merge(measure_batch(batch, schema) for batch in batches)
    figures = figures_of({(kind, "train"): sums}, "train", schema)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    return {
        scenario: {
            name: {key: value for key, value in found.items() if (key in OF_TRANSFORMED) == (kind == TRANSFORMED)}
            for name, found in of_features.items()
            if kind == RAW or found.keys() & OF_TRANSFORMED
        }
        for scenario, of_features in figures.items()
    }


def test_strings_are_counted_and_told_apart():
    found = measure(RAW, to_batch(ROWS))["search"]
    assert found["user_id"] == {"rows": 5, "coverage": 0.8, "cardinality": 3}
    assert found["words"] == {"rows": 5, "coverage": 0.6, "cardinality": 3, "mean_length": 5 / 3}
    assert found["query"] == {"rows": 5, "coverage": 0.6, "cardinality": 2, "mean_length": 5 / 3}


def test_numbers_are_described_and_those_that_are_not_finite_are_missing():
    assert measure(RAW, to_batch(ROWS))["search"]["price"] == {
        "rows": 5,
        "coverage": 0.6,
        "cardinality": 3,
        "non_finite": 1,
        "min": 0.1,
        "max": 3.0,
        "mean": pytest.approx(4.1 / 3),
        "std": pytest.approx(np.std([1.0, 0.1, 3.0])),
        "quantiles": {"p01": 0.1, "p05": 0.1, "p25": 0.1, "p50": 1.0, "p75": 3.0, "p95": 3.0, "p99": 3.0},
    }


def test_a_history_is_described_once_by_its_length():
    found = measure(RAW, to_batch(ROWS))["search"]
    assert found["history_action"] == {"rows": 5, "coverage": 0.4, "mean_length": 1.5}
    assert list(found) == [*SCHEMA.features, "history_action"]


@pytest.mark.parametrize("rows", [[], [{"scenario": "search"}]])
def test_what_no_row_defines_is_none_and_never_nothing_by_nothing(rows):
    found = measure(RAW, to_batch(rows))
    assert found["feed"]["user_id"] == {"rows": 0, "coverage": None, "cardinality": 0}
    price = found["search"]["price"]
    assert price["coverage"] == (0.0 if rows else None)
    assert [price[name] for name in ("min", "max", "mean", "std", "quantiles")] == [None] * 5
    assert found["search"]["words"]["mean_length"] is None
    assert found["search"]["history_action"]["mean_length"] is None
    assert measure(RAW) == measure(RAW, to_batch([]))


def test_a_schema_without_numbers_and_history_is_described_too():
    schema = parse_schema("""
scenarios: [search]
tasks: [{name: ctr, action: click}]
features: {item_id: {group: item, type: categorical}}
""")
    assert measure(RAW, to_batch([{"scenario": "search", "item_id": "i"}], schema), schema=schema) == {
        "search": {"item_id": {"rows": 1, "coverage": 1.0, "cardinality": 1}}
    }


def test_text_that_is_no_sound_utf_8_is_counted_like_any_other():
    batch = to_batch([{"scenario": "search", "user_id": "x" * length} for length in (3, 3, 4)])
    broken = pa.array([[b"\xed\xa0\xbd"], [b"\xed\xa0\xbd"], [b"\xed\xa0\xbd!"]], pa.list_(pa.binary()))
    texts = pa.ListArray.from_arrays(broken.offsets, broken.values.view(pa.string()))
    batch = batch.set_column(0, "user_id", texts).set_column(batch.schema.get_field_index("query"), "query", texts)
    found = measure(RAW, batch)["search"]
    assert found["user_id"]["cardinality"] == 2
    assert found["query"]["rows"] == 3


@pytest.mark.parametrize("tokenizer", ["whitespace", "character"])
def test_tokens_are_those_of_the_transform(tokenizer):
    texts = ["", " ", "green tea", " a\tb\nc\vd\fe\rf ", "茶 x", "e\u0301 é", "a\u00a0b", "\u3000", "x\ny z"]
    feature = Feature(group="query", type="text", tokenizer=tokenizer, max_length=50)
    ones = tf.sparse.map_values(lambda found: tf.ones_like(found, tf.int64), tokens(tf.constant(texts), feature))
    assert _lengths(pa.array(texts), feature).tolist() == tf.sparse.reduce_sum(ones, axis=1).numpy().tolist()


def test_ids_out_of_vocabulary_are_those_of_the_buckets():
    found = measure(
        TRANSFORMED,
        to_ids(
            ["search", "feed", "search"],
            user_id=[[0], [1], [2]],
            item_id=[[2], [3], [1]],
            words=[[], [1, 2, 1], [5]],
            query=[[], [], [1, 0]],
        ),
    )
    assert found["search"] == {
        "user_id": {"values": 1, "oov": 0, "oov_share": 0.0},
        "item_id": {"values": 2, "oov": 2, "oov_share": 1.0},
        "words": {"values": 1, "oov": 0, "oov_share": 0.0},
        "price": NONE_CLAMPED,
        "query": {"values": 1, "oov": 1, "oov_share": 1.0},
    }
    assert found["feed"]["words"] == {"values": 3, "oov": 2, "oov_share": 2 / 3}
    assert found["feed"]["query"] == {"values": 0, "oov": 0, "oov_share": None}


def test_raw_and_id_figures_stand_side_by_side():
    raw = measure(RAW, to_batch(ROWS))
    ids = measure(TRANSFORMED, to_ids(["search"], user_id=[[1]], item_id=[[1]], words=[[1]], query=[[1]]))
    sums = {
        (RAW, "train"): measure_raw(to_batch(ROWS), SCHEMA),
        (TRANSFORMED, "train"): measure_transformed(
            to_ids(["search"], user_id=[[1]], item_id=[[1]], words=[[1]], query=[[1]]), SCHEMA
        ),
    }
    merged = figures_of(sums, "train", SCHEMA)
    assert merged["search"]["user_id"] == raw["search"]["user_id"] | ids["search"]["user_id"]
    assert merged["search"]["price"] == raw["search"]["price"] | NONE_CLAMPED


@pytest.mark.parametrize("batches", [1, 3])
def test_clamped_numbers_are_counted_by_side_and_scenario(batches):
    columns = {"user_id": [[1]], "item_id": [[1]], "words": [[1]], "query": [[1]]}
    rows = [
        to_ids([scenario], [bounds], **columns)
        for scenario, bounds in [
            ("search", [-5.5, math.nan]),
            ("search", [math.nan, 0.1]),
            ("feed", [math.nan, math.nan]),
            ("search", [math.nan, 0.1]),
        ]
    ]
    if batches == 1:
        rows = [pa.Table.from_batches(rows).combine_chunks().to_batches()[0]]
    found = measure(TRANSFORMED, *rows)
    assert found["search"]["price"] == {"clamped": {"below": 1, "low": -5.5, "above": 2, "high": 0.1}}
    assert found["feed"]["price"] == NONE_CLAMPED


ROW = st.fixed_dictionaries(
    {
        "scenario": st.sampled_from(SCHEMA.scenarios),
        "user_id": st.sampled_from(["", "a", "茶"]),
        "words": st.lists(st.sampled_from(["", "x", "y"]), max_size=3),
        "price": st.sampled_from([None, 0.0, -0.0, 0.1, 1e30, math.inf, math.nan]),
        "query": st.sampled_from(["", "a b", "c"]),
        "history": st.integers(0, 2),
    }
)


@settings(max_examples=40)
@given(st.data(), st.lists(ROW, max_size=12))
def test_any_order_and_batching_of_the_rows_gives_the_same_figures(data, rows):
    rows = [{**row, "number": number} for number, row in enumerate(rows)]
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    batches = [to_batch(shuffled[start:stop]) for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    assert json.dumps(measure(RAW, *batches)) == json.dumps(measure(RAW, to_batch(rows)))


def test_a_slice_of_a_batch_is_measured_alone():
    assert measure(RAW, to_batch(ROWS).slice(3, 2)) == measure(RAW, to_batch(ROWS[3:]))


def test_beam_combines_them():
    store = BlockStore()
    with beam.Pipeline("FnApiRunner") as pipeline:
        ids = to_ids(
            ["search"] * 5, user_id=[[3], [1], [0], [1], [4]], item_id=[[0]] * 5, words=[[]] * 5, query=[[]] * 5
        )
        rows = {
            "raw train": pipeline
            | "Blocks" >> beam.Create([store.put(to_batch(ROWS[:2])), store.put(to_batch(ROWS[2:]))]),
            "transformed train": pipeline | "Ids" >> beam.Create([ids]),
            "raw test": pipeline | "NoBlocks" >> beam.Create([]),
        }

        def check(elements):
            measured = dict(elements)
            assert set(measured) == {("raw", "train"), ("transformed", "train")}
            expected = {"rows": 5, "coverage": 0.8, "cardinality": 3, "values": 4, "oov": 2, "oov_share": 0.5}
            assert figures_of(measured, "train", SCHEMA)["search"]["user_id"] == expected
            assert figures_of(measured, "test", SCHEMA)["search"]["user_id"]["coverage"] is None

        assert_that(rows | MeasureQuality(SCHEMA), check, "both")
