"""The tree baseline: rows as a table, training, its run, and the commands that take it."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import gzip
import importlib
import json
import re
import shutil

import numpy as np
import pytest

from tests.once import made_once
from usr_tf.baseline import features
from usr_tf.baseline.calibration import fit_platt
from usr_tf.baseline.config import make_config
from usr_tf.baseline.features import Table, count_ids, read_rows
from usr_tf.baseline.run import open_tree_run
from usr_tf.baseline.train import train_baseline
from usr_tf.cli import main
from usr_tf.compare import compare_runs
from usr_tf.data import open_data
from usr_tf.errors import InputError
from usr_tf.evaluate import evaluate, predict
from usr_tf.run import open_any_run, open_run
from usr_tf.schema import load_schema, parse_schema

FEW = ("num_iterations=15", "learning_rate=0.3", "num_leaves=8", "min_sum_hessian_in_leaf=2", "lambda_l2=0")
"""Parameters with which toy trees train in a second."""


@pytest.fixture(scope="module")
def trees(toy_data, tmp_path_factory):
    """Finished tree runs on the toy data, by objective. Read only."""

    def make(folder):
        for objective in ("binary", "lambdarank"):
            train_baseline(toy_data, folder / objective, make_config(objective, 0, FEW))

    folder = made_once(tmp_path_factory, "toy_trees", make)
    return {objective: open_tree_run(folder / objective) for objective in ("binary", "lambdarank")}


def parsed(**columns):
    """Two parsed rows of the small schema: an item in a feed, and the same item after a search with a history."""
    row = {
        "scenario": np.array([1, 0]),
        "item_id": np.array([3, 3]),
        "words": np.array([[0, 0], [5, 6]]),
        "price": np.array([np.nan, 0.5], np.float32),
        "history_action": np.array([[0, 0, 0], [1, 2, 0]]),
        "history_age": np.array([[0, 0, 0], [9, 7, 0]]),
    }
    return row | columns


SMALL = parse_schema(
    """\
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click, buy]}
features:
  item_id: {group: item, type: categorical, in_history: true}
  words: {group: query, type: text, max_length: 3}
  price: {group: item, type: numeric}
"""
)


def test_a_row_as_columns():
    table = Table(SMALL, {})
    shown = dict(zip(table.names, table.matrix(parsed()).T.tolist(), strict=True))
    assert shown.pop("price")[1:] == [0.5]
    assert shown == {
        "scenario": [1, 0],
        "item_id": [3, 3],
        "words.length": [0, 2],
        "words.1": [0, 5],
        "words.2": [0, 6],
        "words.3": [0, 0],  # the batch has no third word
        "history.length": [0, 2],
        "history.age": [0, 7],  # of the newest, which stands last
    }
    assert np.isnan(table.matrix(parsed())[0, table.names.index("price")])
    assert table.categories == ["scenario", "item_id", "words.1", "words.2", "words.3"]
    empty = {"history_action": np.zeros((2, 0), int), "history_age": np.zeros((2, 0), int)}
    assert not table.matrix(parsed(**empty))[:, -2:].any()


def test_ids_of_a_large_vocabulary_are_counts():
    table = Table(SMALL, {"item_id": np.array([0, 8, 2, 40]), "words.1": np.array([7, 1, 1, 1, 1, 9])})
    shown = dict(zip(table.names, table.matrix(parsed()).T.tolist(), strict=True))
    assert (shown["item_id"], shown["words.1"], shown["words.2"]) == ([40, 40], [7, 9], [0, 6])
    assert table.categories == ["scenario", "words.2", "words.3"]


def test_vectors_signals_and_past_queries_are_columns():
    schema = parse_schema(
        """\
scenarios: [search, feed]
tasks: [{name: ctr, action: click}]
history: {actions: [click], queries: {max_length: 3}}
features:
  item_id: {group: item, type: categorical, in_history: true}
  brand: {group: item, type: categorical, in_history: true}
  query: {group: query, type: text, max_length: 2}
  title: {group: item, type: text, max_length: 2, shares: query}
  price: {group: item, type: numeric, buckets: 5}
  picture: {group: item, type: vector, width: 2}
