"""Simulated logs and their labels against the equations of the simulator."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.json as pa_json
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.join.as_of import label
from pipelines.simulator import behaviour, catalogue, noise, ranker
from pipelines.simulator import simulate as simulation
from pipelines.simulator.people import REST_MS, Users
from pipelines.simulator.scenarios import COMPONENTS, POOLS, SCENARIOS, SIGNALS
from pipelines.simulator.signals import SIGNALS as OPTIONAL
from pipelines.simulator.signals import parse_signals
from pipelines.simulator.simulate import simulate
from pipelines.simulator.world import START_MS, World, mix
from tests.pipelines.memory import peak_memory
from usr_tf.errors import InputError
from usr_tf.schema import load_schema

IMPRESSIONS = 30_004  # the last slate is cut short
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
KEYS = ["request_id", "scenario", "user_id", "item_id"]
TASKS = ("ctr", "ctcvr")
DECAY = {scenario.name: scenario.decay for scenario in SCENARIOS}


def read(logs, table):
    return arrow(logs, table).to_pandas()


def arrow(logs, table):
    shards = [pa_json.read_json(path) for path in sorted(logs.glob(f"{table}-*.jsonl.gz"))]
    return pa.concat_tables(shards, promote_options="default")


def with_labels(logs):
    """Impressions with the labels that the pipeline derives from the actions."""
    impressions = arrow(logs, "impressions")
    labels, _ = label(impressions, arrow(logs, "actions"), load_schema(logs / "schema.yaml"))
    return impressions.to_pandas().assign(**labels)


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """(label noise, global label noise) → the logs' folder, what `simulate` said of them, the labelled impressions."""
    made = {}
    for shares in ((0.0, 0.0), (0.3, 0.3), (0.0, 1.0)):
        logs = tmp_path_factory.mktemp("shop") / "logs"
        flags = {"label_noise": shares[0], "global_label_noise": shares[1]}
        told = simulate(logs, impressions=IMPRESSIONS, seed=1, progress=False, **flags)
        made[shares] = logs, told, with_labels(logs)
    return made


@pytest.fixture(scope="module")
def clean(shops):
    return shops[0.0, 0.0]


@pytest.fixture(scope="module")
def played():
    """A shop of all scenarios, and what truly happened in it."""
    world = simulation.make_world(60_000, 2, SCENARIOS, similarity=0.3, needs=0.8)
    return world, simulation.play_chunk(world, 2, simulation.Chunk(0, 0, users=240, impressions=60_000))[1]


def deviation(happened, p):
    """How far a number of events is from the sum of their chances, in standard errors."""
    return (happened.sum() - p.sum()) / np.sqrt((p * (1 - p)).sum())


# The bytes.


def test_the_same_flags_write_the_same_bytes_whatever_the_workers_and_another_seed_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "CHUNK_USERS", 5)

    def written(name, **flags):
        simulate(tmp_path / name, impressions=2_000, label_noise=0.1, progress=False, **flags)
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first, again, other = written("a", seed=7, workers=1), written("b", seed=7, workers=2), written("c", seed=8)
    assert first == again
    assert {name.partition("-")[0] for name in first} == {
        "impressions", "actions", "items", "users", "schema.yaml", "simulation.json",
    }  # fmt: skip
    assert "impressions-00001-of-00002.jsonl.gz" in first
    assert first.keys() == other.keys()
    assert {name for name in first if first[name] != other[name]} == first.keys() - {"schema.yaml"}


def test_noise_changes_nothing_that_happens(shops, clean):
    _, _, truth = clean
    for _, _, noisy in shops.values():
        same = [name for name in truth if not name.startswith(("oracle", "global", *TASKS))]
        pd.testing.assert_frame_equal(noisy[same], truth[same])


@pytest.mark.parametrize(("impressions", "users"), [(1, 3), (9, 3), (10, 3), (2_004, 3), (2_004, 10), (777, 4)])
def test_the_rows_asked_for_are_shared_among_the_chunks(monkeypatch, impressions, users):
    monkeypatch.setattr(simulation, "CHUNK_USERS", users)
    chunks = simulation._chunks(impressions)
    assert sum(chunk.impressions for chunk in chunks) == impressions
    assert all(chunk.impressions % 10 == 0 for chunk in chunks[:-1])
    assert [chunk.first_user for chunk in chunks] == list(np.cumsum([0, *(chunk.users for chunk in chunks[:-1])]))


