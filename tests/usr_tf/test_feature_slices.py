"""Slices by features: parts and their names by hand, and on the toy shop against its logs."""

import json

import numpy as np
import pytest

from usr_tf.cli import main
from usr_tf.data import Data
from usr_tf.data.raw_values import RawValues
from usr_tf.evaluate import evaluate, predict
from usr_tf.evaluation.feature_slices import feature_slices
from usr_tf.evaluation.report import RowText
from usr_tf.evaluation.row_texts import row_texts
from usr_tf.metrics.feature_slices import UNKNOWN, length_slice, number_slice, value_slice
from usr_tf.run import Run
from usr_tf.schema import parse_schema

NAMES = {1: UNKNOWN, 2: UNKNOWN, 3: "tea", 4: "cake", 5: "soap", 6: "tea"}


@pytest.fixture(scope="module")
def raw(toy_data):
    return RawValues(toy_data.schema, toy_data.directory / "transform")


@pytest.fixture(scope="module")
def sliced(toy_run, toy_data, raw):
    """Predictions of the test split, and the slices by each of some features."""
    names = ["item_id", "price", "spend", "tags", "query", "device"]
    rows = predict(toy_run.load_model(), toy_data, "test", features=names)
    return rows, feature_slices(rows.features, toy_data, "test", raw)


def test_values_come_by_frequency_and_the_rest_are_other_unknown_and_missing():
    ids = np.array([3, 0, 4, 1, 6, 4, 2, 5, 3, 0])  # 3 and 6 are of one text
    parts = value_slice(ids, NAMES.get, most=2)
    assert list(parts) == [
        *("tea", "(missing)", "cake", "(unknown)", "tea", "cake", "(unknown)", "(other)", "tea", "(missing)")
    ]
    assert list(parts.categories) == ["tea", "cake", "(other)", "(unknown)", "(missing)"]
    assert list(value_slice(np.array([4, 3]), NAMES.get).categories) == ["cake", "tea"]  # as frequent: by name
    assert list(value_slice(np.zeros(0, int), NAMES.get)) == []


def test_numbers_are_cut_at_their_quartiles_and_named_by_their_ends():
    numbers, missing = np.array([7.0, 1, 2, 3, 4, 5, 6, 8, 0]), np.arange(9) == 8
    parts = number_slice(numbers, missing, lambda scaled: scaled * 1000)
    assert list(parts.categories) == [
        *("1,000 to 2,000", "3,000 to 4,000", "5,000 to 6,000", "7,000 to 8,000", "(missing)")
    ]
    assert list(parts.codes) == [3, 0, 0, 1, 1, 2, 2, 3, 4]


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        ([5, 5, 5, 5, 9, 7], ["5", "7", "9"]),
        ([0, 1, 2, 9, 9, 9, 9, 9], ["0 to 1", "2", "9"]),  # the most frequent maximum is alone
        ([3, 3], ["3"]),
        ([1.0001, 1.0002, 1.0003, 1.0004], ["1.0001", "1.0002", "1.0003", "1.0004"]),
        ([-3, -1, 0.05, 2e20], ["−3", "−1", "0.05", "2e+20"]),
        ([], []),
    ],
)
def test_equal_numbers_stay_together_and_bounds_have_as_many_digits_as_tell_them_apart(numbers, names):
    numbers = np.array(numbers, float)
    assert list(number_slice(numbers, np.zeros(len(numbers), bool), lambda scaled: scaled).categories) == names


def test_rows_without_any_number_are_one_part():
    parts = number_slice(np.zeros(2), np.ones(2, bool), lambda scaled: scaled, "(missing) or 3")
    assert list(parts) == ["(missing) or 3"] * 2


def test_lists_and_texts_are_sliced_by_length():
    assert list(length_slice(np.array([0, 1, 2, 3, 4, 5, 8, 9]))) == ["0", "1", "2", "3-4", "3-4", "5-8", "5-8", "9+"]


def test_raw_numbers_are_the_logs_own(toy_data, raw):
    """The price of the toy shop's item `i07` is 7; `i00` has none."""
    features, _, keys = next(iter(toy_data.evaluation(500, "test")))
    prices = np.array([int(item[1:]) for item in keys["raw_item_id"].numpy()])
    found = raw.numbers("price", features["price"].numpy())
    np.testing.assert_allclose(found[prices > 0], prices[prices > 0], rtol=1e-5)


def test_raw_numbers_of_clamped_values_are_the_bounds_and_those_of_a_constant_are_not_known(toy_data, monkeypatch):
    raw = RawValues(toy_data.schema, toy_data.directory / "transform")
    monkeypatch.setattr(raw, "_scaled", lambda _: lambda numbers: _Eager(np.clip(numbers, -2, 3) / 4))
    assert raw.numbers("price", np.array([-0.5, 0, 0.125, 0.75], np.float32)).tolist() == [-2, 0, 0.5, 3]
    monkeypatch.setattr(raw, "_scaled", lambda _: lambda numbers: _Eager(numbers * 0))
    assert np.isnan(raw.numbers("price", np.zeros(1, np.float32)))