match: {words: {features: [query, title], by: [coverage]}}
history_match: [brand]
counters: {item: {key: [item_id], actions: [click]}}
"""
    )
    columns = {column.name: column.family for column in Table(schema, {}).columns}
    signals = {
        "match_words_coverage": "match",
        "history_match_brand_click_count": "history_match",
        "history_match_brand_last": "history_match",
        "counter_item_all_impressions": "counters",
        "counter_item_all_click_rate": "counters",
    }
    others = {"bucket_price": "item", "picture.1": "item", "picture.2": "item", "past_queries.length": "past_queries"}
    assert columns.items() >= (signals | others).items()
    left = Table(schema, {}, ("match", "counters", "past_queries")).names
    assert left == [name for name, family in columns.items() if family not in ("match", "counters", "past_queries")]
    assert not [name for name in columns if name.startswith(("raw_", "oracle_", "global_", "position", "picture.3"))]
    assert Table(schema, {}).categories == [
        "scenario",
        "item_id",
        "brand",
        *(f"{name}.{place}" for name in ("query", "title") for place in (1, 2)),
    ]


def test_rows_are_those_of_the_data(toy_data, monkeypatch):
    monkeypatch.setattr(features, "LARGEST_CATEGORY", 30)
    monkeypatch.setattr(features, "_BATCH", 100)
    counts = count_ids(toy_data)
    assert set(counts) == {"user_id", "item_id"}  # 60 buckets, and 30 items
    rows = toy_data.rows("train")
    assert all(each.sum() == rows for each in counts.values())
    table = Table(toy_data.schema, counts)
    train = read_rows(toy_data, "train", table)
    assert train.matrix.shape == (rows, len(table.columns))
    place = table.names.index("item_id")
    start = 0
    for row, labels, _ in toy_data.evaluation(100, "train"):
        part = slice(start, start + len(labels["ctr"]))
        start = part.stop
        np.testing.assert_array_equal(train.matrix[part, place], counts["item_id"][row["item_id"]])
        np.testing.assert_array_equal(train.matrix[part, table.names.index("price")], row["price"])
        np.testing.assert_array_equal(train.labels["ctcvr"][part], labels["ctcvr"])
    assert len(np.unique(train.request)) == len(set(train.request.tolist())) < rows


def test_platt_keeps_the_order_and_meets_the_rates():
    scores = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    platt = fit_platt(scores, np.array([0, 0, 0, 1, 0, 1, 1, 1]))
    np.testing.assert_allclose(platt(np.array([0.0, 1.0])), [0.25, 0.75], atol=1e-4)
    constant = (0.5, 0.5), (0.9, 0.1)
    turned = fit_platt(scores, np.array([1, 1, 1, 0, 1, 0, 0, 0]))
    np.testing.assert_allclose(turned(np.array([0.0, 1.0])), constant[0])  # (4 + 1) of (8 + 2)
    np.testing.assert_allclose(fit_platt(scores, np.ones(8))(scores), 0.9)
    np.testing.assert_allclose(fit_platt(np.zeros(0), np.zeros(0))(np.zeros(1)), 0.5)


def test_trees_find_what_the_toy_shop_hides(trees, toy_data):
    """Items with an even number are clicked ten times as often, whatever the scenario."""
    for run in trees.values():
        rows = predict(run.load_model(), toy_data, "test")
        even = np.array([int(item[1:]) % 2 == 0 for item in rows.item])
        likely = rows.probabilities["ctr"]
        assert likely[even].mean() > 3 * likely[~even].mean()
        assert abs(likely.mean() / rows.labels["ctr"].mean() - 1) < 0.3
        assert likely.mean() > 1.5 * rows.probabilities["ctcvr"].mean()
        for shares in run.importances.values():
            assert shares["families"][0]["family"] == "item"
            assert sum(row["gain"] for row in shares["features"]) == pytest.approx(1)
            assert sum(row["gain"] for row in shares["families"]) == pytest.approx(1)


def test_the_same_seed_gives_the_same_files_and_another_does_not(trees, toy_data, tmp_path):
    for objective, run in trees.items():
        again = train_baseline(toy_data, tmp_path / objective, make_config(objective, 0, FEW))
        other = train_baseline(toy_data, tmp_path / f"{objective}_1", make_config(objective, 1, FEW))
        models = sorted(path.name for path in run.directory.glob("model_*.txt"))
        assert (
            models
            == {
                "binary": ["model_ctcvr.txt", "model_ctr.txt"],
                "lambdarank": ["model_relevance.txt"],
            }[objective]
        )
        for name in (*models, "baseline.json", "importances.json", "schema.yaml"):
            assert (again.directory / name).read_bytes() == (run.directory / name).read_bytes()
        assert any((other.directory / name).read_bytes() != (run.directory / name).read_bytes() for name in models)


def test_training_stops_early(trees, toy_data, tmp_path):
    lines = []
    few = make_config("binary", 0, ("num_iterations=400", "early_stopping_round=5", "learning_rate=0.5"))
    run = train_baseline(toy_data, tmp_path / "run", few, lines.append)
    rounds = json.loads((run.directory / "baseline.json").read_text())["rounds"]
    assert all(1 <= each < 400 for each in rounds.values())
    assert lines[1].startswith(f"ctr: {rounds['ctr']} rounds, binary_logloss 0.")
    assert run.load_model().boosters["ctr"].num_trees() == rounds["ctr"]


def test_data_without_a_validation_split_train_all_rounds(toy_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(toy_data.directory, data)
    stats = json.loads((data / "stats.json").read_text())
    for scenario in stats["splits"]["valid"].values():
        scenario["impressions"] = 0
    (data / "stats.json").write_text(json.dumps(stats))
    shutil.rmtree(data / "valid")
    for objective in ("binary", "lambdarank"):
        run = train_baseline(open_data(data), tmp_path / objective, make_config(objective, 0, FEW))
        assert set(json.loads((run.directory / "baseline.json").read_text())["rounds"].values()) == {15}
        probabilities = predict(run.load_model(), toy_data, "test").probabilities["ctr"]
        assert 0.1 < probabilities.mean() < 0.5


def test_evaluate_a_tree_run(trees, toy_data, tmp_path):
    document, _ = evaluate(trees["binary"], toy_data, tmp_path, replicates=10)
    assert document["scenarios"]["search"]["ctr"]["auc"] > 0.65
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "LightGBM on the test split" in page
    assert "<h2>Importances</h2>" in page
    assert "history_match" not in page
    for absent in ("Learning", "What the views learned"):
        assert f"<h2>{absent}</h2>" not in page
    assert "parameters.num_leaves" in page  # set for this run


def test_evaluate_against_trees(toy_run, trees, toy_data, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(trees["binary"].directory, other)
    runs = [trees["binary"].directory, trees["lambdarank"].directory, other]
    baselines, report = [f"--baseline={run}" for run in runs], tmp_path / "report"
    assert main(["evaluate", f"--run={toy_run.directory}", f"--out={report}", *baselines]) == 0
    document, details = (json.loads((report / f"{name}.json").read_text()) for name in ("metrics", "details"))
    names = [f"LightGBM ({runs[0]})", "LambdaMART", f"LightGBM ({other})"]
    assert list(document["baselines"]) == names
    first, _, second = document["baselines"].values()
    assert first == second

    compared = compare_runs(toy_run, trees["binary"])
    for scenario in ("search", "recommendation"):
        for task in ("ctr", "ctcvr"):
            expected = compared["scenarios"][scenario][task]["auc"]
            assert first["scenarios"][scenario][task]["auc"] == expected["b"]
            baseline = details["scenarios"][scenario][task]["baselines"][names[0]]
            assert (baseline["auc"], baseline["auc_gain"]) == (expected["b"], expected["interval"])
    page = (report / "report.html").read_text(encoding="utf-8")
    assert re.search(r"Ranks [^.<]* (than|as) LightGBM \(", page)
    for part in ("AUC less that of LambdaMART", "<h4>AUC against LambdaMART</h4>", "--baseline"):
        assert part in page
    assert f"{compared['scenarios']['search']['ctr']['auc']['difference']:+.4f}" in capsys.readouterr().out


def test_a_tree_run_from_the_command_line(toy_data, tmp_path, capsys):
    out = tmp_path / "trees"
    arguments = ["--objective=lambdarank", "--seed=3", "--without=past_queries", "--without=match", "--set", *FEW]
    assert main(["baseline", f"--data={toy_data.directory}", f"--out={out}", *arguments]) == 0
    assert "relevance: " in capsys.readouterr().out
    run = open_any_run(out)
    assert (run.config.seed, run.config.parameters["num_leaves"]) == (3, 8)
    assert run.name == "LambdaMART without match, past_queries"
    assert main(["explain", f"--run={out}"]) == 0
    printed = capsys.readouterr().out
    assert "relevance: families by gain" in printed
    assert "item_id" in printed
    assert not list(tmp_path.glob(".*"))


def refusals(folder, data, trees):
    tree, vacant = trees.directory, folder / "vacant"
    baseline = ["baseline", f"--data={data}", f"--out={vacant}"]
    return {
        "unknown parameter": ([*baseline, "--set", "leafs=3"], "Unknown parameter: leafs"),
        "second name": ([*baseline, "--set", "n_estimators=3"], "n_estimators"),
        "value": ([*baseline, "--set", "num_leaves=1"], "num_leaves"),
        "no pair": ([*baseline, "--set", "num_leaves"], "--set: found 'num_leaves', expected key=value"),
        "fixed": ([*baseline, "--set", "objective=poisson"], "--set objective: found a parameter that is fixed"),
        "taken": (["baseline", f"--data={data}", f"--out={tree}"], "found files, expected a new or an empty directory"),
        "export": (["export", f"--run={tree}", f"--out={vacant}"], "found a tree run of `usr-tf baseline`"),
        "publish": (["publish", f"--run={tree}", f"--out={vacant}"], "found a tree run of `usr-tf baseline`"),
        "beside": (["evaluate", f"--run={tree}", f"--beside={tree}", f"--out={vacant}"], "found a tree run"),
        "explain": (["explain", f"--run={tree}", "--item=i01"], "--item: found a tree run, expected --run alone"),
        "score_logs": (
            ["score_logs", f"--model={tree}", f"--logs={tree}", f"--out={vacant}"],
            "found no impressions file",
        ),
    }


def test_refusals_are_one_line_and_leave_nothing(trees, toy_data, tmp_path, capfd):
    for name, (arguments, expected) in refusals(tmp_path, toy_data.directory, trees["binary"]).items():
        assert main(arguments) == 2, name
        line = capfd.readouterr().err
        assert line.count("\n") == 1, name
        assert expected in line, name
        assert not list(tmp_path.iterdir()), name


def test_a_baseline_of_other_data_is_refused(toy_run, trees, toy_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(toy_data.directory, data)
    schema = load_schema(data / "schema.yaml")
    changed = schema.model_copy(update={"labels": schema.labels.model_copy(update={"attribution": 1})})
    (data / "schema.yaml").write_text(changed.to_yaml())
    with pytest.raises(InputError, match="another schema than the run's"):
        evaluate(toy_run, open_data(data), tmp_path / "report", baselines=[trees["binary"]])


def test_lightgbm_that_is_missing_is_named(trees, toy_data, tmp_path, monkeypatch):
    imported = importlib.import_module

    def without(name, *rest):
        if name == "lightgbm":
            raise ModuleNotFoundError(name)
        return imported(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    for do in (trees["binary"].load_model, lambda: train_baseline(toy_data, tmp_path / "run", make_config())):
        with pytest.raises(InputError, match=r"found no module lightgbm, .* pip install 'usr-tf\[baseline\]'"):
            do()


def test_broken_runs_and_data_are_named(trees, toy_data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trees["binary"].directory, run)
    (run / "model_ctr.txt").write_text("tree\n")
    with pytest.raises(InputError, match=r"model_ctr.txt: found no model"):
        open_tree_run(run).load_model()
    shutil.copy(trees["binary"].directory / "model_ctcvr.txt", run / "model_ctr.txt")
    (run / "counts.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"counts.npz: found no counts"):
        open_tree_run(run).load_model()
    (run / "_SUCCESS").unlink()
    with pytest.raises(InputError, match="found no _SUCCESS, expected a directory that `usr-tf baseline` finished"):
        open_any_run(run)
    with pytest.raises(InputError, match=r"a tree run of .* compare and explain take tree runs too"):
        open_run(trees["binary"].directory)

    data = tmp_path / "data"
    shutil.copytree(toy_data.directory, data)
    file = sorted((data / "train").glob("*.gz"))[0]
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-9]))
    with pytest.raises(InputError, match="found a break after record"):
        train_baseline(open_data(data), tmp_path / "new", make_config("binary", 0, FEW))
    assert not (tmp_path / "new").exists()