def test_one_impression_is_a_shop_too(tmp_path):
    told = simulate(tmp_path / "logs", impressions=1, progress=False)
    assert told["counts"]["impressions"] == 1 == len(read(tmp_path / "logs", "impressions"))
    absent = [rates for rates in told["rates"].values() if not rates["impressions"]]
    assert absent == [{"impressions": 0, "ctr": None, "ctcvr": None, "oracle_ctr": None, "oracle_ctcvr": None}]


def test_chunks_share_no_user_and_no_request(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "CHUNK_USERS", 4)
    told = simulate(tmp_path / "logs", impressions=2_503, progress=False)
    impressions, users = read(tmp_path / "logs", "impressions"), read(tmp_path / "logs", "users")
    assert told["counts"] == {table: len(read(tmp_path / "logs", table)) for table in told["counts"]}
    assert len(impressions) == 2_503
    assert users.user_id.is_unique
    assert (impressions.groupby("request_id").user_id.nunique() == 1).all()
    assert impressions.groupby("request_id").size().max() == 10


# The tables.


@pytest.mark.parametrize(("asked", "names"), [(1, ["search"]), (5, None), (["home", "search"], ["home", "search"])])
def test_a_shop_has_the_scenarios_asked_for(tmp_path, asked, names):
    told = simulate(tmp_path / "logs", impressions=3_000, scenarios=asked, progress=False)
    names = names or ["search", "recommendation", "related", "home", "voice"]
    assert list(load_schema(tmp_path / "logs" / "schema.yaml").scenarios) == list(told["rates"]) == names
    impressions = read(tmp_path / "logs", "impressions")
    assert set(impressions.scenario) == set(names)
    assert ((impressions["query"] != "") == impressions.scenario.isin(["search", "voice"])).all()


def test_a_scenario_says_all_that_the_equations_need():
    for scenario in SCENARIOS:
        assert len(scenario.leaning) == len(COMPONENTS)
        assert len(scenario.pools) == len(POOLS)
        assert len(scenario.signals) == len(SIGNALS)
        assert sum(scenario.pools) == 64
        assert scenario.pools[-1] >= ranker.SLATE  # all different, so that no slate falls short


def test_the_tables_hold_what_the_schema_and_the_contract_ask_for(clean):
    logs, told, _ = clean
    schema = load_schema(logs / "schema.yaml")
    impressions, actions, items, users = (read(logs, t) for t in ("impressions", "actions", "items", "users"))
    assert told["counts"] == {"impressions": IMPRESSIONS, "actions": len(actions), "items": len(items), "users": 120}
    columns = {"user": users, "item": items, "query": impressions, "context": impressions}
    for name, feature in schema.features.items():
        assert columns[feature.group][name].notna().all(), name
    assert {*KEYS, "timestamp", "position", "oracle_ctr", "oracle_ctcvr"} <= {*impressions.columns}
    assert "propensity" not in schema.features
    assert set(schema.scenarios) == set(impressions.scenario)
    assert set(schema.history.actions) == set(actions.action)
    assert items.item_id.is_unique
    assert set(impressions.item_id) <= set(items.item_id)
    assert set(impressions.user_id) <= set(users.user_id)
    assert (items.words.map(lambda words: len(set(words))) == 2).all()
    assert (items.groupby("kind").category.nunique() == 1).all()
    assert (items.groupby("category").department.nunique() == 1).all()


def test_a_request_is_one_slate_of_one_user_at_one_moment(clean):
    _, _, impressions = clean
    assert impressions.timestamp.is_monotonic_increasing
    slates = impressions.groupby("request_id", sort=False)
    for column in ("scenario", "user_id", "timestamp", "query", "device", "hour"):
        assert (slates[column].nunique() == 1).all(), column
    assert not impressions.duplicated(["request_id", "item_id"]).any()
    sizes = slates.size()
    assert (sizes.iloc[:-1] == 10).all()
    assert sizes.iloc[-1] == 4
    assert (impressions.position == slates.cumcount() + 1).all()
    hours = pd.to_datetime(impressions.timestamp, unit="ms").dt.strftime("%H")
    assert (impressions.hour == hours).all()
    apart = impressions.drop_duplicates("request_id").groupby("user_id").timestamp.diff().dropna()
    assert apart.min() >= REST_MS