def test_words_come_from_the_vocabulary_of_the_feature_that_owns_it(toy_data, monkeypatch):
    schema = parse_schema(
        """
        scenarios: [search]
        tasks: [{name: ctr, action: click}]
        features:
          query: {group: query, type: text, oov_buckets: 2}
          title: {group: item, type: text, shares: query}
          name: {group: item, type: text, tokenizer: character}
          tags: {group: item, type: categorical_list, hash_buckets: 9}
        """
    )
    raw = RawValues(schema, toy_data.directory / "transform")
    vocabularies = {"query": [b"red", "thé".encode()], "name": [b"a", b"b"]}
    monkeypatch.setattr(raw, "_vocabulary", vocabularies.get)
    # 0 pads, 1 and 2 are out-of-vocabulary buckets.
    assert raw.text("title", np.array([4, 1, 3, 0])) == "thé (unknown) red"
    assert raw.text("name", np.array([3, 2, 0])) == "ba"
    assert raw.text("tags", np.array([7, 2])) == "#7 #2"
    assert raw.text("query", np.array([0, 0])) == ""
    assert [name for name in schema.features if raw.has_words(name)] == ["query", "title", "name"]


def test_slices_of_the_toy_shop_are_what_its_logs_say(sliced):
    rows, slices = sliced
    number = np.array([int(item[1:]) for item in rows.item])
    user = np.array([int(user[1:]) for user in rows.user])
    for name, column, without in (("price", number, number == 0), ("spend", user / 40, user % 3 == 0)):
        parts = slices[f"feature:{name}"]
        assert len(parts.categories) == 5
        assert parts.categories[-1] == "(missing)"
        np.testing.assert_array_equal(parts == "(missing)", without)
        for part in parts.categories[:-1]:
            low, high = map(float, part.split(" to "))
            inside = column[parts == part]
            assert (inside.min(), inside.max()) == (pytest.approx(low), pytest.approx(high))
    items = slices["feature:item_id"]
    assert len(items.categories) == 11  # ten items, and the others
    for part, item in zip(items, rows.item, strict=True):
        assert part in (item.decode(), "(other)")
    lengths = np.minimum(number % 4, 2)  # of at most two tags
    np.testing.assert_array_equal(slices["feature:tags"], lengths.astype(str))
    np.testing.assert_array_equal(slices["feature:query"], np.where(rows.scenario == 0, "2", "0"))
    assert all(part.startswith("#") for part in slices["feature:device"].categories)  # hashes have no names


def test_missing_numbers_are_not_told_from_those_at_zero_where_there_are_any(sliced, toy_data, raw, monkeypatch):
    """`spend` is not scaled, so a spend of 0 is stored as a missing one is."""
    rows, _ = sliced
    some = int(np.count_nonzero(rows.features["spend"] == 0))
    for without, names in ((some - 1, {"(missing) or 0"}), (0, set())):
        monkeypatch.setattr(Data, "rows_without", lambda *_, without=without: without)
        parts = feature_slices({"spend": rows.features["spend"]}, toy_data, "test", raw)["feature:spend"]
        assert {part for part in parts.categories if "missing" in part} == names


def test_a_report_with_slices_by_features(toy_run, toy_data, sliced, tmp_path):
    names = ["price", "item_id"]
    _, details = evaluate(toy_run, toy_data, tmp_path / "report", replicates=2, slices=names)
    rows, slices = sliced
    for name in names:
        expected = slices[f"feature:{name}"]
        found = details["overall"]["ctr"]["slices"][f"feature:{name}"]
        assert [part["value"] for part in found] == list(expected.categories)
        for part in found:
            inside = rows.only(expected == part["value"])
            assert (part["n"], part["positives"]) == (len(inside), inside.labels["ctr"].sum())
    report = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "AUC of ctr by price" in report
    assert "--slice price,item_id" in report
    assert json.loads((tmp_path / "report" / "details.json").read_text()) == details


def test_an_unknown_feature_is_refused_in_one_line_before_the_work(toy_run, tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(Run, "load_model")
    out = tmp_path / "report"
    flags = ["--slice=device, price", "--slice=nonsense"]  # given twice, both count
    assert main(["evaluate", f"--run={toy_run.directory}", *flags, f"--out={out}"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "--slice: found 'nonsense', expected one of user_id, interests, spend, item_id, " in error
    assert not out.exists()


@pytest.mark.parametrize("batch_size", [64, 4096])
def test_texts_of_a_few_rows_are_those_of_the_same_rows_in_order(toy_data, batch_size):
    class Ids:
        """Every feature has words; a text is its ids."""

        def has_words(self, name):
            return True

        def text(self, name, ids):
            return f"{name} {np.ravel(ids).tolist()}"

    queries, titles = [], []
    for features, _, _ in toy_data.evaluation(batch_size, "test"):
        queries += [_trimmed(ids) for ids in features["query"].numpy()]
        titles += [_trimmed(ids) for ids in features["title"].numpy()]
    chosen = [0, 63, 64, len(queries) - 1, 64]
    found = row_texts(toy_data, "test", chosen, batch_size, Ids())
    assert found.keys() == set(chosen)
    for row, text in found.items():
        assert isinstance(text, RowText)
        assert _trimmed(json.loads(text.query.removeprefix("query "))) == queries[row]
        assert _trimmed(json.loads(text.title.removeprefix("title "))) == titles[row]


def test_hashed_words_give_no_texts(toy_data, raw):
    assert row_texts(toy_data, "test", [0], 64, raw) == {}


class _Eager:
    """As a tensor."""

    def __init__(self, values):
        self._values = values

    def numpy(self):
        return self._values


def _trimmed(ids):
    """Without padding, which is as wide as the widest of a batch."""
    return [int(number) for number in ids if number]
