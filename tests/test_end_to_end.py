"""End-to-end test by the verbs: simulate, preprocess, train, evaluate, export, serve, score."""

import usr_tf  # noqa: F401  (picks Keras 2, before TensorFlow comes)

# isort: split
import json
from pathlib import Path

import pytest

from serving.client import Ranker
from serving.local_server import serve_in_background
from usr_tf.cli import main
from usr_tf.data import open_data
from usr_tf.demo import serving_difference
from usr_tf.run import open_run

SCHEMA = """\
scenarios: [search, recommendation]
tasks:
  - {name: ctr, action: click}
  - {name: ctcvr, action: purchase}
history: {actions: [click, cart, purchase], max_length: 20}
features:
  user_id: {group: user, type: categorical, hash_buckets: 500}
  item_id: {group: item, type: categorical, in_history: true}
  category: {group: item, type: categorical, hash_buckets: 100, in_history: true}
  words: {group: item, type: categorical_list, max_length: 2, hash_buckets: 100}
  price: {group: item, type: numeric, transform: log}
  query: {group: query, type: text, max_length: 3}
  device: {group: context, type: categorical, hash_buckets: 10}
"""
"""Of the simulated shop's columns a few, mostly hashed: an analyzer of TensorFlow Transform takes seconds to build."""
SMALL = (
    "embedding_size=8", "shared_bottom.bottom=[32, 16]", "shared_bottom.tower=[8]", "usr.rank=4", "train.epochs=2",
    "train.batch_size=256", "train.learning_rate=0.003", "embedding_spread=0.3",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the verbs make on the way to a served model."""
    out = tmp_path_factory.mktemp("shop")
    (out / "schema.yaml").write_text(SCHEMA)
    commands = [
        ["simulate", f"--out={out}/logs", "--impressions=20000", "--seed=3"],
        ["preprocess", f"--logs={out}/logs", f"--schema={out}/schema.yaml", f"--out={out}/data"],
        ["train", f"--data={out}/data", f"--out={out}/run", "--set", *SMALL],
        ["evaluate", f"--run={out}/run", f"--out={out}/report"],
        ["export", f"--run={out}/run", f"--out={out}/serving"],
    ]
    for command in commands:
        assert main(command) == 0, command[0]
    return out


@pytest.fixture(scope="module")
def server(made):
    with serve_in_background(made / "serving") as running:
        yield running


def test_figures_tell_more_than_chance(made):
    for document in (made / "run" / "metrics.json", made / "report" / "metrics.json"):
        figures = json.loads(document.read_text())
        assert figures["overall"]["ctr"]["auc"] > 0.55
        assert figures["overall"]["ctr"]["oracle_auc"] > figures["overall"]["ctr"]["auc"]
    assert figures["overall"]["ctr"]["n"] == open_data(made / "data").rows("test")
    assert "<html" in (made / "report" / "report.html").read_text(encoding="utf-8")


def test_served_scores_are_the_offline_ones(made, server):
    run = open_run(made / "run")
    logged = [path.read_text().splitlines() for path in run.requests.glob("*.jsonl")]
    with Ranker(server.address) as ranker:
        requests, difference = serving_difference(run, open_data(made / "data"), ranker)
    assert requests == sum(map(len, logged))
    assert min(map(len, logged)) > 20  # in each of two scenarios
    assert len(logged) == 2
    assert difference < 1e-5


@pytest.mark.parametrize("scenario", ["search", "recommendation"])
def test_score_ranks_a_logged_request(made, server, scenario, capsys, tmp_path):
    line = (made / "run" / "requests" / f"{scenario}.jsonl").read_text().splitlines()[0]
    (tmp_path / "request.json").write_text(line)
    request = json.loads(line)
    arguments = [f"--address={server.address}", f"--scenario={scenario}", f"--request={tmp_path}/request.json"]
    assert main(["score", *arguments]) == 0
    out = capsys.readouterr().out
    assert request["request_id"] in out
    places = {item: out.index(item) for item in request["inputs"]["item_id"]}
    with Ranker(server.address) as ranker:
        ranking = ranker.score(scenario, request)
    assert sorted(places, key=places.get) == [row["item_id"] for row in ranking]
    assert [row["ctr"] for row in ranking] == sorted((row["ctr"] for row in ranking), reverse=True)


@pytest.mark.parametrize("scenario", ["search", "recommendation"])
def test_score_ranks_the_template_of_a_request(made, server, scenario, capsys, tmp_path):
    assert main(["request", f"--model={made}/serving", f"--scenario={scenario}"]) == 0
    (tmp_path / "request.json").write_text(capsys.readouterr().out)
    arguments = [f"--address={server.address}", f"--scenario={scenario}", f"--request={tmp_path}/request.json"]
    assert main(["score", *arguments, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["item_id"] for row in rows} == {"item_id 1", "item_id 2"}
    assert all(0 < row["ctcvr"] < row["ctr"] < 1 for row in rows)


def test_score_refuses_what_the_model_does_not_know(made, server, capsys, tmp_path):
    request = json.loads((made / "run" / "requests" / "search.jsonl").read_text().splitlines()[0])
    request["inputs"]["colour"] = "red"
    (tmp_path / "request.json").write_text(json.dumps(request))
    arguments = [f"--address={server.address}", "--scenario=search", f"--request={tmp_path}/request.json"]
    assert main(["score", *arguments]) == 2
    assert "request.json: inputs.colour: found an unknown input" in capsys.readouterr().err
    assert main(["score", arguments[0], "--scenario=browse", arguments[2]]) == 2
    assert "scenario: found 'browse', expected one of" in capsys.readouterr().err