def test_users_and_items_are_met_once_they_are_there(clean):
    logs, _, impressions = clean
    day = (impressions.timestamp - START_MS) // DAY_MS
    users, items = read(logs, "users").set_index("user_id"), read(logs, "items").set_index("item_id")
    assert (day >= impressions.user_id.map(users.arrival_day)).all()
    assert (day >= impressions.item_id.map(items.launch_day)).all()
    assert 0.15 < (users.arrival_day > 0).mean() < 0.45
    new = items[items.launch_day >= 0]
    assert 0.05 < len(new) / len(items) < 0.25
    assert (new.popularity == 0).all()
    assert impressions.item_id.isin(new.index).any()


def test_queries_have_synonyms_and_typos_about_as_often_as_said(played):
    world, play = played
    asked = play.query[::10] >= 0
    spelling, scenario = play.spelling[::10], play.scenario[::10]
    typed = (spelling >= 2) & asked
    for v, of in enumerate(world.scenarios):
        terms = asked[scenario == v].sum()
        assert (terms > 0) == of.asks
        if of.asks:
            share, error = typed[scenario == v].sum() / terms, np.sqrt(of.typos * (1 - of.typos) / terms)
            assert abs(share - of.typos) < 4.5 * error
    synonyms, terms = ((spelling == 1) & asked).sum(), asked.sum()
    assert abs(synonyms / terms - behaviour.SYNONYMS) < 4.5 * np.sqrt(behaviour.SYNONYMS / terms)
    assert catalogue.spellings("bread") == ("bread", "loaf", "berad", "brad", "breead")
    assert len({spellings[0] for spellings in catalogue.SPELLINGS}) == len(catalogue.TERMS)


# Labels and the oracle.


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.3, 0.3), (0.0, 1.0)])
def test_the_oracle_is_the_chance_of_the_label_that_the_pipeline_derives(shops, shares):
    _, told, impressions = shops[shares]
    for scenario, rows in impressions.groupby("scenario"):
        rates = told["rates"][scenario]
        assert rates["impressions"] == len(rows)
        for task in TASKS:
            chance = rows[f"oracle_{task}"]
            assert rates[task] == pytest.approx(rows[task].mean(), abs=1e-12)
            assert rates[f"oracle_{task}"] == pytest.approx(chance.mean(), abs=1e-6)
            for _, of_decile in rows.groupby(chance.rank(method="first").mul(10).floordiv(len(rows) + 1)):
                assert abs(deviation(of_decile[task], of_decile[f"oracle_{task}"])) < 4.5, (scenario, task)


def test_rates_are_those_that_the_scenarios_are_tuned_to():
    for similarity in (0.0, 1.0):
        world = simulation.make_world(50_000, 3, SCENARIOS[:2], similarity, needs=0.8)
        play = simulation.play_chunk(world, 3, simulation.Chunk(0, 0, users=400, impressions=50_000))[1]
        for v, scenario in enumerate(world.scenarios):
            of = play.scenario == v
            assert play.p_click[of].mean() == pytest.approx(scenario.ctr, rel=0.15)
            prompt = play.p_click * play.p_convert * scenario.prompt
            assert prompt[of].sum() / play.p_click[of].sum() == pytest.approx(scenario.cvr, rel=0.15)


def test_the_oracle_leaves_room_above_popularity_and_below_certainty(clean):
    _, _, impressions = clean
    for _, rows in impressions.groupby("scenario"):
        assert 0.72 < roc_auc_score(rows.ctr, rows.oracle_ctr) < 0.9


def test_global_labels_hold_more_than_scenario_labels_and_tell_of_relevance(clean):
    """Late purchases and returns are credited to no impression; what is seen here is bought there."""
    logs, _, impressions = clean
    actions = read(logs, "actions")
    for scenario, rows in impressions.groupby("scenario"):
        for task in TASKS:
            assert rows[f"global_{task}"].mean() > 1.3 * rows[task].mean(), (scenario, task)
        missed = rows[rows.ctr == 0]
        oracle = missed.groupby("global_ctr").oracle_ctr.mean()
        assert oracle[1] > 1.5 * oracle[0]
    purchases = actions[actions.action == "purchase"].merge(
        impressions[["request_id", "item_id", "timestamp"]], on=["request_id", "item_id"], suffixes=("", "_shown")
    )
    delay = purchases.timestamp - purchases.timestamp_shown
    late = delay > HOUR_MS
    assert 0.1 < late.mean() < 0.45
    assert delay.max() < DAY_MS
    assert actions.scenario.isna().any()
    clicks = impressions[impressions.ctr == 1].assign(clicked=True)[["user_id", "item_id", "scenario", "timestamp"]]
    bought = purchases[~late].merge(clicks, on=["user_id", "item_id"], suffixes=("", "_seen"))
    assert ((bought.scenario != bought.scenario_seen) & (bought.timestamp > bought.timestamp_seen)).any()


