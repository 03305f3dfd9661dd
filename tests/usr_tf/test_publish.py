"""`usr-tf publish` of a real run, up to a server that passes the smoke test."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
from pathlib import Path

import pytest

from serving.formats.logged_requests import read_requests
from serving.local_server import serve_in_background
from serving.publishing.golden import SYNTHETIC, read_golden
from serving.publishing.smoke import main as smoke
from usr_tf.cli import main


@pytest.fixture(scope="module")
def published(toy_run, tmp_path_factory) -> Path:
    """The folder of versions, with one in it."""
    out = tmp_path_factory.mktemp("published") / "serving"
    golden = out.with_name("golden.jsonl")
    assert main(["publish", f"--run={toy_run.directory}", f"--out={out}", f"--golden={golden}"]) == 0
    return out


@pytest.mark.slow
def test_a_published_run_is_served_as_it_was_evaluated(published, toy_run, capsys):
    (version,) = published.glob("[0-9]*")
    logged = [len(read_requests(path)) for path in toy_run.requests.glob("*.jsonl")]
    assert len(read_golden(version)) == sum(min(count, SYNTHETIC) for count in logged) > 0
    with serve_in_background(published, rest_port=0) as server:
        address = [f"--address={server.address}", f"--rest={server.rest_address}"]
        assert smoke([*address, f"--model_dir={version}"]) == 0
        same = ["canary", *address[:1], f"--stable={version.name}", f"--canary={version.name}"]
        golden = str(published.with_name("golden.jsonl"))
        limits = ["--max_difference=0", "--max_rank_change=0", "--max_auc_drop=0"]
        assert main([*same, *limits, f"--out={published.parent}/canary.json", "--requests", golden]) == 0
    found = json.loads((published.parent / "canary.json").read_text())
    assert found["requests"] == sum(logged)
    assert 0 < found["scenarios"]["search"]["tasks"]["ctr"]["auc_stable"] < 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("ok ") for line in lines) == 10


@pytest.mark.slow
def test_no_person_is_in_a_published_version(published, toy_run):
    """Ids and queries as JSON and as protos have them; this schema hashes both, so no vocabulary holds them."""
    (version,) = published.glob("[0-9]*")
    files = [path.read_bytes() for path in version.rglob("*") if path.is_file() and path.parent.name != "variables"]
    logged = [request for path in toy_run.requests.glob("*.jsonl") for request in read_requests(path)]
    texts = {request.request_id for request in logged}
    texts |= {request.inputs[name] for request in logged for name in ("user_id", "query")} - {""}
    forms = {form: text for text in texts for form in (f'"{text}"'.encode(), bytes([len(text)]) + text.encode())}
    assert not {text for form, text in forms.items() if any(form in data for data in files)}
    golden = published.with_name("golden.jsonl").read_bytes()
    assert all(f'"{text}"'.encode() in golden for text in texts)


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
