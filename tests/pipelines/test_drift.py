"""Drift between two days: hand-computed amounts, significance and messages."""

import copy
import json
import math

import pytest

from pipelines.quality.drift import DriftLimits, compare, describe, document, parse_limits, refuse
from pipelines.quality.statistics import QUANTILES
from usr_tf.errors import InputError
from usr_tf.schema import parse_schema

SCHEMA = parse_schema("""
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
features:
  item_id: {group: item, type: categorical}
  color: {group: item, type: categorical, hash_buckets: 8}
  price: {group: item, type: numeric}
""")
ROWS = 10_000


def make_stats() -> dict:
    """A split of two alike scenarios: prices spread evenly from 0 to 100."""
    strings = {"rows": ROWS, "coverage": 1.0, "cardinality": 50}
    numbers = {"min": 0.0, "max": 100.0, "mean": 50.0, "std": 28.9}
    quantiles = {name: 100 * level for name, level in QUANTILES.items()}
    features = {
        "item_id": strings | {"values": ROWS, "oov": 0, "oov_share": 0.0},
        "color": strings,
        "price": strings | numbers | {"quantiles": quantiles},
    }
    counts = {"impressions": ROWS, "ctr": 400, "global_ctr": 800}
    return {
        "quality": {"train": {scenario: copy.deepcopy(features) for scenario in SCHEMA.scenarios}},
        "splits": {"train": {scenario: dict(counts) for scenario in SCHEMA.scenarios}},
    }


@pytest.fixture
def old() -> dict:
    return make_stats()


@pytest.fixture
def new() -> dict:
    return make_stats()


def worst(old, new, **limits):
    return compare(old, new, SCHEMA, DriftLimits(**limits))[0]


def shift_prices(features, move):
    price = features["price"]
    price["quantiles"] = {name: move(value) for name, value in price["quantiles"].items()}
    price["min"], price["max"] = move(price["min"]), move(price["max"])


def test_equal_figures_are_no_drift(old, new):
    drifts = compare(old, new, SCHEMA)
    assert len(drifts) == 2 * (1 + 2 + 1 + 3)  # new tokens, labels, numbers, coverages
    assert {(drift.amount, drift.verdict) for drift in drifts} == {(0.0, "within")}
    assert describe(drifts) == "drift: 14 of 14 figures are within their limits or have no data"
    refuse(drifts, "OLD", "NEW")


def test_new_tokens_are_those_beyond_the_old_share(old, new):
    old["quality"]["train"]["feed"]["item_id"] |= {"oov": 1000}
    new["quality"]["train"]["feed"]["item_id"] |= {"oov": 3500}
    drift = worst(old, new)
    assert (drift.kind, drift.scenario, drift.name, drift.verdict) == ("new_tokens", "feed", "item_id", "beyond")
    assert (drift.old, drift.new, drift.amount) == (0.1, 0.35, pytest.approx(0.25))


def test_fewer_tokens_out_of_vocabulary_are_no_drift(old, new):
    old["quality"]["train"]["feed"]["item_id"] |= {"oov": 9000}
    assert worst(old, new).verdict == "within"


def test_tokens_that_a_vocabulary_grew_by_are_new(old, new):
    new["quality"]["train"]["search"]["item_id"] |= {"oov": 1000}
    new["growth"] = {"item_id": {"old": 50, "new": 60, "appended_values": 5000, "values": 20_000}}
    drift = worst(old, new)
    assert (drift.kind, drift.scenario, drift.name) == ("new_tokens", None, "item_id")
    assert (drift.old, drift.new, drift.verdict) == (0.0, 0.3, "beyond")
    assert sum(drift.kind == "new_tokens" for drift in compare(old, new, SCHEMA)) == 1


def test_a_label_rate_drifts_by_its_share_of_the_old_rate(old, new):
    new["splits"]["train"]["search"]["ctr"] = 640
    drift = worst(old, new)
    assert (drift.kind, drift.scenario, drift.name, drift.verdict) == ("label_rate", "search", "ctr", "beyond")
    assert (drift.old, drift.new, drift.amount) == (0.04, 0.064, pytest.approx(0.6))
    assert worst(old, new, label_rate=0.61).verdict == "within"