def test_actions_follow_each_other_before_the_users_next_request_or_label_window_ends(clean):
    logs, _, impressions = clean
    actions = read(logs, "actions")
    assert actions.timestamp.is_monotonic_increasing
    at = actions.dropna(subset="scenario").pivot(index=KEYS, columns="action", values="timestamp").reset_index()
    assert at.click.notna().all()
    assert (at.cart.dropna() > at.click[at.cart.notna()]).all()
    assert (at.purchase.dropna() > at.click[at.purchase.notna()]).all()
    requests = impressions.drop_duplicates("request_id").sort_values(["user_id", "timestamp"])
    requests["next"] = requests.groupby("user_id").timestamp.shift(-1)
    clicks = at.merge(requests[["request_id", "timestamp", "next"]], on="request_id", validate="many_to_one")
    assert (clicks.click > clicks.timestamp).all()
    assert not (clicks.click >= clicks.next).any()


def test_noise_spoils_its_share_of_its_own_labels_and_leaves_the_rates(shops, clean):
    """A struck label is another's: it stays positive with the rate's chance, so a share λ (1 − rate) is lost."""
    _, told, truth = clean
    for (credited, uncredited), (_, noisy_told, noisy) in shops.items():
        for scenario, rates in told["rates"].items():
            assert noisy_told["rates"][scenario] == pytest.approx(rates, rel=1e-9)
            of = (truth.scenario == scenario) & (truth.ctr == 1)
            lost = (1 - noisy.ctr[of]).mean()
            expected = credited * (1 - rates["ctr"])
            assert abs(lost - expected) < 4.5 * np.sqrt(expected * (1 - expected) / of.sum()) + 1e-12
        only = (truth.ctr == 0) & (truth.global_ctr == 1) & (noisy.ctr == 0)
        kept = noisy.global_ctr[only].mean()
        assert (kept == 1) == (credited == uncredited == 0)
        assert kept > 0.4  # another impression's credited click is no less true for it
    uncredited_only = shops[0.0, 1.0][2]
    pd.testing.assert_frame_equal(uncredited_only[[*TASKS, "oracle_ctr"]], truth[[*TASKS, "oracle_ctr"]])


def test_noise_of_all_leaves_nothing_to_know(played):
    world, play = played
    prompt = world.of_scenarios("prompt")
    recorded = noise.record(np.random.default_rng(0), play, prompt, label_noise=1.0, global_noise=0.0)
    for v in range(len(world.scenarios)):
        of = play.scenario == v
        assert np.ptp(recorded.p_click[of]) == pytest.approx(0, abs=1e-12)
        assert recorded.click[of].sum() == play.click[of].sum()
        assert abs(np.corrcoef(recorded.click[of], play.click[of])[0, 1]) < 4.5 / np.sqrt(of.sum())
    np.testing.assert_array_equal(recorded.returns, play.returns)
    assert not (recorded.buy & ~recorded.click).any()


# The world's equations.


def test_click_rates_follow_the_examination_once_relevance_is_divided_out(played):
    world, play = played
    for v, scenario in enumerate(world.scenarios):
        for position in range(1, 11):
            of = (play.scenario == v) & (play.position == position)
            theta = play.click[of].sum() / play.relevance[of].sum()
            p = play.p_click[of]
            error = np.sqrt((p * (1 - p)).sum()) / play.relevance[of].sum()
            assert abs(theta - position**-scenario.decay) < 4.5 * error, (scenario.name, position)


@pytest.mark.parametrize("similarity", [0.0, 0.5, 1.0])
def test_tastes_of_two_scenarios_correlate_by_the_square_of_similarity(similarity):
    correlations = []
    for seed in range(30):  # demography has few groups: it takes several worlds
        rng = np.random.default_rng(seed)
        world = World.draw(rng, 100, SCENARIOS[:3], similarity, needs=0.8)
        users = Users.draw(rng, world, 300)
        correlations.append(np.corrcoef(users.taste.reshape(3, -1))[np.triu_indices(3, 1)])
    error = np.std(correlations) / np.sqrt(np.size(correlations))
    assert abs(np.mean(correlations) - similarity**2) < 4.5 * error + 1e-9
    if similarity == 1:
        np.testing.assert_allclose(world.importance - world.importance[0], 0, atol=1e-12)


