"""`usr-tf abtest` on the logs of two policies: documents, refusals, and the public sample's figures."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.sources import import_logs
from tests.experiments.off_policy.open_bandit_pipeline import obp_estimates
from tests.pipelines.sources.generated import write_obd
from usr_tf import cli
from usr_tf.experiments.off_policy.estimators import estimates
from usr_tf.experiments.off_policy.logged_policies import read_logged_policies
from usr_tf.experiments.off_policy.reward_model import fit_reward_model
from usr_tf.experiments.off_policy.target_policies import logged_policy

SAMPLE = Path(__file__).parents[4] / "shared/data/obd"


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("obd")
    import_logs("obd", [str(write_obd(folder / "in"))], folder / "logs", progress=False)
    return folder / "logs"


def rows_of(logs, table):
    (path,) = logs.glob(f"{table}-*")
    return path, [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_the_command_estimates_each_policy_from_the_others_log(logs, tmp_path, capsys):
    assert cli.main(["abtest", f"--logs={logs}", f"--out={tmp_path / 'out'}", "--seed=3"]) == 0
    printed = capsys.readouterr().out
    document = json.loads((tmp_path / "out/off_policy.json").read_text())
    page = (tmp_path / "out/off_policy.html").read_text()
    pairs = {(row["scenario"], row["logging"], row["target"]) for row in document["estimates"]}
    assert pairs == {
        (scenario, *pair) for scenario in ("all", "men", "women") for pair in (("bts", "random"), ("random", "bts"))
    }
    for row in document["estimates"]:
        assert f"{row['target']} from the log of {row['logging']}" in page
        assert f"{row['scenario']}: {row['logging']} → {row['target']}" in printed
        _, log = rows_of(logs, "impressions")
        own = [each for each in log if (each["scenario"], each["policy"]) == (row["scenario"], row["target"])]
        assert row["truth"]["impressions"] == len(own) == 400
        assert row["estimates"]["snips"]["agrees"] is True
        assert row["estimates"]["dm"]["interval"] is None
    assert "usr-tf abtest --logs=" in page
    assert "--seed=3" in page
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"off_policy.html", "off_policy.json"}


def test_weights_and_clicks_are_those_of_the_log(logs):
    _, scenarios = read_logged_policies(logs)
    _, impressions = rows_of(logs, "impressions")
    _, actions = rows_of(logs, "actions")
    clicked = {action["request_id"] for action in actions}
    for scenario in scenarios:
        for policy, log in scenario.logs.items():
            own = [row for row in impressions if (row["scenario"], row["policy"]) == (scenario.name, policy)]
            own.sort(key=lambda row: row["timestamp"])
            assert scenario.items["item_id"][log.item].tolist() == [row["item_id"] for row in own]
            assert log.propensity.tolist() == [row["propensity"] for row in own]
            assert (log.position + 1).tolist() == [row["position"] for row in own]
            assert log.click.tolist() == [row["request_id"] in clicked for row in own]
            assert scenario.contexts["affinity_items"][log.context].tolist() == [
                tuple(row["affinity_items"]) for row in own
            ]


def changed(change):
    """A change of the first impression."""

    def apply(logs):
        path, rows = rows_of(logs, "impressions")
        change(rows)
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))

    return apply


def clicks_without_requests(logs):
    path, rows = rows_of(logs, "actions")
    rows[0].pop("request_id")
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (
            changed(lambda rows: [row.pop("policy") for row in rows]),
            "jsonl.gz:1: policy: found nothing, expected the policy that",
        ),
        (
            changed(lambda rows: rows[1].update(propensity=0)),
            "jsonl.gz:2: propensity: found 0.0, expected the policy's",
        ),
        (
            changed(lambda rows: rows[1].update(propensity=1.5)),
            "jsonl.gz:2: propensity: found 1.5, expected the policy's",
        ),
        (
            changed(lambda rows: rows[1].pop("propensity")),
            "jsonl.gz:2: propensity: found nothing, expected the policy's",
        ),
        (changed(lambda rows: rows[2].pop("position")), "jsonl.gz:3: position: found nothing, expected the position"),
        (changed(lambda rows: rows[2].update(scenario="kids")), "jsonl.gz:3: found unknown_scenario, expected a row"),
        (
            changed(lambda rows: rows[0].update(item_id="all/9")),
            "items: item_id: found no all/9, expected a row for each",
        ),
        (changed(lambda rows: [row.update(policy="x") for row in rows]), "policy: found x alone, expected logs of two"),
        (clicks_without_requests, "actions-00000-of-00001.jsonl.gz:1: request_id: found nothing, expected the request"),
        (lambda logs: (logs / "schema.yaml").unlink(), "schema.yaml: found no readable file"),
    ],
)
def test_logs_that_no_estimate_can_be_made_of_are_refused(logs, tmp_path, capsys, change, refusal):
    shutil.copytree(logs, tmp_path / "logs")
    change(tmp_path / "logs")
    assert cli.main(["abtest", f"--logs={tmp_path / 'logs'}", f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert refusal in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "refusal"),
    [
        ("--days=3", "usr-tf abtest: --days: found logs of no simulated shop"),
        ("--temperature=0", "--temperature: found 0.0, expected 0.2 to 1000 places"),
        ("--by=ctcvr", "--by 'ctcvr', column 1: found the name 'ctcvr', expected one of ctr"),
        ("--b=nowhere", "nowhere: found no exported model"),
    ],
)
def test_flags_that_do_not_fit_are_refused(logs, tmp_path, capsys, flag, refusal):
    assert cli.main(["abtest", f"--logs={logs}", f"--out={tmp_path / 'out'}", flag]) == 2
    assert refusal in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_simulated_shop_needs_both_models(tmp_path, capsys):
    (tmp_path / "simulation.json").write_text("{}")
    assert cli.main(["abtest", f"--logs={tmp_path}", f"--out={tmp_path / 'out'}", f"--a={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("usr-tf abtest: --b: found nothing, expected a model for each arm")


OBP = {"all": (0.00235964, 0.00233371), "men": (0.00300863, 0.00318942), "women": (0.00743758, 0.00237305)}
"""IPS and SNIPS of `random` from the log of `bts`, by the Open Bandit Pipeline 0.4.1."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Schema and scenarios of the public sample."""
    if not SAMPLE.is_dir():
        pytest.skip("the sample of the Open Bandit Dataset is not here")
    logs = tmp_path_factory.mktemp("sample") / "logs"
    import_logs("obd", [str(SAMPLE)], logs, progress=False)
    return read_logged_policies(logs)


