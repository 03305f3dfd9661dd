import gzip
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipelines import shop
from pipelines.simulate import simulate
from usr_tf.errors import InputError
from usr_tf.schema import load_schema

IMPRESSIONS = 60_004  # the last slate is cut short
HOUR_MS = 3_600_000
KEYS = ["request_id", "scenario", "user_id", "item_id"]


def read(logs, table):
    rows = []
    for path in sorted(logs.glob(f"{table}-*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    return pd.DataFrame(rows)


def with_labels(logs):
    """Impressions with scenario labels by DESIGN §2: of this request, within an hour, a purchase after a click."""
    impressions, actions = read(logs, "impressions"), read(logs, "actions")
    for task, action in (("ctr", "click"), ("ctcvr", "purchase")):
        done = actions[actions.action == action][[*KEYS, "timestamp"]].rename(columns={"timestamp": "at"})
        joined = impressions[[*KEYS, "timestamp"]].merge(done, on=KEYS, how="left", validate="one_to_one")
        after = joined["at"] - joined["timestamp"]
        impressions[task] = (after.between(1, HOUR_MS)).to_numpy()
    impressions["ctcvr"] &= impressions["ctr"]
    return impressions


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """Label noise → the logs' folder, what `simulate` said of them, and the labelled impressions."""
    made = {}
    for noise in (0.0, 0.3):
        logs = tmp_path_factory.mktemp("shop") / "logs"
        told = simulate(logs, impressions=IMPRESSIONS, seed=1, label_noise=noise, progress=False)
        made[noise] = logs, told, with_labels(logs)
    return made


@pytest.fixture(scope="module")
def logs(shops):
    return shops[0.0][0]


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path):
    def written(name, seed):
        simulate(tmp_path / name, impressions=2_000, seed=seed, label_noise=0.1, progress=False)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first, again, other = written("a", 7), written("b", 7), written("c", 8)
    assert first == again
    assert first.keys() == other.keys()
    assert {name for name in first if first[name] != other[name]} == first.keys() - {"schema.yaml"}


def test_the_tables_hold_what_the_schema_and_the_contract_ask_for(logs):
    schema = load_schema(logs / "schema.yaml")
    impressions, actions, items, users = (read(logs, t) for t in ("impressions", "actions", "items", "users"))
    columns = {"user": users, "item": items, "query": impressions, "context": impressions}
    for name, feature in schema.features.items():
        assert columns[feature.group][name].notna().all(), name
    assert {*KEYS, "timestamp", "position", "oracle_ctr", "oracle_ctcvr"} <= {*impressions.columns}
    assert {*KEYS, "timestamp", "action"} <= {*actions.columns}
    assert set(schema.scenarios) == set(impressions.scenario)
    assert set(schema.history.actions) == set(actions.action)
    assert items.item_id.is_unique
    assert users.user_id.is_unique
    assert set(impressions.item_id) <= set(items.item_id)
    assert set(impressions.user_id) <= set(users.user_id)
    assert (items.words.map(lambda words: len(set(words))) == 2).all()
    assert (items.price > 0).all()


def test_a_request_is_one_slate_of_one_user_at_one_moment(logs):
    impressions = read(logs, "impressions")
    assert impressions.timestamp.is_monotonic_increasing
    slates = impressions.groupby("request_id", sort=False)
    for column in ("scenario", "user_id", "timestamp", "query", "device", "hour"):
        assert (slates[column].nunique() == 1).all(), column
    assert not impressions.duplicated(["request_id", "item_id"]).any()
    sizes = slates.size()
    assert (sizes.iloc[:-1] == 10).all()
    assert sizes.iloc[-1] == 4
    assert (impressions.position == slates.cumcount() + 1).all()
    assert ((impressions["query"] != "") == (impressions.scenario == "search")).all()
    hours = pd.to_datetime(impressions.timestamp, unit="ms").dt.strftime("%H")
    assert (impressions.hour == hours).all()


def test_actions_follow_each_other_before_the_users_next_request_or_label_window_ends(logs):
    impressions, actions = read(logs, "impressions"), read(logs, "actions")
    assert actions.timestamp.is_monotonic_increasing
    at = actions.pivot(index=KEYS, columns="action", values="timestamp").reset_index()
    assert at.click.notna().all()
    assert (at.cart.dropna() > at.click[at.cart.notna()]).all()
    assert (at.purchase.dropna() > at.click[at.purchase.notna()]).all()
    both = at.cart.notna() & at.purchase.notna()
    assert both.any()
    assert (at.purchase[both] > at.cart[both]).all()

    requests = impressions.drop_duplicates("request_id").sort_values(["user_id", "timestamp"])
    requests["next"] = requests.groupby("user_id").timestamp.shift(-1)
    clicks = at.merge(requests[["request_id", "timestamp", "next"]], on="request_id", validate="many_to_one")
    assert (clicks.click > clicks.timestamp).all()
    assert not (clicks.click >= clicks.next).any()


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_labels_derived_from_the_logs_are_the_outcomes_and_the_oracle_is_their_probability(shops, noise):
    logs, told, impressions = shops[noise]
    assert told["counts"] == {table: len(read(logs, table)) for table in ("impressions", "actions", "items", "users")}
    for scenario, rows in impressions.groupby("scenario"):
        rates = told["rates"][scenario]
        assert rates["impressions"] == len(rows)
        for task in ("ctr", "ctcvr"):
            chance = rows[f"oracle_{task}"]
            assert rates[task] == pytest.approx(rows[task].mean(), abs=1e-12)
            assert rates[f"oracle_{task}"] == pytest.approx(chance.mean(), abs=1e-6)
            for _, of_decile in rows.groupby(chance.rank(method="first").mul(10).floordiv(len(rows) + 1)):
                p = of_decile[f"oracle_{task}"]
                error = (of_decile[task] - p).sum() / np.sqrt((p * (1 - p)).sum())
                assert abs(error) < 4.5, (scenario, task, p.mean())


def test_rates_are_a_shops(shops):
    _, told, impressions = shops[0.0]
    for scenario, rows in impressions.groupby("scenario"):
        rates = told["rates"][scenario]
        assert 0.05 < rates["ctr"] < 0.12
        assert 0.005 < rates["ctcvr"] < 0.02
        assert 0.08 < rates["ctcvr"] / rates["ctr"] < 0.2
        assert 0.78 < roc_auc_score(rows.ctr, rows.oracle_ctr) < 0.87
        by_position = rows.groupby("position").ctr.mean()
        assert by_position[1] > 1.2 * by_position[5] > 1.2 * by_position[10]
    assert 0.3 < (impressions.scenario == "search").mean() < 0.5


def test_noise_keeps_the_rates_and_takes_away_what_can_be_known(shops):
    (_, clean, clean_rows), (_, noisy, noisy_rows) = shops[0.0], shops[0.3]
    for scenario in shop.SCENARIOS:
        for task in ("ctr", "ctcvr"):
            name = f"oracle_{task}"
            assert noisy["rates"][scenario][name] == pytest.approx(clean["rates"][scenario][name], rel=1e-9)
            before = clean_rows.loc[clean_rows.scenario == scenario, name]
            after = noisy_rows.loc[noisy_rows.scenario == scenario, name]
            np.testing.assert_allclose(after, 0.7 * before + 0.3 * before.mean(), atol=2e-6)


def test_a_model_can_learn_from_what_it_sees(shops):
    """A click in one scenario tells of later clicks in the other, through the category of the need."""
    logs, _, impressions = shops[0.0]
    category = read(logs, "items").set_index("item_id").category
    impressions = impressions.assign(category=impressions.item_id.map(category))
    clicks = read(logs, "actions").query("action == 'click'")
    clicks = clicks.assign(last=clicks.item_id.map(category), elsewhere=clicks.scenario)
    later = pd.merge_asof(
        impressions, clicks[["timestamp", "user_id", "last", "elsewhere"]], on="timestamp", by="user_id",
        tolerance=24 * HOUR_MS, allow_exact_matches=False,
    )  # fmt: skip
    feed = later[(later.scenario == "recommendation") & (later.elsewhere == "search")]
    alike = feed.category == feed["last"]
    assert alike.sum() > 500
    assert feed.ctr[alike].mean() > 1.5 * feed.ctr[~alike].mean()
    train = impressions.index < 0.8 * len(impressions)
    for scenario in shop.SCENARIOS:
        of = impressions.scenario == scenario
        popularity = impressions[of & train].groupby("item_id").ctr.agg(["sum", "size"])
        guess = (popularity["sum"] + 2) / (popularity["size"] + 25)
        test = impressions[of & ~train]
        assert roc_auc_score(test.ctr, test.item_id.map(guess).fillna(2 / 25)) > 0.6


@pytest.mark.parametrize(("similarity", "correlation"), [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)])
def test_similarity_sets_how_far_tastes_agree(similarity, correlation):
    world = shop.World.draw(np.random.default_rng(0), users=20_000, items=100, similarity=similarity)
    search, feed = world.taste
    if similarity == 1:
        np.testing.assert_array_equal(search, feed)
        np.testing.assert_array_equal(*world.weights)
    alike = 10 * world.age + world.city  # what is left beside demography is 20,000 independent draws
    search, feed = (own - pd.DataFrame(own).groupby(alike).transform("mean").to_numpy() for own in (search, feed))
    for dimension in range(shop.TASTE_DIM):
        measured = np.corrcoef(search[:, dimension], feed[:, dimension])[0, 1]
        assert measured == pytest.approx(correlation, abs=0.035)


