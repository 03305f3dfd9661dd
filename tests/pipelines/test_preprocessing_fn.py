"""Preprocessing function: ids, missing values and numbers by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from pipelines.transform.preprocessing_fn import AGE_BUCKETS, raw_feature_spec
from tests.pipelines.tiny import parse_rows


@pytest.fixture(scope="module")
def apply(made):
    """A function from one raw row to its transformed features, as lists."""
    output = tft.TFTransformOutput(str(made.data / "transform"))
    layer, spec = output.transform_features_layer(), raw_feature_spec(made.shop.schema)

    def transform(**values):
        inputs = {}
        for name, kind in spec.items():
            if isinstance(kind, tf.io.FixedLenFeature):
                inputs[name] = tf.constant([values.get(name, "")])
            else:
                inputs[name] = tf.sparse.from_dense(np.zeros([1, 0], kind.dtype.as_numpy_dtype))
                if values.get(name):
                    given = tf.constant([values[name]], kind.dtype)
                    places = tf.where(tf.ones_like(given, tf.bool))
                    inputs[name] = tf.SparseTensor(places, given[0], given.shape)
        found = layer(inputs)
        return {
            name: (value.values if isinstance(value, tf.SparseTensor) else value).numpy().tolist()
            for name, value in found.items()
        }

    return transform


@pytest.fixture(scope="module")
def vocabulary(made):
    output = tft.TFTransformOutput(str(made.data / "transform"))
    return lambda name: [word.decode() for word in output.vocabulary_by_name(name)]


def test_ids_are_0_for_missing_then_the_unknown_then_the_vocabulary(apply, vocabulary):
    items = vocabulary("item_id")
    assert sorted(items) == sorted(f"i{number}" for number in range(15))
    for place, item in enumerate(items):
        assert apply(item_id=item)["item_id"] == [place + 2]
    assert apply(item_id="")["item_id"] == [0]
    assert apply(item_id="never seen")["item_id"] == [1]
    past = apply(history_item_id=[items[3], "", "never seen", items[0]])
    assert past["history_item_id"] == [5, 0, 1, 2]


def test_a_feature_that_shares_has_the_ids_of_the_other(apply, made):
    text = "Green tea unasked-for"
    asked, titled = (apply(**{name: text})[name] for name in ("query", "title"))
    assert asked == titled
    assert titled[2] == 1 < min(titled[:2])
    assert not list((made.data / "transform").rglob("*title*"))


def test_a_feature_without_a_value_in_training_knows_only_missing_and_unknown(apply):
    missing, unseen, another = (apply(place=value)["place"][0] for value in ("", "home", "moon"))
    assert missing == 0
    assert unseen == another > 0


def test_a_vocabulary_leaves_out_what_training_holds_too_seldom(made, vocabulary):
    shown = [row["raw_user_id"][0] for row in parse_rows(made.data, "train")]
    assert sorted(vocabulary("user_id")) == sorted({user for user in shown if shown.count(user) >= 2})


def test_lists_and_texts_are_cut_to_their_length_without_their_blanks(apply, vocabulary):
    words = vocabulary("words")
    ids = {word: place + 2 for place, word in enumerate(words)}
    assert apply(words=["", words[2], words[0], words[1]])["words"] == [ids[words[2]], ids[words[0]]]
    assert apply()["words"] == apply(words=[""])["words"] == []
    tokens = {word: place + 2 for place, word in enumerate(vocabulary("query"))}
    assert {"green", "tea", "oat", "milk", "now", "茶"} == set(tokens)  # "or never" lies beyond the third
    assert apply(query="  GREEN  tea now milk")["query"] == [tokens["green"], tokens["tea"], tokens["now"]]
    assert apply(query="")["query"] == []


def test_numbers_are_centred_and_scaled_by_the_training_rows_that_have_them(apply, made):
    prices = {row["item_id"]: row["price"] for row in made.shop.tables["items"]}
    rows = [prices[row["raw_item_id"][0]] for row in parse_rows(made.data, "train")]
    logs = np.log1p([price for price in rows if price is not None])
    for price in (0.0, 12.5, -3.0, 1e3):
        expected = (math.copysign(math.log1p(abs(price)), price) - logs.mean()) / logs.std()
        assert apply(price=[price])["price"] == [pytest.approx(expected, rel=1e-4)]
    assert apply()["price"] == apply(price=[math.nan])["price"] == apply(price=[math.inf])["price"] == [0.0]
    assert apply(weight=[-0.25])["weight"] == [-0.25]


def test_outliers_are_clamped_to_bounds_that_the_transform_tells(apply):
    def bounds_of(name):
        bounds = np.array([apply(**{name: [far]})[f"packed_bounds_{name}"] for far in (-3e38, 3e38)])
        np.testing.assert_array_equal(np.isnan(bounds), [[[False, True]], [[True, False]]])
        return bounds[0, 0, 0], bounds[1, 0, 1]

    (low, high), (lightest, heaviest) = bounds_of("price"), bounds_of("weight")
    assert -1e3 < low < -10 < 1e3 < high < 1e6
    assert -10 < lightest < -1 < 1 < heaviest < 10
    for price, bound in ((-1e20, low), (1e20, high)):
        assert apply(price=[price])["price"] == apply(price=[float(bound)])["price"]
    assert apply(weight=[1e9])["weight"] == [heaviest]
    for ordinary in (20.0, math.nan):
        assert np.isnan(apply(price=[ordinary])["packed_bounds_price"]).all()


def test_history_names_are_places_in_the_schema_and_ages_powers_of_two_seconds(apply):
    past = apply(
        history_action=["click", "purchase", "cart"],
        history_scenario=["recommendation", "", "search"],
        history_age=[0, 1_000, 2**62],
    )
    assert past["history_action"] == [1, 2, 0]
    assert past["history_scenario"] == [2, 0, 1]
    assert past["history_age"] == [1, 2, AGE_BUCKETS]
    assert apply(history_age=[999, 3_000, 7_100])["history_age"] == [1, 3, 4]


def test_hashed_values_stay_within_their_buckets_and_0_is_missing(apply):
    ids = {value: apply(device=value)["device"][0] for value in ("", "ios", "android", "watch", "🤖")}
    assert ids.pop("") == 0
    assert all(1 <= number <= 8 for number in ids.values())
