"""Robust scaling: outliers do not affect other numbers; columns without any keep exact moments."""

import json

import numpy as np
import pytest
import tensorflow as tf

from pipelines.transform.scaling import QUANTILES, Scale, Scaled, find_scale, shorten, standardise
from tests.pipelines.tiny import parse_rows, write_logs
from usr_tf.cli import main

ROWS = 4_000
DRAW = np.random.default_rng(1)
NORMAL = DRAW.normal(50, 10, ROWS)
PRICES = DRAW.lognormal(3, 1, ROWS)
COUNTS = np.where(DRAW.random(ROWS) < 0.9, 0, DRAW.geometric(0.1, ROWS))
ORDINARY = {
    "normal": NORMAL,
    "prices": PRICES,
    "counts, most of them 0": COUNTS,
    "a heavy tail": DRAW.lognormal(3, 1.5, ROWS),
    "two modes": np.where(DRAW.random(ROWS) < 0.7, DRAW.random(ROWS), 5_000 + 1_000 * DRAW.random(ROWS)),
    "a rare flag": np.arange(ROWS) == 7,
    "negative": -PRICES,
    "a moment in ns": 1.7e18 + 1e15 * DRAW.random(ROWS),
    "tiny": 1e-12 * NORMAL,
    "constant": np.full(ROWS, 5.0),
}
SENTINELS = (3e38, -3e38, 1e20, -1e9, 9.99e8)


def scale(numbers: np.ndarray, transform: str = "standard", training: np.ndarray | None = None):
    """`[n]` numbers and `[n, 2]` bounds by the exact quantiles of `training`; of the numbers themselves if None."""
    training = (numbers if training is None else training).astype(np.float32)
    if transform == "log":
        training = log(training)
    levels = np.arange(QUANTILES + 1) / QUANTILES
    found = find_scale(np.quantile(training.astype(np.float64), levels, method="inverted_cdf"), transform)
    with np.errstate(over="ignore", invalid="ignore"):  # as TensorFlow's float32 moments do
        moments = training.mean(dtype=np.float32), training.var(dtype=np.float32)
    scaled, bounds = standardise(tf.constant(numbers, tf.float32), transform, Scale(*np.float32(found)), *moments)
    return scaled.numpy(), bounds.numpy()


def log(numbers: np.ndarray) -> np.ndarray:
    return np.sign(numbers) * tf.math.log1p(np.abs(numbers)).numpy()


