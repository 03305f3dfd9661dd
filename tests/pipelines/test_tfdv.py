"""Protos of tensorflow-metadata: hand-computed figures, no personal data, equal bytes for every order."""

import random

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipelines.join.rows import row_schema
from pipelines.quality import tfdv
from pipelines.quality.statistics import measure_raw, merge
from usr_tf.schema import parse_schema

SCHEMA = parse_schema("""
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click], max_length: 3}
features:
  user_id: {group: user, type: categorical}
  query: {group: query, type: text}
  item_id: {group: item, type: categorical, in_history: true}
  words: {group: item, type: categorical_list}
  price: {group: item, type: numeric}
  image: {group: item, type: vector, width: 2}
""")
ROWS = [
    {"scenario": "search", "user_id": "secret-1", "query": "secret tea", "item_id": "a", "words": ["x", "", "é"]}
    | {"price": 1.0, "image": [0.0, 2.0], "history": 2},
    {"scenario": "search", "user_id": "secret-2", "query": "", "item_id": "b", "words": ["x"], "price": 0.0}
    | {"image": [0.0, 0.0], "history": 0},
    {"scenario": "search", "user_id": "secret-1", "query": "secret", "item_id": "a", "words": [], "price": None}
    | {"image": [4.0, 2.0], "history": 3},
    {"scenario": "feed", "user_id": "secret-3", "query": "", "item_id": "c", "words": ["y"], "price": 5.0}
    | {"image": [0.0, 0.0], "history": 0},
]
COUNTS = {("splits", "train", "search", "impressions"): 3, ("splits", "train", "search", "ctr"): 1}
COUNTS |= {("splits", "train", "search", "global_ctr"): 2, ("splits", "train", "feed", "impressions"): 1}


def to_batch(rows: list[dict]) -> pa.RecordBatch:
    batch = []
    for number, row in enumerate(rows):
        values = {"request_id": f"r{row['item_id']}{number}", "raw_user_id": "u", "raw_item_id": "i", **row}
        columns = {name: [] if values.get(name) is None else [values[name]] for name in row_schema(SCHEMA).names}
        columns |= {"words": row["words"], "image": row["image"], "history_action": ["click"] * row["history"]}
        batch.append(columns)
    return pa.RecordBatch.from_pylist(batch, row_schema(SCHEMA))


def measured(*batches: list[dict]) -> dict:
    return {("raw", "train"): merge([measure_raw(to_batch(rows), SCHEMA) for rows in batches])}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("statistics")
    tfdv.write(COUNTS, SCHEMA, measured(ROWS), str(directory))
    return directory


@pytest.fixture(scope="module")
def features(written) -> dict:
    """Statistics of the training split by slice and feature, as TFDV's `load_stats_binary` parses them."""
    found = statistics_pb2.DatasetFeatureStatisticsList.FromString((written / "train.pb").read_bytes())
    assert [(each.name, each.num_examples) for each in found.datasets] == [
        ("All Examples", 4),
        ("scenario_search", 3),
        ("scenario_feed", 1),
    ]
    return {each.name: {feature.path.step[0]: feature for feature in each.features} for each in found.datasets}


