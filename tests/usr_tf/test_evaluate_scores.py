"""Evaluation by Beam against the same metrics in memory."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import evaluate as job
from pipelines.evaluate import evaluate_scores
from pipelines.evaluation import rank_statistics as ordered
from pipelines.evaluation.score_files import conform, label_column, layout_of, scored_schema
from tests.usr_tf.drawn import SCHEMA, drawn_predictions
from usr_tf import metrics
from usr_tf.cli import main
from usr_tf.errors import InputError
from usr_tf.metrics import Predictions
from usr_tf.metrics.slices import Training, slices_of
from usr_tf.schema import Schema, oracle_column

DAY_MS = 86_400_000
START = 1_700_006_400_000  # 2023-11-15 00:00 UTC


@pytest.fixture(scope="module")
def rows() -> Predictions:
    """Three days of rows: some scores certain, some tied, some true probabilities and places unknown."""
    rows = drawn_predictions(n=1_500, users=120)
    generator = np.random.default_rng(7)
    click = rows.probabilities["ctr"].astype(np.float32)
    buy = (click * generator.uniform(0.1, 0.3, len(rows))).astype(np.float32)
    click[:5], buy[:3] = 0, 0
    true = rows.oracle["ctcvr"].astype(np.float32)
    true[rows.scenario == 0] = np.nan
    return dataclasses.replace(
        rows,
        probabilities={"ctr": click, "ctcvr": buy},
        oracle={"ctr": rows.oracle["ctr"].astype(np.float32), "ctcvr": true},
        position=np.where(rows.scenario == 1, rows.position, rows.position - 1),
        timestamp=START + generator.integers(0, 3 * DAY_MS, len(rows)),
        history=generator.integers(0, 30, len(rows)),
        query=np.where(rows.scenario == 0, generator.integers(1, 40, len(rows)), 0).astype(np.uint64),
    )


def write(rows: Predictions, folder, schema: Schema, files: int = 3):
    """The rows as a scorer of this schema writes them, in another order."""
    columns = {
        "request_id": rows.request,
        "user_id": rows.user,
        "item_id": rows.item,
        "scenario": np.array(schema.scenarios, object)[rows.scenario],
        "timestamp": rows.timestamp,
        "position": rows.position,
        "history_length": rows.history,
        "query_key": rows.query,
    }
    for task in schema.task_names:
        columns |= {task: rows.probabilities[task], label_column(task): rows.labels[task].astype(int)}
        columns |= {oracle_column(task): rows.oracle[task]}
    layout = scored_schema(schema)  # of a schema without history and query, which these rows have all the same
    layout = layout.append(pa.field("history_length", pa.int64())).append(pa.field("query_key", pa.uint64()))
    table = pa.table(columns).select(layout.names).cast(layout)
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.random.default_rng(1).permutation(len(rows)), files)):
        pq.write_table(table.take(part), folder / f"{number}.parquet")
    return folder


def assert_same(left, right, place="document"):
    """Equal to 1e-9, however deep."""
    if isinstance(left, dict):
        assert left.keys() == right.keys(), place
        for key in left:
            assert_same(left[key], right[key], f"{place}.{key}")
    elif isinstance(left, list):
        assert len(left) == len(right), place
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{place}[{number}]")
    elif isinstance(left, float):
        assert right == pytest.approx(left, abs=1e-9), place
    else:
        assert left == right, place


def test_shards_give_the_figures_of_the_whole(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(ordered, "BUCKET_ROWS", 300)  # several buckets and partitions of few rows
    monkeypatch.setattr(job, "_BYTES_PER_PARTITION", 20_000)
    monkeypatch.setattr(job, "_BLOCK_ROWS", 300)
    until = START + DAY_MS
    early = rows.timestamp < until
    scores = write(rows, tmp_path / "scores", SCHEMA)
    document, details = evaluate_scores(
        str(scores), str(tmp_path / "report"), trained_until="2023-11-16", replicates=8, seed=3
    )

    seen, late = rows.only(early), rows.only(~early)

    def counts(keys):
        return dict(zip(*(each.tolist() for each in np.unique(keys, return_counts=True)), strict=True))

    clicks = counts(seen.item[seen.labels["ctr"] == 1])
    items = {item: (clicks.get(item, 0), shown) for item, shown in counts(seen.item).items()}
    training = Training(counts(seen.user), items, counts(seen.query[seen.query != 0]))
    late = dataclasses.replace(late, slices=slices_of(late, training))
    assert set(details["overall"]["ctr"]["slices"]) == {"user", "item", "history", "query", "position", "day"}
    assert_same(metrics.metrics_document(late, SCHEMA), document)
    assert_same(metrics.details_document(late, SCHEMA, items, replicates=8, seed=3), details)
    assert details["overall"]["ctcvr"]["oracle"] is None  # a row has none
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == document
    assert json.loads((tmp_path / "report" / "details.json").read_text()) == details
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "details.json",
        "metrics.json",
        "report.html",
    ]


def test_shards_of_a_scenario_without_a_click(rows, tmp_path):
    few = rows.only(np.arange(100))
    labels = {task: np.where(few.scenario == 0, 0, labels) for task, labels in few.labels.items()}
    scores = write(dataclasses.replace(few, labels=labels), tmp_path / "scores", SCHEMA, files=1)
    document, details = evaluate_scores(str(scores), str(tmp_path / "report"), replicates=2)
    assert document["scenarios"]["search"]["ctcvr"]["auc_given_previous"] is None
    assert details["scenarios"]["search"]["ctcvr"]["intervals"]["auc_given_previous"] is None


class TestColumns:
    """Of other scorers, which may have other types."""

    def table(self, **changed) -> pa.RecordBatch:
        columns = {
            "request_id": pa.array(["r", "r"]),
            "user_id": pa.array([7, 8]),
            "item_id": pa.array(["a", "a"]).dictionary_encode(),
            "scenario": pa.array(["search", "search"], pa.large_string()),
            "timestamp": pa.array([START, START], pa.uint64()),
            "ctr": pa.array([0.1, 0.2], pa.float64()),
            "ctcvr": pa.array([0.1, 0.2], pa.float32()),
            "label_ctr": pa.array([True, False]),
            "label_ctcvr": pa.array([1.0, 0.0]),
            "position": pa.array([3, None]),
            "query_key": pa.array([2**64 - 1, None], pa.uint64()),
            "oracle_ctr": pa.array([0.5, None]),
        }
        return pa.RecordBatch.from_pydict(columns | changed)

    def conformed(self, **changed) -> pa.RecordBatch:
        layout = layout_of(self.table().schema, SCHEMA, "scores")
        return conform(self.table(**changed), layout, "scores")

    def test_types_are_made_ours(self):
        rows = self.conformed()
        assert rows.to_pydict() == {
            "request_id": ["r", "r"],
            "user_id": ["7", "8"],
            "item_id": ["a", "a"],
            "scenario": ["search", "search"],
            "timestamp": [START, START],
            "ctr": [0.1, 0.2],
            "ctcvr": [pytest.approx(0.1), pytest.approx(0.2)],
            "label_ctr": [1, 0],
            "label_ctcvr": [1, 0],
            "position": [3, 0],
            "query_key": [2**64 - 1, 0],
            "oracle_ctr": [0.5, None],
        }
        other = self.conformed(ctr=pa.array([0.1, 0.2], pa.float32()))
        assert other.schema == rows.schema  # whatever another file has

    @pytest.mark.parametrize(
        ("name", "column", "message"),
        [
            ("timestamp", pa.array([START, START], pa.timestamp("us")), "us. that is no int64 .a date or time"),
            ("user_id", pa.array(["a", None]), "user_id: found 1 null, expected a value in every row"),
            ("label_ctr", pa.array([0.5, 1.0]), "label_ctr: found double that is no int64"),
            ("ctr", pa.array(["high", "low"]), "ctr: found string that is no double"),
            ("query_key", pa.array([-1, 2]), "query_key: found int64 that is no uint64"),
        ],
    )
    def test_of_another_kind(self, name, column, message):
        with pytest.raises(InputError, match=message):
            self.conformed(**{name: column})


def filled(name, value):
    """A function that gives all rows of a table the same value."""
    return lambda table: table.set_column(table.column_names.index(name), name, pa.repeat(value, len(table)))


class TestBadInput:
    def test_of_the_directory(self, rows, tmp_path, capsys):
        assert main(["evaluate_scores", f"--scores={tmp_path}/none", f"--out={tmp_path}/report"]) == 2
        assert "found no *.parquet, expected scored rows" in capsys.readouterr().err
        write(rows, tmp_path / "scores", SCHEMA)
        assert main(["evaluate_scores", f"--scores={tmp_path}", f"--out={tmp_path}/report"]) == 2
        assert "found no _SUCCESS" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda table: table.drop_columns("label_ctr"), "found no column label_ctr"),
            (lambda table: table.replace_schema_metadata({}), "--schema: found nothing"),
            (filled("ctr", pa.scalar(None, pa.float32())), r"ctr: found nan for i\d+ of request r\d+ in \w+ .50 of 50"),
            (filled("oracle_ctr", pa.scalar(-0.5, pa.float32())), "oracle_ctr: found -0.5 for"),
            (filled("scenario", "feed"), "Received: feed"),
        ],
    )
    def test_of_the_rows(self, rows, tmp_path, change, message):
        scores = write(rows.only(np.arange(50)), tmp_path / "scores", SCHEMA, files=1)
        table = change(pq.read_table(scores / "0.parquet"))
        pq.write_table(table, scores / "0.parquet")
        with pytest.raises(InputError, match=message):
            evaluate_scores(str(scores), str(tmp_path / "report"))
        assert not (tmp_path / "report" / "metrics.json").exists()

    def test_of_one_file_among_others(self, rows, tmp_path):
        scores = write(rows.only(np.arange(50)), tmp_path / "scores", SCHEMA, files=2)
        pq.write_table(pq.read_table(scores / "1.parquet").drop_columns("ctcvr"), scores / "1.parquet")
        with pytest.raises(InputError, match=r"1.parquet: found a file without column ctcvr"):
            evaluate_scores(str(scores), str(tmp_path / "report"))
        whole = (scores / "0.parquet").read_bytes()
        (scores / "1.parquet").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"1.parquet: found no Parquet"):
            evaluate_scores(str(scores), str(tmp_path / "report"))

    def test_no_row_is_late_enough(self, rows, tmp_path):
        scores = write(rows.only(np.arange(50)), tmp_path / "scores", SCHEMA, files=1)
        with pytest.raises(InputError, match="found no row to evaluate"):
            evaluate_scores(str(scores), str(tmp_path / "report"), since="2030-01-01")