def replace(numbers: np.ndarray, sentinel: float, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The numbers with an even `share` of them replaced, and where."""
    places = np.arange(len(numbers)) % round(1 / share) == 3
    return np.where(places, sentinel, numbers), places


@pytest.mark.parametrize("transform", ["standard", "log", "none"])
@pytest.mark.parametrize("name", ORDINARY)
def test_a_column_without_outliers_keeps_the_numbers_of_plain_standardisation(name, transform):
    raw = ORDINARY[name].astype(np.float32)
    plain = log(raw) if transform == "log" else raw
    if transform != "none":
        std = plain.std(dtype=np.float32)
        plain = (plain - plain.mean(dtype=np.float32)) / std if std else np.zeros_like(plain)
    numbers, bounds = scale(raw, transform)
    assert np.isnan(bounds).all()
    np.testing.assert_allclose(numbers, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("share", [1 / ROWS, 0.02, 0.03], ids="{:.2%}".format)
@pytest.mark.parametrize("sentinel", SENTINELS)
@pytest.mark.parametrize("name", ["normal", "prices", "counts, most of them 0", "two modes"])
def test_outliers_are_clamped_and_the_other_numbers_stay_apart(name, sentinel, share):
    clean = ORDINARY[name]
    dirty, places = replace(clean, sentinel, share)
    numbers, bounds = scale(dirty)
    side = int(sentinel > 0)
    assert np.isnan(bounds[:, 1 - side]).all()
    np.testing.assert_array_equal(np.isfinite(bounds[:, side]), places)
    assert np.abs(numbers).max() < 100
    np.testing.assert_allclose(numbers[~places], scale(clean)[0][~places], rtol=0.2, atol=0.05)
    np.testing.assert_array_equal(scale(dirty, "none")[0][~places], np.float32(clean[~places]))


@pytest.mark.parametrize("sentinel", SENTINELS)
@pytest.mark.parametrize("name", ["normal", "prices", "counts, most of them 0"])
def test_logarithms_stay_apart_too(name, sentinel):
    dirty, places = replace(ORDINARY[name], sentinel, 0.03)
    numbers, _ = scale(dirty, "log")
    assert np.abs(numbers).max() < 50
    assert numbers[~places].std() > 0.15


@pytest.mark.parametrize("transform", ["standard", "log", "none"])
@pytest.mark.parametrize(
    "numbers",
    [
        *(replace(np.full(ROWS, 5.0), sentinel, 1 / ROWS)[0] for sentinel in SENTINELS),
        np.where(NORMAL < 55, 3e38, NORMAL),
        np.where(NORMAL < 55, -3e38, 3e38),
        1e37 * PRICES.clip(0, 30),
        np.array([1.0, 3e38, 2.0]),
        np.array([3e38]),
    ],
)
def test_whatever_the_column_the_numbers_are_finite(numbers, transform):
    numbers, _ = scale(numbers, transform)
    assert np.isfinite(numbers).all()


def test_numbers_far_larger_than_the_variance_of_a_float32_stay_apart():
    numbers, bounds = scale(1e25 * NORMAL)
    assert np.isnan(bounds).all()
    np.testing.assert_allclose(numbers, (NORMAL - NORMAL.mean()) / NORMAL.std(), rtol=0.02, atol=0.02)


def test_bounds_by_hand():
    training = np.repeat(np.arange(101.0), 10)  # a range of 100: the bounds are -200 and 300
    served = np.array([-3e38, -201, -199, 50, 299, 301, 3e38])
    numbers, bounds = scale(served, "none", training)
    np.testing.assert_array_equal(numbers, np.float32([-200, -200, -199, 50, 299, 300, 300]))
    np.testing.assert_array_equal(bounds, np.float32([[-200, np.nan]] * 2 + [[np.nan] * 2] * 3 + [[np.nan, 300]] * 2))
    dirty = np.where(np.arange(len(training)) % 50 == 0, 1e9, training)
    np.testing.assert_array_equal(scale(served, "none", dirty)[1], bounds)
    logs, of_logs = scale(np.expm1([29, 50]), "log", np.expm1(training / 10))  # logarithms of 0 to 10: -20 to 30
    np.testing.assert_allclose(logs, (np.array([29, 30]) - 5) / (training / 10).std(), rtol=1e-5)
    np.testing.assert_allclose(of_logs, [[np.nan, np.nan], [np.nan, np.expm1(30)]], rtol=1e-5)
    constant, _ = scale(np.array([-11, 14, 16.0]), "none", np.full(9, 5.0))
    np.testing.assert_array_equal(constant, np.float32([-5, 14, 15]))


def test_a_column_without_a_number_in_training_has_no_bounds():
    found = Scale(*np.float32(find_scale(np.array([]), "standard")))
    numbers, bounds = standardise(tf.constant([-2, 7e5]), "none", found, tf.constant(0.0), tf.constant(0.0))
    np.testing.assert_array_equal(numbers, np.float32([-2, 7e5]))
    assert np.isnan(bounds).all()


def test_vectors_are_shortened_to_the_bound_and_others_stay_to_the_bit():
    vectors = np.float32([[3e38, -1.5e38], [-8, 2], [0.1, 0.7], [0, 0]])
    bounds = tf.constant([[np.nan, 4], [np.nan, 4], [0, np.nan], [np.nan, np.nan]])  # a lower bound is of no vector
    found, found_bounds = shorten(
        tf.constant(vectors), tf.constant([3e38, 8, 0.7, 0]), Scaled(tf.constant([4, 4, 0.7, 0]), bounds)
    )
    np.testing.assert_array_equal(found, [[4, -2], [-4, 1], *vectors[2:]])
    np.testing.assert_array_equal(found_bounds, [[np.nan, 4], [np.nan, 4], [np.nan, np.nan], [np.nan, np.nan]])


def test_sizes_of_vectors_are_clamped_to_three_times_the_largest_that_is_no_outlier():
    for sizes in (np.ones(ROWS), 1 - DRAW.random(ROWS) / 2, DRAW.random(ROWS) < 0.5):  # of one-hot vectors all are 1
        for sentinel in (3e38, 1e20, 1e9):
            found = find_scale(np.sort(replace(sizes, sentinel, 0.02)[0]), "vector")
            assert found.high == pytest.approx(3 * sizes.max())


SCHEMA = """
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
split: {valid: 0.2, test: 0.2}
features:
  item_id: {group: item, type: categorical}
  views: {group: item, type: numeric}
  weight: {group: item, type: numeric, transform: none}
  look: {group: item, type: vector, width: 2}
"""


def test_preprocess_counts_outliers_and_warns_of_them(tmp_path, capsys):
    """Item 3 of 40 has 3e38 views and such a vector; item 39, which comes after training, weighs -1e9.

    An item has a row a split.
    """
    impressions = [
        {"request_id": f"r{n}", "scenario": ("search", "feed")[n % 2], "user_id": "u", "item_id": f"i{n % 39}"}
        | {"timestamp": n * 60_000}
        for n in range(195)
    ]
    impressions[-1]["item_id"] = "i39"
    click = {"user_id": "u", "item_id": "i0", "timestamp": 5, "action": "click"}
    items = [{"item_id": f"i{n}", "views": float(n), "weight": n / 10, "look": [1.0, n / 100]} for n in range(40)]
    items[3] |= {"views": 3e38, "look": [3e38, -1.5e38]}
    items[39]["weight"] = -1e9
    logs = write_logs(tmp_path / "logs", SCHEMA, {"impressions": impressions, "actions": [click], "items": items})
    warnings = []
    for out, more in (("data", []), ("again", ["--transform", str(tmp_path / "data")])):
        assert main(["preprocess", "--logs", str(logs), "--out", str(tmp_path / out), *more]) == 0
        printed = capsys.readouterr().out
        warnings.append([line for line in printed.splitlines() if line.startswith("warning")])
    assert warnings[1] == warnings[0]
    assert warnings[0] == [
        "warning: views: outliers clamped to at most 114: "
        "3 of 117 numbers in train, 1 of 39 numbers in valid, 1 of 39 numbers in test",
        "warning: weight: outliers clamped to at least -7.6: "
        "0 of 117 numbers in train, 0 of 39 numbers in valid, 1 of 39 numbers in test",
        "warning: look: outliers clamped to at most 3: "
        "3 of 117 numbers in train, 1 of 39 numbers in valid, 1 of 39 numbers in test",
    ]
    stats = json.loads((tmp_path / "data" / "stats.json").read_text(encoding="utf-8"))
    found = {scenario: stats["quality"]["train"][scenario]["views"]["clamped"] for scenario in ("search", "feed")}
    assert found["search"] == {"below": 0, "low": None, "above": 1, "high": 114.0}  # rows 3, 42 and 81
    assert found["feed"] == {"below": 0, "low": None, "above": 2, "high": 114.0}
    rows = parse_rows(tmp_path / "data", "train")
    views = {row["raw_item_id"][0]: row["views"][0] for row in rows}
    plain = np.arange(39.0)[np.arange(39) != 3]
    expected = {f"i{n:.0f}": (n - plain.mean()) / plain.std() for n in plain}
    for item, number in expected.items():
        assert views[item] == pytest.approx(number, abs=0.02)
    assert views["i3"] == pytest.approx((114 - plain.mean()) / plain.std(), rel=0.02)
    looks = {row["raw_item_id"][0]: row["look"] for row in rows}
    expected = {f"i{n}": np.float32([1.0, n / 100]).tolist() for n in range(39)}
    assert looks == expected | {"i3": [3.0, -1.5]}  # the largest component of the others is 1, and they are constant
    again = parse_rows(tmp_path / "again", "test")
    assert sorted(map(repr, again)) == sorted(map(repr, parse_rows(tmp_path / "data", "test")))
    assert min(row["weight"][0] for row in again) == pytest.approx(-7.6)