def test_the_public_sample_gives_the_figures_of_the_open_bandit_pipeline(sample):
    _, scenarios = sample
    effective, largest = [], []
    for scenario in scenarios:
        log = scenario.logs["bts"]
        flat = np.full(log.item.size, log.rate)
        found = estimates(1 / len(scenario.items) / log.propensity, log.click, flat, flat)
        assert (found["ips"].value, found["snips"].value) == pytest.approx(OBP[scenario.name], abs=1e-8)
        assert found["ips"].refusal
        assert found["snips"].refusal
        assert not found["snips_clipped"].refusal
        effective.append(round(found["ips"].effective))
        largest.append(round(found["ips"].largest))
    assert effective == [340, 656, 2]
    assert largest == [278, 178, 21_739]


@pytest.mark.parametrize(("logging", "target"), [("bts", "random"), ("random", "bts")])
def test_parity_with_the_open_bandit_pipeline_on_the_public_sample(sample, logging, target):
    pytest.importorskip("obp.ope", reason="needs `pip install --no-deps obp` and torch")
    schema, scenarios = sample
    for scenario in scenarios:
        rng, log = np.random.default_rng(0), scenario.logs[logging]
        policy = logged_policy(scenario.logs[target], log, len(scenario.items), scenario.positions, rng)
        chances, clicks = policy.chances(log), fit_reward_model(schema, scenario, log, rng).clicks()
        expected, direct = clicks[np.arange(log.item.size), log.item], (clicks * chances).sum(axis=1)
        found = estimates(policy.displayed(log) / log.propensity, log.click, expected, direct)
        clips = {name: found[name].clip or np.inf for name in ("snips_clipped", "dr_clipped")}
        for name, value in obp_estimates(chances, clicks, log.item, log.propensity, log.click, clips).items():
            assert found[name].value == pytest.approx(value, rel=1e-9), (scenario.name, name)
