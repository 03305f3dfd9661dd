"""Monitoring of served requests against the tiny shop's training data."""

import json

import pytest

from serving.request_log import RequestLog, make_record
from tests.pipelines.tiny import parse_rows, read_lines, write_table
from usr_tf.cli import main

CTR = 0.25


def served(made, folder, change):
    """Request log of the test split's requests, each with the same scores, and the shop's actions."""
    moments = {row["request_id"]: row["timestamp"] for row in made.shop.tables["impressions"]}
    with RequestLog(folder / "requests") as log:
        for scenario in made.shop.schema.scenarios:
            for document in read_lines(made.data / "requests" / f"{scenario}.jsonl"):
                inputs = change(document["inputs"])
                outputs = {"ctr": [CTR] * len(inputs["item_id"]), "ctcvr": [CTR / 5] * len(inputs["item_id"])}
                record = make_record(
                    scenario,
                    inputs,
                    outputs,
                    model="usr",
                    version=4,
                    latency_seconds=0.008,
                    timestamp=moments[document["request_id"]],
                    request_id=document["request_id"],
                )
                log.write(lambda record=record: record)
    write_table(folder, "actions", made.shop.tables["actions"])
    return [f"--requests={folder / 'requests'}", f"--action_files={folder / 'actions.jsonl'}", f"--data={made.data}"]


def test_scores_labels_and_features_are_those_of_the_log(made, tmp_path, capsys):
    flags = served(made, tmp_path, lambda inputs: inputs)
    wide = ["mean_score=100", "calibration=100", "new_tokens=1", "coverage=1", "numeric_shift=9", "label_rate=99"]
    assert main(["monitor", *flags, f"--out={tmp_path / 'out'}", *(f"--limit={limit}" for limit in wide)]) == 0
    document = json.loads((tmp_path / "out" / "monitor.json").read_text())
    rows = parse_rows(made.data, "test")
    assert document["requests"] == len({row["request_id"][0] for row in rows})
    assert document["versions"] == {"4": document["requests"]}
    assert document["latency_ms"] == {"p50": 8.0, "p99": 8.0}
    last = max(row["timestamp"] for row in made.shop.tables["actions"])
    trained = json.loads((made.data / "stats.json").read_text())["splits"]["train"]
    for figures in document["scores"]:
        scenario, task = figures["scenario"], figures["task"]
        of_scenario = [row for row in rows if row["scenario"] == [scenario]]
        over = [row for row in of_scenario if row["timestamp"][0] <= last - made.shop.schema.labels.attribution]
        positives = sum(row[task][0] for row in over)
        score = CTR if task == "ctr" else CTR / 5
        assert (figures["rows"], figures["labelled"], figures["positives"]) == (len(of_scenario), len(over), positives)
        assert figures["mean_score"] == pytest.approx(score)
        assert figures["training_rate"] == trained[scenario][task] / trained[scenario]["impressions"]
        if positives:
            assert figures["calibration"] == pytest.approx(score * len(over) / positives)
    assert {each["verdict"] for each in document["drift"]} <= {"within", "no data", "chance"}
    assert "requests (version 4: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_feature_that_is_served_otherwise_is_told_and_fails(made, tmp_path, capsys):
    def in_cents(inputs):
        return {**inputs, "price": [None if price is None else 100 * price for price in inputs["price"]]}

    flags = served(made, tmp_path, in_cents)
    assert main(["monitor", *flags, f"--out={tmp_path / 'out'}", "--limit=mean_score=0"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "monitor.json: found " in error
    assert "expected all figures within their limits, or a wider --limit" in error
    drifts = json.loads((tmp_path / "out" / "monitor.json").read_text())["drift"]
    prices = [each for each in drifts if each["name"].startswith("price p")]
    assert all(each["amount"] > 10 and each["verdict"] in ("beyond", "chance") for each in prices)
    assert len(prices) == 2
    assert main(["monitor", *flags, f"--out={tmp_path / 'out2'}", "--limit=colour=1"]) == 2
    assert "--limit" in capsys.readouterr().err