def test_numbers_have_moments_and_histograms(features):
    price = features["All Examples"]["price"]
    assert price.type == statistics_pb2.FeatureNameStatistics.FLOAT
    numbers = price.num_stats
    common = numbers.common_stats
    assert (common.num_non_missing, common.num_missing, common.tot_num_values) == (3, 1, 3)
    assert (common.min_num_values, common.max_num_values, common.avg_num_values) == (1, 1, 1.0)
    assert (numbers.min, numbers.max, numbers.median, numbers.mean, numbers.num_zeros) == (0.0, 5.0, 1.0, 2.0, 1)
    assert numbers.std_dev == pytest.approx(np.std([0, 1, 5]))
    standard, quantiles = numbers.histograms
    assert (standard.type, quantiles.type) == (statistics_pb2.Histogram.STANDARD, statistics_pb2.Histogram.QUANTILES)
    assert [bucket.sample_count for bucket in standard.buckets] == [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert (standard.buckets[2].low_value, standard.buckets[2].high_value) == (1.0, 1.5)
    assert sum(bucket.sample_count for bucket in quantiles.buckets) == pytest.approx(3)
    image = features["scenario_search"]["image"].num_stats
    assert (image.min, image.max, image.std_dev) == (0.0, 4.0, pytest.approx(np.std([0, 2, 4, 2])))
    assert (image.common_stats.num_missing, image.common_stats.min_num_values, image.mean, image.num_zeros) == (
        1,
        2,
        2,
        1,
    )


def test_strings_have_values_unless_they_are_of_users_or_queries(written, features):
    words = features["scenario_search"]["words"].string_stats
    common = words.common_stats
    assert (common.num_non_missing, common.num_missing, common.min_num_values, common.max_num_values) == (2, 1, 1, 2)
    assert (words.unique, words.avg_length) == (2, pytest.approx(4 / 3))  # é has two bytes
    assert [(top.value, top.frequency) for top in words.top_values] == [("x", 2), ("é", 1)]
    assert [(bucket.low_rank, bucket.label) for bucket in words.rank_histogram.buckets] == [(0, "x"), (1, "é")]
    for name in ("user_id", "query"):
        strings = features["All Examples"][name].string_stats
        assert not strings.top_values
        assert not strings.rank_histogram.buckets
        assert strings.unique > 0
    assert features["All Examples"]["query"].string_stats.common_stats.num_missing == 2
    history = features["All Examples"]["history_action"].string_stats.common_stats
    assert (history.num_non_missing, history.min_num_values, history.max_num_values, history.tot_num_values) == (
        2,
        2,
        3,
        5,
    )
    assert not any(b"secret" in path.read_bytes() for path in written.iterdir())


def test_labels_are_numbers_of_training_rows(features):
    label = features["scenario_search"]["ctr"].num_stats
    assert (label.mean, label.num_zeros, label.min, label.max) == (pytest.approx(1 / 3), 2, 0.0, 1.0)
    assert features["All Examples"]["global_ctr"].num_stats.mean == 0.5
    assert features["scenario_feed"]["ctr"].num_stats.max == 0.0


def test_the_schema_describes_the_training_split(written):
    schema = text_format.Parse((written / "schema.pbtxt").read_text(encoding="utf-8"), schema_pb2.Schema())
    features = {feature.name: feature for feature in schema.feature}
    assert [(name, feature.type) for name, feature in features.items()] == [
        *((name, schema_pb2.BYTES) for name in ("user_id", "query", "item_id", "words")),
        *((name, schema_pb2.FLOAT) for name in ("price", "image")),
        ("history_action", schema_pb2.BYTES),
        *((name, schema_pb2.INT) for name in ("ctr", "global_ctr")),
    ]
    assert features["user_id"].presence.min_fraction == 1.0
    assert features["user_id"].shape.dim[0].size == 1
    assert not features["price"].presence.HasField("min_fraction")
    assert (features["price"].value_count.min, features["price"].value_count.max) == (1, 1)
    assert (features["price"].float_domain.min, features["price"].float_domain.max) == (-10.0, 15.0)
    assert features["image"].value_count.max == 2
    assert features["words"].value_count.min == 1
    assert not features["words"].value_count.HasField("max")
    assert features["query"].value_count.max == 1  # a text, however many tokens it has
    assert features["ctr"].not_in_environment == ["SERVING"]
    domains = {domain.name: list(domain.value) for domain in schema.string_domain}
    assert domains == {"item_id": ["a", "b", "c"], "words": ["x", "y", "é"]}
    assert features["words"].domain == "words"


def test_many_values_are_neither_listed_nor_a_domain():
    rows = [{**ROWS[0], "item_id": f"i{n}", "words": [f"w{n % 101}"]} for n in range(1001)]
    found = measured(rows[:600], rows[600:])
    counts = {("splits", "train", "search", "impressions"): len(rows)}
    dataset = tfdv.statistics(counts, SCHEMA, found, "train").datasets[0]
    strings = {feature.path.step[0]: feature.string_stats for feature in dataset.features}
    assert (strings["item_id"].unique, len(strings["item_id"].top_values)) == (1001, 0)
    assert (len(strings["words"].top_values), len(strings["words"].rank_histogram.buckets)) == (20, 101)
    assert not tfdv.schema_proto(counts, SCHEMA, found).string_domain


def test_any_order_and_batching_gives_the_same_bytes(tmp_path, written):
    rng = random.Random(0)
    for number in range(1, 4):
        rows = rng.sample([*enumerate(ROWS)], len(ROWS))
        batches = [[row for _, row in rows[:number]], [row for _, row in rows[number:]]]
        tfdv.write(COUNTS, SCHEMA, measured(*batches), str(tmp_path / str(number)))
        for path in written.iterdir():
            assert (tmp_path / str(number) / path.name).read_bytes() == path.read_bytes()


def test_a_split_without_rows_has_statistics(written):
    found = statistics_pb2.DatasetFeatureStatisticsList.FromString((written / "test.pb").read_bytes())
    assert [each.num_examples for each in found.datasets] == [0, 0, 0]