def test_mixing_keeps_the_variance():
    shared, own = np.random.default_rng(0).normal(size=(2, 100_000))
    assert mix(0.3, shared, own).std() == pytest.approx(1, abs=0.01)
    assert np.corrcoef(mix(0.3, shared, own), shared)[0, 1] == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize(("needs", "low", "high"), [(0.8, 1.4, 4.0), (0.0, 0.5, 1.15)])
def test_a_search_tells_of_the_feed_through_needs_alone(tmp_path, needs, low, high):
    simulate(tmp_path / "logs", impressions=40_000, seed=4, similarity=0.0, needs=needs, progress=False)
    impressions, actions = with_labels(tmp_path / "logs"), read(tmp_path / "logs", "actions")
    category = read(tmp_path / "logs", "items").set_index("item_id").category
    feed = impressions[impressions.scenario == "recommendation"]
    feed = feed.assign(category=feed.item_id.map(category))
    clicks = actions.query("action == 'click' and scenario == 'search'")
    clicks = clicks.assign(category=clicks.item_id.map(category), clicked=True)
    joined = pd.merge_asof(
        feed, clicks[["timestamp", "user_id", "category", "clicked"]], on="timestamp", by=["user_id", "category"],
        tolerance=DAY_MS, allow_exact_matches=False,
    )  # fmt: skip
    after = joined.ctr[joined.clicked.notna()]
    assert len(after) > 400
    assert low < after.mean() / feed.ctr.mean() < high


# Optional signals.


@pytest.fixture(scope="module")
def signalled(tmp_path_factory):
    """Logs of a shop with every signal at half its strength: their folder, labelled impressions, items, users."""
    logs = tmp_path_factory.mktemp("signals") / "logs"
    told = simulate(logs, 20_000, seed=3, signals=dict.fromkeys(OPTIONAL, 0.5), progress=False)
    items, users = (arrow(logs, table).to_pandas() for table in ("items", "users"))
    assert told["counts"]["items"] == len(items)
    return logs, with_labels(logs), items, users


