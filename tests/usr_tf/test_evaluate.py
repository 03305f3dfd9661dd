import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import html
import json
import shlex

import numpy as np
import pytest
import tensorflow as tf

from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.evaluate import evaluate, predict
from usr_tf.metrics import metrics_document
from usr_tf.run import Run


@pytest.fixture(scope="module")
def predictions(toy_run, toy_data):
    return predict(toy_run.load_model(), toy_data, "test", batch_size=100)


def test_every_row_of_the_split_once(predictions, toy_data):
    assert len(predictions) == toy_data.rows("test")
    assert len(set(zip(predictions.request, predictions.item, strict=True))) == len(predictions)
    assert predictions.oracle == {}


def test_a_rows_columns_belong_together(predictions, toy_run, toy_data):
    model, start = toy_run.load_model(), 0
    for features, labels, keys in toy_data.evaluation(64, "test"):
        rows = slice(start, start + len(labels["ctr"]))
        start = rows.stop
        expected = model(features)
        for task in ("ctr", "ctcvr"):
            np.testing.assert_allclose(predictions.probabilities[task][rows], expected[task], atol=1e-6)
            np.testing.assert_array_equal(predictions.labels[task][rows], labels[task])
        np.testing.assert_array_equal(predictions.item[rows], keys["raw_item_id"])
        np.testing.assert_array_equal(predictions.user[rows], keys["raw_user_id"])
        np.testing.assert_array_equal(predictions.request[rows], keys["request_id"])
        np.testing.assert_array_equal(predictions.position[rows], keys["position"])
        np.testing.assert_array_equal(predictions.scenario[rows], features["scenario"])
    assert start == len(predictions)


def test_writes_figures_details_and_report(toy_run, toy_data, predictions, tmp_path):
    document, details = evaluate(toy_run, toy_data, tmp_path / "report", replicates=10, beside=toy_run)
    expected = metrics_document(predictions, toy_data.schema)
    for scenario, tasks in expected["scenarios"].items():
        for task, figures in tasks.items():
            assert document["scenarios"][scenario][task] == pytest.approx(figures, rel=1e-4)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == document
    assert json.loads((tmp_path / "report" / "details.json").read_text()) == details
    report = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "shared_bottom on the test split" in report
    for part in ("Learning", "What the views learned", "Worst errors", "Data", "How it was made"):
        assert f"<h2>{part}</h2>" in report
    assert report.count("<h4>Interests (IE) of ") == 2
    assert html.escape(f"--beside {shlex.quote(str(toy_run.directory))}") in report
    ctr = details["scenarios"]["search"]["ctr"]
    low, high = ctr["intervals"]["auc"]
    assert low <= document["scenarios"]["search"]["ctr"]["auc"] <= high
    assert ctr["oracle"] is None  # the toy shop's logs have no true probabilities
    # Even items are clicked ten times as often, and the training split says so.
    assert ctr["baselines"]["popularity"]["auc"] > 0.65


def test_a_file_for_a_folder_is_refused_before_the_work(toy_run, toy_data, tmp_path, monkeypatch):
    (tmp_path / "report").touch()
    monkeypatch.delattr(Run, "load_model")
    with pytest.raises(InputError, match=r"report: found no writable directory \(.+\), expected one that can be"):
        evaluate(toy_run, toy_data, tmp_path / "report")


def test_a_model_that_answers_nan_is_refused_in_one_line(toy_run, toy_data, tmp_path, monkeypatch, capsys):
    def answer(features):
        ctr = tf.where(features["scenario"] == 0, np.float32(0.5), np.float32(np.nan))
        return {"ctr": ctr, "ctcvr": ctr}

    monkeypatch.setattr(Run, "load_model", lambda run: answer)
    assert main(["evaluate", f"--run={toy_run.directory}", f"--out={tmp_path}/report"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]  # below the progress bar
    of_scenario = toy_data.stats["splits"]["test"]["recommendation"]["impressions"]
    assert error.startswith(f"{toy_run.directory} on the test split: ctr: found nan for i")
    told = f"in recommendation ({of_scenario} of {toy_data.rows('test')} rows have no probability), expected a number"
    assert told in error
    assert list((tmp_path / "report").iterdir()) == []


def test_the_validation_split_gives_what_training_wrote(toy_run, toy_data):
    document = metrics_document(predict(toy_run.load_model(), toy_data, "valid"), toy_data.schema)
    trained = json.loads((toy_run.directory / "metrics.json").read_text())
    for task in ("ctr", "ctcvr"):
        assert document["overall"][task] == pytest.approx(trained["overall"][task], rel=1e-5)
