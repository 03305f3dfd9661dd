"""`usr-tf abtest` end to end with SavedModels, and its input errors."""

import json
import shutil

import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from pipelines.simulator.simulate import SIMULATION
from tests.experiments.abtest.shop import schema_of, write_logs
from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.experiments.abtest import Settings, abtest, abtest_page
from usr_tf.experiments.abtest.abtest_page import page
from usr_tf.experiments.abtest.result_tables import model_names
from usr_tf.request_spec import request_spec


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return write_logs(tmp_path_factory.mktemp("shop") / "logs", 3_000)


class Toy(tf.Module):
    """Likes popular items, the more so the greater its weight."""

    def __init__(self, weight):
        super().__init__()
        self._weight = weight

    def score(self, inputs):
        seen = tf.cast(tf.shape(inputs["history_age"])[1], tf.float32)
        ctr = tf.sigmoid(self._weight * tf.math.log1p(inputs["popularity"]) - 3 + 0 * seen)
        return {"ctr": ctr, "ctcvr": 0.1 * ctr}


@pytest.fixture(scope="module")
def models(logs, tmp_path_factory):
    schema = schema_of(logs)
    paths = []
    for version, weight in enumerate((-1.0, 1.0), start=1):
        module, path = Toy(weight), tmp_path_factory.mktemp("serving") / str(version)
        score = tf.function(module.score).get_concrete_function(request_spec(schema))
        tf.saved_model.save(module, str(path), signatures=dict.fromkeys(schema.scenarios, score))
        (path / "assets.extra").mkdir()
        (path / "assets.extra" / "schema.yaml").write_text(schema.to_yaml(), encoding="utf-8")
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def tested(models, logs, tmp_path_factory):
    """The folder that a test wrote; B is given as a folder of versions."""
    out = tmp_path_factory.mktemp("abtest")
    abtest(models[0], models[1].parent, logs, out, Settings(days=2), workers=1, progress=False, command="the command")
    return out


def test_the_document_holds_all_parts_and_the_page_shows_them(tested):
    document = json.loads((tested / "abtest.json").read_text())
    assert document["b"].endswith("/2")
    scopes = {"search", "recommendation", "all"}
    for part in ("figures", "twins", "test", "days", "splits"):
        assert document[part].keys() == scopes
        for figures in document[part].values():
            assert list(figures) == ["uctr", "ucvr", "ctr", "ctcvr", "revenue"]
    assert document["sample_ratio"]["a"] + document["sample_ratio"]["b"] == document["users"]
    pairs = {(row["logging"], row["target"]) for row in document["off_policy"]}
    assert pairs == {("shop", "a"), ("shop", "b"), ("a", "b"), ("b", "a")}
    assert len(document["days"]["all"]["ctr"]["valid"]) == 2
    shown = (tested / "abtest.html").read_text(encoding="utf-8")
    for words in ("the command", "What B does: twins", "Looking every day", "off-policy", "<svg"):
        assert words in shown
    assert "src=" not in shown


def test_a_test_in_which_nobody_did_anything_has_a_page(tested):
    document = json.loads((tested / "abtest.json").read_text())
    for figures in document["twins"].values():
        for found in figures.values():
            found.update(lift=None, interval=None, p_value=None)
    assert "(B) lifts 0 of 4 figures" in page(document, "the command")


def test_the_page_names_both_models(tested):
    document = json.loads((tested / "abtest.json").read_text()) | {"a": "serving/alone/1", "b": "serving/usr/7"}
    shown = page(document, "the command")
    assert "<h1>usr against alone</h1>" in shown
    assert "A is alone, B is usr." in shown
    assert "usr (B) lifts" in shown
    assert "over alone (A)" in shown


@pytest.mark.parametrize(
    ("a", "b", "names"),
    [
        ("serving/alone/1", "serving/usr/1", ("alone", "usr")),
        ("serving/usr/1", "serving/usr/2", ("usr/1", "usr/2")),  # two versions of one model
        ("old/usr/1", "new/usr/1", ("old/usr/1", "new/usr/1")),
        ("serving/usr/1", "serving/usr/1", ("usr/1", "usr/1")),
    ],
)
def test_models_are_called_by_as_much_of_their_paths_as_tells_them_apart(a, b, names):
    assert model_names(a, b) == names


def test_lifts_of_fewer_than_ten_actions_in_an_arm_are_grey(tested):
    """In the tiles and in both tables; a test's actions are those of its own users in each arm."""
    document = json.loads((tested / "abtest.json").read_text())
    for part in ("twins", "test"):
        for figures in document[part].values():
            for found in figures.values():
                found.update(lift=0.1, interval=[0.0, 0.2], actions={"a": 10, "b": 10})
    assert "weak" not in page(document, "").split("</style>")[1]
    for tables, part in enumerate(("twins", "test"), start=1):
        document[part]["search"]["uctr"]["actions"]["b"] = 9
        shown = page(document, "").split("</style>")[1]
        assert shown.count('<td class="main weak">') == tables
        assert shown.count("tile weak") == 1  # tiles show the twins