def play_with(impressions=40_000, **signals):
    """A shop with these signals, and what truly happened in it."""
    world = simulation.make_world(impressions, 2, SCENARIOS[:2], 0.3, 0.8, signals)
    return world, simulation.play_chunk(world, 2, simulation.Chunk(0, 0, impressions // 250, impressions))[1]


def logit(p):
    return np.log(p / (1 - p))


def test_a_signal_that_is_off_changes_no_byte_and_one_that_is_on_no_item_and_no_user(tmp_path, signalled):
    plain, off = tmp_path / "plain", tmp_path / "off"
    simulate(plain, 20_000, seed=3, progress=False)
    simulate(off, 20_000, seed=3, signals=dict.fromkeys(OPTIONAL, 0), progress=False)
    for path in plain.iterdir():
        assert path.read_bytes() == (off / path.name).read_bytes(), path.name
    assert simulation.read_simulation(plain).signals == {}
    logs, _, items, users = signalled
    assert simulation.read_simulation(logs).signals == dict.fromkeys(OPTIONAL, 0.5)
    for table, rows in (("items", items.drop_duplicates("item_id", ignore_index=True)), ("users", users)):
        plain_rows = read(plain, table)
        same = [name for name in plain_rows if name != "price"]
        pd.testing.assert_frame_equal(rows[same], plain_rows[same])


@pytest.mark.parametrize("signal", OPTIONAL)
def test_the_schema_has_the_features_of_the_signals_that_are_on(tmp_path, clean, signal):
    simulate(tmp_path / "logs", 1_000, signals={signal: 1.0}, progress=False)
    schema, plain = load_schema(tmp_path / "logs" / "schema.yaml"), load_schema(clean[0] / "schema.yaml")
    added = {name: (f.group, f.type) for name, f in schema.features.items() if name not in plain.features}
    assert (
        added
        == {
            "price": {"price_now": ("candidate", "numeric"), "discount": ("candidate", "numeric")},
            "stock": {"in_stock": ("candidate", "categorical")},
            "retrieval": {"retrieval_score": ("candidate", "numeric")},
            "zero_results": {"zero_results": ("context", "categorical")},
            "vectors": {f"{of}_vector": (of, "vector") for of in ("item", "user", "query")},
            "drift": {},
        }[signal]
    )
    vectors = {"user_item_vector", "query_item_vector"} if signal == "vectors" else set()
    assert set(schema.match) - set(plain.match) == vectors
    columns = {"candidate": "impressions", "context": "impressions", "query": "impressions"}
    for name, (group, kind) in added.items():
        rows = read(tmp_path / "logs", columns.get(group, f"{group}s"))
        assert name in rows
        if kind == "vector":
            assert {len(vector) for vector in rows[name].dropna()} == {schema.features[name].width}


def test_the_oracle_is_the_chance_of_the_label_with_every_signal_on(signalled):
    _, impressions, _, _ = signalled
    for (scenario, zero_results), rows in impressions.groupby(["scenario", "zero_results"]):
        for task in TASKS:
            assert abs(deviation(rows[task], rows[f"oracle_{task}"])) < 4.5, (scenario, zero_results, task)
    rates = impressions.groupby("scenario").oracle_ctr.mean()
    for scenario in SCENARIOS[:2]:  # which are tuned with the signals
        assert rates[scenario.name] == pytest.approx(scenario.ctr, rel=0.25)


def test_price_and_stock_of_an_impression_are_those_of_the_items_row_valid_then(signalled):
    _, impressions, items, _ = signalled
    assert items.groupby("item_id").timestamp.is_monotonic_increasing.all()
    assert not items.duplicated(["item_id", "timestamp"]).any()
    assert (items.groupby("item_id").timestamp.min() == START_MS).all()
    again = items.groupby("item_id")[["price", "in_stock"]].shift()
    assert ((items.price != again.price) | (items.in_stock != again.in_stock)).all()  # no row without a change
    valid = pd.merge_asof(
        impressions, items[["item_id", "timestamp", "price", "in_stock"]].sort_values("timestamp", kind="stable"),
        on="timestamp", by="item_id", suffixes=("", "_valid"),
    )  # fmt: skip
    assert (valid.price_now == valid.price).all()
    assert (valid.in_stock == valid.in_stock_valid).all()
    assert set(impressions.discount) == {0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4}
    list_price = impressions.price_now / (1 - impressions.discount)
    assert (list_price.groupby(impressions.item_id).agg(np.ptp) < 0.03).all()  # prices are rounded to a hundredth


def test_what_is_out_of_stock_is_clicked_less_and_never_bought(signalled):
    _, impressions, _, _ = signalled
    sold_out = impressions.in_stock == "no"
    assert 0.1 < sold_out.mean() < 0.2  # 0.3 of the time, at half the strength
    assert (impressions.oracle_ctcvr[sold_out] == 0).all()
    assert (impressions.oracle_ctcvr[~sold_out] > 0).mean() > 0.99  # of six decimals
    assert impressions.ctcvr[sold_out].sum() == 0 < impressions.ctcvr[~sold_out].sum()
    assert impressions.ctr[sold_out].mean() < 0.6 * impressions.ctr[~sold_out].mean()


def test_relevance_has_the_terms_of_the_signals_in_its_logit():
    """Two items that differ in one signal differ by its term: 6 × discount, −1.5 sold out, 4 × 0.6 × each cosine."""
    world, _ = play_with(1_000, price=0.5, stock=0.5, vectors=0.5)
    signals = replace(
        world.signals,
        discount=np.array([[0.0], [0.2], [0.0], [0.0]]),
        sold_out=np.array([[False], [False], [True], [False]]),
        vector=np.eye(16)[[0, 0, 0, 1]],
    )
    item, now, found = np.arange(4)[None], np.array([START_MS]), np.array([False])
    user, query = np.eye(16)[[1]] * 0.6 + np.eye(16)[[2]] * 0.8, np.eye(16)[[0]]
    np.testing.assert_allclose(signals.appeal(item, now, found, user), [[0, 0.5 * 6 * 0.2, -1.5, 0.5 * 0.6 * 4 * 0.6]])
    np.testing.assert_allclose(signals.fit(item, query), [[0.5 * 0.6 * 4] * 3 + [0]])
    np.testing.assert_allclose(signals.fit(item, np.full((1, 16), np.nan)), 0)  # no query
    np.testing.assert_allclose(signals.appeal(item, now, ~found, user)[0, 0], -1.0)


def test_vectors_are_of_length_1_and_the_querys_is_near_the_wish(signalled):
    _, impressions, items, users = signalled
    searched = impressions[impressions.scenario == "search"]
    assert impressions.query_vector.notna().equals(impressions.scenario == "search")
    query, item, user = (np.stack(list(column)) for column in (
        searched.query_vector, searched.item_id.map(items.drop_duplicates("item_id").set_index("item_id").item_vector),
        searched.user_id.map(users.set_index("user_id").user_vector),
    ))  # fmt: skip
    for vectors in (query, item, user):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    relevance = logit(searched.oracle_ctr * searched.position ** DECAY["search"])
    assert np.corrcoef((query * item).sum(axis=1), relevance)[0, 1] > 0.2
    assert np.corrcoef((user * item).sum(axis=1), relevance)[0, 1] > 0.1
    closest = (query * item).sum(axis=1)
    assert closest.max() > 0.7  # the wish itself, which correlates by 0.8
    assert query.round(4).tolist() == query.tolist()


def test_a_retrieval_score_correlates_with_relevance_by_its_strength(monkeypatch):
    """Over the candidates; of the slates that are drawn by it a little less."""
    candidates = []
    score = ranker.Ranker.score

    def kept(self, asked, item):
        relevance, _ = asked.chances(item)
        candidates.append((logit(relevance).ravel(), asked.retrieval_score(item).ravel()))
        return score(self, asked, item)

    monkeypatch.setattr(ranker.Ranker, "score", kept)
    for strength in (0.2, 0.8):
        play_with(4_000, retrieval=strength)
        relevance, retrieval = np.concatenate(candidates, axis=1)
        candidates.clear()
        assert np.corrcoef(relevance, retrieval)[0, 1] == pytest.approx(strength, abs=0.06)


def test_a_search_that_finds_nothing_shows_popular_items_and_leaves_the_wish():
    world, none = play_with(zero_results=0.5)
    search = none.scenario == 0
    empty = none.zero_results
    assert not empty[~search].any()
    requests = search.reshape(-1, 10)[:, 0]
    share, error = empty[search].mean(), np.sqrt(0.2 * 0.8 / requests.sum())
    assert abs(share - 0.2) < 4.5 * error
    kind = np.where(none.query[:, 2] >= catalogue.FIRST_KIND, none.query[:, 2] - catalogue.FIRST_KIND, -1)
    named = search & (none.query[:, 2] < catalogue.FIRST_CATEGORY)
    asked_for = world.items.kind[none.item] == kind
    assert asked_for[named & ~empty].mean() > 5 * asked_for[named & empty].mean()
    assert none.relevance[empty].mean() < 0.5 * none.relevance[search & ~empty].mean()
    popular = np.isin(none.item, world.items.by_quality[: len(world.items.by_quality) // 5])
    assert popular[empty].mean() > 2 * popular[search & ~empty].mean()


def test_what_a_search_did_not_find_is_looked_for_again():
    """With needs at 0 only tastes make two searches of a user alike beside."""
    world = simulation.make_world(40_000, 2, SCENARIOS[:1], 0.3, 0.0, {"zero_results": 0.5})
    none = simulation.play_chunk(world, 2, simulation.Chunk(0, 0, users=160, impressions=40_000))[1]
    first = np.lexsort((none.time[::10], none.user[::10])) * 10
    before, after = first[:-1], first[1:]
    soon = (none.user[before] == none.user[after]) & (none.time[after] - none.time[before] < HOUR_MS)
    clicked = none.click.reshape(-1, 10).any(axis=1)[before // 10]
    alike = none.query[before, 2] == none.query[after, 2]
    empty = none.zero_results[before]
    assert alike[soon & empty & ~clicked].mean() > 2 * alike[soon & ~empty & ~clicked].mean()


def test_popularity_drifts_over_the_month():
    """The same items' click rates of one week tell of the next week's more than of the last's, with drift alone."""

    def by_kind_and_week(**signals):
        world, month = play_with(**signals)
        kind, week = world.items.kind[month.item], (month.time - START_MS) // (7 * DAY_MS)
        rates = pd.Series(month.relevance).groupby([kind, week]).mean().unstack()
        return np.corrcoef(rates[0], rates[3])[0, 1], world

    drifting, world = by_kind_and_week(drift=1.0)
    steady, _ = by_kind_and_week()
    assert drifting < steady - 0.2
    trend = world.signals.trend[:, ::4]  # a day has four slots
    assert trend.std() == pytest.approx(1, abs=0.1)
    for days, correlation in ((1, np.exp(-1 / 4)), (20, 0)):
        assert np.corrcoef(trend[:, 0], trend[:, days])[0, 1] == pytest.approx(correlation, abs=0.25)


# The ranker.


def test_a_slate_is_drawn_with_the_chances_that_are_logged():
    """Three candidates that are free and one that is not; over many draws each first place comes as often as said."""
    rng = np.random.default_rng(0)
    free = np.ones((20_000, ranker.SLATE + 2), bool)
    free[:, -1] = False
    score = np.tile(np.append(np.arange(ranker.SLATE + 1) / 4, 9.0), (len(free), 1))
    place, chance = ranker.draw_slates(rng, score, free)
    weight = np.exp(score[0, :-1])
    expected = 0.9 * weight / weight.sum() + 0.1 / len(weight)
    np.testing.assert_allclose(chance[:, 0], expected[place[:, 0]])
    drawn = np.bincount(place[:, 0], minlength=len(expected)) / len(free)
    assert (np.abs(drawn - expected) < 4.5 * np.sqrt(expected / len(free))).all()
    assert (np.sort(place, axis=1)[:, 1:] > np.sort(place, axis=1)[:, :-1]).all()
    assert place.max() < len(weight)
    left = np.where(np.arange(len(weight)) == place[0, 0], 0, weight)
    assert chance[0, 1] == pytest.approx(0.9 * left[place[0, 1]] / left.sum() + 0.1 / (len(weight) - 1))


def test_logged_chances_are_chances(clean):
    _, _, impressions = clean
    least = ranker.EXPLORE / 64
    assert impressions.propensity.between(round(least, 6), 1).all()


def test_a_user_starts_in_the_state_of_nobody_else(played):
    """What a chunk's users do depends on the chunk's stream alone."""
    world, _ = played
    chunk = simulation.Chunk(1, 0, users=20, impressions=1_000)
    first, again = (simulation.play_chunk(world, 2, chunk)[1] for _ in range(2))
    other = simulation.play_chunk(world, 2, replace(chunk, number=2))[1]
    np.testing.assert_array_equal(first.item, again.item)
    assert (first.item != other.item).any()


# What is asked for.


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
        ("global_label_noise", 2, "--global_label_noise: found 2, expected a number from 0 to 1"),
        ("needs", -1, "--needs: found -1, expected a number from 0 to 1"),
        (
            "signals",
            {"weather": 1.0},
            "--signals: found weather, expected some of price, stock, retrieval, zero_results",
        ),
        ("signals", {"stock": 1.5}, "--signals: stock: found 1.5, expected a number from 0 to 1"),
        ("workers", 0, "--workers: found 0, expected a whole number from 1"),
        ("scenarios", 0, "--scenarios: found 0, expected 1 to 6, or different ones of search, recommendation, related"),
        ("scenarios", ["shop"], "--scenarios: found shop, expected 1 to 6, or different ones of search"),
        ("scenarios", ["home", "home"], "--scenarios: found home,home, expected 1 to 6, or different ones of search"),
        ("scenarios", [], "--scenarios: found nothing, expected 1 to 6, or different ones of search"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, argument, value, message):
    with pytest.raises(InputError) as refused:
        simulate(tmp_path / "logs", **{argument: value}, progress=False)
    assert str(refused.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_signals_are_asked_for_by_name_with_or_without_a_strength():
    assert parse_signals(["price", " stock = 0.25 ", "drift=0"]) == {"price": 0.5, "stock": 0.25, "drift": 0.0}
    assert parse_signals([]) == {}
    for texts, message in (
        (["price", "price=1"], "--signals: found price twice, expected each name once"),
        (["price=much"], "--signals: price: found 'much', expected a number from 0 to 1"),
    ):
        with pytest.raises(InputError) as refused:
            parse_signals(texts)
        assert str(refused.value) == message


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Half a million impressions and two million take the same memory, for chunks come one after another."""
    code = """
import sys
from pipelines.simulator.simulate import simulate
simulate(sys.argv[1], int(sys.argv[2]), progress=False, workers=1)
"""

    def peak(impressions):
        return peak_memory([sys.executable, "-c", code, str(tmp_path / str(impressions)), str(impressions)])

    assert peak(2_000_000) < 1.15 * peak(500_000)
