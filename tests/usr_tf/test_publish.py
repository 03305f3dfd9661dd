"""`usr-tf publish` of a real run, up to a server that passes the smoke test."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
from pathlib import Path

import pytest

from serving.formats.logged_requests import read_requests
from serving.local_server import serve_in_background
from serving.publishing.golden import read_golden
from serving.publishing.smoke import main as smoke
from usr_tf.cli import main


@pytest.fixture(scope="module")
def published(toy_run, tmp_path_factory) -> Path:
    """The folder of versions, with one in it."""
    out = tmp_path_factory.mktemp("published")
    assert main(["publish", f"--run={toy_run.directory}", f"--out={out}"]) == 0
    return out


@pytest.mark.slow
def test_a_published_run_is_served_as_it_was_evaluated(published, toy_run, capsys):
    (version,) = published.glob("[0-9]*")
    logged = sum(len(read_requests(path)) for path in toy_run.requests.glob("*.jsonl"))
    assert len(read_golden(version)) == logged > 0
    with serve_in_background(published, rest_port=0) as server:
        address = [f"--address={server.address}", f"--rest={server.rest_address}"]
        assert smoke([*address, f"--model_dir={version}"]) == 0
        same = ["canary", *address[:1], f"--stable={version.name}", f"--canary={version.name}"]
        golden = str(version / "assets.extra" / "golden.jsonl")
        limits = ["--max_difference=0", "--max_rank_change=0", "--max_auc_drop=0"]
        assert main([*same, *limits, f"--out={published.parent}/canary.json", "--requests", golden]) == 0
    found = json.loads((published.parent / "canary.json").read_text())
    assert found["requests"] == logged
    assert 0 < found["scenarios"]["search"]["tasks"]["ctr"]["auc_stable"] < 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 10


@pytest.mark.slow
def test_a_worse_run_is_refused_in_one_line(published, toy_run, capsys):
    (version,) = published.glob("[0-9]*")
    figures = version / "assets.extra" / "metrics.json"
    better = json.loads(figures.read_text())
    better["scenarios"]["recommendation"]["ctr"]["auc"] += 0.1
    figures.write_text(json.dumps(better))
    assert main(["publish", f"--run={toy_run.directory}", f"--out={published}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "metrics.json: recommendation.ctr.auc: found 0." in line
    assert line.endswith("the served version's less 0.002")
    assert list(published.glob("[0-9]*")) == [version]


def test_labels_are_promoted_in_a_file(tmp_path, capsys):
    assert main(["publish", f"--out={tmp_path}", "--promote"]) == 2
    expected = "--model_config_file: found nothing, expected the file with the labels to move"
    assert expected in capsys.readouterr().err
    assert main(["publish", f"--out={tmp_path}", "--run=R", "--rollback"]) == 2
    assert "found --run and --rollback, expected one of these" in capsys.readouterr().err