def test_a_label_that_first_occurs_has_no_measure_but_is_told(old, new):
    for stats in (old, new):
        stats["splits"]["train"]["search"]["ctr"] = 0
    assert worst(old, new).amount == 0
    new["splits"]["train"]["search"]["ctr"] = 40
    drift = worst(old, new)
    assert (drift.amount, drift.verdict) == (math.inf, "beyond")
    assert document([drift])[0]["amount"] is None
    new["splits"]["train"]["search"]["ctr"] = 1
    assert worst(old, new).verdict == "chance"


@pytest.mark.parametrize(("impressions", "clicks", "verdict"), [(20, 4, "chance"), (2000, 400, "beyond")])
def test_chance_explains_a_rate_of_few_rows(old, new, impressions, clicks, verdict):
    new["splits"]["train"]["search"] = {"impressions": impressions, "ctr": clicks, "global_ctr": clicks}
    assert worst(old, new).verdict == verdict


def test_no_positive_among_few_rows_does_not_make_a_rare_label_new(old, new):
    old["splits"]["train"]["search"] = {"impressions": 40, "ctr": 0, "global_ctr": 3}
    new["splits"]["train"]["search"] = {"impressions": 10_000, "ctr": 100, "global_ctr": 750}
    assert (worst(old, new).amount, worst(old, new).verdict) == (math.inf, "chance")


@pytest.mark.parametrize(("rows", "verdict"), [(1, "chance"), (29, "chance"), (30, "beyond")])
def test_below_thirty_rows_nothing_fails(old, new, rows, verdict):
    features = new["quality"]["train"]["feed"]
    features["item_id"] |= {"rows": rows, "coverage": 0.0, "values": rows, "oov": rows}
    features["color"] |= {"rows": rows, "coverage": 0.0}
    features["price"] |= {"rows": rows}
    shift_prices(features, lambda price: 1e6)
    drifts = compare(old, new, SCHEMA)[:4]
    assert {drift.kind for drift in drifts} == {"new_tokens", "coverage", "numeric_shift"}
    assert {drift.verdict for drift in drifts} == {verdict}


def test_coverage_drifts_both_ways(old, new):
    old["quality"]["train"]["search"]["color"] |= {"coverage": 0.5}
    new["quality"]["train"]["feed"]["color"] |= {"coverage": 0.7}
    drifts = compare(old, new, SCHEMA)[:2]
    assert [(drift.kind, drift.scenario, drift.amount) for drift in drifts] == [
        ("coverage", "search", 0.5),
        ("coverage", "feed", pytest.approx(0.3)),
    ]
    assert {drift.verdict for drift in drifts} == {"beyond"}


def test_a_number_drifts_by_the_quantile_that_moved_most(old, new):
    shift_prices(new["quality"]["train"]["search"], lambda price: 2 * price)
    drift = worst(old, new)
    assert (drift.kind, drift.name, drift.old, drift.new) == ("numeric_shift", "price p95", 95.0, 190.0)
    assert (drift.amount, drift.verdict) == (pytest.approx(95 / 90), "beyond")


def test_a_constant_that_changes_has_no_measure_but_is_told(old, new):
    for stats, constant in ((old, 5.0), (new, 5.0)):
        shift_prices(stats["quality"]["train"]["search"], lambda _, constant=constant: constant)
        stats["quality"]["train"]["search"]["price"]["std"] = 0.0
    assert worst(old, new).verdict == "within"
    shift_prices(new["quality"]["train"]["search"], lambda _: 7.0)
    assert (worst(old, new).amount, worst(old, new).verdict) == (math.inf, "beyond")


def test_a_rare_value_that_becomes_as_frequent_as_a_quantile_is_no_drift(old, new):
    """Four in a hundred, then six: p95 goes from 0 to 1, the distribution hardly moves."""
    for stats, level in ((old, 0.96), (new, 0.94)):
        price = stats["quality"]["train"]["search"]["price"]
        price |= {"min": 0.0, "max": 1.0, "std": math.sqrt(level * (1 - level))}
        price["quantiles"] = {name: float(quantile > level) for name, quantile in QUANTILES.items()}
    drift = worst(old, new)
    assert (drift.name, drift.amount, drift.verdict) == ("price p95", pytest.approx(1 / 0.1959592), "chance")


