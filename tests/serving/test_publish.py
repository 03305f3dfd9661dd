"""Publish: parity of the published version, and label edits that TF Serving accepts."""

import dataclasses
import fcntl
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import serving.publishing.publish as module
from serving.formats.logged_requests import LoggedRequest, read_requests
from serving.publishing.golden import Difference, read_golden
from serving.publishing.labels import Rollout, read_rollout
from serving.publishing.publish import check_figures, check_scores, promote, publish, roll_back, roll_back_labels
from serving.publishing.versions import LOCK, list_versions
from usr_tf.errors import InputError
from usr_tf.metrics import Predictions
from usr_tf.schema import parse_schema

SCHEMA = parse_schema(
    """\
scenarios: [search]
tasks: [{name: ctr, action: click}, {name: ctcvr, action: purchase}]
history: {actions: [click], max_length: 5}
features:
  user_id: {group: user, type: categorical}
  item_id: {group: item, type: categorical, in_history: true}
  price: {group: item, type: numeric}
  attributes: {group: item, type: categorical_list}
  query: {group: query, type: text}
"""
)
CONFIG = 'model_config_list {{ config {{ name: "usr" base_path: "{}" model_platform: "tensorflow" }} }}\n'


def ctr(*logits: float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.array(logits)))


def golden(*logits: float, bias: float = 0.5, **inputs) -> LoggedRequest:
    """A request that the toy model gives these logits: 1 in search, 0 for item a, 1 for b, 3 for any unknown; price."""
    known = {
        "user_id": "u",
        "query": "tea",
        "item_id": ["a", "b", "z"],
        "price": [0.0, -3.0, -4.5],
        "attributes": [[], [], []],
    }
    expected = {"ctr": ctr(*logits).tolist(), "ctcvr": (bias * ctr(*logits)).tolist()}
    return LoggedRequest("r1", "search", known | inputs, expected)


# The checks


def test_scores_equal_the_offline_ones_by_both_kinds_of_signature(toy_models):
    assert check_scores(toy_models[0.5], [golden(1, -1, -0.5)]).value < 1e-6


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (golden(1, -1, -0.49), r"found a score off by 2.4e-03 \(ctr of item z in request r1 of search: 0.37"),
        (golden(1, -1, -0.5, bias=0.501), r"found a score off by 7.3e-04 \(ctcvr of item a in request r1"),
        (golden(1, -1, -0.5, price=[0.0, None, -4.5]), r"found nan \(ctcvr of item b in request r1 of search\)"),
        (golden(1, 1, 1, price=[0.0, -1.0, -3.0]), "found one ct.* for all candidates of search"),
        (golden(1, -1, -0.5, colour="red"), r"request r1: inputs.colour: found an unknown input"),
    ],
)
def test_other_scores_are_refused(toy_models, request_, said):
    with pytest.raises(InputError, match=said):
        check_scores(toy_models[0.5], [request_])


