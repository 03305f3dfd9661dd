"""Batch scoring of the toy shop's logs with the toy run's export."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluation.row_scorer import RowScorer
from pipelines.evaluation.score_files import SCHEMA_KEY
from pipelines.score import score_logs
from tests.pipelines.tiny import read_lines
from usr_tf.baseline.config import make_config
from usr_tf.baseline.train import train_baseline
from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.evaluate import predict
from usr_tf.schema import SUCCESS, parse_schema

KEYS = ["request_id", "user_id", "item_id", "scenario", "timestamp"]


@pytest.fixture(scope="module")
def logs(toy_data, tmp_path_factory) -> Path:
    """The toy logs, with three rows that no join takes. Read only."""
    folder = tmp_path_factory.mktemp("dirty") / "logs"
    shutil.copytree(toy_data.directory.parent / "logs", folder)
    impressions = folder / "impressions.jsonl"
    last = json.loads(impressions.read_text().splitlines()[-1])
    unknown = json.dumps(last | {"item_id": "i99"})
    with impressions.open("a") as stream:
        stream.write(f'{json.dumps(last)}\n{unknown}\n{{"request_id": \n')
    return folder


def test_scores_are_those_of_evaluation(logs, toy_version, toy_run, toy_data, tmp_path):
    lines = (logs / "impressions.jsonl").read_text().splitlines()[:-3]
    moments = {(row["request_id"], row["item_id"]): row["timestamp"] for row in map(json.loads, lines)}
    start = sorted(moments.values())[4 * len(moments) // 5]  # in valid; histories begin before it
    since = datetime.datetime.fromtimestamp(start / 1000, datetime.UTC).isoformat()
    (tmp_path / "out" / ".temp").mkdir(parents=True)  # as a try that was killed leaves it
    for left in (".temp/score_logs", "stats.json"):
        (tmp_path / "out" / left).touch()
    stats = score_logs(str(toy_version), str(logs), str(tmp_path / "out"), partitions=2, since=since)

    expected = {}
    model = toy_run.load_model()
    for split in ("valid", "test"):
        rows = predict(model, toy_data, split)
        keys = zip(rows.request, rows.item, strict=True)
        scores = zip(*(rows.probabilities[task] for task in toy_run.schema.task_names), strict=True)
        truth = zip(rows.labels["ctr"], rows.labels["ctcvr"], rows.position, rows.history, rows.query > 0, strict=True)
        for (request, item), row, beside in zip(keys, scores, truth, strict=True):
            key = request.decode(), item.decode()
            if moments[key] >= start:
                expected[key] = row, beside
    table = pq.read_table(tmp_path / "out" / "scores")
    assert table.column_names[: len(KEYS) + 2] == [*KEYS, *toy_run.schema.task_names]
    assert parse_schema(table.schema.metadata[SCHEMA_KEY].decode()).features == toy_run.schema.features
    scored = {(row["request_id"], row["item_id"]): row for row in table.to_pylist()}
    assert len(scored) == table.num_rows == len(expected) >= 600
    assert scored.keys() == expected.keys()
    for key, row in scored.items():
        assert row["timestamp"] == moments[key]
        probabilities, beside = expected[key]
        np.testing.assert_allclose([row["ctr"], row["ctcvr"]], probabilities, rtol=0, atol=1e-5)
        names = ("label_ctr", "label_ctcvr", "position", "history_length")
        assert (*(row[name] for name in names), row["query_key"] > 0) == beside
        assert np.isnan(row["oracle_ctr"])

    counts = stats["rows"]["impressions"]
    early = len(moments) - len(expected)
    assert counts["read"] == len(moments) + 3
    assert counts["written"] == len(expected)
    assert counts["rejected"] == {"before_since": early, "broken_json": 1, "duplicate": 1, "unknown_item": 1}
    rejected = read_lines(tmp_path / "out" / "rejected" / "*.jsonl")
    assert sorted((row["reason"], row["place"]) for row in rejected) == [
        ("broken_json", f"impressions.jsonl:{len(moments) + 3}"),
        ("duplicate", f"impressions.jsonl:{len(moments) + 1}"),
        ("unknown_item", f"impressions.jsonl:{len(moments) + 2}"),
    ]
    for scenario in toy_run.schema.scenarios:
        rows = [row for row in scored.values() if row["scenario"] == scenario]
        of_scenario = stats["scores"][scenario]
        assert of_scenario["impressions"] == len(rows)
        assert of_scenario["mean"]["ctr"] == pytest.approx(np.mean([row["ctr"] for row in rows]), abs=1e-6)
    assert json.loads((tmp_path / "out" / "stats.json").read_text()) == stats
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"scores", "rejected", "stats.json", SUCCESS}

    with pytest.raises(InputError, match="finished scores"):
        score_logs(str(toy_version), str(logs), str(tmp_path / "out"))


def test_a_score_that_is_no_probability_is_refused(toy_run, monkeypatch):
    monkeypatch.setattr("pipelines.evaluation.row_scorer.encode_examples", lambda rows: pa.array([b""] * rows.num_rows))
    keys = {"request_id": [["r1"]] * 3, "raw_item_id": [["i1"], ["i2"], ["i3"]], "scenario": [["search"]] * 3}
    read = dict.fromkeys((*toy_run.schema.features, *toy_run.schema.history_columns), pa.nulls(3))
    answers = {"ctr": np.full(3, 0.5), "ctcvr": np.array([0.5, np.nan, 2])}
    scorer = RowScorer("SERVING/7", toy_run.schema, lambda model: lambda examples, scenario: answers)
    told = r"SERVING/7: ctcvr: found nan for i2 of request r1 in search \(2 of 3 rows have no probability\), expected"
    with pytest.raises(InputError, match=told):
        scorer.score(pa.RecordBatch.from_pydict(keys | read), scorer.load_model(), "search")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  spend:", "  thrift:", "features: found no spend, expected it, an input of"),
        (
            "features:\n",
            "features:\n  city: {group: user, type: categorical}\n",
            "features: found city, expected inputs",
        ),
        ("[search, recommendation]", "[search, home]", "scenarios: found 'home', expected those of"),
        ("name: ctcvr", "name: cvr", "tasks: found ctr, cvr, expected ctcvr, ctr, as"),
    ],
)
def test_a_schema_that_is_not_the_models_is_refused(logs, toy_version, tmp_path, old, new, message):
    text = (logs / "schema.yaml").read_text()
    assert old in text
    (tmp_path / "schema.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        score_logs(str(toy_version), str(logs), str(tmp_path / "out"), str(tmp_path / "schema.yaml"))
    assert not (tmp_path / "out").exists()


def test_scores_of_trees_are_those_of_evaluation(logs, toy_data, tmp_path, capsys):
    trees, out, other = tmp_path / "trees", tmp_path / "out", tmp_path / "schema.yaml"
    config = make_config("binary", 0, ("num_iterations=8", "num_leaves=8", "min_data_in_leaf=5"))
    run = train_baseline(toy_data, trees, config)
    assert main(["score_logs", f"--model={trees}", f"--logs={logs}", f"--out={out}", "--partitions=2"]) == 0
    capsys.readouterr()
    scored = {(row["request_id"], row["item_id"]): row for row in pq.read_table(out / "scores").to_pylist()}
    rows = predict(run.load_model(), toy_data, "test")
    assert len(rows.request) > 300
    for place, key in enumerate(zip(rows.request, rows.item, strict=True)):
        for task in toy_data.schema.task_names:
            assert scored[key[0].decode(), key[1].decode()][task] == pytest.approx(rows.probabilities[task][place])

    other.write_text((logs / "schema.yaml").read_text().replace("global_window: 6h", "global_window: 7h"))
    refused = ["score_logs", f"--model={trees}", f"--logs={logs}", f"--out={tmp_path}/new", f"--schema={other}"]
    assert main(refused) == 2
    assert f"{other}: labels: found another value, expected that of {trees}" in capsys.readouterr().err


def test_a_schema_that_lies_in_the_model_is_taken(logs, toy_version, tmp_path):
    version = tmp_path / "1"
    shutil.copytree(toy_version, version)
    (version / "assets.extra" / "schema.yaml").write_text("scenarios: []")
    with pytest.raises(InputError, match=r"assets.extra/schema.yaml"):
        score_logs(str(version), str(logs), str(tmp_path / "out"))


def test_what_cannot_be_scored_is_refused(logs, toy_version, tmp_path, capsys):
    assert main(["score_logs", f"--model={toy_version.parent}", f"--logs={logs}", f"--out={tmp_path}/out"]) == 2
    assert f"{toy_version.parent}: found no SavedModel" in capsys.readouterr().err
    for name in ("thesis.txt", "scores"):  # we write a folder of that name too, but not this one
        taken = tmp_path / f"taken by {name}"
        taken.mkdir()
        (taken / name).write_text("the only copy")
        assert main(["score_logs", f"--model={toy_version}", f"--logs={logs}", f"--out={taken}"]) == 2
        assert f"found other files ({name})" in capsys.readouterr().err
        assert (taken / name).exists()
    assert main(["score_logs", f"--model={toy_version}", f"--out={tmp_path}/out"]) == 2
    assert "--logs: found nothing" in capsys.readouterr().err
    flags = [f"--model={toy_version}", f"--logs={logs}", f"--out={tmp_path}/out", "--since=soon"]
    assert main(["score_logs", *flags]) == 2
    assert "--since: found 'soon'" in capsys.readouterr().err
