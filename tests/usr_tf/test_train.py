import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
import yaml
from sklearn.metrics import roc_auc_score

from tests.usr_tf.fixtures import random_rows, small_config
from usr_tf.data import Data
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.run import Run, open_run, open_run_data
from usr_tf.schema import SUCCESS
from usr_tf.train import save_run, train

PLAIN = {"ie": False, "fg": False, "glmt": False, "contrastive": False}
FIGURES = {
    "auc",
    "gauc",
    "gauc_clicks",
    "logloss",
    "ne",
    "calibration",
    "ece",
    "pr_auc",
    "ndcg@10",
    "mrr",
    "n",
    "positives",
}


def history_of(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.directory / "history.jsonl").read_text().splitlines()]


# A whole run


def test_loss_falls_and_auc_rises(toy_run):
    epochs = history_of(toy_run)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert epochs[2]["loss"] < epochs[1]["loss"] < epochs[0]["loss"]
    assert epochs[2]["val_nll"] < epochs[0]["val_nll"]
    for scenario in ("search", "recommendation"):
        assert epochs[2][f"val_{scenario}/ctr_auc"] > 0.65
        assert epochs[2][f"val_{scenario}/ctr_auc"] > epochs[0][f"val_{scenario}/ctr_auc"] - 0.02
    assert not [name for name in epochs[0] if name.startswith("val_") and name.endswith("contrastive")]


def test_metrics_have_the_form_of_the_contract(toy_run, toy_data):
    document = json.loads((toy_run.directory / "metrics.json").read_text())
    assert set(document) == {"scenarios", "overall"}
    assert list(document["scenarios"]) == ["search", "recommendation"]
    for scenario in (*document["scenarios"].values(), document["overall"]):
        assert list(scenario) == ["ctr", "ctcvr"]
        for figures, further in zip(scenario.values(), (set(), {"auc_given_previous"}), strict=True):
            assert set(figures) == FIGURES | further  # no oracle_auc: the toy logs have no true probabilities
    assert document["overall"]["ctr"]["n"] == toy_data.rows("valid")


def test_metrics_are_those_of_the_best_epoch(toy_run, toy_data):
    document = json.loads((toy_run.directory / "metrics.json").read_text())
    best = min(history_of(toy_run), key=lambda epoch: epoch["val_nll"])
    overall = document["overall"]
    assert overall["ctr"]["logloss"] + overall["ctcvr"]["logloss"] == pytest.approx(best["val_nll"], rel=1e-4)
    rows = predict(toy_run.load_model(), toy_data, "valid")
    logits = np.log(rows.probabilities["ctr"]) - np.log1p(-rows.probabilities["ctr"])
    for number, (name, figures) in enumerate(document["scenarios"].items()):
        of, labels = rows.scenario == number, rows.labels["ctr"]
        assert figures["ctr"]["auc"] == pytest.approx(roc_auc_score(labels[of], logits[of]), abs=1e-6)
        streamed = np.floor((logits[of] + 14) * 2048 / 28)  # ScenarioAUC's bins: rows of one are ties
        assert best[f"val_{name}/ctr_auc"] == pytest.approx(roc_auc_score(labels[of], streamed), abs=1e-5)


def test_a_run_holds_all_it_needs(toy_run, toy_data):
    names = {path.name for path in toy_run.directory.iterdir()}
    expected = {"config.yaml", "schema.yaml", "checkpoints", "logs", "metrics.json", "transform", "requests", SUCCESS}
    assert names == expected | {"history.jsonl", "training.json"}
    assert toy_run.config == small_config(data=str(toy_data.directory.resolve()))
    assert toy_run.schema == toy_data.schema


def test_a_run_of_an_older_version_has_the_model_of_that_version(toy_run, tmp_path):
    shutil.copytree(toy_run.directory, tmp_path / "run")
    settings = tmp_path / "run" / "config.yaml"
    document = yaml.safe_load(settings.read_text())
    del document["number_bins"], document["cross"]
    settings.write_text(yaml.safe_dump(document))
    config = open_run(tmp_path / "run").config
    assert (config.number_bins, config.cross) == (1, "none")
    assert config.model_copy(update={"number_bins": 4, "cross": "dot"}) == toy_run.config