def test_a_jump_by_chance_does_not_hide_a_smaller_move(old, new):
    old["quality"]["train"]["search"]["price"]["max"] = 1e6
    old["quality"]["train"]["search"]["price"]["quantiles"]["p99"] = 1e4
    new["quality"]["train"]["search"]["price"]["quantiles"] |= {"p75": 94.0, "p95": 150.0, "p99": 1e4}
    drift = worst(old, new, numeric_shift=0.1)
    assert (drift.name, drift.amount, drift.verdict) == ("price p75", pytest.approx(19 / 90), "beyond")


def test_a_scenario_or_feature_without_rows_is_no_drift(old, new):
    for part in (new["quality"]["train"], new["splits"]["train"]):
        del part["feed"]
    new["quality"]["train"]["search"]["price"] |= {"coverage": 0.0, "quantiles": None}
    new["quality"]["train"]["search"]["item_id"] |= {"rows": 0, "coverage": None, "values": 0}
    drifts = compare(old, new, SCHEMA)
    assert sum(drift.verdict == "no data" for drift in drifts) == 7 + 3
    assert [drift.kind for drift in drifts if drift.verdict == "beyond"] == ["coverage"]  # every price is gone
    json.dumps(document(drifts), allow_nan=False)


def test_the_worst_comes_first_and_is_what_refuses(old, new):
    new["splits"]["train"]["search"]["ctr"] = 640  # 0.6 of a limit of 0.5
    new["quality"]["train"]["feed"]["item_id"] |= {"oov": 8000}  # 0.8 of a limit of 0.2
    drifts = compare(old, new, SCHEMA)
    assert describe(drifts).splitlines() == [
        "drift       scenario  name     old   new    amount  limit  verdict",
        "new_tokens  feed      item_id  0     0.8    0.8     0.2    beyond",
        "label_rate  search    ctr      0.04  0.064  0.6     0.5    beyond",
        "drift: 12 of 14 figures are within their limits or have no data",
    ]
    with pytest.raises(InputError) as refused:
        refuse(drifts, "OLD", "NEW")
    assert str(refused.value) == (
        "NEW: found new_tokens 0.8 of feed item_id (from 0 in OLD to 0.8; 1 more beyond their limits), "
        "expected at most 0.2, or a wider --drift_limit new_tokens=NUMBER"
    )


def test_drifts_become_json(old, new):
    new["quality"]["train"]["feed"]["item_id"] |= {"oov": 8000}
    assert document(compare(old, new, SCHEMA))[0] == {
        "kind": "new_tokens",
        "scenario": "feed",
        "name": "item_id",
        "old": 0.0,
        "new": 0.8,
        "amount": 0.8,
        "significant": True,
        "limit": 0.2,
        "verdict": "beyond",
    }


def test_limits_are_read_from_settings():
    assert parse_limits([], DriftLimits) == DriftLimits(new_tokens=0.2, label_rate=0.5, numeric_shift=0.5, coverage=0.2)
    assert parse_limits(["new_tokens=0.3", "coverage=0"], DriftLimits) == DriftLimits(new_tokens=0.3, coverage=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tokens=1"], "--drift_limit: tokens: found an unknown key, expected one of coverage, label_rate"),
        (["new_tokens"], "--drift_limit: found 'new_tokens', expected KIND=NUMBER"),
        (["coverage=1", "coverage=2"], "--drift_limit: found 'coverage=2', expected KIND=NUMBER, each kind once"),
        (["coverage=high"], "--drift_limit: coverage: found 'high', expected a number"),
        (["coverage=-1"], "--drift_limit: coverage: found '-1', expected greater than or equal to 0"),
        (["coverage=nan"], "--drift_limit: coverage: found 'nan', expected a finite number"),
    ],
)
def test_a_setting_that_is_no_limit_is_refused(settings, message):
    with pytest.raises(InputError) as refused:
        parse_limits(settings, DriftLimits)
    assert str(refused.value).startswith(message)