def test_an_export_that_does_not_load_is_refused(toy_models, tmp_path):
    shutil.copytree(toy_models[0.5], tmp_path / "broken")
    (tmp_path / "broken" / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(InputError, match="the export: found one that does not load"):
        check_scores(tmp_path / "broken", [golden(1, -1, -0.5)])


def test_figures_may_be_worse_by_the_margin_and_no_more():
    def figures(search: float | None, home: float | None) -> dict:
        return {"search": {"ctr": {"auc": search}}, "home": {"ctr": {"auc": home}}}

    gains = check_figures(figures(0.75, 0.5), figures(0.7, 0.501), 0.002, "m")
    assert gains == {("search", "ctr"): pytest.approx(0.05), ("home", "ctr"): pytest.approx(-0.001)}
    assert check_figures(figures(0.75, 0.5), figures(0.7, None), 0.002, "m") == {("search", "ctr"): pytest.approx(0.05)}
    with pytest.raises(InputError, match=r"^m: home.ctr.auc: found 0.50000, expected at least 0.50100, .* less 0.002$"):
        check_figures(figures(0.699, 0.5), figures(0.7, 0.503), 0.002, "m")
    with pytest.raises(InputError, match=r"home.ctr.auc: found none, expected one near 0.5030"):
        check_figures(figures(0.75, None), figures(0.7, 0.503), 0.002, "m")
    with pytest.raises(InputError, match=r"home.ctr.auc: found none"):
        check_figures({"search": {"ctr": {"auc": 0.75}}}, figures(0.7, 0.503), 0.002, "m")


# Publishing


class Shop:
    """Runs and a serving folder. What takes a real run (training, prediction, export) is put in by hand."""

    def __init__(self, folder: Path, model: Path):
        self.out = folder / "serving"
        self.config = folder / "models.config"
        self.config.write_text(CONFIG.format(self.out))
        self.run = SimpleNamespace(
            directory=folder / "run", requests=folder / "run" / "requests", schema=SCHEMA, load_model=lambda: None
        )
        self.run.requests.mkdir(parents=True)
        request = golden().document
        (self.run.requests / "search.jsonl").write_text(json.dumps(request) + "\n")
        self.model, self.logits, self.numbers = model, (1, -1, -0.5), itertools.count(1)
        self.synthetic = dataclasses.replace(golden(1, -1, -0.5, user_id="synthetic-1"), request_id="synthetic-1")

    def publish(self, auc: float = 0.7, labels: bool = False, **options) -> module.Published:
        figures = {"scenarios": {"search": {"ctr": {"auc": auc}}}}
        (self.run.directory / "metrics.json").write_text(json.dumps(figures))
        return publish(self.run, None, self.out, config_file=self.config if labels else None, **options)

    def predict(self, *_, **__) -> Predictions:
        scores = {"ctr": ctr(*self.logits), "ctcvr": 0.5 * ctr(*self.logits)}
        return Predictions(
            scenario=np.zeros(3, int),
            user=np.full(3, b"u", object),
            request=np.full(3, b"r1", object),
            item=np.array([b"a", b"b", b"z"], object),
            position=np.arange(3),
            labels={task: np.array([0, 1, 0]) for task in scores},
            probabilities=scores,
        )

    def export(self, _, out: Path, check) -> Path:
        aside = out / ".aside"
        shutil.copytree(self.model, aside)
        try:
            check(aside)
            return aside.rename(out / str(next(self.numbers)))
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @property
    def folders(self) -> list[str]:
        return sorted({path.name for path in self.out.iterdir()} - {LOCK}) if self.out.exists() else []


@pytest.fixture
def shop(tmp_path, toy_models, monkeypatch) -> Shop:
    shop = Shop(tmp_path, toy_models[0.5])
    monkeypatch.setattr(module, "predict", shop.predict)
    monkeypatch.setattr(module, "export", shop.export)
    monkeypatch.setattr(module, "synthetic_requests", lambda _: {"search": [shop.synthetic]})
    monkeypatch.setattr(
        module, "OfflineScorer", lambda _: SimpleNamespace(score=lambda all: [each.expected for each in all])
    )
    monkeypatch.setattr(module, "write_warmup_requests", lambda folder, _: (folder / "assets.extra").mkdir())
    return shop


@pytest.fixture
def unchecked(monkeypatch) -> None:
    """Where only the folders and the labels matter."""
    monkeypatch.setattr(module, "check_scores", lambda *_: Difference(0.0, "r1", "search", "a", "ctr", 0.5, 0.5))


def test_a_version_carries_what_the_next_one_is_held_against(shop, tmp_path):
    published = shop.publish()
    assert published.version == shop.out / "1"
    assert shop.folders == ["1"]
    assert published.difference.value < 1e-6
    assert (published.label, published.requests, published.served, published.gains) == (None, 1, None, {})
    (request,) = read_golden(published.version)
    assert request.document == shop.synthetic.document  # and not that of a real user
    np.testing.assert_allclose(request.expected["ctr"], ctr(1, -1, -0.5))

    published = shop.publish(auc=0.699, golden_file=tmp_path / "golden.jsonl")
    assert (published.version.name, published.served) == ("2", 1)
    assert published.gains == {("search", "ctr"): pytest.approx(-0.001)}
    (request,) = read_requests(tmp_path / "golden.jsonl")
    assert request.document == golden().document
    assert request.labels["ctr"] == [0, 1, 0]


def test_golden_requests_of_real_rows_stay_out_of_the_served_folder(shop):
    with pytest.raises(InputError, match=r"--golden: found a file in .*serving, expected one elsewhere"):
        shop.publish(golden_file=shop.out / "golden.jsonl")
    assert not shop.out.exists()


def test_synthetic_requests_are_checked_too(shop):
    shop.synthetic = dataclasses.replace(shop.synthetic, expected=golden(1, -1, -0.49).expected)
    with pytest.raises(InputError, match=r"found a score off by .* in request synthetic-1 of search"):
        shop.publish()


def test_a_refusal_leaves_nothing_behind(shop):
    shop.logits = (1, -1, -0.49)
    with pytest.raises(InputError, match="golden requests: found a score off by"):
        shop.publish()
    assert not shop.out.exists()

    shop.logits = (1, -1, -0.5)
    shop.publish(auc=0.7)
    with pytest.raises(
        InputError, match=r"metrics\.json: search\.ctr\.auc: found 0\.69000, expected at least 0\.69800"
    ):
        shop.publish(auc=0.69)
    shop.publish(auc=0.69, margin=0.02)
    (shop.run.requests / "search.jsonl").unlink()
    with pytest.raises(InputError, match="found no logged request"):
        shop.publish()
    assert shop.folders == ["1", "2"]


@pytest.mark.usefixtures("unchecked")
def test_the_newest_versions_are_kept(shop):
    assert [shop.publish(keep=2).removed for _ in range(4)] == [[], [], [1], [2]]
    assert shop.folders == ["3", "4"]


@pytest.mark.usefixtures("unchecked")
def test_one_publishes_at_a_time(shop):
    shop.publish()
    with (shop.out / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for change in (shop.publish, lambda: roll_back(shop.out), lambda: promote(shop.out, shop.config)):
            with pytest.raises(InputError, match="found another publish at work"):
                change()
    shop.publish()


@pytest.mark.usefixtures("unchecked")
def test_rolling_back_takes_the_newest_version_out_of_service(shop):
    with pytest.raises(InputError, match="found no version"):
        roll_back(shop.out)
    shop.publish()
    with pytest.raises(InputError, match="found version 1 alone, expected one before it"):
        roll_back(shop.out)
    shop.publish()
    assert roll_back(shop.out) == (shop.out / "2.withdrawn", 1)
    assert list_versions(shop.out) == {1}
    assert (shop.out / "2.withdrawn" / "saved_model.pb").exists()


# Labels


@pytest.mark.usefixtures("unchecked")
def test_a_canary_is_published_promoted_and_rolled_back(shop):
    assert shop.publish(labels=True).label == "stable"
    assert shop.publish(labels=True).label == "canary"
    assert read_rollout(shop.config, "usr") == Rollout(1, 2, frozenset({1, 2}))
    with pytest.raises(InputError, match="found version 2 as canary, expected none: --promote or --rollback"):
        shop.publish(labels=True)
    assert promote(shop.out, shop.config) == Rollout(2, None, frozenset({1, 2}))
    with pytest.raises(InputError, match="found no canary"):
        promote(shop.out, shop.config)
    assert roll_back_labels(shop.out, shop.config) == Rollout(1, None, frozenset({1}))
    assert shop.folders == ["1", "2"]  # a server that has not read the file yet serves 2
    with pytest.raises(InputError, match=r"found no version before 1 that is in .* and loaded"):
        roll_back_labels(shop.out, shop.config)

    published = shop.publish(labels=True)  # by now no server does
    assert (published.label, published.served) == ("canary", 1)
    assert shop.folders == ["1", "2.withdrawn", "3"]


@pytest.mark.usefixtures("unchecked")
def test_a_version_that_cannot_get_its_label_is_taken_back(shop, monkeypatch):
    shop.publish(labels=True)

    write = Path.write_text

    def full(path, *args, **options):
        if "models.config" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, *args, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"models\.config: found no writable file \(No space left on device\)"):
        shop.publish(labels=True)
    assert shop.folders == ["1"]


@pytest.mark.usefixtures("unchecked")
def test_figures_are_compared_with_the_stable_version(shop):
    shop.publish(auc=0.7, labels=True)
    shop.publish(auc=0.8, labels=True)
    roll_back_labels(shop.out, shop.config)
    assert shop.publish(auc=0.7, labels=True).served == 1


@pytest.mark.usefixtures("unchecked")
def test_what_is_served_by_number_is_stable_once_there_are_labels(shop):
    shop.publish()
    shop.publish()
    assert shop.publish(labels=True).label == "canary"
    assert read_rollout(shop.config, "usr") == Rollout(2, 3, frozenset({2, 3}))


@pytest.mark.usefixtures("unchecked")
def test_what_is_served_by_number_is_not_always_the_newest(shop):
    shop.publish()
    shop.publish()
    shop.config.write_text(
        CONFIG.format(shop.out).replace("} }", "model_version_policy { specific { versions: 1 } } } }")
    )
    assert shop.publish(labels=True).served == 1
    assert read_rollout(shop.config, "usr") == Rollout(1, 3, frozenset({1, 3}))


@pytest.mark.parametrize("published", [1, 2])
def test_a_refusal_leaves_labels_and_folders_as_they_were(shop, published):
    for _ in range(published):
        shop.publish(labels=published > 1)
    if published > 1:
        roll_back_labels(shop.out, shop.config)  # its folder is withdrawn by the next that goes through
    before = shop.config.read_text(), shop.folders
    shop.logits = (1, -1, -0.49)
    with pytest.raises(InputError, match="found a score off by"):
        shop.publish(labels=True)
    assert (shop.config.read_text(), shop.folders) == before


@pytest.mark.usefixtures("unchecked")
def test_a_labelled_version_that_is_not_in_the_folder_is_refused(shop):
    """Else `stable` would move to what no server can load, and new figures would be compared with none."""
    shop.publish(labels=True)
    shop.publish(labels=True)
    (shop.out / "2").rename(shop.out / "lost")
    with pytest.raises(InputError, match=r"models\.config: found version 2 as canary, expected a version that is in"):
        promote(shop.out, shop.config)
    roll_back_labels(shop.out, shop.config)
    (shop.out / "1").rename(shop.out / "lost too")
    with pytest.raises(InputError, match=r"models\.config: found version 1 as stable, expected a version that is in"):
        shop.publish(labels=True)
    assert read_rollout(shop.config, "usr") == Rollout(1, None, frozenset({1}))


def test_figures_that_are_no_numbers_are_refused(shop):
    shop.publish()
    with pytest.raises(InputError, match=r"search\.ctr\.auc: found none"):
        shop.publish(auc=float("nan"))
    (shop.run.directory / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match=r"metrics\.json: found no figures"):
        publish(shop.run, None, shop.out)


@pytest.mark.usefixtures("unchecked")
def test_a_version_with_a_label_of_the_operators_own_is_kept(shop):
    shop.publish(labels=True)
    shop.config.write_text(shop.config.read_text().replace('key: "stable"', 'key: "audit"'))
    for _ in range(4):
        shop.publish(labels=True, keep=2)
        if read_rollout(shop.config, "usr").canary:
            promote(shop.out, shop.config)
    assert shop.folders == ["1", "4", "5"]
    assert read_rollout(shop.config, "usr") == Rollout(5, None, frozenset({1, 4, 5}))


class Server:
    """How TF Serving takes a configuration file, from `ServerCore::ReloadConfig`: labels first, then versions.

    Started with `--allow_version_labels_for_unavailable_models`: a label that is new may stand on any version.
    """

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.loaded: set[int] = set()

    def read(self, rollout: Rollout, folder: frozenset[int]) -> None:
        labels = {"stable": rollout.stable, "canary": rollout.canary}
        labels = {label: version for label, version in labels.items() if version is not None}
        for label, version in labels.items():
            moved = self.labels.get(label, version) != version
            assert not moved or version in self.loaded, f"refused: {label} on {version}, of {self.loaded} loaded"
        self.labels = labels
        self.loaded = set(rollout.loaded) & folder
        assert set(labels.values()) <= self.loaded


@pytest.mark.usefixtures("unchecked")
@hypothesis.settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    steps=st.lists(st.sampled_from(["publish", "promote", "roll back"]), min_size=4, max_size=12),
    keep=st.integers(2, 3),
)
def test_no_edit_is_one_that_tf_serving_refuses(shop, steps, keep):
    shutil.rmtree(shop.out, ignore_errors=True)
    shop.config.write_text(CONFIG.format(shop.out))
    server = Server()
    for step in ["publish", *steps]:
        before, folders = shop.config.read_text(), shop.folders
        try:
            if step == "publish":
                shop.publish(labels=True, keep=keep)
            elif step == "promote":
                promote(shop.out, shop.config)
            else:
                roll_back_labels(shop.out, shop.config)
        except InputError:
            assert (shop.config.read_text(), shop.folders) == (before, folders)
        server.read(read_rollout(shop.config, "usr"), list_versions(shop.out))
        assert "stable" in server.labels