def test_worlds_of_any_size_are_played_to_the_last_impression(tmp_path):
    told = simulate(tmp_path / "logs", impressions=1, progress=False)
    assert told["counts"]["impressions"] == 1
    assert sum(rates["impressions"] for rates in told["rates"].values()) == 1
    absent = [rates for rates in told["rates"].values() if not rates["impressions"]]
    assert absent == [{"impressions": 0, "ctr": None, "ctcvr": None, "oracle_ctr": None, "oracle_ctcvr": None}]


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("impressions", 0, "--impressions: found 0, expected a whole number from 1"),
        ("impressions", 1.5, "--impressions: found 1.5, expected a whole number from 1"),
        ("seed", -1, "--seed: found -1, expected a whole number from 0"),
        ("similarity", 1.01, "--similarity: found 1.01, expected a number from 0 to 1"),
        ("similarity", float("nan"), "--similarity: found nan, expected a number from 0 to 1"),
        ("label_noise", -0.1, "--label_noise: found -0.1, expected a number from 0 to 1"),
        ("label_noise", True, "--label_noise: found True, expected a number from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, argument, value, message):
    with pytest.raises(InputError) as refused:
        simulate(tmp_path / "logs", **{argument: value}, progress=False)
    assert str(refused.value) == message
    assert list(tmp_path.iterdir()) == []
