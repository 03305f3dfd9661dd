"""Degenerate splits: every undefined metric is null, and no reader fails."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json

import pytest
from rich.console import Console

from tests.usr_tf.degenerate import KINDS, degenerate, without_scenario
from tests.usr_tf.drawn import SCHEMA, drawn_predictions
from usr_tf import metrics
from usr_tf.cli import main
from usr_tf.compare import format_comparison
from usr_tf.config import Config
from usr_tf.errors import InputError
from usr_tf.evaluation.report.evaluation_page import evaluation_page
from usr_tf.evaluation.report.evaluation_text import format_table
from usr_tf.experiments.objective import value_in
from usr_tf.metrics.registry import metrics_for
from usr_tf.training.tensorboard import TensorBoardLog

UNDEFINED = {
    "a scenario without rows": {("search", "ctr", "auc"), ("search", "ctcvr", "logloss")},
    "a scenario without positives": {("search", "ctr", "auc"), ("search", "ctcvr", "calibration")},
    "a task without positives": {("search", "ctcvr", "auc"), ("overall", "ctcvr", "ne")},
    "no positives": {("search", "ctr", "auc"), ("overall", "ctcvr", "ndcg@10")},
    "no negatives": {("overall", "ctr", "auc"), ("overall", "ctcvr", "auc_given_previous")},
    "one user": set(),
    "one row": {("overall", "ctr", "auc"), ("recommendation", "ctr", "logloss")},
    "no rows": {("overall", "ctr", "logloss"), ("overall", "ctcvr", "auc")},
}


@pytest.fixture(scope="module")
def rows():
    rows = drawn_predictions(n=300, users=20)
    return rows.only(rows.scenario.argsort(kind="stable"))  # the first is of scenario 0


@pytest.mark.parametrize("kind", KINDS)
def test_documents_pages_and_tables_take_it(kind, rows, tmp_path):
    lacking = degenerate(rows, kind)
    document = metrics.metrics_document(lacking, SCHEMA)
    details = metrics.details_document(lacking, SCHEMA, {}, replicates=5)
    comparison = metrics.compare(lacking, lacking, SCHEMA, replicates=5)
    for each in (document, details, comparison):
        assert json.loads(json.dumps(each, allow_nan=False)) == each
    for scenario, task, figure in UNDEFINED[kind]:
        found, compared = (
            each["overall"] if scenario == "overall" else each["scenarios"][scenario] for each in (document, comparison)
        )
        assert found[task][figure] is None
        assert [compared[task][figure][key] for key in ("a", "b", "difference", "interval")] == [None] * 4
        with pytest.raises(InputError, match="undefined on the validation split"):
            value_in(document, f"{scenario}/{task}/{figure}")
    page = evaluation_page(document, details, SCHEMA, kind, lacking)
    assert "nan" not in page.lower().split()
    console = Console(width=200)
    with console.capture() as capture:
        console.print(format_table(document, details), format_comparison(comparison))
    assert "nan" not in capture.get().lower()
    with TensorBoardLog(tmp_path, Config()) as log:
        log.finish(document, 1)


def test_a_scenario_without_rows_in_the_split_is_evaluated_and_compared(toy_run, toy_data, tmp_path, capsys):
    data = without_scenario(toy_data, "search", "test", tmp_path / "data")
    run = f"--run={toy_run.directory}"
    assert main(["evaluate", run, f"--data={data.directory}", f"--out={tmp_path}/report"]) == 0
    assert main(["compare", run, f"--with={toy_run.directory}", f"--data={data.directory}"]) == 0
    document = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    names = [metric.name for metric in metrics_for(SCHEMA, "ctr")]
    assert {**document["scenarios"]["search"]["ctr"]} == dict.fromkeys(names) | {"n": 0, "positives": 0}
    assert document["overall"]["ctr"]["auc"] == document["scenarios"]["recommendation"]["ctr"]["auc"] > 0
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "No rows of this scenario." in page
    assert "search ctr" in capsys.readouterr().out