def test_actions_are_the_counts_behind_the_figures(tested):
    document = json.loads((tested / "abtest.json").read_text())
    for arm in ("a", "b"):
        of_all, of_test = (document[part]["all"]["ctr"] for part in ("twins", "test"))
        impressions = 10 * document["requests"][arm]
        assert of_all["actions"][arm] == pytest.approx(of_all[arm] * impressions)
        assert 0 < of_test["actions"][arm] < of_all["actions"][arm]
        purchases, revenue = (document["twins"]["all"][metric]["actions"][arm] for metric in ("ctcvr", "revenue"))
        assert purchases == revenue


@pytest.mark.parametrize("days", [1, 3])
def test_the_picture_by_day_has_room_for_every_interval(days, monkeypatch):
    """From -99% to +9,900%, the ratios 0.01 and 100, and a lift of -100%, which has no place on the axis."""
    limits = []

    def draw_only(draw, *size):
        figure = Figure()
        draw(figure)
        limits.append((figure.axes[0].get_xlim(), figure.axes[0].get_ylim()))
        return ""

    monkeypatch.setattr(abtest_page, "svg", draw_only)
    found = {"lift": [0.5] * days, "fixed": [[-0.99, 99.0]] * days, "valid": [[-1.0, 5.0]] * days, "stops": None}
    abtest_page._by_day(found)
    ((left, right), (low, high)) = limits[0]
    assert (left, right) == (0.5, days + 0.5)
    assert low < 1e-3
    assert high > 100
    assert "Not defined" in abtest_page._by_day(found | {"lift": [None] * days})


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_seed_gives_the_same_document_whatever_the_processes(tested, models, logs, tmp_path, workers):
    abtest(models[0], models[1], logs, tmp_path, Settings(days=2), workers=workers, progress=False)
    assert (tested / "abtest.json").read_text() == (tmp_path / "abtest.json").read_text()


def test_figures_are_the_sums_by_hand(tested):
    """Clicks per impression of all users is what the arms' own figures say; a test's two arms share the users."""
    document = json.loads((tested / "abtest.json").read_text())
    for arm in ("a", "b"):
        assert document["figures"]["all"]["ctr"][arm] == document["twins"]["all"]["ctr"][arm]
    last = document["days"]["all"]["ctr"]
    assert last["lift"][-1] == pytest.approx(document["test"]["all"]["ctr"]["lift"])
    assert last["fixed"][-1] == pytest.approx(document["test"]["all"]["ctr"]["interval"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"days": 0}, "--days: found 0, expected at least 1"),
        ({"explore": 0.0}, "--explore: found 0.0, expected above 0"),
        ({"temperature": 0.1}, "--temperature: found 0.1, expected 0.2 to 1000 places"),
        ({"share": 1.0}, "--share: found 1.0, expected between 0 and 1"),
        ({"by": "ctr +"}, "--by 'ctr \\+', column"),
        ({"by": "price"}, "--by 'price', column 1: found the name 'price', expected one of ctr, ctcvr"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Settings(**change)


def test_logs_of_elsewhere_and_folders_without_a_model_are_refused(models, logs, tmp_path, capsys):
    flags = [f"--a={models[0]}", f"--b={models[1]}", f"--out={tmp_path / 'out'}"]
    assert main(["abtest", *flags, f"--logs={tmp_path}"]) == 2
    assert "schema.yaml: found no readable file" in capsys.readouterr().err
    other = write_logs(tmp_path / "other", 1_000)
    (other / SIMULATION).write_text((logs / SIMULATION).read_text())
    assert main(["abtest", *flags, f"--logs={other}"]) == 2
    assert "items that this simulator does not make" in capsys.readouterr().err
    assert main(["abtest", f"--a={tmp_path}", *flags[1:], f"--logs={logs}"]) == 2
    assert "found no exported model" in capsys.readouterr().err
    items = next(other.glob("items-*.gz"))
    items.write_bytes(items.read_bytes()[:-9])
    assert main(["abtest", *flags, f"--logs={other}"]) == 2
    assert "items-00000-of-00001.jsonl.gz: found a broken file (" in capsys.readouterr().err
    (other / SIMULATION).write_text('{"impressions": 3}')
    assert main(["abtest", *flags, f"--logs={other}"]) == 2
    assert all("simulation.json: " in line for line in capsys.readouterr().err.splitlines())
    assert not (tmp_path / "out").exists()


def test_a_broken_model_and_a_folder_that_cannot_be_made_are_refused_before_anything_is_played(models, logs, tmp_path):
    broken = shutil.copytree(models[0], tmp_path / "broken")
    (broken / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(InputError, match="broken: found no SavedModel"):
        abtest(models[0], broken, logs, tmp_path / "out", workers=2, progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: found no writable directory"):
        abtest(*models, logs, tmp_path / "file", workers=1, progress=False)


def test_a_test_to_which_nobody_comes_is_refused(models, tmp_path):
    logs = write_logs(tmp_path / "logs", 100)
    with pytest.raises(InputError, match="--users: found 10, none of whom comes in 1 days, expected more users"):
        abtest(*models, logs, tmp_path, Settings(days=1), workers=1, progress=False)