def test_a_model_of_ones_own_training_is_left_as_a_run(toy_data, toy_run, tmp_path):
    model = toy_run.load_model()
    model.history = keras.callbacks.History()
    model.history.history = {"loss": [0.5, 0.25], "val_search/ctr_auc": [0.5, 0.75]}
    run = save_run(model, toy_data, tmp_path / "run")
    opened = open_run(run.directory)
    assert opened == run
    assert opened.config.learns_as(toy_run.config)
    assert open_run_data(opened, None) == toy_data
    features, _ = random_rows(toy_data.schema, 5)
    np.testing.assert_array_equal(opened.load_model()(features)["ctr"], model(features)["ctr"])
    assert (run.directory / "metrics.json").read_text() == (toy_run.directory / "metrics.json").read_text()
    assert history_of(run)[1] == {"epoch": 2, "loss": 0.25, "val_search/ctr_auc": 0.75}
    with pytest.raises(InputError, match="found a run, expected a new directory"):
        save_run(model, toy_data, run.directory)


def test_tensorboard_shows_each_scenario(toy_run):
    tags: dict[str, set] = {}
    for path in (toy_run.directory / "logs").glob("*/events*"):
        events = tf.compat.v1.train.summary_iterator(str(path))
        tags.setdefault(path.parent.name, set()).update(value.tag for event in events for value in event.summary.value)
    wanted = {f"{scenario}/{task}_auc" for scenario in ("search", "recommendation") for task in ("ctr", "ctcvr")}
    assert wanted | {"loss/loss", "loss/nll"} <= tags["train"]
    assert wanted | {"loss/loss", "loss/nll"} <= tags["validation"]
    assert "loss/interest_contrastive" in tags["train"]


def test_a_finished_run_is_refused(toy_run, toy_data):
    with pytest.raises(InputError, match="found a finished run, expected a new directory or an unfinished run"):
        train(toy_data, toy_run.directory, small_config())


def test_another_configuration_is_refused(toy_run, toy_data, tmp_path):
    copy = unfinished_copy(toy_run, tmp_path)
    with pytest.raises(InputError, match=r"config\.yaml: found another configuration than this one, expected the same"):
        train(toy_data, copy.directory, small_config(embedding_size=5))


def unfinished_copy(run: Run, folder) -> Run:
    """The run as if it had been killed after its last epoch."""
    directory = folder / "run"
    shutil.copytree(run.directory, directory)
    (directory / SUCCESS).unlink()
    (directory / "metrics.json").unlink()
    return Run(directory, run.config, run.schema)


def test_a_run_killed_after_its_last_epoch_is_only_evaluated(toy_run, toy_data, tmp_path):
    copy = unfinished_copy(toy_run, tmp_path)
    document = train(toy_data, copy.directory, small_config(), verbose=0)
    assert document == json.loads((toy_run.directory / "metrics.json").read_text())
    assert history_of(copy) == history_of(toy_run)
    assert (copy.directory / SUCCESS).exists()


def test_without_validation_and_test_rows(toy_data, tmp_path):
    shutil.copytree(toy_data.directory, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "requests")
    stats = json.loads((tmp_path / "data" / "stats.json").read_text())
    for split in ("valid", "test"):
        for path in (tmp_path / "data" / split).iterdir():
            with tf.io.TFRecordWriter(str(path), "GZIP"):
                pass
        for counts in stats["splits"][split].values():
            counts.update(dict.fromkeys(counts, 0))
    (tmp_path / "data" / "stats.json").write_text(json.dumps(stats))
    config = small_config(usr=PLAIN, train={"epochs": 1, "monitor": "val_recommendation/ctr_auc"})
    document = train(Data(tmp_path / "data", toy_data.schema), tmp_path / "run", config, verbose=0)
    nothing = dict.fromkeys(FIGURES - {"n", "positives"})
    assert document["scenarios"]["search"]["ctr"] == {**nothing, "n": 0, "positives": 0}
    text = (tmp_path / "run" / "metrics.json").read_text()
    assert '"auc": null' in text
    assert "NaN" not in text
