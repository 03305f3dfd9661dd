"""Replay: same users, no future information, and better slates give better outcomes."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json
import pytest

from pipelines.join.as_of import attach, histories
from pipelines.logs.columns import PLACE
from pipelines.simulator.people import Users
from pipelines.simulator.ranker import SLATE
from pipelines.simulator.signals import SIGNALS
from pipelines.simulator.simulate import play_chunk, read_simulation
from pipelines.simulator.world import DAY_MS, DAYS, START_MS
from tests.experiments.abtest.shop import DAYS as TEST_DAYS
from tests.experiments.abtest.shop import FakeModel, plan_of, schema_of, write_logs
from usr_tf.errors import InputError
from usr_tf.experiments.abtest.analysis import analyse
from usr_tf.experiments.abtest.arms import SHOP, ArmRanker
from usr_tf.experiments.abtest.policies import ranking_logits
from usr_tf.experiments.abtest.raw_requests import Requests
from usr_tf.experiments.abtest.replay import play_arm
from usr_tf.experiments.abtest.user_history import Histories
from usr_tf.request_spec import request_spec
from usr_tf.schema import history_column


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return write_logs(tmp_path_factory.mktemp("shop") / "logs", label_noise=0.1)


@pytest.fixture(scope="module")
def simulation(logs):
    return read_simulation(logs)


@pytest.fixture(scope="module")
def world(simulation):
    return simulation.world()


@pytest.fixture(scope="module")
def models(logs):
    return {"a": FakeModel(schema_of(logs)), "b": FakeModel(schema_of(logs), sign=-1.0)}


@pytest.fixture(scope="module")
def arms(simulation, world, models):
    """Arm → its log, of the one chunk of users."""
    (chunk,) = simulation.chunks()
    return {arm: play_arm(plan_of(simulation), world, chunk, arm, models) for arm in (SHOP, *models)}


def same(first, second):
    for name, column in vars(first).items():
        if name != "targets":
            np.testing.assert_array_equal(column, getattr(second, name), err_msg=name)


def test_the_same_arm_twice_is_the_same(simulation, world, models, arms):
    (chunk,) = simulation.chunks()
    again = play_arm(plan_of(simulation), world, chunk, "a", models)
    same(arms["a"], again)
    np.testing.assert_array_equal(arms["a"].targets["b"].place_chance, again.targets["b"].place_chance)
    other = play_arm(plan_of(simulation, seed=1), world, chunk, "a", models)
    assert other.click.sum() != arms["a"].click.sum() or (other.price != arms["a"].price[: other.price.size]).any()


def test_equal_models_live_equal_lives(simulation, world, models):
    (chunk,) = simulation.chunks()
    twins = {"a": models["a"], "b": FakeModel(models["a"].schema)}
    first, second = (play_arm(plan_of(simulation, days=1), world, chunk, arm, twins) for arm in twins)
    same(first, second)
    np.testing.assert_allclose(first.targets["b"].slate_chance / first.propensity, 1)
    arms = {"a": first, "b": second}
    document = analyse(arms, simulation.scenarios, 1, 0.5, "salt", np.random.default_rng(0))
    for figures in document["twins"].values():
        for found in figures.values():
            assert found["lift"] in (0, None)
            assert found["interval"] in ([0, 0], None)


def test_the_same_people_come_at_the_same_times_after_the_month(arms, simulation):
    for log in arms.values():
        np.testing.assert_array_equal(log.user, arms[SHOP].user)
        np.testing.assert_array_equal(log.day, arms[SHOP].day)
        assert set(log.day) <= set(range(TEST_DAYS))
        assert log.user.size == round(simulation.impressions / SLATE * TEST_DAYS / DAYS) * SLATE
        np.testing.assert_array_equal(
            log.position.reshape(-1, SLATE), np.tile(np.arange(1, 11), (log.user.size // 10, 1))
        )


def test_only_so_many_users_play_if_asked(simulation, world, models):
    (chunk,) = simulation.chunks()
    log = play_arm(plan_of(simulation, users=7), world, chunk, "a", models)
    assert set(log.user) <= set(range(7))


def test_figures_of_what_nobody_did_are_undefined_not_0(arms, simulation):
    logs = {arm: dataclasses.replace(log, click=0 * log.click, buy=0 * log.buy) for arm, log in arms.items()}
    found = analyse(logs, simulation.scenarios, TEST_DAYS, 0.5, "salt", np.random.default_rng(0))["splits"]
    assert {*found["search"]["ctr"].values()} == {None}


def test_a_request_holds_nothing_that_is_not_past(models, simulation):
    for _, inputs in models["a"].asked:
        age = inputs[history_column("age")]
        assert (age > 0).all()
        assert (np.diff(age[0]) <= 0).all()  # newest last
        assert age.shape[1] <= models["a"].schema.history.max_length


def test_what_was_done_in_the_test_is_in_later_histories(models, arms):
    """Days after the month, some of the newest actions are younger than the test is old."""
    newest = [
        inputs[history_column("age")][0, -1] for _, inputs in models["a"].asked if inputs[history_column("age")].size
    ]
    assert np.mean(np.array(newest) < DAY_MS) > 0.2


def test_a_request_has_the_inputs_of_the_signature_in_dtype_and_shape(models):
    spec = request_spec(models["a"].schema)
    for _, inputs in models["a"].asked[::50]:
        assert inputs.keys() == spec.keys()
        for name, tensor in spec.items():
            assert inputs[name].dtype == (
                object if tensor.dtype.as_numpy_dtype is object else tensor.dtype.as_numpy_dtype
            )
            assert tensor.shape.is_compatible_with(inputs[name].shape), name


def test_histories_are_the_pipelines(logs, simulation, world):
    """Of the month: what the replay tells a model is what the model was trained on."""
    (chunk,) = simulation.chunks()
    schema = schema_of(logs)
    _, played = play_chunk(world, simulation.seed, chunk)
    ours = Histories(chunk.users, simulation.scenarios)
    ours.add(played, simulation.record(world, chunk, played))

    def read(table):
        rows = pa.concat_tables([pa_json.read_json(path) for path in sorted(logs.glob(f"{table}-*.gz"))])
        return rows.append_column(PLACE, pa.array(np.arange(rows.num_rows)))

    impressions, items = (
        read("impressions"),
        read("items").select(["item_id", "kind", "category", "brand", "price_band", PLACE]),
    )
    actions, _ = attach(read("actions"), items, "item_id")
    theirs = histories(impressions, actions, np.full(actions.num_rows, -1), schema).columns(0, impressions.num_rows)
    theirs = {name: column.to_pylist() for name, column in theirs.items()}
    for row in range(0, impressions.num_rows, 501):
        now = int(played.time[row])
        events = ours.before(played.user[row], now, schema.history.actions, schema.history.max_length)
        assert [now - event.time for event in events] == theirs["history_age"][row]
        assert [event.action for event in events] == theirs["history_action"][row]
        assert [event.scenario for event in events] == theirs["history_scenario"][row]
        assert [f"i{event.item:05}" for event in events] == theirs["history_item_id"][row]


class Knowing:
    """Ranks by the truth, or against it."""

    explore = 0.1

    def __init__(self, sign):
        self._sign = sign

    def logits(self, asked, item, free):
        relevance, _ = asked.chances(item)
        return ranking_logits(self._sign * relevance, free, 2.0), np.zeros((2, *item.shape), np.float32)


def test_who_knows_the_truth_does_better_than_chance_and_chance_better_than_who_defies_it(simulation, world):
    (chunk,) = simulation.chunks()
    plan = plan_of(simulation, days=8)
    clicks = {}
    for sign in (1, 0, -1):
        shop, _ = play_chunk(world, simulation.seed, chunk)
        shop.ranker = ArmRanker(shop.ranker, {"it": Knowing(sign)}, "it", plan.stream("slates", chunk))
        played = shop.play(plan.stream("luck", chunk), plan.visits(shop, chunk))
        clicks[sign] = played.click.mean()
    assert clicks[1] > 1.4 * clicks[0] > 1.4 * 1.4 * clicks[-1]


def test_the_true_worth_of_one_step_is_what_its_own_clicks_average_to(arms):
    """For the arm that is played, summed over its chances, it would be its rate; for a target it lies in between."""
    for arm, target in (("a", "b"), ("b", "a"), (SHOP, "a")):
        truth = arms[arm].targets[target].truth
        assert (truth[1] < truth[0]).all()
        own = arms[target].click.mean()
        error = np.sqrt(own / arms[target].click.size)
        assert abs(truth[0].mean() - own) < 0.25 * own + 4 * error


def test_a_feature_that_the_shop_has_not_is_refused(world, models):
    schema = models["a"].schema
    features = schema.features | {"mood": schema.features["device"]}
    strange = schema.model_copy(update={"features": features})
    users = Users.draw(np.random.default_rng(0), world, 1)
    with pytest.raises(InputError, match="model: mood: found a feature that the simulated shop has not, expe"):
        Requests(strange, world, users, 0, "model")


def test_a_request_has_the_signals_that_the_logs_have(tmp_path):
    """Of a month's slates, row by row: what the replay gives a model is what `simulate` logged."""
    logs = write_logs(tmp_path / "logs", 1_000, signals=dict.fromkeys(SIGNALS, 0.5))
    simulation, schema = read_simulation(logs), schema_of(logs)
    world, (chunk,) = simulation.world(), simulation.chunks()
    shop, month = play_chunk(world, simulation.seed, chunk)
    requests = Requests(schema, world, shop.users, 0, "model")
    impressions, items = (
        pa.concat_tables([pa_json.read_json(path) for path in sorted(logs.glob(f"{table}-*.gz"))]).to_pylist()
        for table in ("impressions", "items")
    )
    for start in range(0, len(impressions), SLATE):
        of, rows = slice(start, start + SLATE), impressions[start : start + SLATE]
        now = int(month.time[start])
        inputs = requests.inputs(
            month.user[start], now, "", 0, [], month.item[of],
            month.zero_results[start], month.query_vector[start], month.retrieval_score[of],
        )  # fmt: skip
        for name in ("price_now", "discount", "retrieval_score"):
            np.testing.assert_array_equal(inputs[name], np.array([row[name] for row in rows], np.float32))
        np.testing.assert_array_equal(inputs["in_stock"], [row["in_stock"].encode() for row in rows])
        assert inputs["zero_results"].tolist() == [rows[0]["zero_results"].encode()]
        vector = rows[0]["query_vector"] or [0.0] * 16
        np.testing.assert_array_equal(inputs["query_vector"], np.array([vector], np.float32))
        np.testing.assert_array_equal(inputs["price"], inputs["price_now"])
    assert {row["item_id"]: row["item_vector"] for row in items} == {
        f"i{item:05}": vector.tolist() for item, vector in enumerate(world.signals.vector)
    }
    model = FakeModel(schema)
    play_arm(plan_of(simulation, days=1), world, chunk, "a", {"a": model})
    assert {*schema.features} <= {*model.asked[0][1]}
    assert model.asked[0][1]["item_vector"].shape == (64, 16)


def test_the_month_ends_where_the_test_begins(simulation, world):
    (chunk,) = simulation.chunks()
    shop, _ = play_chunk(world, simulation.seed, chunk)
    visits = plan_of(simulation).visits(shop, chunk)
    assert (visits.time >= START_MS + DAYS * DAY_MS).all()
    assert dataclasses.is_dataclass(visits)
    assert set(visits.device) == {0, 1}
