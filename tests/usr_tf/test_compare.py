"""Comparison of two runs, from their directories to the table."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from tests.usr_tf.drawn import scored
from usr_tf import compare
from usr_tf.compare import compare_runs, format_comparison, write_comparison
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.run import Run


def test_figures_of_two_runs_and_their_difference(toy_run, toy_data, tmp_path, monkeypatch):
    noise = iter((0, 2))

    def predict_with_noise(*args, **options):
        """The run's own probabilities for A, and noisy ones for B."""
        rows = predict(*args, **options)
        factor = np.exp(np.random.default_rng(0).normal(0, next(noise), len(rows)))
        return scored(rows, {task: np.clip(p * factor, 0, 1) for task, p in rows.probabilities.items()})

    monkeypatch.setattr(compare, "predict", predict_with_noise)
    document = compare_runs(toy_run, toy_run, str(toy_data.directory), replicates=30)
    auc = document["overall"]["ctr"]["auc"]
    assert auc["a"] - auc["b"] == pytest.approx(auc["difference"])
    assert auc["interval"][0] > 0.05  # half of the clicks are foretold by the item alone
    assert auc["delong"]["p_value"] < 1e-3

    write_comparison(document, tmp_path / "new" / "comparison.json")
    assert json.loads((tmp_path / "new" / "comparison.json").read_text()) == document
    console = Console(width=100)
    with console.capture() as capture:
        console.print(format_comparison(document))
    text = " ".join(capture.get().split())
    assert f"search ctr AUC {document['scenarios']['search']['ctr']['auc']['a']:.4f}" in text
    assert f"overall ctr AUC {auc['a']:.4f} {auc['b']:.4f} {auc['difference']:+.4f}" in text
    assert text.count("AUC given the task before") == 3  # ctcvr in both scenarios and overall


def test_a_run_that_answers_no_probabilities_is_named(toy_run, toy_data, tmp_path, monkeypatch):
    def answer(run):
        p = np.float32(0.5 if run is toy_run else 1.5)
        return lambda features: {task: tf.fill([len(features["scenario"])], p) for task in ("ctr", "ctcvr")}

    monkeypatch.setattr(Run, "load_model", answer)
    other = dataclasses.replace(toy_run, directory=tmp_path / "other")
    shutil.copytree(toy_run.directory, other.directory)
    with pytest.raises(InputError, match=r"other on the test split: ctr: found 1.5 for i\d\d of request r0\d+ in "):
        compare_runs(toy_run, other, str(toy_data.directory))


def test_runs_whose_rows_differ_are_refused(toy_run, toy_data, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(toy_data.directory, other)
    (other / "valid").rename(tmp_path / "valid")
    (other / "test").rename(other / "valid")
    (tmp_path / "valid").rename(other / "test")
    stats = json.loads((other / "stats.json").read_text())
    splits = stats["splits"]
    splits["valid"], splits["test"] = splits["test"], splits["valid"]
    (other / "stats.json").write_text(json.dumps(stats))
    config = toy_run.config.model_copy(update={"data": str(other)})
    with pytest.raises(InputError, match=r"found other rows .* rows that differ.*, expected those of"):
        compare_runs(toy_run, dataclasses.replace(toy_run, config=config))
